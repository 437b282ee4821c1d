"""Checks of single videos in every area, which run in parallel."""

import contextlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vimoclip import annotations, store, video
from vimoclip.check import compatibility
from vimoclip.check.dataset_scan import DatasetContents, command_for, rgb_area
from vimoclip.check.problems import CheckReport
from vimoclip.errors import UserError, VideoError
from vimoclip.extraction.manifest import DONE_STATUSES, stat_source
from vimoclip.flow.flow_folder import FlowFolder, settings_from_comment
from vimoclip.io.names import list_some, normalize_name
from vimoclip.video.decoder import VideoDecoder
from vimoclip.video.geometry import changed_geometry, is_as_displayed
from vimoclip.video.trimmed_clip import has_length_of_name, lacks_film_times, may_be_trimmed

CheckTask = Sequence[str] | str  # video ids, or the area of a file of embeddings to verify


@dataclass
class CheckResults:
    """Problems of single videos, and what the checks across files need.

    `matched_flows`, `matched_motions`: names of flow videos and motion keys that belong to a video.
    `videos_by_flow_settings`: settings as JSON -> videos. `num_unannotated`: area -> entries of videos that are not
    annotated. `verify_problems`: area -> result of `store.verify`."""

    report: CheckReport = field(default_factory=CheckReport)
    matched_flows: list[str] = field(default_factory=list)
    videos_by_flow_settings: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    matched_motions: list[str] = field(default_factory=list)
    num_unannotated: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    verify_problems: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def merge(self, other: "CheckResults") -> None:
        """Add the results of another task."""
        self.report.merge(other.report)
        self.matched_flows += other.matched_flows
        self.matched_motions += other.matched_motions
        for settings, names in other.videos_by_flow_settings.items():
            self.videos_by_flow_settings[settings] += names
        for area, count in other.num_unannotated.items():
            self.num_unannotated[area] += count
        self.verify_problems |= other.verify_problems


def run_task(data: DatasetContents, task: CheckTask) -> CheckResults:
    """Check a group of videos, or verify a file of embeddings."""
    results = CheckResults()
    if isinstance(task, str):
        results.verify_problems[task] = store.verify(data.readers[task].path)
        return results
    motion = data.motion_reader
    motion_key = compatibility.motion_key_function(motion) if motion else annotations.stem
    for name in task:
        _VideoChecker(data, name, motion_key(name), results).check()
    return results


class _VideoChecker:
    """Checker of one video in every area."""

    def __init__(self, data: DatasetContents, name: str, motion_key: str, results: CheckResults):
        self.data, self.name, self.motion_key, self.results = data, name, motion_key, results
        self.path, self.num_files = data.paths.videos / name, 0
        if data.video_folder and (files := data.video_folder.matches(name)):
            self.path, self.num_files = files[0], len(files)
        self.split = data.split_of.get(name, "")
        self.rgb_area = rgb_area(self.split)
        self.num_rgb_frames = self.num_flow_frames = 0  # 0: unknown
        self.frame_indices: np.ndarray | None = None
        self.flow_path: Path | None = None

    def check(self) -> None:
        """Add the problems of each area, from the video to the motion embeddings."""
        if self.data.video_folder:
            self._check_video(self.data.video_folder)
        if self.rgb_area in self.data.readers:
            self._record_errors(self.rgb_area, self.name, self._check_embeddings)
        if self.data.flow_folder:
            self._check_flow(self.data.flow_folder)
        if self.data.motion_reader:
            self._record_errors("motion", self.motion_key, self._check_motion)

    def _check_video(self, folder: video.VideoFolder) -> None:
        if not self.num_files:
            hint = "add it, or remove its line from the annotations"
            self._add_problem("videos", "missing", f"is not in {self.data.paths.videos}", hint)
        elif self.num_files > 1:
            names = list_some(path.relative_to(folder.folder).as_posix() for path in folder.matches(self.name))
            self._add_problem("videos", "misfit", f"{self.num_files} files have this name: {names}", "keep one of them")
        elif self.path.suffix.lower() not in video.VIDEO_EXTENSIONS:
            left_out = folder.left_out.get(self.path.relative_to(folder.folder).as_posix(), video.folder.NO_VIDEO)
            reason = f"{left_out}; extract_flows.py skips it"
            self._add_problem("videos", "misfit", reason, "rename the file, and its line in the annotations")
        elif self.data.decode or not self._was_decoded() or may_be_trimmed(self.name):
            info, problem = inspect_video(self.path, self.data.decode)
            if problem:
                hint = "replace it, or remove its line from the annotations"
                self._add_problem("videos", "broken", problem, hint)
            elif info and lacks_film_times(info):
                self._add_old_clip(info)

    def _add_old_clip(self, info: video.VideoInfo) -> None:
        """Add a problem for a clip with wrong times, and a note if they are right where the film's rate is constant."""
        hint = "import its film again, into another --dataset-dir if this one is refused"
        if has_length_of_name(self.name, info):
            reason = f"was cut by an earlier version, at a constant frame rate; if that of its film varies, {hint}"
            self.results.report.add_note("videos", reason, self.name)
        else:
            reason = (
                f"lasts {info.seconds:.6g} s, not as long as its name says: its film's frame rate varies, or it ended"
            )
            self._add_problem("videos", "misfit", reason, hint)

    def _was_decoded(self) -> bool:
        """Return whether an extraction has decoded this version of the file completely."""
        entry = self.data.manifest_entry(self.rgb_area, self.name)
        if entry is None or entry.status not in DONE_STATUSES or entry.size is None:
            return False
        same_size = stat_source(self.path)["size"] == entry.size
        return same_size and not self._describe_change(self.rgb_area, self.name, self.path)

    def _check_embeddings(self) -> None:
        area = self.rgb_area
        if self.name not in self.data.keys[area]:
            self._check_absence(area, self.name)
            return
        hint = f"create the file again with {command_for(area)} --overwrite"
        self._check_source(area, self.name, self.path, hint)
        reader = self.data.readers[area]
        self._check_geometry(area, reader.attributes, hint)
        self.num_rgb_frames, self.frame_indices = _length_and_indices(reader, self.name)
        stored, annotated = reader.labels(self.name), self.data.annotations.multi_hot(self.split, self.name)
        # a different number of labels is a problem of the whole file
        if len(stored) == len(annotated) and not np.array_equal(stored, annotated):
            texts = [" ".join(map(str, np.flatnonzero(labels))) or "none" for labels in (stored, annotated)]
            reason = f"its labels are {texts[0]} in the file but {texts[1]} in the annotations"
            hint = f"run {command_for(area)}, which updates the labels without encoding again"
            self._add_problem(area, "stale", reason, hint)

    def _check_flow(self, flow_folder: FlowFolder) -> None:
        self.results.matched_flows += map(flow_folder.name, flow_folder.matches(self.name))
        try:
            self.flow_path = flow_folder.find(self.name)
        except UserError as error:
            self._add_problem("flows", "misfit", error)
            return
        if self.flow_path is None:
            self._check_absence("flows", self.name)
            return
        self._count_if_unannotated("flows")
        hint = f"delete {self.flow_path} and run extract_flows.py again"
        self._check_source("flows", self.name, self.path, hint)
        info, problem = inspect_video(self.flow_path, self.data.decode)
        if problem:
            self._add_problem("flows", "broken", problem, hint)
        if info is None:
            return
        self.num_flow_frames = info.frames
        if settings := settings_from_comment(info.comment):
            self._check_geometry("flows", settings, hint)
            self.results.videos_by_flow_settings[json.dumps(settings, sort_keys=True)].append(self.name)
        source_stem = (info.comment or {}).get("video", annotations.stem(self.name))
        if normalize_name(str(source_stem)) != normalize_name(annotations.stem(self.name)):
            self._add_problem("flows", "misfit", f"{self.flow_path.name} is the flow of {source_stem}", hint)
        if self.num_rgb_frames:
            mismatch = compatibility.flow_mismatch(self.num_rgb_frames, self.frame_indices, info)
            if mismatch:
                self._add_problem("flows", "misfit", mismatch, f"{hint}; give both extractors the same flags")

    def _check_motion(self) -> None:
        motion, hint = self.data.readers["motion"], "create the file again with inference.py --overwrite"
        if self.motion_key not in self.data.keys["motion"]:
            self._check_absence("motion", self.motion_key)
            return
        self._count_if_unannotated("motion")
        self.results.matched_motions.append(self.motion_key)
        if self.flow_path:
            self._check_source("motion", self.motion_key, self.flow_path, hint)
        num_motions, motion_indices = _length_and_indices(motion, self.motion_key)
        mismatch = None
        if self.num_rgb_frames:
            mismatch = compatibility.motion_mismatch(
                self.num_rgb_frames, self.frame_indices, num_motions, motion_indices, motion.path
            )
        elif self.num_flow_frames and num_motions != self.num_flow_frames:
            mismatch = f"has {num_motions} motion embeddings but {self.num_flow_frames} flow frames"
        if mismatch:
            self._add_problem("motion", "misfit", mismatch, hint, self.motion_key)

    def _check_absence(self, area: str, entry_id: str) -> None:
        """Add why an area has no entry, unless it needs none."""
        entry, command = self.data.manifest_entry(area, entry_id), command_for(area)
        if entry and entry.status == "failed":
            self._count_if_unannotated(area)
            hint = f"fix or replace the video, then run {command} --retry-failed"
            self._add_problem(area, "failed", entry.reason, hint, entry_id)
        elif not self.split:
            return
        elif (entry and entry.status == "skipped") or (area in ("flows", "motion") and self._has_no_flow()):
            self.results.report.skipped[area] += 1
        else:
            path = self.data.paths.flows if area == "flows" else self.data.readers[area].path
            hint = f"run {command}"
            if self.data.video_folder and not self.num_files:
                hint = f"add its video, then {hint}"
            elif area == "motion" and self.data.flow_folder and not self.flow_path:
                hint = f"run extract_flows.py, then {hint}"
            self._add_problem(area, "missing", f"is not in {path}", hint, entry_id)

    def _has_no_flow(self) -> bool:
        """Return whether the video is too short for flow."""
        entry = self.data.manifest_entry("flows", self.name)
        return self.num_rgb_frames == 1 or (entry is not None and entry.status == "skipped")

    def _check_source(self, area: str, entry_id: str, source: Path, hint: str) -> None:
        """Add a problem if the source changed after the entry was created, and a note if it was decoded in part."""
        entry = self.data.manifest_entry(area, entry_id)
        if entry and entry.status == "partial":
            self.results.report.add_note(area, f"partial: {entry.reason}", entry_id)
        if change := self._describe_change(area, entry_id, source):
            self._add_problem(area, "stale", change, hint, entry_id)

    def _check_geometry(self, area: str, settings: Mapping[str, Any], hint: str) -> None:
        """Add a problem if an earlier version read the video, with frames other than a player shows."""
        if "sampling" not in settings or is_as_displayed(settings) or not self.num_files:
            return
        with contextlib.suppress(VideoError, OSError):  # reported with the video
            if change := changed_geometry(self.path):
                reason = f"was made by an earlier version, which ignored that {change}"
                self._add_problem(area, "stale", reason, hint)

    def _describe_change(self, area: str, entry_id: str, source: Path) -> str | None:
        """Return how the size or time of a source differs from the manifest; None if they agree or are unknown."""
        entry, state = self.data.manifest_entry(area, entry_id), stat_source(source)
        if not entry or entry.status not in DONE_STATUSES or entry.size is None or state["size"] is None:
            return None
        if state["size"] != entry.size:
            return f"{source} has changed from {entry.size} to {state['size']} bytes since this was created from it"
        return None if state["mtime"] == entry.mtime else f"{source} has been written since this was created from it"

    def _count_if_unannotated(self, area: str) -> None:
        if not self.split:
            self.results.num_unannotated[area] += 1

    def _add_problem(self, area: str, kind: str, reason: object, hint: str = "", entry_id: str = "") -> None:
        self.results.report.add_problem(area, entry_id or self.name, kind, reason, hint)

    def _record_errors(self, area: str, entry_id: str, check: Callable[[], None]) -> None:
        """Run a check, and turn a UserError into a problem of this video."""
        try:
            check()
        except UserError as error:
            hint = f"create the file again with {command_for(area)} --overwrite"
            self._add_problem(area, "broken", error, hint, entry_id)


def inspect_video(path: Path, decode: bool) -> tuple[video.VideoInfo | None, str]:
    """Return (header information, problem or ""); `decode` checks every frame as well as the header."""
    try:
        info = video.probe(path, check_complete=True)
        if not decode:
            return info, ""
        decoder = VideoDecoder(path)
        for _ in decoder:
            pass
        return info, decoder.problem or ("" if decoder.decoded_frames else "has no frames")
    except VideoError as error:
        return None, str(error)
    except OSError as error:
        return None, f"can't be read ({error.strerror})"


def _length_and_indices(reader: store.EmbeddingReader, key: str) -> tuple[int, np.ndarray | None]:
    """Return T and the frame indices, None if unknown. The reader checks that both agree, so one read is enough."""
    indices = reader.frame_indices(key)
    return (reader.length(key) if indices is None else len(indices)), indices
