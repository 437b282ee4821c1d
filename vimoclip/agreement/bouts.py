"""Bouts of two codings matched one to one by their overlap.

Spans are (N, 2) int64 arrays of start and stop in microseconds, in which comparisons are exact."""

from collections.abc import Iterable

import numpy as np

from vimoclip.timeline.bouts import Span

MICROSECONDS = 1_000_000
MAX_SECONDS = 1e9


def to_microseconds(spans: Iterable[Span]) -> np.ndarray:
    """Return spans in seconds as an array. Infinity becomes MAX_SECONDS."""
    seconds = np.array(list(spans), np.float64).reshape(-1, 2)
    return np.rint(np.minimum(seconds, MAX_SECONDS) * MICROSECONDS).astype(np.int64)


def clip(spans: np.ndarray, within: np.ndarray) -> np.ndarray:
    """Return the parts of spans that lie in `within` and have a length. Both are sorted, and so is the result."""
    parts = [np.clip(spans, start, stop) for start, stop in within]
    clipped = np.concatenate([np.empty((0, 2), np.int64), *parts])
    return clipped[clipped[:, 1] > clipped[:, 0]]


def subtract(spans: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Return the parts of sorted spans that lie in no removed span, sorted. Removed spans may overlap, in any order."""
    for start, stop in removed:
        before = np.column_stack([spans[:, 0], np.minimum(spans[:, 1], start)])
        after = np.column_stack([np.maximum(spans[:, 0], stop), spans[:, 1]])
        parts = np.concatenate([before, after])
        spans = parts[parts[:, 1] > parts[:, 0]]
    return spans


def match(coded: np.ndarray, predicted: np.ndarray, overlap: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of matched bouts of one action: those of the coded ones, and those of the predicted ones.

    Two bouts match if their intersection is at least `overlap` of their union. Each matches at most one, the pair of
    the largest overlap first, of equal ones the earliest. Bouts of a coding are sorted and do not overlap."""
    first = np.searchsorted(predicted[:, 1], coded[:, 0], side="right")
    counts = np.maximum(np.searchsorted(predicted[:, 0], coded[:, 1], side="left") - first, 0)
    i = np.arange(len(coded)).repeat(counts)
    j = np.arange(len(i)) - (np.cumsum(counts) - counts).repeat(counts) + first.repeat(counts)
    union = np.maximum(coded[i, 1], predicted[j, 1]) - np.minimum(coded[i, 0], predicted[j, 0])
    intersection = np.minimum(coded[i, 1], predicted[j, 1]) - np.maximum(coded[i, 0], predicted[j, 0])
    ratios = intersection / union
    is_free = np.ones(len(coded), bool), np.ones(len(predicted), bool)
    matched: list[tuple[int, int]] = []
    for pair in np.lexsort((j, i, -ratios)).tolist():
        a, b = int(i[pair]), int(j[pair])
        if ratios[pair] >= overlap and is_free[0][a] and is_free[1][b]:
            is_free[0][a] = is_free[1][b] = False
            matched.append((a, b))
    pairs = np.array(matched, np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]
