"""What files and folders are as a whole: whether they were made in one way, and of the data set as it is today."""

import contextlib
import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

from vimoclip import annotations
from vimoclip.check import compatibility
from vimoclip.check.dataset import DataSet, maker, rgb_area
from vimoclip.check.problems import Findings
from vimoclip.check.video_checks import Seen
from vimoclip.cli import check_same
from vimoclip.errors import UserError
from vimoclip.store import Reader


def compare_notes(data: DataSet, findings: Findings) -> None:
    """What stands beside classes and splits: selection clips and animals must be of the videos that are annotated."""
    folder = data.places.annotations
    if (path := folder / annotations.SELECTION).exists():
        with _noting(findings, "annotations", path, "broken"):
            train = data.annotations.splits.get("train", {})
            annotations.check_selected(path, annotations.read_selection(path), train)
    path = folder / annotations.ANIMALS
    with _noting(findings, "annotations", path, "broken"):
        if unknown := [video for video in annotations.read_animals(folder) if video not in data.split_of]:
            reason = f"names {len(unknown)} videos that no split names ({', '.join(unknown[:3])})"
            findings.unfit("annotations", path, "misfit", reason, "remove these lines, or delete the file")


def compare_names(data: DataSet, findings: Findings) -> None:
    """Names of videos that the extractors refuse."""
    stems: dict[str, str] = {}
    for name in sorted((data.listed or frozenset()) - data.others):
        try:
            annotations.check_video_id(name)
        except UserError as error:
            findings.wrong("videos", name, "misfit", error)
            continue
        if (other := stems.setdefault(annotations.stem(name), name)) != name:
            reason = f"shares the name of {other}, so that the flow of both would be {annotations.stem(name)}.mp4"
            findings.wrong("videos", name, "misfit", reason, "rename one of them")


def compare_files(data: DataSet, findings: Findings) -> None:
    """Embeddings of the splits with the annotations, with each other, and with the motions."""
    for split, reader in data.rgb.items():
        _compare_with_annotations(data, split, reader, findings)
    filled = [(split, reader) for split, reader in data.rgb.items() if reader.keys]
    for (_, first), (split, second) in combinations(filled, 2):
        with _noting(findings, rgb_area(split), second.path, "misfit"):
            compatibility.check_splits(first, second)
    for _, reader in filled:
        if data.motion and data.motion.keys:
            with _noting(findings, "motion", data.motion.path, "misfit"):
                compatibility.check_fit(reader, data.motion)


def _compare_with_annotations(data: DataSet, split: str, reader: Reader, findings: Findings) -> None:
    area = rgb_area(split)
    anew = f"{maker(area)} --overwrite makes it anew"
    if reader.known and (said := reader.attributes.get("type", split)) != split:
        findings.unfit(area, reader.path, "misfit", f"says that it is of the split {said}", anew)
    if reader.keys:
        with _noting(findings, area, reader.path, "stale", anew):
            names = compatibility.class_names(reader)
            compatibility.check_classes(names, data.annotations.classes, str(reader.path), str(data.places.annotations))


def compare_flows(data: DataSet, seen: Seen, findings: Findings) -> None:
    """How the flow was made: in one way, of the frames of the embeddings, and as the motions' student knows it.

    What most flow videos say is taken for the way."""
    if not seen.made:
        return
    folder, made = data.places.flows, {settings: json.loads(settings) for settings in seen.made}
    usual = made[max(made, key=lambda settings: len(seen.made[settings]))]
    for settings, names in seen.made.items():
        try:
            check_same(usual, made[settings], "most flow videos", "this one", "")
        except UserError as error:
            for name in names:
                hint = "delete it and run extract_flows.py again, with the flags of the others"
                findings.wrong("flows", name, "misfit", error, hint)
    for reader in data.rgb.values():
        with _noting(findings, "flows", folder, "misfit"):
            compatibility.check_sampling(reader, usual, str(folder))
    if data.motion and data.motion.known:
        said = {key: value for key, value in data.motion.attributes.items() if key == "sampling"}
        trained_on = data.motion.attributes.get("student", {}).get("flow")
        said |= trained_on if isinstance(trained_on, dict) else {}
        hint = "inference.py --overwrite makes it anew, with a student that was trained on this flow"
        with _noting(findings, "motion", data.motion.path, "misfit"):
            check_same(said, usual, str(data.motion.path), str(folder), hint)


def find_leftovers(data: DataSet, seen: Seen, findings: Findings) -> dict[str, int]:
    """Entries of videos that are gone or no longer annotated; how many there are in `flows` and `motion`."""
    for split, reader in data.rgb.items():
        area = rgb_area(split)
        hint = f"{maker(area)} takes it out" if reader.known else "make the file anew, or annotate it"
        for key in sorted(data.keys[area] - data.annotations.splits[split].keys()):
            findings.wrong(area, key, "stale", f"is not annotated in {split}_multi.txt", hint)
    flows = sorted(data.flows.paths.keys() - set(seen.flows)) if data.flows else []
    motions = sorted(data.keys.get("motion", frozenset()) - set(seen.motions))
    reason = "is of no video that is annotated or there"
    for name in flows:
        findings.wrong("flows", name, "stale", reason, "delete it, or put its video back")
    for key in motions:
        findings.wrong("motion", key, "stale", reason, "inference.py --overwrite makes the file without it")
    return {"flows": len(flows), "motion": len(motions)}


def add_damage(data: DataSet, seen: Seen, findings: Findings) -> None:
    """What `store.verify` said of files, where looking at each video has not said it already."""
    for area, lines in seen.damage.items():
        named = [problem.id for problem in findings.problems if (problem.area, problem.kind) == (area, "broken")]
        for line in lines:
            if not any(name in line for name in named):
                hint = f"{maker(area)} --overwrite makes it anew"
                findings.unfit(area, data.readers[area].path, "broken", line, hint)


@contextlib.contextmanager
def _noting(findings: Findings, area: str, path: Path, kind: str, hint: str = "") -> Iterator[None]:
    """A rule that is broken is a problem of a file or folder as a whole."""
    try:
        yield
    except UserError as error:
        findings.unfit(area, path, kind, error, hint)
