"""The checked data set: its paths, and its files that can be read."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from vimoclip import store, video
from vimoclip.annotations import Annotations
from vimoclip.check.problems import CheckReport
from vimoclip.errors import UserError
from vimoclip.extraction import manifest
from vimoclip.extraction.manifest import DONE_STATUSES, ManifestEntry
from vimoclip.flow.flow_folder import FlowFolder
from vimoclip.io.names import normalize_name


@dataclass(frozen=True)
class DatasetPaths:
    """Paths of the parts of a data set."""

    dataset_name: str
    annotations: Path
    videos: Path
    embeddings: Path
    flows: Path
    motion: Path

    def rgb(self, split: str) -> Path:
        """Return the file of RGB embeddings of a split."""
        return store.rgb_embeddings_path(self.embeddings, self.dataset_name, split)


@dataclass
class DatasetContents:
    """What exists of a data set and can be read.

    `video_folder`: None if there is none. `rgb_readers`: by split. `manifests`: area -> id in NFC -> entry."""

    paths: DatasetPaths
    annotations: Annotations
    decode: bool
    video_folder: video.VideoFolder | None = None
    rgb_readers: dict[str, store.EmbeddingReader] = field(default_factory=dict)
    flow_folder: FlowFolder | None = None
    motion_reader: store.EmbeddingReader | None = None
    manifests: dict[str, dict[str, ManifestEntry]] = field(default_factory=dict)

    @cached_property
    def split_of(self) -> dict[str, str]:
        """Split by annotated video."""
        return {name: split for split, names in self.annotations.splits.items() for name in names}

    @property
    def splits(self) -> list[str]:
        """Splits that are not empty."""
        return [split for split, names in self.annotations.splits.items() if names]

    @cached_property
    def readers(self) -> dict[str, store.EmbeddingReader]:
        """File of embeddings by area."""
        readers = {rgb_area(split): reader for split, reader in self.rgb_readers.items()}
        return readers | ({"motion": self.motion_reader} if self.motion_reader else {})

    @cached_property
    def keys(self) -> dict[str, frozenset[str]]:
        """Keys of the file of embeddings by area."""
        return {area: frozenset(reader.keys) for area, reader in self.readers.items()}

    @cached_property
    def videos(self) -> list[str]:
        """Annotated videos, then the other video files."""
        return [*self.split_of, *self.unannotated]

    @cached_property
    def unannotated(self) -> list[str]:
        """Names of video files that are not annotated."""
        annotated = set(map(normalize_name, self.split_of))
        names = {path.name for path in self.video_folder.videos} if self.video_folder else set[str]()
        return sorted(name for name in names if normalize_name(name) not in annotated)

    def manifest_entry(self, area: str, entry_id: str) -> ManifestEntry | None:
        """Return the entry of a video in the manifest of an area."""
        return self.manifests.get(area, {}).get(normalize_name(entry_id))


def rgb_area(split: str) -> str:
    return f"RGB {split}"


def command_for(area: str) -> str:
    """Return the command that creates the entries of an area."""
    if area.startswith(rgb_area("")):
        return f"extract_embeddings.py --split {area.removeprefix(rgb_area(''))}"
    return {"flows": "extract_flows.py", "motion": "inference.py"}[area]


def scan_dataset(data: DatasetContents, report: CheckReport) -> None:
    """Fill in what exists, and add problems of whole files and folders."""
    _list_videos(data, report)
    for split in data.splits:
        if reader := _open_embeddings(data, rgb_area(split), data.paths.rgb(split), "rgb", report):
            data.rgb_readers[split] = reader
    folder = data.paths.flows
    entries = data.manifests["flows"] = _read_manifest("flows", folder, report)
    flow_folder = FlowFolder(folder, data.videos) if folder.is_dir() else None
    if flow_folder and (entries or flow_folder.paths):
        data.flow_folder = flow_folder
    elif entries:
        _add_unfinished("flows", folder, entries, report)
    data.motion_reader = _open_embeddings(data, "motion", data.paths.motion, "motion", report)


def _list_videos(data: DatasetContents, report: CheckReport) -> None:
    folder = data.paths.videos
    if not folder.is_dir():
        report.add_file_problem("videos", folder, "missing", "there is no such folder", "name it with --videos-dir")
        return
    data.video_folder = video.VideoFolder(folder)
    for name, reason in data.video_folder.left_out.items():
        if reason != video.folder.NO_VIDEO:
            report.add_note("videos", reason, name)
    if data.unannotated:
        report.add_note("videos", f"{len(data.unannotated)} videos in {folder} are not annotated")


def _read_manifest(area: str, output: Path, report: CheckReport) -> dict[str, ManifestEntry]:
    path = manifest.manifest_path(output)
    try:
        return {normalize_name(key): entry for key, entry in manifest.read_manifest(path).items()}
    except UserError as error:
        report.add_file_problem(area, path, "broken", error)
    except OSError as error:
        report.add_file_problem(area, path, "broken", f"can't be read ({error.strerror})", "check its permissions")
    return {}


def _open_embeddings(
    data: DatasetContents, area: str, path: Path, kind: str, report: CheckReport
) -> store.EmbeddingReader | None:
    """Open a file of embeddings; None if it does not exist or can't be read."""
    entries = data.manifests[area] = _read_manifest(area, path, report)
    if not path.exists() and not path.is_symlink():
        if entries:
            _add_unfinished(area, path, entries, report)
        return None
    try:
        reader = store.EmbeddingReader(path, kind)
    except UserError as error:
        report.add_file_problem(area, path, "broken", error, f"create it again with {command_for(area)} --overwrite")
        return None
    if not reader.has_schema:
        checked = "widths, lengths and labels" if kind == "rgb" else "widths and lengths"
        report.add_note(area, f"{path} does not record its settings, so only these are checked: {checked}")
    return reader


def _add_unfinished(area: str, path: Path, entries: dict[str, ManifestEntry], report: CheckReport) -> None:
    done = sum(entry.status in DONE_STATUSES for entry in entries.values())
    failed = sum(entry.status == "failed" for entry in entries.values())
    reason = f"does not exist, but its manifest records {done} finished and {failed} failed videos"
    hint = f"wait for the run that creates it, or run {command_for(area)} again"
    report.add_file_problem(area, path, "missing", reason, hint)
