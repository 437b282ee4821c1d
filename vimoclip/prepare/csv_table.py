"""Importer of a table of videos and labels: links the videos, or trims clips from them."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from vimoclip import annotations, cli, video
from vimoclip.annotations import Annotations
from vimoclip.errors import UserError, VideoError
from vimoclip.prepare import grouped_split
from vimoclip.prepare.folder import warn_about_duplicates
from vimoclip.prepare.label_table import LabelRow, LabelTable
from vimoclip.prepare.trim_clips import SourceClip, check_video_names, trim_clips, video_seconds
from vimoclip.prepare.write_dataset import PreparedDataset, link_videos, write_dataset


def prepare(
    table: LabelTable, videos_dir: Path, dataset_dir: Path, name: str, fractions: Mapping[str, float], seed: int
) -> cli.RunReport:
    """Write the data set and return the report of the run. Raises UserError.

    `fractions`: of val and test, if the table has no splits. Clips of one file are of one source, unless the table
    names another."""
    skipped: dict[str, str] = {}
    clips, rows = _find_clips(table, videos_dir, skipped)
    check_video_names(table.path, clips)
    whole_files = {key: clip.source for key, clip in clips.items() if clip.start is None}
    link_videos(whole_files, dataset_dir / "videos")
    seconds = {key: length for key, path in whole_files.items() if (length := video_seconds(path))}
    seconds |= trim_clips(clips, dataset_dir / "videos", skipped)
    clips = {key: clip for key, clip in clips.items() if key not in skipped}
    if not clips:
        problem = f"none of its videos can be used ({next(iter(skipped.items()))})"
        raise UserError(problem, "see above", path=table.path)
    warn_about_duplicates([clip.source for clip in clips.values() if clip.start is None])
    sources = _group_sources(clips, rows)
    data = _build_annotations(table, {key: rows[key] for key in clips}, fractions, seed, sources)
    return write_dataset(dataset_dir / "annotations", name, PreparedDataset(data, seconds, skipped, sources), seed)


def _find_clips(
    table: LabelTable, videos_dir: Path, skipped: dict[str, str]
) -> tuple[dict[str, SourceClip], dict[str, list[LabelRow]]]:
    """Return the clip and the table's rows by video id."""
    clips: dict[str, SourceClip] = {}
    rows: dict[str, list[LabelRow]] = defaultdict(list)
    num_lines = Counter(row.video for row in table.rows)
    for row in table.rows:
        path = videos_dir / row.video
        lines_remark = f", in {num_lines[row.video]} lines" if num_lines[row.video] > 1 else ""
        if not path.is_file():
            skipped[row.video] = f"{path}: there is no such file{lines_remark}"
            continue
        try:
            info = video.probe(path)
        except VideoError as error:
            skipped[row.video] = f"{error}{lines_remark}"
            continue
        clip = SourceClip(path, None, None)
        if row.start is not None or row.end is not None:
            clip = SourceClip(path, row.start or 0.0, info.seconds if row.end is None else row.end)
        key = clip.name
        if clips.setdefault(key, clip) != clip:
            raise UserError(f"{clip.source} and {clips[key].source} would share the name {key}", "rename one of them")
        rows[key].append(row)
    return clips, rows


def _group_sources(clips: Mapping[str, SourceClip], rows: Mapping[str, list[LabelRow]]) -> dict[str, str]:
    """Return the source by video id: the table's sources, joined with the file if it has several clips.

    Clips that share a source or a file are of one source, transitively (union-find)."""
    clips_per_file = Counter(clip.source for clip in clips.values())
    parents: dict[str, str] = {}

    def find_root(node: str) -> str:
        while parents.setdefault(node, node) != node:
            node = parents[node]
        return node

    first_nodes: dict[str, str] = {}
    for key, clip in clips.items():
        nodes = sorted({row.source for row in rows[key] if row.source})
        if clips_per_file[clip.source] > 1:
            nodes.append(f"film {clip.source.name}")
        for node in nodes:
            parents[find_root(node)] = find_root(nodes[0])
        if nodes:
            first_nodes[key] = nodes[0]
    return {key: find_root(node) for key, node in first_nodes.items()}


def _build_annotations(
    table: LabelTable,
    rows: Mapping[str, list[LabelRow]],
    fractions: Mapping[str, float],
    seed: int,
    sources: Mapping[str, str],
) -> Annotations:
    """Return the annotations with the labels of all rows of a video, and the table's splits or random ones."""
    ids = {name: class_id for class_id, name in enumerate(table.classes)}
    labels = {
        key: tuple(sorted({ids[name] for row in video_rows for name in row.labels})) for key, video_rows in rows.items()
    }
    if not table.has_splits:
        return grouped_split.split_videos(table.classes, labels, fractions, seed, sources)
    splits: dict[str, dict[str, tuple[int, ...]]] = {name: {} for name in annotations.SPLITS}
    for key, video_rows in rows.items():
        splits[video_rows[0].split][key] = labels[key]
    return Annotations(table.classes, {name: dict(sorted(videos.items())) for name, videos in splits.items() if videos})
