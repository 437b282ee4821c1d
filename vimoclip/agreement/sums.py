"""Sums over units of time, from which all measures of agreement follow.

A unit is a film, or a block of time of the only film."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vimoclip.agreement.bouts import clip, match, subtract, to_microseconds
from vimoclip.agreement.coding import FilmPair
from vimoclip.agreement.samples import SampleRuns, TimeBlocks, sample, unknown_spans
from vimoclip.timeline.bouts import Span


class AgreementSums(NamedTuple):
    """Sums of U units, A actions and S joint states, the sets of actions that a coding has at a sample.

    `table` (U, A, 4): samples with an action in both codings, the coded one only, the predicted one only, neither;
    `bouts` (U, A, 3): matched, coded, predicted; `errors` (U, A, 4): sums over matched bouts, in microseconds, of onset
    errors, their absolute values, offset errors, and theirs; `states` (2, U, S): samples of each joint state in the
    coded and the predicted one; `agreed` (U,): samples with the same state in both; `lengths` and `points` (2, A): of
    the bouts, in microseconds, and the number of point events; `confusions` (A + 1, A + 1): samples, the last row and
    column for no action; `samples`: all of them."""

    table: np.ndarray
    bouts: np.ndarray
    errors: np.ndarray
    states: np.ndarray
    agreed: np.ndarray
    lengths: np.ndarray
    points: np.ndarray
    confusions: np.ndarray
    samples: int


def film_sums(
    film: FilmPair, actions: Sequence[str], step: int, overlap: float, blocks: TimeBlocks, state_ids: dict[bytes, int]
) -> tuple[AgreementSums, np.ndarray]:
    """Return the sums of a film, and the ids of its joint states, to which `state_ids` adds the new ones.

    Blocks without samples, as between two compared spans, are left out."""
    runs = sample(film, actions, step, blocks)
    masks = (runs.coded & runs.predicted, runs.coded & ~runs.predicted, ~runs.coded & runs.predicted)
    table = np.zeros((blocks.number, len(actions), 4), np.int64)
    for column, mask in enumerate([*masks, ~runs.coded & ~runs.predicted]):
        np.add.at(table[..., column], runs.blocks, runs.counts[:, None] * (mask & runs.known))
    is_known = runs.known.all(1)
    runs_known = SampleRuns(*(array[is_known] for array in runs))
    states, agreed, ids = _joint_states(runs_known, blocks.number, state_ids)
    bouts, errors, lengths = _bout_sums(film, actions, overlap, blocks)
    points = [
        [_points_within(coding.points.get(action, ()), film.compared) for action in actions]
        for coding in (film.coded, film.predicted)
    ]
    kept = table.any((1, 2)) | bouts.any((1, 2))
    return AgreementSums(
        table=table[kept],
        bouts=bouts[kept],
        errors=errors[kept],
        states=states[:, kept],
        agreed=agreed[kept],
        lengths=lengths,
        points=np.array(points, np.int64),
        confusions=_confused_samples(runs_known),
        samples=int(runs.counts.sum()),
    ), ids


def _joint_states(
    runs: SampleRuns, units: int, state_ids: dict[bytes, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (2, U, S) samples of each joint state, (U,) samples with the same in both, and the (S,) ids of states."""
    packed = np.packbits(np.concatenate([runs.coded, runs.predicted]), axis=1)
    rows, inverse = np.unique(packed, axis=0, return_inverse=True)
    coded, predicted = inverse.reshape(2, -1)
    states = np.zeros((2, units, len(rows)), np.int64)
    np.add.at(states[0], (runs.blocks, coded), runs.counts)
    np.add.at(states[1], (runs.blocks, predicted), runs.counts)
    agreed = np.zeros(units, np.int64)
    np.add.at(agreed, runs.blocks, runs.counts * (coded == predicted))
    ids = [state_ids.setdefault(row.tobytes(), len(state_ids)) for row in rows]
    return states, agreed, np.array(ids, np.int64)


def _bout_sums(
    film: FilmPair, actions: Sequence[str], overlap: float, blocks: TimeBlocks
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return `bouts`, `errors` and `lengths` of `AgreementSums`.

    A bout counts in the block in which it starts, a matched predicted one in that of the coded one."""
    bouts = np.zeros((blocks.number, len(actions), 3), np.int64)
    errors = np.zeros((blocks.number, len(actions), 4), np.int64)
    lengths = np.zeros((2, len(actions)), np.int64)
    compared = to_microseconds(film.compared)
    for a, action in enumerate(actions):
        known = subtract(compared, unknown_spans(film, action))
        coded, predicted = (
            clip(to_microseconds(coding.bouts.get(action, ())), known) for coding in (film.coded, film.predicted)
        )
        lengths[:, a] = [(spans[:, 1] - spans[:, 0]).sum() for spans in (coded, predicted)]
        i, j = match(coded, predicted, overlap)
        difference = predicted[j] - coded[i]
        coded_blocks, predicted_blocks = blocks.of(coded[:, 0]), blocks.of(predicted[:, 0])
        predicted_blocks[j] = coded_blocks[i]
        for column, counted in enumerate((coded_blocks[i], coded_blocks, predicted_blocks)):
            np.add.at(bouts[:, a, column], counted, 1)
        np.add.at(errors[:, a, 0::2], coded_blocks[i], difference)
        np.add.at(errors[:, a, 1::2], coded_blocks[i], abs(difference))
    return bouts, errors, lengths


def _points_within(times: Sequence[float], compared: Sequence[Span]) -> int:
    return sum(any(start <= time <= stop for start, stop in compared) for time in times)


def _confused_samples(runs: SampleRuns) -> np.ndarray:
    """Return (A + 1, A + 1) samples: rows of coded actions, columns of predicted ones, none last.

    On the diagonal an action is in both; elsewhere the row's is missed while the column's is predicted wrongly."""
    both, neither = runs.coded & runs.predicted, ~(runs.coded | runs.predicted).any(1)
    missed, wrong = (np.column_stack([mask, ~mask.any(1)]) for mask in (runs.coded & ~both, runs.predicted & ~both))
    counts = runs.counts.astype(np.float64)  # products of floats are fast, and exact below 2**53
    confusions = (missed * counts[:, None]).T @ wrong.astype(np.float64)
    np.fill_diagonal(confusions, [*(counts @ both), counts @ neither])
    return confusions.astype(np.int64)


def combine(parts: Sequence[tuple[AgreementSums, np.ndarray]], num_states: int) -> AgreementSums:
    """Return the sums of all films. `parts`: those of each film, and the ids of its joint states."""
    films = [sums for sums, _ in parts]
    states = np.zeros((2, sum(len(film.agreed) for film in films), num_states), np.int64)
    start = 0
    for film, ids in parts:
        stop = start + len(film.agreed)
        states[:, start:stop][..., ids] = film.states
        start = stop
    return AgreementSums(
        table=np.concatenate([film.table for film in films]),
        bouts=np.concatenate([film.bouts for film in films]),
        errors=np.concatenate([film.errors for film in films]),
        states=states,
        agreed=np.concatenate([film.agreed for film in films]),
        lengths=np.sum([film.lengths for film in films], axis=0),
        points=np.sum([film.points for film in films], axis=0),
        confusions=np.sum([film.confusions for film in films], axis=0),
        samples=sum(film.samples for film in films),
    )
