"""Cache of preprocessed flow frames on disk, which replaces decoding and resizing.

One file per flow video, `<folder>/<hash of the preprocessing>/<hash of the folder of flow videos>/<stem>.npy`: a NumPy
array (frames, 3, S, S) of uint8, then SIGNATURE_BYTES that identify the flow video. Files are written atomically. An
entry that is incomplete, or that belongs to another version of the flow video, is ignored, and the next run writes it
again."""

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from vimoclip.cli import format_bytes, progress
from vimoclip.errors import UserError, VideoError
from vimoclip.io import atomic, lock
from vimoclip.moclip.dataset import TrainingVideo
from vimoclip.runtime.distributed import ProcessGroup
from vimoclip.training import run_folder
from vimoclip.video import RandomAccessReader

# the keys of an encoder's config that determine a preprocessed frame
PREPROCESSING_KEYS = ("image_size", "resize", "resize_mode", "interpolation", "fill_color")
FILL_TIMEOUT = 86_400.0  # seconds to wait while another run fills the same cache
FRAMES_PER_READ = 32  # frames decoded and preprocessed at a time
RESERVED_BYTES = 64 * 2**20  # bytes that must stay free on the disk
SIGNATURE_BYTES = 64  # at the end of an entry
HEADER_BYTES = 128  # of a .npy file


class FrameCache:
    """Preprocessed frames of flow videos in a folder. Can be pickled.

    `config`: of an encoder; it determines the preprocessing."""

    def __init__(self, folder: Path, config: Mapping[str, Any]):
        self.folder = folder / run_folder.digest([(key, config[key]) for key in PREPROCESSING_KEYS])[:16]
        self.frame_shape = (3, *config["image_size"])
        self.frame_bytes = int(np.prod(self.frame_shape))

    def entry_path(self, flow_path: Path) -> Path:
        return self.folder / run_folder.digest(str(flow_path.parent.resolve()))[:16] / f"{flow_path.stem}.npy"

    def read(self, flow_path: Path, start: int, stop: int) -> torch.Tensor | None:
        """Read frames start..stop as (n, 3, S, S) uint8; return None if there is no entry of this flow video."""
        try:
            with open(self.entry_path(flow_path), "rb") as file:
                if not _has_signature(file, _file_signature(flow_path)):
                    return None
                # no memory map: an I/O error would kill the process instead of raising OSError
                np.lib.format.read_magic(file)
                np.lib.format.read_array_header_1_0(file)
                file.seek(start * self.frame_bytes, os.SEEK_CUR)
                frames = np.fromfile(file, np.uint8, (stop - start) * self.frame_bytes)
            return torch.from_numpy(frames.reshape(stop - start, *self.frame_shape))
        except (OSError, ValueError):
            return None

    def has_entry(self, flow_path: Path) -> bool:
        """Return whether the flow video's current version has an entry."""
        try:
            with open(self.entry_path(flow_path), "rb") as file:
                return _has_signature(file, _file_signature(flow_path))
        except OSError:
            return False

    def uncached_videos(self, videos: Sequence[TrainingVideo]) -> list[TrainingVideo]:
        """Return the videos without an entry, each flow video once."""
        unique = {video.flow_path: video for video in videos}.values()
        return [video for video in unique if not self.has_entry(video.flow_path)]

    def required_bytes(self, videos: Sequence[TrainingVideo]) -> int:
        """Return an upper bound of the size of these videos' entries."""
        return sum((video.num_frames - 1) * self.frame_bytes + HEADER_BYTES + SIGNATURE_BYTES for video in videos)

    def check_disk_space(self, videos: Sequence[TrainingVideo]) -> None:
        """Print the size of these videos' entries. Raises UserError if the disk has too little space."""
        required, available = self.required_bytes(videos), free_bytes(self.folder)
        frames = sum(video.num_frames - 1 for video in videos)
        print(f"{self.folder}: {format_bytes(required)} for {frames} frames of {len(videos)} flow videos", flush=True)
        if required + RESERVED_BYTES > available:
            raise UserError(
                f"has {format_bytes(available)} of free space, but the frames take {format_bytes(required)}",
                "use --cache-frames with another disk, or without it",
                path=self.folder,
            )

    def write_entry(self, training_video: TrainingVideo, preprocess: Callable[[np.ndarray], torch.Tensor]) -> bool:
        """Write a video's entry. Returns False if one of its frames can't be decoded. Raises OSError."""
        flow_path, num_frames = training_video.flow_path, training_video.num_frames - 1
        header = {"descr": "|u1", "fortran_order": False, "shape": (num_frames, *self.frame_shape)}
        try:
            with atomic.open_atomic(self.entry_path(flow_path)) as file:
                signature = _file_signature(flow_path)  # first: the video may be replaced meanwhile
                reader = RandomAccessReader(flow_path)
                np.lib.format.write_array_header_1_0(file, header)
                for start in range(0, num_frames, FRAMES_PER_READ):
                    stop = min(start + FRAMES_PER_READ, num_frames)
                    file.write(preprocess(reader.read(start, stop)).numpy().data)
                    file.check()
                file.write(signature)
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
                for path in self.folder.glob("*.frames"):  # entries in the format of earlier versions
                    path.unlink()
                self.check_disk_space(uncached)
            uncached = group.broadcast(uncached)
            if uncached:
                self.fill(uncached[group.rank :: group.size], preprocess, workers)
            group.barrier()

    def fill(
        self, videos: Sequence[TrainingVideo], preprocess: Callable[[np.ndarray], torch.Tensor], workers: int
    ) -> None:
        """Write the entries of these videos with worker processes. Raises OSError."""
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


def _file_signature(path: Path) -> bytes:
    """Return a hash of size and modification time of a file. Raises OSError."""
    state = os.stat(path)
    return run_folder.digest((state.st_size, state.st_mtime_ns)).encode()


def _has_signature(file: IO[bytes], signature: bytes) -> bool:
    """Return whether a file ends with the signature, and go to its start. Raises OSError."""
    file.seek(-SIGNATURE_BYTES, os.SEEK_END)
    is_same = file.read() == signature
    file.seek(0)
    return is_same
