"""Run folders: their names, their removal, and hashes that identify a run's inputs."""

import hashlib
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any


def digest(content: Any) -> str:
    """Return the SHA-256 of the repr of plain values."""
    return hashlib.sha256(repr(content).encode()).hexdigest()


def remove_run(folder: Path, logs_dir: Path) -> None:
    """Remove a run. The files that mark it as resumable or finished go first, in case the removal is interrupted."""
    for name in ("last.pth", "metrics.json"):
        (folder / name).unlink(missing_ok=True)
    for path in (folder, logs_dir):
        if path.exists():
            shutil.rmtree(path)


def timestamp_name() -> str:
    """Return the default name of a run, like 20250328-003544."""
    return datetime.now().strftime("%Y%m%d-%H%M%S")
