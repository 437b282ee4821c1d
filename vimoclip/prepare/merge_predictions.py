"""Merge clips of reviewed predictions into a data set that exists: its other clips, its splits and class ids stay.

Clips of a film that was imported from predictions before are replaced where they are. Clips of a new film are for
training. A film with clips of another origin in val or test is refused, so that evaluations stay comparable."""

import filecmp
import math
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from vimoclip import annotations, video
from vimoclip.annotations import SPLITS, Annotations, ObservedClip
from vimoclip.boris.events import behavior_code
from vimoclip.errors import UserError, VideoError
from vimoclip.io.names import fold_name, list_some, normalize_name
from vimoclip.io.numbers import TIME_TOLERANCE
from vimoclip.prepare.find_media import Film
from vimoclip.prepare.place_videos import SourceClip, clean_name
from vimoclip.video.trimmed_clip import film_in_comment, parse_trimmed_name

Span = tuple[float, float]  # start and stop in a film, in seconds
WHOLE_FILM: Span = (0.0, math.inf)
FilmKey = tuple[str, int]  # file name and size in bytes, which identify a film


class Place(NamedTuple):
    """Where a clip is: its split, whether it is in the model-selection split, and its source if known."""

    split: str
    is_selected: bool = False
    source: str = ""

    @property
    def part(self) -> tuple[str, bool]:
        """The part of the data set, of which only one may have clips of the same moment."""
        return self[:2]


NEW_FILM = Place("train")


def film_key(film: Path) -> FilmKey:
    """Return what identifies a film between imports. Raises OSError."""
    return normalize_name(film.name).strip(), film.stat().st_size


def one_line(observation: str) -> str:
    """Return the id of an observation as `observations.csv` has it."""
    return " ".join(observation.split())


class ExistingDataset:
    """Annotations and videos of a data set that reviewed predictions are merged into. Raises UserError."""

    def __init__(self, dataset_dir: Path, name: str):
        folder = dataset_dir / "annotations"
        self.data = annotations.load(folder, name)
        self.sources, self.animals = annotations.read_sources(folder), annotations.read_animals(folder)
        selection = set(self.data.selection)
        self.places = {
            clip: Place(split, clip in selection, self.sources.get(clip, ""))
            for split, clips in self.data.splits.items()
            for clip in clips
        }
        self.observed = {clip: of for clip, of in annotations.read_observations(folder).items() if clip in self.places}
        self._videos_dir, self._origins = dataset_dir / "videos", dict[str, FilmKey | None]()

    @property
    def observations(self) -> set[str]:
        """The ids of the observations that were imported."""
        return {name for clip in self.observed.values() for name in clip.observation.split(";")}

    def follow_renamed(self, films: Mapping[Path, Iterable[str]]) -> None:
        """Give clips the new name of their film: one of the same size, in an observation of the same id.

        `films`: to the ids of their observations. Raises OSError."""
        keys = {film: film_key(film) for film in films}
        present, imported = set(keys.values()), set(map(_observed_film, self.observed.values()))
        for film, (name, num_bytes) in keys.items():
            ids = set(map(one_line, films[film]))
            for clip, origin in self.observed.items() if keys[film] not in imported else ():
                is_same_size = origin.num_bytes == num_bytes and _observed_film(origin) not in present
                if is_same_size and ids & set(origin.observation.split(";")):
                    self.observed[clip] = origin._replace(film=name)

    def with_free_name(self, film: Film) -> Film:
        """Return the film, named with its folder if the data set has clips of another film of its name.

        Raises UserError if it has clips of that name as well."""
        key, names = film_key(film.file), (film.name, f"{film.file.absolute().parent.name}__{film.name}")
        for name in names:
            same_name = [clip for clip in self._by_stem[_last_part(name)] if _film_stem(clip) == clean_name(name)]
            if all(self._origin(clip) in (None, key) for clip in same_name):
                return film._replace(name=name)
        problem = f"the data set has clips of other films that are named {' and '.join(names)}"
        raise UserError(problem, "rename the file, and its path in BORIS", path=film.file)

    def refusal(self, film: Film, source: str) -> str:
        """Return why a film may not be imported: clips of it are evaluated, or of its source if it is new; else ""."""
        key = film_key(film.file)
        evaluated = [
            clip
            for clip in self._clips_of(film) or self._by_source[source]
            if self.places[clip].split != "train" and _observed_film(self.observed.get(clip)) != key
        ]
        if not evaluated:
            return ""
        splits = " and ".join(sorted({self.places[clip].split for clip in evaluated}))
        return (
            f"clips of it or of its source are in {splits} ({list_some(evaluated, 2)}) and stay as they are, so that "
            "evaluations stay comparable"
        )

    def film_places(self, film: Film, source: str) -> "FilmPlaces":
        """Return where new clips of a film belong."""
        if own := self._clips_of(film):
            return FilmPlaces({clip: self.places[clip] for clip in own})
        related = Counter(self.places[clip] for clip in self._by_source[source])
        return FilmPlaces({}, max(related, key=related.__getitem__, default=NEW_FILM))

    def _clips_of(self, film: Film) -> list[str]:
        """Return the clips of a film, whole or cut, in the order of the annotations."""
        key = film_key(film.file)
        found = set(self._by_observed_film[key])
        names = {clean_name(film.name), clean_name(film.file.stem)}
        for clip in (clip for name in names for clip in self._by_stem[_last_part(name)]):
            origin = self._origin(clip)
            if origin == key or (origin is None and _film_stem(clip) in names):
                found.add(clip)
        found |= {clip for clip in self._by_source[film.source] if self._origin(clip) in (None, key)}
        found |= {clip for clip in self._by_size[key[1]] if filecmp.cmp(film.file, self._files[clip])}
        return sorted(found, key=self._positions.__getitem__)

    def _origin(self, clip: str) -> FilmKey | None:
        """Return the film that a clip was cut from; None if it is unknown, or the clip is a whole file."""
        if clip in self.observed:
            return _observed_film(self.observed[clip])
        if clip not in self._origins:
            self._origins[clip] = None
            with suppress(VideoError, OSError):
                self._origins[clip] = film_in_comment(video.probe(self._files[clip]).comment)
        return self._origins[clip]

    @cached_property
    def _files(self) -> dict[str, Path]:
        """The file of each clip; that of a clip without one does not exist."""
        folder = video.VideoFolder(self._videos_dir) if self._videos_dir.is_dir() else None
        files = dict[str, Path]()
        for clip in self.places:
            files[clip] = self._videos_dir / clip
            with suppress(VideoError):
                files[clip] = folder.locate(clip) if folder else files[clip]
        return files

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {clip: position for position, clip in enumerate(self.places)}

    @cached_property
    def _by_observed_film(self) -> Mapping[FilmKey, list[str]]:
        clips: dict[FilmKey, list[str]] = defaultdict(list)
        for clip, origin in self.observed.items():
            clips[origin.film, origin.num_bytes].append(clip)
        return clips

    @cached_property
    def _by_size(self) -> Mapping[int, list[str]]:
        clips: dict[int, list[str]] = defaultdict(list)
        for clip, file in self._files.items():
            with suppress(OSError):
                clips[file.stat().st_size].append(clip)
        return clips

    @cached_property
    def _by_stem(self) -> Mapping[str, list[str]]:
        """The clips that were cut from a film, by the last part of its name."""
        clips: dict[str, list[str]] = defaultdict(list)
        for clip in self.places:
            if stem := _film_stem(clip):
                clips[_last_part(stem)].append(clip)
        return clips

    @cached_property
    def _by_source(self) -> Mapping[str, list[str]]:
        clips: dict[str, list[str]] = defaultdict(list)
        for clip, place in self.places.items():
            clips[place.source].append(clip)
        clips.pop("", None)
        return clips

    def merge(
        self,
        films: Iterable[Path],
        labels: Mapping[str, set[str]],
        places: Mapping[str, Place],
        observed: Mapping[str, ObservedClip],
        behaviors: Sequence[str],
    ) -> "MergedDataset":
        """Return the data set after the import of `films`, whose earlier clips of predictions are replaced.

        `labels`, `places`, `observed`: by new clip. `behaviors`: those of the labels; new ones are appended as
        classes in this order."""
        keys = set(map(film_key, films))
        replaced = {clip for clip, origin in self.observed.items() if _observed_film(origin) in keys}
        removed = replaced - labels.keys()
        classes, ids = self._extend_classes(behaviors)
        new_labels = {clip: tuple(sorted({ids[name] for name in names})) for clip, names in labels.items()}
        splits = {
            split: {clip: new_labels.get(clip, old) for clip, old in clips.items() if clip not in removed}
            for split, clips in {"train": {}, **self.data.splits}.items()
        }
        for clip, label_ids in new_labels.items():
            splits[places[clip].split][clip] = label_ids
        selected = [clip for clip in new_labels if places[clip].is_selected]
        selection = tuple(dict.fromkeys([*(clip for clip in self.data.selection if clip not in removed), *selected]))
        num_added = len(classes) - len(self.data.classes)
        partitions = {key: (*segments, *["tail"] * num_added) for key, segments in self.data.partitions.items()}
        data = Annotations(
            classes, {split: splits[split] for split in SPLITS if split in splits}, partitions, selection
        )
        corrected = self.places.keys() & labels.keys() - replaced
        sources = {clip: source for clip, source in self.sources.items() if clip not in removed}
        origins = {clip: origin for clip, origin in self.observed.items() if clip not in removed}
        for clip in labels:
            if clip not in corrected:
                sources[clip], origins[clip] = places[clip].source, observed[clip]
        animals = {clip: animals for clip, animals in self.animals.items() if clip not in removed}
        return MergedDataset(data, sources, animals, origins, corrected)

    def _extend_classes(self, behaviors: Iterable[str]) -> tuple[tuple[str, ...], dict[str, int]]:
        """Return the classes with the behaviours that are new, and the class id of each behaviour."""
        classes, ids, id_of = list(self.data.classes), dict[str, int](), dict[str, int]()
        for spell in (str, behavior_code, fold_name, _fold_code):  # the first spelling that is equal counts
            for label, name in enumerate(classes):
                id_of.setdefault(spell(name), label)
        for behavior in behaviors:
            if behavior not in id_of and fold_name(behavior) not in id_of:
                id_of[fold_name(behavior)] = len(classes)
                classes.append(normalize_name(behavior))
            ids[behavior] = id_of[behavior if behavior in id_of else fold_name(behavior)]
        return tuple(classes), ids

    def describe_changes(self, data: Annotations, observed: Mapping[str, ObservedClip]) -> list[str]:
        """Return lines for the summary: what differs in the written annotations, `data`."""
        before, after = self.data, data
        old, new = ({clip: ls for clips in d.splits.values() for clip, ls in clips.items()} for d in (before, after))
        added = Counter(split for split, clips in after.splits.items() for clip in clips if clip not in old)
        removed = Counter(place.split for clip, place in self.places.items() if clip not in new)
        relabelled = [clip for clip in old.keys() & new.keys() if set(old[clip]) != set(new[clip])]
        others = sum(clip not in observed for clip in relabelled)
        lines = [
            f"merged with the existing data set: {_count_by_split(added)} added, {_count_by_split(removed)} of earlier "
            f"imports of these films removed, {len(relabelled)} clips have other labels ({others} of them were not "
            "imported from predictions)"
        ]
        if not (added or removed or relabelled):
            lines = ["the data set has all clips of this import, with these labels: nothing is changed"]
        if classes := after.classes[len(before.classes) :]:
            lines.append(
                f"new classes: {', '.join(classes)}; RGB embeddings of fewer classes can't be continued: create them "
                "again with extract_embeddings.py --overwrite, and train again"
            )
        return lines


@dataclass(frozen=True)
class MergedDataset:
    """A data set after an import. `corrected`: clips of another origin that get the labels of the import."""

    data: Annotations
    sources: dict[str, str]
    animals: dict[str, annotations.VideoAnimals]
    observed: dict[str, ObservedClip]
    corrected: set[str]


class FilmPlaces:
    """Where new clips of a film belong: where its existing clips of the same time are.

    `places`: by existing clip of the film. `default`: the place of a film without any."""

    def __init__(self, places: Mapping[str, Place], default: Place = NEW_FILM):
        self.places, self.default = places, default
        parsed = {clip: parse_trimmed_name(clip) for clip in places}
        spans = {clip: name.span if name else WHOLE_FILM for clip, name in parsed.items()}
        self._by_start = sorted(((spans[clip], places[clip]) for clip in places), key=lambda item: item[0])
        self._by_stop = sorted(self._by_start, key=lambda item: item[0][1])
        self._starts = [span[0] for span, _ in self._by_start]
        self._stops = [span[1] for span, _ in self._by_stop]
        self._longest = max((span[1] - span[0] for span in spans.values()), default=0.0)

    @property
    def are_divided(self) -> bool:
        """Whether the film has clips in several parts of the data set."""
        return len({place.part for place in self.places.values()}) > 1

    def find(self, clip: SourceClip) -> Place | None:
        """Return the place of a new clip; None if it covers a part of the film between clips in different places."""
        if clip.name in self.places:
            return self.places[clip.name]
        if len(set(self.places.values())) < 2:
            return next(iter(self.places.values()), self.default)
        near = self._find_near((clip.start or 0.0, math.inf if clip.end is None else clip.end))
        if len({place.part for _, place in near}) > 1:
            return None
        return max(near, key=lambda item: item[0])[1]

    def _find_near(self, span: Span) -> list[tuple[float, Place]]:
        """Return (seconds in common, place) of the existing clips that overlap a span, and of those around it."""
        first = bisect_left(self._starts, span[0] - self._longest)
        last = bisect_right(self._starts, span[0])
        before = self._by_start[max(0, last - 1) : last]
        after = self._by_stop[bisect_left(self._stops, span[1]) :][:1]
        clips = self._by_start[first : bisect_left(self._starts, span[1])]
        overlaps = [(min(span[1], stop) - max(span[0], start), place) for (start, stop), place in clips]
        overlaps = [item for item in overlaps if item[0] > TIME_TOLERANCE]
        return overlaps + [(0.0, place) for _, place in [*before, *after]]


def _fold_code(class_name: str) -> str:
    return fold_name(behavior_code(class_name))


def _observed_film(clip: ObservedClip | None) -> FilmKey | None:
    return (clip.film, clip.num_bytes) if clip else None


def _film_stem(clip: str) -> str:
    """Return the name of the film that a clip was cut from, as its own name says; empty if it says nothing."""
    parsed = parse_trimmed_name(clip)
    return parsed.film_stem if parsed else ""


def _last_part(stem: str) -> str:
    """Return a film's name without the folders before it."""
    return clean_name(stem).rpartition("__")[2]


def _count_by_split(counts: Mapping[str, int]) -> str:
    text = ", ".join(f"{count} in {split}" for split, count in counts.items())
    return f"{sum(counts.values())} clips" + (f" ({text})" if text else "")
