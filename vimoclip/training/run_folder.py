"""Run folders: opening and removing them, and hashes that identify a run's inputs."""

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimoclip import cli
from vimoclip.io import lock, yaml_json

if TYPE_CHECKING:
    from vimoclip.runtime.distributed import ProcessGroup


@contextmanager
def open_run(
    folder: Path,
    logs_dir: Path,
    settings_name: str,
    settings: Mapping[str, Any],
    overwrite: bool,
    group: "ProcessGroup",
) -> Iterator[None]:
    """Lock a run folder for the block, and write the run's settings there as YAML; all processes call it.

    `overwrite`: remove the run first. Raises UserError if another process trains the run."""
    with lock.exclusive_lock(folder) if group.is_main else nullcontext():
        if group.is_main:
            if overwrite:
                remove_run(folder, logs_dir)
                cli.mark_overwritten()
            folder.mkdir(parents=True, exist_ok=True)
            yaml_json.write_yaml(folder / settings_name, settings)
        group.barrier()  # all processes see the folder as rank 0 prepared it
        yield


def remove_run(folder: Path, logs_dir: Path) -> None:
    """Remove a run. The files that mark it as resumable or finished go first, in case the removal is interrupted."""
    for name in ("last.pth", "metrics.json"):
        (folder / name).unlink(missing_ok=True)
    for path in (folder, logs_dir):
        if path.exists():
            shutil.rmtree(path)


def digest(content: Any) -> str:
    """Return the SHA-256 of the repr of plain values."""
    return hashlib.sha256(repr(content).encode()).hexdigest()
