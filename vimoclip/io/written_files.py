"""The files that a program has written into a folder, by which it recognises those that somebody has edited since."""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from vimoclip.io import atomic, lock

RECORD_FILE = ".written.jsonl"  # a line {"file", "sha256"} for each version of each file
LOCK_TIMEOUT = 600.0  # seconds, several times what it takes to sum up 300 videos of an hour


class WrittenFiles:
    """Record of the contents that were written into a folder; a file with another content has been edited.

    `kept`: the edited files that `replace` and `remove` left as they are. A line is on disk before the content that
    it describes, so a file of a program that was interrupted does not count as edited."""

    def __init__(self, folder: Path):
        self.folder, self.kept = folder, list[Path]()
        self._digests: dict[str, set[str]] = defaultdict(set)
        self._line_end = ""
        self._read()

    def _read(self) -> None:
        try:
            text = (self.folder / RECORD_FILE).read_text(encoding="utf-8", errors="replace")
        except OSError:
            text = ""
        self._line_end = "" if not text or text.endswith("\n") else "\n"
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                self._digests[entry["file"]].add(entry["sha256"])
            except (ValueError, KeyError, TypeError):
                continue  # a line that an interruption cut off

    def lock(self) -> AbstractContextManager[None]:
        """Let no other process hold this lock of the folder within the block; wait for one that does.

        Raises UserError if it holds the lock for longer than LOCK_TIMEOUT."""
        return lock.exclusive_lock(self.folder / RECORD_FILE, LOCK_TIMEOUT)

    def is_recorded(self, path: Path) -> bool:
        """Return whether any content of a file was recorded."""
        return path.name in self._digests

    def is_edited(self, path: Path) -> bool:
        """Return whether a file has another content than those that were recorded. Raises OSError."""
        return self.is_recorded(path) and path.is_file() and not self._has_recorded_content(path)

    def _has_recorded_content(self, path: Path) -> bool:
        digest = _digest(path)
        if digest not in self._digests.get(path.name, ()):
            self._read()  # another process may have written the file
        return digest in self._digests.get(path.name, ())

    def remove(self, path: Path) -> None:
        """Remove a file of the folder, unless it has been edited, or is not recorded at all. Raises OSError."""
        if path.is_file():
            if self._has_recorded_content(path):
                path.unlink()
            else:
                self.kept.append(path)

    def replace(self, path: Path, write: Callable[[Path], Path]) -> Path:
        """Write a file of the folder by `write(path)`, unless it has been edited; return its path. Raises OSError."""
        if self.is_edited(path):
            self.kept.append(path)
            return path
        try:
            new = write(atomic.temporary_path(path, "new"))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        digest = _digest(new)
        if digest not in self._digests[path.name]:
            self._digests[path.name].add(digest)
            with open(self.folder / RECORD_FILE, "a", encoding="utf-8") as file:
                file.write(f"{self._line_end}{json.dumps({'file': path.name, 'sha256': digest})}\n")
                file.flush()
                os.fsync(file.fileno())
            self._line_end = ""
        atomic.publish(new, path)
        return path


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
