"""Both codings of a film at regular samples, as runs of samples between which nothing changes.

The rule is that of BORIS (irr.py), so that kappas are comparable: samples lie at start + k x step; an action is present
at a sample if start <= time <= stop of a bout, or if a point event is at most half a step away."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vimoclip.agreement.bouts import to_microseconds
from vimoclip.agreement.coding import FilmCoding, FilmPair


class SampleRuns(NamedTuple):
    """M runs of successive samples with the same actions in both codings, of A actions.

    `counts` (M,): samples of each run; `blocks` (M,): its block of time; `coded`, `predicted` (M, A): actions that are
    present; `known` (M, A): where both codings say whether an action is present."""

    counts: np.ndarray
    blocks: np.ndarray
    coded: np.ndarray
    predicted: np.ndarray
    known: np.ndarray


class TimeBlocks(NamedTuple):
    """`number` blocks of `length` microseconds that follow each other from `start`; the last ends where the film does,
    and is at least as long as the others."""

    start: int
    length: int
    number: int

    def of(self, times: np.ndarray) -> np.ndarray:
        """Return the blocks in which times lie."""
        return np.clip((times - self.start) // self.length, 0, self.number - 1)


def sample(film: FilmPair, actions: Sequence[str], step: int, blocks: TimeBlocks) -> SampleRuns:
    """Sample a film every `step` microseconds from `blocks.start` on, the start of its first compared span."""
    compared = _indices(to_microseconds(film.compared) - blocks.start, step)
    coded, predicted = (_present(coding, actions, step, blocks.start) for coding in (film.coded, film.predicted))
    unknown = [_indices(unknown_spans(film, action) - blocks.start, step) for action in actions]
    changes = [part.reshape(-1) for part in (compared, *coded, *predicted, *unknown)]
    bounds = np.unique(np.concatenate([*changes, -(-blocks.length * np.arange(1, blocks.number) // step)]))
    bounds = bounds[(bounds >= 0) & (bounds <= compared[-1, 1])]
    is_compared = _cover([compared], bounds)[:, 0]
    return SampleRuns(
        np.diff(bounds)[is_compared],
        blocks.of(blocks.start + step * bounds[:-1][is_compared]),
        _cover(coded, bounds)[is_compared],
        _cover(predicted, bounds)[is_compared],
        ~_cover(unknown, bounds)[is_compared],
    )


def unknown_spans(film: FilmPair, action: str) -> np.ndarray:
    """Return the spans in which one of the codings does not say whether an action is present."""
    return to_microseconds([*film.coded.unknown.get(action, ()), *film.predicted.unknown.get(action, ())])


def _present(coding: FilmCoding, actions: Sequence[str], step: int, start: int) -> list[np.ndarray]:
    """Return the ranges of samples at which each action is present."""
    bouts = [to_microseconds(coding.bouts.get(action, ())) - start for action in actions]
    points = [to_microseconds((time, time) for time in coding.points.get(action, ())) - start for action in actions]
    return [
        np.concatenate([_indices(spans, step), _indices(times, step, 1)])
        for spans, times in zip(bouts, points, strict=True)
    ]


def _indices(spans: np.ndarray, step: int, half_steps: int = 0) -> np.ndarray:
    """Return the samples in spans, both ends included, as (N, 2) ranges: the first, and one after the last.

    Spans are relative to sample 0, and longer by `half_steps` of half a step at both ends."""
    starts, stops = 2 * spans[:, 0] - half_steps * step, 2 * spans[:, 1] + half_steps * step
    return np.column_stack([-(-starts // (2 * step)), stops // (2 * step) + 1])


def _cover(ranges: Sequence[np.ndarray], bounds: np.ndarray) -> np.ndarray:
    """Return (M, A): whether each of M runs of samples, between successive bounds, lies in a range of each action."""
    changes = np.zeros((len(bounds), len(ranges)), np.int32)
    for column, spans in enumerate(ranges):
        clipped = np.clip(spans, bounds[0], bounds[-1])
        places = np.searchsorted(bounds, clipped[clipped[:, 1] > clipped[:, 0]])
        np.add.at(changes[:, column], places[:, 0], 1)
        np.subtract.at(changes[:, column], places[:, 1], 1)
    return changes.cumsum(0)[:-1] > 0
