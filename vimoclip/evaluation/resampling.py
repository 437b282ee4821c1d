"""What a bootstrap draws: clips, or whole sources (recordings, animals or sites), whose clips are not independent."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vimoclip import annotations, metrics
from vimoclip.annotations.split_checks import source_key
from vimoclip.errors import UserError

CLIPS, SOURCES = RESAMPLED = ("clips", "sources")
# Fewer sources give no interval, nor does a class whose positives are in fewer, since it would be too narrow: simulated
# 95 % intervals of macro AP covered the true value in 74 % of cases at three sources, 83 at five, 88 at eight, 89 to 94
# at twenty to eighty (benchmarks/source_intervals.py, NOTES.md)
MIN_SOURCES = 5


def read_sources(annotations_dir: Path) -> dict[str, str]:
    """Return the source by video of `sources.csv`. Raises UserError if there is none."""
    sources = annotations.read_sources(annotations_dir)
    if not sources:
        raise UserError(
            f"has no {annotations.SOURCES_FILE}, which names the source of each clip",
            "write one with the header video_id,source, or resample clips",
            path=annotations_dir,
        )
    return sources


def source_indices(sources: Mapping[str, str], videos: Sequence[str]) -> np.ndarray:
    """Return (N,): the index of each video's source, 0..G-1; a video without one is one by itself.

    It does not depend on the videos' order."""
    keys = [source_key(video, sources) for video in videos]
    index = {key: i for i, key in enumerate(sorted(set(keys)))}
    return np.array([index[key] for key in keys])


def source_weights(sources: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return (R, N) counts of a cluster bootstrap over the (N,) sources; no resample if there are too few of them."""
    num_resamples = resamples if len(np.unique(sources)) >= MIN_SOURCES else 0
    return metrics.cluster_bootstrap_weights(sources, num_resamples, seed)
