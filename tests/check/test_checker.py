"""The check of a complete data set, its output, its exit codes and its options."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import prepare_dataset
from tests.check.helpers import (
    MOTION_FILE,
    RGB_FILE,
    corrupt_bytes,
    edit_attributes,
    edit_manifest,
    edit_text,
    problem_names,
    remove_items,
    replace_arrays,
    run_check,
)
from tests.conftest import CLASSES, moving_frames, write_video
from tests.untrusted_files import exit_code
from vimoclip.check import checker, problems
from vimoclip.errors import UserError


def test_complete_dataset_has_no_problem(complete_dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = run_check(complete_dataset)
    assert report["problems"] == report["notes"] == []
    counts = {area: (c["entries"], c["fine"], c["skipped"], c["there"]) for area, c in report["areas"].items()}
    assert counts == {
        "annotations": (7, 7, 0, True),
        "videos": (7, 7, 0, True),
        "RGB train": (5, 5, 0, True),
        "RGB val": (2, 2, 0, True),
        "flows": (7, 6, 1, True),
        "motion": (7, 6, 1, True),
    }
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["entries", "fine", "missing", "stale", "broken", "misfit", "failed", "skipped"]
    assert table[5].split() == ["flows", "7", "6", *"-----", "1"]


def test_complete_dataset_with_decode_and_several_processes(complete_dataset: Path) -> None:
    assert run_check(complete_dataset, "--decode", "--num-workers", "2") == run_check(complete_dataset)


def test_check_changes_nothing(dataset: Path) -> None:
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in dataset.rglob("*")}
    run_check(dataset)
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in dataset.rglob("*")} == before


@pytest.mark.parametrize("parts", [(), (RGB_FILE,), ("flows",), (RGB_FILE, "flows")])
def test_files_not_created_yet_are_no_problem(
    parts: tuple[str, ...], complete_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = tmp_path / "dataset"
    for part in ("videos", "annotations"):
        shutil.copytree(complete_dataset / part, dataset / part)
    for part in parts:
        for name in (part, f"{part}.manifest.jsonl"):
            (dataset / name).parent.mkdir(exist_ok=True)
            copy: Any = shutil.copytree if (complete_dataset / name).is_dir() else shutil.copy2
            copy(complete_dataset / name, dataset / name)
    (dataset / "flows").mkdir(exist_ok=True)  # an empty folder counts as none
    report = run_check(dataset)
    assert report["problems"] == []
    existing = {"annotations", "videos", *({RGB_FILE: "RGB train", "flows": "flows"}[part] for part in parts)}
    assert {area for area, counts in report["areas"].items() if counts["there"]} == existing
    assert capsys.readouterr().out.count("not created yet") == 6 - len(existing)


def test_files_of_another_encoder_do_not_fit(dataset: Path) -> None:
    """Change one attribute of the training file; compare with the val file and with the teacher of the motions."""
    changes = {"clip_model": "ViT-L/14", "weights_sha256": "ab", "quick_gelu": True, "resize": "pad", "fill_color": 1}
    for key, value in changes.items():
        copy = Path(shutil.copytree(dataset, dataset.parent / key))
        edit_attributes(copy / RGB_FILE, **{key: value})
        report = run_check(copy)
        expected = ["RGB val, ak_val_clip_embeddings.h5, misfit", "motion, flow_embeddings.h5, misfit"]
        assert problem_names(report) == expected
        assert all(problem["reason"].startswith(f"{key} is {value}") for problem in report["problems"])
        assert (report["areas"]["RGB val"]["fine"], report["areas"]["motion"]["fine"]) == (0, 0)


def test_files_of_another_sampling_do_not_fit(dataset: Path) -> None:
    edit_attributes(dataset / RGB_FILE, sampling={"stride": 2})
    expected = [
        "RGB val, ak_val_clip_embeddings.h5, misfit",
        "flows, flows, misfit",
        "motion, flow_embeddings.h5, misfit",
    ]
    assert problem_names(run_check(dataset)) == expected


def test_video_that_was_extracted_is_opened_only_if_it_changed(dataset: Path) -> None:
    """Corruption that keeps size and time is found with --decode only."""
    corrupt_bytes(dataset / "videos/t1.mp4", 0)
    assert run_check(dataset)["problems"] == []
    assert problem_names(run_check(dataset, "--decode")) == ["videos, t1.mp4, broken"]
    (dataset / f"{RGB_FILE}.manifest.jsonl").unlink()
    assert problem_names(run_check(dataset)) == ["videos, t1.mp4, broken"]


def test_links_to_videos_are_videos(dataset: Path) -> None:
    (dataset / "videos").rename(dataset / "elsewhere")
    (dataset / "videos").mkdir()
    for path in (dataset / "elsewhere").iterdir():
        (dataset / "videos" / path.name).symlink_to(path)
    assert run_check(dataset, "--decode")["problems"] == []


def test_partially_decoded_video_is_a_note(dataset: Path) -> None:
    edit_manifest(
        dataset / f"{RGB_FILE}.manifest.jsonl", "t1.mp4", status="partial", reason="2 of 12 frames can't be decoded"
    )
    report = run_check(dataset)
    assert report["problems"] == []
    note = {"area": "RGB train", "id": "t1.mp4", "reason": "partial: 2 of 12 frames can't be decoded"}
    assert report["notes"] == [note]


def test_videos_that_are_not_annotated_may_have_flow_and_motion(dataset: Path) -> None:
    edit_text(dataset / "annotations/train_multi.txt", "t1.mp4 1\n", "")
    remove_items(dataset / RGB_FILE, "t1.mp4")
    write_video(dataset / "videos" / "new.mp4", moving_frames(5, (1, 1)), lossless=False)
    report = run_check(dataset)
    assert report["problems"] == []
    class_note, note = report["notes"]  # the only clip of a class is gone
    assert class_note["area"] == "annotations" and CLASSES[1] in class_note["reason"]
    assert (note["area"], note["id"]) == ("videos", "") and note["reason"].startswith("2 ")
    assert [report["areas"][area]["entries"] for area in ("annotations", "videos", "flows", "motion")] == [6, 8, 7, 7]


def test_failed_flow_of_a_video_that_is_not_annotated_counts(dataset: Path) -> None:
    write_video(dataset / "videos" / "new.mp4", moving_frames(5, (1, 1)), lossless=False)
    path = dataset / "flows.manifest.jsonl"
    path.write_text(path.read_text() + '{"id": "new.mp4", "status": "failed", "reason": "no room"}\n')
    report = run_check(dataset)
    assert problem_names(report) == ["flows, new.mp4, failed"]
    counts = report["areas"]["flows"]
    assert (counts["entries"], counts["fine"], counts["failed"], counts["skipped"]) == (8, 6, 1, 1)


def test_a_clip_of_many_minutes_among_short_ones_is_a_note(dataset: Path) -> None:
    path = dataset / RGB_FILE
    with h5py.File(path) as file:
        width = file["t1.mp4"]["embeddings"].shape[1]
    for frames, is_noted in ((9000, True), (90, False)):
        per_frame = {"frame_indices": np.arange(frames), "timestamps": np.arange(frames) / 15}
        replace_arrays(path, "t1.mp4", embeddings=np.zeros((frames, width), np.float32), **per_frame)
        notes = [note for note in run_check(dataset)["notes"] if "t1.mp4, has" in note["reason"]]
        assert [note["area"] for note in notes] == (["RGB train"] if is_noted else [])


def test_control_characters_are_escaped(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy2(dataset / "videos/t1.mp4", dataset / "videos" / "red\x1b[31m\n.mp4")
    (dataset / "videos" / os.fsdecode(b"halved\xff.mp4")).write_bytes(b"")
    remove_items(dataset / RGB_FILE, "t1.mp4")
    edit_manifest(dataset / f"{RGB_FILE}.manifest.jsonl", "t1.mp4", status="failed", reason="\x1b]0;owned\x07\nfine")
    report = run_check(dataset)
    assert {*problem_names(report)} >= {"RGB train, t1.mp4, failed", r"videos, red\x1b[31m\n.mp4, misfit"}
    texts = [text for problem in report["problems"] for text in problem.values()] + capsys.readouterr().out.splitlines()
    assert len(texts) > 20
    assert not [text for text in texts if re.search("[\x00-\x1f\x7f-\x9f\ud800-\udfff]", text)]


def test_terminal_output_is_limited_and_json_is_complete(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotations = dataset / "annotations/train_multi.txt"
    names = [f"x{i:02d}.mp4" for i in range(problems.MAX_LINES + 3)]
    annotations.write_text(annotations.read_text() + "".join(f"{name} 0\n" for name in names))
    (dataset / "flows/t1.mp4").unlink()
    found = run_check(dataset)["problems"]
    assert sum(problem["area"] == "videos" for problem in found) == len(names)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("videos: ")]
    assert [line.split(": ")[1] for line in lines[:-1]] == names[: problems.MAX_LINES]
    assert lines[-1].startswith("videos: missing: 3 more")
    cures = {(problem["area"], problem["id"]): problem["cure"] for problem in found}
    assert "add its video" in cures["flows", "x00.mp4"] and "extract_flows.py" in cures["flows", "t1.mp4"]


def test_exit_codes_and_json_on_stdout(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["check", "--dataset-dir", str(dataset), "--num-workers", "0", "--json", "-"]
    prepare_dataset.main(command)
    output = capsys.readouterr()
    assert json.loads(output.out)["fine"] and str(dataset) in output.err
    (dataset / "flows/t1.mp4").unlink()
    assert exit_code(prepare_dataset.main, *command) == 1
    output = capsys.readouterr()
    assert problem_names(json.loads(output.out)) == ["flows, t1.mp4, missing"]
    assert output.err.splitlines()[-1].startswith(f"error: {dataset}: 1 problem, in flows")


@pytest.mark.parametrize(
    "flags",
    [
        ("--dataset-dir", "nowhere"),
        ("--dataset-name", "other"),
        ("--videos-dir", "nowhere"),
        ("--flow-videos-dir", "nowhere"),
        ("--embeddings-dir", "nowhere"),
        ("--motion-h5-path", "nowhere.h5"),
        ("--json", "."),
    ],
)
def test_usage_errors_have_exit_code_2(flags: tuple[str, str], complete_dataset: Path) -> None:
    with pytest.raises(UserError) as caught:
        prepare_dataset.main(["check", "--dataset-dir", str(complete_dataset), "--num-workers", "0", *flags])
    assert caught.value.exit_code == 2 and caught.value.hint


def test_paths_can_be_given(dataset: Path) -> None:
    flags = []
    for flag, part in (("--videos-dir", "videos"), ("--flow-videos-dir", "flows"), ("--motion-h5-path", MOTION_FILE)):
        (dataset.parent / "other").mkdir(exist_ok=True)
        target = dataset.parent / "other" / Path(part).name
        for name, destination in ((part, target), (f"{part}.manifest.jsonl", Path(f"{target}.manifest.jsonl"))):
            if (dataset / name).exists():
                (dataset / name).rename(destination)
        flags += [flag, str(target)]
    (dataset / "embeddings").rename(dataset.parent / "other" / "rgb")
    flags += ["--embeddings-dir", str(dataset.parent / "other" / "rgb")]
    report = run_check(dataset, *flags)
    assert report["problems"] == []
    assert all(counts["there"] for counts in report["areas"].values())


def exit_process(task: Any) -> Any:
    """End the process during a task, as the kernel does if memory is short."""
    os._exit(9)


def test_killed_worker_is_an_error() -> None:
    with pytest.raises(checker.CheckError) as caught:
        list(checker.map_in_processes(exit_process, [["a"], ["b"]], 2))
    assert caught.value.exit_code == 1
    assert "--num-workers 1" in caught.value.hint


def test_files_without_geometry_are_named(dataset: Path) -> None:
    assert not run_check(dataset)["notes"]
    for file in (RGB_FILE, MOTION_FILE):
        with h5py.File(dataset / file, "r+") as embeddings:
            del embeddings.attrs["geometry"]
    report = run_check(dataset)
    assert report["fine"]
    assert [note["area"] for note in report["notes"]] == ["RGB train", "motion"]
