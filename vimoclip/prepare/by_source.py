"""Splits of Animal Kingdom that keep the clips of one source together. The sources are inferred from names.

The last three letters of a clip's name seem to be its source: in the average group of clips that share them, 75 % of
the pairs share an animal (57 % of all such pairs, as large groups are more mixed), of random pairs 1 % (NOTES.md).
Of the 223 such groups among the published test clips, 222 are among the training clips too."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vimoclip.annotations import INFERRED_SOURCE, SOURCES_FILE, stem
from vimoclip.errors import UserError
from vimoclip.prepare import grouped_split

if TYPE_CHECKING:
    from vimoclip.prepare.animal_kingdom import ClipRow

LETTERS = 3
MAX_DRAWS = 10
NOTE = (
    f"{SOURCES_FILE}: the sources are inferred from the last {LETTERS} letters of the clips' names; they are not given "
    "by the data set's authors"
)


def infer_sources(videos: Iterable[str]) -> dict[str, str]:
    """Return the source of each video."""
    return {video: INFERRED_SOURCE + stem(video)[-LETTERS:] for video in videos}


def split_clips(
    path: Path, clips: "Sequence[ClipRow]", class_names: Sequence[str], sources: Mapping[str, str]
) -> "tuple[list[ClipRow], list[str]]":
    """Return the clips with new splits, train and val, of the published size and without a common source; and lines.

    Stratified by labels. Of several draws, the first one of exactly the published size is taken, or the nearest one.
    `path`: the workbook, for messages. Raises UserError if there is one source only, or no clip to report on."""
    size = sum(clip.split == "val" for clip in clips)
    if not size:
        raise UserError("its sheet AR has no clip of the type test, whose number by-source keeps", path=path)
    if len(set(sources.values())) < 2:
        raise UserError(
            "the names of all clips end alike, so they are of one source", "use another protocol", path=path
        )
    labels = {clip.video: clip.labels for clip in clips}
    drawn: Mapping[str, tuple[int, ...]] = {}
    for seed in range(grouped_split.DEFAULT_SEED, grouped_split.DEFAULT_SEED + MAX_DRAWS):
        fractions = {"val": size / len(clips)}
        val = grouped_split.split_videos(class_names, labels, fractions, seed, sources).splits["val"]
        if not drawn or abs(len(val) - size) < abs(len(drawn) - size):
            drawn, drawn_seed = val, seed
        if len(drawn) == size:
            break
    difference = len(drawn) - size
    exactly = f"{abs(difference)} {'more' if difference > 0 else 'fewer'} than" if difference else "as many as"
    missing, published_missing = (
        len(class_names) - len({label for clip in clips if clip.video in videos for label in clip.labels})
        for videos in (drawn, {clip.video for clip in clips if clip.split == "val"})
    )
    one_source = len(class_names) - _count_divisible(clips, sources)
    lines = [
        f"splits by source (seed {drawn_seed}): {len({sources[video] for video in drawn})} of "
        f"{len(set(sources.values()))} sources are in val, with {len(drawn)} clips, {exactly} in the published split",
        f"  classes without a clip in val: {missing}, in the published split {published_missing}; {one_source} classes "
        "have clips of fewer than two sources, which stay in train",
    ]
    return [clip._replace(split="val" if clip.video in drawn else "train") for clip in clips], lines


def _count_divisible(clips: "Sequence[ClipRow]", sources: Mapping[str, str]) -> int:
    """Return the number of classes with clips of several sources."""
    sources_of: dict[int, set[str]] = {}
    for clip in clips:
        for label in clip.labels:
            sources_of.setdefault(label, set()).add(sources[clip.video])
    return sum(len(found) > 1 for found in sources_of.values())
