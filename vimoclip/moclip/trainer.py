"""One run of the student: epochs of training and evaluation that can stop anywhere and go on with the same results."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from vimoclip import cli
from vimoclip.annotations import split_protocol
from vimoclip.cli import progress
from vimoclip.clip import Preprocess
from vimoclip.errors import UserError
from vimoclip.io import csv
from vimoclip.moclip import MoCLIP, loops
from vimoclip.moclip.data_parallel import Replicas, micro_batch_size
from vimoclip.moclip.dataset import SegmentDataset, Unreadable, collate
from vimoclip.moclip.epoch_log import Shown, describe_epoch
from vimoclip.moclip.quick_gelu import fuse_quick_gelu
from vimoclip.moclip.train_state import Sums, TrainState, new_progress
from vimoclip.runtime import device, seeding, versions
from vimoclip.runtime.distributed import Group, share_of
from vimoclip.training import checkpoint, run_folder, tensorboard

LEFT_OUT = ("split", "video", "reason")  # header of left_out.csv


class Learning:
    """How a student learns under a run's settings: what the steps of a run and those of a probe share."""

    def __init__(self, args: argparse.Namespace, model: MoCLIP, preprocess: Preprocess, group: Group):
        self.args, self.model, self.preprocess, self.group = args, model, preprocess, group
        self.device = next(model.parameters()).device
        precision = device.pick_precision(args.precision, self.device)
        self.autocast = partial(device.autocast, self.device, precision)
        self.losses = loops.make_losses(
            args.distillation_loss_mode, args.class_positive_weight, args.distillation_weight
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16" and self.device.type == "cuda")
        fuse_quick_gelu(model)
        if self.device.type == "cuda":
            model.visual_encoder.to(memory_format=torch.channels_last)
        self.optimizer, self.scheduler = build_optimizer(args, model)
        if args.compile:
            model.visual_encoder.compile(dynamic=True)
        self.workers = cli.usable_workers(args.num_workers)
        loops.set_training(model)
        flows = args.sequence_length - 1
        self.micro_batch_size = micro_batch_size(args.micro_batch_size, model, args.batch_size, flows)

    def state(self, config: dict[str, Any]) -> TrainState:
        """Of a run that begins."""
        return TrainState(self.model, config, self.optimizer, self.scheduler, self.scaler, new_progress())

    def loader(self, dataset: SegmentDataset, order: Sequence[int]) -> DataLoader:
        """This process's batches of the segments in this order."""
        return self.loader_of(dataset, share_of(order, self.args.batch_size, self.group.rank, self.group.size))

    def loader_of(self, dataset: SegmentDataset, batches: list[list[int]]) -> DataLoader:
        """Of these batches, read ahead.

        The loader's own generator keeps it from the model's random numbers, of which a run that goes on in the middle
        of an epoch would else draw one more than a run that was never stopped."""
        return DataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=self.workers,
            collate_fn=collate,
            generator=torch.Generator(),
            pin_memory=self.device.type == "cuda",
        )

    def train(self, state: TrainState, batches: Any, replicas: Replicas, **more: Any) -> dict[str, float]:
        return loops.train_one_epoch(
            state,
            batches,
            self.losses,
            self.preprocess,
            self.autocast,
            replicas=replicas,
            micro_batch_size=self.micro_batch_size,
            grad_clip_norm=self.args.grad_clip_norm,
            **more,
        )

    def evaluate(self, dataset: SegmentDataset, tell: loops.Tell) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        return loops.evaluate(
            self.model,
            self.loader(dataset, range(len(dataset))),
            self.losses,
            self.preprocess,
            self.autocast,
            tell,
            group=self.group,
            micro_batch_size=self.micro_batch_size,
        )


class Run:
    """A run in its folder, begun or gone on with. Rank 0 writes; every rank knows the same of how far it is.

    `left_out`: (split, video, reason) of what can't be used; flow videos that break on reading join it."""

    def __init__(
        self,
        args: argparse.Namespace,
        folder: Path,
        learning: Learning,
        config: dict[str, Any],
        sets: dict[str, SegmentDataset],
        class_names: list[str],
        left_out: list[tuple[str, str, str]],
    ):
        self.args, self.folder, self.learning, self.group = args, folder, learning, learning.group
        self.sets, self.class_names, self.last = sets, class_names, folder / "last.pth"
        self.watched = split_protocol.WATCHED[config["protocol"]]
        self.state = learning.state(config)
        if self.group.share(self.last.exists()):
            self.state.load(self.last)
            progress = self.state.progress
            progress.setdefault("seen", progress["step"] * args.batch_size)  # files of before counted steps alone
            print(f"going on at epoch {progress['epoch'] + 1}, segment {progress['seen'] + 1}", flush=True)
        self.progress = self.state.progress
        check_segments(self.progress, sets["train"], self.last)
        self.sums = Sums(self.progress["sums"])
        self.left_out = left_out + [tuple(line) for line in self.progress["unreadable"]]
        self.due = checkpoint.Every(60 * args.save_every_minutes)
        self.replicas = Replicas(learning.model, self.group, learning.preprocess.size, args.seed)

    def train(self) -> None:
        """To the last epoch."""
        begun = self.progress["epoch"], self.progress["global_step"]
        self.tensorboard = None
        if self.group.main:
            csv.write_csv(self.folder / "left_out.csv", LEFT_OUT, self.left_out)
            self.tensorboard = tensorboard.tensorboard(self.args.logs_dir / self.folder.absolute().name, *begun)
            watched = self.sets[self.watched]
            self.shown = Shown(self.tensorboard, self.args, self.watched, watched, self.class_names)
        while self.progress["epoch"] < self.args.epochs and not stopped_early(self.args, self.progress):
            self._epoch()
        if self.tensorboard is not None:
            self.shown.final(self.progress["rows"], self.state.config["protocol"])
            self.tensorboard.close()
        best = self.folder / "student_best.pth"
        print(f"finished after epoch {self.progress['epoch']}; the best student is {best}", flush=True)

    def _epoch(self) -> None:
        order = seeding.epoch_order(len(self.sets["train"]), self.args.seed, self.progress["epoch"])
        batches: Any = self.learning.loader(self.sets["train"], order[self.progress["seen"] :])
        if self.group.main:
            name = f"epoch {self.progress['epoch'] + 1}/{self.args.epochs}"
            batches = progress(batches, len(batches), "step", name)
        tell = partial(self._tell, "train")
        trained = self.learning.train(
            self.state, batches, self.replicas, sums=self.sums, after_step=self._after_step, tell=tell
        )
        self.replicas.share_statistics()
        validated, probabilities = self.learning.evaluate(self.sets[self.watched], partial(self._tell, self.watched))
        row = book_epoch(self.state, trained, validated, self.watched)
        self.sums.state.clear()
        if self.tensorboard is None:
            return
        write_epoch(self.state, self.folder, row, self.class_names)
        self.shown.epoch(row, probabilities)
        self.state.save(self.last)  # last: what a stop leaves half done before it is done again, with the same result
        print(describe_epoch(row, self.args.epochs, self.watched, better=self.progress["stale"] == 0), flush=True)

    def _tell(self, split: str, unreadable: Unreadable) -> None:
        if any(line[:2] == (split, unreadable.key) for line in self.left_out):
            return
        self.left_out.append((split, *unreadable))
        self.progress["unreadable"].append([split, *unreadable])
        if self.group.main:
            csv.write_csv(self.folder / "left_out.csv", LEFT_OUT, self.left_out)
        print(f"  left out: {unreadable.key}: {unreadable.reason}", flush=True)

    def _after_step(self, values: dict[str, float]) -> None:
        progress, taken = self.progress, self.args.batch_size * self.group.size
        progress["step"] += 1
        progress["global_step"] += 1
        progress["seen"] = min(progress["seen"] + taken, len(self.sets["train"]))
        if not values or self.tensorboard is None:  # nothing of the step could be read, or rank 0 does it
            return
        values["learning_rate"] = self.state.optimizer.param_groups[-1]["lr"]
        for name, value in values.items():
            self.tensorboard.add_scalar(f"step/{name}", value, progress["global_step"])
        if self.due():
            progress["sums"] = dict(self.sums.state)
            self.tensorboard.flush()
            self.state.save(self.last)


def check_segments(progress: dict[str, Any], dataset: SegmentDataset, last: Path) -> None:
    """Raise UserError in the middle of an epoch of other segments, whose order would be another."""
    digest = run_folder.digest([(segment.clip.key, segment.start, segment.length) for segment in dataset.segments])
    if progress["seen"] and progress["segments"] != digest:
        raise UserError(
            "stopped in the middle of an epoch of other videos than there are now",
            "bring back what was there (see left_out.csv), or start anew",
            path=last,
        )
    progress["segments"] = digest


def book_epoch(
    state: TrainState, trained: dict[str, float], validated: dict[str, float], watched: str
) -> dict[str, Any]:
    """An epoch's row of metrics, after the progress has taken it in.

    `watched`: what the columns of the clips begin with that epochs are chosen on."""
    progress = state.progress
    row = {"epoch": progress["epoch"] + 1, "learning_rate": state.optimizer.param_groups[-1]["lr"]}
    row |= {f"train_{k}": v for k, v in trained.items()} | {f"{watched}_{k}": v for k, v in validated.items()}
    better = validated["loss"] < progress["best"]
    progress.update(epoch=row["epoch"], step=0, seen=0, sums={}, rows=[*progress["rows"], row])
    progress.update(best=min(progress["best"], validated["loss"]), stale=0 if better else progress["stale"] + 1)
    return row


def write_epoch(state: TrainState, folder: Path, row: dict[str, Any], class_names: list[str]) -> None:
    """The epoch's files, but for last.pth."""
    student = {"state_dict": state.model.state_dict(), "config": state.config, "class_names": class_names}
    student |= {"epoch": row["epoch"], "metrics": row, "versions": versions.versions()}
    checkpoint.save_checkpoint(folder / f"student_epoch_{row['epoch']}.pth", student)
    if state.progress["stale"] == 0:
        checkpoint.save_checkpoint(folder / "student_best.pth", student)
    csv.write_csv(folder / "metrics.csv", list(row), [list(r.values()) for r in state.progress["rows"]])


def build_optimizer(args: argparse.Namespace, model: MoCLIP) -> tuple[Any, Any]:
    """(AdamW, which at weight decay 0 is Adam; a schedule that only warms up). The encoder may have its own rate."""
    encoder = {id(p) for p in model.visual_encoder.parameters()}
    rate = args.encoder_learning_rate or args.learning_rate
    groups = [
        {"params": [p for p in model.parameters() if id(p) in encoder and p.requires_grad], "lr": rate},
        {"params": [p for p in model.parameters() if id(p) not in encoder], "lr": args.learning_rate},
    ]
    # fused: one pass over the parameters: 0.08 s for 86 million on a CPU, where Adam as it comes takes 0.37
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], weight_decay=args.weight_decay, fused=True)
    warmup = partial(_warmup, steps=args.warmup_steps)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, warmup)


def _warmup(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / steps) if steps else 1.0


def stopped_early(args: argparse.Namespace, progress: dict[str, Any]) -> bool:
    patience = args.early_stopping_patience
    return patience is not None and progress["stale"] >= patience
