"""Coverage of the intervals of agreement.py: how often do 95 % intervals contain the true value?

    python -m benchmarks.agreement_intervals
Simulates films in which four actions occur and a second coder misses some bouts, adds others and shifts edges. The true
value is that of 600 hours. Prints the coverage of blocks of several lengths in single films, and of several numbers of
films. NOTES.md has the tables, on which BLOCK_SECONDS and MIN_UNITS of vimoclip/agreement/measures.py rest."""

import argparse
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from vimoclip import cli
from vimoclip.agreement.coding import CodingPair, FilmCoding, FilmPair
from vimoclip.agreement.measures import MeasureSettings, measure
from vimoclip.agreement.spans import join_spans

STEP = 0.5  # seconds
RESAMPLES = 400
MINUTE = 60.0
SPREAD = 0.5  # of the logarithm of pauses and errors, from film to film
TRUE_FILMS = 1800  # of 20 minutes


class Action(NamedTuple):
    """Mean length of bouts and pauses in seconds; share of bouts that the second coder misses; false bouts per bout;
    standard deviation of the error of edges in seconds."""

    bout: float
    pause: float
    missed: float
    added: float
    jitter: float


ACTIONS = {
    "short": Action(5, 20, 0.1, 0.1, 0.5),
    "middle": Action(10, 40, 0.2, 0.15, 1),
    "long": Action(20, 60, 0.1, 0.2, 2),
    "rare": Action(10, 600, 0.2, 0.2, 1),
}


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--repetitions", type=cli.positive_int, default=300, help="simulated data sets of each row")
    parser.add_argument("--true-films", type=cli.positive_int, default=TRUE_FILMS, help="films of the true value")
    parser.add_argument("--seed", type=cli.seed, default=0, help="seed of the simulation")
    return parser


def main(argv: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Return and print the coverage of each row: name of a kappa -> share of the intervals with the true value."""
    args = build_parser().parse_args(argv)
    rng = np.random.default_rng(args.seed)
    rows: dict[str, dict[str, float]] = {}
    for spread in (0.0, SPREAD):
        truth = kappas([simulate_film(rng, 20 * MINUTE, spread) for _ in range(args.true_films)])
        for length, count, block in settings_of(spread):
            films = ([simulate_film(rng, length, spread) for _ in range(count)] for _ in range(args.repetitions))
            name = f"{count} film{'s' * (count > 1)} of {length / MINUTE:g} min"
            name += "" if count > 1 else f", blocks of {block:g} s"
            rows[name] = coverage(films, block, {key: value for key, (value, _) in truth.items()})
            print(name, ", ".join(f"{key} {share:.0%}" for key, share in rows[name].items()), flush=True)
    return rows


def settings_of(spread: float) -> list[tuple[float, int, float]]:
    """Return (length of films, number of films, length of blocks): single films that are alike, or several."""
    if not spread:
        return [(minutes * MINUTE, 1, block) for minutes in (10, 30, 60) for block in (10.0, 30.0, 60.0, 120.0)]
    return [(20 * MINUTE, count, MeasureSettings.block_seconds) for count in (5, 6, 8, 10, 20)]


def simulate_film(rng: np.random.Generator, seconds: float, spread: float) -> FilmPair:
    """Return a film and its two codings. `spread`: see SPREAD; 0 for films that are alike."""
    coded, predicted = {}, {}
    for name, action in ACTIONS.items():
        pauses, errors = np.exp(rng.normal(0, spread, 2))
        action = action._replace(pause=action.pause * pauses, added=action.added * errors)
        bouts = simulate_bouts(rng, seconds, action)
        coded[name] = join_spans(bouts)
        predicted[name] = join_spans(simulate_errors(rng, seconds, bouts, action, min(0.8, action.missed * errors)))
    return FilmPair(
        "film", FilmCoding("film", seconds, coded), FilmCoding("film", seconds, predicted), seconds, ((0.0, seconds),)
    )


def simulate_bouts(rng: np.random.Generator, seconds: float, action: Action) -> list[tuple[float, float]]:
    """Return bouts of gamma-distributed lengths, with exponential pauses between them."""
    bouts, time = list[tuple[float, float]](), float(rng.exponential(action.pause))
    while time < seconds:
        stop = min(time + float(rng.gamma(2, action.bout / 2)), seconds)
        bouts.append((time, stop))
        time = stop + 0.2 + float(rng.exponential(action.pause))
    return bouts


def simulate_errors(
    rng: np.random.Generator, seconds: float, bouts: Sequence[tuple[float, float]], action: Action, missed: float
) -> list[tuple[float, float]]:
    """Return the bouts of the second coder."""
    kept = [tuple(bout + rng.normal(0, action.jitter, 2)) for bout in bouts if rng.random() >= missed]
    starts = rng.uniform(0, seconds, rng.poisson(action.added * len(bouts)))
    added = [(start, start + rng.gamma(2, action.bout / 2)) for start in starts]
    clipped = [(max(0.0, float(start)), min(seconds, float(stop))) for start, stop in [*kept, *added]]
    return [(start, stop) for start, stop in clipped if stop > start]


def coverage(repeated: Iterable[Sequence[FilmPair]], block: float, truth: dict[str, float]) -> dict[str, float]:
    """Return the share of the intervals of each kappa that contain the true value; missing ones don't count."""
    inside: dict[str, list[bool]] = {name: [] for name in truth}
    for films in repeated:
        for name, (_, interval) in kappas(films, block).items():
            if interval:
                inside[name].append(interval[0] <= truth[name] <= interval[1])
    return {name: float(np.mean(found)) for name, found in inside.items() if found}


def kappas(
    films: Sequence[FilmPair], block: float = MeasureSettings.block_seconds
) -> dict[str, tuple[float, list[float] | None]]:
    """Return kappa and its interval: of all actions together, the mean of the actions, and of each action."""
    settings = MeasureSettings(STEP, resamples=RESAMPLES, block_seconds=block)
    result = measure(CodingPair(tuple(ACTIONS), tuple(films), ()), settings)
    entries = {"all": result["overall"]["kappa"], "mean": result["overall"]["kappa_macro"]}
    entries |= {name: action["kappa"] for name, action in result["actions"].items()}
    return {name: (entry["value"], entry["ci95"]) for name, entry in entries.items()}


if __name__ == "__main__":
    cli.run(main)
