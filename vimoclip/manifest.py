"""The manifest beside every output: what became of each video, a line of JSON each, kept over restarts."""

import errno
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from vimoclip import UserError, files

STATUSES = ("ok", "partial", "skipped", "failed")
_BEGINNING = b'{"id": "'  # of every line


@dataclass(frozen=True)
class Entry:
    """One video. `size` (bytes) and `mtime` (s since 1970) are of its source, None where there was none.

    `reason`: why it isn't ok, or what is unusual about it. `seconds`: what the run spent on it.
    `settings`: a hash of those it was made, or given up, with."""

    id: str
    status: str
    reason: str = ""
    frames_expected: int | None = None
    frames_decoded: int | None = None
    size: int | None = None
    mtime: float | None = None
    seconds: float = 0.0
    settings: str = ""


def source_state(path: Path) -> dict[str, int | float | None]:
    """`size` and `mtime` of a source, both None where it can't be looked at."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):
        return {"size": None, "mtime": None}
    return {"size": state.st_size, "mtime": state.st_mtime}


def manifest_path(output: Path) -> Path:
    """`<output>.manifest.jsonl`, beside a file or a folder."""
    return files.beside(output, ".manifest.jsonl")


class Manifest:
    """The entries beside one output. `add` puts a line behind the others at once, `settle` leaves one a video.

    Raises UserError where the file under its name is no manifest."""

    def __init__(self, output: Path, overwrite: bool = False):
        self.path = manifest_path(output)
        self.entries = {} if overwrite else read(self.path)
        self.settle()

    def add(self, entry: Entry) -> None:
        """On disk when this returns, so that an output that is there always has its line. Raises OSError."""
        self.entries[entry.id] = entry
        text = _line(entry).encode()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            written = os.write(descriptor, text)
            os.fsync(descriptor)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        finally:
            os.close(descriptor)
        if written < len(text):  # the disk became full within the line; the next start drops its half
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def forget(self, ids: Iterable[str]) -> None:
        """Drop entries whose videos are to be done again."""
        for video in ids:
            self.entries.pop(video, None)

    def unchanged(self, video: str, path: Path) -> bool:
        """Whether the source is the one that the entry is of, by size and modification time."""
        entry = self.entries.get(video)
        return entry is not None and source_state(path) == {"size": entry.size, "mtime": entry.mtime}

    def settle(self) -> None:
        """One line a video, in the order of their ids. Raises OSError."""
        text = "".join(_line(self.entries[video]) for video in sorted(self.entries))
        if text or os.path.lexists(self.path):
            files.write_text(self.path, text)


def read(path: Path) -> dict[str, Entry]:
    """Video -> its last entry; empty where there is no file. A last line that was cut short is dropped.

    Raises UserError where it is no manifest."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    names = {field.name for field in fields(Entry)}
    found: dict[str, Entry] = {}
    for number, line in enumerate(lines, start=1):
        try:
            content = json.loads(line)
            if not isinstance(content, dict) or content.get("status") not in STATUSES:
                raise ValueError
            entry = Entry(**{key: value for key, value in content.items() if key in names})
            found[entry.id] = entry
        except (ValueError, TypeError, RecursionError):
            left = line.strip(b"\0")  # a power cut may leave these
            if number == len(lines) and _BEGINNING.startswith(left[: len(_BEGINNING)]):  # what a killed run left
                break
            raise UserError(f"{path}:{number}: is no line of a manifest; move the file away") from None
    return found


def _line(entry: Entry) -> str:
    return json.dumps(asdict(entry)) + "\n"
