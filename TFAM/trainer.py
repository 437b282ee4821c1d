"""Training of one run: a run can stop at any step and resume with the same results."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from TFAM.config import check_unchanged, logged_sections
from TFAM.data import PairedEmbeddings, selection_digest
from TFAM.loops import (
    SINGLE_PROCESS,
    EpochBatchSampler,
    EpochProgress,
    evaluate,
    make_loader,
    sequential_batches,
    train_one_epoch,
)
from TFAM.model import FusionTransformer
from vimoclip.cli import progress
from vimoclip.errors import TrainingError, UserError
from vimoclip.io import csv
from vimoclip.runtime import seeding
from vimoclip.runtime.distributed import ProcessGroup
from vimoclip.training import checkpoint, run_folder, tensorboard
from vimoclip.training.losses import MULTI_LABEL_LOSSES

MetricsRow = dict[str, float]  # of metrics.csv


class TrainerState:
    """Model, optimizer, learning-rate scheduler and gradient scaler of a run."""

    def __init__(self, config: Mapping[str, Any], device: torch.device, precision: str):
        training = config["training"]
        self.device, self.precision = device, precision
        self.loss_function = MULTI_LABEL_LOSSES[training["loss"]]
        self.model = FusionTransformer(**config["model"]).to(device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=training["lr"],
            weight_decay=training["weight_decay"],
            fused=supports_fused_adamw(device),
        )
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.optimizer, training["epochs"], training["min_lr"]
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with the random state, under the keys of last.pth."""
        return {
            "state_dict": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": seeding.get_rng_state(),
        }

    def restore(self, state: Mapping[str, Any], path: Path) -> None:
        """Load the content of last.pth; `path` is for error messages. Raises UserError."""
        checkpoint.load_state(self.model, state["state_dict"], path)
        for saved_group, param_group in zip(
            state["optimizer"]["param_groups"], self.optimizer.param_groups, strict=True
        ):
            # these depend on the device
            saved_group.update(fused=param_group["fused"], foreach=param_group["foreach"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        seeding.set_rng_state(state["random"])


def supports_fused_adamw(device: torch.device) -> bool:
    """Return whether AdamW has a fused kernel for the device; on a CPU it takes a quarter of the time."""
    return device.type in ("cpu", "cuda")


def fit(
    metadata: Mapping[str, Any],
    splits: Mapping[str, PairedEmbeddings],
    folder: Path,
    logs_dir: Path,
    device: torch.device,
    precision: str,
    num_workers: int,
    should_save: Callable[[], bool] = lambda: False,
    group: ProcessGroup = SINGLE_PROCESS,
) -> float:
    """Train, resuming from `folder/last.pth` if it exists; write best_model.pth, metrics.csv and last.pth.

    `metadata`: `config`, `class_names` and `versions`, stored in each checkpoint. `splits`: `train` and the monitor
    split. `should_save`: called after each step; if it returns True, last.pth is written, as after each epoch. Rank 0
    writes. Returns the training time in seconds over all sessions, without steps that were repeated after a stop.
    Raises TrainingError."""
    seeding.seed_everything(metadata["config"]["training"]["seed"])
    state = TrainerState(metadata["config"], device, precision)
    fingerprints = {
        "videos": run_folder.digest(splits["train"].keys),
        **monitor_fingerprint(metadata["config"]["data"], splits),
    }
    history, epoch_progress, seconds = resume(state, metadata, fingerprints, folder / "last.pth")
    group.barrier()  # all ranks have read last.pth before rank 0 writes
    trainer = FusionTrainer(
        metadata,
        splits,
        folder,
        logs_dir,
        state,
        fingerprints=fingerprints,
        history=history,
        epoch_progress=epoch_progress,
        group=group,
        should_save=should_save,
        seconds=seconds,
    )
    trainer.train(num_workers)
    return trainer.seconds


def monitor_fingerprint(data: Mapping[str, Any], splits: Mapping[str, PairedEmbeddings]) -> dict[str, str]:
    """Return the hash of the monitor split under its key in last.pth; `data`: section of the config."""
    if "val" in splits:
        return {"validated_on": str(splits["val"].rgb.attributes.get("content_sha256"))}
    return {"selection": selection_digest(splits["train"].rgb, data)}


class FusionTrainer:
    """Training loop of a run with its files.

    `history`: a row of metrics.csv per finished epoch; `epoch_progress`: of the next epoch; for the rest see `fit`."""

    def __init__(
        self,
        metadata: Mapping[str, Any],
        splits: Mapping[str, PairedEmbeddings],
        folder: Path,
        logs_dir: Path,
        state: TrainerState,
        *,
        fingerprints: Mapping[str, str],
        history: list[MetricsRow],
        epoch_progress: EpochProgress,
        group: ProcessGroup,
        should_save: Callable[[], bool],
        seconds: float = 0.0,
    ):
        self.metadata, self.splits, self.folder, self.state = metadata, splits, folder, state
        self.fingerprints, self.history, self.epoch_progress = fingerprints, history, epoch_progress
        self.group, self.should_save = group, should_save
        self.training = metadata["config"]["training"]
        (self.monitor_split,) = splits.keys() - {"train"}  # selection or val
        self.seconds, self.start_time = seconds, time.monotonic() - seconds
        # in batches of one process, so that TensorBoard's axis does not depend on the number of processes
        self.steps_per_epoch = -(-len(splits["train"]) // self.training["batch_size"])
        self.writer: Any = tensorboard.open_writer(logs_dir, len(history), self.last_step()) if group.is_main else None
        if self.writer and len(history) < self.training["epochs"]:
            self.epoch_logger = self.make_epoch_logger()

    def make_epoch_logger(self) -> tensorboard.EpochLogger:
        """Return the logger; its panel shows clips of the monitor split whose videos can be read."""
        config, dataset = self.metadata["config"], self.splits[self.monitor_split]
        annotations_dir = Path(config["data"]["annotations_dir"])
        dataset_dir = annotations_dir.parent
        videos = [video for video, _ in dataset.keys]
        panel_clips = tensorboard.load_panel_clips(
            videos, dataset.rgb.labels, dataset_dir / "videos", dataset_dir / "flows"
        )
        if not panel_clips:
            print(f"{dataset_dir}: holds no videos/ that can be read, so TensorBoard shows no clips", flush=True)
        tensorboard.add_settings(self.writer, logged_sections(config))
        class_names = self.metadata["class_names"]
        return tensorboard.EpochLogger(self.writer, self.monitor_split, class_names, annotations_dir, panel_clips)

    def last_step(self) -> int:
        """Return the number of the last finished step; the first step of the run is 0."""
        steps_of_epoch = -(-self.epoch_progress.videos // self.training["batch_size"])
        return len(self.history) * self.steps_per_epoch + steps_of_epoch - 1

    def train(self, num_workers: int) -> None:
        """Train and evaluate the remaining epochs."""
        batch_size = self.training["batch_size"]
        sampler = EpochBatchSampler(len(self.splits["train"]), self.training["seed"], batch_size, self.group)
        loader = make_loader(self.splits["train"], sampler, num_workers)
        monitor_set = self.splits[self.monitor_split]
        monitor_batches = sequential_batches(len(monitor_set), batch_size, self.group)
        monitor_loader = make_loader(monitor_set, monitor_batches, num_workers)
        model = wrap_data_parallel(self.state.model, self.group)
        for epoch in range(len(self.history) + 1, self.training["epochs"] + 1):
            epoch_start, sampler.epoch, sampler.skip = time.monotonic(), epoch, self.epoch_progress.videos
            row: MetricsRow = {"epoch": epoch, "lr": float(self.state.scheduler.get_last_lr()[0])}
            row["train_loss"] = self.train_one_epoch(model, loader, epoch)
            self.state.scheduler.step()
            result = evaluate(
                self.state.model,
                monitor_loader,
                self.state.loss_function,
                self.state.device,
                self.state.precision,
                self.group,
            )
            row |= {
                f"{self.monitor_split}_{name}": result["metrics"][name] for name in ("loss", "map_macro", "map_micro")
            }
            if math.isnan(row[f"{self.monitor_split}_map_micro"]):
                problem = f"no {self.monitor_split} video has a label, so nothing can be measured on them"
                raise TrainingError(problem, path=monitor_set.rgb.path)
            self.history.append(row)
            self.epoch_progress = EpochProgress()
            if self.writer:
                self.write_epoch(row, result)
                seconds = time.monotonic() - epoch_start
                print(f"epoch {epoch}/{self.training['epochs']}: {format_metrics(row)}, {seconds:.0f} s", flush=True)
        if self.writer:
            self.writer.close()

    def train_one_epoch(self, model: torch.nn.Module, loader: Any, epoch: int) -> float:
        """Train the rest of an epoch; return the mean loss of the whole epoch."""
        if self.group.is_main:
            loader = progress(loader, len(loader), "step", f"epoch {epoch}/{self.training['epochs']}")
        return train_one_epoch(
            model,
            loader,
            self.state.optimizer,
            self.state.scaler,
            self.state.loss_function,
            self.state.device,
            self.state.precision,
            grad_clip_norm=self.training["grad_clip_norm"],
            after_step=self.after_step,
            progress=self.epoch_progress,
            group=self.group,
            seed=self.training["seed"] + epoch,
        )

    def after_step(self, loss: float) -> None:
        """On rank 0, log the loss, and save if `should_save` returns True."""
        if self.writer:
            self.writer.add_scalar("train/loss_by_step", loss, self.last_step())
            if self.should_save():
                self.save()

    def save(self) -> None:
        """Write last.pth."""
        self.writer.flush()  # before the checkpoint: events up to its step must be on disk
        self.seconds = time.monotonic() - self.start_time
        content = {
            **self.metadata,
            **self.state.state_dict(),
            "precision": self.state.precision,
            "history": self.history,
            **self.fingerprints,
            "progress": asdict(self.epoch_progress),
            "seconds": self.seconds,
        }
        checkpoint.save_checkpoint(self.folder / "last.pth", content)

    def write_epoch(self, row: MetricsRow, result: Mapping[str, Any]) -> None:
        """Log the epoch to TensorBoard; write metrics.csv, last.pth and, if it is the best epoch, best_model.pth."""
        # selection_map_micro -> selection/map_micro
        special_tags = {"lr": "train/lr", "train_loss": "train/loss_by_epoch"}
        scalars = {
            special_tags.get(name, name.replace("_", "/", 1)): value for name, value in row.items() if name != "epoch"
        }
        scores = dict(zip(result["videos"], result["probabilities"], strict=True))
        self.epoch_logger.log_epoch(int(row["epoch"]), scalars, scores, result["labels"])
        if row is best_checkpoint_row(self.history, self.training, self.monitor_split):
            best = {
                "state_dict": self.state.model.state_dict(),
                "epoch": int(row["epoch"]),
                "metrics": result["metrics"],
            }
            checkpoint.save_checkpoint(self.folder / "best_model.pth", {**self.metadata, **best})
        csv.write_csv(self.folder / "metrics.csv", list(row), [list(r.values()) for r in self.history])
        self.save()  # last: a run that stops before repeats the epoch, with the same result


def wrap_data_parallel(model: torch.nn.Module, group: ProcessGroup) -> torch.nn.Module:
    """Wrap the model in DistributedDataParallel if there are several processes."""
    if group.size == 1:
        return model
    device = next(model.parameters()).device
    device_ids = [device] if device.type == "cuda" else None
    # each variant has parameters that it does not use
    return DistributedDataParallel(model, device_ids=device_ids, find_unused_parameters=True)


def best_checkpoint_row(
    history: list[MetricsRow], training: Mapping[str, Any], monitor_split: str
) -> MetricsRow | None:
    """Return the row of the epoch that best_model.pth holds so far, by training.checkpoint; None if there is none."""
    if training["checkpoint"] == "last":
        return history[-1] if len(history) == training["epochs"] else None
    return max(history, key=lambda row: row[f"{monitor_split}_map_micro"])  # the first of equals


def resume(
    state: TrainerState, metadata: Mapping[str, Any], fingerprints: Mapping[str, str], path: Path
) -> tuple[list[MetricsRow], EpochProgress, float]:
    """Restore the run from last.pth at `path`, if it exists.

    `fingerprints`: hashes of the training videos and of the monitor split. Returns (rows of metrics.csv, progress in
    the next epoch, seconds so far). Raises UserError if the settings or inputs have changed, or in the middle of an
    epoch the training videos."""
    if not path.is_file():
        return [], EpochProgress(), 0.0
    saved = checkpoint.load_checkpoint(path)
    current = {"config": metadata["config"], "precision": state.precision}
    current |= {key: digest for key, digest in fingerprints.items() if key != "videos"}
    previous = {key: saved.get(key, current[key]) for key in current}  # files of older versions lack some keys
    check_unchanged(previous, current, path, "continue with the same, or give --overwrite to start again")
    epoch_progress = EpochProgress(**saved.get("progress", {}))  # older files: after a whole epoch
    if epoch_progress.videos and saved["videos"] != fingerprints["videos"]:
        raise UserError(
            "stopped in the middle of an epoch of other videos than there are now",
            "bring back what was there, or give --overwrite to start again",
            path=path,
        )
    state.restore(saved, path)
    position = f"epoch {len(saved['history'])}, step {epoch_progress.steps} of the next"
    print(f"{path.parent}: resumes after {position}", flush=True)
    return saved["history"], epoch_progress, float(saved.get("seconds", 0.0))


def format_metrics(row: MetricsRow) -> str:
    numbers = ", ".join(f"{name} {value:.4f}" for name, value in row.items() if name not in ("epoch", "lr"))
    return f"{numbers}, lr {row['lr']:.3g}"
