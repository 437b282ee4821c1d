"""The protocol of an extraction: plan, lock, resume, process, merge shards, report. The three scripts share it."""

import argparse
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from vimoclip import cli
from vimoclip.extraction.sharding import WorkerContext, remove_shard_record
from vimoclip.extraction.video_status import VideoTracker
from vimoclip.io import lock
from vimoclip.runtime import defaults, distributed, seeding
from vimoclip.runtime.device import select_device, select_precision


class ExtractionJob(ABC):
    """One output, the videos that it is made from, and what is specific to a stage.

    `args`: flags of the script; `sources`: files by video id; `rejected`: videos with an invalid name, with the reason;
    `label`: begins printed lines; `missing_download`: see `clip.missing_download`, called only where a model is needed;
    `unit`: what an estimate counts. `local_rank` is set before `open`."""

    unit: str
    local_rank = 0

    def __init__(
        self,
        args: argparse.Namespace,
        output: Path,
        sources: dict[str, Path],
        *,
        label: str = "",
        rejected: Mapping[str, str] | None = None,
        missing_download: Callable[[], Mapping[str, str] | None] = lambda: None,
    ):
        self.args, self.output, self.sources, self.label = args, output, sources, label
        self.rejected, self.missing_download = dict(rejected or {}), missing_download

    @cached_property
    def device(self) -> torch.device:
        """Device of the model. Raises UserError if it is not available."""
        return select_device(self.args.device, self.local_rank)

    @property
    def precision(self) -> str:
        """Precision of the model."""
        return select_precision(self.args.precision, self.device)

    @property
    def num_workers(self) -> int:
        """Number of threads that read videos."""
        return defaults.num_workers(self.args.num_workers, self.device)

    @abstractmethod
    def open(self, videos: dict[str, Path], worker: WorkerContext, report: cli.RunReport, dry_run: bool) -> None:
        """Open the output and load what it takes to check its settings; with `dry_run`, write nothing.

        A video that can't be processed is moved from `videos` to `report.failed`. Raises UserError if existing output
        has other settings."""

    @abstractmethod
    def reopen(self, report: cli.RunReport) -> None:
        """Open existing output to merge what all shards have done. Raises UserError."""

    @property
    @abstractmethod
    def settings(self) -> Mapping[str, Any] | None:
        """Settings that a video's output depends on; None if they are unknown without a model or a GPU of another
        machine."""

    @abstractmethod
    def is_done(self, video: str) -> bool:
        """Return whether the output has the video."""

    @abstractmethod
    def refresh(self) -> None:
        """Make `is_done` aware of what other processes have written."""

    @abstractmethod
    def process(self, tracker: VideoTracker) -> None:
        """Process the videos that `tracker` yields to this process, and record the status of each."""

    @abstractmethod
    def finalize(self) -> Path | None:
        """Complete the output after the last video; return its path, None if there is none."""

    @abstractmethod
    def estimate(self, paths: Sequence[Path]) -> cli.CostEstimate:
        """Estimate the cost for these videos from a few seconds of work; write nothing."""


def run_extraction(jobs: Sequence[ExtractionJob], args: argparse.Namespace) -> cli.RunReport:
    """Process the pending videos of all jobs; with --merge only merge shards, with --dry-run only estimate the cost."""
    report = cli.RunReport()
    for job in jobs:
        report.failed |= job.rejected
    if args.dry_run or args.merge:
        if cli.is_main_process():
            (_estimate_cost if args.dry_run else _merge_all)(jobs, args, report)
        return report
    with distributed.init_process_group(args.device) as group, ExitStack() as stack:
        worker = WorkerContext(group, args.shard)
        locks = [stack.enter_context(ExitStack()) for _ in jobs]
        for job, job_lock in zip(jobs, locks, strict=True):
            job_lock.enter_context(worker.lock(job.output))
            worker.check_shard_inputs(job.output, job.sources)
        # Open all outputs before the first video to report a mismatch at once.
        trackers = [_open(job, worker, report, statuses=report) for job in jobs]
        if args.overwrite:
            cli.mark_overwritten()
        for job, tracker, job_lock in zip(jobs, trackers, locks, strict=True):
            job.process(tracker)
            tracker.gather_reports()
            if worker.merges_output:
                _finalize(job, tracker)
            elif group.is_main:
                tracker.manifest.compact()
            job_lock.close()  # before the next job: another shard may be the last of this one
            if worker.shard and group.is_main:
                job.refresh()
                if tracker.all_shards_done(job.sources, job.is_done):
                    report.merge(worker.merge_if_last(partial(_merge_shards, job, args.strict)))
        report.print()
        report.write(args.report)
    return report


def _open(
    job: ExtractionJob, worker: WorkerContext, report: cli.RunReport, statuses: cli.RunReport, dry_run: bool = False
) -> VideoTracker:
    """Open a job's output and determine its pending videos; `statuses` receives the status of the others."""
    args = job.args
    seeding.seed_everything(args.seed)
    job.local_rank = worker.group.local_rank
    if worker.group.size > 1:  # the GPUs of the processes may support different ones
        args.precision = worker.group.broadcast(job.precision)
    videos = worker.assigned_videos(job.sources)
    job.open(videos, worker, report, dry_run)
    tracker = VideoTracker(
        job.output,
        videos,
        job.is_done,
        statuses,
        overwrite=args.overwrite,
        retry_failed=args.retry_failed,
        strict=args.strict,
        settings=job.settings,
        worker=worker,
        dry_run=dry_run,
    )
    print(f"{job.label}{tracker.format_plan()}", flush=True)
    return tracker


def _finalize(job: ExtractionJob, tracker: VideoTracker) -> None:
    if output := job.finalize():
        tracker.report.outputs.append(output)
    tracker.manifest.compact()


def _merge_all(jobs: Sequence[ExtractionJob], args: argparse.Namespace, report: cli.RunReport) -> None:
    for job in jobs:
        report.merge(_merge_shards(job, args.strict))
    report.print()
    report.write(args.report)


def _merge_shards(job: ExtractionJob, strict: bool) -> cli.RunReport:
    """Merge the shards of a job. Raises UserError if videos are pending."""
    report = cli.RunReport()
    with lock.exclusive_lock(job.output, timeout=60):  # a shard may be about to end
        job.reopen(report)
        tracker = VideoTracker(job.output, job.sources, job.is_done, report, strict=strict, settings=job.settings)
        tracker.check_complete()
        _finalize(job, tracker)
        remove_shard_record(job.output)
    return report


def _estimate_cost(jobs: Sequence[ExtractionJob], args: argparse.Namespace, report: cli.RunReport) -> None:
    """Print the pending videos and their estimated cost, and write both to --report.

    Failures of earlier runs are in the file, but not in `report`, which determines the exit code."""
    worker, earlier = WorkerContext(shard=args.shard), cli.RunReport()
    earlier.pending, estimates = 0, list[cli.CostEstimate | None]()
    for job in jobs:
        tracker = _open(job, worker, report, earlier, dry_run=True)
        earlier.pending += len(tracker.pending)
        if not tracker.pending:
            estimates.append(cli.CostEstimate(0.0, job.unit, None, 0.0, 0.0))
        elif download := job.missing_download():
            print(f"the time can be estimated after the download of {download['name']}")
            estimates.append(None)
        else:
            estimates.append(job.estimate([job.sources[video] for video in tracker.pending]))
            print(estimates[-1])
    known = [estimate for estimate in estimates if estimate is not None]
    if known and len(known) == len(jobs):
        earlier.estimate = cli.add_estimates(known)
    for video, reason in report.failed.items():
        print(f"  failed: {video}: {reason}")
    earlier.failed |= report.failed
    earlier.write(args.report)
