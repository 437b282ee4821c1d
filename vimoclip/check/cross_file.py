"""Checks that files and folders are consistent with each other and with the current annotations."""

import contextlib
import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

from vimoclip import annotations
from vimoclip.check import compatibility
from vimoclip.check.dataset_scan import DatasetContents, command_for, rgb_area
from vimoclip.check.problems import CheckReport, escape_line
from vimoclip.check.video_checks import CheckResults
from vimoclip.cli import check_settings_match
from vimoclip.errors import UserError
from vimoclip.io.names import list_some
from vimoclip.store import EmbeddingReader


def check_annotation_files(data: DatasetContents, report: CheckReport) -> None:
    """Check that selection clips and animals name annotated videos only."""
    folder = data.paths.annotations
    if (path := folder / annotations.SELECTION_FILE).exists():
        with _record_errors(report, "annotations", path, "broken"):
            train = data.annotations.splits.get("train", {})
            annotations.check_selection(path, annotations.read_selection(path), train)
    path = folder / annotations.ANIMALS_FILE
    with _record_errors(report, "annotations", path, "broken"):
        if unknown := [video for video in annotations.read_animals(folder) if video not in data.split_of]:
            reason = f"names {len(unknown)} videos that no split names ({list_some(unknown)})"
            hint = "remove these lines, or delete the file"
            report.add_file_problem("annotations", path, "misfit", reason, hint)


def check_video_names(data: DatasetContents, report: CheckReport) -> None:
    """Check for names of videos that the extractors refuse."""
    videos_by_stem: dict[str, str] = {}
    for name in sorted((data.files or frozenset()) - data.other_files):
        try:
            annotations.check_video_id(name)
        except UserError as error:
            report.add_problem("videos", name, "misfit", error)
            continue
        if (other := videos_by_stem.setdefault(annotations.stem(name), name)) != name:
            reason = f"shares the name of {other}, so that the flow of both would be {annotations.stem(name)}.mp4"
            report.add_problem("videos", name, "misfit", reason, "rename one of them")


def check_embedding_files(data: DatasetContents, report: CheckReport) -> None:
    """Compare the RGB files with the annotations, with each other, and with the motion file."""
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
    hint = f"{command_for(area)} --overwrite creates it again"
    if reader.has_schema and (type_attribute := reader.attributes.get("type", split)) != split:
        report.add_file_problem(area, reader.path, "misfit", f"says that it is of the split {type_attribute}", hint)
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
    reference = settings_dicts[max(settings_dicts, key=lambda settings: len(videos_by_settings[settings]))]
    for settings, names in videos_by_settings.items():
        try:
            check_settings_match(reference, settings_dicts[settings], "most flow videos", "this one", "")
        except UserError as error:
            for name in names:
                hint = "delete it and run extract_flows.py again, with the flags of the others"
                report.add_problem("flows", name, "misfit", error, hint)
    for reader in data.rgb_readers.values():
        with _record_errors(report, "flows", folder, "misfit"):
            compatibility.check_sampling(reader, reference, str(folder))
    motion = data.motion_reader
    if motion and motion.has_schema:
        motion_settings = {key: value for key, value in motion.attributes.items() if key == "sampling"}
        trained_on = motion.attributes.get("student", {}).get("flow")
        motion_settings |= trained_on if isinstance(trained_on, dict) else {}
        hint = "inference.py --overwrite creates it again, with a student that was trained on this flow"
        with _record_errors(report, "motion", motion.path, "misfit"):
            check_settings_match(motion_settings, reference, str(motion.path), str(folder), hint)


def add_stale_entries(data: DatasetContents, results: CheckResults, report: CheckReport) -> dict[str, int]:
    """Add entries whose video is gone or no longer annotated; return their number in `flows` and `motion`."""
    for split, reader in data.rgb_readers.items():
        area = rgb_area(split)
        hint = f"{command_for(area)} takes it out" if reader.has_schema else "create the file again, or annotate it"
        for key in sorted(data.keys[area] - data.annotations.splits[split].keys()):
            report.add_problem(area, key, "stale", f"is not annotated in {split}_multi.txt", hint)
    flows = sorted(data.flow_folder.paths.keys() - set(results.matched_flows)) if data.flow_folder else []
    motions = sorted(data.keys.get("motion", frozenset()) - set(results.matched_motions))
    reason = "is of no video that is annotated or there"
    for name in flows:
        report.add_problem("flows", name, "stale", reason, "delete it, or put its video back")
    for key in motions:
        report.add_problem("motion", key, "stale", reason, "inference.py --overwrite makes the file without it")
    return {"flows": len(flows), "motion": len(motions)}


def add_verify_problems(data: DatasetContents, results: CheckResults, report: CheckReport) -> None:
    """Add the problems found by `store.verify`, except those already found for a single video."""
    broken = {(problem.area, problem.id) for problem in report.problems if problem.kind == "broken"}
    for area, problems in results.verify_problems.items():
        for key, problem in problems:
            if (area, escape_line(key)) not in broken:
                hint = f"{command_for(area)} --overwrite creates it again"
                reason = f"{key}: {problem}" if key else problem
                report.add_file_problem(area, data.readers[area].path, "broken", reason, hint)


@contextlib.contextmanager
def _record_errors(report: CheckReport, area: str, path: Path, kind: str, hint: str = "") -> Iterator[None]:
    """Turn a UserError into a problem of a file or folder as a whole."""
    try:
        yield
    except UserError as error:
        report.add_file_problem(area, path, kind, error, hint)
