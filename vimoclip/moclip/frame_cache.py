"""Cache of preprocessed flow frames on disk, which replaces decoding and resizing.

One file per flow video, `<folder>/<hash of the preprocessing>/<name of the flow video>.frames`: a line of JSON that
identifies the flow video, the Adler-32 checksum of each frame (uint32), then the frames, 3 x S x S bytes each. Files
are written atomically. An entry that is damaged, or that belongs to another version of the flow video, is ignored, and
the next run writes it again."""

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

from vimoclip.cli import format_bytes, progress
from vimoclip.errors import UserError, VideoError
from vimoclip.io import atomic, lock
from vimoclip.moclip.flow_pairing import TrainingVideo
from vimoclip.runtime.distributed import ProcessGroup
from vimoclip.training import run_folder
from vimoclip.video import RandomAccessReader

# the keys of an encoder's config that determine a preprocessed frame
PREPROCESSING_KEYS = ("image_size", "resize", "resize_mode", "interpolation", "fill_color")
FILL_TIMEOUT = 86_400.0  # seconds to wait while another run fills the same cache
FRAMES_PER_READ = 32  # frames decoded and preprocessed at a time
RESERVED_BYTES = 64 * 2**20  # bytes that must stay free on the disk


class _CacheEntry(NamedTuple):
    """Offset of the first frame in an entry's file, and the checksum of each frame."""

    frames_offset: int
    checksums: np.ndarray


class FrameCache:
    """Preprocessed frames of flow videos in a folder. Can be pickled.

    `config`: of an encoder; it determines the preprocessing."""

    def __init__(self, folder: Path, config: Mapping[str, Any]):
        self.folder = folder / run_folder.digest([(key, config[key]) for key in PREPROCESSING_KEYS])[:16]
        self.frame_shape = (3, *config["image_size"])
        self.frame_bytes = int(np.prod(self.frame_shape))

    def entry_path(self, flow_path: Path) -> Path:
        return self.folder / f"{flow_path.name}.frames"

    def read(self, flow_path: Path, start: int, stop: int) -> torch.Tensor | None:
        """Read frames start..stop as (n, 3, S, S) uint8; return None if there is no intact entry of this flow video.

        Deletes a damaged entry, so that the next run writes it again."""
        path = self.entry_path(flow_path)
        try:
            entry = _cached_entry(path, _file_signature(flow_path), self.frame_bytes)
        except LookupError:
            return None
        frames = np.empty((stop - start, self.frame_bytes), np.uint8)
        try:
            with open(path, "rb", buffering=0) as file:
                file.seek(entry.frames_offset + start * self.frame_bytes)
                is_complete = file.readinto(frames.data) == frames.nbytes
        except OSError:
            is_complete = False
        if not is_complete or not np.array_equal(_checksums(frames), entry.checksums[start:stop]):
            _cached_entry.cache_clear()
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        return torch.from_numpy(frames.reshape(-1, *self.frame_shape))

    def has_entry(self, flow_path: Path) -> bool:
        """Return whether the flow video's current version has a complete entry; checksums are not compared."""
        return _read_entry(self.entry_path(flow_path), _file_signature(flow_path), self.frame_bytes) is not None

    def uncached_videos(self, videos: Sequence[TrainingVideo]) -> list[TrainingVideo]:
        """Return the videos without an entry, each flow video once."""
        unique = {video.flow_path: video for video in videos}.values()
        return [video for video in unique if not self.has_entry(video.flow_path)]

    def required_bytes(self, videos: Sequence[TrainingVideo]) -> int:
        """Return an upper bound of the size of these videos' entries."""
        return sum((video.num_frames - 1) * (self.frame_bytes + 4) + 512 for video in videos)

    def check_disk_space(self, videos: Sequence[TrainingVideo]) -> None:
        """Print the size of these videos' entries. Raises UserError if the disk has too little space."""
        required, available = self.required_bytes(videos), free_bytes(self.folder)
        frames = sum(video.num_frames - 1 for video in videos)
        print(f"{self.folder}: {format_bytes(required)} for {frames} frames of {len(videos)} flow videos", flush=True)
        if required + RESERVED_BYTES > available:
            raise UserError(
                f"has room for {format_bytes(available)}, but the prepared frames take {format_bytes(required)}",
                "name another disk with --cache-frames, or leave it out",
                path=self.folder,
            )

    def write_entry(self, training_video: TrainingVideo, preprocess: Callable[[np.ndarray], torch.Tensor]) -> bool:
        """Write a video's entry. Returns False if one of its frames can't be decoded. Raises OSError."""
        flow_path, num_frames = training_video.flow_path, training_video.num_frames - 1
        header = _header(_file_signature(flow_path), num_frames)
        checksums = np.zeros(num_frames, np.uint32)
        try:
            with atomic.open_atomic(self.entry_path(flow_path)) as file:
                reader = RandomAccessReader(flow_path)
                file.write(header + checksums.tobytes())
                for start in range(0, num_frames, FRAMES_PER_READ):
                    stop = min(start + FRAMES_PER_READ, num_frames)
                    frames = preprocess(reader.read(start, stop)).numpy()
                    checksums[start:stop] = _checksums(frames)
                    file.write(frames.data)
                    file.check()
                file.seek(len(header))
                file.write(checksums.tobytes())
        except VideoError:
            return False
        return True

    def fill_distributed(
        self,
        videos: Sequence[TrainingVideo],
        preprocess: Callable[[np.ndarray], torch.Tensor],
        workers: int,
        group: ProcessGroup,
    ) -> None:
        """Write the missing entries under a lock, each process a subset. Raises UserError, OSError."""
        if not group.broadcast(bool(self.uncached_videos(videos)) if group.is_main else False):
            return  # without the lock: other runs may be reading
        with lock.exclusive_lock(self.folder, timeout=FILL_TIMEOUT) if group.is_main else contextlib.nullcontext():
            uncached = self.uncached_videos(videos) if group.is_main else []
            if uncached:
                self.check_disk_space(uncached)
            uncached = group.broadcast(uncached)
            if uncached:
                self.fill(uncached[group.rank :: group.size], preprocess, workers)
            group.barrier()

    def fill(
        self, videos: Sequence[TrainingVideo], preprocess: Callable[[np.ndarray], torch.Tensor], workers: int
    ) -> None:
        """Write the entries of these videos with worker processes. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        dataset = _EntryWriter(self, videos, preprocess)
        loader = DataLoader(dataset, batch_size=None, num_workers=workers, generator=torch.Generator())
        for error in progress(loader, len(videos), "video", "preparing frames"):
            if error is not None:
                raise OSError(*error)


class _EntryWriter(Dataset):
    """Data set that writes entry i when item i is read, so that a DataLoader's workers write the entries.

    An item is None, or the arguments of an OSError: workers do not pass on an exception's type."""

    def __init__(
        self, cache: FrameCache, videos: Sequence[TrainingVideo], preprocess: Callable[[np.ndarray], torch.Tensor]
    ):
        self.cache, self.videos, self.preprocess = cache, videos, preprocess

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> tuple[int | None, str, str] | None:
        try:
            self.cache.write_entry(self.videos[index], self.preprocess)
        except OSError as error:
            return error.errno, error.strerror or str(error), str(error.filename)
        return None


def free_bytes(folder: Path) -> int:
    """Return the free space on the disk of a folder that may not exist yet."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def _checksums(frames: np.ndarray) -> np.ndarray:
    """Return (n,) uint32 checksums of n frames. Adler-32 takes a third of the time of CRC-32."""
    return np.array([zlib.adler32(frame.data) for frame in frames], np.uint32)


def _file_signature(path: Path) -> tuple[int, int] | None:
    """Return size and modification time (ns) of a file; None if it does not exist."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns


def _header(signature: tuple[int, int] | None, num_frames: int) -> bytes:
    size, modified_ns = signature or (0, 0)
    return json.dumps({"flow_bytes": size, "flow_changed_ns": modified_ns, "frames": num_frames}).encode() + b"\n"


@lru_cache(maxsize=4096)
def _cached_entry(path: Path, signature: tuple[int, int] | None, frame_bytes: int) -> _CacheEntry:
    """Return the cached result of `_read_entry`. Raises LookupError if there is no entry: exceptions are not cached."""
    if (entry := _read_entry(path, signature, frame_bytes)) is None:
        raise LookupError(path)
    return entry


def _read_entry(path: Path, signature: tuple[int, int] | None, frame_bytes: int) -> _CacheEntry | None:
    """Read header and checksums of an entry; return None if the signature or the file's length does not match."""
    try:
        with open(path, "rb") as file:
            header = file.readline(512)
            num_frames = json.loads(header)["frames"]
            if signature is None or header != _header(signature, num_frames):
                return None
            frames_offset = len(header) + 4 * num_frames
            if os.fstat(file.fileno()).st_size != frames_offset + num_frames * frame_bytes:
                return None
            return _CacheEntry(frames_offset, np.frombuffer(file.read(4 * num_frames), np.uint32))
    except (OSError, ValueError, KeyError, TypeError):
        return None
