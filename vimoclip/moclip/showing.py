"""What a run shows of an epoch: a line, TensorBoard's curves, a panel of validation videos."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from vimoclip import VideoError, runs, video
from vimoclip.data import SegmentDataset

PANEL_VIDEOS = 4


def describe_epoch(row: dict[str, float], epochs: int, better: bool) -> str:
    return (
        f"epoch {row['epoch']}/{epochs}: train loss {row['train_loss']:.4f}, val loss {row['val_loss']:.4f} "
        f"(distillation {row['val_distillation_loss']:.4f}), accessory head's val map_macro "
        f"{row['val_head_map_macro']:.4f}, map_micro {row['val_head_map_micro']:.4f}{' *best' if better else ''}"
    )


def log_epoch(tensorboard: Any, row: dict[str, float], image: Any) -> None:
    for name, value in row.items():
        split, _, metric = name.partition("_")
        if split in ("train", "val"):
            tensorboard.add_scalar(f"{split}/{metric}", value, row["epoch"])
    if image is not None:
        tensorboard.add_image("val/rgb_flow_labels", image, row["epoch"], dataformats="HWC")
    tensorboard.flush()


def panel(args: argparse.Namespace, dataset: SegmentDataset, probabilities: dict[str, Any], names: list[str]) -> Any:
    """An image of some validation videos: RGB frame, flow frame, labels and what the accessory head thinks."""
    rows = []
    clips = list(dict.fromkeys(segment.clip for segment in dataset.segments))
    for clip in clips[:: max(1, len(clips) // PANEL_VIDEOS)][:PANEL_VIDEOS]:
        middle = (clip.frames - 1) // 2
        indices = dataset.reader.frame_indices(clip.key)
        source = (args.videos_dir or args.dataset_dir / "videos") / clip.key
        flow = frame_at(clip.flow, middle)
        if flow is None or clip.key not in probabilities:
            continue
        rgb = frame_at(source, middle if indices is None else int(indices[middle]))
        labels = [names[i] for i in dataset.reader.labels(clip.key).nonzero()[0]]
        top = probabilities[clip.key].topk(min(3, len(names)))
        guesses = [f"{names[i]} {p:.2f}" for p, i in zip(top.values.tolist(), top.indices.tolist(), strict=True)]
        rows.append((rgb, flow, f"{clip.key}: {', '.join(labels) or 'no label'} | {', '.join(guesses)}"))
    return runs.panel(rows) if rows else None


def frame_at(path: Path, index: int) -> np.ndarray | None:
    """(H, W, 3) uint8; None where it can't be had: videos may be gone by the time that their embeddings are used."""
    try:
        return video.SpanReader(path).read(index, index + 1)[0]
    except VideoError:
        return None
