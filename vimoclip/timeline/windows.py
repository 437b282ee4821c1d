"""Positions of sliding windows over a video, in seconds since its first frame."""

from typing import NamedTuple

DECIMALS = 6  # of rounded seconds
TIME_TOLERANCE = 1e-6  # seconds, larger than the rounding errors of summed floats


class WindowGrid(NamedTuple):
    """Windows of `length` seconds every `stride` seconds.

    Windows lie within the video, and the last one ends at the video's end. A video shorter than `length` is one
    window."""

    length: float
    stride: float

    def span(self, index: int) -> tuple[float, float]:
        """Return (start, stop) of a window, counted from the start."""
        start = round(index * self.stride, DECIMALS)
        return start, round(start + self.length, DECIMALS)

    def fits(self, index: int, seconds: float) -> bool:
        """Return whether a window, counted from the start, lies within the first `seconds` of the video."""
        return self.span(index)[0] + self.length <= seconds + TIME_TOLERANCE

    def last_span(self, count: int, seconds: float, tolerance: float = TIME_TOLERANCE) -> tuple[float, float] | None:
        """Return (start, stop) of the window that ends at the video's end.

        None if the `count` windows before it leave at most `tolerance` seconds uncovered."""
        if not count:
            return 0.0, seconds
        is_covered = seconds - self.span(count - 1)[1] <= tolerance
        return None if is_covered else (round(seconds - self.length, DECIMALS), seconds)

    def spans(self, seconds: float) -> list[tuple[float, float]]:
        """Return (start, stop) of all windows of a video."""
        spans: list[tuple[float, float]] = []
        while self.fits(len(spans), seconds):
            spans.append(self.span(len(spans)))
        last = self.last_span(len(spans), seconds)
        return [*spans, last] if last else spans
