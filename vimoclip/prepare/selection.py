"""Selection clips: the part of the training clips on which epochs and thresholds are chosen, drawn once."""

from dataclasses import replace
from pathlib import Path

from vimoclip import annotations
from vimoclip.annotations import SELECTION, Annotations
from vimoclip.errors import UserError
from vimoclip.io import atomic
from vimoclip.prepare.grouped_split import draw

NAMED = 5  # classes that a line names


def describe(data: Annotations) -> list[str]:
    """How many clips are drawn, and which classes have none among them, or none left to train on."""
    train = data.splits.get("train", {})
    if not data.selection and data.splits.get("test"):
        return ["epochs and thresholds are chosen on val, as there is a test split"]
    if not data.selection:
        return [f"no {SELECTION}: prepare_dataset.py selection draws it, of two training clips or more"]
    chosen = {label for video in data.selection for label in train[video]}
    learnt = {label for video in train.keys() - set(data.selection) for label in train[video]}
    count = f"{len(data.selection)} of {len(train)} training clips"
    lines = [f"{SELECTION}: {count} are kept out of training, to choose epochs and thresholds on"]
    for what, lacking in (("among them", learnt - chosen), ("left to train on", chosen - learnt)):
        if lacking:
            names = ", ".join(data.classes[label] for label in sorted(lacking)[:NAMED])
            more = ", ..." if len(lacking) > NAMED else ""
            lines.append(f"  {len(lacking)} classes have no clip {what}: {names}{more}")
    return lines


def prepare(notes: Path, name: str, share: float, seed: int, overwrite: bool) -> Path:
    """Draw `selection.txt` for annotations that are there. Raises UserError where another one is there already."""
    data = annotations.load(notes, name, ["train"], with_selection=False)
    path = notes / SELECTION
    data = replace(data, selection=draw(data, share, seed, annotations.read_sources(notes)))
    if not data.selection:
        raise UserError("names fewer than two videos", "there is nothing to draw from", path=notes / "train_multi.txt")
    text = annotations.selection_text(data.selection)
    if not overwrite and path.exists() and path.read_bytes() != text.encode():
        raise UserError(
            "is there already, with other clips",
            "keep it, or draw anew with --overwrite, and then train anew",
            path=path,
        )
    atomic.write_text(path, text)
    print("\n".join(describe(data)), flush=True)
    return path
