"""TFAM: training steps and evaluation, against padded batches and torch's modules."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.harness import BenchmarkRow, make_row, measure_peak_memory, measure_rates, product_bound, product_work
from benchmarks.inputs import BenchmarkInputs

BATCH_SIZE, NUM_BATCHES = 8, 6  # videos per step, steps per round
TOLERANCE = 1e-5  # maximum difference of logits
MODEL_CONFIG: dict[str, Any] = {
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
class FusionSetup:
    """A model, its optimizer, and a function that loads a batch.

    `load_batch`: keys -> (arguments of the model, labels, number of RGB frames)."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    load_batch: Callable[[Sequence[str]], tuple[list[Any], torch.Tensor, int]]

    def batches(self, keys: Sequence[str]) -> Iterator[tuple[list[Any], torch.Tensor, int]]:
        """Load the videos in batches."""
        for start in range(0, len(keys), BATCH_SIZE):
            yield self.load_batch(keys[start : start + BATCH_SIZE])


def run(inputs: BenchmarkInputs, rounds: int) -> list[BenchmarkRow]:
    paths = inputs.embeddings()
    check_same_logits(paths)
    keys = sample_keys(paths)
    plain, ours = plain_setup(paths), tfam_setup(paths)
    work: dict[str, Callable[[], float]] = {
        "plain": partial(train_steps, plain, keys),
        "ours": partial(train_steps, ours, keys),
        "no attention dropout": partial(train_steps, tfam_setup(paths, 0.0), keys),
        "plain evaluation": partial(evaluate_batches, plain, keys),
        "evaluation": partial(evaluate_batches, ours, keys),
        **product_work(),
    }
    rates = measure_rates(work, rounds)
    flop = flops_per_token(paths, keys)
    peaks = {
        name: measure_peak_memory(train_in_subprocess, name, paths)
        for name in ("plain", "ours", "no attention dropout")
    }

    def tfam_row(
        what: str, name: str, plain_name: str, goal: str, passes: int, memory: Any = (None, None)
    ) -> BenchmarkRow:
        row_rates = {"plain": rates[plain_name], "ours": rates[name]}
        row_arguments: dict[str, Any] = {"bound_name": "products of matrices", "memory": memory, "goal": goal}
        bound = product_bound(rates) / (passes * flop)
        return make_row("fusion", what, "token", row_rates, bound=bound, **row_arguments)

    return [
        tfam_row("TFAM training, dropout 0.1", "ours", "plain", "4x; 0.33x", 3, (peaks["plain"], peaks["ours"])),
        tfam_row(
            "the same, none on attention",
            "no attention dropout",
            "plain",
            "5x",
            3,
            (peaks["plain"], peaks["no attention dropout"]),
        ),
        tfam_row("TFAM evaluation", "evaluation", "plain evaluation", "4.8x", 1),
    ]


# --- plain: padded batches, torch's modules, files opened for each item


class PlainLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        width, heads, inner, dropout = (MODEL_CONFIG[k] for k in ("d_model", "num_heads", "dim_feedforward", "dropout"))
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
    """The cross-attention model with the same parameter names as TFAM's."""

    def __init__(self) -> None:
        super().__init__()
        width = MODEL_CONFIG["d_model"]
        self.projection_layer = nn.Linear(2 * width, width)
        self.layers = nn.ModuleList(PlainLayer() for _ in range(MODEL_CONFIG["num_layers"]))
        head = nn.LayerNorm(width), nn.Linear(width, width // 2), nn.GELU(), nn.Dropout(0.1)
        self.classifier = nn.Sequential(*head, nn.Linear(width // 2, MODEL_CONFIG["num_classes"]))

    def forward(self, x: torch.Tensor, lengths: torch.Tensor, y: torch.Tensor, y_lengths: torch.Tensor) -> torch.Tensor:
        padding, y_padding = (torch.arange(t.shape[1])[None] >= n[:, None] for t, n in ((x, lengths), (y, y_lengths)))
        for layer in self.layers:
            x = layer(x, padding, y, y_padding)
        mask = ~padding[..., None]
        return self.classifier((x * mask).sum(1) / mask.sum(1))


def plain_setup(paths: dict[str, Path]) -> FusionSetup:
    torch.manual_seed(0)
    model = PlainFusion()
    return FusionSetup(model, torch.optim.AdamW(model.parameters(), 1e-4), partial(plain_batch, paths))


def plain_batch(paths: dict[str, Path], keys: Sequence[str]) -> tuple[list[torch.Tensor], torch.Tensor, int]:
    items = []
    for key in keys:
        with h5py.File(paths["rgb_train"]) as rgb, h5py.File(paths["motion"]) as motion:
            arrays = (rgb[key]["embeddings"], motion[key[:-4]]["embeddings"], rgb[key]["labels"])
            items.append([torch.from_numpy(np.array(array)) for array in arrays])
    x, y, labels = zip(*items, strict=True)
    lengths = [torch.tensor([len(rows) for rows in videos]) for videos in (x, y)]
    padded = [nn.utils.rnn.pad_sequence(list(videos), batch_first=True) for videos in (x, y)]
    return [padded[0], lengths[0], padded[1], lengths[1]], torch.stack(labels), int(lengths[0].sum())


# --- ours


def tfam_setup(paths: dict[str, Path], attention_dropout: float | None = None) -> FusionSetup:
    from TFAM.data import PairedEmbeddings, collate
    from TFAM.model import FusionTransformer
    from vimoclip.store import EmbeddingReader

    torch.manual_seed(0)
    model = FusionTransformer(**MODEL_CONFIG, attention_dropout=attention_dropout)
    rgb, motion = EmbeddingReader(paths["rgb_train"], "rgb"), EmbeddingReader(paths["motion"], "motion")

    def load_batch(keys: Sequence[str]) -> tuple[list[Any], torch.Tensor, int]:
        pairs = PairedEmbeddings(rgb, motion, [(key, key[:-4]) for key in keys], {})
        batch = collate([pairs[i] for i in range(len(keys))])
        return batch.model_inputs(torch.device("cpu")), batch.labels, len(batch.rgb.x)

    return FusionSetup(model, torch.optim.AdamW(model.parameters(), 1e-4, fused=True), load_batch)


# --- the measured operations


def sample_keys(paths: dict[str, Path]) -> list[str]:
    """Return keys of a random sample of the training videos, which keeps their distribution of lengths."""
    from vimoclip.store import EmbeddingReader

    keys = EmbeddingReader(paths["rgb_train"], "rgb").keys
    order = np.random.default_rng(0).permutation(len(keys))
    return [keys[i] for i in order[: BATCH_SIZE * NUM_BATCHES]]


def train_steps(setup: FusionSetup, keys: Sequence[str]) -> float:
    """Train on the videos once; return the number of RGB frames."""
    setup.model.train()
    tokens = 0
    for inputs, labels, count in setup.batches(keys):
        setup.optimizer.zero_grad(set_to_none=True)
        F.binary_cross_entropy_with_logits(setup.model(*inputs), labels).backward()
        setup.optimizer.step()
        tokens += count
    return tokens


@torch.no_grad()
def evaluate_batches(setup: FusionSetup, keys: Sequence[str]) -> float:
    """Run forward passes only; return the number of RGB frames."""
    setup.model.eval()
    tokens = 0
    for inputs, _, count in setup.batches(keys):
        setup.model(*inputs)
        tokens += count
    return tokens


def train_in_subprocess(name: str, paths: dict[str, Path]) -> float:
    """Train once, to measure the memory."""
    setup = (
        plain_setup(paths) if name == "plain" else tfam_setup(paths, 0.0 if name == "no attention dropout" else None)
    )
    return train_steps(setup, sample_keys(paths))


def check_same_logits(paths: dict[str, Path]) -> None:
    """Raise ValueError if the logits of both models differ by more than 1e-5."""
    setups, keys = (plain_setup(paths), tfam_setup(paths)), sample_keys(paths)
    setups[1].model.load_state_dict(setups[0].model.state_dict())
    with torch.no_grad():
        logits = [torch.cat([setup.model.eval()(*inputs) for inputs, _, _ in setup.batches(keys)]) for setup in setups]
    if (worst := float((logits[0] - logits[1]).abs().max())) > TOLERANCE:
        raise ValueError(f"logits differ by {worst} from the plain model's")


def flops_per_token(paths: dict[str, Path], keys: Sequence[str]) -> float:
    """Return the FLOP of a forward pass's matrix products per RGB frame; motion has as many rows."""
    from vimoclip.store import EmbeddingReader

    reader = EmbeddingReader(paths["rgb_train"], "rgb")
    lengths = np.array([reader.length(key) for key in keys], float)
    width, inner = MODEL_CONFIG["d_model"], MODEL_CONFIG["dim_feedforward"]
    weights = 8 * width**2 + 2 * width * inner  # two attentions of four products each, and the feed-forward
    attention = 4 * width * (lengths**2).sum() / lengths.sum()  # two attentions of two products each
    return MODEL_CONFIG["num_layers"] * 2 * (weights + attention)
