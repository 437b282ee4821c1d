"""The draw of few-shot training clips."""

import hypothesis
import pytest
from hypothesis import strategies as st

from vimoclip.annotations.few_shot import draw_shots

LABELS = st.dictionaries(st.text(min_size=1), st.lists(st.integers(0, 4), max_size=3), max_size=30)


def clips_by_class(labels: dict[str, list[int]]) -> dict[int | None, set[str]]:
    """Class -> its clips; None: clips without a label."""
    classes = {label for clip in labels.values() for label in clip}
    with_label: dict[int | None, set[str]] = {
        label: {clip for clip in labels if label in labels[clip]} for label in classes
    }
    return {**with_label, None: {clip for clip in labels if not labels[clip]}}


@hypothesis.given(LABELS, st.integers(1, 6), st.integers(1, 6), st.randoms())
def test_draw_is_nested_and_has_enough_of_each_class(labels, few, more, random) -> None:
    drawn = draw_shots(labels, few)
    assert drawn == sorted(set(drawn)) and set(drawn) <= labels.keys()
    shuffled = list(labels)
    random.shuffle(shuffled)
    assert draw_shots({clip: labels[clip] for clip in shuffled}, few) == drawn
    for clips in clips_by_class(labels).values():
        assert len(clips & set(drawn)) >= min(few, len(clips))
    assert set(draw_shots(labels, min(few, more))) <= set(draw_shots(labels, max(few, more)))


@hypothesis.given(st.dictionaries(st.text(min_size=1), st.lists(st.integers(0, 4), max_size=1)), st.integers(1, 6))
def test_clips_with_one_label_at_most_give_exactly_n_a_class(labels, shots) -> None:
    drawn = set(draw_shots(labels, shots))
    for clips in clips_by_class(labels).values():
        assert len(clips & drawn) == min(shots, len(clips))


def test_draw_never_changes() -> None:
    """The number of shots says which clips a published run was trained on. The order is that of
    `printf '0 V00.mp4' | sha256sum`."""
    labels = {f"V{n:02}.mp4": [n % 3] for n in range(12)}
    assert draw_shots(labels, 1) == ["V07.mp4", "V08.mp4", "V09.mp4"]
    assert draw_shots(labels, 100) == sorted(labels)
    assert draw_shots({}, 1) == []
    with pytest.raises(ValueError, match="0 shots"):
        draw_shots(labels, 0)


def test_draw_is_not_in_the_order_of_names() -> None:
    labels = {f"V{n:03}.mp4": [0] for n in range(200)}
    drawn = [int(clip[1:4]) for clip in draw_shots(labels, 20)]
    assert max(drawn) > 100 and min(drawn) < 100
