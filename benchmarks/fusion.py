"""TFAM: steps of training, and evaluation, against padded batches through torch's own modules."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.harness import Row, in_turn, peak_memory, products, row
from benchmarks.inputs import Inputs

BATCH, BATCHES = 8, 6  # videos a step, steps a round
WITHIN = 1e-5  # logits of both ways
MODEL: dict[str, Any] = {
    "fusion": "cross_attention",
    "positions": False,
    "pooling": "masked",
    "num_heads": 8,
    "num_layers": 4,
    "dim_feedforward": 2048,
    "dropout": 0.1,
    "classifier_dropout": 0.1,
    "d_model": 512,
    "num_classes": 140,
}


@dataclass
class Way:
    """A model, its optimiser, and what gives the batch of some videos: (the model's arguments, labels)."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    batch: Callable[[Sequence[str]], tuple[list[Any], torch.Tensor]]


def run(inputs: Inputs, rounds: int) -> list[Row]:
    paths = inputs.embeddings()
    check_equal(paths)
    keys = keys_of(paths)
    ways = plain(paths), ours(paths)
    work: dict[str, Callable[[], float]] = {
        "plain": partial(trained, ways[0], keys),
        "ours": partial(trained, ways[1], keys),
        "without": partial(trained, ours(paths, 0.0), keys),
        "plain evaluation": partial(evaluated, ways[0], keys),
        "evaluation": partial(evaluated, ways[1], keys),
        "products": products(),
    }
    rates = in_turn(work, rounds)
    flop = flops_a_token(paths, keys)
    peaks = {how: peak_memory(steps_of, how, paths) for how in ("plain", "ours", "without")}

    def part(what: str, name: str, against: str, goal: str, passes: int, memory: Any = (None, None)) -> Row:
        chosen = {"plain": rates[against], "ours": rates[name]}
        about: dict[str, Any] = {"bound_name": "products of matrices", "memory": memory, "goal": goal}
        bound = median(rates["products"]) / (passes * flop)
        return row("fusion", what, "token", chosen, bound=bound, **about)

    return [
        part("TFAM training, dropout 0.1", "ours", "plain", "4x; 0.33x", 3, (peaks["plain"], peaks["ours"])),
        part("the same, none on attention", "without", "plain", "5x", 3, (peaks["plain"], peaks["without"])),
        part("TFAM evaluation", "evaluation", "plain evaluation", "4.8x", 1),
    ]


# --- the plain way: padded batches, torch's own modules, a file opened for each item


class PlainLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        width, heads, inner, dropout = (MODEL[k] for k in ("d_model", "num_heads", "dim_feedforward", "dropout"))
        self.self_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.cross_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        layers = nn.Linear(width, inner), nn.ReLU(), nn.Dropout(dropout), nn.Linear(inner, width), nn.Dropout(dropout)
        self.ffn = nn.Sequential(*layers)
        self.norm_self, self.norm_cross, self.norm_ffn = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, padding: torch.Tensor, y: torch.Tensor, y_padding: torch.Tensor) -> torch.Tensor:
        attended = self.self_attn(x, x, x, key_padding_mask=padding, need_weights=False)[0]
        x = self.norm_self(x + self.dropout(attended))
        attended = self.cross_attn(x, y, y, key_padding_mask=y_padding, need_weights=False)[0]
        x = self.norm_cross(x + self.dropout(attended))
        return self.norm_ffn(x + self.ffn(x))


class PlainFusion(nn.Module):
    """Cross-attention alone; its parameters have the names that TFAM's have."""

    def __init__(self) -> None:
        super().__init__()
        width = MODEL["d_model"]
        self.projection_layer = nn.Linear(2 * width, width)
        self.layers = nn.ModuleList(PlainLayer() for _ in range(MODEL["num_layers"]))
        head = nn.LayerNorm(width), nn.Linear(width, width // 2), nn.GELU(), nn.Dropout(0.1)
        self.classifier = nn.Sequential(*head, nn.Linear(width // 2, MODEL["num_classes"]))

    def forward(self, x: torch.Tensor, lengths: torch.Tensor, y: torch.Tensor, y_lengths: torch.Tensor) -> torch.Tensor:
        padding, y_padding = (torch.arange(t.shape[1])[None] >= n[:, None] for t, n in ((x, lengths), (y, y_lengths)))
        for layer in self.layers:
            x = layer(x, padding, y, y_padding)
        real = ~padding[..., None]
        return self.classifier((x * real).sum(1) / real.sum(1))


def plain(paths: dict[str, Path]) -> Way:
    torch.manual_seed(0)
    model = PlainFusion()
    return Way(model, torch.optim.AdamW(model.parameters(), 1e-4), partial(plain_batch, paths))


def plain_batch(paths: dict[str, Path], keys: Sequence[str]) -> tuple[list[torch.Tensor], torch.Tensor]:
    items = []
    for key in keys:
        with h5py.File(paths["rgb_train"]) as rgb, h5py.File(paths["motion"]) as motion:
            arrays = (rgb[key]["embeddings"], motion[key[:-4]]["embeddings"], rgb[key]["labels"])
            items.append([torch.from_numpy(np.array(array)) for array in arrays])
    x, y, labels = zip(*items, strict=True)
    lengths = [torch.tensor([len(rows) for rows in rows_of]) for rows_of in (x, y)]
    padded = [nn.utils.rnn.pad_sequence(list(rows_of), batch_first=True) for rows_of in (x, y)]
    return [padded[0], lengths[0], padded[1], lengths[1]], torch.stack(labels)


# --- ours


def ours(paths: dict[str, Path], attention_dropout: float | None = None) -> Way:
    from TFAM.data import Pairs, collate
    from TFAM.model import FusionTransformer
    from vimoclip.store import Reader

    torch.manual_seed(0)
    model = FusionTransformer(**MODEL, attention_dropout=attention_dropout)
    rgb, motion = Reader(paths["rgb_train"], "rgb"), Reader(paths["motion"], "motion")

    def batch(keys: Sequence[str]) -> tuple[list[Any], torch.Tensor]:
        pairs = Pairs(rgb, motion, [(key, key[:-4]) for key in keys], {})
        made = collate([pairs[i] for i in range(len(keys))])
        return made.inputs(torch.device("cpu")), made.labels

    return Way(model, torch.optim.AdamW(model.parameters(), 1e-4, fused=True), batch)


# --- measuring


def keys_of(paths: dict[str, Path]) -> list[str]:
    """Training videos, drawn once: as short and long as all of them."""
    from vimoclip.store import Reader

    keys = Reader(paths["rgb_train"], "rgb").keys
    order = np.random.default_rng(0).permutation(len(keys))
    return [keys[i] for i in order[: BATCH * BATCHES]]


def trained(way: Way, keys: Sequence[str]) -> float:
    """Steps on all these videos; gives how many RGB frames they have."""
    way.model.train()
    tokens = 0
    for start in range(0, len(keys), BATCH):
        inputs, labels = way.batch(keys[start : start + BATCH])
        way.optimizer.zero_grad(set_to_none=True)
        F.binary_cross_entropy_with_logits(way.model(*inputs), labels).backward()
        way.optimizer.step()
        tokens += int(inputs[1].sum())
    return tokens


@torch.no_grad()
def evaluated(way: Way, keys: Sequence[str]) -> float:
    """As `trained`, without learning."""
    way.model.eval()
    tokens = 0
    for start in range(0, len(keys), BATCH):
        inputs, _ = way.batch(keys[start : start + BATCH])
        way.model(*inputs)
        tokens += int(inputs[1].sum())
    return tokens


def steps_of(how: str, paths: dict[str, Path]) -> float:
    """What a process of its own does, to have its memory measured."""
    way = plain(paths) if how == "plain" else ours(paths, 0.0 if how == "without" else None)
    return trained(way, keys_of(paths))


def check_equal(paths: dict[str, Path]) -> None:
    """Raise ValueError where the two ways' logits differ by more than 1e-5."""
    ways, keys = (plain(paths), ours(paths)), keys_of(paths)
    ways[1].model.load_state_dict(ways[0].model.state_dict())
    for start in range(0, len(keys), BATCH):
        logits = []
        for way in ways:
            inputs, _ = way.batch(keys[start : start + BATCH])
            with torch.no_grad():
                logits.append(way.model.eval()(*inputs))
        if (worst := float((logits[0] - logits[1]).abs().max())) > WITHIN:
            raise ValueError(f"logits differ by {worst} from the plain way's")


def flops_a_token(paths: dict[str, Path], keys: Sequence[str]) -> float:
    """Of a forward pass, in products of matrices, for each RGB frame; motion has as many rows."""
    from vimoclip.store import Reader

    reader = Reader(paths["rgb_train"], "rgb")
    lengths = np.array([reader.length(key) for key in keys], float)
    width, inner = MODEL["d_model"], MODEL["dim_feedforward"]
    weights = 8 * width**2 + 2 * width * inner  # two attentions of four products each, and the feed-forward
    among = 4 * width * (lengths**2).sum() / lengths.sum()  # two attentions of two products each
    return MODEL["num_layers"] * 2 * (weights + among)
