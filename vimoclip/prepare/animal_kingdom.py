"""Importer of Animal Kingdom (Ng et al., CVPR 2022), from the two workbooks that its authors release.

`AR_metadata.xlsx`: sheet AR, a row per clip with its split, the ids of its actions, and what each animal does, in
words; sheet Action, the classes with their ids; sheet Animal, the animals and their classes. `df_action.xlsx`: sheet
AR_count, the classes with their segments.

The splits are the authors', or those of `unseen_animals` and `by_source`."""

import ast
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from vimoclip import annotations, cli
from vimoclip.annotations import SEGMENTS, Annotations, VideoAnimals
from vimoclip.errors import UserError
from vimoclip.io import atomic
from vimoclip.io.names import fold_name, has_control_characters, list_some
from vimoclip.prepare import by_source, unseen_animals, write_dataset
from vimoclip.prepare.class_ids import AmbiguousClassIdError, ClassIdClaim, LabelEvidence, resolve_class_ids

PUBLISHED, UNSEEN_ANIMALS, BY_SOURCE = PROTOCOLS = ("published", "unseen-animals", "by-source")
SPLIT_OF_TYPE = {"train": "train", "test": "val"}  # the sheet's type -> the published split
HEAD_ABOVE, MIDDLE_ABOVE = 500, 100  # training labels above which a class is in the head or in the middle
RELEASE_HINT = "get the workbook again from its authors"
CELL_HINT = "correct the cell"
# sheet -> the columns that are read
COUNT_COLUMNS = {"AR_count": ("action", "index", "segment")}
METADATA_COLUMNS = {"AR": ("video_id", "type", "labels", "list_animal_action"), "Action": ("Label", "Action")}
ANIMAL_COLUMNS = ("Animal", "Parent Class", "Sub-Class")
SheetRows = list[tuple[int, tuple[Any, ...]]]  # row number, cells of the columns; None for an empty cell


class ClipRow(NamedTuple):
    """A row of the sheet AR. `animal_actions`: pairs of an animal and its action, in words.

    `is_quoted_twice`: the cell of the pairs is a list of strings that hold lists."""

    video: str
    split: str
    labels: tuple[int, ...]
    animal_actions: tuple[tuple[str, str], ...]
    is_quoted_twice: bool = False


class AnimalRow(NamedTuple):
    """A row of the sheet Animal. `parent`: its Parent Class; `sub_class`: empty if it has none, or was not read."""

    name: str
    parent: str
    sub_class: str = ""


class ActionCountRow(NamedTuple):
    """A row of the sheet AR_count."""

    name: str
    class_id: int
    segment: str


def prepare(
    metadata: Path, actions: Path, annotations_dir: Path, name: str, with_species: bool, protocol: str = PUBLISHED
) -> cli.RunReport:
    """Write the annotations, print the summary and every resolved conflict, and return the report of the run.

    `protocol`: one of PROTOCOLS. Raises UserError."""
    count_rows = parse_action_counts(actions, read_sheets(actions, COUNT_COLUMNS)["AR_count"])
    with_species = with_species or protocol == UNSEEN_ANIMALS
    columns = METADATA_COLUMNS | (
        {"Animal": ANIMAL_COLUMNS[: 3 if protocol == UNSEEN_ANIMALS else 2]} if with_species else {}
    )
    sheets = read_sheets(metadata, columns)
    clips = parse_clips(metadata, sheets["AR"], len(count_rows))
    action_ids = parse_action_ids(metadata, sheets["Action"])
    class_names, lines = resolve_class_names(count_rows, action_ids, clips, metadata, actions)
    animal_rows = parse_animal_classes(metadata, sheets["Animal"]) if with_species else {}
    sources, left_out = dict[str, str](), dict[str, str]()
    if protocol == UNSEEN_ANIMALS:
        chosen = unseen_animals.choose_clips(metadata, clips, class_names, animal_rows)
        data, clips, left_out = chosen.data, chosen.clips, chosen.left_out
        animal_rows |= chosen.spellings
        sources, lines = by_source.infer_sources(clip.video for clip in clips), [*lines, *chosen.lines]
    else:
        if protocol == BY_SOURCE:
            sources = by_source.infer_sources(clip.video for clip in clips)
            clips, split_lines = by_source.split_clips(metadata, clips, class_names, sources)
            lines += split_lines
        data = build_annotations(class_names, {fold_name(row.name): row.segment for row in count_rows}, clips)
    for partition, segments in data.partitions.items():
        sizes = Counter(segments)
        lines.append(f"{partition}: " + ", ".join(f"{sizes[segment]} {segment}" for segment in SEGMENTS))
    animals: dict[str, VideoAnimals] = {}
    if with_species:
        names = {clip.video: [animal for animal, _ in clip.animal_actions if animal] for clip in clips}
        animals, animal_lines = classify_animals(names, animal_rows)
        lines += animal_lines
    print("\n".join([*lines, *([by_source.NOTE] if sources else [])]))
    selection = write_dataset.existing_selection(data, annotations_dir, name)
    data = write_dataset.add_selection(replace(data, selection=selection), sources=sources)
    # metadata first: reproduce_animal_kingdom.sh takes annotations that exist for complete ones
    if sources:
        _write_sources(annotations_dir / annotations.SOURCES_FILE, sources)
    if animals:
        atomic.write_text(annotations_dir / annotations.ANIMALS_FILE, annotations.format_animals(animals))
    annotations.write(annotations_dir, name, data)
    write_dataset.print_summary(annotations_dir, data, {}, left_out, sources)
    return cli.RunReport([annotations_dir], done=sum(map(len, data.splits.values())), skipped=left_out)


def _write_sources(path: Path, sources: Mapping[str, str]) -> None:
    """Raise UserError for a file with other sources, which may have been written by hand."""
    text = annotations.format_sources(sources)
    if path.exists() and path.read_bytes() != text.encode():
        raise UserError("exists already, with other sources", "choose another folder, or remove it", path=path)
    atomic.write_text(path, text)


def parse_action_counts(path: Path, sheet: SheetRows) -> list[ActionCountRow]:
    """Return the classes of the sheet AR_count. Raises UserError."""
    rows: dict[str, ActionCountRow] = {}
    for line, (action, index, segment) in sheet:
        row = ActionCountRow(cell_text(action), _parse_id(index, len(sheet)), cell_text(segment))
        if not row.name or row.class_id < 0:
            problem = f"sheet AR_count, row {line} needs an action, and an index of 0..{len(sheet) - 1}"
            raise UserError(problem, CELL_HINT, path=path)
        if row.segment not in SEGMENTS:
            problem = f"sheet AR_count, row {line}: segment {row.segment!r} is none of {', '.join(SEGMENTS)}"
            raise UserError(problem, CELL_HINT, path=path)
        if rows.setdefault(fold_name(row.name), row) is not row:
            problem = f"sheet AR_count, row {line}: {row.name} is duplicated"
            raise UserError(problem, "keep one row per class", path=path)
    if missing := sorted(set(range(len(rows))) - {row.class_id for row in rows.values()}):
        problem = f"sheet AR_count: no action has index {list_some(missing)}"
        raise UserError(problem, "give each action its own index", path=path)
    return list(rows.values())


def parse_action_ids(path: Path, sheet: SheetRows) -> dict[str, int | None]:
    """Return the id by class name of the sheet Action; None for a row without an id. Raises UserError."""
    ids: dict[str, int | None] = {}
    for line, (label, action) in sheet:
        name = cell_text(action)
        if not name:
            raise UserError(f"sheet Action, row {line} has no action", "complete it", path=path)
        if fold_name(name) in {fold_name(other) for other in ids}:
            raise UserError(f"sheet Action, row {line}: {name} is duplicated", "keep one row per class", path=path)
        ids[name] = parse_whole_number(label)
    return ids


def parse_clips(path: Path, sheet: SheetRows, num_classes: int) -> list[ClipRow]:
    """Return the clips of the sheet AR, in its order. Raises UserError."""
    clips: dict[str, ClipRow] = {}
    for line, values in sheet:
        try:
            clip = _parse_clip(values, num_classes)
        except ValueError as error:
            raise UserError(f"sheet AR, row {line}: {error}", CELL_HINT, path=path) from None
        except UserError as error:
            raise UserError(f"sheet AR, row {line}: {error.problem}", error.hint, path=path) from None
        if clips.setdefault(clip.video, clip) is not clip:
            problem = f"sheet AR, row {line}: {cell_text(values[0])} is duplicated"
            raise UserError(problem, "keep one row per clip", path=path)
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
    items = _parse_list(animal_actions)
    pairs = tuple(_parse_animal_actions(items))
    is_quoted_twice = any(isinstance(item, str) for item in items)
    return ClipRow(video, SPLIT_OF_TYPE[cell_text(split)], tuple(dict.fromkeys(ids)), pairs, is_quoted_twice)


def _parse_id(value: Any, count: int) -> int:
    """Return an id in 0..count-1, or -1 if the value is none."""
    number = parse_whole_number(value)
    return number if number is not None and 0 <= number < count else -1


def _parse_list(cell: Any) -> list[Any]:
    """Return the Python list in a cell. Raises ValueError."""
    try:
        items = ast.literal_eval(str(cell))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        items = None
    if not isinstance(items, list):
        raise ValueError(f"list_animal_action is not a list of (animal, action): {str(cell)[:60]!r}")
    return items


def _parse_animal_actions(items: list[Any]) -> Iterator[tuple[str, str]]:
    """Yield (animal, action) of a list of pairs, or of strings that hold such lists. Raises ValueError."""
    for item in items:
        if isinstance(item, str):
            yield from _parse_animal_actions(_parse_list(item))
        elif isinstance(item, tuple) and len(item) == 2 and all(isinstance(word, str) for word in item):
            yield cell_text(item[0].replace(";", ",")), cell_text(item[1])  # animals.csv joins with semicolons
        else:
            raise ValueError(f"an item of list_animal_action is not (animal, action): {str(item)[:60]!r}")


def resolve_class_names(
    count_rows: Sequence[ActionCountRow],
    action_ids: Mapping[str, int | None],
    clips: Sequence[ClipRow],
    metadata: Path,
    actions: Path,
) -> tuple[list[str], list[str]]:
    """Return the class names in the order of their ids, and lines about resolved conflicts. Raises UserError."""
    spellings = {fold_name(name): name for name in action_ids}
    if unknown := sorted(spellings.keys() - {fold_name(row.name) for row in count_rows}):
        names = list_some(spellings[name] for name in unknown)
        problem = f"sheet Action names {names}, which {actions} does not"
        raise UserError(problem, "use both workbooks of one release", path=metadata)
    evidence = LabelEvidence()
    for clip in clips:
        evidence.add_clip(clip.labels, (action for _, action in clip.animal_actions))
    keys = [fold_name(row.name) for row in count_rows]
    claims = [
        ClassIdClaim(key, row.class_id, action_ids.get(spellings.get(key, "")))
        for key, row in zip(keys, count_rows, strict=True)
    ]
    try:
        ids = resolve_class_ids(claims, evidence)
    except AmbiguousClassIdError as error:
        raise UserError(f"{metadata} and {actions}: {error}", "ask the data set's authors which is right") from None
    names_by_id = {ids[key]: spellings.get(key, row.name) for key, row in zip(keys, count_rows, strict=True)}
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
            listed = "no id" if claim.by_list is None else f"id {claim.by_list}"
            lines.append(
                f"  id {class_id} is {names[class_id]} (sheet Action: {listed}, AR_count: id {claim.by_counts}): "
                f"{evidence.describe(class_id, claim.name)}"
            )
    if lines:
        lines.insert(
            0, f"{len(lines)} of {len(claims)} classes have different ids in sheets and clips; those of clips:"
        )
    else:
        lines = [f"sheets and clips agree on the ids of all {len(claims)} classes"]
    class_names = {claim.name for claim in claims}
    unknown_names = {name: count for name, count in evidence.names.items() if name not in class_names}
    if unknown_names:
        num_clips = sum(unknown_names.values())
        lines.append(f"  described actions that are no class: {list_some(unknown_names)}, in {num_clips} clips")
    return lines


def build_annotations(names: Sequence[str], segments: Mapping[str, str], clips: Sequence[ClipRow]) -> Annotations:
    """Return the annotations with both partitions of the classes and without a model-selection split.

    `segments`: by normalized class name."""
    splits: dict[str, dict[str, tuple[int, ...]]] = {split: {} for split in SPLIT_OF_TYPE.values()}
    for clip in clips:
        splits[clip.split][clip.video] = clip.labels
    counts = Counter(label for labels in splits["train"].values() for label in labels)
    by_count = (
        "head" if counts[i] > HEAD_ABOVE else "middle" if counts[i] > MIDDLE_ABOVE else "tail"
        for i in range(len(names))
    )
    by_authors = tuple(segments[fold_name(name)] for name in names)
    return Annotations(tuple(names), splits, {"segment": by_authors, "segment_by_count": tuple(by_count)})


def parse_animal_classes(path: Path, sheet: SheetRows) -> dict[str, AnimalRow]:
    """Return the rows of the sheet `Animal` by normalized name of the animal. Raises UserError."""
    rows: dict[str, AnimalRow] = {}
    for line, values in sheet:
        row = AnimalRow(*map(cell_text, values))
        if not row.name or not row.parent:
            problem = f"sheet Animal, row {line} has no Animal or no Parent Class"
            raise UserError(problem, "complete it", path=path)
        if rows.setdefault(fold_name(row.name), row)[1:] != row[1:]:
            column = "Parent Classes" if rows[fold_name(row.name)].parent != row.parent else "Sub-Classes"
            problem = f"sheet Animal, row {line}: {row.name} has two {column}"
            raise UserError(problem, "keep one of its rows", path=path)
    return rows


def classify_animals(
    names_by_video: Mapping[str, Iterable[str]], rows: Mapping[str, AnimalRow]
) -> tuple[dict[str, VideoAnimals], list[str]]:
    """Return the animals of each video, each once, and lines with counts by class and with unknown names."""
    animals_by_video: dict[str, VideoAnimals] = {}
    clips: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    respelled: set[str] = set()
    for video, names in names_by_video.items():
        parents: dict[str, str] = {}
        for name in dict.fromkeys(names):
            row = rows.get(fold_name(name), AnimalRow(name, ""))
            if row.name != name:
                respelled.add(name)
            parents[row.name] = row.parent
        animals_by_video[video] = VideoAnimals(tuple(parents), tuple(dict.fromkeys(filter(None, parents.values()))))
        clips.update(animals_by_video[video].classes)
        unknown.update(animal for animal, parent in parents.items() if not parent)
    counts = ", ".join(f"{parent} in {n}" for parent, n in clips.most_common())
    lines = [f"animals in {len(animals_by_video)} clips: {counts}"]
    if respelled:
        lines.append(f"  {len(respelled)} animals are spelled differently in the sheets AR and Animal, and matched")
    if unknown:
        examples = list_some((f"{animal} (in {n} clips)" for animal, n in unknown.most_common()), limit=10)
        lines.append(f"  {len(unknown)} animals without a class, as the sheet Animal lacks them: {examples}")
    if empty := [video for video, animals in animals_by_video.items() if not animals.animals]:
        lines.append(f"  clips without an animal: {len(empty)} ({list_some(empty)})")
    return animals_by_video, lines


def read_sheets(path: Path, columns: Mapping[str, Sequence[str]]) -> dict[str, SheetRows]:
    """Return by sheet the rows below its header that are not empty in the columns. Raises UserError."""
    import openpyxl

    if not path.is_file():
        raise UserError("there is no such file", "name the workbook of the data set's authors", path=path)
    try:
        with open(path, "rb") as file:  # if openpyxl opens the file and fails, it stays open
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            return {sheet: _read_sheet(path, book, sheet, names) for sheet, names in columns.items()}
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"can't be read ({error.strerror or error})", "check its permissions", path=path) from None
    except Exception as error:  # a damaged file: any exception of zip, XML and openpyxl
        raise UserError(f"is not an Excel workbook ({type(error).__name__})", RELEASE_HINT, path=path) from None


def _read_sheet(path: Path, book: Any, sheet: str, columns: Sequence[str]) -> SheetRows:
    if sheet not in book.sheetnames:
        raise UserError(f"has no sheet {sheet}, but {', '.join(book.sheetnames)}", RELEASE_HINT, path=path)
    book[sheet].reset_dimensions()  # some programs write wrong ones
    rows = book[sheet].iter_rows(values_only=True)
    header = [str(value).strip() for value in next(rows, ())]
    if missing := [column for column in columns if column not in header]:
        raise UserError(f"its sheet {sheet} has no column {', '.join(missing)}", RELEASE_HINT, path=path)
    indices = [header.index(column) for column in columns]
    cells = ((line, tuple(row[i] if i < len(row) else None for i in indices)) for line, row in enumerate(rows, start=2))
    found = [(line, values) for line, values in cells if any(value is not None for value in values)]
    if not found:
        raise UserError(f"its sheet {sheet} is empty", RELEASE_HINT, path=path)
    return found


def parse_whole_number(value: Any) -> int | None:
    """Return the integer in a cell, which may be stored as text or float; None if there is none."""
    try:
        number = float(str(value).strip())
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def cell_text(value: Any) -> str:
    """Return the text of a cell on one line; empty for an empty cell and for control characters."""
    text = "" if value is None else " ".join(str(value).split())
    return "" if has_control_characters(text) else text
