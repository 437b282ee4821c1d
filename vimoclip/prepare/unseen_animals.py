"""Splits of Animal Kingdom by animals: six actions, trained on some sub-classes of animals and reported on others.

Actions and sub-classes are those of ActionDiff (Guimaraes et al., WACV 2026). Its public loader takes the rows of the
sheet AR, of both types, that have one label, and looks at the first animal and its action, in words."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vimoclip.annotations import Annotations
from vimoclip.errors import UserError
from vimoclip.io.names import fold_name, list_some

if TYPE_CHECKING:
    from vimoclip.prepare.animal_kingdom import AnimalRow, ClipRow

ACTIONS = ("Moving", "Eating", "Attending", "Swimming", "Sensing", "Keeping still")
SUB_CLASSES = {
    "train": ("Bird", "Fish", "Frog / Toad", "Snake / Cobra / Viper / Python"),
    "val": (
        "Lizard / Gecko / Draco / Iguana / Chamelon",
        "Primate / Monkey / Macaque / Baboon / Chimpanzee / Gorilla / Orangutan / Langur",
        "Spider / Tarantula",
        "Cricket / Grasshopper / Praying mantis / Leafhopper",
        "Water bird / Duck / Swan / Goose",
    ),
}
FOLDED_ACTIONS = frozenset(map(fold_name, ACTIONS))
SIDE_OF_SUB_CLASS = {fold_name(name): side for side, names in SUB_CLASSES.items() for name in names}
BOTH_SIDES = "animals of both splits"
# how the counts differ from those of ActionDiff's loader
QUOTED_TWICE = "list quoted twice"
OTHER_ANIMAL = "an animal of this split is not the first one"
OTHER_ACTION = "the label and the first action in words differ"


@dataclass(frozen=True)
class UnseenAnimals:
    """`clips`: those of both splits, in the order of the sheet; `spellings`: rows of the sheet Animal by other names of
    the sheet AR; `left_out`: video -> reason; `lines`: what was found."""

    data: Annotations
    clips: "list[ClipRow]"
    spellings: "Mapping[str, AnimalRow]"
    left_out: dict[str, str]
    lines: list[str]


def choose_clips(
    path: Path, clips: "Sequence[ClipRow]", class_names: Sequence[str], animals: "Mapping[str, AnimalRow]"
) -> UnseenAnimals:
    """Return the clips with one label among ACTIONS whose animals are of one split, and annotations of six classes.

    Animals of neither split do not matter. `path`: the workbook, for messages. `class_names`: by label id; `animals`:
    by normalized name. Raises UserError for a missing action, and if a split has no clip."""
    ids = {fold_name(name): i for i, name in enumerate(class_names)}
    if missing := [name for name in ACTIONS if fold_name(name) not in ids]:
        raise UserError(f"has no action {list_some(missing)}, which unseen-animals needs", path=path)
    classes = {ids[fold_name(name)]: number for number, name in enumerate(ACTIONS)}
    found = find_spellings((animal for clip in clips for animal, _ in clip.animal_actions), animals)
    animals = {**animals, **found}
    candidates = [clip for clip in clips if len(clip.labels) == 1 and clip.labels[0] in classes]
    sides = {clip.video: sides_of(clip, animals) for clip in candidates}
    left_out = {
        clip.video: f"{BOTH_SIDES} ({', '.join(_names(clip, animals))})"
        for clip in candidates
        if len(sides[clip.video]) > 1
    }
    chosen = [
        clip._replace(split=next(iter(sides[clip.video])), labels=(classes[clip.labels[0]],))
        for clip in candidates
        if len(sides[clip.video]) == 1
    ]
    splits = {side: {clip.video: clip.labels for clip in chosen if clip.split == side} for side in SUB_CLASSES}
    if empty := [side for side, videos in splits.items() if not videos]:
        names = list_some(SUB_CLASSES[empty[0]], 9)
        raise UserError(f"has no clip with one of the six actions and an animal of {names}", path=path)
    lines = [f"{len(candidates)} clips have one label, which is one of {', '.join(ACTIONS)}"]
    lines += _describe_names(clips, animals, found)
    lines += _describe_rows(clips, candidates, class_names)
    lines += _describe_sides(chosen, left_out, animals)
    lines += describe_differences(clips, {clip.video: clip.split for clip in chosen}, animals)
    names_by_class = tuple(class_names[i] for i in classes)
    return UnseenAnimals(Annotations(names_by_class, splits), chosen, found, left_out, lines)


def find_spellings(names: Iterable[str], animals: "Mapping[str, AnimalRow]") -> "dict[str, AnimalRow]":
    """Return the row of each name that the sheet Animal lacks, if one animal has that name and one word more.

    The word is "common" before it, or the animal's own Parent Class behind it: "Common Quail" is "Common Quail Bird",
    "Cuckoo Bird" is "Common Cuckoo Bird", while "Crane" is not the "Crane fly", an insect."""
    parents = {fold_name(row.parent) for row in animals.values()}
    found = {}
    for name in dict.fromkeys(map(fold_name, names)):
        keys = {f"common {name}": None, **{f"{name} {parent}": parent for parent in parents}}
        rows = [
            row for key, parent in keys.items() if (row := animals.get(key)) and parent in (None, fold_name(row.parent))
        ]
        if name and name not in animals and len(rows) == 1:
            found[name] = rows[0]
    return found


def sides_of(clip: "ClipRow", animals: "Mapping[str, AnimalRow]") -> set[str]:
    """Return the splits whose sub-classes the animals of a clip are of."""
    sides = {_side_of(animal, animals) for animal, _ in clip.animal_actions}
    return {side for side in sides if side}


def _side_of(animal: str, animals: "Mapping[str, AnimalRow]") -> str | None:
    return SIDE_OF_SUB_CLASS.get(_sub_class_of(animal, animals))


def _sub_class_of(animal: str, animals: "Mapping[str, AnimalRow]") -> str:
    """Return the normalized sub-class, empty for an animal without one."""
    row = animals.get(fold_name(animal))
    return fold_name(row.sub_class) if row else ""


def _names(clip: "ClipRow", animals: "Mapping[str, AnimalRow]") -> list[str]:
    """Return the animals of a clip, each once, as the sheet Animal spells them."""
    rows = {fold_name(name): animals.get(fold_name(name)) for name, _ in clip.animal_actions}
    return list(dict.fromkeys(row.name if row else key for key, row in rows.items()))


def _describe_names(
    clips: "Sequence[ClipRow]", animals: "Mapping[str, AnimalRow]", found: "Mapping[str, AnimalRow]"
) -> list[str]:
    """Return lines about names that the sheets spell differently, and animals without a sub-class."""
    counts = Counter(name for clip in clips for name in {fold_name(animal) for animal, _ in clip.animal_actions})
    spelled = {fold_name(animal): animal for clip in clips for animal, _ in clip.animal_actions}
    lines = [
        f"  {spelled[key]} of the sheet AR (in {counts[key]} clips) is matched with {row.name} of the sheet Animal"
        for key, row in found.items()
    ]
    without = [key for key in counts if key and not (key in animals and animals[key].sub_class)]
    if without:
        names = list_some((f"{spelled[key]} (in {counts[key]} clips)" for key in without), limit=10)
        lines.append(f"  {len(without)} animals have no sub-class in the sheet Animal, or are not in it: {names}")
    return lines


def _describe_rows(
    clips: "Sequence[ClipRow]", candidates: "Sequence[ClipRow]", class_names: Sequence[str]
) -> list[str]:
    """Return lines about rows that are quoted twice, and about labels that differ from the actions in words."""
    quoted = [clip for clip in clips if clip.is_quoted_twice]
    lines = [
        f"  rows whose list of animals and actions is quoted twice, which are read like the others: {len(quoted)}, "
        f"{sum(len(clip.labels) == 1 for clip in quoted)} of them with one label"
    ]
    words = {clip.video: {fold_name(action) for _, action in clip.animal_actions} for clip in candidates}
    other = [c.video for c in candidates if fold_name(class_names[c.labels[0]]) not in words[c.video]]
    several = [clip.video for clip in candidates if len(words[clip.video]) > 1]
    for videos, problem in ((other, "not by the action of their label"), (several, "by several actions")):
        lines.append(f"  {len(videos)} of these clips are described {problem}; the label counts" + _in_brackets(videos))
    return lines


def _in_brackets(names: Iterable[str]) -> str:
    text = list_some(names)
    return f" ({text})" if text else ""


def _describe_sides(
    chosen: "Sequence[ClipRow]", left_out: Mapping[str, str], animals: "Mapping[str, AnimalRow]"
) -> list[str]:
    """Return the clips of each sub-class, and lines about clips with animals of both splits, or also of neither."""
    lines = []
    for side, sub_classes in SUB_CLASSES.items():
        counts = Counter(
            sub_class
            for clip in chosen
            if clip.split == side
            for sub_class in {_sub_class_of(animal, animals) for animal, _ in clip.animal_actions}
        )
        lines += [f"  {side}: {name}: {counts[fold_name(name)]} clips" for name in sub_classes]
    others = {clip.video: [name for name in _names(clip, animals) if not _side_of(name, animals)] for clip in chosen}
    trained = {name for clip in chosen if clip.split == "train" for name in others[clip.video]}
    for side in SUB_CLASSES:
        videos = [clip.video for clip in chosen if clip.split == side and others[clip.video]]
        text = f"  {len(videos)} clips of {side} also show an animal of neither split, and stay"
        if side == "val":
            seen = Counter(name for video in videos for name in others[video] if name in trained)
            text += f"; {sum(any(n in seen for n in others[v]) for v in videos)} of them one that is in train too"
            text += _in_brackets(f"{name} in {n}" for name, n in seen.items())
        lines.append(text)
    lines.append(f"  {len(left_out)} clips show animals of both splits, and are left out")
    return lines


def describe_differences(
    clips: "Sequence[ClipRow]", split_by_video: Mapping[str, str], animals: "Mapping[str, AnimalRow]"
) -> list[str]:
    """Return how the counts of both splits follow from those of ActionDiff's rules, reason by reason."""
    quoted, rest = Counter[str](), Counter[str]()
    gained, lost = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for clip in clips:
        side, theirs = split_by_video.get(clip.video), action_diff_side(clip, animals)
        if theirs:
            (quoted if clip.is_quoted_twice else rest)[theirs] += 1
        if side and side != theirs:
            has_action = theirs is None and _is_action(clip.animal_actions[0][1])
            gained[side, OTHER_ANIMAL if has_action else OTHER_ACTION] += 1
        if theirs and side != theirs:
            reason = BOTH_SIDES if len(sides_of(clip, animals)) > 1 else OTHER_ACTION
            lost[theirs, reason] += 1
    lines = [
        "ActionDiff's rules (one label; the first animal and its action in words) give "
        + " and ".join(f"{rest[side]:,} clips of {side}" for side in SUB_CLASSES)
        + f" without the rows whose list is quoted twice, {rest['train'] + quoted['train']:,} and "
        f"{rest['val'] + quoted['val']:,} with them. Here:"
    ]
    for side in SUB_CLASSES:
        terms = [f"+ {quoted[side]} ({QUOTED_TWICE})"]
        terms += [f"+ {count} ({reason})" for (of, reason), count in sorted(gained.items()) if of == side]
        terms += [f"- {count} ({reason})" for (of, reason), count in sorted(lost.items()) if of == side]
        total = sum(split == side for split in split_by_video.values())
        lines.append(f"  {side}: {rest[side]} {' '.join(terms)} = {total}")
    return lines


def action_diff_side(clip: "ClipRow", animals: "Mapping[str, AnimalRow]") -> str | None:
    """Return the split of a clip by ActionDiff's rules, those of rows that are quoted once also for the others."""
    if len(clip.labels) != 1 or not clip.animal_actions or not _is_action(clip.animal_actions[0][1]):
        return None
    return _side_of(clip.animal_actions[0][0], animals)


def _is_action(word: str) -> bool:
    return fold_name(word) in FOLDED_ACTIONS
