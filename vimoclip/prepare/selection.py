"""Selection clips: the part of the training clips on which epochs and thresholds are chosen, drawn once."""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vimoclip import annotations
from vimoclip.annotations import SELECTION, Annotations
from vimoclip.errors import UserError
from vimoclip.io import atomic
from vimoclip.prepare.grouped_split import drawn_groups

SHARE, SEED = 0.1, 49
NAMED = 5  # classes that a line names


def draw(
    data: Annotations, share: float = SHARE, seed: int = SEED, sources: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Training videos, in the training file's order, such that each class has about `share` of its clips among them.

    By iterative stratification (Sechidis et al. 2011). A class keeps a clip to train on, where any choice leaves it
    one, and at least one video is drawn of two; of fewer none is. `sources`: video -> where it comes from; of a source
    all videos are drawn, or none, unless there is but one."""
    videos = list(data.splits.get("train", {}))
    if len(videos) < 2:
        return ()
    labels = np.zeros((len(videos), len(data.classes)), bool)
    for row, video in zip(labels, videos, strict=True):
        row[list(data.splits["train"][video])] = True
    groups = _groups(videos, sources or {})
    if 1 < len(groups) < len(videos):
        return _draw_groups(videos, labels, groups, share, seed)
    size = min(max(1, round(share * len(videos))), len(videos) - 1)
    drawn = _leave_some_of_each(labels, _stratified(labels, size, seed))
    drawn = _fill_up(labels, drawn, size, random.Random(seed))
    return tuple(video for video, one in zip(videos, drawn, strict=True) if one)


def _groups(videos: Sequence[str], sources: Mapping[str, str]) -> list[list[int]]:
    """Places of the videos of each source; a video of unknown source is one by itself."""
    found: dict[tuple[bool, str], list[int]] = defaultdict(list)
    for place, video in enumerate(videos):
        found[(True, sources[video]) if video in sources else (False, video)].append(place)
    return list(found.values())


def _draw_groups(
    videos: Sequence[str], labels: np.ndarray, groups: Sequence[Sequence[int]], share: float, seed: int
) -> tuple[str, ...]:
    counts = np.stack([labels[list(members)].sum(0) for members in groups])
    sizes = np.array([len(members) for members in groups])
    drawn = drawn_groups(counts, sizes, share, seed)
    chosen = {place for members, one in zip(groups, drawn, strict=True) if one for place in members}
    return tuple(video for place, video in enumerate(videos) if place in chosen)


def _stratified(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """(N,) bool: which clips are drawn, some `size`, before any is given back."""
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

    # a column of zeros more: with a single one the library would not see that this is multi-label
    targets = np.pad(labels, ((0, 0), (0, 1)))
    splitter = MultilabelStratifiedShuffleSplit(1, test_size=size, train_size=len(labels) - size, random_state=seed)
    _, places = next(splitter.split(targets, targets))
    drawn = np.zeros(len(labels), bool)
    drawn[places] = True
    return drawn


def _leave_some_of_each(labels: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The same, but for clips given back to classes that have no other to train on."""
    drawn = drawn.copy()
    left = labels[~drawn].sum(axis=0)
    for place in np.flatnonzero(drawn):
        if (left[labels[place]] == 0).any():
            drawn[place] = False
            left += labels[place]
    return drawn


def _fill_up(labels: np.ndarray, drawn: np.ndarray, size: int, generator: random.Random) -> np.ndarray:
    """The same, and more at random, of classes that can spare one, towards `size`; one at least.

    The library draws none of a class of four where a tenth is asked for, however many such classes there are."""
    drawn, total = drawn.copy(), labels.sum(axis=0)
    most = np.minimum(np.ceil(size / len(labels) * total), total - 1)  # of each class
    taken = labels[drawn].sum(axis=0)
    order = np.array(generator.sample(range(len(labels)), len(labels)))
    missing = size - drawn.sum()
    for place in order[~drawn[order]]:
        if missing <= 0:
            break
        if (taken < most)[labels[place]].all():
            drawn[place] = True
            taken += labels[place]
            missing -= 1
    if not drawn.any():
        alone = (labels & (total == 1)).sum(axis=1)  # classes that lose their only clip
        drawn[order[alone[order].argmin()]] = True
    return drawn


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
