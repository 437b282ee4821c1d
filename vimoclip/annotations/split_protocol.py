"""Protocols: on which clips an epoch is chosen, those of the training split or of val, and which are reported."""

from collections.abc import Sequence
from pathlib import Path

from vimoclip import annotations
from vimoclip.errors import UserError

HELD_OUT, PUBLISHED, THREE_SPLITS = "held_out", "published", "three_splits"
ZERO_SHOT = "zero_shot"  # of predictions that nothing was learnt for; not to be asked for
# the name under which the clips stand on which epochs are chosen: prefix of columns and TensorBoard tags
WATCHED = {HELD_OUT: "selection", PUBLISHED: "val", THREE_SPLITS: "val"}
CHOSEN_ON = {
    HELD_OUT: "selection clips of the training split",
    PUBLISHED: "the reported clips",
    THREE_SPLITS: "the val clips, as test is reported",
}
DRAW = "python prepare_dataset.py selection"


def settle(asked: str | None, notes: Path) -> str:
    """The protocol asked for; by default held_out where the annotations `notes` hold selection clips, three_splits
    where they hold a test split, else published.

    Raises UserError for a protocol whose clips aren't there, or for a name that is no protocol."""
    there = (notes / annotations.SELECTION).is_file()
    if asked not in (None, *WATCHED):
        raise UserError(f"protocol {asked}: there is no such protocol", f"it is {' or '.join(WATCHED)}")
    if asked == HELD_OUT and not there:
        missing = notes / annotations.SELECTION
        raise UserError(f"{missing}: there is no such file, and {HELD_OUT} chooses on its clips", f"{DRAW} draws them")
    if asked == THREE_SPLITS and not _has_test(notes):
        raise UserError(
            f"names no video, and {asked} reports its clips", "give another protocol", path=notes / "test_multi.txt"
        )
    if asked is None and reported_split(notes) == "test":
        print(f"{notes} has a test split, so the protocol is {THREE_SPLITS}: epochs are chosen on val", flush=True)
        return THREE_SPLITS
    if asked is None and not there:
        print(
            f"warning: {notes} has no {annotations.SELECTION}, so the protocol is {PUBLISHED}: the epoch is chosen on "
            f"the clips that are reported; {DRAW} draws selection clips",
            flush=True,
        )
    return asked or (HELD_OUT if there else PUBLISHED)


def reported_split(notes: Path) -> str:
    """The split whose clips are reported where no protocol is asked for."""
    return "test" if _has_test(notes) and not (notes / annotations.SELECTION).is_file() else "val"


def _has_test(notes: Path) -> bool:
    path = notes / "test_multi.txt"
    return path.is_file() and bool(path.read_text(encoding="utf-8-sig").strip())


def divide(keys: Sequence[str], notes: Path, where: Path) -> tuple[list[str], list[str]]:
    """(videos to train on, selection clips) of the training file `where`, in its order.

    Raises UserError where one of the two is empty."""
    drawn = set(annotations.read_selection(notes / annotations.SELECTION))
    learnt, chosen = [k for k in keys if k not in drawn], [k for k in keys if k in drawn]
    if not (learnt and chosen):
        what = "nothing but" if chosen else "none of the"
        raise UserError(
            f"{where}: holds {what} selection clips of {notes / annotations.SELECTION}",
            f"{DRAW} --overwrite draws others, and extract_embeddings.py makes the file whole",
        )
    return learnt, chosen


def check_names(keys: Sequence[str], notes: Path, where: Path) -> None:
    """Say which selection clips a training file `where` lacks, before it is divided.

    Raises UserError where one is there under another extension, or where a clip of the file or the selection is one of
    those that are reported: of these only the names are read."""
    path, known = notes / annotations.SELECTION, set(keys)
    drawn = set(annotations.read_selection(path))
    stems, missing = {annotations.stem(key) for key in keys}, sorted(drawn - known)
    if odd := [video for video in missing if annotations.stem(video) in stems]:
        raise UserError(f"{_some(odd)} stand in {where} under other extensions", "write the names as there", path=path)
    reported = notes / "val_multi.txt"
    names = annotations.read_split(reported, 2**31) if reported.is_file() else {}
    if odd := sorted((known | drawn) & names.keys()):
        raise UserError(
            f"{reported}: {_some(odd)} are to be trained on, or chosen on, too",
            f"a video belongs in one split: mend the annotations, and make {where} anew",
        )
    if missing:
        print(f"warning: {where}: {_some(missing)} of the {len(drawn)} selection clips are not in it", flush=True)


def _some(names: list[str]) -> str:
    return f"{len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
