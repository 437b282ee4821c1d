"""Progress display by tqdm: a bar on a terminal, else a line per minute."""

import sys
import time
from collections.abc import Iterable
from typing import Any, TypeVar

T = TypeVar("T")

LOG_SECONDS = 60.0  # between two lines in a log
LOG_FORMAT = "{desc}: {n_fmt}/{total_fmt} {unit}s, {elapsed} passed, {remaining} left, {rate_fmt}{postfix}\n"


def progress(items: Iterable[T], total: int | None, unit: str, desc: str = "") -> Iterable[T]:
    """Iterate with a progress display."""
    return _make_bar(items, total, unit, desc)


class ProgressMeter:
    """Progress display that counts items and frames, and shows frames/s and the remaining time."""

    def __init__(self, total: int | None, unit: str = "video", desc: str = ""):
        self.frames, self.started = 0, time.monotonic()
        self.bar = _make_bar(None, total, unit, desc)

    def add(self, items: int = 0, frames: int = 0) -> None:
        """Count finished items and frames, and update the display."""
        if frames:
            self.frames += frames
            rate = self.frames / max(time.monotonic() - self.started, 1e-9)
            self.bar.set_postfix_str(f"{rate:.0f} frames/s", refresh=False)
        self.bar.update(items)

    def close(self) -> None:
        self.bar.close()


def _make_bar(items: Iterable[T] | None, total: int | None, unit: str, desc: str) -> Any:
    from tqdm import tqdm

    options: dict[str, Any] = {}
    if not sys.stderr.isatty():
        options = {
            "mininterval": LOG_SECONDS,
            "maxinterval": LOG_SECONDS,
            "delay": LOG_SECONDS,
            "bar_format": LOG_FORMAT,
        }
    return tqdm(items, total=total, unit=unit, desc=desc, smoothing=0.05, miniters=0, **options)
