"""Importer of BORIS events: sliding windows over each media file, labelled with the behaviours in them."""

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path

from vimoclip import annotations, boris, cli, video
from vimoclip.annotations import ObservedClip
from vimoclip.boris import EventCollection, Recording
from vimoclip.boris.events import REVIEW_HINT
from vimoclip.errors import UserError, VideoError
from vimoclip.io.names import fold_name
from vimoclip.io.numbers import TIME_TOLERANCE
from vimoclip.prepare import grouped_split
from vimoclip.prepare.coded_film import CodedFilm, WindowLabeler
from vimoclip.prepare.film_lengths import FilmMeasurer, print_warnings
from vimoclip.prepare.find_media import Film, locate_films
from vimoclip.prepare.merge_predictions import ExistingDataset, FilmPlaces, Place, one_line
from vimoclip.prepare.place_videos import SourceClip, add_clip, dataset_folders
from vimoclip.prepare.write_dataset import PreparedDataset, has_annotations, write_dataset

NUM_BLOCKS = 10  # a data set of only one recording is divided into blocks of time, which are split


def prepare(
    events_path: Path,
    videos_dir: Path | None,
    dataset_dir: Path,
    name: str,
    labeler: WindowLabeler,
    rule: grouped_split.SplitRule,
    seed: int,
    subjects: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    group_by: str = "media",
    merge_case: bool = False,
    include_unreviewed: bool = False,
    geometry: video.Geometry = video.AS_DISPLAYED,
) -> cli.RunReport:
    """Write the data set and return the report of the run. Raises UserError.

    `events_path`: a project or aggregated events. `rule`: of the splits. `group_by`: media or observation.
    `merge_case`, `include_unreviewed`: see `read_events`. `geometry`: of the frames in clips."""
    events = boris.read_events(events_path, merge_case, include_unreviewed)
    skipped = dict(events.skipped)
    filter_events(events_path, events, subjects, exclude)
    recordings = _recordings_by_film(events_path, videos_dir, dataset_dir, events, skipped)
    annotations.finish_files(dataset_dir / "annotations")
    existing: ExistingDataset | None = None
    if events.has_predictions and has_annotations(dataset_dir / "annotations"):
        if isinstance(rule, grouped_split.Fold):
            hint = "omit --fold: its clips are added for training"
            raise UserError("exists already, with its own splits", hint, path=dataset_dir / "annotations")
        existing = ExistingDataset(dataset_dir, name)
        existing.follow_renamed({film.file: recording.observations for film, recording in recordings.items()})
        recordings = {existing.with_free_name(film): recording for film, recording in recordings.items()}
    films = measure_films(recordings, dataset_dir, skipped)
    source_of = {coded.film.source: coded.film.source for coded in films}
    if group_by == "observation":
        source_of = grouped_split.join_sources({coded.film.source: coded.recording.observations for coded in films})
    film_places = find_film_places(films, existing, source_of, skipped) if existing else {}
    if existing:
        films = [coded for coded in films if coded.film in film_places]
    sources = cut_windows(films, labeler, source_of, film_places, skipped)
    places: dict[str, Place] = {}
    for coded in films if existing else ():
        places |= place_windows(coded, film_places[coded.film], sources, skipped)
    clips, labels = collect_clips(films, labeler, skipped)
    if not any(labels.values()) and not (existing and films):
        entry, reason = next(iter(skipped.items()), ("the file", "has no event"))
        hint = "see --videos-dir, --subjects and --exclude"
        raise UserError(f"no window has a label ({entry}: {reason})", hint, path=events_path)
    if not include_unreviewed:
        skipped |= describe_unreviewed(events.unreviewed, existing)
    classes = tuple(name for name in events.behaviors if any(name in behaviors for behaviors in labels.values()))
    lost = find_lost_behaviors(events, classes)
    observed: dict[str, ObservedClip] = {}
    if events.has_predictions:
        observed = {
            clip.name: coded.observed_clip for coded in films for clip in coded.windows if clips.get(clip.name) == clip
        }
    if existing:
        merged = existing.merge([coded.film.file for coded in films], labels, places, observed, classes)
        clips = {key: clip for key, clip in clips.items() if key not in merged.corrected}
        data, sources = merged.data, merged.sources
        animals, observed = merged.animals, merged.observed
    else:
        ids = {name: class_id for class_id, name in enumerate(classes)}
        label_ids = {key: tuple(sorted(ids[name] for name in behaviors)) for key, behaviors in labels.items()}
        data = grouped_split.split_videos(classes, label_ids, rule, seed, sources)
        sources, animals = {key: sources[key] for key in clips}, {}
    prepared = PreparedDataset(
        data, clips, events_path, skipped, lost, sources, animals, observed, geometry, merged_with=existing
    )
    return write_dataset(dataset_dir, name, prepared, seed)


def collect_clips(
    films: Iterable[CodedFilm], labeler: WindowLabeler, skipped: dict[str, str]
) -> tuple[dict[str, SourceClip], dict[str, set[str]]]:
    """Return the clips of all films, and the behaviours in each, by name; events that are in none are skipped."""
    clips: dict[str, SourceClip] = {}
    labels: dict[str, set[str]] = {}
    for coded in films:
        skipped |= coded.unused_events(labeler)
        for clip, behaviors in coded.windows.items():
            if add_clip(clips, clip.name, clip, skipped):
                labels[clip.name] = behaviors
    return clips, labels


def describe_unreviewed(observations: Iterable[str], existing: ExistingDataset | None) -> dict[str, str]:
    """Return why each observation is left out, and whether the data set has clips of an earlier import of it."""
    reason = f"is not marked as reviewed; {REVIEW_HINT}"
    imported = existing.observations if existing else set()
    return {
        name: f"{reason}; clips of an earlier import of it stay as they are" if one_line(name) in imported else reason
        for name in observations
    }


def find_lost_behaviors(events: EventCollection, classes: Container[str]) -> dict[str, str]:
    """Return the behaviours that were coded but are no class, with the reason."""
    num_coded = Counter(
        event.behavior
        for recording in events.recordings.values()
        for event in [*recording.events, *recording.unknown_events]
    )
    return {
        behavior: f"none of its {num_coded[behavior]} events is in a window"
        for behavior in events.behaviors
        if behavior in num_coded and behavior not in classes
    }


def cut_windows(
    films: Sequence[CodedFilm],
    labeler: WindowLabeler,
    source_of: Mapping[str, str],
    film_places: Mapping[Film, FilmPlaces],
    skipped: dict[str, str],
) -> dict[str, str]:
    """Cut all films into labelled windows; return the source of each. The only recording is divided into blocks.

    In a data set that exists, it is divided only if its clips are in several splits there."""
    sources: dict[str, str] = {}
    for coded in films:
        skipped |= coded.add_windows(labeler)
        sources |= {clip.name: source_of[coded.film.source] for clip in coded.windows}
    if len(set(sources.values())) == 1 and all(places.are_divided for places in film_places.values()):
        return keep_within_blocks(films, labeler)
    return sources


def find_film_places(
    films: Iterable[CodedFilm], existing: ExistingDataset, source_of: Mapping[str, str], skipped: dict[str, str]
) -> dict[Film, FilmPlaces]:
    """Return where the clips of each film belong in the existing data set; films that it refuses are skipped.

    A new film is skipped too if another film of its source is refused."""
    films_with_sources = [(coded, source_of[coded.film.source]) for coded in films]
    refusals = {coded.film: existing.refusal(coded.film, source) for coded, source in films_with_sources}
    refused_sources = {source for coded, source in films_with_sources if refusals[coded.film]}
    places: dict[Film, FilmPlaces] = {}
    for coded, source in films_with_sources:
        film_places = existing.film_places(coded.film, source)
        if reason := refusals[coded.film]:
            skipped[coded.recording.media_path] = reason
        elif source in refused_sources and not film_places.places:
            skipped[coded.recording.media_path] = "another film of its observation is in val or test"
        else:
            places[coded.film] = film_places
    return places


def place_windows(
    coded: CodedFilm, film_places: FilmPlaces, sources: Mapping[str, str], skipped: dict[str, str]
) -> dict[str, Place]:
    """Return the place of each window, with its source; drop windows between clips in different places.

    `sources`: by clip, of a film without clips in the data set."""
    places: dict[str, Place] = {}
    num_windows = len(coded.windows)
    for clip in list(coded.windows):
        if place := film_places.find(clip):
            places[clip.name] = place._replace(source=place.source or sources[clip.name])
        else:
            del coded.windows[clip]
    if num_dropped := num_windows - len(coded.windows):
        reason = f"{num_dropped} of {num_windows}: they lie between clips in different splits, or in the selection"
        skipped[f"{coded.film.source}, windows of several splits"] = reason
    return places


def measure_films(recordings: Mapping[Film, Recording], dataset_dir: Path, skipped: dict[str, str]) -> list[CodedFilm]:
    """Decode each film, and print a warning if its lengths differ. Films that can't be read are added to `skipped`."""
    measurer, films = FilmMeasurer(dataset_dir), list[CodedFilm]()
    for film, recording in cli.progress(recordings.items(), len(recordings), "film", "measuring"):
        try:
            measured = measurer.measure(film.file)
        except VideoError as error:
            skipped[recording.media_path] = str(error)
            continue
        print_warnings(film.file, measured, recording.seconds)
        films.append(CodedFilm(film, recording, measured))
    return films


def filter_events(
    events_path: Path, events: EventCollection, subjects: Sequence[str] | None, exclude: Sequence[str]
) -> None:
    """Remove the events of other subjects and of excluded behaviours, and print the counts.

    Names that differ only in case or spaces are one. Raises UserError for unknown names."""
    all_events = [event for recording in events.recordings.values() for event in recording.events]
    unknown_events = [event for recording in events.recordings.values() for event in recording.unknown_events]
    all_subjects = {event.subject for event in [*all_events, *unknown_events]}
    for kind, names, known in (
        ("subject", subjects or (), sorted(all_subjects)),
        ("behaviour", exclude, events.behaviors),
    ):
        if unknown := [name for name in names if fold_name(name) not in map(fold_name, known)]:
            problem = f"has no {kind} {unknown[0]!r}"
            raise UserError(problem, f"choose from {', '.join(map(repr, known))}", path=events_path)
    used_subjects = {name for name in all_subjects if subjects is None or fold_name(name) in map(fold_name, subjects)}
    excluded = {name for name in events.behaviors if fold_name(name) in map(fold_name, exclude)}
    num_kept = num_points = 0
    for recording in events.recordings.values():
        for event_list in (recording.events, recording.unknown_events):
            event_list[:] = [
                event for event in event_list if event.behavior not in excluded and event.subject in used_subjects
            ]
        num_kept += len(recording.events)
        num_points += sum(event.is_point for event in recording.events)
    print(
        f"{events_path}: {num_kept} events ({num_points} of them points) in {len(events.recordings)} media files, of "
        f"{len(all_subjects)} subjects; {len(all_events) - num_kept} events are excluded",
        flush=True,
    )


def _recordings_by_film(
    events_path: Path, videos_dir: Path | None, dataset_dir: Path, events: EventCollection, skipped: dict[str, str]
) -> dict[Film, Recording]:
    """Return the recording by film; films that are not found are added to `skipped`.

    Recordings of one film, whose paths are written differently, are merged. Raises UserError for different films."""
    folders = [folder for folder in (videos_dir, events_path.parent) if folder]
    films, not_found = locate_films(events.recordings, folders, events_path, dataset_folders(dataset_dir))
    skipped |= not_found
    recordings: dict[Film, Recording] = {}
    for path, film in films.items():
        recording = events.recordings[path]
        merged = recordings.setdefault(film, recording)
        if merged is not recording:
            merged.events = sorted([*merged.events, *recording.events], key=lambda event: event.start)
            merged.observations += recording.observations
            merged.coded_intervals += recording.coded_intervals
            merged.unknown_events += recording.unknown_events
    return recordings


def keep_within_blocks(films: Sequence[CodedFilm], labeler: WindowLabeler) -> dict[str, str]:
    """Divide the only recording into blocks of time; drop windows across two of them, and print a warning.

    Returns the block by video id."""
    recording_end = max(clip.end or 0.0 for coded in films for clip in coded.windows)
    length = max(recording_end / NUM_BLOCKS, 2 * labeler.grid.length)
    num_dropped, blocks = 0, dict[str, str]()
    for coded in films:
        for clip in list(coded.windows):
            first, last = int((clip.start or 0.0) / length), int(((clip.end or 0.0) - TIME_TOLERANCE) / length)
            if first == last:
                blocks[clip.name] = f"{coded.film.source}, from {first * length:g} s on"
            else:
                del coded.windows[clip]
                num_dropped += 1
    print(
        f"warning: there is only one recording. It is split into blocks of {length:.0f} s, without the {num_dropped} "
        "windows that cover parts of two blocks; results hold for this recording only, not for others",
        flush=True,
    )
    return blocks
