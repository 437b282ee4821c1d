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


def test_clips_whose_names_can_not_be_used_are_in_no_split(tmp_path: Path) -> None:
    """Else a split may be drawn of them, and be left without a label."""
    folder = tmp_path / "in"
    folder.mkdir()
    film = write_video(tmp_path / "film.mp4", indexed_frames(50, 32, 32)).read_bytes()
    lines = []
    for number in range(12):
        name = f"{number:02}{'x' * 245 if number < 6 else ''}.mp4"
        (folder / name).write_bytes(film)
        lines.append(f"{name},walk,0,1\n")
    (folder / "t.csv").write_text("video,labels,start,end\n" + "".join(lines))
    ids, skipped = run(tmp_path, "csv", str(folder / "t.csv"))
    assert (len(ids), len(skipped)) == (6, 6)
    data = annotations.load(tmp_path / "dataset" / "annotations", "ak")
    assert {split: len(videos) for split, videos in data.splits.items()} == {"train": 4, "val": 2}
