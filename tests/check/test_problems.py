"""Each kind of problem that a check finds: one thing is broken in a complete data set, and only that is reported."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.check.helpers import (
    MOTION_FILE,
    RGB_FILE,
    SPLITS,
    corrupt_frames,
    edit_attributes,
    edit_manifest,
    edit_text,
    problem_names,
    remove_items,
    replace_arrays,
    rewrite_flow,
    run_check,
)
from tests.conftest import moving_frames, write_video

# a case: a function that breaks the data set, flags, the expected problems, and the reason of the first of them
CASES: list[Any] = []
BreakFunction = Callable[[Path], Any]


def case(reason: str, *expected: str, flags: tuple[str, ...] = ()) -> Callable[[BreakFunction], BreakFunction]:
    def register(break_dataset: BreakFunction) -> BreakFunction:
        CASES.append(pytest.param(break_dataset, flags, list(expected), reason, id=break_dataset.__name__))
        return break_dataset

    return register


# annotations


@case(r"train_multi.txt:2: label 7 of t1.mp4 is not in 0..2", "annotations, annotations, broken")
def annotations_with_a_label_out_of_range(dataset: Path) -> None:
    edit_text(dataset / "annotations/train_multi.txt", "t1.mp4 1", "t1.mp4 7")


# videos


@case("isn't in .*videos", "videos, t1.mp4, missing")
def a_video_that_is_gone(dataset: Path) -> None:
    (dataset / "videos/t1.mp4").unlink()


@case("there is no such folder", "videos, videos, missing")
def no_videos_folder(dataset: Path) -> None:
    shutil.rmtree(dataset / "videos")


@case("is not a video", "videos, t1.mp4, broken", "RGB train, t1.mp4, stale", "flows, t1.mp4, stale")
def a_video_with_other_content(dataset: Path) -> None:
    (dataset / "videos/t1.mp4").write_text("this is no video")


@case("cut short", "videos, new.mp4, broken")
def a_truncated_video_that_is_not_annotated(dataset: Path) -> None:
    (dataset / "videos/new.mp4").write_bytes((dataset / "videos/t1.mp4").read_bytes()[:-300])


@case("the link points nowhere", "videos, t1.mp4, broken")
def a_dangling_link(dataset: Path) -> None:
    (dataset / "videos/t1.mp4").unlink()
    (dataset / "videos/t1.mp4").symlink_to(dataset / "elsewhere.mp4")


@case("frames can't be decoded", "videos, t1.mp4, broken", flags=("--decode",))
def a_video_with_damaged_frames(dataset: Path) -> None:
    corrupt_frames(dataset / "videos/t1.mp4")


@case(
    "isn't named like a video",
    "videos, t1.xyz, misfit",
    *(f"{area}, {n}, missing" for area, n in [("flows", "t1.xyz")]),
)
def a_video_with_an_unknown_extension(dataset: Path) -> None:
    """The video is renamed everywhere, and its flow is removed."""
    for part in ("annotations/train_multi.txt", f"{RGB_FILE}.manifest.jsonl"):
        edit_text(dataset / part, "t1.mp4", "t1.xyz")
    (dataset / "videos/t1.mp4").rename(dataset / "videos/t1.xyz")
    with h5py.File(dataset / RGB_FILE, "r+") as file:
        file.move("t1.mp4", "t1.xyz")
    (dataset / "flows/t1.mp4").unlink()


@case("shares the name of t1.avi", "videos, t1.mp4, misfit")
def two_videos_with_one_stem(dataset: Path) -> None:
    shutil.copy2(dataset / "videos/t1.mp4", dataset / "videos/t1.avi")


@case("may hold no dot", "videos, a.b.mp4, misfit")
def a_video_with_an_invalid_name(dataset: Path) -> None:
    shutil.copy2(dataset / "videos/t1.mp4", dataset / "videos/a.b.mp4")


# RGB embeddings


@case("isn't in .*ak_train_clip_embeddings.h5", "RGB train, t1.mp4, missing")
def missing_embeddings(dataset: Path) -> None:
    remove_items(dataset / RGB_FILE, "t1.mp4")


@case("is empty", "RGB train, t1.mp4, failed")
def failed_embeddings(dataset: Path) -> None:
    remove_items(dataset / RGB_FILE, "t1.mp4")
    edit_manifest(dataset / f"{RGB_FILE}.manifest.jsonl", "t1.mp4", status="failed", reason="is empty (0 bytes)")


@case("manifest has 5 videos as done", "RGB train, ak_train_clip_embeddings.h5, missing")
def unmerged_embeddings(dataset: Path) -> None:
    (dataset / RGB_FILE).unlink()


@case("was written again", "RGB train, t1.mp4, stale", "flows, t1.mp4, stale")
def a_rewritten_video(dataset: Path) -> None:
    os.utime(dataset / "videos/t1.mp4", (1e9, 1e9))


@case(r"has \d+ bytes now, but had \d+", "RGB train, t1.mp4, stale", "flows, t1.mp4, stale")
def a_replaced_video_with_the_same_time(dataset: Path) -> None:
    path = dataset / "videos/t1.mp4"
    state = path.stat()
    write_video(path, moving_frames(10, (3, 2), 32, 44), lossless=False)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@case("labels are 1 in the file but 0 2 in the annotations", "RGB train, t1.mp4, stale")
def changed_labels(dataset: Path) -> None:
    edit_text(dataset / "annotations/train_multi.txt", "t1.mp4 1", "t1.mp4 0 2")


@case("class 1 is running .* but trotting", *(f"RGB {s}, ak_{s}_clip_embeddings.h5, stale" for s in SPLITS))
def a_renamed_class(dataset: Path) -> None:
    edit_text(dataset / "annotations/ak_action.csv", "running", "trotting")


@case("number of classes is 3 .* but 4", *(f"RGB {s}, ak_{s}_clip_embeddings.h5, stale" for s in SPLITS))
def an_added_class(dataset: Path) -> None:
    edit_text(dataset / "annotations/ak_action.csv", "2,eating", "2,eating\n3,flying")


@case("is not annotated in train_multi.txt", "RGB train, t1.mp4, stale")
def embeddings_that_are_no_longer_annotated(dataset: Path) -> None:
    edit_text(dataset / "annotations/train_multi.txt", "t1.mp4 1\n", "")


@case("is not annotated", "RGB train, t1.mp4, stale", "RGB val, t1.mp4, missing")
def a_video_moved_to_the_other_split(dataset: Path) -> None:
    edit_text(dataset / "annotations/train_multi.txt", "t1.mp4 1\n", "")
    edit_text(dataset / "annotations/val_multi.txt", "v0", "t1.mp4 1\nv0")


@case("not an HDF5 file", "RGB train, ak_train_clip_embeddings.h5, broken")
def truncated_embeddings(dataset: Path) -> None:
    content = (dataset / RGB_FILE).read_bytes()
    (dataset / RGB_FILE).write_bytes(content[: len(content) // 2])


@case("holds motion embeddings", "RGB train, ak_train_clip_embeddings.h5, broken")
def motion_file_instead_of_embeddings(dataset: Path) -> None:
    shutil.copy(dataset / MOTION_FILE, dataset / RGB_FILE)


@case("t1.mp4: lacks ", "RGB train, ak_train_clip_embeddings.h5, broken")
def embeddings_that_only_verify_finds_damaged(dataset: Path) -> None:
    remove_items(dataset / RGB_FILE, "t1.mp4/timestamps")


@case("10 embeddings but 4 of frame_indices", "RGB train, t1.mp4, broken")
def embeddings_with_too_few_indices(dataset: Path) -> None:
    replace_arrays(dataset / RGB_FILE, "t1.mp4", frame_indices=np.arange(4))


@case(
    "10 embeddings but 4 of frame_indices",
    *("RGB train, t1.mp4, broken", "RGB train, tt1.mp4, stale", "RGB train, ak_train_clip_embeddings.h5, broken"),
)
def a_damaged_video_whose_name_contains_that_of_another(dataset: Path) -> None:
    with h5py.File(dataset / RGB_FILE, "r+") as file:
        file.copy("t1.mp4", "tt1.mp4")
    remove_items(dataset / RGB_FILE, "tt1.mp4/timestamps")  # only verify finds it
    embeddings_with_too_few_indices(dataset)


@case("is no line of a manifest", "RGB train, ak_train_clip_embeddings.h5.manifest.jsonl, broken")
def a_damaged_manifest_of_embeddings(dataset: Path) -> None:
    edit_text(dataset / f"{RGB_FILE}.manifest.jsonl", '"t1.mp4"', '"t1.mp4')


@case("split val", "RGB train, ak_train_clip_embeddings.h5, misfit")
def embeddings_of_another_split(dataset: Path) -> None:
    edit_attributes(dataset / RGB_FILE, type="val")


@case(
    "names 3 classes, but its labels have 4",
    "RGB train, ak_train_clip_embeddings.h5, stale",
    "RGB val, ak_val_clip_embeddings.h5, misfit",
)
def labels_of_another_width(dataset: Path) -> None:
    with h5py.File(dataset / RGB_FILE) as file:
        keys = list(file)
    for key in keys:
        replace_arrays(dataset / RGB_FILE, key, labels=np.eye(4, dtype=np.float32)[0])


# flows


@case("isn't in .*flows", "flows, t1.mp4, missing")
def a_missing_flow(dataset: Path) -> None:
    (dataset / "flows/t1.mp4").unlink()


@case("no room", "flows, t1.mp4, failed")
def a_failed_flow(dataset: Path) -> None:
    (dataset / "flows/t1.mp4").unlink()
    edit_manifest(dataset / "flows.manifest.jsonl", "t1.mp4", status="failed", reason="no room")


@case("manifest has 6 videos as done", "flows, flows, missing")
def missing_flow_folder(dataset: Path) -> None:
    shutil.rmtree(dataset / "flows")


@case("was written again", "flows, t1.mp4, stale")
def a_flow_of_an_earlier_video(dataset: Path) -> None:
    edit_manifest(dataset / "flows.manifest.jsonl", "t1.mp4", mtime=1e9)


@case("cut short", "flows, t1.mp4, broken", "motion, t1, stale")
def a_truncated_flow(dataset: Path) -> None:
    (dataset / "flows/t1.mp4").write_bytes((dataset / "flows/t1.mp4").read_bytes()[:-300])


@case("frames can't be decoded", "flows, t1.mp4, broken", flags=("--decode",))
def a_flow_with_damaged_frames(dataset: Path) -> None:
    corrupt_frames(dataset / "flows/t1.mp4")


@case(r"has 10 RGB frames but 5 flow frames, not 9", "flows, t1.mp4, misfit", "motion, t1, stale")
def a_flow_that_is_too_short(dataset: Path) -> None:
    rewrite_flow(dataset / "flows/t1.mp4", frames=5)


@case("its flow is of other frames", "flows, t1.mp4, misfit", "motion, t1, stale")
def a_flow_of_other_frames(dataset: Path) -> None:
    rewrite_flow(dataset / "flows/t1.mp4", frame_indices={"start": 3, "step": 1})


@case("normalization is log in most .* but frame", "flows, t1.mp4, misfit", "motion, t1, stale")
def a_flow_with_other_settings(dataset: Path) -> None:
    rewrite_flow(dataset / "flows/t1.mp4", normalization="frame")


@case("says that it shows t2", "flows, t1.mp4, misfit", "motion, t1, stale")
def a_flow_under_the_name_of_another(dataset: Path) -> None:
    rewrite_flow(dataset / "flows/t1.mp4", video="t2")


@case("of no video that is annotated", "flows, gone.mp4, stale")
def a_flow_whose_video_is_gone(dataset: Path) -> None:
    shutil.copy2(dataset / "flows/t1.mp4", dataset / "flows/gone.mp4")


@case("may all be the flow of t1.mp4", "flows, t1.mp4, misfit")
def two_flows_of_one_video(dataset: Path) -> None:
    shutil.copy2(dataset / "flows/t1.mp4", dataset / "flows/t1_raft_things.mp4")
    (dataset / "flows/t1.mp4").rename(dataset / "flows/t1_raft_sintel.mp4")


@case("is no line of a manifest", "flows, flows.manifest.jsonl, broken")
def a_damaged_manifest_of_flows(dataset: Path) -> None:
    edit_text(dataset / "flows.manifest.jsonl", '"t1.mp4"', '"t1.mp4')


@case("can't be read", "flows, flows.manifest.jsonl, broken")
def a_manifest_of_flows_that_is_a_folder(dataset: Path) -> None:
    (dataset / "flows.manifest.jsonl").unlink()
    (dataset / "flows.manifest.jsonl").mkdir()


# motion


@case("isn't in .*flow_embeddings.h5", "motion, t1, missing")
def missing_motions(dataset: Path) -> None:
    remove_items(dataset / MOTION_FILE, "t1")


@case("has no frames", "motion, t1, failed")
def failed_motions(dataset: Path) -> None:
    remove_items(dataset / MOTION_FILE, "t1")
    edit_manifest(dataset / f"{MOTION_FILE}.manifest.jsonl", "t1", status="failed", reason="has no frames")


@case("manifest has 6 videos as done", "motion, flow_embeddings.h5, missing")
def unmerged_motions(dataset: Path) -> None:
    (dataset / MOTION_FILE).unlink()


@case("was written again", "motion, t1, stale")
def a_rewritten_flow(dataset: Path) -> None:
    os.utime(dataset / "flows/t1.mp4", (1e9, 1e9))


@case("10 RGB frames need 9 motions, but there are 4", "motion, t1, misfit")
def too_few_motions(dataset: Path) -> None:
    rows = np.zeros((4, 32), np.float32)
    replace_arrays(dataset / MOTION_FILE, "t1", embeddings=rows, timestamps=np.zeros(4), frame_indices=np.arange(4))


@case("there are 4 motions but 9 flow frames", "motion, t1, misfit")
def too_few_motions_without_embeddings(dataset: Path) -> None:
    too_few_motions(dataset)
    for name in (RGB_FILE, f"{RGB_FILE}.manifest.jsonl"):
        (dataset / name).unlink()


@case("of other frames", "motion, t1, misfit")
def motions_of_other_frames(dataset: Path) -> None:
    replace_arrays(dataset / MOTION_FILE, "t1", frame_indices=np.arange(9) * 2)


@case("of no video that is annotated", "motion, gone, stale")
def motions_whose_video_is_gone(dataset: Path) -> None:
    with h5py.File(dataset / MOTION_FILE, "r+") as file:
        file.copy("t1", "gone")


@case("lacks ", "motion, flow_embeddings.h5, broken")
def damaged_motions(dataset: Path) -> None:
    remove_items(dataset / MOTION_FILE, "t1/timestamps")


@case("not an HDF5 file", "motion, flow_embeddings.h5, broken")
def truncated_motions(dataset: Path) -> None:
    (dataset / MOTION_FILE).write_bytes((dataset / MOTION_FILE).read_bytes()[:3000])


@case("is no line of a manifest", "motion, flow_embeddings.h5.manifest.jsonl, broken")
def a_damaged_manifest_of_motions(dataset: Path) -> None:
    edit_text(dataset / f"{MOTION_FILE}.manifest.jsonl", '"t1"', '"t1')


@case("normalization is frame .* but log", "motion, flow_embeddings.h5, misfit")
def a_student_of_other_flow(dataset: Path) -> None:
    with h5py.File(dataset / MOTION_FILE) as file:
        flow = json.loads(file.attrs["student"])["flow"]
    edit_attributes(dataset / MOTION_FILE, student={"flow": flow | {"normalization": "frame"}})


@case("are 32 wide in .* but 16 in .*flow", *["motion, flow_embeddings.h5, misfit"] * 2)
def motions_of_another_width(dataset: Path) -> None:
    with h5py.File(dataset / MOTION_FILE) as file:
        lengths = {key: len(group["embeddings"]) for key, group in file.items()}
    for key, length in lengths.items():
        replace_arrays(dataset / MOTION_FILE, key, embeddings=np.zeros((length, 16), np.float32))


@pytest.mark.parametrize(("break_dataset", "flags", "expected", "reason"), CASES)
def test_each_problem_is_found_and_nothing_else(
    break_dataset: BreakFunction, flags: tuple[str, ...], expected: list[str], reason: str, dataset: Path
) -> None:
    break_dataset(dataset)
    report = run_check(dataset, *flags)
    assert sorted(problem_names(report)) == sorted(expected)
    first = next(p for p, name in zip(report["problems"], problem_names(report), strict=True) if name == expected[0])
    assert re.search(reason, first["reason"])
    for problem in report["problems"]:
        assert problem["cure"]
        assert problem["reason"]
        assert report["areas"][problem["area"]][problem["kind"]]
        assert report["areas"][problem["area"]]["fine"] < report["areas"][problem["area"]][
            "entries"
        ] or break_dataset is (annotations_with_a_label_out_of_range)


def test_published_files_are_checked_in_part(dataset: Path) -> None:
    for name in (RGB_FILE, MOTION_FILE):
        with h5py.File(dataset / name, "r+") as file:
            for attribute_name in list(file.attrs):
                del file.attrs[attribute_name]
    report = run_check(dataset)
    assert report["problems"] == []
    assert [note["reason"].rpartition(" but ")[2] for note in report["notes"]] == [
        "widths, lengths and labels",
        "widths and lengths",
    ]
    too_few_motions(dataset)
    assert problem_names(run_check(dataset)) == ["motion, t1, misfit"]


def test_problems_do_not_depend_on_the_number_of_processes(dataset: Path) -> None:
    for break_dataset in (a_truncated_flow, changed_labels, damaged_motions, a_flow_whose_video_is_gone):
        break_dataset(dataset)
    report = run_check(dataset)
    assert len(report["problems"]) == 5
    assert run_check(dataset, "--num-workers", "2") == report
