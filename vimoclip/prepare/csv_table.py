"""A table of videos and labels becomes a data set: videos are linked, or clips cut out of them."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from vimoclip import annotations, video
from vimoclip.annotations import Annotations
from vimoclip.errors import UserError, VideoError
from vimoclip.prepare import grouped_split
from vimoclip.prepare.folder import warn_of_twins
from vimoclip.prepare.table import Row, Table
from vimoclip.prepare.trim_clips import Clip, check_names, cut_all, seconds_of
from vimoclip.prepare.write_dataset import Prepared, finish, place_videos


def prepare(table: Table, videos_dir: Path, dataset: Path, name: str, shares: Mapping[str, float], seed: int) -> Path:
    """The folder of the annotations. Raises UserError.

    `shares`: of the splits that don't train, where the table has no splits. Clips of one file are of one source, unless
    the table says another."""
    left_out: dict[str, str] = {}
    clips, rows = _clips(table, videos_dir, left_out)
    check_names(table.path, clips)
    whole = {key: clip.source for key, clip in clips.items() if clip.start is None}
    place_videos(whole, dataset / "videos")
    seconds = {key: length for key, path in whole.items() if (length := seconds_of(path))}
    seconds |= cut_all(clips, dataset / "videos", left_out)
    kept = {key: clip for key, clip in clips.items() if key not in left_out}
    if not kept:
        raise UserError(
            f"none of its videos can be used ({next(iter(left_out.items()))})", "see above", path=table.path
        )
    warn_of_twins([clip.source for clip in kept.values() if clip.start is None])
    sources = _sources(kept, rows)
    data = _annotations(table, {key: rows[key] for key in kept}, shares, seed, sources)
    return finish(dataset / "annotations", name, Prepared(data, seconds, left_out, sources), seed)


def _clips(table: Table, videos_dir: Path, left_out: dict[str, str]) -> tuple[dict[str, Clip], dict[str, list[Row]]]:
    """Video id -> clip, and the rows that speak of it."""
    clips: dict[str, Clip] = {}
    rows: dict[str, list[Row]] = defaultdict(list)
    lines = Counter(row.video for row in table.rows)
    for row in table.rows:
        path = videos_dir / row.video
        of_lines = f", in {lines[row.video]} lines" if lines[row.video] > 1 else ""
        if not path.is_file():
            left_out[row.video] = f"{path}: there is no such file{of_lines}"
            continue
        try:
            info = video.probe(path)
        except VideoError as error:
            left_out[row.video] = f"{error}{of_lines}"
            continue
        clip = Clip(path, row.start, row.end)
        if row.start is not None or row.end is not None:
            clip = Clip(path, row.start or 0.0, info.seconds if row.end is None else row.end)
        key = clip.name
        if clips.setdefault(key, clip) != clip:
            raise UserError(f"{clip.source} and {clips[key].source} would share the name {key}", "rename one of them")
        rows[key].append(row)
    return clips, rows


def _sources(clips: Mapping[str, Clip], rows: Mapping[str, list[Row]]) -> dict[str, str]:
    """Video id -> source: what the table says, joined with the file where several clips are of one.

    Clips that share either are of one source, and so are those that share one with these."""
    files = Counter(clip.source for clip in clips.values())
    leader: dict[str, str] = {}

    def find(mark: str) -> str:
        while leader.setdefault(mark, mark) != mark:
            mark = leader[mark]
        return mark

    marks: dict[str, str] = {}
    for key, clip in clips.items():
        groups = sorted({row.source for row in rows[key] if row.source})
        own = [*groups, *([f"film {clip.source.name}"] if files[clip.source] > 1 else [])]
        for mark in own:
            leader[find(mark)] = find(own[0])
        if own:
            marks[key] = own[0]
    return {key: find(mark) for key, mark in marks.items()}


def _annotations(
    table: Table,
    rows: Mapping[str, list[Row]],
    shares: Mapping[str, float],
    seed: int,
    sources: Mapping[str, str],
) -> Annotations:
    """Labels of all rows of a video; splits as the table has them, or drawn."""
    ids = {name: number for number, name in enumerate(table.classes)}
    labels = {key: tuple(sorted({ids[name] for row in own for name in row.labels})) for key, own in rows.items()}
    if not table.has_splits:
        return grouped_split.split(table.classes, labels, shares, seed, sources)
    splits: dict[str, dict[str, tuple[int, ...]]] = {name: {} for name in annotations.SPLITS}
    for key, own in rows.items():
        splits[own[0].split][key] = labels[key]
    return Annotations(table.classes, {name: dict(sorted(of.items())) for name, of in splits.items() if of})
