"""Progress display: tqdm on a terminal, else a log line per minute."""

import sys
import time
from collections.abc import Iterable
from typing import Any, TypeVar

T = TypeVar("T")


def progress(items: Iterable[T], total: int | None, unit: str, desc: str = "") -> Iterable[T]:
    """Iterate with tqdm on a terminal, else with a log line per minute."""
    from tqdm import tqdm

    if sys.stderr.isatty():
        yield from tqdm(items, total=total, unit=unit, desc=desc, smoothing=0.05)
        return
    meter = ProgressMeter(total, unit, desc)
    for item in items:
        yield item
        meter.add(1)


class ProgressMeter:
    """Counter of items and frames that shows frames/s and the remaining time, with tqdm or a log line per minute."""

    def __init__(self, total: int | None, unit: str = "video", desc: str = "", log_interval: float = 60.0):
        self.total, self.unit, self.desc, self.log_interval = total, unit, desc, log_interval
        self.items = self.frames = 0
        self.started = self.last_logged = time.monotonic()
        self.bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, unit=unit, desc=desc, smoothing=0.05)

    def add(self, items: int = 0, frames: int = 0) -> None:
        """Count finished items and frames, and update the display."""
        self.items += items
        self.frames += frames
        now = time.monotonic()
        if self.bar is not None:
            self.bar.update(items)
            if frames:
                self.bar.set_postfix_str(f"{self.frames / max(now - self.started, 1e-9):.0f} frames/s", refresh=False)
        elif now - self.last_logged >= self.log_interval:
            self.last_logged = now
            print(self.format_line(now), file=sys.stderr, flush=True)

    def format_line(self, now: float) -> str:
        """Return the log line at the time `now` (of time.monotonic)."""
        seconds = max(now - self.started, 1e-9)
        text = f"{self.desc} {self.items}/{self.total if self.total is not None else '?'} {self.unit}s"
        if self.frames:
            text += f", {self.frames / seconds:.0f} frames/s"
        if self.items and self.total:
            text += f", {seconds / self.items * (self.total - self.items) / 60:.0f} min left"
        return text.strip()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
