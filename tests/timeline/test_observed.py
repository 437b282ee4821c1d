"""The spans of a video that were observed: pauses of the recording, windows without score, files that hold them."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.timeline.helpers import make_timeline
from vimoclip import timeline
from vimoclip.errors import UserError
from vimoclip.timeline import observed_spans
from vimoclip.timeline.bouts import window_edges

MICROSECOND = 1e-6  # seconds; spans are rounded to it
STEP = 0.25  # seconds between frames, except in pauses


def frame_times(*spans: tuple[float, float]) -> np.ndarray:
    """Return times of frames every STEP seconds from the start of each span to before its stop."""
    return np.concatenate([np.arange(start, stop, STEP) for start, stop in spans])


def scores_at(edges: np.ndarray, *unscored: tuple[float, float]) -> np.ndarray:
    """Return (W, 2) scores, NaN for the windows that lie in a span of `unscored`."""
    scores = np.full((len(edges) - 1, 2), 0.5)
    for start, stop in unscored:
        scores[(edges[:-1] >= start) & (edges[1:] <= stop)] = np.nan
    return scores


SECOND_EDGES = np.arange(21.0)


@pytest.mark.parametrize(
    ("times", "unscored", "expected"),
    [
        (frame_times((0, 20)), [], ((0, 20),)),
        (frame_times((0, 5), (10, 20)), [], ((0, 5), (10, 20))),  # a pause of the recording
        (frame_times((0, 5), (10, 12), (15, 20)), [], ((0, 5), (10, 12), (15, 20))),
        (frame_times((0, 5), (5.75, 20)), [], ((0, 20),)),  # frames that the camera skipped
        (frame_times((0, 20)), [(3, 5)], ((0, 3), (5, 20))),  # two windows without score, next to each other
        (frame_times((0, 20)), [(3, 4), (5, 6)], ((0, 3), (4, 5), (6, 20))),
        (frame_times((0, 20)), [(0, 2), (18, 20)], ((2, 18),)),
        (frame_times((0, 20)), [(0, 20)], ()),
        (frame_times((0, 5), (10, 20)), [(6, 9)], ((0, 5), (10, 20))),  # within the pause
        (frame_times((0, 5), (10, 20)), [(4, 11)], ((0, 4), (11, 20))),  # around the pause
        (frame_times((0, 5), (10, 20)), [(3, 6)], ((0, 3), (10, 20))),
        (frame_times((0, 5), (10, 20)), [(9, 12)], ((0, 5), (12, 20))),
        (frame_times((0, 5), (10, 20)), [(10, 12)], ((0, 5), (12, 20))),  # right after the pause
        (np.zeros(1), [], ((0, 20),)),
        (np.zeros(0), [], ((0, 20),)),
    ],
)
def test_pauses_and_windows_without_score_are_not_observed(
    times: np.ndarray, unscored: list[tuple[float, float]], expected: tuple[tuple[float, float], ...]
) -> None:
    assert observed_spans(times, SECOND_EDGES, scores_at(SECOND_EDGES, *unscored), 20) == expected


def test_a_window_with_the_score_of_one_class_was_observed() -> None:
    scores = scores_at(SECOND_EDGES)
    scores[4, 0] = np.nan
    assert observed_spans(frame_times((0, 20)), SECOND_EDGES, scores, 20) == ((0, 20),)


def test_frames_of_a_slow_recording_are_no_pauses() -> None:
    edges = np.arange(0, 301, 10.0)
    times = np.arange(0, 300, 10.0)  # a frame every 10 s
    assert observed_spans(times, edges, scores_at(edges), 300) == ((0, 300),)
    late = np.concatenate([times[:10], times[10:] + 100])
    edges = np.arange(0, 401, 10.0)
    assert observed_spans(late, edges, scores_at(edges), 400) == ((0, 100), (200, 400))


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(st.sampled_from([0.04, 1 / 30, 1001 / 30000, 0.5, 1.0, 1.2, 3.7, 40 / 3]), max_size=30),
    interval=st.sampled_from([0.04, 1 / 30, 1001 / 30000]),
    data=st.data(),
)
def test_spans_are_sorted_and_hold_some_time(steps: list[float], interval: float, data: st.DataObject) -> None:
    times = np.concatenate([[0.0], np.cumsum(steps)])
    seconds = float(times[-1]) + interval
    starts = np.arange(0, max(1e-9, seconds - 1), 0.5)
    edges = window_edges(starts, np.minimum(starts + 1, seconds), seconds)
    scores = np.full((len(starts), 1), 0.5)
    unscored = data.draw(st.lists(st.booleans(), min_size=len(starts), max_size=len(starts)))
    scores[unscored] = np.nan
    spans = observed_spans(times, edges, scores, seconds)
    for start, stop in spans:
        assert start >= 0 and stop - start > MICROSECOND / 4 and stop <= seconds
    assert all(after[0] - before[1] > MICROSECOND / 4 for before, after in pairwise(spans))
    step = float(np.median(np.diff(times))) if steps else 0
    marks = np.concatenate([times, times + step, edges])
    for middle in np.arange(0.0005, seconds - 0.0005, 0.0105).tolist():
        frame = int(np.searchsorted(times, middle, "right")) - 1
        is_last = frame == len(times) - 1
        length = 0 if is_last else times[frame + 1] - times[frame]
        in_pause = length > max(1, 3 * step) and middle > times[frame] + step
        window = int(np.searchsorted(edges, middle, "right")) - 1
        if np.abs(marks - middle).min() > 1e-5:
            expected = not in_pause and not unscored[window]
            assert any(start <= middle <= stop for start, stop in spans) == expected


def change_json(path: Path, changed: dict[str, Any]) -> Path:
    """Change members of the JSON file of a timeline, remove those that are None, and return its path."""
    document = json.loads(path.read_text(encoding="utf-8")) | changed
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))
    return path


def test_timeline_is_read_as_it_was_written(tmp_path: Path) -> None:
    scores = np.full((7, 2), 0.25)
    scores[2:4] = np.nan
    disagreements = (None, timeline.StreamDisagreement("drinking", 0.25, 0.75), *[None] * 5)
    written = make_timeline(
        tmp_path / "videos" / "a.mp4",
        scores=scores,
        observed=((0.0, 1.25), (2.25, 4.0)),
        disagreements=disagreements,
        positives={"resting": 12, "drinking": 0},
        score_sd=scores / 4,
    )
    timeline.write_timeline(tmp_path / "out", written)
    found = timeline.read_timeline(tmp_path / "out" / "a.json")
    assert found.video.resolve() == (tmp_path / "videos" / "a.mp4").resolve()
    for name in ("seconds", "fps", "frames", "classes", "bouts", "observed", "disagreements", "stem", "provenance"):
        assert getattr(found, name) == getattr(written, name)
    assert found.positives == written.positives
    for name in ("starts", "stops", "scores", "score_sd", "whole", "thresholds"):
        assert np.array_equal(getattr(found, name), getattr(written, name), equal_nan=True)


def test_json_of_the_former_version_was_observed_where_it_has_scores(tmp_path: Path) -> None:
    scores = np.full((7, 2), 0.25)
    scores[2:4] = np.nan
    timeline.write_timeline(tmp_path, make_timeline(tmp_path / "a.mp4", scores=scores))
    path = change_json(tmp_path / "a.json", {"observed": None, "path": None, "disagreements": None})
    found = timeline.read_timeline(path)
    assert found.observed == ((0.0, 1.25), (2.25, 4.0)) and found.video == tmp_path / "a.mp4"


@pytest.mark.parametrize(
    "changed",
    [
        {"classes": None},
        {"bouts": None},
        {"video": None},
        {"seconds": "long"},
        {"frames": float("inf")},
        {"scores": [[0.5]]},
        {"observed": [[0, 1, 2]]},
        {"positives": ["resting"]},
        {"positives": {"resting": "few"}},
        {"score_sd": [[0.5]]},
        {"whole": [0.5, 0.5]},
        {"bouts": [{"action": "flying", "start": 0, "stop": 1, "score": 1}]},
        {"bouts": [{"action": "resting", "start": 0, "stop": [1], "score": 1}]},
        {"bouts": [{"action": "resting", "start": 0, "stop": 1}]},
    ],
)
def test_damaged_json_is_an_error_that_names_the_file(tmp_path: Path, changed: dict[str, Any]) -> None:
    timeline.write_timeline(tmp_path, make_timeline(tmp_path / "a.mp4"))
    path = change_json(tmp_path / "a.json", changed)
    with pytest.raises(UserError, match=r"a\.json"):
        timeline.read_timeline(path)
