"""Notes on annotations: classes without clips, sources on two sides, names that are no name on another system."""

import unicodedata
from collections.abc import Mapping
from pathlib import Path

import pytest

import prepare_dataset
from tests.check.helpers import run_check
from tests.conftest import CLASSES, write_annotations
from vimoclip.annotations import split_checks

Splits = Mapping[str, Mapping[str, tuple[int, ...]]]
CAFE = unicodedata.normalize("NFC", "café")


def annotation_notes(folder: Path, splits: Splits, *selection: str, sources: str = "") -> list[str]:
    """Return the notes on annotations whose videos don't exist."""
    annotations_dir = folder / "dataset" / "annotations"
    write_annotations(annotations_dir, splits)
    if selection:
        (annotations_dir / "selection.txt").write_text("".join(f"{video}\n" for video in selection))
    if sources:
        (annotations_dir / "sources.csv").write_text(f"video_id,source\n{sources}")
    (folder / "dataset" / "videos").mkdir()
    return [note["reason"] for note in run_check(folder / "dataset")["notes"] if note["area"] == "annotations"]


def rare_class(count: int = 20) -> Splits:
    """All classes have several training clips."""
    return {"train": {f"t{i:02d}.mp4": (i % 3,) if i < 9 else () for i in range(count)}, "val": {"v.mp4": (0,)}}


def test_class_that_a_selection_lacks_is_named_until_it_is_drawn_again(tmp_path: Path) -> None:
    (note,) = annotation_notes(tmp_path, rare_class(), "t00.mp4", "t01.mp4", "t19.mp4")
    assert split_checks.NOT_DRAWN in note and CLASSES[2] in note and "--overwrite" in note
    prepare_dataset.main(["selection", "--dataset-dir", str(tmp_path / "dataset"), "--overwrite", "--share", "0.15"])
    assert [n for n in run_check(tmp_path / "dataset")["notes"] if n["area"] == "annotations"] == []


def test_class_without_a_training_clip_is_named(tmp_path: Path) -> None:
    splits = {"train": {"a.mp4": (0,), "b.mp4": (0,), "c.mp4": (1,)}, "val": {"v.mp4": (2,)}}
    (note,) = annotation_notes(tmp_path, splits)
    assert split_checks.NOT_TRAINED in note and CLASSES[2] in note


def test_sources_on_two_sides_are_named(tmp_path: Path) -> None:
    sources = "t00.mp4,zoo\nv.mp4,zoo\nt01.mp4,farm\nt04.mp4,farm\n"
    val_note, selection_note = annotation_notes(
        tmp_path, rare_class(), "t01.mp4", "t05.mp4", "t06.mp4", sources=sources
    )
    assert "(zoo)" in val_note and " val" in val_note
    assert "(farm)" in selection_note and " selection" in selection_note


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (("a.mp4", "b.mp4"), ()),
        (("a.mp4", "A.mp4"), ("a.mp4, A.mp4",)),
        ((f"{CAFE}.mp4", "b.mp4"), ()),
        ((unicodedata.normalize("NFD", f"{CAFE}.mp4"), "b.mp4"), ("NFC",)),
        ((f"{CAFE}.mp4", unicodedata.normalize("NFD", f"{CAFE}.mp4")), ("Unicode", "NFC")),
        (("10:30.mp4", "what?.mp4", "con.mp4"), ("3 videos",)),
    ],
)
def test_names_of_videos_that_another_system_refuses(
    names: tuple[str, ...], named: tuple[str, ...], tmp_path: Path
) -> None:
    splits: Splits = {"train": dict.fromkeys(names, (0, 1, 2)), "val": {"v.mp4": (0,)}}
    notes = annotation_notes(tmp_path, splits)
    assert len(notes) == len(named)
    for note, part in zip(notes, named, strict=True):
        assert part in note


def test_classes_that_differ_in_case_or_form_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "dataset" / "annotations"
    write_annotations(folder, rare_class())
    (folder / "ak_action.csv").write_text("id,name\n0,Walk\n1,walk\n2,run\n")
    (tmp_path / "dataset" / "videos").mkdir()
    (note,) = [n["reason"] for n in run_check(tmp_path / "dataset")["notes"] if n["area"] == "annotations"]
    assert "Walk, walk" in note
