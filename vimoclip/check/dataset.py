"""A data set to be checked: where it is, and what there is of it before any video is looked at."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from vimoclip import store, video
from vimoclip.annotations import Annotations
from vimoclip.check.problems import Findings
from vimoclip.errors import UserError
from vimoclip.extraction import manifest
from vimoclip.extraction.manifest import DONE, Entry
from vimoclip.flow.flow_lookup import FlowFolder


@dataclass(frozen=True)
class Places:
    """Where the parts of a data set are."""

    dataset_name: str
    annotations: Path
    videos: Path
    embeddings: Path
    flows: Path
    motion: Path

    def rgb(self, split: str) -> Path:
        """A split's file of RGB embeddings."""
        return store.rgb_path(self.embeddings, self.dataset_name, split)


@dataclass
class DataSet:
    """What there is. `listed`: names in the folder of videos, `others`: those of them that aren't named like videos.

    `rgb`, `flows`, `motion`: what is there and can be read. `manifests`: area -> id -> entry."""

    places: Places
    annotations: Annotations
    decode: bool
    listed: frozenset[str] | None = None
    others: frozenset[str] = frozenset()
    rgb: dict[str, store.Reader] = field(default_factory=dict)
    flows: FlowFolder | None = None
    motion: store.Reader | None = None
    manifests: dict[str, dict[str, Entry]] = field(default_factory=dict)

    @cached_property
    def split_of(self) -> dict[str, str]:
        """Video -> split, of those that are annotated."""
        return {name: split for split, names in self.annotations.splits.items() for name in names}

    @property
    def splits(self) -> list[str]:
        """Those that name a video."""
        return [split for split, names in self.annotations.splits.items() if names]

    @cached_property
    def readers(self) -> dict[str, store.Reader]:
        """Area -> its file of embeddings."""
        readers = {rgb_area(split): reader for split, reader in self.rgb.items()}
        return readers | ({"motion": self.motion} if self.motion else {})

    @cached_property
    def keys(self) -> dict[str, frozenset[str]]:
        """Area -> what its file of embeddings holds."""
        return {area: frozenset(reader.keys) for area, reader in self.readers.items()}

    @cached_property
    def videos(self) -> list[str]:
        """Those that are annotated, then others that are there."""
        more = (self.listed or frozenset()) - self.others - self.split_of.keys()
        return [*self.split_of, *sorted(more)]

    def entry(self, area: str, of: str) -> Entry | None:
        """What the manifest of an area says of a video."""
        return self.manifests.get(area, {}).get(of)


def rgb_area(split: str) -> str:
    return f"RGB {split}"


def maker(area: str) -> str:
    """The command that makes what an area holds."""
    if area.startswith(rgb_area("")):
        return f"extract_embeddings.py --split {area.removeprefix(rgb_area(''))}"
    return {"flows": "extract_flows.py", "motion": "inference.py"}[area]


def look_around(data: DataSet, findings: Findings) -> None:
    """Fill in what there is; note which files and folders are wrong as a whole."""
    _list_videos(data, findings)
    for split in data.splits:
        if reader := _open(data, rgb_area(split), data.places.rgb(split), "rgb", findings):
            data.rgb[split] = reader
    folder = data.places.flows
    entries = data.manifests["flows"] = _read_manifest("flows", folder, findings)
    if folder.is_dir() and (entries or video.find(folder)[0]):
        data.flows = FlowFolder(folder, data.videos)
    elif entries:
        _unfinished("flows", folder, entries, findings)
    data.motion = _open(data, "motion", data.places.motion, "motion", findings)


def _list_videos(data: DataSet, findings: Findings) -> None:
    folder = data.places.videos
    if not folder.is_dir():
        findings.unfit("videos", folder, "missing", "there is no such folder", "name it with --videos-dir")
        return
    paths, others = video.find(folder)
    data.others = frozenset(others)
    data.listed = frozenset(path.name for path in paths) | data.others
    if more := len(data.listed - data.others - data.split_of.keys()):
        findings.say("videos", f"{more} in {folder} are not annotated")


def _read_manifest(area: str, output: Path, findings: Findings) -> dict[str, Entry]:
    path = manifest.manifest_path(output)
    try:
        return manifest.read(path)
    except UserError as error:
        findings.unfit(area, path, "broken", error)
    except OSError as error:
        findings.unfit(area, path, "broken", f"can't be read ({error.strerror})", "make it a file that you may read")
    return {}


def _open(data: DataSet, area: str, path: Path, kind: str, findings: Findings) -> store.Reader | None:
    """A file of embeddings; None where it isn't there or can't be read."""
    entries = data.manifests[area] = _read_manifest(area, path, findings)
    if not path.exists() and not path.is_symlink():
        if entries:
            _unfinished(area, path, entries, findings)
        return None
    try:
        reader = store.Reader(path, kind)
    except UserError as error:
        findings.unfit(area, path, "broken", error, f"{maker(area)} --overwrite makes it anew")
        return None
    if not reader.known:
        checked = "widths, lengths and labels" if kind == "rgb" else "widths and lengths"
        findings.say(area, f"{path} doesn't say what made it, so nothing could be checked but {checked}")
    return reader


def _unfinished(area: str, path: Path, entries: dict[str, Entry], findings: Findings) -> None:
    done = sum(entry.status in DONE for entry in entries.values())
    failed = sum(entry.status == "failed" for entry in entries.values())
    reason = f"is not there, but its manifest has {done} videos as done, {failed} as failed"
    findings.unfit(area, path, "missing", reason, f"wait for the run that makes it, or start {maker(area)} again")
