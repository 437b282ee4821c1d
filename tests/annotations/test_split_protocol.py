"""Evaluation protocols: the default, the split of training files, checks of the selection."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vimoclip.annotations import split_protocol
from vimoclip.errors import UserError


def write_selection(folder: Path, *names: str) -> Path:
    """Write `folder/selection.txt` and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "selection.txt").write_text("".join(f"{name}\n" for name in names))
    return folder


def test_default_protocol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert split_protocol.resolve(None, tmp_path / "none") == split_protocol.PUBLISHED
    out = capsys.readouterr().out  # published: with a warning
    assert out.startswith("warning: ") and len(out.splitlines()) == 1
    assert "python prepare_dataset.py selection" in out
    annotations_dir = write_selection(tmp_path / "annotations", "a.mp4")
    for requested in (None, split_protocol.HELD_OUT):
        assert split_protocol.resolve(requested, annotations_dir) == split_protocol.HELD_OUT
    assert split_protocol.resolve(split_protocol.PUBLISHED, annotations_dir) == split_protocol.PUBLISHED
    assert split_protocol.resolve(split_protocol.PUBLISHED, tmp_path) == split_protocol.PUBLISHED
    assert capsys.readouterr().out == ""


def test_held_out_without_selection_txt_and_unknown_protocols_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        split_protocol.resolve(split_protocol.HELD_OUT, tmp_path)
    assert error.value.path == str(tmp_path / "selection.txt")
    assert "prepare_dataset.py selection" in error.value.hint
    with pytest.raises(UserError) as error:
        split_protocol.resolve("heldout", tmp_path)
    assert "heldout" in error.value.problem and all(name in error.value.hint for name in ("held_out", "published"))


@given(st.lists(st.booleans(), max_size=12), st.sets(st.integers(20, 25)))
def test_split_train_selection_is_a_partition_in_order(
    tmp_path_factory: pytest.TempPathFactory, is_selected: list[bool], missing: set[int]
) -> None:
    keys = [f"v{i}.mp4" for i in range(len(is_selected))]
    selected = [key for key, selected in zip(keys, is_selected, strict=True) if selected]
    annotations_dir = write_selection(
        tmp_path_factory.mktemp("annotations"), *(f"v{i}.mp4" for i in missing), *reversed(selected)
    )
    if not missing | set(selected):
        (annotations_dir / "selection.txt").write_text("missing.mp4\n")
    if len(set(is_selected)) < 2:
        with pytest.raises(UserError) as error:
            split_protocol.split_train_selection(keys, annotations_dir, Path("x.h5"))
        assert error.value.path == "x.h5" and str(annotations_dir / "selection.txt") in error.value.problem
        return
    train, selection = split_protocol.split_train_selection(keys, annotations_dir, Path("x.h5"))
    assert selection == selected
    assert train == [key for key in keys if key not in selected]


def test_missing_videos_of_the_selection_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys, training_file = ["a.mp4", "b.mp4", "c.mp4"], Path("train.h5")
    split_protocol.check_selection_keys(keys, write_selection(tmp_path, "a.mp4"), training_file)
    assert capsys.readouterr().out == ""
    split_protocol.check_selection_keys(keys, write_selection(tmp_path, "a.mp4", "x.mp4"), training_file)
    out = capsys.readouterr().out
    assert out.startswith("warning: ") and "train.h5" in out and "(x.mp4)" in out
    with pytest.raises(UserError) as error:
        split_protocol.check_selection_keys(keys, write_selection(tmp_path, "a.mp4", "b.avi"), training_file)
    assert error.value.path == str(tmp_path / "selection.txt") and "b.avi" in error.value.problem


@pytest.mark.parametrize("video", ["a.mp4", "c.mp4"])
def test_val_clips_in_train_or_selection_are_refused(tmp_path: Path, video: str) -> None:
    annotations_dir = write_selection(tmp_path, "a.mp4")
    (annotations_dir / "val_multi.txt").write_text(f"z.mp4 1\n{video} 0\n")
    with pytest.raises(UserError) as error:
        split_protocol.check_selection_keys(["a.mp4", "b.mp4", "c.mp4"], annotations_dir, Path("train.h5"))
    assert error.value.path == str(annotations_dir / "val_multi.txt") and video in error.value.problem
