"""Run folders and what is in them: checkpoints, seeds, metrics, TensorBoard; and the device that a run computes on."""

import hashlib
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any


def digest(content: Any) -> str:
    """A hash of plain values, by which a run knows again what it learns from."""
    return hashlib.sha256(repr(content).encode()).hexdigest()


def remove(folder: Path, logs: Path) -> None:
    """Remove a run, beginning with what it would go on from, or be called finished by, were this stopped."""
    for name in ("last.pth", "metrics.json"):
        (folder / name).unlink(missing_ok=True)
    for place in (folder, logs):
        if place.exists():
            shutil.rmtree(place)


def name_by_time() -> str:
    """Of a run that has no other name, like 20250328-003544."""
    return datetime.now().strftime("%Y%m%d-%H%M%S")
