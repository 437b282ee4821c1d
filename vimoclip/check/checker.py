"""Checks whether a data set and everything created from it is complete, undamaged, up to date and consistent."""

import contextlib
import functools
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from vimoclip import annotations, cli
from vimoclip.check import annotation_checks, compatibility
from vimoclip.check.dataset_scan import DatasetContents, DatasetPaths, command_for, rgb_area, scan_dataset
from vimoclip.check.problems import CheckReport
from vimoclip.check.video_checks import CheckResults, CheckTask, run_task
from vimoclip.errors import UserError, escape_line
from vimoclip.io.names import list_some, normalize_name
from vimoclip.runtime.cost_estimate import PART_TOKENS, describe_longest_clip, fusion_step_memory
from vimoclip.store import EmbeddingReader
from vimoclip.video.geometry import is_as_displayed

VIDEOS_PER_TASK = 100
EARLIER_GEOMETRY = (
    "holds entries of an earlier version, which ignored mirroring and pixels that are not square; the entries of such "
    "videos are problems, the others are right"
)
VIDEOS_PER_DECODE_TASK = 4  # few, so that Ctrl-C stops a check soon


class CheckError(UserError):
    """The data set has problems, or the check could not finish."""

    exit_code = 1


def run_checks(paths: DatasetPaths, decode: bool = False, num_workers: int = 1) -> CheckReport:
    """Check everything; `decode` decodes every video and flow video. Raises CheckError if a worker is killed.

    If the annotations are broken, the report holds only this problem: they define what should exist."""
    report = CheckReport()
    try:
        loaded = annotations.load(paths.annotations, paths.dataset_name, with_selection=False)
    except UserError as error:
        report.entries["annotations"] = 0
        report.add_file_problem("annotations", paths.annotations, "broken", error)
        report.add_note("annotations", "nothing else was checked, as the annotations define the expected files")
        return report
    data = DatasetContents(paths, loaded, decode)
    check_annotation_files(data, report)
    scan_dataset(data, report)
    check_video_names(data, report)
    check_embedding_files(data, report)
    results = _run_tasks(data, num_workers)
    report.merge(results.report)
    check_flow_settings(data, results, report)
    add_verify_problems(data, results, report)
    add_long_clips(data, report)
    num_stale = add_stale_entries(data, results, report)
    report.entries = _count_entries(data, results, report, num_stale)
    report.sort()
    return report


def _run_tasks(data: DatasetContents, num_workers: int) -> CheckResults:
    """Check every file of embeddings and every video; the longest tasks, files of embeddings, run first."""
    areas = [area for area, reader in data.readers.items() if reader.has_schema]
    tasks: list[CheckTask] = [*sorted(areas, key=lambda area: -len(data.keys[area]))]
    step = VIDEOS_PER_DECODE_TASK if data.decode else VIDEOS_PER_TASK
    tasks += [data.videos[start : start + step] for start in range(0, len(data.videos), step)]
    for reader in data.readers.values():
        with contextlib.suppress(UserError):  # reported when the file is checked
            reader.load_index()
    results, meter = CheckResults(), cli.ProgressMeter(len(data.videos), desc="checking")
    try:
        run = functools.partial(run_task, data)
        for task, task_results in zip(tasks, map_in_processes(run, tasks, num_workers), strict=True):
            results.merge(task_results)
            meter.add(0 if isinstance(task, str) else len(task))
    finally:
        meter.close()
    return results


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


def check_annotation_files(data: DatasetContents, report: CheckReport) -> None:
    """Check that selection.txt and animals.csv name annotated videos only, then what the annotations say."""
    folder, annotated = data.paths.annotations, data.annotations
    if (path := folder / annotations.SELECTION_FILE).exists():
        with _record_errors(report, "annotations", path, "broken"):
            selection = annotations.read_selection(path)
            annotations.check_selection(path, selection, annotated.splits.get("train", {}))
            annotated = replace(annotated, selection=selection)
    path = folder / annotations.ANIMALS_FILE
    with _record_errors(report, "annotations", path, "broken"):
        if unknown := [video for video in annotations.read_animals(folder) if video not in data.split_of]:
            reason = f"names {len(unknown)} videos that are in no split ({list_some(unknown)})"
            hint = "remove these lines, or delete the file"
            report.add_file_problem("annotations", path, "misfit", reason, hint)
    sources: dict[str, str] = {}
    with _record_errors(report, "annotations", folder / annotations.SOURCES_FILE, "broken"):
        sources = annotations.read_sources(folder)
    annotation_checks.check_splits(annotated, data.paths, sources, report)
    annotation_checks.check_names(annotated, report)


def check_video_names(data: DatasetContents, report: CheckReport) -> None:
    """Check for names of videos that the extractors refuse."""
    videos_by_stem: dict[str, str] = {}
    names = {path.name for path in data.video_folder.videos} if data.video_folder else set[str]()
    for name in sorted(names):
        try:
            annotations.check_video_id(name)
        except UserError as error:
            report.add_problem("videos", name, "misfit", error)
            continue
        if (other := videos_by_stem.setdefault(normalize_name(annotations.stem(name)), name)) != name:
            reason = f"has the name of {other} but for the extension or Unicode form, so both would have one flow video"
            report.add_problem("videos", name, "misfit", reason, "rename one of them")


def check_embedding_files(data: DatasetContents, report: CheckReport) -> None:
    """Compare the RGB files with the annotations, with each other, and with the motion file."""
    for area, reader in data.readers.items():
        if reader.has_schema and "sampling" in reader.attributes and not is_as_displayed(reader.attributes):
            report.add_note(area, EARLIER_GEOMETRY)
    for split, reader in data.rgb_readers.items():
        _check_against_annotations(data, split, reader, report)
    not_empty = [(split, reader) for split, reader in data.rgb_readers.items() if reader.keys]
    for (_, first), (split, second) in combinations(not_empty, 2):
        with _record_errors(report, rgb_area(split), second.path, "misfit"):
            compatibility.check_train_val(first, second)
    motion = data.motion_reader
    for _, reader in not_empty:
        if motion and motion.keys:
            with _record_errors(report, "motion", motion.path, "misfit"):
                compatibility.check_rgb_motion(reader, motion)


def _check_against_annotations(data: DatasetContents, split: str, reader: EmbeddingReader, report: CheckReport) -> None:
    area = rgb_area(split)
    hint = f"create it again with {command_for(area)} --overwrite"
    if reader.has_schema and (type_attribute := reader.attributes.get("type", split)) != split:
        report.add_file_problem(area, reader.path, "misfit", f"has embeddings of the split {type_attribute}", hint)
    if reader.keys:
        with _record_errors(report, area, reader.path, "stale", hint):
            names = compatibility.class_names(reader)
            compatibility.check_classes(names, data.annotations.classes, str(reader.path), str(data.paths.annotations))


def check_flow_settings(data: DatasetContents, results: CheckResults, report: CheckReport) -> None:
    """Check that all flow has the same settings, and those of the embeddings and of the student.

    The most frequent settings are the reference."""
    if not results.videos_by_flow_settings:
        return
    folder, videos_by_settings = data.paths.flows, results.videos_by_flow_settings
    settings_dicts = {settings: json.loads(settings) for settings in videos_by_settings}
    if any("sampling" in settings and not is_as_displayed(settings) for settings in settings_dicts.values()):
        report.add_note("flows", EARLIER_GEOMETRY)
    reference: dict[str, Any] = {}
    for settings, names in sorted(videos_by_settings.items(), key=lambda item: len(item[1]), reverse=True):
        try:
            cli.check_settings_match(reference, settings_dicts[settings], "most flow videos", "this one", "")
            reference = settings_dicts[settings] | reference  # the most frequent ones may lack a setting
        except UserError as error:
            for name in names:
                hint = "delete it, and create it again by extract_flows.py with the flags of the others"
                report.add_problem("flows", name, "misfit", error, hint)
    for reader in data.rgb_readers.values():
        with _record_errors(report, "flows", folder, "misfit"):
            compatibility.check_sampling(reader, reference, str(folder))
    motion = data.motion_reader
    if motion and motion.has_schema:
        motion_settings = {key: value for key, value in motion.attributes.items() if key in ("sampling", "geometry")}
        trained_on = motion.attributes.get("student", {}).get("flow")
        motion_settings |= trained_on if isinstance(trained_on, dict) else {}
        hint = "create it again with inference.py --overwrite, with a student that was trained on this flow"
        with _record_errors(report, "motion", motion.path, "misfit"):
            cli.check_settings_match(motion_settings, reference, str(motion.path), str(folder), hint)


def add_stale_entries(data: DatasetContents, results: CheckResults, report: CheckReport) -> dict[str, int]:
    """Add entries whose video is gone or no longer annotated; return their number in `flows` and `motion`."""
    for split, reader in data.rgb_readers.items():
        area = rgb_area(split)
        hint = f"remove it by {command_for(area)}" if reader.has_schema else "create the file again, or annotate it"
        for key in sorted(data.keys[area] - data.annotations.splits[split].keys()):
            report.add_problem(area, key, "stale", f"is not annotated in {split}_multi.txt", hint)
    flows = sorted(data.flow_folder.paths.keys() - set(results.matched_flows)) if data.flow_folder else []
    motions = sorted(data.keys.get("motion", frozenset()) - set(results.matched_motions))
    reason = "belongs to no annotated or existing video"
    for name in flows:
        report.add_problem("flows", name, "stale", reason, "delete it, or restore its video")
    for key in motions:
        report.add_problem("motion", key, "stale", reason, "create the file again with inference.py --overwrite")
    return {"flows": len(flows), "motion": len(motions)}


def add_verify_problems(data: DatasetContents, results: CheckResults, report: CheckReport) -> None:
    """Add the problems found by `store.verify`, except those already found for a single video."""
    broken = {(problem.area, problem.id) for problem in report.problems if problem.kind == "broken"}
    for area, problems in results.verify_problems.items():
        for key, problem in problems:
            if (area, escape_line(key)) not in broken:
                hint = f"create it again with {command_for(area)} --overwrite"
                reason = f"{key}: {problem}" if key else problem
                report.add_file_problem(area, data.readers[area].path, "broken", reason, hint)


def add_long_clips(data: DatasetContents, report: CheckReport) -> None:
    """Add a note on the longest clip of a split if a training step has it alone, and takes more memory with it."""
    for split, reader in data.rgb_readers.items():
        with contextlib.suppress(UserError):  # reported with the file
            frames = {video: reader.length(video) for video in reader.keys}
            tokens = 2 * max(frames.values(), default=0)
            if tokens > PART_TOKENS:
                memory = fusion_step_memory(tokens, reader.dim)
                report.add_note(rgb_area(split), describe_longest_clip(frames, memory))


@contextlib.contextmanager
def _record_errors(report: CheckReport, area: str, path: Path, kind: str, hint: str = "") -> Iterator[None]:
    """Turn a UserError into a problem of a file or folder as a whole."""
    try:
        yield
    except UserError as error:
        report.add_file_problem(area, path, kind, error, hint)


RunTask = Callable[[CheckTask], CheckResults]
_worker_task: list[RunTask] = []  # the function that this worker process runs, set at its start


def map_in_processes(run: RunTask, tasks: Sequence[CheckTask], num_workers: int) -> Iterator[CheckResults]:
    """Yield the results of the tasks in order; with fewer than two workers, in this process.

    Raises CheckError."""
    if num_workers < 2:
        yield from map(run, tasks)
        return
    executor = ProcessPoolExecutor(num_workers, initializer=_start_worker, initargs=(run,))
    try:
        yield from executor.map(_run_task, tasks)
    except BrokenProcessPool:
        raise CheckError("a worker process was killed, as if memory were short", "try --num-workers 1") from None
    finally:
        executor.shutdown(cancel_futures=True)


def _start_worker(run: RunTask) -> None:
    """Initialize a worker, which ignores Ctrl-C and exits with the main process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _worker_task[:] = [run]


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _run_task(task: CheckTask) -> CheckResults:
    return _worker_task[0](task)
