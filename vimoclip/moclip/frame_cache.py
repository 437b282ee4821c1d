"""Flow frames that are prepared for the student, kept on disk: read instead of decoding and resizing once more.

A file a flow video, `<folder>/<how they were prepared>/<flow video's name>.frames`: a line of JSON that says what the
frames were made of, the Adler-32 of each frame, then the frames, 3 x S x S bytes each. It appears under its name only
when whole; one that was made of another flow video, or is damaged, is not used and is made anew by the next run."""

import contextlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from vimoclip import video
from vimoclip.cli import progress
from vimoclip.errors import UserError, VideoError
from vimoclip.io import atomic, lock
from vimoclip.moclip.flow_pairing import Clip
from vimoclip.runtime.cost_estimate import size as in_words
from vimoclip.runtime.distributed import Group
from vimoclip.training import run_folder

SHAPING = ("image_size", "resize", "resize_mode", "interpolation", "fill_color")  # of a frame, in an encoder's config
LONGEST_FILLING = 86_400.0  # s that a run waits while another one fills the same cache
SPAN = 32  # frames that are prepared at a time
SPARE = 64 * 2**20  # bytes that must be left on the disk


class _Entry(NamedTuple):
    """Where an entry's frames begin, and the checksum of each."""

    begin: int
    checksums: np.ndarray


class FrameCache:
    """Prepared frames of flow videos in a folder. Safe to pickle.

    `config`: an encoder's, which says how frames are prepared for it."""

    def __init__(self, folder: Path, config: Mapping[str, Any]):
        self.folder = folder / run_folder.digest([(key, config[key]) for key in SHAPING])[:16]
        self.shape = (3, *config["image_size"])
        self.frame_bytes = int(np.prod(self.shape))

    def path(self, flow: Path) -> Path:
        """Of a flow video's entry."""
        return self.folder / f"{flow.name}.frames"

    def read(self, flow: Path, start: int, stop: int) -> torch.Tensor | None:
        """(n, 3, S, S) uint8 of frames start..stop; None where there is no entry of this video that is whole."""
        try:
            entry = _known_entry(self.path(flow), _of(flow), self.frame_bytes)
        except LookupError:
            return None
        frames = np.empty((stop - start, self.frame_bytes), np.uint8)
        try:
            with open(self.path(flow), "rb", buffering=0) as file:
                file.seek(entry.begin + start * self.frame_bytes)
                whole = file.readinto(frames.data) == frames.nbytes
        except OSError:
            whole = False
        if not whole or not np.array_equal(_checksums(frames), entry.checksums[start:stop]):
            _known_entry.cache_clear()
            with contextlib.suppress(OSError):
                self.path(flow).unlink()  # the next run makes it again
            return None
        return torch.from_numpy(frames.reshape(-1, *self.shape))

    def has(self, flow: Path) -> bool:
        """Whether there is an entry of this flow video, as it is now, with all frames."""
        return _read_entry(self.path(flow), _of(flow), self.frame_bytes) is not None

    def missing(self, clips: Sequence[Clip]) -> list[Clip]:
        """Those without an entry, each flow video once."""
        return [clip for clip in {clip.flow: clip for clip in clips}.values() if not self.has(clip.flow)]

    def size(self, clips: Sequence[Clip]) -> int:
        """Bytes that entries of these take."""
        return sum((clip.frames - 1) * (self.frame_bytes + 4) + 512 for clip in clips)

    def check_room(self, clips: Sequence[Clip]) -> None:
        """Say how much is to be written. Raises UserError where the disk has not so much room."""
        needed, there = self.size(clips), free(self.folder)
        frames = sum(clip.frames - 1 for clip in clips)
        print(f"{self.folder}: {in_words(needed)} for {frames} frames of {len(clips)} flow videos", flush=True)
        if needed + SPARE > there:
            raise UserError(
                f"has room for {in_words(there)}, but the prepared frames take {in_words(needed)}",
                "name another disk with --cache-frames, or leave it out",
                path=self.folder,
            )

    def write(self, clip: Clip, prepare: Callable[[np.ndarray], torch.Tensor]) -> bool:
        """Make a video's entry; False where one of its frames can't be read. Raises OSError."""
        made_of, path, frames = _of(clip.flow), self.path(clip.flow), clip.frames - 1
        head = _head(made_of, frames)
        checksums = np.zeros(frames, np.uint32)
        try:
            with atomic.new_file(path) as file:
                reader = video.SpanReader(clip.flow)
                file.write(head + checksums.tobytes())
                for start in range(0, frames, SPAN):
                    part = prepare(reader.read(start, min(start + SPAN, frames))).numpy()
                    checksums[start : start + SPAN] = _checksums(part)
                    file.write(part.data)
                    file.check()
                file.seek(len(head))
                file.write(checksums.tobytes())
        except VideoError:
            return False
        return True

    def fill_together(
        self, clips: Sequence[Clip], prepare: Callable[[np.ndarray], torch.Tensor], workers: int, group: Group
    ) -> None:
        """Make what is missing of these, each process its part. Raises UserError where there is no room, OSError."""
        if not group.share(bool(self.missing(clips)) if group.main else False):
            return  # other runs may be reading it too
        with lock.only_process(self.folder, wait=LONGEST_FILLING) if group.main else contextlib.nullcontext():
            missing = self.missing(clips) if group.main else []
            if missing:
                self.check_room(missing)
            missing = group.share(missing)
            if missing:
                self.fill(missing[group.rank :: group.size], prepare, workers)
            group.barrier()

    def fill(self, clips: Sequence[Clip], prepare: Callable[[np.ndarray], torch.Tensor], workers: int) -> None:
        """Make the entries of these, by worker processes. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        making = _Making(self, clips, prepare)
        loader = DataLoader(making, batch_size=None, num_workers=workers, generator=torch.Generator())
        for error in progress(loader, len(clips), "video", "preparing frames"):
            if error is not None:
                raise OSError(*error)


class _Making(Dataset):
    """Making an entry as an item: None, or what OSError said, which no worker can hand on as it is."""

    def __init__(self, cache: FrameCache, clips: Sequence[Clip], prepare: Callable[[np.ndarray], torch.Tensor]):
        self.cache, self.clips, self.prepare = cache, clips, prepare

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[int | None, str, str] | None:
        try:
            self.cache.write(self.clips[index], self.prepare)
        except OSError as error:
            return error.errno, error.strerror or str(error), str(error.filename)
        return None


def _checksums(frames: np.ndarray) -> np.ndarray:
    """(n,) uint32 of n frames. Adler-32: damage is found as well as by CRC-32, in a third of the time."""
    return np.array([zlib.adler32(frame.data) for frame in frames], np.uint32)


def free(folder: Path) -> int:
    """Bytes of room on a folder's disk; the folder may not be there yet."""
    place = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(place).free


def _of(flow: Path) -> tuple[int, int] | None:
    """What tells a flow video from another of its name: bytes and time of change; None where it is gone."""
    try:
        state = os.stat(flow)
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns


def _head(made_of: tuple[int, int] | None, frames: int) -> bytes:
    size, changed = made_of or (0, 0)
    return json.dumps({"flow_bytes": size, "flow_changed_ns": changed, "frames": frames}).encode() + b"\n"


@lru_cache(maxsize=4096)
def _known_entry(path: Path, made_of: tuple[int, int] | None, frame_bytes: int) -> _Entry:
    """As `_read_entry`, once. Raises LookupError, which is not remembered."""
    if (entry := _read_entry(path, made_of, frame_bytes)) is None:
        raise LookupError(path)
    return entry


def _read_entry(path: Path, made_of: tuple[int, int] | None, frame_bytes: int) -> _Entry | None:
    """Of a file that was made of this and is as long as its head says."""
    try:
        with open(path, "rb") as file:
            head = file.readline(512)
            frames = json.loads(head)["frames"]
            if made_of is None or head != _head(made_of, frames):
                return None
            begin = len(head) + 4 * frames
            if os.fstat(file.fileno()).st_size != begin + frames * frame_bytes:
                return None
            return _Entry(begin, np.frombuffer(file.read(4 * frames), np.uint32))
    except (OSError, ValueError, KeyError, TypeError):
        return None
