"""Encode the frames of many videos in batches of one fixed size."""

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from vimoclip.clip.encoder import EncodeFunction
from vimoclip.runtime.device import FetchFunction, InputStream, copy_to_host

CPU = torch.device("cpu")


class BatchEncoder:
    """Collects frames and encodes them in batches of one size, which may mix frames of several videos.

    As all batches have one size, the embedding of a frame has the same bytes on one machine regardless of the other
    frames in its batch. `may_adjust_size`: take a larger batch if one of this size has positions that give other last
    bits (see `deterministic_batch_size`). Callbacks are called in the order in which they were added.

    `prepare`: from the frames that are added to (n, 3, S, S) uint8. On a CUDA GPU (`device`) it copies them there while
    the GPU computes the batch before, and `encode` returns embeddings there. They are fetched when the next batch is
    in the GPU's queue, so the GPU does not wait for the CPU."""

    def __init__(
        self,
        encode: EncodeFunction,
        batch_size: int,
        may_adjust_size: bool = True,
        prepare: Callable[[Any], torch.Tensor] = lambda frames: frames,
        device: torch.device = CPU,
    ):
        self.encode, self.batch_size, self.may_adjust_size, self.prepare = encode, batch_size, may_adjust_size, prepare
        self._inputs = InputStream(device)
        self._max_launched = launched_batches(device)
        self._launched = deque[tuple[FetchFunction, int]]()  # embeddings of a batch, and its number of frames
        self._batches = deque[torch.Tensor]()  # the first one is filled, the others are launched
        self._filled = 0
        # (number of frames in the batch, callback for their embeddings) or (None, callback without arguments)
        self._callbacks = deque[tuple[int | None, Callable[..., object]]]()

    def add_frames(self, frames: Any, on_embeddings: Callable[[np.ndarray], object]) -> None:
        """Add frames; `on_embeddings` gets their embeddings in one or more (m, D) arrays."""
        with self._inputs.use():
            frames = self.prepare(frames)
        while len(frames):
            if not self._batches:
                self._allocate(frames)
            chunk = frames[: self.batch_size - self._filled]
            with self._inputs.use():
                self._batches[0][self._filled : self._filled + len(chunk)] = chunk
            self._filled += len(chunk)
            self._callbacks.append((len(chunk), on_embeddings))
            frames = frames[len(chunk) :]
            if self._filled == self.batch_size:
                self._launch()
                self._deliver(self._max_launched)

    def add_callback(self, callback: Callable[[], object]) -> None:
        """Add a function to call after the callbacks of the frames added before."""
        if self._filled or self._launched:
            self._callbacks.append((None, callback))
        else:
            callback()

    def flush(self) -> None:
        """Encode the frames of an incomplete batch, padded with zeros, and call all callbacks."""
        if self._filled:
            self._launch()
        self._deliver(0)

    def _allocate(self, frames: torch.Tensor) -> None:
        self.batch_size = deterministic_batch_size(self.encode, frames[:1], self.batch_size, self.may_adjust_size)
        with self._inputs.use():
            for _ in range(self._max_launched + 1):
                self._batches.append(frames.new_zeros((self.batch_size, *frames.shape[1:])))

    def _launch(self) -> None:
        """Encode the batch. The next one takes the place of the oldest, whose embeddings are fetched by then."""
        batch, count = self._batches[0], self._filled
        if count < len(batch):
            with self._inputs.use():
                batch[count:] = 0
        self._inputs.join(batch)
        self._launched.append((copy_to_host(self.encode(batch)), count))
        self._batches.rotate(-1)
        self._filled = 0

    def _deliver(self, max_launched: int) -> None:
        """Fetch embeddings until at most `max_launched` batches remain; call the callbacks up to those of their frames.

        Callbacks without frames that follow are called too."""
        while len(self._launched) > max_launched:
            fetch, remaining = self._launched.popleft()
            embeddings = fetch()[:remaining]
            while remaining or (self._callbacks and self._callbacks[0][0] is None):
                frames, callback = self._callbacks.popleft()
                if frames is None:
                    callback()
                else:
                    callback(embeddings[len(embeddings) - remaining :][:frames])
                    remaining -= frames


def launched_batches(device: torch.device) -> int:
    """Return how many batches may be launched whose embeddings are not fetched."""
    return 1 if device.type == "cuda" else 0


def deterministic_batch_size(encode: EncodeFunction, frame: torch.Tensor, requested: int, may_adjust: bool) -> int:
    """Return the first size >= `requested` for which the embedding of a frame doesn't depend on its position.

    Matrix products are split into blocks and over threads, and elements at the borders may be summed in another order:
    ViT-B/32 in batches of 5 on 2 threads differs at one position (by 3e-6), in batches of 16 at none. Without
    `may_adjust`, return `requested`, and print a note if positions differ: on a GPU this may be so in most sizes."""
    noise = torch.randint(0, 256, frame.shape, dtype=frame.dtype, generator=torch.Generator().manual_seed(0))
    for size in range(requested, 2 * requested + 1):
        embeddings = encode(noise.expand(size, *frame.shape[1:]).contiguous())
        if (embeddings == embeddings[0]).all():
            if size != requested:
                print(f"--frame-batch-size {requested}: {size} is used; results then don't depend on the position")
            return size
        if not may_adjust:
            print(f"--frame-batch-size {requested}: the last bits of an embedding depend on its position in the batch")
            return requested
    print(f"--frame-batch-size {requested}: 1 is used, as results depend on the position in every larger batch")
    return 1
