"""The manifest beside every output: what became of each video, a line of JSON each, kept over restarts."""

import errno
import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from vimoclip.errors import UserError
from vimoclip.io import atomic

PREEXISTING = "preexisting"  # the output holds the video, but no manifest said so: nothing is known of its source
DONE = ("ok", "partial", PREEXISTING)  # statuses of videos that are in the output
STATUSES = (*DONE, "skipped", "failed")
_PREEXISTING_REASON = "was there before its manifest"  # of an entry "ok", as written before the status existed
_BEGINNING = b'{"id": "'  # of every line


@dataclass(frozen=True)
class Entry:
    """One video. `size` (bytes) and `mtime` (s since 1970) are of its source, None where there was none.

    `reason`: why it isn't ok, or what is unusual about it. `seconds`: what the run spent on it.
    `settings`: a hash of those it was made, or given up, with. `output_size`: bytes of its own output, if any."""

    id: str
    status: str
    reason: str = ""
    frames_expected: int | None = None
    frames_decoded: int | None = None
    size: int | None = None
    mtime: float | None = None
    seconds: float = 0.0
    settings: str = ""
    output_size: int | None = None


def source_state(path: Path) -> dict[str, int | float | None]:
    """`size` and `mtime` of a source, both None where it can't be looked at."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):
        return {"size": None, "mtime": None}
    return {"size": state.st_size, "mtime": state.st_mtime}


def manifest_path(output: Path, worker: str = "") -> Path:
    """`<output>.manifest.jsonl`, beside a file or a folder; `<output>.manifest.2-of-8.jsonl` of one of several."""
    return atomic.beside(output, f".manifest.{worker}.jsonl" if worker else ".manifest.jsonl")


class Manifest:
    """The entries beside one output. `add` puts a line behind the others at once, `settle` leaves one a video.

    Of several that work on one output each, `worker`, writes a manifest of its own; who has the output alone gathers
    them into one. Raises UserError where a file under such a name is no manifest."""

    def __init__(self, output: Path, overwrite: bool = False, worker: str = ""):
        self.path, self._output, self._alone = manifest_path(output, worker), output, not worker
        self.entries = {} if overwrite else read_all(output)
        # of its own lines those that nobody has said anything newer about
        own = {} if self._alone else read(self.path)
        self._mine = self.entries if self._alone else {v: e for v, e in own.items() if self.entries.get(v) == e}
        self.settle()

    def add(self, entry: Entry) -> None:
        """On disk when this returns, so that an output that is there always has its line. Raises OSError."""
        self.entries[entry.id] = self._mine[entry.id] = entry
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
            self._mine.pop(video, None)

    def unchanged(self, video: str, path: Path) -> bool:
        """Whether the source is the one that the entry is of, by size and modification time."""
        entry = self.entries.get(video)
        return entry is not None and source_state(path) == {"size": entry.size, "mtime": entry.mtime}

    def settle(self) -> None:
        """One line a video, in the order of their ids. Raises OSError."""
        text = "".join(_line(self._mine[video]) for video in sorted(self._mine))
        if text or os.path.lexists(self.path):
            atomic.write_text(self.path, text)
        for path in _of_workers(self._output) if self._alone else []:
            path.unlink()


def read_all(output: Path) -> dict[str, Entry]:
    """Video -> its last entry, whoever of those that work on this output wrote it. Raises UserError."""
    of_workers: dict[str, Entry] = {}
    for path in sorted(_of_workers(output), key=_modified):
        of_workers |= read(path)
    return read(manifest_path(output)) | of_workers  # read last: who gathers them writes it before they go


def _of_workers(output: Path) -> list[Path]:
    named = re.compile(re.escape(manifest_path(output).name.removesuffix("jsonl")) + r"\d+-of-\d+\.jsonl")
    folder = manifest_path(output).parent
    return [path for path in folder.glob("*.jsonl") if named.fullmatch(path.name)]


def _modified(path: Path) -> float:
    return source_state(path)["mtime"] or 0.0


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
            if entry.status == "ok" and entry.reason == _PREEXISTING_REASON:
                entry = replace(entry, status=PREEXISTING, reason="")
            found[entry.id] = entry
        except (ValueError, TypeError, RecursionError):
            left = line.strip(b"\0")  # a power cut may leave these
            if number == len(lines) and _BEGINNING.startswith(left[: len(_BEGINNING)]):  # what a killed run left
                break
            raise UserError(f"{path}:{number}: is no line of a manifest", "move the file away") from None
    return found


def _line(entry: Entry) -> str:
    return json.dumps(asdict(entry)) + "\n"
