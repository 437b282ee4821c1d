"""Encode the frames of many videos in batches of one fixed size."""

from collections import deque
from collections.abc import Callable

import numpy as np
import torch

from vimoclip.clip.encoder import EncodeFunction


class BatchEncoder:
    """Collects preprocessed frames and encodes them in batches of one size, which may mix frames of several videos.

    As all batches have one size, the embedding of a frame has the same bytes on one machine regardless of the other
    frames in its batch. `may_adjust_size`: take a larger batch if one of this size has positions that give other last
    bits (see `deterministic_batch_size`). Callbacks are called in the order in which they were added."""

    def __init__(self, encode: EncodeFunction, batch_size: int, may_adjust_size: bool = True):
        self.encode, self.batch_size, self.may_adjust_size = encode, batch_size, may_adjust_size
        self._batch: torch.Tensor | None = None
        self._filled = 0
        # (number of frames in the batch, callback for their embeddings) or (None, callback without arguments)
        self._callbacks = deque[tuple[int | None, Callable[..., object]]]()

    def add_frames(self, frames: torch.Tensor, on_embeddings: Callable[[np.ndarray], object]) -> None:
        """Add (n, 3, S, S) frames; `on_embeddings` gets their embeddings in one or more (m, D) arrays."""
        while len(frames):
            if self._batch is None:
                self.batch_size = deterministic_batch_size(
                    self.encode, frames[:1], self.batch_size, self.may_adjust_size
                )
                self._batch = torch.zeros((self.batch_size, *frames.shape[1:]), dtype=frames.dtype)
            chunk = frames[: self.batch_size - self._filled]
            self._batch[self._filled : self._filled + len(chunk)] = chunk
            self._filled += len(chunk)
            self._callbacks.append((len(chunk), on_embeddings))
            frames = frames[len(chunk) :]
            if self._filled == self.batch_size:
                self.flush()

    def add_callback(self, callback: Callable[[], object]) -> None:
        """Add a function to call after the callbacks of the frames added before."""
        self._callbacks.append((None, callback))
        if not self._filled:
            self.flush()

    def flush(self) -> None:
        """Encode the frames of an incomplete batch, padded with zeros, and call all callbacks."""
        if self._batch is not None and self._filled:
            self._batch[self._filled :] = 0
            embeddings = self.encode(self._batch).numpy()
        start, self._filled = 0, 0
        while self._callbacks:
            count, callback = self._callbacks.popleft()
            if count is None:
                callback()
            else:
                callback(embeddings[start : start + count])
                start += count


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
