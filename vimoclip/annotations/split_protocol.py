"""Evaluation protocols: the model-selection split, on which the epoch is selected, and the evaluation split.

| protocol     | model-selection split                  | evaluation split |
|--------------|----------------------------------------|------------------|
| held_out     | selection.txt, a part of the training  | val              |
| published    | val (as in the paper)                  | val              |
| three_splits | val                                    | test             |
"""

from collections.abc import Sequence
from pathlib import Path

from vimoclip import annotations
from vimoclip.errors import UserError
from vimoclip.io.names import list_some
from vimoclip.io.text import read_text

HELD_OUT, PUBLISHED, THREE_SPLITS = "held_out", "published", "three_splits"
ZERO_SHOT = "zero_shot"  # of predictions without training; can't be requested
# prefix of the CSV columns and TensorBoard tags of the model-selection split
MONITOR_SPLIT = {HELD_OUT: "selection", PUBLISHED: "val", THREE_SPLITS: "val"}
MONITOR_DESCRIPTION = {
    HELD_OUT: "the model-selection split",
    PUBLISHED: "the evaluation split",
    THREE_SPLITS: "the val split",
}
# what a protocol means for the numbers, in reports and tables
PROTOCOL_NOTES = {
    HELD_OUT: "held_out: the epoch was selected on the model-selection split, which was not trained on, or is the last "
    "one (training.checkpoint=last); the val split was evaluated once, at the end.",
    PUBLISHED: "published: the epoch was selected on the evaluation split, as in the paper's code, so the numbers are "
    "too high.",
    THREE_SPLITS: "three_splits: the epoch was selected on the val split, or is the last (training.checkpoint=last); "
    "the test split was evaluated once, at the end.",
    ZERO_SHOT: "zero_shot: CLIP alone, by class names, without training.",
}
UNKNOWN_PROTOCOL_NOTE = "It is unknown on which clips the epoch and the settings of these predictions were selected."
DRAW_COMMAND = "python prepare_dataset.py selection"


def resolve(requested: str | None, annotations_dir: Path) -> str:
    """Return the requested protocol, or the default for these annotations.

    Raises UserError for an unknown protocol, or one whose splits do not exist."""
    selection_path = annotations_dir / annotations.SELECTION_FILE
    if requested not in (None, *MONITOR_SPLIT):
        raise UserError(f"there is no protocol {requested}", f"choose {' or '.join(MONITOR_SPLIT)}")
    if requested == HELD_OUT and not selection_path.is_file():
        problem = f"there is no such file, which {HELD_OUT} needs"
        raise UserError(problem, f"draw it with {DRAW_COMMAND}", path=selection_path)
    if requested == THREE_SPLITS and not _has_test_split(annotations_dir):
        problem = f"names no video, but {requested} evaluates the test split"
        raise UserError(problem, "choose another protocol", path=annotations_dir / "test_multi.txt")
    if requested:
        return requested
    protocol = _default_protocol(annotations_dir)
    if protocol == THREE_SPLITS:
        print(f"{annotations_dir} has a test split, so the epoch is selected on val ({protocol})", flush=True)
    if protocol == PUBLISHED:
        print(
            f"warning: {annotations_dir} has no {annotations.SELECTION_FILE}, so the protocol is {protocol}: the epoch "
            f"is selected on the evaluation split; draw a model-selection split with {DRAW_COMMAND}",
            flush=True,
        )
    return protocol


def evaluation_split(annotations_dir: Path) -> str:
    """Return the split that the default protocol evaluates: test or val."""
    return "test" if _default_protocol(annotations_dir) == THREE_SPLITS else "val"


def _default_protocol(annotations_dir: Path) -> str:
    if (annotations_dir / annotations.SELECTION_FILE).is_file():
        return HELD_OUT
    return THREE_SPLITS if _has_test_split(annotations_dir) else PUBLISHED


def _has_test_split(annotations_dir: Path) -> bool:
    path = annotations_dir / "test_multi.txt"
    return path.is_file() and bool(read_text(path).strip())


def split_train_selection(
    keys: Sequence[str], annotations_dir: Path, training_file: Path
) -> tuple[list[str], list[str]]:
    """Split the keys of a training file into (videos to train on, model-selection split), in the file's order.

    Raises UserError if one of the two is empty."""
    selection_path = annotations_dir / annotations.SELECTION_FILE
    selection = set(annotations.read_selection(selection_path))
    train_keys = [key for key in keys if key not in selection]
    selection_keys = [key for key in keys if key in selection]
    if not (train_keys and selection_keys):
        amount = "only" if selection_keys else "none of the"
        hint = f"draw others with {DRAW_COMMAND} --overwrite, or complete the file with extract_embeddings.py"
        raise UserError(f"has {amount} videos of {selection_path}", hint, path=training_file)
    return train_keys, selection_keys


def check_selection_keys(keys: Sequence[str], annotations_dir: Path, training_file: Path) -> None:
    """Check the keys of a training file against the model-selection and the val split; call before splitting them.

    Prints a warning for videos of the model-selection split that the file lacks. Raises UserError if the file has one
    with another extension, or if a video of either is in val."""
    selection_path, key_set = annotations_dir / annotations.SELECTION_FILE, set(keys)
    selection = set(annotations.read_selection(selection_path))
    stems, missing = {annotations.stem(key) for key in keys}, sorted(selection - key_set)
    if renamed := [video for video in missing if annotations.stem(video) in stems]:
        problem = f"{len(renamed)} videos ({list_some(renamed)}) have other extensions in {training_file}"
        raise UserError(problem, "use the names of that file", path=selection_path)
    val_path = annotations_dir / "val_multi.txt"
    val_videos = annotations.read_split(val_path, 2**31) if val_path.is_file() else {}
    if shared := sorted((key_set | selection) & val_videos.keys()):
        problem = f"{len(shared)} videos ({list_some(shared)}) are also in the training split or in selection.txt"
        hint = f"name each video in one split only, and create {training_file} again"
        raise UserError(problem, hint, path=val_path)
    if missing:
        count = f"{len(missing)} of the {len(selection)} videos of the model-selection split"
        print(f"warning: {training_file} lacks {count} ({list_some(missing)})", flush=True)
