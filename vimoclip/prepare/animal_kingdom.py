"""Importer of Animal Kingdom (Ng et al., CVPR 2022), from the two workbooks that its authors release.

`AR_metadata.xlsx`: sheet AR, a row per clip with its split, the ids of its actions, and what each animal does, in
words; sheet Action, the classes with their ids; sheet Animal, the animals and their classes. `df_action.xlsx`: sheet
AR_count, the classes with their segments."""

import ast
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vimoclip import annotations, cli
from vimoclip.annotations import SEGMENTS, Annotations, VideoAnimals
from vimoclip.errors import UserError
from vimoclip.io import atomic
from vimoclip.io.names import list_some
from vimoclip.prepare import selection_split
from vimoclip.prepare.animals import classify_animals, read_animal_classes
from vimoclip.prepare.class_ids import (
    AmbiguousClassIdError,
    ClassIdClaim,
    LabelEvidence,
    normalize_name,
    resolve_class_ids,
)
from vimoclip.prepare.excel import cell_text, parse_whole_number, read_sheet
from vimoclip.prepare.write_dataset import add_selection, count_videos, plot_class_counts

SPLIT_OF_TYPE = {"train": "train", "test": "val"}  # the sheet's type -> the published split
HEAD_ABOVE, MIDDLE_ABOVE = 500, 100  # training labels above which a class is in the head or in the middle


class ClipRow(NamedTuple):
    """A row of the sheet AR. `animal_actions`: pairs of an animal and its action, in words."""

    video: str
    split: str
    labels: tuple[int, ...]
    animal_actions: tuple[tuple[str, str], ...]


class ActionCountRow(NamedTuple):
    """A row of the sheet AR_count."""

    name: str
    class_id: int
    segment: str
    num_clips: int


def prepare(metadata: Path, actions: Path, annotations_dir: Path, name: str, with_species: bool) -> cli.RunReport:
    """Write the annotations, print the summary and every resolved conflict, and return the report of the run.

    Raises UserError."""
    count_rows = read_action_counts(actions)
    clips = read_clips(metadata, len(count_rows))
    class_names, lines = resolve_class_names(count_rows, read_action_ids(metadata), clips, metadata, actions)
    data = build_annotations(class_names, {normalize_name(row.name): row.segment for row in count_rows}, clips)
    lines += describe(data, count_rows)
    animals: dict[str, VideoAnimals] = {}
    if with_species:
        names = {clip.video: [animal for animal, _ in clip.animal_actions if animal] for clip in clips}
        animals, animal_lines = classify_animals(names, read_animal_classes(metadata))
        lines += animal_lines
    data = add_selection(data, annotations_dir, name)
    lines += selection_split.describe_selection(data)
    if animals:
        atomic.write_text(annotations_dir / annotations.ANIMALS_FILE, annotations.format_animals(animals))
    annotations.write(annotations_dir, name, data)
    print("\n".join(lines))
    print(f"wrote {annotations_dir}, and {plot_class_counts(annotations_dir, data)}", flush=True)
    return cli.RunReport([annotations_dir], done=count_videos(data))


def read_action_counts(path: Path) -> list[ActionCountRow]:
    """Return the classes of the sheet AR_count. Raises UserError."""
    rows: dict[str, ActionCountRow] = {}
    sheet = read_sheet(path, "AR_count", ("action", "index", "segment", "count"))
    for line, (action, index, segment, count) in sheet:
        class_id, num_clips = _parse_id(index, len(sheet)), parse_whole_number(count) or 0
        row = ActionCountRow(cell_text(action), class_id, cell_text(segment), num_clips)
        if not row.name or row.class_id < 0:
            problem = f"row {line} needs an action, and an index in 0..{len(sheet) - 1}"
            raise UserError(problem, "fix it", path=path)
        if row.segment not in SEGMENTS:
            problem = f"row {line}: segment {row.segment!r} is none of {', '.join(SEGMENTS)}"
            raise UserError(problem, "fix it", path=path)
        if rows.setdefault(normalize_name(row.name), row) is not row:
            raise UserError(f"row {line}: {row.name} is duplicated", "give each class one row", path=path)
    if missing := sorted(set(range(len(rows))) - {row.class_id for row in rows.values()}):
        problem = f"no action has index {list_some(missing)}"
        raise UserError(problem, "each needs a name", path=path)
    return list(rows.values())


def read_action_ids(path: Path) -> dict[str, int | None]:
    """Return the id by class name of the sheet Action; None for a row without an id. Raises UserError."""
    ids: dict[str, int | None] = {}
    for line, (label, action) in read_sheet(path, "Action", ("Label", "Action")):
        name = cell_text(action)
        if not name:
            raise UserError(f"sheet Action, row {line} has no action", "complete it", path=path)
        if normalize_name(name) in {normalize_name(other) for other in ids}:
            problem = f"sheet Action, row {line}: {name} is duplicated"
            raise UserError(problem, "give each class one row", path=path)
        ids[name] = parse_whole_number(label)
    return ids


def read_clips(path: Path, num_classes: int) -> list[ClipRow]:
    """Return the clips of the sheet AR, in its order. Raises UserError."""
    clips: dict[str, ClipRow] = {}
    for line, values in read_sheet(path, "AR", ("video_id", "type", "labels", "list_animal_action")):
        try:
            clip = _parse_clip(values, num_classes)
        except ValueError as error:
            raise UserError(f"sheet AR, row {line}: {error}", "fix it", path=path) from None
        except UserError as error:
            raise UserError(f"sheet AR, row {line}: {error.problem}", error.hint, path=path) from None
        if clips.setdefault(clip.video, clip) is not clip:
            problem = f"sheet AR, row {line}: {cell_text(values[0])} is duplicated"
            raise UserError(problem, "give each clip one row", path=path)
    return list(clips.values())


def _parse_clip(values: Sequence[Any], num_classes: int) -> ClipRow:
    """Parse a row of the sheet AR. Raises ValueError, and UserError for an invalid video id."""
    name, split, labels, animal_actions = values
    video = f"{cell_text(name)}.mp4"
    annotations.check_video_id(video)
    if cell_text(split) not in SPLIT_OF_TYPE:
        raise ValueError(f"type {cell_text(split)!r} of {cell_text(name)} is none of {', '.join(SPLIT_OF_TYPE)}")
    words = cell_text(labels).split(",")
    ids = [_parse_id(word, num_classes) for word in words]
    if min(ids) < 0:
        invalid = words[ids.index(min(ids))]
        raise ValueError(f"label {invalid!r} of {cell_text(name)} is not in 0..{num_classes - 1}")
    pairs = tuple(_parse_animal_actions(animal_actions))
    return ClipRow(video, SPLIT_OF_TYPE[cell_text(split)], tuple(dict.fromkeys(ids)), pairs)


def _parse_id(value: Any, count: int) -> int:
    """Return an id in 0..count-1, or -1 if the value is none."""
    number = parse_whole_number(value)
    return number if number is not None and 0 <= number < count else -1


def _parse_animal_actions(cell: Any) -> Iterator[tuple[str, str]]:
    """Yield (animal, action) of a cell with a Python list of pairs, or of strings that hold such lists.

    Raises ValueError."""
    try:
        items = ast.literal_eval(str(cell))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        items = None
    if not isinstance(items, list):
        raise ValueError(f"list_animal_action is no list of animals and actions: {str(cell)[:60]!r}")
    for item in items:
        if isinstance(item, str):
            yield from _parse_animal_actions(item)
        elif isinstance(item, tuple) and len(item) == 2 and all(isinstance(word, str) for word in item):
            yield cell_text(item[0].replace(";", ",")), cell_text(item[1])  # animals.csv joins with semicolons
        else:
            raise ValueError(f"list_animal_action holds what is no animal with its action: {str(item)[:60]!r}")


def resolve_class_names(
    count_rows: Sequence[ActionCountRow],
    action_ids: Mapping[str, int | None],
    clips: Sequence[ClipRow],
    metadata: Path,
    actions: Path,
) -> tuple[list[str], list[str]]:
    """Return the class names in the order of their ids, and lines about resolved conflicts. Raises UserError."""
    spellings = {normalize_name(name): name for name in action_ids}
    if unknown := sorted(spellings.keys() - {normalize_name(row.name) for row in count_rows}):
        names = list_some(spellings[name] for name in unknown)
        problem = f"sheet Action names {names}, which {actions} doesn't"
        raise UserError(problem, "take both of one release", path=metadata)
    evidence = LabelEvidence()
    for clip in clips:
        evidence.add_clip(clip.labels, (action for _, action in clip.animal_actions))
    claims = []
    for row in count_rows:
        key = normalize_name(row.name)
        claims.append(ClassIdClaim(key, row.class_id, action_ids.get(spellings.get(key, ""))))
    try:
        ids = resolve_class_ids(claims, evidence)
    except AmbiguousClassIdError as error:
        raise UserError(f"{metadata} and {actions}: {error}", "ask the data set's authors which is right") from None
    names_by_id = {}
    for row in count_rows:
        key = normalize_name(row.name)
        names_by_id[ids[key]] = spellings.get(key, row.name)
    lines = _describe_conflicts(claims, ids, names_by_id, evidence)
    return [names_by_id[class_id] for class_id in range(len(names_by_id))], lines


def _describe_conflicts(
    claims: Sequence[ClassIdClaim], ids: Mapping[str, int], names: Mapping[int, str], evidence: LabelEvidence
) -> list[str]:
    """Return a line for each class whose sheets disagree with each other or with the clips' descriptions."""
    lines = []
    for claim in sorted(claims, key=lambda claim: ids[claim.name]):
        class_id = ids[claim.name]
        if not claim.by_list == claim.by_counts == class_id:
            listed = "without an id" if claim.by_list is None else f"at {claim.by_list}"
            lines.append(
                f"  id {class_id} is {names[class_id]} (in the sheet Action {listed}, in AR_count at "
                f"{claim.by_counts}): {evidence.describe(class_id, claim.name)}"
            )
    if lines:
        count = f"{len(lines)} of {len(claims)} classes"
        lines.insert(0, f"{count} have another id in a sheet than in the clips; the clips' id is used:")
    else:
        lines = [f"sheets and clips agree on the ids of all {len(claims)} classes"]
    class_names = {claim.name for claim in claims}
    unknown_names = {name: count for name, count in evidence.names.items() if name not in class_names}
    if unknown_names:
        names_and_count = f"{list_some(unknown_names)}, in {sum(unknown_names.values())} clips"
        lines.append(f"  in words, but no class: {names_and_count}")
    return lines


def build_annotations(names: Sequence[str], segments: Mapping[str, str], clips: Sequence[ClipRow]) -> Annotations:
    """Return the annotations with both partitions of the classes and without selection clips.

    `segments`: by normalized class name."""
    splits: dict[str, dict[str, tuple[int, ...]]] = {split: {} for split in SPLIT_OF_TYPE.values()}
    for clip in clips:
        splits[clip.split][clip.video] = clip.labels
    counts = Counter(label for labels in splits["train"].values() for label in labels)
    by_count = (
        "head" if counts[i] > HEAD_ABOVE else "middle" if counts[i] > MIDDLE_ABOVE else "tail"
        for i in range(len(names))
    )
    by_authors = tuple(segments[normalize_name(name)] for name in names)
    return Annotations(tuple(names), splits, {"segment": by_authors, "segment_by_count": tuple(by_count)})


def describe(data: Annotations, count_rows: Sequence[ActionCountRow]) -> list[str]:
    """Return lines with the sizes of splits and segments, classes without clips, and differences to AR_count."""
    lines = [", ".join(f"{len(videos)} clips in {split}" for split, videos in data.splits.items())]
    for partition, segments in data.partitions.items():
        sizes = Counter(segments)
        lines.append(f"{partition}: " + ", ".join(f"{sizes[segment]} {segment}" for segment in SEGMENTS))
    counts = {split: Counter(i for ids in videos.values() for i in ids) for split, videos in data.splits.items()}
    for split, split_counts in counts.items():
        if empty := [name for i, name in enumerate(data.classes) if not split_counts[i]]:
            lines.append(f"{len(empty)} classes have no clip in {split}: {list_some(empty)}")
    return [*lines, *_compare_counts(data.classes, counts["train"], counts["train"] + counts["val"], count_rows)]


def _compare_counts(
    classes: Sequence[str], train: Counter[int], total: Counter[int], count_rows: Sequence[ActionCountRow]
) -> list[str]:
    """Return lines that compare the clip counts of AR_count, an earlier state of the data set, with those of AR."""
    listed_by_name = {normalize_name(row.name): row.num_clips for row in count_rows}
    listed = [listed_by_name[normalize_name(name)] for name in classes]
    num_like_total, num_like_train = (
        sum(count == counts[i] for i, count in enumerate(listed)) for counts in (total, train)
    )
    different = [i for i, count in enumerate(listed) if count not in (total[i], train[i])]
    summary = f"counts of AR_count: {num_like_total} of {len(classes)} are those of all clips in AR"
    lines = [f"{summary}, {num_like_train} of its training clips"]
    if different:
        examples = [f"{classes[i]} {listed[i]} (AR: {train[i]} to train on, {total[i]} in all)" for i in different]
        lines.append(f"  {len(different)} are neither: {list_some(examples)}")
    return lines
