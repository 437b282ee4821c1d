"""What belongs together: which flow is a video's, and the rules by which RGB, flow and motion fit. Without torch."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vimoclip.annotations import stem as stem_of
from vimoclip.errors import UserError, VideoError
from vimoclip.io.names import is_safe_name
from vimoclip.video import find_videos, probe

# <stem>_<method>_<checkpoint>.mp4, as the published script names flow videos: what ptlflow's models and checkpoints are
# called. Both may hold underscores; so may stems.
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
# in a flow video's comment; the rest are settings
_PER_VIDEO_KEYS = ("video", "kept_frames", "frame_indices", "timestamps", "lossless")  # the last changes no flow


class FlowFolder:
    """The flow videos of a folder, ours (`<stem>.mp4`) or published (`<stem>_<method>_<checkpoint>.mp4`)."""

    def __init__(self, folder: Path, videos: Iterable[str] = ()):
        """`videos`: ids that are known, whose own flow is never taken for another's."""
        self.folder = folder
        self.paths = {path.name: path for path in find_videos(folder)[0]}
        own = {stem_of(video_id) for video_id in videos}
        self._published: dict[str, list[Path]] = {}
        self._said: dict[Path, str | None] = {}
        for path in self.paths.values():
            for stem in _published_stems(path.stem) if path.stem not in own else []:
                self._published.setdefault(stem, []).append(path)

    def find(self, video_id: str) -> Path | None:
        """The flow of a video: same file name, `<stem>.mp4`, or the one published name. UserError for several."""
        matches = self.matches(video_id)
        if len(matches) > 1:
            names = ", ".join(path.name for path in matches)
            raise UserError(f"{names} may all be the flow of {video_id}", "keep one of them", path=self.folder)
        return matches[0] if matches else None

    def matches(self, video_id: str) -> list[Path]:
        """All that may be the flow of a video."""
        stem = stem_of(video_id) or video_id
        for name in (video_id, f"{stem}.mp4"):
            if name in self.paths:
                return [self.paths[name]]
        return [path for path in self._published.get(stem, []) if self._made_from(path) in (None, stem)]

    def _made_from(self, path: Path) -> str | None:
        """As `_made_from`, which opens the file, but once: 30,000 openings take half a minute."""
        if path not in self._said:
            self._said[path] = _read_source_stem(path)
        return self._said[path]

    def by_stem(self) -> dict[str, Path]:
        """Every flow video under the stem of the video that it was made from."""
        found: dict[str, Path] = {}
        for path in self.paths.values():
            published = _PUBLISHED_NAME.fullmatch(path.stem)
            stem = (self._made_from(path) or published[1]) if published else path.stem
            if stem in found:
                raise UserError(
                    f"{found[stem].name} and {path.name} are both the flow of {stem}", "keep one", path=self.folder
                )
            found[stem] = path
        return found


def _published_stems(name: str) -> list[str]:
    """The stems that `<stem>_<method>_<checkpoint>` may stand for: one where the checkpoint is a known one."""
    if known := _PUBLISHED_NAME.fullmatch(name):
        return [known[1]]
    parts = name.split("_")
    return ["_".join(parts[:cut]) for cut in range(1, len(parts) - 1)]


def _read_source_stem(path: Path) -> str | None:
    """The stem of the video that a flow video says it shows; None where it says nothing, or no name."""
    try:
        made_from = (probe(path).comment or {}).get("video")
    except VideoError:
        return None  # who reads it says so
    return made_from if isinstance(made_from, str) and is_safe_name(made_from) else None


def settings_from_comment(comment: dict[str, Any] | None) -> dict[str, Any]:
    """How a flow video was made (method, checkpoint, size, normalisation, sampling); empty where unknown."""
    return {k: v for k, v in (comment or {}).items() if k not in _PER_VIDEO_KEYS}
