"""Model-selection split: fractions of every label, remaining training clips, the command, and the check."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import prepare_dataset
from tests.conftest import CLASSES, write_annotations
from vimoclip import annotations
from vimoclip.annotations import Annotations, split_checks
from vimoclip.errors import UserError
from vimoclip.prepare import grouped_split

Labels = list[tuple[int, ...]]


def make_annotations(labels: Sequence[tuple[int, ...]], num_classes: int = 3) -> Annotations:
    train = {f"t{i:04d}.mp4": ids for i, ids in enumerate(labels)}
    return Annotations(tuple(f"c{i}" for i in range(num_classes)), {"train": train, "val": {"v.mp4": (0,)}})


def count_labels(data: Annotations, videos: Iterable[str]) -> Counter[int]:
    return Counter(label for video in videos for label in data.splits["train"][video])


def test_each_label_has_its_fraction() -> None:
    """Three labels: the last is rare, and the second occurs only with the first."""
    labels: Labels = [(0, 1) if i % 2 else (0,) for i in range(300)] + [(2,)] * 20 + [()] * 100
    data = make_annotations(labels)
    drawn = grouped_split.draw_stratified(data)
    assert len(drawn) == 42
    assert count_labels(data, drawn) == {0: 30, 1: 15, 2: 2}
    assert sum(not data.splits["train"][video] for video in drawn) == 10
    assert list(drawn) == [video for video in data.splits["train"] if video in set(drawn)]
    assert count_labels(data, grouped_split.draw_stratified(data, fraction=0.5))[2] == 10


def test_selection_depends_on_the_seed() -> None:
    data = make_annotations([(i % 3,) for i in range(90)])
    assert grouped_split.draw_stratified(data) == grouped_split.draw_stratified(data, 0.1, 49)
    assert grouped_split.draw_stratified(data) != grouped_split.draw_stratified(data, 0.1, 50)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.sets(st.integers(0, 3), max_size=3).map(tuple), max_size=25),
    st.floats(0.01, 0.99),
    st.integers(0, 2**32 - 1),
)
def test_each_class_keeps_a_training_clip_if_possible(labels: Labels, fraction: float, seed: int) -> None:
    data = make_annotations(labels, 4)
    drawn = grouped_split.draw_stratified(data, fraction, seed)
    if len(labels) < 2:
        assert drawn == ()
        return
    remaining = [video for video in data.splits["train"] if video not in drawn]
    assert drawn
    assert remaining
    assert len(set(drawn)) == len(drawn)
    all_counts = count_labels(data, data.splits["train"])
    without_clips = all_counts.keys() - count_labels(data, remaining).keys()
    # a clip can be drawn if each of its labels has another clip
    if any(all(all_counts[label] > 1 for label in ids) for ids in labels):
        assert not without_clips
    else:
        assert len(drawn) == 1


def test_single_class() -> None:
    assert len(grouped_split.draw_stratified(make_annotations([(0,) if i % 2 else () for i in range(40)], 1))) == 4


def test_a_tenth_is_drawn_of_small_classes() -> None:
    data = make_annotations([(i % 30,) for i in range(120)], 30)
    drawn = grouped_split.draw_stratified(data)
    assert len(drawn) == 12
    assert set(count_labels(data, drawn).values()) == {1}


def test_class_with_one_training_clip_keeps_it() -> None:
    data = make_annotations([(0,) for _ in range(20)] + [(1,)])
    for seed in range(10):
        assert "t0020.mp4" not in grouped_split.draw_stratified(data, 0.5, seed)


@pytest.fixture
def annotations_dir(tmp_path: Path) -> Path:
    """12 training videos, 4 of each class."""
    folder = tmp_path / "dataset" / "annotations"
    train = {f"t{i:02d}.mp4": (i % 3,) for i in range(12)}
    write_annotations(folder, {"train": train, "val": {"v.mp4": (0,)}})
    return folder


def draw_selection(annotations_dir: Path, *flags: str) -> Path:
    report = prepare_dataset.main(["selection", "--dataset-dir", str(annotations_dir.parent), *flags])
    (path,) = report.outputs
    assert report.done == len(path.read_text().splitlines())
    return path


def test_command_draws_for_existing_annotations(annotations_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert draw_selection(annotations_dir, "--share", "0.25") == annotations_dir / "selection.txt"
    data = annotations.load(annotations_dir, "ak")
    assert sorted(data.splits["train"][video] for video in data.selection) == [(0,), (1,), (2,)]
    (line,) = capsys.readouterr().out.splitlines()
    assert "3 of 12 training clips" in line


def test_classes_without_selection_or_training_clip_are_named(
    annotations_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_selection(annotations_dir)
    (selected,) = annotations.load(annotations_dir, "ak").selection
    missing = [name for i, name in enumerate(CLASSES) if i != int(selected[1:3]) % 3]
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: 2 classes")]
    assert f": {', '.join(missing)};" in line
    write_annotations(annotations_dir, {"train": {"a.mp4": (0,), "b.mp4": (1,)}})
    draw_selection(annotations_dir, "--overwrite")
    assert f"2 classes have {split_checks.NOT_TRAINED}: " in capsys.readouterr().out


def test_another_selection_is_replaced_with_overwrite_only(annotations_dir: Path) -> None:
    draw_selection(annotations_dir)
    before = (annotations_dir / "selection.txt").read_bytes()
    draw_selection(annotations_dir)  # the same
    with pytest.raises(UserError, match="--overwrite"):
        draw_selection(annotations_dir, "--share", "0.5")
    assert (annotations_dir / "selection.txt").read_bytes() == before
    (annotations_dir / "selection.txt").write_text("unknown.mp4\n")  # also a broken one
    draw_selection(annotations_dir, "--share", "0.5", "--overwrite")
    assert len(annotations.load(annotations_dir, "ak").selection) == 6


@pytest.mark.parametrize("train", [{}, {"a.mp4": (0,)}])
def test_fewer_than_two_training_videos_are_an_error(train: dict[str, tuple[int, ...]], annotations_dir: Path) -> None:
    write_annotations(annotations_dir, {"train": train})
    with pytest.raises(UserError) as caught:
        draw_selection(annotations_dir)
    assert caught.value.path == str(annotations_dir / "train_multi.txt")
    assert not (annotations_dir / "selection.txt").exists()


@pytest.mark.parametrize("flags", [["--share", "0"], ["--share", "1"], ["--seed", "-1"]])
def test_invalid_share_or_seed_is_a_usage_error(flags: list[str], annotations_dir: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        draw_selection(annotations_dir, *flags)
    assert stopped.value.code == 2


def test_flags_are_passed_on(annotations_dir: Path) -> None:
    selections = set()
    for seed in range(6):
        draw_selection(annotations_dir, "--seed", str(seed), "--overwrite")
        selections.add((annotations_dir / "selection.txt").read_text())
    assert len(selections) > 1
    (annotations_dir / "ak_action.csv").rename(annotations_dir / "zoo_action.csv")
    assert draw_selection(annotations_dir, "--overwrite", "--dataset-name", "zoo")
