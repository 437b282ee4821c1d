"""Checks of annotations: classes without clips, sources in two splits, names that are one name on another system."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from vimoclip.annotations import SELECTION_FILE, Annotations, split_checks
from vimoclip.check.dataset_scan import DatasetPaths
from vimoclip.check.problems import CheckReport
from vimoclip.io.names import fold_name, is_windows_name, list_some, normalize_name

AREA = "annotations"
RENAME_HINT = "rename the videos and their lines, or import the data set again into another folder"


def check_splits(data: Annotations, paths: DatasetPaths, sources: Mapping[str, str], report: CheckReport) -> None:
    """Check that each split has a label; add notes of classes without clips and of sources in two splits."""
    splits = {f"{split}_multi.txt": list(videos.values()) for split, videos in data.splits.items()}
    splits[SELECTION_FILE] = [data.splits["train"][video] for video in data.selection]
    for name, labels in splits.items():
        if labels and not any(labels):
            hint = (
                split_checks.UNLABELLED_HINT if name == SELECTION_FILE else "label its clips, or split the data again"
            )
            reason = "no clip of it has a label, so nothing can be learnt from it or measured on it"
            report.add_problem(AREA, paths.annotations / name, "misfit", reason, hint)
    if data.splits.get("train"):
        for reason, names in split_checks.find_gaps(data, sources).items():
            hint = split_checks.GAP_HINTS[reason]
            report.add_note(AREA, f"{len(names)} classes have {reason}: {list_some(names)}; {hint}")
    for leak in split_checks.find_all_leaks(data, sources):
        report.add_note(AREA, leak.removeprefix("warning: "))


def check_names(data: Annotations, report: CheckReport) -> None:
    """Add notes of classes and videos whose names are one name, or no name, on another system."""
    for names in _find_lookalikes(data.classes):
        reason = f"{len(names)} classes have names that differ in case, spaces or Unicode form only"
        report.add_note(AREA, f"{reason}: {list_some(names)}; if they are one behaviour, import the data set again")
    videos = [video for split in data.splits.values() for video in split]
    for names in _find_lookalikes(videos):
        reason = (
            f"{list_some(names)} differ in case, spaces or Unicode form only: on Windows and macOS they are one file"
        )
        report.add_note(AREA, f"{reason}; {RENAME_HINT}")
    for reason, unusable in (
        ("names that Windows refuses", [video for video in videos if not is_windows_name(video)]),
        ("names that are not in Unicode form NFC", [video for video in videos if video != normalize_name(video)]),
    ):
        if unusable:
            report.add_note(AREA, f"{len(unusable)} videos have {reason} ({list_some(unusable)}); {RENAME_HINT}")


def _find_lookalikes(names: Iterable[str]) -> list[list[str]]:
    """Return the names that a file system or a person may take for one, each group once."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[fold_name(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]
