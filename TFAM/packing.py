"""Packed batches: the tokens of all videos one after the other, and their rows in a padded batch."""

import math
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from vimoclip.runtime.cost_estimate import PART_TOKENS
from vimoclip.runtime.device import copy_to_device

BIAS_ALIGNMENT = 16  # elements, of PyTorch's attention on a GPU
# Products of a query with a key that a GPU computes in the time of launching the kernels for one more video: about
# 50 us per attention, forward and backward, at 5e13 operations/s and 7,000 operations for all heads of width 512
LAUNCH_PRODUCTS = 512**2


class Fusion(StrEnum):
    """What a model reads, and for the Transformer the input of its layers. The probes are simpler models."""

    RGB = "rgb"
    MOTION = "motion"
    CONCAT_EMBEDDING = "concat_embedding"  # frame and flow concatenated along the width, projected from 2D to D
    CONCAT_TIME = "concat_time"  # all frames, then all flows
    CROSS_ATTENTION = "cross_attention"  # RGB frames are queries, motion keys and values
    PROBE_RGB = "probe_rgb"  # logistic regression on the mean of the frames
    PROBE_MOTION = "probe_motion"  # on the mean of the flows
    PROBE_BOTH = "probe_both"  # on both means
    PROBE_ATTENTIVE = "probe_attentive"  # one learned query attends to all frames and flows

    @property
    def uses_rgb(self) -> bool:
        """Whether logits depend on RGB embeddings."""
        return self not in (Fusion.MOTION, Fusion.PROBE_MOTION)

    @property
    def uses_motion(self) -> bool:
        """Whether logits depend on motion embeddings."""
        return self not in (Fusion.RGB, Fusion.PROBE_RGB)

    @property
    def is_probe(self) -> bool:
        """Whether the model is a baseline, not the Transformer."""
        return self.is_linear_probe or self == Fusion.PROBE_ATTENTIVE

    @property
    def is_linear_probe(self) -> bool:
        """Whether the model is a logistic regression, which has no epochs."""
        return self in (Fusion.PROBE_RGB, Fusion.PROBE_MOTION, Fusion.PROBE_BOTH)


class Pooling(StrEnum):
    """Tokens that the mean over time includes."""

    MASKED = "masked"  # without padding: logits do not depend on the batch
    PADDED_MEAN = "padded_mean"  # with padding, as published: logits depend on the batch


class Padding(NamedTuple):
    """Rows of packed tokens in a padded batch of B videos of T tokens, on their device."""

    shape: tuple[int, int]  # (B, T)
    rows: torch.Tensor | None  # (N,) int64: rows of B * T that hold tokens; None: all, in order
    positions: torch.Tensor  # (N,) int64: of the tokens in their videos
    lengths: torch.Tensor  # (B, 1) int64: tokens per video
    key_bias: torch.Tensor | None  # (B, 1, 1, T): added to attention scores; hides what is no key; None: all are keys

    def pad(self, x: torch.Tensor) -> torch.Tensor:
        """Place packed rows (N, D) in zeros (B, T, D)."""
        if self.rows is not None:
            x = x.new_zeros(math.prod(self.shape), x.shape[1]).index_copy_(0, self.rows, x)
        return x.unflatten(0, self.shape)

    def pack(self, x: torch.Tensor) -> torch.Tensor:
        """Return the packed rows (N, D) of (B, T, D)."""
        x = x.flatten(0, 1)
        return x if self.rows is None else x.index_select(0, self.rows)


class PackedTokens(NamedTuple):
    """Tokens of B videos, one video after the other."""

    x: torch.Tensor  # (N, D)
    lengths: list[int]  # tokens per video
    key_mask: torch.Tensor | None  # (N,) bool: false for padding, which is no key of attention; None: no padding
    key_lengths: list[int]  # keys per video
    padding: Padding | None = None  # where `pads_videos`

    def videos(self) -> tuple[torch.Tensor, ...]:
        """Return the tokens of each video: (T, D)."""
        return self.x.split(self.lengths)

    def keys(self) -> torch.Tensor:
        """Return the tokens that are no padding."""
        return self.x if self.key_mask is None else self.x[self.key_mask]

    def select(self, videos: slice) -> "PackedTokens":
        """Return the tokens of consecutive videos, with their padding."""
        start = sum(self.lengths[: videos.start])
        rows = slice(start, start + sum(self.lengths[videos]))
        key_mask = None if self.key_mask is None else self.key_mask[rows]
        return PackedTokens(self.x[rows], self.lengths[videos], key_mask, self.key_lengths[videos])

    def to(self, device: torch.device) -> "PackedTokens":
        """Return the tokens on a device. Where `pads_videos`, the mask stays on the CPU."""
        key_mask = self.key_mask
        if key_mask is not None and not pads_videos(device, self.lengths):
            key_mask = copy_to_device(key_mask, device)
        return self._replace(x=copy_to_device(self.x, device), key_mask=key_mask)


def pack(videos: Sequence[torch.Tensor], pooling: str = Pooling.MASKED) -> PackedTokens:
    """Pack (T, D) embeddings of each video. PADDED_MEAN first pads all videos to the longest with zeros."""
    lengths = [len(video) for video in videos]
    if pooling == Pooling.MASKED:
        return PackedTokens(torch.cat(list(videos)), lengths, None, lengths)
    padded = pad_sequence(list(videos), batch_first=True)  # (B, T, D)
    key_mask = torch.arange(padded.shape[1]) < torch.tensor(lengths)[:, None]
    return PackedTokens(padded.flatten(0, 1), [padded.shape[1]] * len(lengths), key_mask.flatten(), lengths)


def split_by_tokens(tokens: Sequence[int]) -> Iterator[slice]:
    """Yield slices of consecutive videos that have at most PART_TOKENS together; a longer video is alone in one.

    `tokens`: of each video."""
    start = total = 0
    for index, count in enumerate(tokens):
        if index > start and total + count > PART_TOKENS:
            yield slice(start, index)
            start, total = index, 0
        total += count
    yield slice(start, len(tokens))


def pads_videos(device: torch.device, lengths: Sequence[int]) -> bool:
    """Return whether attention and means over time are computed for all videos at once, padded to the longest.

    On a GPU a call for each video takes longer to launch than to compute, unless lengths differ much: a video of 20,000
    frames would multiply the time and memory of its batch. On a CPU padding costs more than it saves. `lengths`: tokens
    per video."""
    if device.type != "cuda":
        return False
    wasted = len(lengths) * max(lengths) ** 2 - sum(length**2 for length in lengths)
    return wasted <= len(lengths) * LAUNCH_PRODUCTS


class Layout(NamedTuple):
    """Lengths of the videos of a batch on the CPU: (B,) int64, and which tokens are keys: (B, T) bool."""

    lengths: np.ndarray
    keys: np.ndarray

    @classmethod
    def of(cls, tokens: PackedTokens) -> "Layout":
        lengths = np.array(tokens.lengths)
        return cls(lengths, np.arange(lengths.max()) < np.array(tokens.key_lengths)[:, None])

    def rows(self, first: int = 0) -> list[np.ndarray]:
        """Return the row numbers of each video; `first`: that of the first token."""
        return np.split(np.arange(first, first + self.lengths.sum()), self.lengths.cumsum()[:-1])


def join_layouts(layouts: Sequence[Layout], fusion: Fusion, is_padded: bool) -> tuple[np.ndarray, list[Layout]]:
    """Return the row numbers that a concatenation takes of all streams, and the layouts with that of its result."""
    rgb, motion = layouts
    if fusion == Fusion.CONCAT_EMBEDDING:
        return np.concatenate([frames[:-1] for frames in rgb.rows()]), [rgb, motion]
    videos = zip(rgb.rows(), motion.rows(rgb.lengths.sum()), strict=True)
    rows = np.concatenate([part for frames, flows in videos for part in (frames[:-1], flows)])
    lengths = 2 * motion.lengths
    keys = np.arange(lengths.max()) < lengths[:, None]
    if is_padded:  # see `concat_time`
        keys = np.concatenate([rgb.keys[:, :-1], motion.keys], 1)
    return rows, [rgb, motion, Layout(lengths, keys)]


def make_paddings(
    layouts: Sequence[Layout], joined_rows: np.ndarray, device: torch.device, dtype: torch.dtype
) -> tuple[list[Padding], torch.Tensor]:
    """Return the paddings of layouts, and `joined_rows` on the device. dtype: of attention.

    All integers are copied at once. With `joined_rows`, which join the first two layouts, only the last one is attended
    to."""
    integers = [joined_rows]
    for layout in layouts:
        rows = padded_rows(layout.lengths)
        integers += [layout.lengths, rows, rows % layout.lengths.max()]
    on_device = copy_to_device(torch.from_numpy(np.concatenate(integers)), device).split([len(i) for i in integers])
    paddings = []
    for number, (lengths, keys) in enumerate(layouts):
        lengths_on_device, rows, positions = on_device[1 + 3 * number :][:3]
        has_padding = bool((lengths < keys.shape[1]).any())
        is_attended = not len(joined_rows) or number == len(layouts) - 1
        bias = copy_key_bias(keys, device, dtype) if is_attended and not keys.all() else None
        shape = keys.shape[0], keys.shape[1]
        paddings.append(Padding(shape, rows if has_padding else None, positions, lengths_on_device[:, None], bias))
    return paddings, on_device[0]


def copy_key_bias(keys: np.ndarray, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Return (B, 1, 1, T) on the device: 0 for keys, else the lowest number, of which softmax makes 0.

    The rows lie a multiple of BIAS_ALIGNMENT apart, without which PyTorch's attention copies them, for each head."""
    videos, length = keys.shape
    bias = np.zeros((videos, -(-length // BIAS_ALIGNMENT) * BIAS_ALIGNMENT), np.float32)
    bias[:, :length][~keys] = torch.finfo(dtype).min
    return copy_to_device(torch.from_numpy(bias).to(dtype), device)[:, None, None, :length]


def row_numbers(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the numbers of all rows of videos that start at `starts`, one video after the other."""
    return np.arange(lengths.sum()) + np.repeat(starts - (lengths.cumsum() - lengths), lengths)


def padded_rows(lengths: np.ndarray) -> np.ndarray:
    """Return the rows of a padded batch (B, T), flattened, that hold the tokens."""
    return row_numbers(np.arange(len(lengths)) * lengths.max(), lengths)
