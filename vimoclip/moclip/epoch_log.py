"""Logging of an epoch: a line on the terminal, and scalars, curves and images in TensorBoard."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vimoclip.moclip.dataset import SegmentDataset
from vimoclip.training import tensorboard

METRICS = ("loss", "distillation_loss", "head_map_macro", "head_map_micro")
# suffixes of settings that do not change the result; HParams omits them
OMITTED_SUFFIXES = ("_dir", "_path", "resume", "overwrite", "dry_run", "cache_frames")


def format_epoch(row: dict[str, float], epochs: int, monitor_split: str, is_best: bool) -> str:
    loss, distillation, macro, micro = (row[f"{monitor_split}_{name}"] for name in METRICS)
    return (
        f"epoch {row['epoch']}/{epochs}: train loss {row['train_loss']:.4f}, {monitor_split} loss {loss:.4f} "
        f"(distillation {distillation:.4f}), accessory head's {monitor_split} map_macro {macro:.4f}, "
        f"map_micro {micro:.4f}{' *best' if is_best else ''}"
    )


class StudentEpochLogger:
    """Writer of epochs to TensorBoard, and of the settings on creation. `dataset`: of the monitor split."""

    def __init__(
        self, writer: Any, args: argparse.Namespace, monitor_split: str, dataset: SegmentDataset, class_names: list[str]
    ):
        self.writer, self.monitor_split, self.dataset, self.class_names = writer, monitor_split, dataset, class_names
        flow_paths = {segment.video.key: segment.video.flow_path for segment in dataset.segments}
        videos_dir = args.videos_dir or args.dataset_dir / "videos"
        get_labels = dataset.reader.labels
        self.panel_clips = tensorboard.load_panel_clips(list(flow_paths), get_labels, videos_dir, flow_paths)
        self.class_groups = tensorboard.class_groups(args.dataset_dir / "annotations", class_names)
        self.settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
        tensorboard.add_settings(writer, self.settings)

    def log_epoch(self, row: dict[str, float], probabilities: dict[str, torch.Tensor]) -> None:
        """Log a row of metrics.csv and the head's (C,) probabilities by video."""
        for name, value in row.items():
            split, _, metric = name.partition("_")
            if split in ("train", self.monitor_split):
                self.writer.add_scalar(f"{split}/{metric}", value, row["epoch"])
        labels = torch.from_numpy(np.stack([self.dataset.reader.labels(key) for key in probabilities]))
        scores = torch.stack(list(probabilities.values()))
        epoch = int(row["epoch"])
        tensorboard.add_pr_curves(self.writer, self.monitor_split, scores, labels, self.class_groups, epoch)
        if (image := tensorboard.draw_panel(self.panel_clips, probabilities, self.class_names)) is not None:
            self.writer.add_image(f"{self.monitor_split}/rgb_flow_labels", image, row["epoch"], dataformats="HWC")
        self.writer.flush()

    def log_final(self, rows: list[dict[str, float]], protocol: str) -> None:
        """Log the run's row of the HParams tab, with the metrics of the epoch of student_best.pth."""
        if not rows:
            return
        best = min(rows, key=lambda row: row[f"{self.monitor_split}_loss"])  # the first of equals
        results = {f"final/{self.monitor_split}_{name}": best[f"{self.monitor_split}_{name}"] for name in METRICS}
        settings = {k: v for k, v in self.settings.items() if not k.endswith(OMITTED_SUFFIXES)}
        settings = {"stage": "student", **settings, "protocol": protocol}
        tensorboard.add_hparams(self.writer, settings, results, int(best["epoch"]))
