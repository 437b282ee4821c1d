"""How far a stage is: tqdm on a terminal, elsewhere a log line a minute."""

import sys
import time
from collections.abc import Iterable
from typing import Any, TypeVar

T = TypeVar("T")


def progress(items: Iterable[T], total: int | None, unit: str, describe: str = "") -> Iterable[T]:
    """tqdm on a terminal; elsewhere a log line a minute."""
    from tqdm import tqdm

    if sys.stderr.isatty():
        yield from tqdm(items, total=total, unit=unit, desc=describe, smoothing=0.05)
        return
    meter = Meter(total, unit, describe)
    for item in items:
        yield item
        meter.add(1)


class Meter:
    """Counts finished videos and frames; shows frames/s and the time left, by tqdm or as a line a minute."""

    def __init__(self, total: int | None, unit: str = "video", describe: str = "", every: float = 60.0):
        self.total, self.unit, self.describe, self.every = total, unit, describe, every
        self.items = self.frames = 0
        self.started = self.spoke = time.monotonic()
        self.bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, unit=unit, desc=describe, smoothing=0.05)

    def add(self, items: int = 0, frames: int = 0) -> None:
        self.items += items
        self.frames += frames
        now = time.monotonic()
        if self.bar is not None:
            self.bar.update(items)
            if frames:
                self.bar.set_postfix_str(f"{self.frames / max(now - self.started, 1e-9):.0f} frames/s", refresh=False)
        elif now - self.spoke >= self.every:
            self.spoke = now
            print(self.line(now), file=sys.stderr, flush=True)

    def line(self, now: float) -> str:
        seconds = max(now - self.started, 1e-9)
        text = f"{self.describe} {self.items}/{self.total if self.total is not None else '?'} {self.unit}s"
        if self.frames:
            text += f", {self.frames / seconds:.0f} frames/s"
        if self.items and self.total:
            text += f", {seconds / self.items * (self.total - self.items) / 60:.0f} min left"
        return text.strip()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
