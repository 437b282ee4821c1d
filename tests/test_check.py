"""Everything that `prepare_dataset.py check` looks for: a good data set, one thing broken in it, and what is said."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import extract_embeddings
import extract_flows
import inference
import prepare_dataset
import train
from tests.conftest import CLASSES, REPOSITORY, moving_frames, write_annotations, write_video
from vimoclip import store
from vimoclip.check import problems, worker_pool
from vimoclip.errors import UserError
from vimoclip.extraction import manifest
from vimoclip.video import EVERY_FRAME, Writer, probe, read

SPLITS = {
    "train": {"t0.mp4": (0,), "t1.mp4": (1,), "t2.mp4": (2,), "t3.mp4": (0,), "still.mp4": (0,)},
    "val": {"v0.mp4": (0,), "v1.mp4": (1,)},
}
RGB = "embeddings/ak_train_clip_embeddings.h5"
MOTION = "embeddings/flow_embeddings.h5"
TRAIN = ["--epochs", "1", "--batch-size", "4", "--sequence-length", "6", "--num-workers", "0", "--run-name", "run"]


@pytest.fixture(scope="module")
def good(tiny_clip: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with all that the scripts make of it, as they leave it; `still.mp4` has one frame."""
    root = tmp_path_factory.mktemp("made")
    for number, name in enumerate(name for names in SPLITS.values() for name in names):
        frames = moving_frames(1 if name == "still.mp4" else 9 + number, (number % 3, 1), 32, 44, seed=number)
        write_video(root / "dataset" / "videos" / name, frames, lossless=False)
    write_annotations(root / "dataset" / "annotations", SPLITS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        extract_embeddings.main(["--clip-model-name", tiny_clip])
        extract_flows.main(["--model", "dis", "--num-workers", "0"])
        train.main([*TRAIN, "--clip-model-name", tiny_clip])
        inference.main(["--checkpoint-dir", "checkpoints/run"])
    return root / "dataset"


@pytest.fixture
def dataset(good: Path, tmp_path: Path) -> Path:
    """A copy to break, with the times of its files."""
    return Path(shutil.copytree(good, tmp_path / "dataset"))


def look(dataset: Path, *flags: str) -> dict[str, Any]:
    """What a check says as JSON; its exit code agrees with that."""
    path = dataset.parent / "found.json"
    arguments = ["check", "--dataset-dir", str(dataset), "--json", str(path), "--num-workers", "0", *flags]
    code = 0
    try:
        prepare_dataset.main(arguments)
    except UserError as error:
        code = error.exit_code
    found = json.loads(path.read_text())
    assert code == (0 if found["fine"] else 1)
    assert found["fine"] == (not found["problems"])
    return found


def named(found: dict[str, Any]) -> list[str]:
    """Every problem as `area, name, kind`."""
    return [f"{p['area']}, {p['id'].rpartition('/')[2]}, {p['kind']}" for p in found["problems"]]


def test_a_good_data_set_has_no_problem(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = look(good)
    assert found["problems"] == found["notes"] == []
    counts = {area: (c["entries"], c["fine"], c["skipped"], c["there"]) for area, c in found["areas"].items()}
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
    assert table[-1] == f"{good}: nothing is wrong"


def test_a_good_data_set_is_fine_when_decoded_and_by_several_processes(good: Path) -> None:
    assert look(good, "--decode", "--num-workers", "2") == look(good)


def test_a_check_changes_nothing(dataset: Path) -> None:
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in dataset.rglob("*")}
    look(dataset)
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in dataset.rglob("*")} == before


@pytest.mark.parametrize("made", [(), (RGB,), ("flows",), (RGB, "flows")])
def test_what_has_not_been_made_yet_is_no_problem(
    made: tuple[str, ...], good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = tmp_path / "dataset"
    for part in ("videos", "annotations"):
        shutil.copytree(good / part, dataset / part)
    for part in made:
        for name in (part, f"{part}.manifest.jsonl"):
            (dataset / name).parent.mkdir(exist_ok=True)
            (shutil.copytree if (good / name).is_dir() else shutil.copy2)(good / name, dataset / name)
    (dataset / "flows").mkdir(exist_ok=True)  # an empty folder is none
    found = look(dataset)
    assert found["problems"] == []
    there = {"annotations", "videos", *(["RGB train"] if RGB in made else []), *(["flows"] if "flows" in made else [])}
    assert {area for area, counts in found["areas"].items() if counts["there"]} == there
    said = [line.split()[:2] for line in capsys.readouterr().out.splitlines() if line.endswith("not there yet")]
    assert len(said) == 6 - len(there)


# a case: what is broken, the flags, what is wrong then, and the reason of the first of these
CASES: list[Any] = []
Break = Callable[[Path], Any]


def case(reason: str, *wrong: str, flags: tuple[str, ...] = ()) -> Callable[[Break], Break]:
    def note(broken: Break) -> Break:
        CASES.append(pytest.param(broken, flags, list(wrong), reason, id=broken.__name__))
        return broken

    return note


def edit(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def entry(path: Path, video: str, **changes: Any) -> None:
    """Change a line of a manifest."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert any(line["id"] == video for line in lines)
    path.write_text("".join(json.dumps(e | changes if e["id"] == video else e) + "\n" for e in lines))


def attribute(path: Path, **changes: Any) -> None:
    """Change root attributes, or keys of one that holds JSON."""
    with h5py.File(path, "r+") as file:
        for name, value in changes.items():
            if isinstance(value, dict):
                value = json.dumps(json.loads(file.attrs[name]) | value)
            file.attrs[name] = value


def replace(path: Path, key: str, **arrays: np.ndarray) -> None:
    """Replace arrays of a video."""
    with h5py.File(path, "r+") as file:
        for name, values in arrays.items():
            del file[key][name]
            file[key][name] = values
        file[key].attrs["total_frames"] = len(file[key]["embeddings"])


def remove(path: Path, *names: str) -> None:
    with h5py.File(path, "r+") as file:
        for name in names:
            del file[name]


def spoil(path: Path, start: int = 200, count: int = 2**20) -> None:
    """Other bytes, as a failing disk would give them: size and time stay."""
    state, content = path.stat(), path.read_bytes()
    spoilt = bytes(255 - byte for byte in content[start : start + count])
    path.write_bytes(content[:start] + spoilt + content[start + len(spoilt) :])
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def rewrite_flow(path: Path, frames: int | None = None, **comment: Any) -> None:
    """The same flow video with another comment or length; the motions then look stale, which they are."""
    made, pictures = probe(path), next(iter(read(path, 100)))
    assert isinstance(pictures, np.ndarray)
    with Writer(path, made.fps, {**(made.comment or {}), **comment}, False) as writer:
        writer.write(pictures[:frames])


# annotations


@case(r"train_multi.txt:2: label 7 of t1.mp4 is not in 0..2", "annotations, annotations, broken")
def annotations_with_a_label_out_of_range(dataset: Path) -> None:
    edit(dataset / "annotations/train_multi.txt", "t1.mp4 1", "t1.mp4 7")


# videos


@case("isn't in .*videos", "videos, t1.mp4, missing")
def a_video_that_is_gone(dataset: Path) -> None:
    (dataset / "videos/t1.mp4").unlink()


@case("there is no such folder", "videos, videos, missing")
def no_videos_at_all(dataset: Path) -> None:
    shutil.rmtree(dataset / "videos")


@case("is not a video", "videos, t1.mp4, broken", "RGB train, t1.mp4, stale", "flows, t1.mp4, stale")
def a_video_that_is_none(dataset: Path) -> None:
    (dataset / "videos/t1.mp4").write_text("this is no video")


@case("cut short", "videos, new.mp4, broken")
def a_video_that_is_not_annotated_but_cut_short(dataset: Path) -> None:
    (dataset / "videos/new.mp4").write_bytes((dataset / "videos/t1.mp4").read_bytes()[:-300])


@case("the link points nowhere", "videos, t1.mp4, broken")
def a_link_that_points_nowhere(dataset: Path) -> None:
    (dataset / "videos/t1.mp4").unlink()
    (dataset / "videos/t1.mp4").symlink_to(dataset / "elsewhere.mp4")


@case("frames can't be decoded", "videos, t1.mp4, broken", flags=("--decode",))
def a_video_with_damaged_frames(dataset: Path) -> None:
    spoil_frames(dataset / "videos/t1.mp4")


def spoil_frames(path: Path) -> None:
    """The second half of what an MP4 holds of pictures."""
    content = path.read_bytes()
    start = content.index(b"mdat")
    end = start - 4 + int.from_bytes(content[start - 4 : start], "big")
    spoil(path, (start + end) // 2, end - (start + end) // 2)


@case(
    "isn't named like a video",
    "videos, t1.xyz, misfit",
    *(f"{area}, {n}, missing" for area, n in [("flows", "t1.xyz")]),
)
def a_video_that_is_not_named_like_one(dataset: Path) -> None:
    """Its flow was made under its former name."""
    for part in ("annotations/train_multi.txt", f"{RGB}.manifest.jsonl"):
        edit(dataset / part, "t1.mp4", "t1.xyz")
    (dataset / "videos/t1.mp4").rename(dataset / "videos/t1.xyz")
    with h5py.File(dataset / RGB, "r+") as file:
        file.move("t1.mp4", "t1.xyz")
    (dataset / "flows/t1.mp4").unlink()


@case("shares the name of t1.avi", "videos, t1.mp4, misfit")
def two_videos_that_share_a_name(dataset: Path) -> None:
    shutil.copy2(dataset / "videos/t1.mp4", dataset / "videos/t1.avi")


@case("may hold no dot", "videos, a.b.mp4, misfit")
def a_video_whose_name_no_extractor_takes(dataset: Path) -> None:
    shutil.copy2(dataset / "videos/t1.mp4", dataset / "videos/a.b.mp4")


# RGB embeddings


@case("isn't in .*ak_train_clip_embeddings.h5", "RGB train, t1.mp4, missing")
def embeddings_that_are_missing(dataset: Path) -> None:
    remove(dataset / RGB, "t1.mp4")


@case("is empty", "RGB train, t1.mp4, failed")
def embeddings_that_failed(dataset: Path) -> None:
    remove(dataset / RGB, "t1.mp4")
    entry(dataset / f"{RGB}.manifest.jsonl", "t1.mp4", status="failed", reason="is empty (0 bytes)")


@case("manifest has 5 videos as done", "RGB train, ak_train_clip_embeddings.h5, missing")
def embeddings_that_were_never_put_together(dataset: Path) -> None:
    (dataset / RGB).unlink()


@case("was written again", "RGB train, t1.mp4, stale", "flows, t1.mp4, stale")
def a_video_that_was_written_again(dataset: Path) -> None:
    os.utime(dataset / "videos/t1.mp4", (1e9, 1e9))


@case(r"has \d+ bytes now, but had \d+", "RGB train, t1.mp4, stale", "flows, t1.mp4, stale")
def a_video_that_was_replaced_with_its_time_kept(dataset: Path) -> None:
    path = dataset / "videos/t1.mp4"
    state = path.stat()
    write_video(path, moving_frames(10, (3, 2), 32, 44), lossless=False)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@case("labels are 1 in the file but 0 2 in the annotations", "RGB train, t1.mp4, stale")
def labels_that_changed(dataset: Path) -> None:
    edit(dataset / "annotations/train_multi.txt", "t1.mp4 1", "t1.mp4 0 2")


@case("class 1 is running .* but trotting", *(f"RGB {s}, ak_{s}_clip_embeddings.h5, stale" for s in SPLITS))
def a_class_that_was_renamed(dataset: Path) -> None:
    edit(dataset / "annotations/ak_action.csv", "running", "trotting")


@case("number of classes is 3 .* but 4", *(f"RGB {s}, ak_{s}_clip_embeddings.h5, stale" for s in SPLITS))
def a_class_that_was_added(dataset: Path) -> None:
    edit(dataset / "annotations/ak_action.csv", "2,eating", "2,eating\n3,flying")


@case("is not annotated in train_multi.txt", "RGB train, t1.mp4, stale")
def embeddings_that_are_no_longer_annotated(dataset: Path) -> None:
    edit(dataset / "annotations/train_multi.txt", "t1.mp4 1\n", "")


@case("is not annotated", "RGB train, t1.mp4, stale", "RGB val, t1.mp4, missing")
def a_video_that_went_to_the_other_split(dataset: Path) -> None:
    edit(dataset / "annotations/train_multi.txt", "t1.mp4 1\n", "")
    edit(dataset / "annotations/val_multi.txt", "v0", "t1.mp4 1\nv0")


@case("not an HDF5 file", "RGB train, ak_train_clip_embeddings.h5, broken")
def embeddings_that_are_cut_short(dataset: Path) -> None:
    content = (dataset / RGB).read_bytes()
    (dataset / RGB).write_bytes(content[: len(content) // 2])


@case("holds motion embeddings", "RGB train, ak_train_clip_embeddings.h5, broken")
def motions_in_the_place_of_embeddings(dataset: Path) -> None:
    shutil.copy(dataset / MOTION, dataset / RGB)


@case("t1.mp4 lacks one of", "RGB train, ak_train_clip_embeddings.h5, broken")
def embeddings_that_only_verify_finds_damaged(dataset: Path) -> None:
    remove(dataset / RGB, "t1.mp4/timestamps")


@case("10 embeddings but 4 of frame_indices", "RGB train, t1.mp4, broken")
def embeddings_whose_indices_are_too_few(dataset: Path) -> None:
    replace(dataset / RGB, "t1.mp4", frame_indices=np.arange(4))


@case("is no line of a manifest", "RGB train, ak_train_clip_embeddings.h5.manifest.jsonl, broken")
def a_manifest_of_embeddings_that_is_damaged(dataset: Path) -> None:
    edit(dataset / f"{RGB}.manifest.jsonl", '"t1.mp4"', '"t1.mp4')


@case("split val", "RGB train, ak_train_clip_embeddings.h5, misfit")
def embeddings_of_another_split(dataset: Path) -> None:
    attribute(dataset / RGB, type="val")


@case(
    "names 3 classes, but its labels have 4",
    "RGB train, ak_train_clip_embeddings.h5, stale",
    "RGB val, ak_val_clip_embeddings.h5, misfit",
)
def labels_of_another_width(dataset: Path) -> None:
    with h5py.File(dataset / RGB) as file:
        keys = list(file)
    for key in keys:
        replace(dataset / RGB, key, labels=np.eye(4, dtype=np.float32)[0])


# flows


@case("isn't in .*flows", "flows, t1.mp4, missing")
def a_flow_that_is_missing(dataset: Path) -> None:
    (dataset / "flows/t1.mp4").unlink()


@case("no room", "flows, t1.mp4, failed")
def a_flow_that_failed(dataset: Path) -> None:
    (dataset / "flows/t1.mp4").unlink()
    entry(dataset / "flows.manifest.jsonl", "t1.mp4", status="failed", reason="no room")


@case("manifest has 6 videos as done", "flows, flows, missing")
def flows_whose_folder_is_gone(dataset: Path) -> None:
    shutil.rmtree(dataset / "flows")


@case("was written again", "flows, t1.mp4, stale")
def a_flow_of_a_former_video(dataset: Path) -> None:
    entry(dataset / "flows.manifest.jsonl", "t1.mp4", mtime=1e9)


@case("cut short", "flows, t1.mp4, broken", "motion, t1, stale")
def a_flow_that_is_cut_short(dataset: Path) -> None:
    (dataset / "flows/t1.mp4").write_bytes((dataset / "flows/t1.mp4").read_bytes()[:-300])


@case("frames can't be decoded", "flows, t1.mp4, broken", flags=("--decode",))
def a_flow_with_damaged_frames(dataset: Path) -> None:
    spoil_frames(dataset / "flows/t1.mp4")


@case(r"has 10 RGB frames but 5 flow frames, not 9", "flows, t1.mp4, misfit", "motion, t1, stale")
def a_flow_that_is_too_short(dataset: Path) -> None:
    rewrite_flow(dataset / "flows/t1.mp4", frames=5)


@case("its flow is of other frames", "flows, t1.mp4, misfit", "motion, t1, stale")
def a_flow_of_other_frames(dataset: Path) -> None:
    rewrite_flow(dataset / "flows/t1.mp4", frame_indices={"start": 3, "step": 1})


@case("normalization is log in most .* but frame", "flows, t1.mp4, misfit", "motion, t1, stale")
def a_flow_that_was_made_otherwise(dataset: Path) -> None:
    rewrite_flow(dataset / "flows/t1.mp4", normalization="frame")


@case("says that it shows t2", "flows, t1.mp4, misfit", "motion, t1, stale")
def a_flow_under_the_name_of_another(dataset: Path) -> None:
    rewrite_flow(dataset / "flows/t1.mp4", video="t2")


@case("of no video that is annotated", "flows, gone.mp4, stale")
def a_flow_whose_video_is_gone(dataset: Path) -> None:
    rewrite = dataset / "flows/gone.mp4"
    shutil.copy2(dataset / "flows/t1.mp4", rewrite)


@case("may all be the flow of t1.mp4", "flows, t1.mp4, misfit")
def two_flows_of_one_video(dataset: Path) -> None:
    shutil.copy2(dataset / "flows/t1.mp4", dataset / "flows/t1_raft_things.mp4")
    (dataset / "flows/t1.mp4").rename(dataset / "flows/t1_raft_sintel.mp4")


@case("is no line of a manifest", "flows, flows.manifest.jsonl, broken")
def a_manifest_of_flows_that_is_damaged(dataset: Path) -> None:
    edit(dataset / "flows.manifest.jsonl", '"t1.mp4"', '"t1.mp4')


@case("can't be read", "flows, flows.manifest.jsonl, broken")
def a_manifest_of_flows_that_is_a_folder(dataset: Path) -> None:
    (dataset / "flows.manifest.jsonl").unlink()
    (dataset / "flows.manifest.jsonl").mkdir()


# motion


@case("isn't in .*flow_embeddings.h5", "motion, t1, missing")
def motions_that_are_missing(dataset: Path) -> None:
    remove(dataset / MOTION, "t1")


@case("has no frames", "motion, t1, failed")
def motions_that_failed(dataset: Path) -> None:
    remove(dataset / MOTION, "t1")
    entry(dataset / f"{MOTION}.manifest.jsonl", "t1", status="failed", reason="has no frames")


@case("manifest has 6 videos as done", "motion, flow_embeddings.h5, missing")
def motions_that_were_never_put_together(dataset: Path) -> None:
    (dataset / MOTION).unlink()


@case("was written again", "motion, t1, stale")
def a_flow_that_was_written_again(dataset: Path) -> None:
    os.utime(dataset / "flows/t1.mp4", (1e9, 1e9))


@case("10 RGB frames need 9 motions, but there are 4", "motion, t1, misfit")
def motions_that_are_too_few(dataset: Path) -> None:
    rows = np.zeros((4, 32), np.float32)
    replace(dataset / MOTION, "t1", embeddings=rows, timestamps=np.zeros(4), frame_indices=np.arange(4))


@case("there are 4 motions but 9 flow frames", "motion, t1, misfit")
def motions_that_are_too_few_where_there_are_no_embeddings(dataset: Path) -> None:
    motions_that_are_too_few(dataset)
    for name in (RGB, f"{RGB}.manifest.jsonl"):
        (dataset / name).unlink()


@case("of other frames", "motion, t1, misfit")
def motions_of_other_frames(dataset: Path) -> None:
    replace(dataset / MOTION, "t1", frame_indices=np.arange(9) * 2)


@case("of no video that is annotated", "motion, gone, stale")
def motions_whose_video_is_gone(dataset: Path) -> None:
    with h5py.File(dataset / MOTION, "r+") as file:
        file.copy("t1", "gone")


@case("lacks one of", "motion, flow_embeddings.h5, broken")
def motions_that_are_damaged(dataset: Path) -> None:
    remove(dataset / MOTION, "t1/timestamps")


@case("not an HDF5 file", "motion, flow_embeddings.h5, broken")
def motions_that_are_cut_short(dataset: Path) -> None:
    (dataset / MOTION).write_bytes((dataset / MOTION).read_bytes()[:3000])


@case("is no line of a manifest", "motion, flow_embeddings.h5.manifest.jsonl, broken")
def a_manifest_of_motions_that_is_damaged(dataset: Path) -> None:
    edit(dataset / f"{MOTION}.manifest.jsonl", '"t1"', '"t1')


@case("normalization is frame .* but log", "motion, flow_embeddings.h5, misfit")
def a_student_of_other_flow(dataset: Path) -> None:
    with h5py.File(dataset / MOTION) as file:
        flow = json.loads(file.attrs["student"])["flow"]
    attribute(dataset / MOTION, student={"flow": flow | {"normalization": "frame"}})


@case("are 32 wide in .* but 16 in .*flow", *["motion, flow_embeddings.h5, misfit"] * 2)
def motions_of_another_width(dataset: Path) -> None:
    with h5py.File(dataset / MOTION) as file:
        lengths = {key: len(group["embeddings"]) for key, group in file.items()}
    for key, length in lengths.items():
        replace(dataset / MOTION, key, embeddings=np.zeros((length, 16), np.float32))


@pytest.mark.parametrize(("broken", "flags", "wrong", "reason"), CASES)
def test_each_thing_that_is_wrong_is_found_and_nothing_else(
    broken: Break, flags: tuple[str, ...], wrong: list[str], reason: str, dataset: Path
) -> None:
    broken(dataset)
    found = look(dataset, *flags)
    assert sorted(named(found)) == sorted(wrong)
    first = next(p for p, name in zip(found["problems"], named(found), strict=True) if name == wrong[0])
    assert re.search(reason, first["reason"])
    for problem in found["problems"]:
        assert problem["cure"]
        assert problem["reason"]
        assert found["areas"][problem["area"]][problem["kind"]]
        assert found["areas"][problem["area"]]["fine"] < found["areas"][problem["area"]]["entries"] or broken is (
            annotations_with_a_label_out_of_range
        )


def test_files_that_say_another_encoder_do_not_fit(dataset: Path) -> None:
    """Each part of the encoder, in the training file, against validation and against the motions' teacher."""
    others = {"clip_model": "ViT-L/14", "weights_sha256": "ab", "quick_gelu": True, "resize": "pad"}
    for key, value in others.items():
        copy = Path(shutil.copytree(dataset, dataset.parent / key))
        attribute(copy / RGB, **{key: value})
        found = look(copy)
        wrong = ["RGB val, ak_val_clip_embeddings.h5, misfit", "motion, flow_embeddings.h5, misfit"]
        assert named(found) == wrong
        assert all(problem["reason"].startswith(f"{key} is {value}") for problem in found["problems"])
        assert (found["areas"]["RGB val"]["fine"], found["areas"]["motion"]["fine"]) == (0, 0)


def test_files_of_another_sampling_do_not_fit(dataset: Path) -> None:
    attribute(dataset / RGB, sampling={"stride": 2})
    wrong = [
        "RGB val, ak_val_clip_embeddings.h5, misfit",
        "flows, flows, misfit",
        "motion, flow_embeddings.h5, misfit",
    ]
    assert named(look(dataset)) == wrong


def test_a_video_that_an_extraction_read_is_not_opened_again_unless_it_changed(dataset: Path) -> None:
    """Contents spoilt behind the back of size and time: only --decode sees it."""
    spoil(dataset / "videos/t1.mp4", 0)
    assert look(dataset)["problems"] == []
    assert named(look(dataset, "--decode")) == ["videos, t1.mp4, broken"]
    (dataset / f"{RGB}.manifest.jsonl").unlink()
    assert named(look(dataset)) == ["videos, t1.mp4, broken"]


def test_before_the_first_run_each_video_is_opened(good: Path, tmp_path: Path) -> None:
    for part in ("videos", "annotations"):
        shutil.copytree(good / part, tmp_path / "dataset" / part)
    spoil(tmp_path / "dataset/videos/t1.mp4", 0)
    assert named(look(tmp_path / "dataset")) == ["videos, t1.mp4, broken"]


def test_links_to_videos_are_videos(dataset: Path) -> None:
    (dataset / "videos").rename(dataset / "elsewhere")
    (dataset / "videos").mkdir()
    for path in (dataset / "elsewhere").iterdir():
        (dataset / "videos" / path.name).symlink_to(path)
    assert look(dataset, "--decode")["problems"] == []


def test_a_video_that_was_read_in_part_is_said_with_its_reason_and_no_problem(dataset: Path) -> None:
    entry(dataset / f"{RGB}.manifest.jsonl", "t1.mp4", status="partial", reason="2 of 12 frames can't be decoded")
    found = look(dataset)
    assert found["problems"] == []
    said = {"area": "RGB train", "id": "t1.mp4", "reason": "partial: 2 of 12 frames can't be decoded"}
    assert found["notes"] == [said]


def test_published_files_are_said_to_be_checked_for_little(dataset: Path) -> None:
    for name in (RGB, MOTION):
        with h5py.File(dataset / name, "r+") as file:
            for attribute_name in list(file.attrs):
                del file.attrs[attribute_name]
    found = look(dataset)
    assert found["problems"] == []
    assert [note["reason"].rpartition(" but ")[2] for note in found["notes"]] == [
        "widths, lengths and labels",
        "widths and lengths",
    ]
    motions_that_are_too_few(dataset)
    assert named(look(dataset)) == ["motion, t1, misfit"]


def test_videos_that_are_not_annotated_may_have_flow_and_motion_or_not(dataset: Path) -> None:
    edit(dataset / "annotations/train_multi.txt", "t1.mp4 1\n", "")
    remove(dataset / RGB, "t1.mp4")
    write_video(dataset / "videos" / "new.mp4", moving_frames(5, (1, 1)), lossless=False)
    found = look(dataset)
    assert found["problems"] == []
    assert found["notes"] == [{"area": "videos", "id": "", "reason": f"2 in {dataset}/videos are not annotated"}]
    assert [found["areas"][area]["entries"] for area in ("annotations", "videos", "flows", "motion")] == [6, 8, 7, 7]


def test_a_flow_that_failed_of_a_video_that_is_not_annotated_counts(dataset: Path) -> None:
    write_video(dataset / "videos" / "new.mp4", moving_frames(5, (1, 1)), lossless=False)
    path = dataset / "flows.manifest.jsonl"
    path.write_text(path.read_text() + '{"id": "new.mp4", "status": "failed", "reason": "no room"}\n')
    found = look(dataset)
    assert named(found) == ["flows, new.mp4, failed"]
    counts = found["areas"]["flows"]
    assert (counts["entries"], counts["fine"], counts["failed"], counts["skipped"]) == (8, 6, 1, 1)


def test_nothing_that_is_printed_holds_a_control_character(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy2(dataset / "videos/t1.mp4", dataset / "videos" / "red\x1b[31m\n.mp4")
    (dataset / "videos" / os.fsdecode(b"halved\xff.mp4")).write_bytes(b"")
    remove(dataset / RGB, "t1.mp4")
    entry(dataset / f"{RGB}.manifest.jsonl", "t1.mp4", status="failed", reason="\x1b]0;owned\x07\nfine")
    found = look(dataset)
    assert {*named(found)} >= {"RGB train, t1.mp4, failed", r"videos, red\x1b[31m\n.mp4, misfit"}
    texts = [text for problem in found["problems"] for text in problem.values()] + capsys.readouterr().out.splitlines()
    assert len(texts) > 20
    assert not [text for text in texts if re.search("[\x00-\x1f\x7f-\x9f\ud800-\udfff]", text)]


def test_a_terminal_shows_the_first_of_many_and_json_all(
    dataset: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(problems, "SHOWN", 2)
    shutil.rmtree(dataset / "videos")
    (dataset / "videos").mkdir()
    for name in ("t0", "t1"):
        (dataset / "flows" / f"{name}.mp4").unlink()
    found = look(dataset)
    assert len(found["problems"]) == 9
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" isn't")[0] for line in lines[7:12]] == [
        "videos: t0.mp4: missing:",
        "videos: t1.mp4: missing:",
        "videos: missing: and 5 more, all of them with --json FILE",
        "flows: t0.mp4: missing:",
        "flows: t1.mp4: missing:",
    ]
    assert lines[10].endswith("; put its video there, then run extract_flows.py")


def shell(dataset: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "prepare_dataset.py"), "check", "--dataset-dir", str(dataset), *flags]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)


def test_exit_codes_and_json_on_stdout(dataset: Path) -> None:
    fine = shell(dataset, "--json", "-")
    assert (fine.returncode, json.loads(fine.stdout)["fine"]) == (0, True)
    assert fine.stderr.splitlines()[-1] == f"{dataset}: nothing is wrong"
    (dataset / "flows/t1.mp4").unlink()
    wrong = shell(dataset, "--json", "-")
    assert (wrong.returncode, named(json.loads(wrong.stdout))) == (1, ["flows, t1.mp4, missing"])
    assert wrong.stderr.splitlines()[-1] == f"error: {dataset}: 1 problem, in flows; see above what to do"


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
def test_a_wrong_call_is_told_from_a_wrong_data_set(flags: tuple[str, str], good: Path) -> None:
    with pytest.raises(UserError) as caught:
        prepare_dataset.main(["check", "--dataset-dir", str(good), "--num-workers", "0", *flags])
    assert caught.value.exit_code == 2
    assert "; name " in str(caught.value)


def test_parts_that_are_elsewhere_can_be_named(dataset: Path) -> None:
    flags = []
    for flag, part in (("--videos-dir", "videos"), ("--flow-videos-dir", "flows"), ("--motion-h5-path", MOTION)):
        (dataset.parent / "other").mkdir(exist_ok=True)
        target = dataset.parent / "other" / Path(part).name
        for name, place in ((part, target), (f"{part}.manifest.jsonl", Path(f"{target}.manifest.jsonl"))):
            if (dataset / name).exists():
                (dataset / name).rename(place)
        flags += [flag, str(target)]
    (dataset / "embeddings").rename(dataset.parent / "other" / "rgb")
    flags += ["--embeddings-dir", str(dataset.parent / "other" / "rgb")]
    found = look(dataset, *flags)
    assert found["problems"] == []
    assert all(counts["there"] for counts in found["areas"].values())


def test_problems_are_the_same_by_any_number_of_processes(dataset: Path) -> None:
    for broken in (a_flow_that_is_cut_short, labels_that_changed, motions_that_are_damaged, a_flow_whose_video_is_gone):
        broken(dataset)
    alone = look(dataset)
    assert len(alone["problems"]) == 5
    assert look(dataset, "--num-workers", "2") == alone


class Deadly:
    """In the place of `Look`: the process dies at it, as where memory is short."""

    def __call__(self, task: Any) -> Any:
        os._exit(9)


def test_a_worker_that_is_killed_is_said() -> None:
    with pytest.raises(UserError, match=r"was killed.*; try --num-workers 1") as caught:
        list(worker_pool.in_processes(Deadly(), [["a"], ["b"]], 2))  # type: ignore[arg-type]
    assert caught.value.exit_code == 1


def lines(path: Path, sources: dict[str, Path]) -> None:
    """A manifest by which all of them are done."""
    entries = ({"id": name, "status": "ok", **manifest.source_state(source)} for name, source in sources.items())
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def make_large(dataset: Path, count: int, first_run: bool) -> None:
    """A data set of `count` entries of 640x360 and 30 frames: one video under many names, and flow that names them.

    Takes 1.3 GB of flow and 2 GB of embeddings, and a minute."""
    stems, frames = [f"clip{i:05d}" for i in range(count)], 30
    names = {"train": stems[: count * 4 // 5], "val": stems[count * 4 // 5 :]}
    splits = {split: {f"{s}.mp4": (i % 3,) for i, s in enumerate(some)} for split, some in names.items()}
    write_annotations(dataset / "annotations", splits)
    video_path = write_video(dataset / "videos/clip00000.mp4", moving_frames(frames, (2, 1), 360, 640), lossless=False)
    for stem in stems[1:]:
        os.link(video_path, dataset / "videos" / f"{stem}.mp4")
    if first_run:
        return
    extract_flows.main(["--model", "dis", "--dataset-dir", str(dataset), "--limit", "1"])
    flow = (dataset / "flows/clip00000.mp4").read_bytes()
    for stem in stems:  # names are equally long, so nothing in the file moves
        (dataset / "flows" / f"{stem}.mp4").write_bytes(flow.replace(b'"clip00000"', f'"{stem}"'.encode()))
    videos = {f"{stem}.mp4": dataset / "videos" / f"{stem}.mp4" for stem in stems}
    lines(dataset / "flows.manifest.jsonl", videos)
    made = {"clip_model": "x", "weights_sha256": "y", "sampling": EVERY_FRAME.as_dict()}
    for split, labels in splits.items():
        about = {"kind": "rgb", "type": split, "class_names": list(CLASSES), **made}
        one_hot = {name: np.eye(3, dtype=np.float32)[label] for name, (label,) in labels.items()}
        path = dataset / "embeddings" / f"ak_{split}_clip_embeddings.h5"
        write_large(path, about, frames, one_hot)
        lines(Path(f"{path}.manifest.jsonl"), {name: videos[name] for name in labels})
    write_large(dataset / MOTION, {"kind": "motion", "student": {}, **made}, frames - 1, dict.fromkeys(stems))
    flows = {stem: dataset / "flows" / f"{stem}.mp4" for stem in stems}
    lines(dataset / f"{MOTION}.manifest.jsonl", flows)


def write_large(path: Path, about: dict[str, Any], frames: int, labels: Mapping[str, np.ndarray | None]) -> None:
    writer = store.Writer(path, about, "float16")
    for key, one_hot in labels.items():
        part = writer.part(key)
        part.append(np.ones((frames, 512), np.float16))
        part.finish(np.arange(frames), np.arange(frames) / 25, 30, 25.0, one_hot)
    writer.finish(labels)


@pytest.mark.long
@pytest.mark.parametrize("first_run", [True, False], ids=["before the first run", "with all that is made"])
def test_30000_entries_that_are_fine_and_the_seconds_they_take(
    first_run: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With -s it prints them; on two idle cores, as processor time is what counts where others use them too."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # 150,000 of them would take longer than all else
    make_large(tmp_path / "dataset", 30_000, first_run)
    monkeypatch.undo()
    before = os.times()
    done = shell(tmp_path / "dataset", "--num-workers", "2")
    seconds = os.times()
    assert done.returncode == 0, done.stderr
    used = seconds.children_user - before.children_user + seconds.children_system - before.children_system
    print(f"{seconds.elapsed - before.elapsed:.0f} s, of processors {used:.0f} s")
