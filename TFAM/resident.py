"""Splits whose embeddings stay in the memory of a GPU, where batches are gathered by row numbers."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from TFAM.data import FusionBatch, PairedEmbeddings, collate
from TFAM.packing import PackedTokens, Pooling, padded_rows, row_numbers
from vimoclip import cli
from vimoclip.runtime.device import copy_to_device, usable_memory
from vimoclip.runtime.distributed import ProcessGroup
from vimoclip.store import EmbeddingReader
from vimoclip.training.data_parallel import make_loader, sequential_batches
from vimoclip.training.trainer import RunOptions

MEMORY_SHARE = 0.5  # of a GPU's usable memory, for the embeddings of both splits


class ResidentSplit:
    """Embeddings, in the dtype of their files, and labels of a split on a device.

    The motion is that of the data set's items, so zeroed or shuffled where data.motion says so. Raises UserError for a
    video that can't be read."""

    def __init__(self, dataset: PairedEmbeddings, batch_size: int, run: RunOptions):
        self.videos, self.pooling, self.device = [video for video, _ in dataset.keys], dataset.pooling, run.device
        self.lengths = video_lengths(dataset)
        self.starts = self.lengths.cumsum() - self.lengths  # of each video in `rgb`
        num_rows, num_classes = int(self.lengths.sum()), len(dataset.rgb.labels(self.videos[0]))
        self.rgb = torch.empty(num_rows, dataset.rgb.dim, dtype=row_dtype(dataset.rgb), device=run.device)
        self.labels = torch.empty(len(self.videos), num_classes, device=run.device)
        self.motion: torch.Tensor | None = None
        if dataset.motion is not None:
            shape, dtype = (num_rows - len(self.videos), dataset.motion.dim), row_dtype(dataset.motion)
            self.motion = torch.empty(shape, dtype=dtype, device=run.device)
        self._load(dataset, batch_size, run)

    def _load(self, dataset: PairedEmbeddings, batch_size: int, run: RunOptions) -> None:
        """Read all videos like an epoch does, a batch at a time, in their order."""
        unpadded = copy.copy(dataset)
        unpadded.pooling = Pooling.MASKED
        batches = sequential_batches(len(dataset), batch_size, ProcessGroup())
        loader: Any = make_loader(unpadded, batches, run.num_workers, run.device)
        if run.group.is_main:
            loader = cli.progress(loader, len(batches), "step", "loading embeddings")
        first = start = 0  # video, and its row in `rgb`
        for batch in loader:
            last, stop = first + len(batch.videos), start + len(batch.rgb.x)
            self.rgb[start:stop] = copy_to_device(batch.rgb.x, run.device)
            self.labels[first:last] = copy_to_device(batch.labels, run.device)
            if self.motion is not None:
                self.motion[start - first : stop - last] = copy_to_device(batch.motion.x, run.device)
            first, start = last, stop

    def batch(self, indices: Sequence[int]) -> FusionBatch:
        """Return the batch that `PairedEmbeddings.collate` makes of these videos, on the device."""
        if not indices:
            return collate([])
        chosen = np.array(indices, np.int64)
        streams = [(self.rgb, self.starts[chosen], self.lengths[chosen])]
        if self.motion is not None:
            streams.append((self.motion, self.starts[chosen] - chosen, self.lengths[chosen] - 1))
        integers = [chosen, *(part for _, *rows in streams for part in (row_numbers(*rows), padded_rows(rows[1])))]
        numbers = copy_to_device(torch.from_numpy(np.concatenate(integers)), self.device)  # all in one copy
        videos, *on_device = numbers.split([len(part) for part in integers])
        packed = [
            self._pack(rows.index_select(0, on_device[2 * i]).float(), on_device[2 * i + 1], lengths)
            for i, (rows, _, lengths) in enumerate(streams)
        ]
        names = [self.videos[index] for index in indices]
        return FusionBatch(names, packed[0], packed[1] if packed[1:] else None, self.labels.index_select(0, videos))

    def _pack(self, x: torch.Tensor, rows: torch.Tensor, lengths: np.ndarray) -> PackedTokens:
        """Return the result of `packing.pack`; `rows`: rows of the padded batch."""
        counts = lengths.tolist()
        if self.pooling == Pooling.MASKED:
            return PackedTokens(x, counts, None, counts)
        longest = max(counts)
        padded = x.new_zeros(len(counts) * longest, x.shape[1]).index_copy_(0, rows, x)
        key_mask = torch.from_numpy((np.arange(longest) < lengths[:, None]).ravel())
        return PackedTokens(padded, [longest] * len(counts), key_mask, counts)


class ResidentLoader:
    """Batches of a split on its device. `batches`: lists of indices, or a sampler of them."""

    def __init__(self, split: ResidentSplit, batches: Any):
        self.split, self.batches = split, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[FusionBatch]:
        return map(self.split.batch, self.batches)


def load_splits(
    datasets: Sequence[PairedEmbeddings], batch_size: int, run: RunOptions
) -> dict[PairedEmbeddings, ResidentSplit]:
    """Load the data sets to the run's GPU, if they fit into MEMORY_SHARE of its usable memory; else return {}.

    Raises UserError."""
    if run.device.type != "cuda":
        return {}
    size = sum(map(resident_bytes, datasets))
    limit = MEMORY_SHARE * usable_memory(run.device)
    fits = all(run.group.gather(size <= limit))  # all processes have measured before one of them loads
    place = f"stay in the memory of {run.device}" if fits else "are read again in each epoch"
    sizes = f"{cli.format_bytes(size)}, {cli.format_bytes(limit)} fit"
    print(f"embeddings of both splits: {sizes}; they {place}", flush=True)
    return {dataset: ResidentSplit(dataset, batch_size, run) for dataset in datasets} if fits else {}


def resident_bytes(dataset: PairedEmbeddings) -> int:
    """Return the size of a split's embeddings on a device."""
    num_rows, readers = int(video_lengths(dataset).sum()), (dataset.rgb, dataset.motion)
    return sum(num_rows * reader.dim * row_dtype(reader).itemsize for reader in readers if reader is not None)


def video_lengths(dataset: PairedEmbeddings) -> np.ndarray:
    """Return the number of frames of each video."""
    return np.array(list(dataset.frames().values()), np.int64)


def row_dtype(reader: EmbeddingReader) -> torch.dtype:
    """Return the dtype in which a file's embeddings, which are read as float32, are kept without loss."""
    return torch.float16 if reader.dtype == "float16" else torch.float32
