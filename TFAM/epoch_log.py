"""TensorBoard output of a run: metrics, PR curves and example clips by epoch, settings, HParams."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from TFAM.config import INPUT_KEYS, flatten
from TFAM.data import PairedEmbeddings
from vimoclip.training import tensorboard

CONFIG_SECTIONS = ("training", "data", "model")


class FusionEpochLogger:
    """Writer of epochs to TensorBoard, and of the config on creation.

    `dataset`: of the monitor split; some of its clips are shown if their videos can be read."""

    def __init__(self, writer: Any, metadata: Mapping[str, Any], monitor_split: str, dataset: PairedEmbeddings):
        self.writer, self.monitor_split, self.class_names = writer, monitor_split, metadata["class_names"]
        config = metadata["config"]
        annotations_dir = Path(config["data"]["annotations_dir"])
        dataset_dir = annotations_dir.parent
        self.class_groups = tensorboard.class_groups(annotations_dir, self.class_names)
        videos = [video for video, _ in dataset.keys]
        self.panel_clips = tensorboard.load_panel_clips(
            videos, dataset.rgb.labels, dataset_dir / "videos", dataset_dir / "flows"
        )
        if not self.panel_clips:
            print(f"{dataset_dir}: holds no videos/ that can be read, so TensorBoard shows no clips", flush=True)
        log_config(writer, config)

    def log_epoch(self, row: Mapping[str, float], result: Mapping[str, Any]) -> None:
        """Log a row of metrics.csv and the `result` of `loops.evaluate` on the monitor split."""
        epoch = int(row["epoch"])
        for name, value in row.items():
            if name != "epoch":
                # selection_map_micro -> selection/map_micro
                tag = {"lr": "train/lr", "train_loss": "train/loss_by_epoch"}.get(name, name.replace("_", "/", 1))
                self.writer.add_scalar(tag, value, epoch)
        tensorboard.add_pr_curves(
            self.writer, self.monitor_split, result["probabilities"], result["labels"], self.class_groups, epoch
        )
        scores = dict(zip(result["videos"], result["probabilities"], strict=True))
        if (image := tensorboard.draw_panel(self.panel_clips, scores, self.class_names)) is not None:
            self.writer.add_image(f"{self.monitor_split}/rgb_flow_labels", image, epoch, dataformats="HWC")


def log_config(writer: Any, config: Mapping[str, Any]) -> None:
    tensorboard.add_settings(writer, {section: config[section] for section in CONFIG_SECTIONS})


def log_final_results(logs_dir: Path, config: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
    """Add the run's row to HParams; `metrics`: content of metrics.json."""
    flat = flatten({section: config[section] for section in CONFIG_SECTIONS})
    settings = {"stage": "TFAM", "config": metrics["config"]} | {k: v for k, v in flat.items() if k not in INPUT_KEYS}
    results = {f"final/reported_{name}": metrics[name] for name in ("map_macro", "map_micro")}
    if "selection" in metrics:
        results |= {f"final/selection_{name}": metrics["selection"][name] for name in ("map_macro", "map_micro")}
    writer = tensorboard.open_writer(logs_dir, config["training"]["epochs"], 2**62)
    log_config(writer, config)
    tensorboard.add_hparams(writer, settings, results, metrics["epoch"])
    writer.close()
