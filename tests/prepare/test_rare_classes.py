"""Rare classes: the model-selection split has a clip of each class that can give one, and the others are named."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import extract_embeddings
import prepare_dataset
from tests.conftest import write_annotations
from vimoclip import annotations
from vimoclip.annotations import Annotations, split_checks
from vimoclip.errors import UserError
from vimoclip.prepare import grouped_split

Labels = list[tuple[int, ...]]


def make_annotations(labels: Labels, num_classes: int) -> Annotations:
    train = {f"t{i:04d}.mp4": ids for i, ids in enumerate(labels)}
    return Annotations(tuple(f"c{i}" for i in range(num_classes)), {"train": train})


def selected_classes(data: Annotations, drawn: tuple[str, ...]) -> set[int]:
    return {label for video in drawn for label in data.splits["train"][video]}


@pytest.mark.parametrize("count", [12, 13, 20, 40, 77, 200, 300])
@pytest.mark.parametrize("positives", range(2, 9))
def test_rare_class_is_drawn_from_unlabelled_clips(count: int, positives: int) -> None:
    for seed in range(4):
        places = np.random.default_rng(seed).permutation(count)[:positives]
        data = make_annotations([(0,) if i in places else () for i in range(count)], 1)
        drawn = grouped_split.draw_stratified(data, seed=seed)
        assert len(drawn) == max(1, round(0.1 * count))
        assert 1 <= sum(bool(data.splits["train"][video]) for video in drawn) < positives


def best_coverage(counts: np.ndarray, sizes: np.ndarray, limit: float) -> int | None:
    """Return the most classes that a draw of at most `limit` clips has, if each class keeps a clip outside of it.

    None if no draw leaves each class one. Tries all draws."""
    draws = np.array(list(product([0, 1], repeat=len(sizes))))[1:-1]
    has_class = counts > 0
    keeps = (((1 - draws) @ has_class > 0) | ~has_class.any(0)).all(1)
    fits = keeps & (draws @ sizes <= limit)
    return int((draws[fits] @ has_class > 0).sum(1).max()) if fits.any() else None


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sets(st.integers(0, 4), max_size=2).map(tuple), min_size=3, max_size=12),
    st.floats(0.05, 0.5),
    st.integers(0, 2**32 - 1),
)
def test_no_draw_of_single_clips_has_more_classes(labels: Labels, fraction: float, seed: int) -> None:
    data = make_annotations(labels, 5)
    drawn = grouped_split.draw_stratified(data, fraction, seed)
    limit = min(max(1, round(fraction * len(labels))), len(labels) - 1)
    best = best_coverage(*split_checks.group_training_videos(data, {})[1:], max(limit, len(drawn)))
    if best is not None:
        assert len(selected_classes(data, drawn)) == best


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sets(st.integers(0, 4), max_size=2).map(tuple), st.integers(0, 7)), min_size=9, max_size=60),
    st.sampled_from([0.1, 0.2, 1 / 3]),
    st.integers(0, 2**32 - 1),
)
def test_no_draw_of_sources_has_more_classes(
    clips: list[tuple[tuple[int, ...], int]], fraction: float, seed: int
) -> None:
    data = make_annotations([ids for ids, _ in clips], 5)
    sources = {video: f"s{source}" for video, (_, source) in zip(data.splits["train"], clips, strict=True)}
    drawn = grouped_split.draw_stratified(data, fraction, seed, sources)
    groups, counts, sizes = split_checks.group_training_videos(data, sources)
    if len(groups) == len(clips):  # of one source: single clips
        return
    assert not {sources[video] for video in drawn} & {sources[v] for v in data.splits["train"] if v not in drawn}
    limit = (fraction + min(fraction, grouped_split.MAX_EXCESS)) * len(clips)
    best = best_coverage(counts, sizes, max(limit, len(drawn)))
    if best is not None:
        assert (best_coverage(counts, sizes, limit) or 0) <= len(selected_classes(data, drawn)) <= best
    gaps = split_checks.find_gaps(Annotations(data.classes, data.splits, {}, drawn), sources)
    assert split_checks.NOT_DRAWN not in gaps


def test_other_draws_stay_the_same() -> None:
    """With a clip of each class, the draw of the stratification is kept."""
    labels = np.eye(3, dtype=int)[np.arange(60) % 3]
    drawn = np.arange(60) < 6
    assert split_checks.cover_classes(labels, np.ones(60, int), drawn, 6, 0) is drawn


def test_val_has_rare_classes_too() -> None:
    labels = {f"v{i:03d}.mp4": (0,) if i < 2 else () for i in range(30)}
    for seed in range(5):
        data = grouped_split.split_videos(("a",), labels, {"val": 0.1}, seed)
        assert sum(map(bool, data.splits["val"].values())) == 1


def test_each_reason_is_named() -> None:
    """Class 0 is in selection; 1 has one clip; 2 has one source; 3 could be drawn; 4 has no clip."""
    labels: Labels = [(0,), (0,), (), (1,), (2,), (2,), (3,), (3,), ()]
    sources = dict(zip([f"t{i:04d}.mp4" for i in range(9)], "abcdeefgg", strict=True))
    data = make_annotations(labels, 5)
    with_selection = Annotations(data.classes, data.splits, {}, ("t0000.mp4", "t0002.mp4"))
    assert split_checks.find_gaps(with_selection, sources) == {
        split_checks.NOT_TRAINED: ["c4"],
        split_checks.ONE_CLIP: ["c1"],
        split_checks.ONE_SOURCE: ["c2"],
        split_checks.NOT_DRAWN: ["c3"],
    }
    without_room = Annotations(data.classes, data.splits, {}, ("t0000.mp4",))
    assert split_checks.find_gaps(without_room, sources)[split_checks.NO_ROOM] == ["c3"]


def test_selection_without_any_label_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "dataset" / "annotations"
    train: dict[str, tuple[int, ...]] = {f"t{i}.mp4": (0,) if not i else () for i in range(20)}
    write_annotations(folder, {"train": train})
    with pytest.raises(UserError, match="label"):
        prepare_dataset.main(["selection", "--dataset-dir", str(folder.parent)])
    assert not (folder / "selection.txt").exists()
    write_annotations(folder, {"train": train | {"t1.mp4": (0,)}})
    prepare_dataset.main(["selection", "--dataset-dir", str(folder.parent)])
    data = annotations.load(folder, "ak")
    assert sum(bool(data.splits["train"][video]) for video in data.selection) == 1


def test_embedding_names_classes_without_clips_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "dataset" / "annotations"
    write_annotations(folder, {"train": {"a.mp4": (0,), "b.mp4": (), "c.mp4": (0,)}, "val": {"v.mp4": (1,)}})
    (folder / "selection.txt").write_text("b.mp4\n")
    (tmp_path / "dataset" / "videos").mkdir()
    flags = ["--dataset-dir", str(tmp_path / "dataset")]
    for splits, num_lines in ((["val"], 0), (["train"], 3)):
        extract_embeddings.make_jobs(extract_embeddings.build_parser().parse_args([*flags, "--split", *splits]))
        lines = capsys.readouterr().out.splitlines()
        assert len([line for line in lines if line.startswith("warning: ")]) == num_lines
