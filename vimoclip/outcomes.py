"""What becomes of each video of one output: decided from its manifest, written into it, told in the closing report."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from vimoclip.cli import Report
from vimoclip.manifest import Entry, Manifest, source_state
from vimoclip.video import End

T = TypeVar("T")
WHY_UNKNOWN = "was there before its manifest"


class Outcomes:
    """`todo` are the videos to do now. Each is read through `opening`; `came_out`, `skipped` or `failed` ends it.

    Not to do is what `done` calls finished, and what failed or was skipped before, with these `settings`, and hasn't
    changed since, unless `retry_failed`. With `strict`, a video of which some frames can't be decoded has failed.
    Raises UserError for a manifest that is none, OSError where it can't be written."""

    def __init__(
        self,
        output: Path,
        sources: Mapping[str, Path],
        done: Callable[[str], bool],
        report: Report,
        overwrite: bool = False,
        retry_failed: bool = False,
        strict: bool = False,
        settings: Mapping[str, Any] | None = None,
    ):
        self.sources, self.report, self.strict = sources, report, strict
        self._settings = _digest(settings or {})
        self.manifest = Manifest(output, overwrite)
        report.manifests.append(self.manifest.path)
        self._last_end, self._begun = time.monotonic(), dict[str, tuple[float, dict[str, Any]]]()
        self.todo = [video for video in sources if not self._settled(video, done(video), retry_failed)]
        self.manifest.forget(self.todo)

    def _settled(self, video: str, done: bool, retry_failed: bool) -> bool:
        entry = self.manifest.entries.get(video)
        unchanged = self.manifest.unchanged(video, self.sources[video])
        if done:
            if entry is None or entry.status in ("skipped", "failed"):
                entry = self.manifest.entries[video] = Entry(video, "ok", WHY_UNKNOWN)
            elif not unchanged and entry.reason != WHY_UNKNOWN and self.sources[video].exists():
                self.report.changed.append(video)
            self._book_earlier(entry)
            return True
        if entry is None or entry.status in ("ok", "partial") or not unchanged or entry.settings != self._settings:
            return False
        if entry.status == "failed":
            if retry_failed:
                return False
            self.report.not_retried += 1
        self._book_earlier(entry)
        return True

    def _book_earlier(self, entry: Entry) -> None:
        if entry.status == "partial" and self.strict:
            self.report.failed[entry.id] = f"was made without --strict: {entry.reason}"
        elif entry.status == "ok":
            self.report.already += 1
        else:
            getattr(self.report, entry.status)[entry.id] = entry.reason

    def plan(self) -> str:
        """How much there is to do, in words."""
        return f"{len(self.todo)} videos to do, {len(self.sources) - len(self.todo)} done or given up before"

    def begin(self, video: str) -> None:
        """Its work begins: from here on its seconds count, and this is the source that is meant."""
        self._begun[video] = time.monotonic(), source_state(self.sources[video])

    def opening(self, video: str, items: Iterator[T]) -> Iterator[T]:
        """What a video's reading gives, in the thread that reads ahead: that is where its work begins."""
        self.begin(video)
        yield from items

    def came_out(self, video: str, end: End) -> bool:
        """Whether it may be published, which its line in the manifest says already: so no output lacks its line."""
        if end.problem and self.strict:
            self.failed(video, f"{end.problem} (--strict)", end)
            return False
        if end.problem:
            self.report.partial[video] = end.problem
            self._add(video, "partial", "; ".join(filter(None, (end.problem, end.note))), end)
        else:
            self.report.done += 1
            self._add(video, "ok", end.note, end)
        return True

    def skipped(self, video: str, reason: str, end: End | None = None) -> None:
        """Nothing is wrong with it, but there is nothing to make of it."""
        self.report.skipped[video] = reason
        self._add(video, "skipped", reason, end)

    def failed(self, video: str, reason: str, end: End | None = None) -> None:
        """It can't be used."""
        self.report.failed[video] = reason
        self._add(video, "failed", reason, end)

    def _add(self, video: str, status: str, reason: str, end: End | None) -> None:
        expected, decoded = (end.expected, end.original_frames) if end else (None, None)
        begun, state = self._begun.pop(video, None) or (self._last_end, source_state(self.sources[video]))
        now = time.monotonic()
        seconds = round(now - max(begun, self._last_end), 3)  # its own: others may have been at work beside it
        self._last_end = now
        self.manifest.add(
            Entry(video, status, reason, expected, decoded, **state, seconds=seconds, settings=self._settings)
        )


def _digest(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
