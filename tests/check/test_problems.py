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
from tests.video_files import DISPLAY_MATRICES, write_display_matrix

# a case: a function that breaks the data set, flags, the expected problems, and the reason of the first of them
CASES: list[Any] = []
BreakFunction = Callable[[Path], Any]


def case(*expected: str, reason: str = "", flags: tuple[str, ...] = ()) -> Callable[[BreakFunction], BreakFunction]:
    def register(break_dataset: BreakFunction) -> BreakFunction:
        CASES.append(pytest.param(break_dataset, flags, list(expected), reason, id=break_dataset.__name__))
        return break_dataset

    return register


# annotations


@case("annotations, annotations, broken", reason="train_multi.txt:2: .*7")
def annotations_with_a_label_out_of_range(dataset: Path) -> None:
    edit_text(dataset / "annotations/train_multi.txt", "t1.mp4 1", "t1.mp4 7")


def write_annotation_file(dataset: Path, name: str, text: str) -> None:
    (dataset / "annotations" / name).write_text(text)


@case("annotations, selection.txt, broken", reason=r"\(v0.mp4\)")
def a_selection_of_a_val_video(dataset: Path) -> None:
    write_annotation_file(dataset, "selection.txt", "t0.mp4\nv0.mp4\n")


@case("annotations, selection.txt, broken", reason=":2: t0.mp4")
def a_duplicated_selection_clip(dataset: Path) -> None:
    write_annotation_file(dataset, "selection.txt", "t0.mp4\nt0.mp4\n")


@case("annotations, selection.txt, misfit", reason="label")
def a_selection_without_a_label(dataset: Path) -> None:
    remove_labels(dataset, "train", "t1.mp4")
    write_annotation_file(dataset, "selection.txt", "t1.mp4\n")


@case("annotations, val_multi.txt, misfit", reason="label")
def a_val_split_without_a_label(dataset: Path) -> None:
    remove_labels(dataset, "val", "v0.mp4", "v1.mp4")


def remove_labels(dataset: Path, split: str, *videos: str) -> None:
    """Make videos of a split negatives, in the annotations and in the embeddings."""
    for video in videos:
        edit_text(dataset / f"annotations/{split}_multi.txt", f"{video} {video[1]}", video)
        replace_arrays(dataset / f"embeddings/ak_{split}_clip_embeddings.h5", video, labels=np.zeros(3, np.float32))


@case("annotations, sources.csv, broken", reason=":1|:2")
def sources_without_a_column(dataset: Path) -> None:
    write_annotation_file(dataset, "sources.csv", "video_id\nt0.mp4\n")


@case("annotations, animals.csv, misfit", reason=r"\(x.mp4\)")
def animals_of_an_unknown_video(dataset: Path) -> None:
    write_annotation_file(dataset, "animals.csv", "video_id,animals,animal_classes\nx.mp4,Lion,Mammal\nv0.mp4,,\n")


@case("annotations, animals.csv, broken", reason=":2: .*animal_classes")
def animals_without_a_column(dataset: Path) -> None:
    write_annotation_file(dataset, "animals.csv", "video_id,animals\nt0.mp4,Lion\n")


# videos


@case("videos, t1.mp4, missing")
def a_video_that_is_gone(dataset: Path) -> None:
    (dataset / "videos/t1.mp4").unlink()


@case("videos, videos, missing")
def no_videos_folder(dataset: Path) -> None:
    shutil.rmtree(dataset / "videos")


@case("videos, t1.mp4, broken", "RGB train, t1.mp4, stale", "flows, t1.mp4, stale")
def a_video_with_other_content(dataset: Path) -> None:
    (dataset / "videos/t1.mp4").write_text("this is no video")


@case("videos, new.mp4, broken")
def a_truncated_video_that_is_not_annotated(dataset: Path) -> None:
    (dataset / "videos/new.mp4").write_bytes((dataset / "videos/t1.mp4").read_bytes()[:-300])


@case("videos, t1.mp4, broken")
def a_dangling_link(dataset: Path) -> None:
    (dataset / "videos/t1.mp4").unlink()
    (dataset / "videos/t1.mp4").symlink_to(dataset / "elsewhere.mp4")


@case("videos, t1.mp4, broken", flags=("--decode",))
def a_video_with_damaged_frames(dataset: Path) -> None:
    corrupt_frames(dataset / "videos/t1.mp4")


@case("videos, t1.xyz, misfit", "flows, t1.xyz, missing")
def a_video_with_an_unknown_extension(dataset: Path) -> None:
    """The video is renamed everywhere, and its flow is removed."""
    for part in ("annotations/train_multi.txt", f"{RGB_FILE}.manifest.jsonl"):
        edit_text(dataset / part, "t1.mp4", "t1.xyz")
    (dataset / "videos/t1.mp4").rename(dataset / "videos/t1.xyz")
    with h5py.File(dataset / RGB_FILE, "r+") as file:
        file.move("t1.mp4", "t1.xyz")
    (dataset / "flows/t1.mp4").unlink()


@case("videos, t1.mp4, misfit", reason="t1.avi")
def two_videos_with_one_stem(dataset: Path) -> None:
    shutil.copy2(dataset / "videos/t1.mp4", dataset / "videos/t1.avi")


@case("videos, a.b.mp4, misfit")
def a_video_with_an_invalid_name(dataset: Path) -> None:
    shutil.copy2(dataset / "videos/t1.mp4", dataset / "videos/a.b.mp4")


# RGB embeddings


@case("RGB train, t1.mp4, missing")
def missing_embeddings(dataset: Path) -> None:
    remove_items(dataset / RGB_FILE, "t1.mp4")


@case("RGB train, t1.mp4, failed")
def failed_embeddings(dataset: Path) -> None:
    remove_items(dataset / RGB_FILE, "t1.mp4")
    edit_manifest(dataset / f"{RGB_FILE}.manifest.jsonl", "t1.mp4", status="failed", reason="is empty (0 bytes)")


@case("RGB train, ak_train_clip_embeddings.h5, missing", reason="5 finished")
def unmerged_embeddings(dataset: Path) -> None:
    (dataset / RGB_FILE).unlink()


@case("RGB train, t1.mp4, stale", "flows, t1.mp4, stale")
def a_rewritten_video(dataset: Path) -> None:
    os.utime(dataset / "videos/t1.mp4", (1e9, 1e9))


@case("RGB train, t1.mp4, stale", "flows, t1.mp4, stale", reason=r"from \d+ to \d+ bytes")
def a_replaced_video_with_the_same_time(dataset: Path) -> None:
    path = dataset / "videos/t1.mp4"
    state = path.stat()
    write_video(path, moving_frames(10, (3, 2), 32, 44), lossless=False)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@case("RGB train, t1.mp4, stale", reason="labels are 1 .* 0 2 ")
def changed_labels(dataset: Path) -> None:
    edit_text(dataset / "annotations/train_multi.txt", "t1.mp4 1", "t1.mp4 0 2")


@case(*(f"RGB {s}, ak_{s}_clip_embeddings.h5, stale" for s in SPLITS), reason="class 1 is running .* trotting")
def a_renamed_class(dataset: Path) -> None:
    edit_text(dataset / "annotations/ak_action.csv", "running", "trotting")


@case(*(f"RGB {s}, ak_{s}_clip_embeddings.h5, stale" for s in SPLITS), reason="3 .* 4 ")
def an_added_class(dataset: Path) -> None:
    edit_text(dataset / "annotations/ak_action.csv", "2,eating", "2,eating\n3,flying")


@case("RGB train, t1.mp4, stale", reason="train_multi.txt")
def embeddings_that_are_no_longer_annotated(dataset: Path) -> None:
    edit_text(dataset / "annotations/train_multi.txt", "t1.mp4 1\n", "")


@case("RGB train, t1.mp4, stale", "RGB val, t1.mp4, missing")
def a_video_moved_to_the_other_split(dataset: Path) -> None:
    edit_text(dataset / "annotations/train_multi.txt", "t1.mp4 1\n", "")
    edit_text(dataset / "annotations/val_multi.txt", "v0", "t1.mp4 1\nv0")


@case("RGB train, ak_train_clip_embeddings.h5, broken")
def truncated_embeddings(dataset: Path) -> None:
    content = (dataset / RGB_FILE).read_bytes()
    (dataset / RGB_FILE).write_bytes(content[: len(content) // 2])


@case("RGB train, ak_train_clip_embeddings.h5, broken")
def motion_file_instead_of_embeddings(dataset: Path) -> None:
    shutil.copy(dataset / MOTION_FILE, dataset / RGB_FILE)


@case("RGB train, ak_train_clip_embeddings.h5, broken", reason="t1.mp4: ")
def embeddings_that_only_verify_finds_damaged(dataset: Path) -> None:
    remove_items(dataset / RGB_FILE, "t1.mp4/timestamps")


@case("RGB train, t1.mp4, broken", reason="10 .* 4 of frame_indices")
def embeddings_with_too_few_indices(dataset: Path) -> None:
    replace_arrays(dataset / RGB_FILE, "t1.mp4", frame_indices=np.arange(4))


@case("RGB train, t1.mp4, broken", "RGB train, tt1.mp4, stale", "RGB train, ak_train_clip_embeddings.h5, broken")
def a_damaged_video_whose_name_contains_that_of_another(dataset: Path) -> None:
    with h5py.File(dataset / RGB_FILE, "r+") as file:
        file.copy("t1.mp4", "tt1.mp4")
    remove_items(dataset / RGB_FILE, "tt1.mp4/timestamps")  # only verify finds it
    embeddings_with_too_few_indices(dataset)


@case("RGB train, ak_train_clip_embeddings.h5.manifest.jsonl, broken")
def a_damaged_manifest_of_embeddings(dataset: Path) -> None:
    edit_text(dataset / f"{RGB_FILE}.manifest.jsonl", '"t1.mp4"', '"t1.mp4')


@case("RGB train, ak_train_clip_embeddings.h5, misfit", reason="split val")
def embeddings_of_another_split(dataset: Path) -> None:
    edit_attributes(dataset / RGB_FILE, type="val")


@case("RGB train, ak_train_clip_embeddings.h5, stale", "RGB val, ak_val_clip_embeddings.h5, misfit", reason="3 .* 4 ")
def labels_of_another_width(dataset: Path) -> None:
    with h5py.File(dataset / RGB_FILE) as file:
        keys = list(file)
    for key in keys:
        replace_arrays(dataset / RGB_FILE, key, labels=np.eye(4, dtype=np.float32)[0])


# flows


@case("flows, t1.mp4, missing")
def a_missing_flow(dataset: Path) -> None:
    (dataset / "flows/t1.mp4").unlink()


@case("flows, t1.mp4, failed", reason="no room")
def a_failed_flow(dataset: Path) -> None:
    (dataset / "flows/t1.mp4").unlink()
    edit_manifest(dataset / "flows.manifest.jsonl", "t1.mp4", status="failed", reason="no room")


@case("flows, flows, missing", reason="6 finished")
def missing_flow_folder(dataset: Path) -> None:
    shutil.rmtree(dataset / "flows")


@case("flows, t1.mp4, stale")
def a_flow_of_an_earlier_video(dataset: Path) -> None:
    edit_manifest(dataset / "flows.manifest.jsonl", "t1.mp4", mtime=1e9)


@case("flows, t1.mp4, broken", "motion, t1, stale")
def a_truncated_flow(dataset: Path) -> None:
    (dataset / "flows/t1.mp4").write_bytes((dataset / "flows/t1.mp4").read_bytes()[:-300])


@case("flows, t1.mp4, broken", flags=("--decode",))
def a_flow_with_damaged_frames(dataset: Path) -> None:
    corrupt_frames(dataset / "flows/t1.mp4")


@case("flows, t1.mp4, misfit", "motion, t1, stale", reason="10 .* 5 .* 9")
def a_flow_that_is_too_short(dataset: Path) -> None:
    rewrite_flow(dataset / "flows/t1.mp4", frames=5)


@case("RGB train, t1.mp4, stale", "flows, t1.mp4, stale", "motion, t1, stale", reason="mirrored")
def frames_of_an_earlier_version_that_did_not_mirror(dataset: Path) -> None:
    path = dataset / "videos/t1.mp4"
    state = path.stat()
    write_display_matrix(path, DISPLAY_MATRICES["mirrored"])
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    for embeddings in sorted((dataset / "embeddings").glob("*.h5")):
        with h5py.File(embeddings, "r+") as file:
            del file.attrs["geometry"]
    rewrite_flow(dataset / "flows/t1.mp4", geometry=None)


@case("flows, t1.mp4, misfit", "motion, t1, stale")
def a_flow_of_other_frames(dataset: Path) -> None:
    rewrite_flow(dataset / "flows/t1.mp4", frame_indices={"start": 3, "step": 1})


@case("flows, t1.mp4, misfit", "motion, t1, stale", reason="normalization is log .* frame")
def a_flow_with_other_settings(dataset: Path) -> None:
    rewrite_flow(dataset / "flows/t1.mp4", normalization="frame")


@case("flows, t1.mp4, misfit", "motion, t1, stale", reason="t2")
def a_flow_under_the_name_of_another(dataset: Path) -> None:
    rewrite_flow(dataset / "flows/t1.mp4", video="t2")


@case("flows, gone.mp4, stale")
def a_flow_whose_video_is_gone(dataset: Path) -> None:
    shutil.copy2(dataset / "flows/t1.mp4", dataset / "flows/gone.mp4")


@case("flows, t1.mp4, misfit", reason="t1.mp4")
def two_flows_of_one_video(dataset: Path) -> None:
    shutil.copy2(dataset / "flows/t1.mp4", dataset / "flows/t1_raft_things.mp4")
    (dataset / "flows/t1.mp4").rename(dataset / "flows/t1_raft_sintel.mp4")


@case("flows, flows.manifest.jsonl, broken")
def a_damaged_manifest_of_flows(dataset: Path) -> None:
    edit_text(dataset / "flows.manifest.jsonl", '"t1.mp4"', '"t1.mp4')


@case("flows, flows.manifest.jsonl, broken")
def a_manifest_of_flows_that_is_a_folder(dataset: Path) -> None:
    (dataset / "flows.manifest.jsonl").unlink()
    (dataset / "flows.manifest.jsonl").mkdir()


# motion


@case("motion, t1, missing")
def missing_motions(dataset: Path) -> None:
    remove_items(dataset / MOTION_FILE, "t1")


@case("motion, t1, failed")
def failed_motions(dataset: Path) -> None:
    remove_items(dataset / MOTION_FILE, "t1")
    edit_manifest(dataset / f"{MOTION_FILE}.manifest.jsonl", "t1", status="failed", reason="has no frames")


@case("motion, flow_embeddings.h5, missing", reason="6 finished")
def unmerged_motions(dataset: Path) -> None:
    (dataset / MOTION_FILE).unlink()


@case("motion, t1, stale")
def a_rewritten_flow(dataset: Path) -> None:
    os.utime(dataset / "flows/t1.mp4", (1e9, 1e9))


@case("motion, t1, misfit", reason="10 .* 9 .* 4")
def too_few_motions(dataset: Path) -> None:
    rows = np.zeros((4, 32), np.float32)
    replace_arrays(dataset / MOTION_FILE, "t1", embeddings=rows, timestamps=np.zeros(4), frame_indices=np.arange(4))


@case("motion, t1, misfit", reason="4 .* 9 ")
def too_few_motions_without_embeddings(dataset: Path) -> None:
    too_few_motions(dataset)
    for name in (RGB_FILE, f"{RGB_FILE}.manifest.jsonl"):
        (dataset / name).unlink()


@case("motion, t1, misfit")
def motions_of_other_frames(dataset: Path) -> None:
    replace_arrays(dataset / MOTION_FILE, "t1", frame_indices=np.arange(9) * 2)


@case("motion, gone, stale")
def motions_whose_video_is_gone(dataset: Path) -> None:
    with h5py.File(dataset / MOTION_FILE, "r+") as file:
        file.copy("t1", "gone")


@case("motion, flow_embeddings.h5, broken")
def damaged_motions(dataset: Path) -> None:
    remove_items(dataset / MOTION_FILE, "t1/timestamps")


@case("motion, flow_embeddings.h5, broken")
def truncated_motions(dataset: Path) -> None:
    (dataset / MOTION_FILE).write_bytes((dataset / MOTION_FILE).read_bytes()[:3000])


@case("motion, flow_embeddings.h5.manifest.jsonl, broken")
def a_damaged_manifest_of_motions(dataset: Path) -> None:
    edit_text(dataset / f"{MOTION_FILE}.manifest.jsonl", '"t1"', '"t1')


@case("motion, flow_embeddings.h5, misfit", reason="normalization is frame .* log")
def a_student_of_other_flow(dataset: Path) -> None:
    with h5py.File(dataset / MOTION_FILE) as file:
        flow = json.loads(file.attrs["student"])["flow"]
    edit_attributes(dataset / MOTION_FILE, student={"flow": flow | {"normalization": "frame"}})


@case(*["motion, flow_embeddings.h5, misfit"] * 2, reason="32 in .* 16 in .*flow")
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
        counts = report["areas"][problem["area"]]
        assert problem["cure"] and problem["reason"] and counts[problem["kind"]]
        assert counts["fine"] < counts["entries"] or break_dataset is annotations_with_a_label_out_of_range


def test_published_files_are_checked_in_part(dataset: Path) -> None:
    for name in (RGB_FILE, MOTION_FILE):
        with h5py.File(dataset / name, "r+") as file:
            for attribute_name in list(file.attrs):
                del file.attrs[attribute_name]
    report = run_check(dataset)
    assert report["problems"] == []
    assert ["labels" in note["reason"] for note in report["notes"]] == [True, False]
    too_few_motions(dataset)
    assert problem_names(run_check(dataset)) == ["motion, t1, misfit"]


def test_problems_do_not_depend_on_the_number_of_processes(dataset: Path) -> None:
    for break_dataset in (a_truncated_flow, changed_labels, damaged_motions, a_flow_whose_video_is_gone):
        break_dataset(dataset)
    report = run_check(dataset)
    assert len(report["problems"]) == 5
    assert run_check(dataset, "--num-workers", "2") == report
