"""Coverage of intervals over clips and over sources: how often do 95 % intervals contain the true value?

    python -m benchmarks.source_intervals
Simulates evaluation splits whose clips come from sources (recordings, animals, sites). The scores of a source's clips
have a common error. `spread` is its standard deviation from source to source, where that of single clips is 1. Sources
differ in their classes too (their logits have twice that standard deviation). The true value is that of 2,000 sources.
Prints the coverage of the intervals that evaluate.py computes with --resample clips and --resample sources. NOTES.md
has the table, on which MIN_SOURCES of vimoclip/evaluation/resampling.py rests."""

import argparse
from typing import NamedTuple

import numpy as np

from vimoclip import cli, metrics

RESAMPLES = 400
NUM_CLASSES = 5
SEPARATION = 1.5  # of the scores of clips with and without a class
TRUE_SOURCES = 2000
SETTINGS = [  # sources, clips of each on average, spread
    *((40, 25, spread) for spread in (0.0, 0.25, 0.5, 1.0)),
    *((sources, 25, 0.5) for sources in (3, 5, 8, 12, 20, 80)),
    (70, 90, 0.5),  # as many clips and sources as val of Animal Kingdom by source
]
MAX_LARGE = 2000  # clips from which fewer repetitions suffice


class SimulatedClips(NamedTuple):
    """`scores` (N, C), `targets` (N, C) bool with one label each, `sources` (N,)."""

    scores: np.ndarray
    targets: np.ndarray
    sources: np.ndarray


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--repetitions", type=cli.positive_int, default=300, help="simulated splits of each row")
    parser.add_argument("--true-sources", type=cli.positive_int, default=TRUE_SOURCES, help="sources of the true value")
    parser.add_argument("--seed", type=cli.seed, default=0, help="seed of the simulation")
    return parser


def main(argv: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Return and print the coverage of each row: metric, and what is resampled -> fraction of the intervals."""
    args = build_parser().parse_args(argv)
    rng = np.random.default_rng(args.seed)
    truths: dict[float, dict[str, float]] = {}
    rows: dict[str, dict[str, float]] = {}
    for num_sources, size, spread in SETTINGS:
        if spread not in truths:
            clips = simulate(rng, args.true_sources, 25, spread)
            values = compute(clips, np.ones((1, len(clips.scores)), np.int32))
            truths[spread] = {name: float(found[0]) for name, found in values.items()}
        repetitions = max(1, args.repetitions // (3 if num_sources * size > MAX_LARGE else 1))
        name = f"{num_sources} sources of {size} clips, spread {spread:g}"
        rows[name] = coverage(rng, repetitions, (num_sources, size, spread), truths[spread])
        print(name, ", ".join(f"{key} {share:.0%}" for key, share in rows[name].items()), flush=True)
    return rows


def simulate(rng: np.random.Generator, num_sources: int, size: int, spread: float) -> SimulatedClips:
    """Return clips of sources of unequal sizes, which are gamma-distributed with the mean `size`."""
    sizes = np.maximum(1, rng.gamma(2, size / 2, num_sources).round().astype(int))
    sources = np.repeat(np.arange(num_sources), sizes)
    shape = (num_sources, NUM_CLASSES)
    preference = rng.normal(0, 2 * spread, shape)[sources] + rng.gumbel(size=(len(sources), NUM_CLASSES))
    targets = np.eye(NUM_CLASSES, dtype=bool)[preference.argmax(1)]
    errors = rng.normal(0, spread, shape)[sources] + rng.normal(size=targets.shape)
    return SimulatedClips(SEPARATION * targets + errors, targets, sources)


def coverage(
    rng: np.random.Generator, repetitions: int, setting: tuple[int, int, float], truth: dict[str, float]
) -> dict[str, float]:
    """Return the fraction of the intervals of each metric that contain the true value."""
    inside: dict[str, list[bool]] = {}
    for seed in range(repetitions):
        clips = simulate(rng, *setting)
        for over, drawn in (
            ("clips", metrics.bootstrap_weights(len(clips.scores), RESAMPLES, seed)),
            ("sources", metrics.cluster_bootstrap_weights(clips.sources, RESAMPLES, seed)),
        ):
            weights = np.concatenate([np.ones((1, len(clips.scores)), drawn.dtype), drawn])
            for name, values in compute(clips, weights).items():
                low, high = metrics.confidence_interval(values[1:], float(values[0]))
                inside.setdefault(f"{name} over {over}", []).append(low <= truth[name] <= high)
    return {name: float(np.mean(found)) for name, found in inside.items()}


def compute(clips: SimulatedClips, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return (R,) values of each metric under (R, N) weights."""
    per_class = metrics.bootstrap_ap_per_class(clips.scores, clips.targets, weights)
    correct = metrics.precision_at_k(clips.scores, clips.targets, 1)
    return {"macro AP": metrics.macro_average(per_class), "top-1": metrics.weighted_mean(correct, weights)}


if __name__ == "__main__":
    cli.run(main)
