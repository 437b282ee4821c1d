"""What becomes of each video of one output: decided from its manifest, written into it, told in the closing report."""

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from vimoclip.cli import Report
from vimoclip.extraction.manifest import DONE, PREEXISTING, Entry, Manifest, read_all, source_state
from vimoclip.extraction.sharding import ALONE, Crew, NotYet
from vimoclip.video import End

T = TypeVar("T")


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
        crew: Crew = ALONE,
    ):
        self.sources, self.report, self.strict = sources, report, strict
        self._output, self._crew = output, crew
        self._settings = settings_digest(settings or {})
        self._last_end, self._begun = time.monotonic(), dict[str, tuple[float, dict[str, Any]]]()
        self.todo: list[str] = []
        if crew.group.main:
            self.manifest = Manifest(output, overwrite, crew.worker)
            report.manifests.append(self.manifest.path)
            self.todo = [video for video in self.sources if not self._settled(video, done(video), retry_failed)]
            self.manifest.forget(self.todo)
        self.todo = crew.group.share(self.todo)
        if not crew.group.main:  # behind that: who is first gathers what others left of an earlier run
            self.manifest = Manifest(output, worker=crew.worker)

    def _settled(self, video: str, done: bool, retry_failed: bool) -> bool:
        entry = self.manifest.entries.get(video)
        unchanged = self.manifest.unchanged(video, self.sources[video])
        if done:
            if entry is None or entry.status in ("skipped", "failed"):
                entry = self.manifest.entries[video] = Entry(video, PREEXISTING)
            elif not unchanged and entry.status != PREEXISTING and self.sources[video].exists():
                self.report.changed.append(video)
            self._book_earlier(entry)
            return True
        if entry is None or entry.status in DONE or not unchanged or entry.settings != self._settings:
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
        elif entry.status in ("ok", PREEXISTING):
            self.report.already += 1
        else:
            getattr(self.report, entry.status)[entry.id] = entry.reason

    def claimed(self) -> Iterator[str]:
        """The videos that this process does: all of `todo`, or, of several, the next one; large ones first."""
        group, todo = self._crew.group, self.todo
        if group.size > 1:
            sizes = group.share({video: source_state(self.sources[video])["size"] or 0 for video in todo})
            todo = sorted(todo, key=lambda video: -sizes[video])
        return group.claim(todo, str(self._output))

    def is_last(self, of_all: Collection[str], done: Callable[[str], bool]) -> bool:
        """Whether nothing is left to do of any shard's videos, so that this one puts all together; says so if not."""
        known = {video for video, entry in read_all(self._output).items() if entry.status in ("skipped", "failed")}
        if left := [video for video in of_all if video not in known and not done(video)]:
            print(f"{self._output}: {len(left)} of {len(of_all)} videos are left to other shards", flush=True)
        return not left

    def check_nothing_left(self) -> None:
        """Raise UserError where videos are to be done."""
        if self.todo:
            raise NotYet(
                f"{len(self.todo)} of {len(self.sources)} videos are not done, like {self.todo[0]}",
                "run the shards that are missing, or the command without --shard and --merge",
                path=self._output,
            )

    def reading(self, workers: int, ahead: int = 2) -> tuple[int, int]:
        """(threads, videos ahead of the one at hand) to read with: few where processes share little that is left."""
        size = self._crew.group.size
        few = size > 1 and len(self.todo) <= 4 * size * (1 + max(ahead, workers))
        return (min(workers, 1), 0) if few else (workers, ahead)

    def expected(self) -> int:
        """How many videos fall to this process, more or less."""
        return -(-len(self.todo) // self._crew.group.size)

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

    def came_out(self, video: str, end: End, output_size: int | None = None) -> bool:
        """Whether it may be published, which its line in the manifest says already: so no output lacks its line.

        `output_size`: bytes of a file of its own."""
        if end.problem and self.strict:
            self.failed(video, f"{end.problem} (--strict)", end)
            return False
        if end.problem:
            self.report.partial[video] = end.problem
            self._add(video, "partial", "; ".join(filter(None, (end.problem, end.note))), end, output_size)
        else:
            self.report.done += 1
            self._add(video, "ok", end.note, end, output_size)
        return True

    def skipped(self, video: str, reason: str, end: End | None = None) -> None:
        """Nothing is wrong with it, but there is nothing to make of it."""
        self.report.skipped[video] = reason
        self._add(video, "skipped", reason, end)

    def failed(self, video: str, reason: str, end: End | None = None) -> None:
        """It can't be used."""
        self.report.failed[video] = reason
        self._add(video, "failed", reason, end)

    def gather(self) -> None:
        """Wait for the others of a group; what became of their videos joins the first one's report."""
        others = self._crew.group.gather(self.report)[1:]
        if not others:
            return
        if self._crew.group.main:
            for other in others:
                self.report.add(other)
            self.manifest = Manifest(self._output, worker=self._crew.worker)
        else:
            self.report.clear()

    def _add(self, video: str, status: str, reason: str, end: End | None, output_size: int | None = None) -> None:
        expected, decoded = (end.expected, end.original_frames) if end else (None, None)
        begun, state = self._begun.pop(video, None) or (self._last_end, source_state(self.sources[video]))
        now = time.monotonic()
        seconds = round(now - max(begun, self._last_end), 3)  # its own: others may have been at work beside it
        self._last_end = now
        entry = Entry(video, status, reason, expected, decoded, **state, seconds=seconds, settings=self._settings)
        self.manifest.add(replace(entry, output_size=output_size))


def to_do(output: Path, sources: Mapping[str, Path], done: Callable[[str], bool], retry_failed: bool) -> list[str]:
    """The videos that a run would do, as far as can be told without a model; writes nothing."""
    entries = read_all(output)

    def given_up(video: str) -> bool:
        entry = entries.get(video)
        if entry is None or entry.status not in ("skipped", "failed") or (entry.status == "failed" and retry_failed):
            return False
        return source_state(sources[video]) == {"size": entry.size, "mtime": entry.mtime}

    return [video for video in sources if not done(video) and not given_up(video)]


def settings_digest(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
