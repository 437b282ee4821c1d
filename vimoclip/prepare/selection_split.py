"""Selection clips: the training clips on which epochs and thresholds are chosen, drawn once."""

from dataclasses import replace
from pathlib import Path

from vimoclip import annotations, cli
from vimoclip.annotations import SELECTION_FILE, Annotations
from vimoclip.errors import UserError
from vimoclip.io import atomic
from vimoclip.io.names import list_some
from vimoclip.prepare.grouped_split import draw_stratified


def describe_selection(data: Annotations) -> list[str]:
    """Return lines: the number of selection clips, and the classes without one or without a clip to train on."""
    train = data.splits.get("train", {})
    if not data.selection and data.splits.get("test"):
        return ["epochs and thresholds are chosen on val, as there is a test split"]
    if not data.selection:
        return [f"no {SELECTION_FILE}: prepare_dataset.py selection draws it, of two training clips or more"]
    selection_labels = {label for video in data.selection for label in train[video]}
    train_labels = {label for video in train.keys() - set(data.selection) for label in train[video]}
    count = f"{len(data.selection)} of {len(train)} training clips"
    lines = [f"{SELECTION_FILE}: {count} are kept out of training, to choose epochs and thresholds on"]
    for purpose, missing in (
        ("among them", train_labels - selection_labels),
        ("left to train on", selection_labels - train_labels),
    ):
        if missing:
            names = list_some(data.classes[label] for label in sorted(missing))
            lines.append(f"  {len(missing)} classes have no clip {purpose}: {names}")
    return lines


def prepare(annotations_dir: Path, name: str, fraction: float, seed: int, overwrite: bool) -> cli.RunReport:
    """Draw `selection.txt` for existing annotations and return the report of the run.

    Raises UserError if another selection exists and `overwrite` is not set."""
    data = annotations.load(annotations_dir, name, ["train"], with_selection=False)
    path = annotations_dir / SELECTION_FILE
    data = replace(data, selection=draw_stratified(data, fraction, seed, annotations.read_sources(annotations_dir)))
    if not data.selection:
        hint = "there is nothing to draw from"
        raise UserError("names fewer than two videos", hint, path=annotations_dir / "train_multi.txt")
    text = annotations.format_selection(data.selection)
    if not overwrite and path.exists() and path.read_bytes() != text.encode():
        raise UserError(
            "is there already, with other clips",
            "keep it, or draw again with --overwrite, and then train again",
            path=path,
        )
    atomic.write_text(path, text)
    print("\n".join(describe_selection(data)), flush=True)
    return cli.RunReport([path], done=len(data.selection))
