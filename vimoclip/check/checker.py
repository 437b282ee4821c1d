"""Whether a data set and all that was made of it is complete, whole, up to date and fits together."""

import contextlib
from collections.abc import Iterator

from vimoclip import annotations, cli
from vimoclip.check import cross_file
from vimoclip.check.dataset import DataSet, Places, look_around, rgb_area
from vimoclip.check.problems import Findings
from vimoclip.check.video_checks import Look, Seen, Task
from vimoclip.check.worker_pool import in_processes
from vimoclip.errors import UserError

CHUNK = 100  # videos that a worker is given at a time
CHUNK_DECODED = 4  # few, so that a check can be stopped


class Wrong(UserError):
    """Something is wrong with the data set; the text is the closing line."""

    exit_code = 1


def check(places: Places, decode: bool = False, workers: int = 1) -> Findings:
    """Look at everything. Raises UserError where there are no annotations, or a worker is killed."""
    findings = Findings()
    try:
        notes = annotations.load(places.annotations, places.dataset_name, with_selection=False)
    except UserError as error:
        findings.entries["annotations"] = 0
        findings.unfit("annotations", places.annotations, "broken", error)
        findings.say("annotations", "nothing else was looked at, as these say what there should be")
        return findings
    data = DataSet(places, notes, decode)
    cross_file.compare_notes(data, findings)
    look_around(data, findings)
    cross_file.compare_names(data, findings)
    cross_file.compare_files(data, findings)
    seen = _look_at_all(data, workers)
    findings.add(seen.findings)
    cross_file.compare_flows(data, seen, findings)
    cross_file.add_damage(data, seen, findings)
    leftovers = cross_file.find_leftovers(data, seen, findings)
    findings.entries = _entries(data, seen, findings, leftovers)
    findings.sort()
    return findings


def _look_at_all(data: DataSet, workers: int) -> Seen:
    seen, meter = Seen(), cli.Meter(len(data.videos), describe="checking")
    tasks = list(_tasks(data))
    for reader in data.readers.values():
        with contextlib.suppress(UserError):  # said when it is looked at
            reader.prepare()
    try:
        for task, part in zip(tasks, in_processes(Look(data), tasks, workers), strict=True):
            seen.add(part)
            meter.add(0 if isinstance(task, str) else len(task))
    finally:
        meter.close()
    return seen


def _tasks(data: DataSet) -> Iterator[Task]:
    """The longest first: a file is verified in one piece."""
    ours = [area for area, reader in data.readers.items() if reader.known]
    yield from sorted(ours, key=lambda area: -len(data.keys[area]))
    step = CHUNK_DECODED if data.decode else CHUNK
    for start in range(0, len(data.videos), step):
        yield data.videos[start : start + step]


def _entries(data: DataSet, seen: Seen, findings: Findings, leftovers: dict[str, int]) -> dict[str, int | None]:
    """Area -> how many videos it has or should have; None where nothing has been made yet."""
    annotated = len(data.split_of)
    found: dict[str, int | None] = {"annotations": annotated, "videos": len(data.videos)}
    for split in data.splits:
        area, names = rgb_area(split), data.annotations.splits[split]
        there = area in data.readers or area in findings.unusable
        found[area] = len(names.keys() | data.keys.get(area, set())) if there else None
    for area, part in (("flows", data.flows), ("motion", data.motion)):
        there = part is not None or area in findings.unusable
        found[area] = annotated + seen.unannotated[area] + leftovers[area] if there else None
    return found
