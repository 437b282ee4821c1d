"""The fusion Transformer: RGB and motion embeddings of a video -> logits (paper, section 3.3; published as TFAM).

Every variant has all parameters, under the published names, so that one checkpoint layout serves all variants."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import pad_sequence

from vimoclip.errors import UserError
from vimoclip.runtime.device import copy_to_device
from vimoclip.runtime.onednn import linear

BIAS_ALIGNMENT = 16  # elements, of PyTorch's attention on a GPU
# Products of a query with a key that a GPU computes in the time of launching the kernels for one more video: about
# 50 us per attention, forward and backward, at 5e13 operations/s and 7,000 operations for all heads of width 512
LAUNCH_PRODUCTS = 512**2


class Fusion(StrEnum):
    """Input of the layers."""

    RGB = "rgb"
    MOTION = "motion"
    CONCAT_EMBEDDING = "concat_embedding"  # frame and flow concatenated along the width, projected from 2D to D
    CONCAT_TIME = "concat_time"  # all frames, then all flows
    CROSS_ATTENTION = "cross_attention"  # RGB frames are queries, motion keys and values


class Pooling(StrEnum):
    """Tokens that the mean over time includes."""

    MASKED = "masked"  # without padding: logits do not depend on the batch
    PADDED_MEAN = "padded_mean"  # with padding, as published: logits depend on the batch


class Grid(NamedTuple):
    """Places of packed tokens in a padded batch of B videos of T tokens, on their device."""

    shape: tuple[int, int]  # (B, T)
    places: torch.Tensor | None  # (N,) int64: rows of B * T that hold tokens; None: all, in order
    positions: torch.Tensor  # (N,) int64: of the tokens in their videos
    lengths: torch.Tensor  # (B, 1) int64: tokens per video
    key_bias: torch.Tensor | None  # (B, 1, 1, T): added to attention scores; hides what is no key; None: all are keys

    def pad(self, x: torch.Tensor) -> torch.Tensor:
        """Place packed rows (N, D) in zeros (B, T, D)."""
        if self.places is not None:
            x = x.new_zeros(math.prod(self.shape), x.shape[1]).index_copy_(0, self.places, x)
        return x.unflatten(0, self.shape)

    def pack(self, x: torch.Tensor) -> torch.Tensor:
        """Return the packed rows (N, D) of (B, T, D)."""
        x = x.flatten(0, 1)
        return x if self.places is None else x.index_select(0, self.places)


class PackedTokens(NamedTuple):
    """Tokens of B videos, one video after the other."""

    x: torch.Tensor  # (N, D)
    lengths: list[int]  # tokens per video
    key_mask: torch.Tensor | None  # (N,) bool: false for padding, which is no key of attention; None: no padding
    key_lengths: list[int]  # keys per video
    grid: Grid | None = None  # where `uses_grid`

    def videos(self) -> tuple[torch.Tensor, ...]:
        """Return the tokens of each video: (T, D)."""
        return self.x.split(self.lengths)

    def keys(self) -> torch.Tensor:
        """Return the tokens that are no padding."""
        return self.x if self.key_mask is None else self.x[self.key_mask]

    def to(self, device: torch.device) -> "PackedTokens":
        """Return the tokens on a device. Where `uses_grid`, the mask stays on the CPU."""
        key_mask = self.key_mask
        if key_mask is not None and not uses_grid(device, self.lengths):
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


def uses_grid(device: torch.device, lengths: Sequence[int]) -> bool:
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


def make_grids(
    layouts: Sequence[Layout], rows: np.ndarray, device: torch.device, dtype: torch.dtype
) -> tuple[list[Grid], torch.Tensor]:
    """Return the grids of layouts and `rows` on the device. All integers are copied at once. dtype: of attention.

    With `rows`, which join the first two layouts, only the last one is attended to."""
    integers = [rows]
    for layout in layouts:
        is_token = np.arange(layout.keys.shape[1]) < layout.lengths[:, None]
        places = is_token.ravel().nonzero()[0]
        integers += [layout.lengths, places, places % is_token.shape[1]]
    on_device = copy_to_device(torch.from_numpy(np.concatenate(integers)), device).split([len(i) for i in integers])
    grids = []
    for number, (lengths, keys) in enumerate(layouts):
        lengths_on_device, places, positions = on_device[1 + 3 * number :][:3]
        has_padding = bool((lengths < keys.shape[1]).any())
        is_attended = not len(rows) or number == len(layouts) - 1
        bias = copy_key_bias(keys, device, dtype) if is_attended and not keys.all() else None
        shape = keys.shape[0], keys.shape[1]
        grids.append(Grid(shape, places if has_padding else None, positions, lengths_on_device[:, None], bias))
    return grids, on_device[0]


def copy_key_bias(keys: np.ndarray, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Return (B, 1, 1, T) on the device: 0 for keys, else the lowest number, of which softmax makes 0.

    The rows lie a multiple of BIAS_ALIGNMENT apart, without which PyTorch's attention copies them, for each head."""
    videos, length = keys.shape
    bias = np.zeros((videos, -(-length // BIAS_ALIGNMENT) * BIAS_ALIGNMENT), np.float32)
    bias[:, :length][~keys] = torch.finfo(dtype).min
    return copy_to_device(torch.from_numpy(bias).to(dtype), device)[:, None, None, :length]


class PackedAttention(nn.MultiheadAttention):
    """nn.MultiheadAttention within each video of a packed batch; its parameters and their names are the parent's."""

    def forward(self, x: PackedTokens, context: PackedTokens) -> torch.Tensor:  # type: ignore[override]
        """Return (N, D). x: queries; context: keys and values of the same videos."""
        weight, bias, width = self.in_proj_weight, self.in_proj_bias, self.embed_dim
        dropout = self.dropout if self.training else 0.0
        if x.grid is not None and context.grid is not None:
            return self._attend_together(x, context, x.grid, context.grid, dropout)
        keys = context.keys()
        if keys is x.x:
            projected = linear(keys, weight, bias).split(width, -1)
        else:
            q = linear(x.x, weight[:width], bias[:width])
            projected = q, *linear(keys, weight[width:], bias[width:]).split(width, -1)
        q, k, v = (
            tokens.unflatten(-1, (self.num_heads, -1)).split(lengths)  # (T, H, D/H) of each video
            for tokens, lengths in zip(projected, (x.lengths, context.key_lengths, context.key_lengths), strict=True)
        )
        # one video at a time: padding to the longest video costs more than fewer calls save
        attended = [attend(*video, dropout) for video in zip(q, k, v, strict=True)]
        return linear(torch.cat(attended).flatten(-2), self.out_proj.weight, self.out_proj.bias)

    def _attend_together(
        self, x: PackedTokens, context: PackedTokens, grid: Grid, context_grid: Grid, dropout: float
    ) -> torch.Tensor:
        """Return the result of `forward`, from one call of attention for all videos."""
        weight, bias, width = self.in_proj_weight, self.in_proj_bias, self.embed_dim
        if context.x is x.x:
            q, k, v = grid.pad(linear(x.x, weight, bias)).split(width, -1)
        else:
            sizes = [width, 2 * width]
            (weight_q, weight_kv), (bias_q, bias_kv) = weight.split(sizes), bias.split(sizes)
            q = grid.pad(linear(x.x, weight_q, bias_q))
            k, v = context_grid.pad(linear(context.x, weight_kv, bias_kv)).split(width, -1)
        q, k, v = (tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for tokens in (q, k, v))  # (B, H, T, d)
        attended = F.scaled_dot_product_attention(q, k, v, context_grid.key_bias, dropout)
        return linear(grid.pack(attended.transpose(1, 2).flatten(2)), self.out_proj.weight, self.out_proj.bias)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout: float) -> torch.Tensor:
    """Return softmax(q k' / sqrt(d)) v of one video: (T, H, d), (S, H, d), (S, H, d) -> (T, H, d)."""
    q, k, v = (tokens.transpose(0, 1)[None] for tokens in (q, k, v))  # (1, H, T, d)
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)[0].transpose(0, 1)


def attention_kernels(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which attention on a CUDA GPU isn't computed by cuDNN.

    PyTorch prefers it on an H100, where it takes about 30 ms of the CPU's time for every new length of a batch."""
    kernels = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    return sdpa_kernel(kernels) if device.type == "cuda" else nullcontext()


class OneDNNLinear(nn.Linear):
    """nn.Linear for (N, D) input, through oneDNN on the CPU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return linear(x, self.weight, self.bias)


class FusionLayer(nn.Module):
    """Post-norm layer: self-attention, cross-attention if there is a second stream, feed-forward."""

    def __init__(self, d_model: int, num_heads: int, dim_feedforward: int, dropout: float, attention_dropout: float):
        super().__init__()
        self.self_attn = PackedAttention(d_model, num_heads, attention_dropout)
        self.cross_attn = PackedAttention(d_model, num_heads, attention_dropout)
        self.ffn = nn.Sequential(
            OneDNNLinear(d_model, dim_feedforward),
            nn.ReLU(),
            nn.Dropout(dropout),
            OneDNNLinear(dim_feedforward, d_model),
            nn.Dropout(dropout),
        )
        self.norm_self = nn.LayerNorm(d_model)
        self.norm_cross = nn.LayerNorm(d_model)
        self.norm_ffn = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: PackedTokens, context: PackedTokens | None = None) -> PackedTokens:
        x = self.norm_self(tokens.x + self.dropout(self.self_attn(tokens, tokens)))
        if context is not None:
            x = self.norm_cross(x + self.dropout(self.cross_attn(tokens._replace(x=x), context)))
        return tokens._replace(x=self.norm_ffn(x + self.ffn(x)))  # ffn ends with its own dropout


class FusionTransformer(nn.Module):
    """Logits of a video from its embeddings. Raises UserError if num_heads does not divide d_model."""

    def __init__(
        self,
        d_model: int,
        num_classes: int,
        fusion: str,
        positions: bool,
        pooling: str,
        num_heads: int,
        num_layers: int,
        dim_feedforward: int,
        dropout: float,
        classifier_dropout: float,
        normalize_inputs: bool = False,
        attention_dropout: float | None = None,
    ):
        super().__init__()
        if d_model % num_heads:
            raise UserError(
                f"model.num_heads is {num_heads}, which does not divide the embeddings' width {d_model}",
                "use --set model.num_heads=N with a divisor",
            )
        self.fusion, self.positions, self.pooling = Fusion(fusion), positions, Pooling(pooling)
        self.normalize_inputs = normalize_inputs
        attention_dropout = dropout if attention_dropout is None else attention_dropout
        self.projection_layer = nn.Linear(2 * d_model, d_model)
        self.layers = nn.ModuleList(
            FusionLayer(d_model, num_heads, dim_feedforward, dropout, attention_dropout) for _ in range(num_layers)
        )
        self.classifier = nn.Sequential(
            nn.LayerNorm(d_model),
            nn.Linear(d_model, d_model // 2),
            nn.GELU(),
            nn.Dropout(classifier_dropout),
            nn.Linear(d_model // 2, num_classes),
        )

    def forward(self, rgb: PackedTokens, motion: PackedTokens | None = None) -> torch.Tensor:
        """Return logits (B, C). The concatenations need at least two frames a video.

        Raises ValueError if the variant needs motion and it is None, or `pack` got another pooling."""
        if (rgb.key_mask is None) != (self.pooling == Pooling.MASKED):
            raise ValueError(f"the batch is not packed for pooling {self.pooling}")
        if motion is None and self.fusion != Fusion.RGB:
            raise ValueError(f"fusion {self.fusion} needs motion embeddings")
        fuse = self._fuse_with_grids if uses_grid(rgb.x.device, rgb.lengths) else self._fuse
        tokens, context = fuse(rgb, motion)
        with attention_kernels(rgb.x.device):
            for layer in self.layers:
                tokens = layer(tokens, context)
        if tokens.grid is None:
            return self.classifier(torch.stack([video.mean(0) for video in tokens.videos()]))
        return self.classifier(tokens.grid.pad(tokens.x).sum(1) / tokens.grid.lengths)

    def _fuse(self, rgb: PackedTokens, motion: PackedTokens | None) -> tuple[PackedTokens, PackedTokens | None]:
        """Return (input of the layers, context of cross-attention or None)."""
        rgb = self._preprocess(rgb)
        if motion is None or self.fusion == Fusion.RGB:
            return rgb, None
        motion = self._preprocess(motion)
        if self.fusion == Fusion.MOTION:
            return motion, None
        if self.fusion == Fusion.CROSS_ATTENTION:
            return rgb, motion
        if self.fusion == Fusion.CONCAT_EMBEDDING:
            return self._project_pairs(torch.cat([video[:-1] for video in rgb.videos()]), motion), None
        return concat_time(rgb, motion), None

    def _fuse_with_grids(
        self, rgb: PackedTokens, motion: PackedTokens | None
    ) -> tuple[PackedTokens, PackedTokens | None]:
        """Return the result of `_fuse`, with grids. What depends on the lengths only is computed here, once."""
        device, dtype = rgb.x.device, rgb.x.dtype
        is_half = torch.is_autocast_enabled(device.type)
        if motion is None or self.fusion == Fusion.RGB:
            streams = [rgb]
        else:
            streams = [motion] if self.fusion == Fusion.MOTION else [rgb, motion]
        layouts, rows = [Layout.of(stream) for stream in streams], np.empty(0, np.int64)
        if self.fusion in (Fusion.CONCAT_EMBEDDING, Fusion.CONCAT_TIME):
            rows, layouts = join_layouts(layouts, self.fusion, rgb.key_mask is not None)
        attention_dtype = torch.get_autocast_dtype(device.type) if is_half else dtype
        grids, row_index = make_grids(layouts, rows, device, attention_dtype)
        longest = max(grid.shape[1] for grid in grids)
        table = sinusoidal_positions(longest, rgb.x.shape[1], device).to(dtype) if self.positions else None
        inputs = [
            self._preprocess(stream._replace(grid=grid), table) for stream, grid in zip(streams, grids, strict=False)
        ]
        if self.fusion == Fusion.CONCAT_EMBEDDING:
            return self._project_pairs(inputs[0].x.index_select(0, row_index), inputs[1]), None
        if self.fusion == Fusion.CONCAT_TIME:
            joined = torch.cat([stream.x for stream in inputs]).index_select(0, row_index)
            return PackedTokens(joined, layouts[2].lengths.tolist(), None, [], grids[2]), None
        return inputs[0], inputs[1] if self.fusion == Fusion.CROSS_ATTENTION else None

    def _project_pairs(self, frames: torch.Tensor, motion: PackedTokens) -> PackedTokens:
        """Project frame t with the flow from t to t + 1; the last frame has none."""
        pairs = torch.cat([frames, motion.x], -1)
        return motion._replace(x=linear(pairs, self.projection_layer.weight, self.projection_layer.bias))

    def _preprocess(self, tokens: PackedTokens, table: torch.Tensor | None = None) -> PackedTokens:
        """Normalize and add positions, as configured. `table`: of positions, where tokens have grids."""
        x = tokens.x
        if self.normalize_inputs:
            x = F.normalize(x, dim=-1) * math.sqrt(x.shape[-1])
        if table is not None and tokens.grid is not None:
            x = x + table.index_select(0, tokens.grid.positions)
        elif self.positions:
            table = sinusoidal_positions(max(tokens.lengths), x.shape[1], x.device).to(x.dtype)
            x = x + torch.cat([table[:length] for length in tokens.lengths])
        return tokens._replace(x=x)


def concat_time(rgb: PackedTokens, motion: PackedTokens) -> PackedTokens:
    """Return the frames of each video without the last one, then its flows."""

    def join(frames: torch.Tensor, flows: torch.Tensor) -> torch.Tensor:
        videos = zip(frames.split(rgb.lengths), flows.split(motion.lengths), strict=True)
        return torch.cat([part for frame, flow in videos for part in (frame[:-1], flow)])

    lengths = [2 * length for length in motion.lengths]
    if rgb.key_mask is None or motion.key_mask is None:
        return PackedTokens(join(rgb.x, motion.x), lengths, None, lengths)
    # as published, a padded video keeps its own last frame: padding is dropped in its place
    counts = zip(rgb.key_lengths, motion.lengths, motion.key_lengths, strict=True)
    key_lengths = [min(frames, most) + flows for frames, most, flows in counts]
    return PackedTokens(join(rgb.x, motion.x), lengths, join(rgb.key_mask, motion.key_mask), key_lengths)


def sinusoidal_positions(length: int, width: int, device: torch.device | None = None) -> torch.Tensor:
    """Return (length, width) sinusoidal positions: sine in even columns, cosine in odd ones (Vaswani et al. 2017)."""
    rates = torch.exp(torch.arange(0, width, 2, device=device).float() * (-math.log(10000.0) / width))
    angles = torch.arange(length, device=device).float()[:, None] * rates
    table = torch.zeros(length, width, device=device)
    table[:, 0::2] = torch.sin(angles)
    table[:, 1::2] = torch.cos(angles)[:, : width // 2]
    return table


def shape_from_state_dict(state: dict[str, torch.Tensor]) -> dict[str, int]:
    """Return the sizes that a state dict determines, without num_heads; empty for another model's state dict."""
    if "classifier.4.weight" not in state or "layers.0.ffn.0.weight" not in state:
        return {}
    return {
        "d_model": state["layers.0.ffn.0.weight"].shape[1],
        "dim_feedforward": state["layers.0.ffn.0.weight"].shape[0],
        "num_layers": len({key.split(".")[1] for key in state if key.startswith("layers.")}),
        "num_classes": state["classifier.4.weight"].shape[0],
    }
