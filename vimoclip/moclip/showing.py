"""What a run shows of an epoch: a line, TensorBoard's curves, a panel of the videos that it is watched on."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from vimoclip import VideoError, runs, video
from vimoclip.data import SegmentDataset

PANEL_VIDEOS = 4


def describe_epoch(row: dict[str, float], epochs: int, watched: str, better: bool) -> str:
    """`watched`: the name of the clips that the epoch is judged by, with which their columns begin."""
    names = ("loss", "distillation_loss", "head_map_macro", "head_map_micro")
    loss, distillation, macro, micro = (row[f"{watched}_{name}"] for name in names)
    return (
        f"epoch {row['epoch']}/{epochs}: train loss {row['train_loss']:.4f}, {watched} loss {loss:.4f} (distillation "
        f"{distillation:.4f}), accessory head's {watched} map_macro {macro:.4f}, map_micro {micro:.4f}"
        f"{' *best' if better else ''}"
    )


def log_epoch(tensorboard: Any, row: dict[str, float], watched: str, image: Any) -> None:
    for name, value in row.items():
        split, _, metric = name.partition("_")
        if split in ("train", watched):
            tensorboard.add_scalar(f"{split}/{metric}", value, row["epoch"])
    if image is not None:
        tensorboard.add_image(f"{watched}/rgb_flow_labels", image, row["epoch"], dataformats="HWC")
    tensorboard.flush()


def panel(args: argparse.Namespace, dataset: SegmentDataset, probabilities: dict[str, Any], names: list[str]) -> Any:
    """An image of some videos: RGB frame, flow frame, labels and what the accessory head thinks."""
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
