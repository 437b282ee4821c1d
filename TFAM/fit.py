"""One run: epochs of training and evaluation that can stop anywhere and go on with the same results."""

import csv
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from TFAM.config import check_unchanged
from TFAM.data import Pairs
from TFAM.engine import LOSSES, EpochOrder, Progress, evaluate, make_loader, train_one_epoch
from TFAM.model import FusionTransformer
from vimoclip import TrainingError, UserError, cli, runs

Row = dict[str, float]  # of metrics.csv


class Trainee:
    """A model and all that changes with it from step to step."""

    def __init__(self, config: Mapping[str, Any], device: torch.device, precision: str):
        training = config["training"]
        self.precision = precision
        self.loss = LOSSES[training["loss"]]
        self.model = FusionTransformer(**config["model"]).to(device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=training["lr"], weight_decay=training["weight_decay"]
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
            "random": runs.random_state(),
        }

    def restore(self, state: Mapping[str, Any], path: Path) -> None:
        runs.load_state(self.model, state["state_dict"], path)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        runs.set_random_state(state["random"])


def fit(
    about: Mapping[str, Any],
    splits: Mapping[str, Pairs],
    folder: Path,
    logs: Path,
    device: torch.device,
    precision: str,
    workers: int,
    due: Callable[[], bool] = lambda: False,
) -> None:
    """Train, from `folder/last.pth` where it is there; leaves best_model.pth, predictions.csv, metrics.csv, last.pth.

    `about` is what every checkpoint says of its run: `config`, `class_names`, `versions`. `due` says after which steps
    last.pth is written, beside each epoch's last. Raises TrainingError."""
    training = about["config"]["training"]
    runs.seed_everything(training["seed"])
    trainee = Trainee(about["config"], device, precision)
    told = {"videos": runs.digest(splits["train"].keys)}
    told["validated_on"] = str(splits["val"].rgb.attributes.get("content_sha256"))
    history, progress = go_on(trainee, about, told, folder / "last.pth")
    order = EpochOrder(len(splits["train"]), training["seed"])
    train_loader = make_loader(splits["train"], training["batch_size"], workers, order)
    val_loader = make_loader(splits["val"], training["batch_size"], workers)
    steps = len(train_loader)
    writer = runs.tensorboard(logs, len(history), len(history) * steps + progress.steps - 1)  # steps count from 0

    def save() -> None:
        writer.flush()  # first: what the checkpoint covers must not be lost
        state = {**about, **trainee.state(), "precision": trainee.precision, "history": history}
        runs.save_checkpoint(folder / "last.pth", state | told | {"progress": asdict(progress)})

    def after_step(loss: float) -> None:
        writer.add_scalar("train/loss_by_step", loss, len(history) * steps + progress.steps - 1)
        if due():
            save()

    for epoch in range(len(history) + 1, training["epochs"] + 1):
        started, order.epoch, order.skip = time.monotonic(), epoch, progress.steps * training["batch_size"]
        row: Row = {"epoch": epoch, "lr": float(trainee.scheduler.get_last_lr()[0])}
        row["train_loss"] = train_one_epoch(
            trainee.model,
            cli.progress(train_loader, len(train_loader), "step", f"epoch {epoch}/{training['epochs']}"),
            trainee.optimizer,
            trainee.scaler,
            trainee.loss,
            device,
            precision,
            training["grad_clip_norm"],
            after_step,
            progress,
        )
        trainee.scheduler.step()
        found = evaluate(trainee.model, val_loader, trainee.loss, device, precision)
        row |= {f"val_{name}": found["metrics"][name] for name in ("loss", "map_macro", "map_micro")}
        if math.isnan(row["val_map_micro"]):
            raise TrainingError(f"{splits['val'].rgb.path}: no video has a label, so nothing can be measured on them")
        history.append(row)
        progress = Progress()
        log_epoch(writer, row)
        if row is chosen(history, training):
            best = {"state_dict": trainee.model.state_dict(), "epoch": epoch, "metrics": found["metrics"]}
            runs.save_checkpoint(folder / "best_model.pth", {**about, **best})
            write_predictions(folder / "predictions.csv", found, about["class_names"])
        runs.write_csv(folder / "metrics.csv", list(row), [list(r.values()) for r in history])
        save()  # last: what a stop leaves half done before it is done again, with the same result
        print(f"epoch {epoch}/{training['epochs']}: {describe(row)}, {time.monotonic() - started:.0f} s", flush=True)
    writer.close()


def chosen(history: list[Row], training: Mapping[str, Any]) -> Row | None:
    """The epoch that best_model.pth is of, so far."""
    if training["checkpoint"] == "last":
        return history[-1] if len(history) == training["epochs"] else None
    return max(history, key=lambda row: row["val_map_micro"])  # the first of equals


def go_on(
    trainee: Trainee, about: Mapping[str, Any], told: Mapping[str, str], path: Path
) -> tuple[list[Row], Progress]:
    """Put the run back to where last.pth was written; the rows of metrics.csv until there, and how far the next is.

    Raises UserError where the run was begun with other settings or inputs, or an epoch of it with other videos.

    `told`: hashes of the videos trained on, and of what is validated on."""
    if not path.is_file():
        return [], Progress()
    state = runs.load_checkpoint(path)
    now = {"config": about["config"], "precision": trainee.precision, "validated_on": told["validated_on"]}
    before = {key: state.get(key, now[key]) for key in now}  # of before there was a key: taken for the same
    check_unchanged(before, now, path, "go on with the same, or give --overwrite to start afresh")
    progress = Progress(**state.get("progress", {}))  # a file of before there was this key: after a whole epoch
    if progress.steps and state["videos"] != told["videos"]:
        raise UserError(
            f"{path}: stopped in the middle of an epoch of other videos than there are now; bring back what was there, "
            "or give --overwrite to start afresh"
        )
    trainee.restore(state, path)
    print(f"{path.parent}: goes on after epoch {len(state['history'])}, step {progress.steps} of the next", flush=True)
    return state["history"], progress


def write_predictions(path: Path, found: Mapping[str, Any], class_names: list[str]) -> Path:
    """A row a video: its id and a probability a class, in the nine digits that give each float32 back."""
    rows = zip(found["videos"], found["probabilities"].tolist(), strict=True)
    return runs.write_csv(path, ["video_id", *class_names], ([v, *(f"{x:.9g}" for x in p)] for v, p in rows))


def read_predictions(path: Path) -> tuple[list[str], dict[str, list[float]]]:
    """Class names and each video's probabilities from a predictions.csv. Raises UserError."""
    with open(path, encoding="utf-8", newline="") as file:
        header, *lines = [*csv.reader(file)] or [[]]
    if header[:1] != ["video_id"] or not lines:
        raise UserError(f"{path}: holds no predictions; delete the run and make it again")
    return header[1:], {line[0]: [float(value) for value in line[1:]] for line in lines}


def log_epoch(writer: Any, row: Row) -> None:
    for name, value in row.items():
        if name != "epoch":
            # val_map_micro -> val/map_micro
            tag = {"lr": "train/lr", "train_loss": "train/loss_by_epoch"}.get(name, name.replace("val_", "val/"))
            writer.add_scalar(tag, value, int(row["epoch"]))


def describe(row: Row) -> str:
    names = ("train_loss", "val_loss", "val_map_macro", "val_map_micro")
    return ", ".join(f"{name} {row[name]:.4f}" for name in names) + f", lr {row['lr']:.3g}"
