"""Looking at one video after the other, each in every area: the part of a check that is done in parallel."""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vimoclip import annotations, store, video
from vimoclip.check import compatibility
from vimoclip.check.dataset import DataSet, maker, rgb_area
from vimoclip.check.problems import Findings
from vimoclip.errors import UserError, VideoError
from vimoclip.extraction.manifest import DONE, source_state
from vimoclip.flow.flow_lookup import FlowFolder, settings_of
from vimoclip.video.decoder import Decoding

Task = Sequence[str] | str  # videos, or the area of a file of embeddings


@dataclass
class Seen:
    """What came of looking: problems, and what can only be judged when all has been seen.

    `flows`: flow videos that belong to a video; `made`: settings as JSON -> videos whose flow was made so; `motions`:
    keys that belong to a video; `unannotated`: area -> entries of other videos; `damage`: area -> what verify said."""

    findings: Findings = field(default_factory=Findings)
    flows: list[str] = field(default_factory=list)
    made: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    motions: list[str] = field(default_factory=list)
    unannotated: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    damage: dict[str, list[str]] = field(default_factory=dict)

    def add(self, other: "Seen") -> None:
        """Take over what was seen elsewhere."""
        self.findings.add(other.findings)
        self.flows += other.flows
        self.motions += other.motions
        for made, names in other.made.items():
            self.made[made] += names
        for area, count in other.unannotated.items():
            self.unannotated[area] += count
        self.damage |= other.damage


class Look:
    """What a worker is asked. Can be pickled."""

    def __init__(self, data: DataSet):
        self.data = data

    def __call__(self, task: Task) -> Seen:
        seen = Seen()
        if isinstance(task, str):
            seen.damage[task] = store.verify(self.data.readers[task].path)
            return seen
        motion_name = compatibility.motion_names(self.data.motion) if self.data.motion else annotations.stem
        for name in task:
            _Video(self.data, name, motion_name(name), seen).look()
        return seen


class _Video:
    """One video in every area."""

    def __init__(self, data: DataSet, name: str, key: str, seen: Seen):
        self.data, self.name, self.key, self.seen, self.findings = data, name, key, seen, seen.findings
        self.path = data.places.videos / name
        self.split = data.split_of.get(name, "")
        self.rgb = rgb_area(self.split)
        self.frames = self.flow_frames = 0  # where they are known
        self.indices: np.ndarray | None = None
        self.flow: Path | None = None

    def look(self) -> None:
        """Note what is wrong with it, area by area, in the order in which one is made from the other."""
        if self.data.listed is not None:
            self._look_at_video()
        if self.rgb in self.data.readers:
            self._guarded(self.rgb, self.name, self._look_at_embeddings)
        if self.data.flows:
            self._look_at_flow(self.data.flows)
        if self.data.motion:
            self._guarded("motion", self.key, self._look_at_motion)

    def _look_at_video(self) -> None:
        assert self.data.listed is not None
        if self.name in self.data.others:
            reason = "isn't named like a video, so extract_flows.py leaves it out"
            self._wrong("videos", "misfit", reason, "rename it and its line, to .mp4 or what it is")
        elif self.name not in self.data.listed:
            hint = "put it there, or take its line out of the annotations"
            self._wrong("videos", "missing", f"isn't in {self.data.places.videos}", hint)
        elif self.data.decode or not self._was_decoded():
            _, problem = examine(self.path, self.data.decode)
            if problem:
                self._wrong("videos", "broken", problem, "get it anew, or take its line out of the annotations")

    def _was_decoded(self) -> bool:
        """Whether an extraction has already read this very file to its end."""
        entry = self.data.entry(self.rgb, self.name)
        if entry is None or entry.status not in DONE or entry.size is None:
            return False
        same_size = source_state(self.path)["size"] == entry.size
        return same_size and not self._changed(self.rgb, self.name, self.path)

    def _look_at_embeddings(self) -> None:
        if self.name not in self.data.keys[self.rgb]:
            self._absent(self.rgb, self.name)
            return
        self._compare_source(self.rgb, self.name, self.path, f"{maker(self.rgb)} --overwrite makes the file anew")
        reader = self.data.readers[self.rgb]
        self.frames, self.indices = _length(reader, self.name)
        given, wanted = reader.labels(self.name), self.data.annotations.multi_hot(self.split, self.name)
        if len(given) == len(wanted) and not np.array_equal(given, wanted):  # another length is said of the file
            names = [" ".join(map(str, np.flatnonzero(labels))) or "none" for labels in (given, wanted)]
            reason = f"its labels are {names[0]} in the file but {names[1]} in the annotations"
            self._wrong(self.rgb, "stale", reason, f"{maker(self.rgb)} takes over the labels without embedding again")

    def _look_at_flow(self, flows: FlowFolder) -> None:
        self.seen.flows += [path.name for path in flows.matches(self.name)]
        try:
            self.flow = flows.find(self.name)
        except UserError as error:
            self._wrong("flows", "misfit", error)
            return
        if self.flow is None:
            self._absent("flows", self.name)
            return
        self._count("flows")
        again = f"delete {self.flow} and run extract_flows.py again"
        self._compare_source("flows", self.name, self.path, again)
        info, problem = examine(self.flow, self.data.decode)
        if problem:
            self._wrong("flows", "broken", problem, again)
        if info is None:
            return
        self.flow_frames = info.frames
        if made := settings_of(info.comment):
            self.seen.made[json.dumps(made, sort_keys=True)].append(self.name)
        said = (info.comment or {}).get("video", annotations.stem(self.name))
        if said != annotations.stem(self.name):
            self._wrong("flows", "misfit", f"{self.flow.name} says that it shows {said}", again)
        if self.frames and (misfit := compatibility.flow_misfit(self.frames, self.indices, info)):
            self._wrong("flows", "misfit", misfit, f"{again}; give both extractors the same flags")

    def _look_at_motion(self) -> None:
        motion, hint = self.data.readers["motion"], "inference.py --overwrite makes the file anew"
        if self.key not in self.data.keys["motion"]:
            self._absent("motion", self.key)
            return
        self._count("motion")
        self.seen.motions.append(self.key)
        if self.flow:
            self._compare_source("motion", self.key, self.flow, hint)
        motions, shown = _length(motion, self.key)
        misfit = None
        if self.frames:
            misfit = compatibility.motion_misfit(self.frames, self.indices, motions, shown, motion.path)
        elif self.flow_frames and motions != self.flow_frames:
            misfit = f"there are {motions} motions but {self.flow_frames} flow frames"
        if misfit:
            self._wrong("motion", "misfit", misfit, hint, self.key)

    def _absent(self, area: str, of: str) -> None:
        """Say why there is nothing, unless that is right."""
        entry, script = self.data.entry(area, of), maker(area)
        if entry and entry.status == "failed":
            self._count(area)
            hint = f"mend or replace the video, then run {script} --retry-failed"
            self._wrong(area, "failed", entry.reason, hint, of)
        elif not self.split:
            return
        elif (entry and entry.status == "skipped") or (area in ("flows", "motion") and self._is_still()):
            self.findings.skipped[area] += 1
        else:
            place = self.data.places.flows if area == "flows" else self.data.readers[area].path
            self._wrong(area, "missing", f"isn't in {place}", f"{self._first(area)}run {script}", of)

    def _is_still(self) -> bool:
        """Whether it is so short that there is no flow."""
        entry = self.data.entry("flows", self.name)
        return self.frames == 1 or (entry is not None and entry.status == "skipped")

    def _first(self, area: str) -> str:
        """What has to be done before what an area misses can be made."""
        if self.data.listed is not None and self.name not in self.data.listed:
            return "put its video there, then "
        return "after extract_flows.py, " if area == "motion" and self.data.flows and not self.flow else ""

    def _compare_source(self, area: str, of: str, source: Path, hint: str) -> None:
        entry = self.data.entry(area, of)
        if entry and entry.status == "partial":
            self.findings.say(area, f"partial: {entry.reason}", of)
        if changed := self._changed(area, of, source):
            self._wrong(area, "stale", changed, hint, of)

    def _changed(self, area: str, of: str, source: Path) -> str | None:
        """How a source is another one than what was made from it, by its line in the manifest; None where it isn't."""
        entry, state = self.data.entry(area, of), source_state(source)
        if not entry or entry.status not in DONE or entry.size is None or state["size"] is None:
            return None
        if state["size"] != entry.size:
            return f"{source} has {state['size']} bytes now, but had {entry.size} when this was made from it"
        return None if state["mtime"] == entry.mtime else f"{source} was written again after this was made from it"

    def _count(self, area: str) -> None:
        if not self.split:
            self.seen.unannotated[area] += 1

    def _wrong(self, area: str, kind: str, reason: object, hint: str = "", of: str = "") -> None:
        self.findings.wrong(area, of or self.name, kind, reason, hint)

    def _guarded(self, area: str, of: str, look: Callable[[], None]) -> None:
        """Damage is a problem of this video, never the end of the check."""
        try:
            look()
        except UserError as error:
            self._wrong(area, "broken", error, f"{maker(area)} --overwrite makes the file anew", of)


def examine(path: Path, decode: bool) -> tuple[video.Info | None, str]:
    """What a video's header says, and what is wrong with it, if anything; with `decode`, in any frame."""
    try:
        info = video.probe(path, whole=True)
        if not decode:
            return info, ""
        decoding = Decoding(path)
        for _ in decoding:
            pass
        return info, decoding.problem or ("" if decoding.decoded else "has no frames")
    except VideoError as error:
        return None, str(error)
    except OSError as error:
        return None, f"can't be read ({error.strerror})"


def _length(reader: store.Reader, key: str) -> tuple[int, np.ndarray | None]:
    """T and the frames' indices. (To ask for the indices alone is quicker: their number is compared with T anyway.)"""
    indices = reader.frame_indices(key)
    return (reader.length(key) if indices is None else len(indices)), indices
