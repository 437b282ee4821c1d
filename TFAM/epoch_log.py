"""What TensorBoard shows of a run of TFAM: scalars of an epoch, curves, clips, settings, the row of HParams."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from TFAM.config import flatten
from TFAM.data import Pairs
from vimoclip.training import tensorboard

SECTIONS = ("training", "data", "model")
PATHS = {"data.rgb_train_h5", "data.rgb_val_h5", "data.rgb_test_h5", "data.motion_h5", "data.annotations_dir"}


class Shown:
    """What stays the same over the epochs of a run: its clips and groups of classes. `watched`: those of that split."""

    def __init__(self, writer: Any, about: Mapping[str, Any], watched: str, pairs: Pairs):
        self.writer, self.watched, self.class_names = writer, watched, about["class_names"]
        config = about["config"]
        notes = Path(config["data"]["annotations_dir"])
        self.groups = tensorboard.class_groups(notes, self.class_names)
        clips = [video for video, _ in pairs.keys]
        self.scenes = tensorboard.scenes(clips, pairs.rgb.labels, notes.parent / "videos", notes.parent / "flows")
        if not self.scenes:
            print(f"{notes.parent}: holds no videos/ that can be read, so TensorBoard shows no clips", flush=True)
        add_settings(writer, config)

    def epoch(self, row: Mapping[str, float], found: Mapping[str, Any]) -> None:
        """`row` of metrics.csv, and what `evaluate` found."""
        epoch = int(row["epoch"])
        for name, value in row.items():
            if name != "epoch":
                # selection_map_micro -> selection/map_micro
                tag = {"lr": "train/lr", "train_loss": "train/loss_by_epoch"}.get(name, name.replace("_", "/", 1))
                self.writer.add_scalar(tag, value, epoch)
        tensorboard.add_curves(self.writer, self.watched, found["probabilities"], found["labels"], self.groups, epoch)
        scores = dict(zip(found["videos"], found["probabilities"], strict=True))
        if (image := tensorboard.panel(self.scenes, scores, self.class_names)) is not None:
            self.writer.add_image(f"{self.watched}/rgb_flow_labels", image, epoch, dataformats="HWC")


def add_settings(writer: Any, config: Mapping[str, Any]) -> None:
    tensorboard.add_settings(writer, {section: config[section] for section in SECTIONS})


def add_final(logs: Path, config: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """The row of HParams: of metrics.json, `found`, the averages of the reported and of the selection clips."""
    plain = flatten({section: config[section] for section in SECTIONS})
    settings = {"stage": "TFAM", "config": found["config"]} | {k: v for k, v in plain.items() if k not in PATHS}
    results = {f"final/reported_{name}": found[name] for name in ("map_macro", "map_micro")}
    if "selection" in found:
        results |= {f"final/selection_{name}": found["selection"][name] for name in ("map_macro", "map_micro")}
    writer = tensorboard.tensorboard(logs, config["training"]["epochs"], 2**62)
    add_settings(writer, config)
    tensorboard.add_row(writer, settings, results, found["epoch"])
    writer.close()
