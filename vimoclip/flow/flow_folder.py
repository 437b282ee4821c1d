"""Find the flow video of each video in a folder, also by the names of the published code. Does not import torch."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vimoclip.annotations import stem as stem_of
from vimoclip.cli import check_settings_match, extraction_flags
from vimoclip.errors import UserError, VideoError
from vimoclip.io.names import is_safe_name, normalize_name
from vimoclip.video import VideoFolder, probe, recorded_geometry

# The published script names flow videos <stem>_<method>_<checkpoint>.mp4, with the names of ptlflow's models and
# checkpoints. All three may contain underscores.
_PUBLISHED_METHODS = (
    "ccmr craft csflow dicl dip dpflow fastflownet flow1d flow_anything flowformer flownet[a-z0-9]* flowseek gma "
    "gmflow gmflownet hd3 irr lcv liteflownet[a-z0-9]* llaflow maskflownet matchflow memflow memfof ms neuflow[0-9]* "
    "pwcnet raft rapidflow recover rpknet scopeflow scv[0-9]* sea separableflow skflow splatflow starflow streamflow "
    "unimatch vcn videoflow waft"
)
_PUBLISHED_CHECKPOINTS = "chairs highres kitti mix sintel spring tar things tskh universal zero"
_PUBLISHED_NAME = re.compile(
    rf"(.+?)_(?:{'|'.join(_PUBLISHED_METHODS.split())})(?:_[a-z0-9+]+){{0,3}}"
    rf"_(?:{'|'.join(_PUBLISHED_CHECKPOINTS.split())})[a-z0-9-]*(?:_[a-z0-9]+)?"
)
# keys of a flow video's comment other than the settings of the flow
_PER_VIDEO_KEYS = ("video", "kept_frames", "frame_indices", "timestamps", "lossless")


class FlowFolder:
    """Flow videos of a folder, named `<stem>.mp4`, or `<stem>_<method>_<checkpoint>.mp4` by the published code.

    `paths`: by path below the folder. A file in a folder below is not used if one of its name is directly in it."""

    def __init__(self, folder: Path, videos: Iterable[str] = ()):
        """`videos`: ids of the data set; `<stem>.mp4` of one of them is never read as a published name."""
        self.folder, self._files = folder, VideoFolder(folder, with_flow=True)
        self.paths = {self.name(path): path for path in self._files.videos if path in self._files.matches(path.name)}
        stems = {normalize_name(stem_of(video_id)) for video_id in videos}
        self._published: dict[str, list[Path]] = {}
        self._source_stems: dict[Path, str | None] = {}  # cache: opening 30,000 files takes half a minute
        for path in self.paths.values():
            stem = normalize_name(path.stem)
            for published_stem in _published_stems(stem) if stem not in stems else []:
                self._published.setdefault(published_stem, []).append(path)

    def name(self, path: Path) -> str:
        """Return the path of a flow video below the folder."""
        return path.relative_to(self.folder).as_posix()

    def find(self, video_id: str) -> Path | None:
        """Return the flow of a video: same name, `<stem>.mp4`, or a published name. Raises UserError for several."""
        matches = self.matches(video_id)
        if len(matches) > 1:
            names = ", ".join(map(self.name, matches))
            raise UserError(
                f"several files may be the flow of {video_id}: {names}", "keep one of them", path=self.folder
            )
        return matches[0] if matches else None

    def matches(self, video_id: str) -> list[Path]:
        """Return all candidates for the flow of a video."""
        stem = normalize_name(stem_of(video_id) or video_id)
        for name in (video_id, f"{stem_of(video_id) or video_id}.mp4"):
            if paths := self._files.matches(name):
                return paths
        return [path for path in self._published.get(stem, []) if self._source_stem(path) in (None, stem)]

    def _source_stem(self, path: Path) -> str | None:
        if path not in self._source_stems:
            stem = _read_source_stem(path)
            self._source_stems[path] = stem and normalize_name(stem)
        return self._source_stems[path]

    def by_stem(self) -> dict[str, Path]:
        """Return the flow videos by the stem of their source video. Raises UserError if two have the same."""
        found: dict[str, Path] = {}
        stems: dict[str, str] = {}  # as written on the disk, by NFC
        if num_unused := len(self._files.videos) - len(self.paths):
            print(f"{num_unused} flow videos have the name of one directly in {self.folder} and are left out")
        for path in self.paths.values():
            published = _PUBLISHED_NAME.fullmatch(path.stem)
            stem = (self._source_stem(path) or published[1]) if published else path.stem
            if (other := stems.setdefault(normalize_name(stem), stem)) in found:
                raise UserError(
                    f"two files are the flow of {stem}: {self.name(found[other])}, {self.name(path)}",
                    "keep one of them",
                    path=self.folder,
                )
            found[stem] = path
        return found


def _published_stems(name: str) -> list[str]:
    """Return the possible stems in `<stem>_<method>_<checkpoint>`: one if method and checkpoint are known names."""
    if match := _PUBLISHED_NAME.fullmatch(name):
        return [match[1]]
    words = name.split("_")
    return ["_".join(words[:count]) for count in range(1, len(words) - 1)]


def _read_source_stem(path: Path) -> str | None:
    """Return the stem of the source video that a flow video's comment records, or None."""
    try:
        stem = (probe(path).comment or {}).get("video")
    except VideoError:
        return None  # reported when the flow video is read
    return stem if isinstance(stem, str) and is_safe_name(stem) else None


def settings_from_comment(comment: dict[str, Any] | None) -> dict[str, Any]:
    """Return a flow video's settings from its comment: method, checkpoint, size, normalization, sampling, geometry."""
    settings = {k: v for k, v in (comment or {}).items() if k not in _PER_VIDEO_KEYS}
    return settings | {"geometry": recorded_geometry(settings)} if "sampling" in settings else settings


def common_settings(
    paths: Iterable[Path], training_settings: dict[str, Any], checkpoint: Path | None = None
) -> dict[str, Any]:
    """Return the settings of the flow videos. Raises UserError if they differ from each other or from training.

    `checkpoint`: of the student whose training settings are given."""
    common: dict[str, Any] = {}
    for path in paths:
        try:
            settings = settings_from_comment(probe(path).comment)
        except VideoError:
            continue  # recorded as failed when its frames are read
        hint = f"use the flow that the student was trained on: extract_flows.py {extraction_flags(training_settings)}"
        check_settings_match(training_settings, settings, str(checkpoint), str(path), hint)
        hint = "extract all flow with one set of flags"
        check_settings_match(common, settings, "the flow videos before it", str(path), hint)
        common = settings | common  # the first may lack a setting that later ones have
    if checkpoint and not training_settings and common.get("normalization") not in (None, "frame"):
        print(
            f"warning: {checkpoint} does not record which flow it was trained on, like published students, which were "
            f"trained on --flow-normalization frame; these videos have {common['normalization']}",
            flush=True,
        )
    return common
