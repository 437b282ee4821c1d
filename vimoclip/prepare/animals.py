"""The animals of each clip, and of which class each animal is."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from vimoclip.annotations import Animals
from vimoclip.errors import UserError
from vimoclip.prepare.class_ids import fold
from vimoclip.prepare.excel import read_sheet, text

NAMED = 10  # animals that a line names


def read_classes(path: Path) -> dict[str, tuple[str, str]]:
    """Folded name of an animal -> (its name, its class), by the sheet `Animal`. Raises UserError."""
    found: dict[str, tuple[str, str]] = {}
    for line, values in read_sheet(path, "Animal", ("Animal", "Parent Class")):
        animal, parent = map(text, values)
        if not animal or not parent:
            raise UserError(f"sheet Animal, row {line} lacks the animal or its Parent Class", "complete it", path=path)
        if found.setdefault(fold(animal), (animal, parent))[1] != parent:
            raise UserError(f"sheet Animal, row {line}: {animal} is of two classes", "keep one of its rows", path=path)
    return found


def classify(
    seen: Mapping[str, Iterable[str]], classes: Mapping[str, tuple[str, str]]
) -> tuple[dict[str, Animals], list[str]]:
    """Video -> its animals, each once, and lines that say how many clips there are of each class, and what is odd."""
    found: dict[str, Animals] = {}
    unknown: Counter[str] = Counter()
    spelled: set[str] = set()
    for video, said in seen.items():
        animals: dict[str, str | None] = {}
        for name in dict.fromkeys(said):
            animal, parent = classes.get(fold(name), (name, None))
            if parent and animal != name:
                spelled.add(name)
            animals[animal] = parent
        unknown.update(animal for animal, parent in animals.items() if parent is None)
        found[video] = Animals(tuple(animals), tuple(dict.fromkeys(p for p in animals.values() if p)))
    return found, _describe(found, unknown, spelled)


def _describe(found: Mapping[str, Animals], unknown: Counter[str], spelled: set[str]) -> list[str]:
    clips = Counter(parent for one in found.values() for parent in one.classes)
    lines = [f"animals in {len(found)} clips: " + ", ".join(f"{parent} in {n}" for parent, n in clips.most_common())]
    if spelled:
        lines.append(f"  {len(spelled)} animals are spelled otherwise in AR than in the sheet Animal, and matched")
    if unknown:
        named = ", ".join(f"{animal} (in {n} clips)" for animal, n in unknown.most_common(NAMED))
        more = ", ..." if len(unknown) > NAMED else ""
        lines.append(f"  {len(unknown)} animals are not in the sheet Animal, so of no class: {named}{more}")
    if none := [video for video, one in found.items() if not one.animals]:
        lines.append(
            f"  clips without an animal: {len(none)} ({', '.join(none[:3])}{', ...' if len(none) > 3 else ''})"
        )
    return lines
