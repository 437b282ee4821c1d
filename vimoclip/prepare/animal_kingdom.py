"""Animal Kingdom (Ng et al., CVPR 2022), from the two workbooks that its authors give out.

`AR_metadata.xlsx`: sheet AR, a row a clip: its split, the ids of its actions, and what each animal does, in words;
sheet Action, the classes with their ids; sheet Animal, animals and their classes. `df_action.xlsx`: sheet AR_count, the
classes with their segments."""

import ast
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vimoclip import annotations
from vimoclip.annotations import SEGMENTS, Animals, Annotations
from vimoclip.errors import UserError
from vimoclip.io import atomic
from vimoclip.prepare import selection
from vimoclip.prepare.animals import classify, read_classes
from vimoclip.prepare.class_ids import Claim, Evidence, Unsettled, fold, settle
from vimoclip.prepare.excel import read_sheet, text, whole_number
from vimoclip.prepare.write_dataset import plot, with_selection

SPLITS = {"train": "train", "test": "val"}  # the sheet's name -> the published one
MANY, SOME = 500, 100  # a class with more training labels is of the head, or of the middle
NAMED = 5  # of what is said to be wrong or odd


class Clip(NamedTuple):
    """A row of the sheet AR. `said`: pairs of an animal and what it does."""

    video: str
    split: str
    labels: tuple[int, ...]
    said: tuple[tuple[str, str], ...]


class Counted(NamedTuple):
    """A row of the sheet AR_count."""

    name: str
    number: int
    segment: str
    clips: int


def prepare(metadata: Path, actions: Path, notes: Path, name: str, with_species: bool) -> Path:
    """Write the annotations, print what was found and how it was settled; the folder. Raises UserError."""
    counted = read_counted(actions)
    clips = read_clips(metadata, len(counted))
    names, lines = name_classes(counted, read_listed(metadata), clips, metadata, actions)
    data = lay_out(names, {fold(row.name): row.segment for row in counted}, clips)
    lines += describe(data, counted)
    animals: dict[str, Animals] = {}
    if with_species:
        seen = {clip.video: [animal for animal, _ in clip.said if animal] for clip in clips}
        animals, more = classify(seen, read_classes(metadata))
        lines += more
    data = with_selection(data, notes, name)
    lines += selection.describe(data)
    if animals:
        atomic.write_text(notes / annotations.ANIMALS, annotations.animals_text(animals))
    annotations.write(notes, name, data)
    print("\n".join(lines))
    print(f"wrote {notes}, and {plot(notes, data)}", flush=True)
    return notes


def read_counted(path: Path) -> list[Counted]:
    """The classes of the sheet AR_count. Raises UserError."""
    found: dict[str, Counted] = {}
    sheet = read_sheet(path, "AR_count", ("action", "index", "segment", "count"))
    for line, (said, index, segment, count) in sheet:
        row = Counted(text(said), _id(index, len(sheet)), text(segment), whole_number(count) or 0)
        if not row.name or row.number < 0:
            raise UserError(f"row {line} needs an action, and an index in 0..{len(sheet) - 1}", "mend it", path=path)
        if row.segment not in SEGMENTS:
            raise UserError(
                f"row {line}: segment {row.segment!r} is none of {', '.join(SEGMENTS)}", "mend it", path=path
            )
        if found.setdefault(fold(row.name), row) is not row:
            raise UserError(f"row {line}: {row.name} stands twice", "give each class one row", path=path)
    if lacking := sorted(set(range(len(found))) - {row.number for row in found.values()}):
        raise UserError(f"no action has index {', '.join(map(str, lacking[:NAMED]))}", "each needs a name", path=path)
    return list(found.values())


def read_listed(path: Path) -> dict[str, int | None]:
    """Name -> id by the sheet Action; None where a row has no id. Raises UserError."""
    found: dict[str, int | None] = {}
    for line, (label, said) in read_sheet(path, "Action", ("Label", "Action")):
        if not text(said):
            raise UserError(f"sheet Action, row {line} has no action", "complete it", path=path)
        if fold(text(said)) in {fold(name) for name in found}:
            raise UserError(
                f"sheet Action, row {line}: {text(said)} stands twice", "give each class one row", path=path
            )
        found[text(said)] = whole_number(label)
    return found


def read_clips(path: Path, num_classes: int) -> list[Clip]:
    """The clips of the sheet AR, in its order. Raises UserError."""
    found: dict[str, Clip] = {}
    for line, values in read_sheet(path, "AR", ("video_id", "type", "labels", "list_animal_action")):
        try:
            clip = _clip(values, num_classes)
        except ValueError as error:
            raise UserError(f"sheet AR, row {line}: {error}", "mend it", path=path) from None
        except UserError as error:
            raise UserError(f"sheet AR, row {line}: {error.problem}", error.hint, path=path) from None
        if found.setdefault(clip.video, clip) is not clip:
            raise UserError(
                f"sheet AR, row {line}: {text(values[0])} stands twice", "give each clip one row", path=path
            )
    return list(found.values())


def _clip(values: Sequence[Any], num_classes: int) -> Clip:
    """Raises ValueError."""
    name, split, labels, said = values
    video = f"{text(name)}.mp4"
    annotations.check_video_id(video)
    if text(split) not in SPLITS:
        raise ValueError(f"type {text(split)!r} of {text(name)} is none of {', '.join(SPLITS)}")
    words = text(labels).split(",")
    ids = [_id(word, num_classes) for word in words]
    if min(ids) < 0:
        wrong = words[ids.index(min(ids))]
        raise ValueError(f"label {wrong!r} of {text(name)} is not in 0..{num_classes - 1}")
    return Clip(video, SPLITS[text(split)], tuple(dict.fromkeys(ids)), tuple(_pairs(said)))


def _id(value: Any, count: int) -> int:
    """An id in 0..count-1, else -1."""
    number = whole_number(value)
    return number if number is not None and 0 <= number < count else -1


def _pairs(said: Any) -> Iterator[tuple[str, str]]:
    """(animal, action) of a cell, which holds a list of them as Python writes it, or of texts that do.

    Raises ValueError."""
    try:
        items = ast.literal_eval(str(said))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        items = None
    if not isinstance(items, list):
        raise ValueError(f"list_animal_action is no list of animals and actions: {str(said)[:60]!r}")
    for item in items:
        if isinstance(item, str):
            yield from _pairs(item)
        elif isinstance(item, tuple) and len(item) == 2 and all(isinstance(word, str) for word in item):
            yield text(item[0].replace(";", ",")), text(item[1])  # animals.csv joins by semicolons
        else:
            raise ValueError(f"list_animal_action holds what is no animal with its action: {str(item)[:60]!r}")


def name_classes(
    counted: Sequence[Counted],
    listed: Mapping[str, int | None],
    clips: Sequence[Clip],
    metadata: Path,
    actions: Path,
) -> tuple[list[str], list[str]]:
    """Class names in the order of their ids, and lines that say what was in doubt. Raises UserError."""
    spelled = {fold(name): name for name in listed}
    if strange := sorted(spelled.keys() - {fold(row.name) for row in counted}):
        some = ", ".join(spelled[name] for name in strange[:NAMED])
        raise UserError(f"{metadata}: sheet Action names {some}, which {actions} doesn't", "take both of one release")
    evidence = Evidence()
    for clip in clips:
        evidence.add(clip.labels, (action for _, action in clip.said))
    claims = [Claim(fold(row.name), row.number, listed.get(spelled.get(fold(row.name), ""))) for row in counted]
    try:
        ids = settle(claims, evidence)
    except Unsettled as error:
        raise UserError(f"{metadata} and {actions}: {error}", "ask the data set's authors which is right") from None
    names = {number: spelled.get(fold(row.name), row.name) for row in counted for number in [ids[fold(row.name)]]}
    return [names[number] for number in range(len(names))], _say(claims, ids, names, evidence)


def _say(claims: Sequence[Claim], ids: Mapping[str, int], names: Mapping[int, str], evidence: Evidence) -> list[str]:
    """A line a class of which the sheets disagree with each other or with what the clips are said to show."""
    lines = []
    for claim in sorted(claims, key=lambda claim: ids[claim.name]):
        number = ids[claim.name]
        if not claim.by_list == claim.by_counts == number:
            listed = "without an id" if claim.by_list is None else f"at {claim.by_list}"
            lines.append(
                f"  id {number} is {names[number]} (in the sheet Action {listed}, in AR_count at {claim.by_counts}): "
                f"{evidence.say(number, claim.name)}"
            )
    known = {claim.name for claim in claims}
    others = {name: count for name, count in evidence.names.items() if name not in known}
    said = f"{len(lines)} of {len(claims)} classes stand at another id in a sheet than in the clips, which settle it:"
    lines = [said if lines else f"sheets and clips agree on the ids of all {len(claims)} classes", *lines]
    if others:
        lines.append(f"  in words, but no class: {', '.join(list(others)[:NAMED])}, in {sum(others.values())} clips")
    return lines


def lay_out(names: Sequence[str], segments: Mapping[str, str], clips: Sequence[Clip]) -> Annotations:
    """The annotations, with both partitions of the classes, without a selection."""
    splits: dict[str, dict[str, tuple[int, ...]]] = {split: {} for split in SPLITS.values()}
    for clip in clips:
        splits[clip.split][clip.video] = clip.labels
    counts = Counter(label for labels in splits["train"].values() for label in labels)
    by_count = ("head" if counts[i] > MANY else "middle" if counts[i] > SOME else "tail" for i in range(len(names)))
    partitions = {"segment": tuple(segments[fold(name)] for name in names), "segment_by_count": tuple(by_count)}
    return Annotations(tuple(names), splits, partitions)


def describe(data: Annotations, counted: Sequence[Counted]) -> list[str]:
    """What was made, and how its counts fit those of AR_count."""
    lines = [", ".join(f"{len(videos)} clips in {split}" for split, videos in data.splits.items())]
    for partition, segments in data.partitions.items():
        sizes = Counter(segments)
        lines.append(f"{partition}: " + ", ".join(f"{sizes[segment]} {segment}" for segment in SEGMENTS))
    ours = {split: Counter(i for ids in videos.values() for i in ids) for split, videos in data.splits.items()}
    for split, of_split in ours.items():
        if lacking := [name for i, name in enumerate(data.classes) if not of_split[i]]:
            lines.append(f"{len(lacking)} classes have no clip in {split}: {_some(lacking)}")
    return [*lines, *_compare_counts(data.classes, ours["train"], ours["train"] + ours["val"], counted)]


def _compare_counts(
    classes: Sequence[str], train: Counter[int], total: Counter[int], counted: Sequence[Counted]
) -> list[str]:
    """How the clips counted in AR_count, which are of an earlier state of the data set, fit those of AR."""
    wanted = {fold(row.name): row.clips for row in counted}
    there = [wanted[fold(name)] for name in classes]
    whole, part = (sum(count == of[i] for i, count in enumerate(there)) for of in (total, train))
    odd = [i for i, count in enumerate(there) if count not in (total[i], train[i])]
    said = f"counts of AR_count: {whole} of {len(classes)} are those of all clips in AR, {part} of its training clips"
    some = [f"{classes[i]} {there[i]} (AR: {train[i]} to train on, {total[i]} in all)" for i in odd]
    return [said, *([f"  {len(odd)} are neither: {_some(some)}"] if odd else [])]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
