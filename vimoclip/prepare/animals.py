"""The animals of each clip of Animal Kingdom and their classes, from the sheet `Animal`."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from vimoclip.annotations import VideoAnimals
from vimoclip.errors import UserError
from vimoclip.io.names import list_some
from vimoclip.prepare.class_ids import normalize_name
from vimoclip.prepare.excel import cell_text, read_sheet


def read_animal_classes(path: Path) -> dict[str, tuple[str, str]]:
    """Return (name, class) by normalized name of an animal, from the sheet `Animal`. Raises UserError."""
    classes: dict[str, tuple[str, str]] = {}
    for line, values in read_sheet(path, "Animal", ("Animal", "Parent Class")):
        animal, parent = map(cell_text, values)
        if not animal or not parent:
            raise UserError(f"sheet Animal, row {line} lacks the animal or its Parent Class", "complete it", path=path)
        if classes.setdefault(normalize_name(animal), (animal, parent))[1] != parent:
            raise UserError(f"sheet Animal, row {line}: {animal} is of two classes", "keep one of its rows", path=path)
    return classes


def classify_animals(
    names_by_video: Mapping[str, Iterable[str]], classes: Mapping[str, tuple[str, str]]
) -> tuple[dict[str, VideoAnimals], list[str]]:
    """Return the animals of each video, each once, and lines with counts by class and with unknown names."""
    animals_by_video: dict[str, VideoAnimals] = {}
    unknown: Counter[str] = Counter()
    respelled: set[str] = set()
    for video, names in names_by_video.items():
        parents: dict[str, str | None] = {}
        for name in dict.fromkeys(names):
            animal, parent = classes.get(normalize_name(name), (name, None))
            if parent and animal != name:
                respelled.add(name)
            parents[animal] = parent
        unknown.update(animal for animal, parent in parents.items() if parent is None)
        animals_by_video[video] = VideoAnimals(tuple(parents), tuple(dict.fromkeys(p for p in parents.values() if p)))
    return animals_by_video, _describe(animals_by_video, unknown, respelled)


def _describe(animals_by_video: Mapping[str, VideoAnimals], unknown: Counter[str], respelled: set[str]) -> list[str]:
    """Return lines with counts by class, and with unknown and respelled names."""
    clips = Counter(parent for animals in animals_by_video.values() for parent in animals.classes)
    counts = ", ".join(f"{parent} in {n}" for parent, n in clips.most_common())
    lines = [f"animals in {len(animals_by_video)} clips: {counts}"]
    if respelled:
        lines.append(f"  {len(respelled)} animals are spelled otherwise in AR than in the sheet Animal, and matched")
    if unknown:
        names = list_some((f"{animal} (in {n} clips)" for animal, n in unknown.most_common()), limit=10)
        lines.append(f"  {len(unknown)} animals are not in the sheet Animal, so of no class: {names}")
    if empty := [video for video, animals in animals_by_video.items() if not animals.animals]:
        lines.append(f"  clips without an animal: {len(empty)} ({list_some(empty)})")
    return lines
