"""Status of each video of one output, read from the manifest and recorded there and in the run's report."""

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vimoclip.cli import RunReport
from vimoclip.extraction.manifest import (
    DONE_STATUSES,
    PREEXISTING,
    Manifest,
    ManifestEntry,
    read_with_worker_manifests,
    stat_source,
)
from vimoclip.extraction.sharding import SINGLE_PROCESS, IncompleteOutputError, WorkerContext
from vimoclip.video import ReadSummary, recorded_geometry


class VideoTracker:
    """Status of the videos of one output. `pending`: the videos to process.

    `record_start` starts a video; `record_success`, `record_skipped` or `record_failed` ends it. Pending are all videos
    except those for which `is_done` is true, and those that failed or were skipped before with the same `settings`
    (None: any) and an unchanged source; with `retry_failed`, failed ones are pending. With `strict`, a video with
    undecodable frames fails. With `dry_run`, nothing is written. Raises UserError for a file that is no manifest,
    OSError if it is not writable."""

    def __init__(
        self,
        output: Path,
        sources: Mapping[str, Path],
        is_done: Callable[[str], bool],
        report: RunReport,
        *,
        overwrite: bool = False,
        retry_failed: bool = False,
        strict: bool = False,
        settings: Mapping[str, Any] | None = None,
        worker: WorkerContext = SINGLE_PROCESS,
        dry_run: bool = False,
    ):
        self.sources, self.report, self.strict = sources, report, strict
        self._output, self._worker = output, worker
        self._settings = None if settings is None else settings_digest(settings)
        self._last_end = time.monotonic()
        self._started = dict[str, tuple[float, dict[str, Any]]]()  # video -> (time, state of the source)
        self.pending: list[str] = []
        if worker.group.is_main:
            self.manifest = Manifest(output, overwrite, worker.worker_name, read_only=dry_run)
            report.manifests.append(self.manifest.path)
            self.pending = [video for video in sources if not self._is_finished(video, is_done(video), retry_failed)]
            self.manifest.remove(self.pending)
        self.pending = worker.group.broadcast(self.pending)
        # The broadcast has waited for rank 0 to merge the worker manifests of an earlier run.
        if not worker.group.is_main:
            self.manifest = Manifest(output, worker=worker.worker_name)

    def _is_finished(self, video: str, is_done: bool, retry_failed: bool) -> bool:
        """Return whether the video needs no processing in this run; if so, add it to the report."""
        entry = self.manifest.entries.get(video)
        if is_done:
            if entry is None or entry.status in ("skipped", "failed"):
                entry = self.manifest.entries[video] = ManifestEntry(video, PREEXISTING)
            elif (
                entry.status != PREEXISTING
                and self.sources[video].exists()
                and not entry.source_unchanged(self.sources[video])
            ):
                self.report.changed.append(video)
            self._report_earlier(entry)
            return True
        if entry is None or entry.status in DONE_STATUSES or not entry.source_unchanged(self.sources[video]):
            return False
        if self._settings not in (None, entry.settings):
            return False
        if entry.status == "failed":
            if retry_failed:
                return False
            self.report.not_retried += 1
        self._report_earlier(entry)
        return True

    def _report_earlier(self, entry: ManifestEntry) -> None:
        if entry.status == "partial" and self.strict:
            self.report.failed[entry.id] = f"was made without --strict: {entry.reason}"
        elif entry.status in ("ok", PREEXISTING):
            self.report.already_done += 1
        else:
            getattr(self.report, entry.status)[entry.id] = entry.reason

    def claim_videos(self) -> Iterator[str]:
        """Yield the videos of this process: all pending ones; with several ranks, the next unclaimed, largest first."""
        group, videos = self._worker.group, self.pending
        if group.size > 1:
            sizes = group.broadcast({video: stat_source(self.sources[video])["size"] or 0 for video in videos})
            videos = sorted(videos, key=lambda video: -sizes[video])
        return group.claim(videos, str(self._output))

    def all_shards_done(self, videos: Collection[str], is_done: Callable[[str], bool]) -> bool:
        """Return whether no shard has a pending video; else print how many are pending."""
        entries = read_with_worker_manifests(self._output)
        skipped_or_failed = {video for video, entry in entries.items() if entry.status in ("skipped", "failed")}
        if pending := [video for video in videos if video not in skipped_or_failed and not is_done(video)]:
            print(f"{self._output}: {len(pending)} of {len(videos)} videos are pending in other shards", flush=True)
        return not pending

    def check_complete(self) -> None:
        """Raise IncompleteOutputError if videos are pending."""
        if self.pending:
            raise IncompleteOutputError(
                f"{len(self.pending)} of {len(self.sources)} videos are not done, e.g. {self.pending[0]}",
                "run the shards that are missing, or the command without --shard and --merge",
                path=self._output,
            )

    def prefetch_limits(self, threads: int, videos_ahead: int = 2) -> tuple[int, int]:
        """Return (threads, videos ahead) for prefetching; fewer if ranks share few videos, so that no rank is idle."""
        size = self._worker.group.size
        most_started = len(self.pending) // (4 * size)  # videos that a rank may have started at once
        if size == 1 or most_started > max(videos_ahead, threads):
            return threads, videos_ahead
        return min(threads, max(1, most_started - 1)), 0

    def expected_count(self) -> int:
        """Return the approximate number of videos for this process."""
        return -(-len(self.pending) // self._worker.group.size)

    def format_plan(self) -> str:
        """Return one line with the numbers of pending and other videos."""
        pending = len(self.pending)
        return f"{pending} videos to process, {len(self.sources) - pending} done or failed before"

    def record_start(self, video: str) -> None:
        """Record the time and the state of the video's source; to be called when reading starts."""
        self._started[video] = time.monotonic(), stat_source(self.sources[video])

    def record_success(self, video: str, summary: ReadSummary, output_size: int | None = None) -> bool:
        """Record success in the manifest, then return whether the output may be published.

        `output_size`: bytes of the video's own file. With `strict`, record a video with undecodable frames as failed
        and return False."""
        if summary.problem and self.strict:
            self.record_failed(video, f"{summary.problem} (--strict)", summary)
            return False
        if summary.problem:
            self.report.partial[video] = summary.problem
            self._add(video, "partial", "; ".join(filter(None, (summary.problem, summary.note))), summary, output_size)
        else:
            self.report.done += 1
            self._add(video, "ok", summary.note, summary, output_size)
        return True

    def record_skipped(self, video: str, reason: str, summary: ReadSummary | None = None) -> None:
        """Record a valid video that gives no output."""
        self.report.skipped[video] = reason
        self._add(video, "skipped", reason, summary)

    def record_failed(self, video: str, reason: str, summary: ReadSummary | None = None) -> None:
        """Record a video that can't be used."""
        self.report.failed[video] = reason
        self._add(video, "failed", reason, summary)

    def gather_reports(self) -> None:
        """Wait for all ranks and merge their reports into that of rank 0."""
        others = self._worker.group.gather(self.report)[1:]
        if not others:
            return
        if self._worker.group.is_main:
            for other in others:
                self.report.merge(other)
            self.manifest = Manifest(self._output, worker=self._worker.worker_name)
        else:
            self.report.clear()

    def _add(
        self, video: str, status: str, reason: str, summary: ReadSummary | None, output_size: int | None = None
    ) -> None:
        expected, decoded = (summary.expected_frames, summary.original_frames) if summary else (None, None)
        started, state = self._started.pop(video, None) or (self._last_end, stat_source(self.sources[video]))
        now = time.monotonic()
        seconds = round(now - max(started, self._last_end), 3)  # excludes the time of the videos before it
        self._last_end = now
        entry = ManifestEntry(
            video, status, reason, expected, decoded, **state, seconds=seconds, settings=self._settings or ""
        )
        self.manifest.add(replace(entry, output_size=output_size))


def settings_digest(settings: Mapping[str, Any]) -> str:
    """Return a short hash that identifies equal settings.

    The default geometry is left out: entries of earlier versions, which have none, still count."""
    if recorded_geometry(settings)["deinterlace"] == "off":
        settings = {key: value for key, value in settings.items() if key != "geometry"}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
