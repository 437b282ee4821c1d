"""Manifest beside each output: one JSON line per video with its status, read again by later runs."""

import errno
import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from vimoclip.errors import UserError
from vimoclip.io import atomic
from vimoclip.video.folder import MANIFEST_INFIX

PREEXISTING = "preexisting"  # the output holds the video, but no manifest recorded it: its source is unknown
DONE_STATUSES = ("ok", "partial", PREEXISTING)  # the video is in the output
STATUSES = (*DONE_STATUSES, "skipped", "failed")
_LINE_START = b'{"id": "'  # every line starts with this


@dataclass(frozen=True)
class ManifestEntry:
    """Status of one video.

    `reason`: why the status is not ok, or what is unusual about the video.
    `size` (bytes) and `mtime` (s since 1970): of the source; None if it did not exist.
    `seconds`: processing time.
    `settings`: hash of the settings that the video was processed with.
    `output_size`: bytes of the video's own output file, if it has one."""

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

    def source_unchanged(self, source: Path) -> bool:
        """Return whether the source has the size and modification time of this entry."""
        return stat_source(source) == {"size": self.size, "mtime": self.mtime}


def stat_source(path: Path) -> dict[str, int | float | None]:
    """Return `size` and `mtime` of a source file, both None if stat fails."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return {"size": None, "mtime": None}
    return {"size": status.st_size, "mtime": status.st_mtime}


def manifest_path(output: Path, worker: str = "") -> Path:
    """Return `<output>.manifest.jsonl`; with a worker's name, `<output>.manifest.2-of-8.jsonl`."""
    return atomic.sidecar_path(output, f"{MANIFEST_INFIX}{worker}.jsonl" if worker else f"{MANIFEST_INFIX}jsonl")


class Manifest:
    """Entries of one output. `add` appends a line; `compact` rewrites the file with one line per video.

    With several processes on one output, each `worker` writes its own manifest; the process without a worker's
    name merges them. Raises UserError for a file under such a name that is not a manifest."""

    def __init__(self, output: Path, overwrite: bool = False, worker: str = "", read_only: bool = False):
        self.path, self._output, self._merges = manifest_path(output, worker), output, not worker
        self.entries = {} if overwrite else read_with_worker_manifests(output)
        if self._merges:
            self._own_entries = self.entries
        else:  # without entries that another worker's manifest has replaced since
            entries = read_manifest(self.path)
            self._own_entries = {video: entry for video, entry in entries.items() if self.entries.get(video) == entry}
        if not read_only:
            self.compact()

    def add(self, entry: ManifestEntry) -> None:
        """Append an entry and fsync it, so that every published output has its line. Raises OSError."""
        self.entries[entry.id] = self._own_entries[entry.id] = entry
        line = _format_line(entry).encode()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            written = os.write(descriptor, line)
            os.fsync(descriptor)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        finally:
            os.close(descriptor)
        if written < len(line):  # the disk became full within the line; read_manifest drops the fragment
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def remove(self, videos: Iterable[str]) -> None:
        """Drop the entries of videos that will be processed again."""
        for video in videos:
            self.entries.pop(video, None)
            self._own_entries.pop(video, None)

    def compact(self) -> None:
        """Write one line per video, ordered by id. Raises OSError."""
        text = "".join(_format_line(self._own_entries[video]) for video in sorted(self._own_entries))
        if text or os.path.lexists(self.path):
            atomic.write_text(self.path, text)
        for path in _worker_manifests(self._output) if self._merges else []:
            path.unlink()


def read_with_worker_manifests(output: Path) -> dict[str, ManifestEntry]:
    """Return each video's last entry, from the output's manifest and those of its workers. Raises UserError."""
    worker_entries: dict[str, ManifestEntry] = {}
    for path in sorted(_worker_manifests(output), key=_modification_time):
        worker_entries |= read_manifest(path)
    # The main manifest is read last: a merge writes it before it deletes those of the workers.
    return read_manifest(manifest_path(output)) | worker_entries


def _worker_manifests(output: Path) -> list[Path]:
    pattern = re.compile(re.escape(manifest_path(output).name.removesuffix("jsonl")) + r"\d+-of-\d+\.jsonl")
    folder = manifest_path(output).parent
    return [path for path in folder.glob("*.jsonl") if pattern.fullmatch(path.name)]


def _modification_time(path: Path) -> float:
    return stat_source(path)["mtime"] or 0.0


def read_manifest(path: Path) -> dict[str, ManifestEntry]:
    """Return each video's last entry, {} if there is no file. A truncated last line is dropped.

    Raises UserError for a file that is not a manifest."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    entries: dict[str, ManifestEntry] = {}
    for number, line in enumerate(lines, start=1):
        try:
            content = json.loads(line)
            if not isinstance(content, dict) or content.get("status") not in STATUSES:
                raise ValueError
            entry = ManifestEntry(**content)
            entries[entry.id] = entry
        except (ValueError, TypeError, RecursionError):
            rest = line.strip(b"\0")  # file systems may leave NUL bytes after a power cut
            if number == len(lines) and _LINE_START.startswith(rest[: len(_LINE_START)]):  # of a killed run
                break
            raise UserError(f"line {number} is no line of a manifest", "move the file away", path=path) from None
    return entries


def _format_line(entry: ManifestEntry) -> str:
    return json.dumps(asdict(entry)) + "\n"
