"""What a run shows of an epoch: a line, and what TensorBoard has of it."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vimoclip.moclip.dataset import SegmentDataset
from vimoclip.training import tensorboard


def describe_epoch(row: dict[str, float], epochs: int, watched: str, better: bool) -> str:
    """`watched`: the name of the clips that the epoch is judged by, with which their columns begin."""
    names = ("loss", "distillation_loss", "head_map_macro", "head_map_micro")
    loss, distillation, macro, micro = (row[f"{watched}_{name}"] for name in names)
    return (
        f"epoch {row['epoch']}/{epochs}: train loss {row['train_loss']:.4f}, {watched} loss {loss:.4f} (distillation "
        f"{distillation:.4f}), accessory head's {watched} map_macro {macro:.4f}, map_micro {micro:.4f}"
        f"{' *best' if better else ''}"
    )


class Shown:
    """What TensorBoard shows of a run beside its steps, and what of it stays the same over the epochs.

    `watched`: the name of the clips that epochs are judged by; `dataset`: their segments."""

    def __init__(
        self, writer: Any, args: argparse.Namespace, watched: str, dataset: SegmentDataset, class_names: list[str]
    ):
        self.writer, self.watched, self.dataset, self.class_names = writer, watched, dataset, class_names
        flows = {segment.clip.key: segment.clip.flow for segment in dataset.segments}
        videos = args.videos_dir or args.dataset_dir / "videos"
        self.scenes = tensorboard.scenes(list(flows), dataset.reader.labels, videos, flows)
        self.groups = tensorboard.class_groups(args.dataset_dir / "annotations", class_names)
        self.settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
        tensorboard.add_settings(writer, self.settings)

    def epoch(self, row: dict[str, float], probabilities: dict[str, torch.Tensor]) -> None:
        """`row` of metrics.csv; (C,) probabilities of the accessory head by video."""
        for name, value in row.items():
            split, _, metric = name.partition("_")
            if split in ("train", self.watched):
                self.writer.add_scalar(f"{split}/{metric}", value, row["epoch"])
        labels = torch.from_numpy(np.stack([self.dataset.reader.labels(key) for key in probabilities]))
        scores = torch.stack(list(probabilities.values()))
        tensorboard.add_curves(self.writer, f"{self.watched}", scores, labels, self.groups, int(row["epoch"]))
        if (image := tensorboard.panel(self.scenes, probabilities, self.class_names)) is not None:
            self.writer.add_image(f"{self.watched}/rgb_flow_labels", image, row["epoch"], dataformats="HWC")
        self.writer.flush()

    def final(self, rows: list[dict[str, float]], protocol: str) -> None:
        """The row of HParams, of the epoch that student_best.pth is of."""
        if not rows:
            return
        best = min(rows, key=lambda row: row[f"{self.watched}_loss"])  # the first of equals
        names = ("loss", "distillation_loss", "head_map_macro", "head_map_micro")
        results = {f"final/{self.watched}_{name}": best[f"{self.watched}_{name}"] for name in names}
        places = ("_dir", "_path", "resume", "overwrite", "dry_run", "cache_frames")
        plain = {k: v for k, v in self.settings.items() if not k.endswith(places)}
        tensorboard.add_row(
            self.writer, {"stage": "student", **plain, "protocol": protocol}, results, int(best["epoch"])
        )
