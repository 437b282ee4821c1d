"""Videos, and clips that are cut out of videos, under the names that they have in a data set."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from vimoclip import UserError, annotations
from vimoclip.prepare.cutting import Span, cut
from vimoclip.prepare.placing import clean

SUFFIX = ".mp4"  # of clips that are cut


class Clip(NamedTuple):
    """What becomes a video of the data set. `start`, `end`: in seconds, None where the whole file is meant."""

    source: Path
    start: float | None
    end: float | None

    @property
    def name(self) -> str:
        """The video's own name; of a part with its span in ms behind it."""
        stem = clean(self.source.stem.strip())
        if self.start is None or self.end is None:
            return stem + self.source.suffix
        return f"{stem}_{round(1000 * self.start)}-{round(1000 * self.end)}ms{SUFFIX}"


def check_names(table: Path, names: Iterable[str]) -> None:
    """Raise UserError where names can't be those of videos, or would share one of a flow video."""
    stems: dict[str, str] = {}
    for name in names:
        try:
            annotations.check_video_id(name)
        except ValueError as error:
            raise UserError(f"{table}: {error}") from None
        if other := stems.get(annotations.stem(name)):
            raise UserError(f"{table}: {other} and {name} would share their flow's name; rename one of them")
        stems[annotations.stem(name)] = name


def cut_all(clips: Mapping[str, Clip], folder: Path, left_out: dict[str, str]) -> dict[str, float]:
    """Cut what is to be cut, a pass a video; seconds by video id. What fails goes into `left_out`."""
    spans: dict[Path, list[Span]] = defaultdict(list)
    for key, clip in clips.items():
        if clip.start is not None and clip.end is not None:
            spans[clip.source].append(Span(folder / key, clip.start, clip.end))
    seconds = {}
    for number, (source, of_source) in enumerate(spans.items(), start=1):
        print(f"cutting {len(of_source)} clips out of {source.name} ({number} of {len(spans)})", flush=True)
        for target, outcome in cut(source, of_source).items():
            if isinstance(outcome, str):
                left_out[target.name] = outcome
            else:
                seconds[target.name] = outcome
    return seconds
