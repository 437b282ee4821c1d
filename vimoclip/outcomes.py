"""What becomes of each video of one output: decided from its manifest, written into it, told in the closing report."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vimoclip.cli import Report
from vimoclip.manifest import Entry, Manifest, source_state
from vimoclip.video import End

WHY_UNKNOWN = "was there before its manifest"


class Outcomes:
    """`todo` are the videos to do now; `begin` one, then `came_out`, `skipped` or `failed` says how it ended.

    Not to do is what `done` calls finished, and what failed or was skipped before and hasn't changed since, unless
    `retry_failed`. With `strict`, a video of which some frames can't be decoded has failed. Raises UserError for a
    manifest that is none, OSError where it can't be written."""

    def __init__(
        self,
        output: Path,
        sources: Mapping[str, Path],
        done: Callable[[str], bool],
        report: Report,
        overwrite: bool = False,
        retry_failed: bool = False,
        strict: bool = False,
    ):
        self.sources, self.report, self.strict = sources, report, strict
        self.manifest = Manifest(output, overwrite)
        report.manifests.append(self.manifest.path)
        self._begun, self._state = time.monotonic(), dict[str, Any]()
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
        if entry is None or entry.status in ("ok", "partial") or not unchanged:
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

    def begin(self, video: str) -> None:
        """Its work begins: from here on its seconds count, and this is the source that is meant."""
        self._begun, self._state = time.monotonic(), source_state(self.sources[video])

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
        seconds = round(time.monotonic() - self._begun, 3)
        self.manifest.add(Entry(video, status, reason, expected, decoded, **self._state, seconds=seconds))
        self._begun = time.monotonic()
