"""One run: epochs of training and evaluation that can stop anywhere and go on with the same results."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from TFAM.config import check_unchanged
from TFAM.data import Pairs, selection_digest
from TFAM.epoch_log import Shown
from TFAM.loops import ALONE, EpochOrder, Loss, Progress, evaluate, in_order, make_loader, train_one_epoch
from TFAM.model import FusionTransformer
from vimoclip.cli import progress
from vimoclip.errors import TrainingError, UserError
from vimoclip.io import csv
from vimoclip.runtime import seeding
from vimoclip.runtime.distributed import Group
from vimoclip.training import checkpoint, run_folder, tensorboard
from vimoclip.training.losses import MULTI_LABEL

Row = dict[str, float]  # of metrics.csv


class Trainee:
    """A model and all that changes with it from step to step."""

    def __init__(self, config: Mapping[str, Any], device: torch.device, precision: str):
        training = config["training"]
        self.precision = precision
        self.loss = MULTI_LABEL[training["loss"]]
        self.model = FusionTransformer(**config["model"]).to(device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=training["lr"], weight_decay=training["weight_decay"], fused=fused(device)
        )
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.optimizer, training["epochs"], training["min_lr"]
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def state(self) -> dict[str, Any]:
        return {
            "state_dict": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": seeding.random_state(),
        }

    def restore(self, state: Mapping[str, Any], path: Path) -> None:
        checkpoint.load_state(self.model, state["state_dict"], path)
        for group, own in zip(state["optimizer"]["param_groups"], self.optimizer.param_groups, strict=True):
            group.update(fused=own["fused"], foreach=own["foreach"])  # how it computes is no part of a run
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        seeding.set_random_state(state["random"])


def fused(device: torch.device) -> bool:
    """Whether AdamW is to update all tensors in one go, which on a CPU takes a quarter of the time."""
    return device.type in ("cpu", "cuda")


def fit(
    about: Mapping[str, Any],
    splits: Mapping[str, Pairs],
    folder: Path,
    logs: Path,
    device: torch.device,
    precision: str,
    workers: int,
    due: Callable[[], bool] = lambda: False,
    group: Group = ALONE,
) -> float:
    """Train, from `folder/last.pth` where it is there; leaves best_model.pth, metrics.csv, last.pth.

    How many seconds all sessions of the run took, without what was done twice. `splits`: `train` and the one on which
    it is watched, and the epoch chosen. `about` is what every checkpoint says of its run: `config`, `class_names`,
    `versions`. `due` says after which steps last.pth is written, beside each epoch's last. Of a group rank 0 writes.
    Raises TrainingError."""
    training = about["config"]["training"]
    seeding.seed_everything(training["seed"])
    trainee = Trainee(about["config"], device, precision)
    told = {"videos": run_folder.digest(splits["train"].keys), **watched_on(about["config"]["data"], splits)}
    history, progress, seconds = go_on(trainee, about, told, folder / "last.pth")
    group.barrier()  # before anything is written, all have read it
    run = Run(about, splits, folder, logs, trainee, told, history, progress, group, due, seconds)
    run.train(workers)
    return run.seconds


def watched_on(data: Mapping[str, Any], splits: Mapping[str, Pairs]) -> dict[str, str]:
    """What identifies the clips on which a run is watched; `data`: of its config."""
    if "val" in splits:
        return {"validated_on": str(splits["val"].rgb.attributes.get("content_sha256"))}
    return {"selection": selection_digest(splits["train"].rgb, data)}


class Run:
    """A run on its way: what `fit` is given, `history` (a row for each epoch that is done), `progress` in the next."""

    def __init__(
        self,
        about: Mapping[str, Any],
        splits: Mapping[str, Pairs],
        folder: Path,
        logs: Path,
        trainee: Trainee,
        told: Mapping[str, str],
        history: list[Row],
        progress: Progress,
        group: Group,
        due: Callable[[], bool],
        seconds: float = 0.0,
    ):
        self.about, self.splits, self.folder, self.trainee, self.told = about, splits, folder, trainee, told
        self.history, self.progress, self.group, self.due = history, progress, group, due
        self.training = about["config"]["training"]
        (self.watched,) = splits.keys() - {"train"}  # selection, or val
        self.seconds, self.began = seconds, time.monotonic() - seconds
        # steps count from 0, in batches of one process, so that the axis is the same for any number of processes
        self.steps = -(-len(splits["train"]) // self.training["batch_size"])
        self.writer: Any = tensorboard.tensorboard(logs, len(history), self.step()) if group.main else None
        if self.writer and len(history) < self.training["epochs"]:
            self.shown = Shown(self.writer, about, self.watched, splits[self.watched])

    def step(self) -> int:
        """The last one that is done, counted from the run's beginning."""
        return len(self.history) * self.steps - (-self.progress.videos // self.training["batch_size"]) - 1

    def train(self, workers: int) -> None:
        """All epochs that are left."""
        size, seed = self.training["batch_size"], self.training["seed"]
        order = EpochOrder(len(self.splits["train"]), seed, size, self.group)
        loader = make_loader(self.splits["train"], order, workers)
        watched = self.splits[self.watched]
        watched_loader = make_loader(watched, in_order(len(watched), size, self.group), workers)
        model = parallel(self.trainee.model, self.group)
        for epoch in range(len(self.history) + 1, self.training["epochs"] + 1):
            started, order.epoch, order.skip = time.monotonic(), epoch, self.progress.videos
            row: Row = {"epoch": epoch, "lr": float(self.trainee.scheduler.get_last_lr()[0])}
            row["train_loss"] = self.train_one_epoch(model, loader, epoch)
            self.trainee.scheduler.step()
            found = evaluate(self.trainee.model, watched_loader, *self.how(), self.group)
            row |= {f"{self.watched}_{name}": found["metrics"][name] for name in ("loss", "map_macro", "map_micro")}
            if math.isnan(row[f"{self.watched}_map_micro"]):
                what = f"{watched.rgb.path}: no {self.watched} video has a label"
                raise TrainingError(f"{what}, so nothing can be measured on them")
            self.history.append(row)
            self.progress = Progress()
            if self.writer:
                self.write_epoch(row, found)
                took = time.monotonic() - started
                print(f"epoch {epoch}/{self.training['epochs']}: {describe(row)}, {took:.0f} s", flush=True)
        if self.writer:
            self.writer.close()

    def how(self) -> tuple[Loss, torch.device, str]:
        """Loss, device and precision."""
        return self.trainee.loss, next(self.trainee.model.parameters()).device, self.trainee.precision

    def train_one_epoch(self, model: torch.nn.Module, loader: Any, epoch: int) -> float:
        """What is left of it; its mean loss."""
        if self.group.main:
            loader = progress(loader, len(loader), "step", f"epoch {epoch}/{self.training['epochs']}")
        return train_one_epoch(
            model,
            loader,
            self.trainee.optimizer,
            self.trainee.scaler,
            *self.how(),
            self.training["grad_clip_norm"],
            self.after_step,
            self.progress,
            self.group,
            self.training["seed"] + epoch,
        )

    def after_step(self, loss: float) -> None:
        """On rank 0, the loss goes to TensorBoard, and now and then all to last.pth."""
        if self.writer:
            self.writer.add_scalar("train/loss_by_step", loss, self.step())
            if self.due():
                self.save()

    def save(self) -> None:
        """last.pth: all that is needed to go on."""
        self.writer.flush()  # first: what the checkpoint covers must not be lost
        state = {**self.about, **self.trainee.state(), "precision": self.trainee.precision, "history": self.history}
        self.seconds = time.monotonic() - self.began  # in all sessions, without what was done twice
        state |= {**self.told, "progress": asdict(self.progress), "seconds": self.seconds}
        checkpoint.save_checkpoint(self.folder / "last.pth", state)

    def write_epoch(self, row: Row, found: Mapping[str, Any]) -> None:
        """What the run folder and TensorBoard have of an epoch."""
        self.shown.epoch(row, found)
        if row is chosen(self.history, self.training, self.watched):
            state = self.trainee.model.state_dict()
            best = {"state_dict": state, "epoch": int(row["epoch"]), "metrics": found["metrics"]}
            checkpoint.save_checkpoint(self.folder / "best_model.pth", {**self.about, **best})
        csv.write_csv(self.folder / "metrics.csv", list(row), [list(r.values()) for r in self.history])
        self.save()  # last: what a stop leaves half done before it is done again, with the same result


def parallel(model: torch.nn.Module, group: Group) -> torch.nn.Module:
    """The model whose gradients are those of the whole group. What a variant doesn't use has none, there too."""
    if group.size == 1:
        return model
    device = next(model.parameters()).device
    ids = [device] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=ids, find_unused_parameters=True)


def chosen(history: list[Row], training: Mapping[str, Any], watched: str) -> Row | None:
    """The epoch that best_model.pth is of, so far."""
    if training["checkpoint"] == "last":
        return history[-1] if len(history) == training["epochs"] else None
    return max(history, key=lambda row: row[f"{watched}_map_micro"])  # the first of equals


def go_on(
    trainee: Trainee, about: Mapping[str, Any], told: Mapping[str, str], path: Path
) -> tuple[list[Row], Progress, float]:
    """Put the run back to where last.pth was written: the rows of metrics.csv until there, how far the next epoch is,
    and how many seconds that took.

    Raises UserError where the run was begun with other settings or inputs, or an epoch of it with other videos.

    `told`: hashes of the videos trained on, and of what the run is watched on."""
    if not path.is_file():
        return [], Progress(), 0.0
    state = checkpoint.load_checkpoint(path)
    now = {"config": about["config"], "precision": trainee.precision}
    now |= {key: hashed for key, hashed in told.items() if key != "videos"}
    before = {key: state.get(key, now[key]) for key in now}  # of before there was a key: taken for the same
    check_unchanged(before, now, path, "go on with the same, or give --overwrite to start afresh")
    progress = Progress(**state.get("progress", {}))  # a file of before there was this key: after a whole epoch
    if progress.videos and state["videos"] != told["videos"]:
        raise UserError(
            "stopped in the middle of an epoch of other videos than there are now",
            "bring back what was there, or give --overwrite to start afresh",
            path=path,
        )
    trainee.restore(state, path)
    print(f"{path.parent}: goes on after epoch {len(state['history'])}, step {progress.steps} of the next", flush=True)
    return state["history"], progress, float(state.get("seconds", 0.0))


def describe(row: Row) -> str:
    numbers = ", ".join(f"{name} {value:.4f}" for name, value in row.items() if name not in ("epoch", "lr"))
    return f"{numbers}, lr {row['lr']:.3g}"
