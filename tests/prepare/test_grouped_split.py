"""Splits that keep each source in one split."""

from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vimoclip.annotations import Annotations
from vimoclip.annotations.split_checks import find_leaks
from vimoclip.prepare import grouped_split
from vimoclip.prepare.grouped_split import split_videos

CLASSES = ("a", "b", "c", "d")


@st.composite
def labels_and_sources(draw: st.DrawFn) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Draw the labels of up to 60 videos, and the sources of some of them."""
    count = draw(st.integers(1, 60))
    labels = draw(st.lists(st.sets(st.integers(0, 3), max_size=3), min_size=count, max_size=count))
    sources = draw(st.lists(st.sampled_from(["", *"uvwxyz"]), min_size=count, max_size=count))
    videos = [f"v{i}.mp4" for i in range(count)]
    source_by_video = {video: source for video, source in zip(videos, sources, strict=True) if source}
    return {video: tuple(sorted(ids)) for video, ids in zip(videos, labels, strict=True)}, source_by_video


@settings(max_examples=20, deadline=None)
@given(labels_and_sources(), st.integers(0, 3), st.sampled_from([{"val": 1 / 3}, {"val": 0.2, "test": 0.2}]))
def test_each_source_is_in_one_split(
    drawn_data: tuple[dict[str, tuple[int, ...]], dict[str, str]], seed: int, fractions: dict[str, float]
) -> None:
    labels, sources = drawn_data
    data = split_videos(CLASSES, labels, fractions, seed, sources)
    assert {video: ids for videos in data.splits.values() for video, ids in videos.items()} == labels
    assert sum(map(len, data.splits.values())) == len(labels)
    groups = {sources.get(video, video) for video in labels}
    if len(groups) > 1:
        assert find_leaks(data.splits, sources) == []
        assert data.splits["train"] and data.splits["val"]
        assert find_leaks(train_and_selection(data, seed, sources), sources) == []
    reordered = dict(reversed(labels.items()))
    assert split_videos(CLASSES, reordered, fractions, seed, sources) == data


def train_and_selection(data: Annotations, seed: int, sources: dict[str, str]) -> dict[str, list[str]]:
    """Return the videos to train on and the model-selection split, if the training videos are of several sources."""
    train = data.splits["train"]
    if len({sources.get(video, video) for video in train}) < 2:
        return {}
    selected = set(grouped_split.draw_stratified(data, 0.2, seed, sources))
    assert 0 < len(selected) < len(train)
    return {"train": [video for video in train if video not in selected], "selection": list(selected)}


def test_classes_have_their_fraction_in_each_split() -> None:
    """40 animals with 5 clips each, ten animals per class."""
    labels, sources = {}, {}
    for animal in range(40):
        for clip in range(5):
            video = f"animal{animal}-{clip}.mp4"
            labels[video], sources[video] = (animal % 4,), f"animal{animal}"
    data = split_videos(CLASSES, labels, {"val": 0.3}, 7, sources)
    counts = np.zeros(4, int)
    for (label,) in data.splits["val"].values():
        counts[label] += 1
    assert counts.tolist() == [15, 15, 15, 15]
    assert split_videos(CLASSES, labels, {"val": 0.3}, 8, sources) != data


def test_large_source_and_class_of_one_source_are_in_train() -> None:
    labels = {f"big{i}.mp4": (0,) for i in range(50)} | {f"small{i}.mp4": (0,) for i in range(10)}
    labels |= {f"rare{i}.mp4": (1,) for i in range(4)}
    sources = {video: video[:3] if video.startswith("big") else video[:4] for video in labels}
    sources |= {f"small{i}.mp4": f"s{i % 5}" for i in range(10)}
    data = split_videos(CLASSES[:2], labels, {"val": 1 / 3}, 0, sources)
    splits_by_source = defaultdict(set)
    for name, videos in data.splits.items():
        for video in videos:
            splits_by_source[sources[video]].add(name)
    assert splits_by_source["big"] == {"train"}
    assert splits_by_source["rare"] == {"train"}


def test_source_in_two_splits_is_named_with_its_clips() -> None:
    sources = {"a1": "zoo", "a2": "zoo", "b1": "farm", "b2": "farm", "c": "lake"}
    (line,) = find_leaks({"train": ["a1", "b1", "b2"], "val": ["a2", "c", "unknown"]}, sources)
    assert line.startswith("warning: 1 sources are in train and in val, with 1 clips of val (zoo)")


def test_split_size_for_sources_with_many_labels() -> None:
    """Twelve videos of 20 clips with 14 labels: a third are four videos."""
    rng = np.random.default_rng(3)
    labels = {f"f{film:02d}-{i:02d}.mp4": (int(rng.integers(14)),) for film in range(12) for i in range(20)}
    sources = {video: video[:3] for video in labels}
    for seed in range(3):
        data = split_videos([str(i) for i in range(14)], labels, {"val": 1 / 3}, seed, sources)
        assert len(data.splits["val"]) == 80


def test_last_source_stays_in_one_split() -> None:
    labels: dict[str, tuple[int, ...]] = {f"v{i}.mp4": () for i in range(3)}
    data = split_videos(CLASSES, labels, {"val": 0.2, "test": 0.2}, 0, {"v1.mp4": "u", "v2.mp4": "u"})
    assert sorted(map(len, data.splits.values())) == [0, 1, 2]
    assert find_leaks(data.splits, {"v1.mp4": "u", "v2.mp4": "u"}) == []
