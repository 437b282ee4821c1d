"""Spans of time: joined, and those that two lists have in common."""

from collections.abc import Iterable, Sequence

from vimoclip.timeline.bouts import Span


def join_spans(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return spans sorted, with those that overlap or touch as one."""
    joined: list[Span] = []
    for start, stop in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], stop)
        else:
            joined.append((start, stop))
    return tuple(joined)


def intersect_spans(first: Sequence[Span], second: Sequence[Span]) -> tuple[Span, ...]:
    """Return the spans of more than no length that lie in both lists, sorted."""
    common = ((max(a[0], b[0]), min(a[1], b[1])) for a in first for b in second)
    return tuple(sorted(span for span in common if span[0] < span[1]))
