"""Splits that are stratified by all labels, and have each source (recording, animal, site) on one side."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from vimoclip.annotations import SPLITS, Annotations
from vimoclip.prepare.selection import draw

NAMED = 5  # sources or videos that a line names


def split(
    classes: Sequence[str],
    labels: Mapping[str, tuple[int, ...]],
    shares: Mapping[str, float],
    seed: int,
    sources: Mapping[str, str] | None = None,
) -> Annotations:
    """Videos and their label ids into splits, of which `shares` says how large those are that don't train.

    `sources`: video -> where it comes from: all of one source is in one split, unless there is but one source; videos
    without are their own.
    The same arguments give the same splits, whatever the order of the videos."""
    rest, found, whole, sources = dict(sorted(labels.items())), {}, 1.0, sources or {}
    several = _several(rest, sources)
    for name, share in shares.items():
        may_draw = _several(rest, sources) or not several
        drawn = draw(Annotations(tuple(classes), {"train": rest}), share / whole, seed, sources) if may_draw else ()
        found[name] = {video: rest.pop(video) for video in drawn}
        whole -= share
    found["train"] = rest
    return Annotations(tuple(classes), {name: found[name] for name in SPLITS if name in found})


def _several(videos: Iterable[str], sources: Mapping[str, str]) -> bool:
    """Whether these are of several sources."""
    return len({(True, sources[v]) if v in sources else (False, v) for v in videos}) > 1


def leaks(splits: Mapping[str, Iterable[str]], sources: Mapping[str, str]) -> list[str]:
    """A line for each pair of splits that have videos of one source: how many sources, and the first of them."""
    seen = {name: Counter(sources[v] for v in videos if v in sources) for name, videos in splits.items()}
    names, lines = list(seen), []
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            shared = sorted(seen[one].keys() & seen[other].keys())
            if shared:
                clips = sum(seen[other][source] for source in shared)
                more = ", ..." if len(shared) > NAMED else ""
                lines.append(
                    f"warning: {len(shared)} sources are in {one} and in {other}, with {clips} clips of {other} "
                    f"({', '.join(shared[:NAMED])}{more}): a model may know these by their place or animal, and the "
                    "numbers are then too good; keep what comes from one recording, animal or site in one split"
                )
    return lines
