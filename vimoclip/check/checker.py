"""Checks whether a data set and everything created from it is complete, undamaged, up to date and consistent."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from vimoclip import annotations, cli
from vimoclip.check import cross_file
from vimoclip.check.dataset_scan import DatasetContents, DatasetPaths, rgb_area, scan_dataset
from vimoclip.check.problems import CheckReport
from vimoclip.check.video_checks import CheckResults, CheckTask, TaskRunner
from vimoclip.errors import UserError

VIDEOS_PER_TASK = 100
VIDEOS_PER_DECODE_TASK = 4  # few, so that Ctrl-C stops a check soon


class ProblemsFoundError(UserError):
    """The data set has problems. The message is the last line of the output."""

    exit_code = 1


def run_checks(paths: DatasetPaths, decode: bool = False, num_workers: int = 1) -> CheckReport:
    """Check everything; `decode` decodes every video and flow video. Raises UserError if a worker is killed.

    If the annotations are broken, the report holds only this problem: they define what should exist."""
    report = CheckReport()
    try:
        loaded = annotations.load(paths.annotations, paths.dataset_name, with_selection=False)
    except UserError as error:
        report.entries["annotations"] = 0
        report.add_file_problem("annotations", paths.annotations, "broken", error)
        report.add_note("annotations", "nothing else was looked at, as these say what there should be")
        return report
    data = DatasetContents(paths, loaded, decode)
    cross_file.check_annotation_files(data, report)
    scan_dataset(data, report)
    cross_file.check_video_names(data, report)
    cross_file.check_embedding_files(data, report)
    results = _check_all(data, num_workers)
    report.merge(results.report)
    cross_file.check_flow_settings(data, results, report)
    cross_file.add_verify_problems(data, results, report)
    num_stale = cross_file.add_stale_entries(data, results, report)
    report.entries = _count_entries(data, results, report, num_stale)
    report.sort()
    return report


def _check_all(data: DatasetContents, num_workers: int) -> CheckResults:
    """Check every file of embeddings and every video."""
    results, meter = CheckResults(), cli.ProgressMeter(len(data.videos), desc="checking")
    tasks = list(_make_tasks(data))
    for reader in data.readers.values():
        with contextlib.suppress(UserError):  # reported when the file is checked
            reader.load_index()
    try:
        for task, task_results in zip(tasks, map_in_processes(TaskRunner(data), tasks, num_workers), strict=True):
            results.merge(task_results)
            meter.add(0 if isinstance(task, str) else len(task))
    finally:
        meter.close()
    return results


def _make_tasks(data: DatasetContents) -> Iterator[CheckTask]:
    """Yield the tasks, the longest first: one per file of embeddings, then groups of videos."""
    areas = [area for area, reader in data.readers.items() if reader.has_schema]
    yield from sorted(areas, key=lambda area: -len(data.keys[area]))
    step = VIDEOS_PER_DECODE_TASK if data.decode else VIDEOS_PER_TASK
    for start in range(0, len(data.videos), step):
        yield data.videos[start : start + step]


def _count_entries(
    data: DatasetContents, results: CheckResults, report: CheckReport, num_stale: dict[str, int]
) -> dict[str, int | None]:
    """Return the number of videos that each area has or should have; None if it has not been created yet."""
    num_annotated = len(data.split_of)
    counts: dict[str, int | None] = {"annotations": num_annotated, "videos": len(data.videos)}
    for split in data.splits:
        area, names = rgb_area(split), data.annotations.splits[split]
        exists = area in data.readers or area in report.unusable_areas
        counts[area] = len(names.keys() | data.keys.get(area, set())) if exists else None
    for area, content in (("flows", data.flow_folder), ("motion", data.motion_reader)):
        exists = content is not None or area in report.unusable_areas
        counts[area] = num_annotated + results.num_unannotated[area] + num_stale[area] if exists else None
    return counts


_runner: list[TaskRunner] = []  # of this worker process


class WorkerKilledError(UserError):
    """A worker process was killed."""

    exit_code = 1


def map_in_processes(runner: TaskRunner, tasks: Sequence[CheckTask], num_workers: int) -> Iterator[CheckResults]:
    """Yield the results of the tasks in order; with fewer than two workers, in this process.

    Raises WorkerKilledError."""
    if num_workers < 2:
        yield from map(runner, tasks)
        return
    executor = ProcessPoolExecutor(num_workers, initializer=_start_worker, initargs=(runner,))
    try:
        yield from executor.map(_run_task, tasks)
    except BrokenProcessPool:
        problem = "a process that looked at videos was killed, which is what happens where memory is short"
        raise WorkerKilledError(problem, "try --num-workers 1") from None
    finally:
        executor.shutdown(cancel_futures=True)


def _start_worker(runner: TaskRunner) -> None:
    """Initialize a worker, which ignores Ctrl-C and exits with the main process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _runner[:] = [runner]


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _run_task(task: CheckTask) -> CheckResults:
    return _runner[0](task)
