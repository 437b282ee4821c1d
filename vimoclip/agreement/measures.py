"""Agreement of two codings by time and by bouts, with bootstrap intervals.

All measures are functions of sums over units: films, or blocks of time if there is one film. A bootstrap resample
weights the units, so that it needs weighted sums only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vimoclip import metrics
from vimoclip.agreement.bouts import MICROSECONDS, to_microseconds
from vimoclip.agreement.coding import CodingPair, FilmPair
from vimoclip.agreement.samples import TimeBlocks
from vimoclip.agreement.sums import AgreementSums, combine, film_sums
from vimoclip.errors import UserError
from vimoclip.evaluation.metrics_with_ci import nan_to_none
from vimoclip.io.names import list_some
from vimoclip.metrics.kappa import binary_kappa, cohen_kappa, divide, precision_recall_f1, weighted_products

# Of the bootstrap of a single film. Intervals from shorter blocks are too narrow, since successive blocks depend on
# each other: those of 10 s covered the true kappa in 75 to 89 % of simulated hours, those of 60 s in 90 to 94
# (NOTES.md)
BLOCK_SECONDS = 60
# Fewer films or blocks give no interval, nor does an action that is in fewer of them, since it would be too narrow:
# simulated 95 % intervals of kappa covered the true value in 50 % of cases at two films, 75 at three, 83 at five, 90 at
# ten (NOTES.md)
MIN_UNITS = 5
LEVEL = 0.95
MIN_STEP = 0.001  # seconds, as times of BORIS
METHOD = "percentiles, shifted so that the mean of the resamples is the value"
INFINITE = float("inf")


@dataclass(frozen=True)
class MeasureSettings:
    """`step`: seconds from sample to sample; `overlap`: intersection over union from which two bouts match;
    `resamples` and `seed` of the bootstrap; `block_seconds`: length of the blocks of a single film."""

    step: float = 0.1
    overlap: float = 0.5
    resamples: int = 1000
    seed: int = 0
    block_seconds: float = BLOCK_SECONDS


def measure(pair: CodingPair, settings: MeasureSettings) -> dict[str, Any]:
    """Return the numbers of agreement.json, and under "notes" sentences about what says little, or is missing.

    None stands for what is not defined. Raises UserError for a step that is too short, or longer than all films."""
    films = pair.films
    longest = max(map(_compared_seconds, films))
    if not MIN_STEP <= settings.step <= longest:
        problem = f"--step {settings.step:g} is not between {MIN_STEP:g} s and {longest:g} s"
        raise UserError(f"{problem}, the longest compared time of a film", "give a number in between")
    step = round(settings.step * MICROSECONDS)
    block = round(settings.block_seconds * MICROSECONDS) if len(films) == 1 else None
    blocks = [_blocks(film, block) for film in films]
    state_ids: dict[bytes, int] = {}
    parts = [
        film_sums(film, pair.actions, step, settings.overlap, of_film, state_ids)
        for film, of_film in zip(films, blocks, strict=True)
    ]
    sums = combine(parts, len(state_ids))
    units, unit = len(sums.agreed), "films" if len(films) > 1 else f"blocks of {settings.block_seconds:g} s"
    weights = np.vstack([np.ones(units), metrics.bootstrap_weights(units, settings.resamples, settings.seed)])
    return {
        "step_seconds": settings.step,
        "overlap": settings.overlap,
        "samples": sums.samples,
        "compared_seconds": sum(map(_compared_seconds, films)),
        "bootstrap": {
            "resamples": settings.resamples,
            "seed": settings.seed,
            "level": LEVEL,
            "over": unit,
            "units": units,
            "method": METHOD,
        },
        "films": [_film_row(film, part) for film, (part, _) in zip(films, parts, strict=True)],
        "overall": _overall(sums, weights),
        "actions": {action: _action(sums, weights, a) for a, action in enumerate(pair.actions)},
        "confusions": _confusions(sums.confusions, pair.actions, step),
        "notes": _notes(sums, pair.actions, unit),
    }


def _blocks(film: FilmPair, length: int | None) -> TimeBlocks:
    """Return blocks of `length` microseconds from the first compared time to the last; None: one block."""
    spans = to_microseconds(film.compared)
    start, stop = int(spans[0, 0]), int(spans[-1, 1])
    return TimeBlocks(start, length or max(stop - start, 1), max(1, (stop - start) // length) if length else 1)


def _film_row(film: FilmPair, sums: AgreementSums) -> dict[str, Any]:
    kappa, percent = _state_agreement(sums, np.ones((1, len(sums.agreed))))
    return {
        "name": film.name,
        "seconds": film.seconds,
        "compared_seconds": _compared_seconds(film),
        "samples": sums.samples,
        "kappa": nan_to_none(kappa[0]),
        "percent_agreement": nan_to_none(percent[0]),
    }


def _compared_seconds(film: FilmPair) -> float:
    return float(np.diff(to_microseconds(film.compared)).sum() / MICROSECONDS)


def _state_agreement(sums: AgreementSums, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return kappa and percent agreement of joint states under each row of (R, U) weights.

    Kappa is 1, as in BORIS, if both codings have one and the same state throughout."""
    agreed, total = weights @ sums.agreed, weights @ sums.states[0].sum(1)
    kappa = cohen_kappa(agreed, weighted_products(weights, *sums.states), total)
    return np.where(np.isnan(kappa) & (total > 0), 1.0, kappa), 100 * divide(agreed, total)


def _overall(sums: AgreementSums, weights: np.ndarray) -> dict[str, Any]:
    kappa, percent = _state_agreement(sums, weights)
    table = np.tensordot(weights, sums.table, 1)
    kappas = binary_kappa(table)
    num_states = sums.states.shape[2]
    has_interval = len(sums.agreed) >= MIN_UNITS
    bouts = weights @ sums.bouts.sum(1)
    return {
        "kappa": _entry(kappa, has_interval and num_states > 1, -1, 1),
        "percent_agreement": _entry(percent, has_interval, 0, 100),
        "states": num_states,
        "kappa_macro": _entry(metrics.macro_average(kappas), has_interval, -1, 1),
        "actions_with_kappa": int((~np.isnan(kappas[0])).sum()),
        "by_time": _by_time(table.sum(1), has_interval),
        "by_bouts": _by_bouts(bouts, has_interval),
        **_boundary_errors(weights @ sums.errors.sum(1), bouts, has_interval),
    }


def _action(sums: AgreementSums, weights: np.ndarray, a: int) -> dict[str, Any]:
    table, bouts, errors = (weights @ array[:, a] for array in (sums.table, sums.bouts, sums.errors))
    has_interval = bool(_has_interval(sums)[a])
    coded_seconds, predicted_seconds = (sums.lengths[:, a] / MICROSECONDS).tolist()
    coded_points, predicted_points = sums.points[:, a].tolist()
    return {
        "coded_seconds": coded_seconds,
        "predicted_seconds": predicted_seconds,
        "coded_points": coded_points,
        "predicted_points": predicted_points,
        "kappa": _entry(binary_kappa(table), has_interval, -1, 1),
        "percent_agreement": _entry(100 * divide(table[:, 0] + table[:, 3], table.sum(1)), has_interval, 0, 100),
        "by_time": _by_time(table, has_interval),
        "by_bouts": _by_bouts(bouts, has_interval),
        **_boundary_errors(errors, bouts, has_interval),
    }


def _by_time(table: np.ndarray, has_interval: bool) -> dict[str, Any]:
    both, missed, wrong = table[:, 0], table[:, 1], table[:, 2]
    values = precision_recall_f1(both, both + missed, both + wrong)
    return {name: _entry(array, has_interval, 0, 1) for name, array in values._asdict().items()}


def _by_bouts(bouts: np.ndarray, has_interval: bool) -> dict[str, Any]:
    counts = dict(zip(("matched", "coded", "predicted"), bouts[0].astype(int).tolist(), strict=True))
    values = precision_recall_f1(*bouts.T)
    return {name: _entry(array, has_interval, 0, 1) for name, array in values._asdict().items()} | counts


def _boundary_errors(errors: np.ndarray, bouts: np.ndarray, has_interval: bool) -> dict[str, Any]:
    """Return the mean errors of the starts and stops of matched bouts. `errors`, `bouts`: weighted sums."""
    means = divide(errors, bouts[:, :1]) / MICROSECONDS
    onset, onset_absolute, offset, offset_absolute = (_entry(column, has_interval) for column in means.T)
    return {
        "onset_error_seconds": {"mean": onset, "mean_absolute": onset_absolute},
        "offset_error_seconds": {"mean": offset, "mean_absolute": offset_absolute},
    }


def _entry(values: np.ndarray, has_interval: bool, low: float = -INFINITE, high: float = INFINITE) -> dict[str, Any]:
    """Return an entry from (1 + R,) values, of all units and of the resamples; the interval is clipped to low..high."""
    bounds = metrics.confidence_interval(values[1:], float(values[0])) if has_interval else (np.nan, np.nan)
    interval = None if np.isnan(bounds).any() else np.clip(bounds, low, high).tolist()
    return {"value": nan_to_none(values[0]), "ci95": interval}


def _has_interval(sums: AgreementSums) -> np.ndarray:
    """Return (A,): whether an action is in so many units, in either coding, that intervals of it mean something."""
    return (sums.table[..., :3].any(-1) | sums.bouts.any(-1)).sum(0) >= MIN_UNITS


def _confusions(samples: np.ndarray, actions: Sequence[str], step: int) -> list[dict[str, Any]]:
    names = [*actions, None]
    order = np.argsort(-samples, axis=None, kind="stable")
    cells = [divmod(int(cell), len(names)) for cell in order if samples.flat[cell]]
    return [
        {"coded": names[row], "predicted": names[column], "seconds": int(samples[row, column]) * step / MICROSECONDS}
        for row, column in cells
    ]


def _notes(sums: AgreementSums, actions: Sequence[str], unit: str) -> list[str]:
    """Return sentences about numbers that say little, and missing ones. `unit`: what is resampled, in the plural."""
    notes = []
    if (num_known := int(sums.states[0].sum())) < sums.samples:
        unknown = [action for a, action in enumerate(actions) if sums.table[:, a].sum() < sums.samples]
        notes.append(
            f"Samples at which it is unknown whether {list_some(unknown)} occurs are left out, also of the measures of "
            f"all actions together: {100 * (1 - num_known / sums.samples):.3g} % of {sums.samples:,}."
        )
    if sums.states.shape[2] == 1:
        notes.append(
            "Both codings have the same actions at all compared times, so kappa of all actions together is 1 by "
            "definition and says little."
        )
    if (units := len(sums.agreed)) < MIN_UNITS:
        return [*notes, f"No 95 % intervals: at least {MIN_UNITS} {unit} are needed, and the number is {units}."]
    rare = [action for action, has_interval in zip(actions, _has_interval(sums), strict=True) if not has_interval]
    if rare:
        notes.append(f"No 95 % intervals of {list_some(rare, 20)}: each occurs in fewer than {MIN_UNITS} {unit}.")
    return notes
