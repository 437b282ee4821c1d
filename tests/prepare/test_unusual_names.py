"""Importers of tables and of BORIS leave out films whose names can't be used, with the reason, and continue."""

import os
from pathlib import Path
from typing import Any

import prepare_dataset
from tests.boris import boris_program
from tests.boris.test_reader import BEHAVIORS
from tests.conftest import indexed_frames, write_video
from vimoclip import annotations

LATIN1, LONG = os.fsdecode(b"B\xe4r.mp4"), "x" * 245 + ".mp4"
NAMES = ["a.mp4", "10:30?.mp4", "aux.mp4", "Ba\u0308r.mp4", LONG, LATIN1]
IDS = {"a", "10-30-", "aux-", "B\u00e4r"}


def write_films(folder: Path) -> None:
    for number, name in enumerate(NAMES):
        write_video(folder / "film.mp4", indexed_frames(50, 32, 32, seed=number)).rename(folder / name)


def run(root: Path, *command: str) -> tuple[set[str], set[str]]:
    """Return (stems of the annotated videos, skipped entries)."""
    flags = ["--dataset-dir", str(root / "dataset"), "--report", str(root / "report.json")]
    report = prepare_dataset.main([*command, *flags])
    data = annotations.load(report.outputs[0], "ak")
    ids = {video for videos in data.splits.values() for video in videos}
    assert ids == {path.name for path in (root / "dataset" / "videos").iterdir()}
    return {annotations.stem(video) for video in ids}, set(report.skipped)


def test_table_of_whole_films_and_of_parts(tmp_path: Path) -> None:
    write_films(tmp_path)
    names = [name for name in NAMES if name != LATIN1]  # a table is UTF-8
    table = tmp_path / "t.csv"
    table.write_text("video,labels\n" + "".join(f"{name},walk\n" for name in names), encoding="utf-8")
    assert run(tmp_path, "csv", str(table)) == (IDS | {LONG.removesuffix(".mp4")}, set())
    (tmp_path / "parts").mkdir()
    table.write_text("video,labels,start,end\n" + "".join(f"{name},walk,0,1\n" for name in names), encoding="utf-8")
    ids, skipped = run(tmp_path / "parts", "csv", str(table))
    assert ids == {f"{stem}_0-1000ms" for stem in IDS}
    assert len(skipped) == 1


def test_boris_project(tmp_path: Path) -> None:
    write_films(tmp_path)
    project: dict[str, Any] = {}
    for name in NAMES:
        rows = [[0.0, "", "walk", "", "", 0], [1.0, "", "walk", "", "", 0]]
        other = boris_program.project(BEHAVIORS, {name: rows}, {name: 2.0})
        project = project or other
        project["observations"] |= other["observations"]
    boris_program.write(tmp_path / "p.boris", project)
    ids, skipped = run(tmp_path, "boris", str(tmp_path / "p.boris"), "--window", "2")
    assert ids == {f"{stem}_0-2000ms" for stem in IDS}
    assert len(skipped) == 2 and LATIN1 in skipped


def test_splits_are_drawn_of_clips_whose_names_can_be_used(tmp_path: Path) -> None:
    """Else a split may lose all its labels."""
    film = write_video(tmp_path / "film.mp4", indexed_frames(50, 32, 32)).read_bytes()
    splits = []
    for suffix in ("x" * 245, ""):
        folder = tmp_path / f"in{len(suffix)}"
        folder.mkdir()
        names = [f"{number:02}{suffix if number % 2 else ''}.mp4" for number in range(12)]
        for name in names if suffix else names[::2]:
            (folder / name).write_bytes(film)
        (folder / "t.csv").write_text("video,labels,start,end\n" + "".join(f"{name},walk,0,1\n" for name in names))
        ids, skipped = run(folder, "csv", str(folder / "t.csv"))
        assert (len(ids), len(skipped)) == (6, 6)
        data = annotations.load(folder / "dataset" / "annotations", "ak")
        splits.append({split: list(videos) for split, videos in data.splits.items()})
    assert splits[0] == splits[1]
