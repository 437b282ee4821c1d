"""Helpers of TFAM's tests: tiny models, embedding files and runs."""

import csv
import json
import pickle
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from TFAM import config
from TFAM.data import ClipFeatures, PairedEmbeddings, open_training_splits
from TFAM.model import FusionTransformer
from TFAM.packing import Fusion
from vimoclip import annotations
from vimoclip.io.yaml_json import read_yaml
from vimoclip.runtime.distributed import ProcessGroup
from vimoclip.store import EmbeddingReader, EmbeddingWriter

VARIANTS = list(read_yaml(config.VARIANTS))
FUSIONS = [fusion for fusion in Fusion if not fusion.is_probe]  # of the Transformer
CPU = torch.device("cpu")
SMALL_MODEL = {"d_model": 8, "num_heads": 2, "num_layers": 2, "dim_feedforward": 16, "num_classes": 3}
NO_DROPOUT = {"dropout": 0.0, "classifier_dropout": 0.0}
TINY_RUN = ["model.num_heads=2", "model.num_layers=1", "model.dim_feedforward=16"]
TINY_RUN += ["training.epochs=3", "training.lr=1e-2"]
KEEP_LAST_EPOCH = "training.checkpoint=last"
CLASSES = ["eating", "running", "resting"]
SAMPLING = {"stride": 1, "fps": None, "max_frames": None}
TEACHER = {"clip_model": "ViT-B/32", "weights_sha256": "aa"}
ANNOTATIONS_DIR = Path("dataset/annotations")
SELECTION_NUMBERS = [1, 4, 8]


class MirrorGroup(ProcessGroup):
    """Two processes, of which the second has the same values as this one; `sent`: bytes of each gather."""

    sent: list[int] = []  # noqa: RUF012 - a frozen dataclass takes no instance attribute

    def gather(self, value: Any) -> list[Any]:
        self.sent.append(len(pickle.dumps(value)))
        return [value, value]

    def broadcast(self, value: Any) -> Any:
        return value


# --- models and batches


def build_model(fusion: str, positions: bool = False, pooling: str = "masked", **changes: Any) -> FusionTransformer:
    """Return a small model without dropout; its weights are always the same. `changes`: other arguments."""
    torch.manual_seed(0)
    arguments = {"fusion": fusion, "positions": positions, "pooling": pooling, **SMALL_MODEL, **NO_DROPOUT, **changes}
    return FusionTransformer(**arguments)


def random_clips(lengths: Sequence[int], seed: int = 0) -> list[ClipFeatures]:
    """Return clips of these numbers of frames with random embeddings of width 8; clip i has the class i % 3."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(2, length, 8, generator=generator) for length in lengths]
    return [ClipFeatures(f"v{i}.mp4", r[0], r[1, :-1], torch.eye(3)[i % 3]) for i, r in enumerate(rows)]


# --- embedding files


def write_h5(path: Path, videos: Mapping[str, np.ndarray], labels: np.ndarray | None = None, **attributes: Any) -> Path:
    """Write or replace an embedding file. `videos`: key -> (T, D); `labels`: (videos, C); `attributes`: of the root."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    writer = EmbeddingWriter(path, attributes)
    for number, (key, rows) in enumerate(videos.items()):
        part = writer.open_part(key)
        part.append(rows)
        indices = np.arange(len(rows))
        part.finalize(indices, indices / 25, len(rows), 25.0, None if labels is None else labels[number])
        part.publish()
    writer.merge(videos)
    return path


def class_embeddings(number: int, length: int, informative: bool = True, width: int = 8) -> np.ndarray:
    """Return (length, width) noise; if informative, the column of the class `number % 3` is larger."""
    rng = np.random.default_rng(number + (0 if informative else 1000))
    rows = rng.normal(size=(length, width)).astype(np.float32)
    rows[:, number % 3] += 2 if informative else 0
    return rows


def write_rgb(
    path: Path,
    numbers: Iterable[int],
    informative: bool = True,
    label_shift: int = 0,
    width: int = 8,
    wrong_labels: Container[int] = (),
    **changes: Any,
) -> Path:
    """Write videos V00.mp4, ... of these numbers: video n has 4 + n % 5 frames and the class (n + label_shift) % 3.

    With label_shift 0, informative embeddings agree with the labels, except of the videos in `wrong_labels`, which have
    the next class. `changes`: of the root attributes."""
    numbers = list(numbers)
    videos = {f"V{n:02}.mp4": class_embeddings(n, 4 + n % 5, informative, width) for n in numbers}
    labels = np.eye(3, dtype=np.float32)[[(n + label_shift + (n in wrong_labels)) % 3 for n in numbers]]
    attributes = {"kind": "rgb", "class_names": CLASSES, "num_classes": 3, "embed_dim": width, "sampling": SAMPLING}
    return write_h5(path, videos, labels, **attributes | TEACHER | changes)


def write_motion(
    path: Path, numbers: Iterable[int], lengths: Mapping[int, int] | None = None, width: int = 8, **changes: Any
) -> Path:
    """Write the motion of the videos of `write_rgb`. `lengths`: numbers of motions that do not fit the frames."""
    num_motions = {n: 3 + n % 5 for n in numbers} | dict(lengths or {})
    videos = {f"V{n:02}": class_embeddings(n, num_motions[n], width=width) for n in numbers}
    attributes: dict[str, Any] = {
        "kind": "motion",
        "embed_dim": width,
        "sampling": SAMPLING,
        "student": {"teacher": TEACHER},
    }
    return write_h5(path, videos, **attributes | {"clip_model": "ViT-B/32", "weights_sha256": "student"} | changes)


def write_selection(numbers: Sequence[int]) -> None:
    """Write a selection.txt with the videos of these numbers."""
    ANNOTATIONS_DIR.mkdir(parents=True, exist_ok=True)
    (ANNOTATIONS_DIR / annotations.SELECTION_FILE).write_text("".join(f"V{n:02}.mp4\n" for n in numbers))


def open_train_val(
    folder: Path, fusion: str = "cross_attention"
) -> tuple[dict[str, PairedEmbeddings], EmbeddingReader | None]:
    """Open the files of the fixture `dataset` like a run with protocol published."""
    settings = config.load([], [f"model.fusion={fusion}", "data.protocol=published"])
    config.resolve_inputs(settings, folder.parent, "ak")
    return open_training_splits(settings)


# --- runs


def train_command(variant: str = "cross_attention", *more: str) -> list[str]:
    """Return arguments of TFAM.train_and_eval for a tiny run; KEY=VALUE settings can be appended."""
    return ["--config", variant, "--num-workers", "0", "--device", "cpu", *more, "--set", *TINY_RUN]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def have_same_weights(one: Path, other: Path) -> bool:
    """Return whether two checkpoints have bit-identical weights."""
    first, second = load_weights(one), load_weights(other)
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def assert_same_run(one: Path, other: Path) -> None:
    """Assert that two run folders are the same, except for what an interruption may change."""
    for name in ("metrics.csv", "predictions.csv"):
        assert (one / name).read_text() == (other / name).read_text(), name
    metrics, other_metrics = (read_json(folder / "metrics.json") | {"seconds": None} for folder in (one, other))
    assert metrics == other_metrics
    assert have_same_weights(one / "best_model.pth", other / "best_model.pth")
    assert have_same_weights(one / "last.pth", other / "last.pth")
