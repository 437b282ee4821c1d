"""Students, flow videos and embedding files for the tests of MoCLIP."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from tests.tfam.helpers import write_h5
from vimoclip import clip, moclip, store, video
from vimoclip.moclip import loops
from vimoclip.moclip.dataset import SegmentBatch
from vimoclip.training.checkpoint import TrainState
from vimoclip.training.data_parallel import ModelReplica

TRAIN_FLAGS = ["--sequence-length", "6", "--num-workers", "0", "--device", "cpu"]
FLOW_SETTINGS = {"method": "dis", "checkpoint": None, "size": None, "normalization": "frame", "sampling": {"stride": 1}}
IDENTITY_PREPROCESSING: dict = {
    "image_size": [8, 8],
    "resize": "model",
    "resize_mode": "squash",
    "interpolation": "bicubic",
    "fill_color": 0,
    "mean": [0.0, 0.0, 0.0],
    "std": [1.0, 1.0, 1.0],
}


def write_flow(path: Path, frames: np.ndarray, kept: int, **settings: object) -> Path:
    """Write a flow video whose comment says that it is of `kept` RGB frames; `settings` overwrite the comment's."""
    indices = {"kept_frames": kept, "frame_indices": {"start": 0, "step": 1}}
    with video.VideoWriter(path, 25, FLOW_SETTINGS | indices | settings, lossless=True) as writer:
        writer.write(frames)
    return path


def write_embeddings(path: Path, lengths: dict[str, int], dim: int = 4, **attributes: object) -> store.EmbeddingReader:
    """Write embeddings by video -> number of frames; row t has the value t in every column."""
    root = {"kind": "rgb", "num_classes": 3, "sampling": {"stride": 1}} | attributes
    rows = {key: np.repeat(np.arange(n, dtype=np.float32)[:, None], dim, 1) for key, n in lengths.items()}
    return store.EmbeddingReader(write_h5(path, rows, np.tile([1, 0, 0], (len(rows), 1)), **root), "rgb")


def make_student(encoder: clip.ImageEncoder, num_classes: int = 3) -> tuple[moclip.MoCLIP, dict]:
    """Return a student of the encoder and its config."""
    dim = encoder.config["embed_dim"]
    config = {"clip": encoder.config, "alpha": 0.1, "num_classes": num_classes, "teacher": {}, "flow": {}}
    return moclip.MoCLIP(encoder.visual, dim, num_classes, 0.1), config


def make_batch(lengths: list[int], keys: list[str], image_size: int, dim: int, num_classes: int) -> SegmentBatch:
    """Return random segments of these numbers of flow frames; segment i has the class i % num_classes."""
    generator = torch.Generator().manual_seed(0)
    shape = len(lengths), max(lengths)
    flow = torch.randint(0, 256, (*shape, 3, image_size, image_size), generator=generator, dtype=torch.uint8)
    mask = torch.arange(shape[1])[None] < torch.tensor(lengths)[:, None]
    labels = torch.eye(num_classes)[torch.arange(len(lengths)) % num_classes]
    return SegmentBatch(flow, torch.randn(*shape, dim, generator=generator), mask, labels, keys, [])


def make_objective(mode: str = "cosine", class_positive_weight: float = 9, weight: float = 1) -> loops.StudentObjective:
    """Return the losses of images that need no preprocessing, in float32."""
    preprocess = clip.Preprocess(IDENTITY_PREPROCESSING)
    return loops.StudentObjective(preprocess, nullcontext, mode, class_positive_weight, weight)


def make_replica(model: moclip.MoCLIP, lr: float = 0.1) -> ModelReplica:
    """Return a single process's replica, with a new optimizer and a constant learning rate."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    state = TrainState(model, optimizer, scheduler, torch.amp.GradScaler("cpu", enabled=False), "step")
    return ModelReplica(state)


class MeanColorEncoder(torch.nn.Module):
    """Image encoder with batch normalisation, whose embedding is a linear function of the mean colour."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)
        self.linear = torch.nn.Linear(3, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(self.norm(images).mean((2, 3)))


def break_flow(name: str) -> None:
    """Overwrite the frames of dataset/flows/<name> with zeros; its header stays readable."""
    path = Path("dataset/flows", name)
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    content[start:] = bytes(len(content) - start)
    path.write_bytes(content)
