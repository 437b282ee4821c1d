"""Training run of the student."""

import argparse
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from vimoclip import cli
from vimoclip.io import csv
from vimoclip.moclip import MoCLIP, loops
from vimoclip.moclip.builder import Student, fuse_quick_gelu
from vimoclip.moclip.dataset import TrainingSplits, UnreadableVideo
from vimoclip.moclip.frame_cache import FrameCache
from vimoclip.moclip.micro_batch import choose_micro_batch_size
from vimoclip.runtime import device, versions
from vimoclip.training import tensorboard
from vimoclip.training.checkpoint import TrainState, make_grad_scaler, parameter_bytes
from vimoclip.training.data_parallel import ModelReplica
from vimoclip.training.losses import LossMeter
from vimoclip.training.trainer import EvaluationResult, MetricsRow, Progress, RunOptions, Trainer

LEFT_OUT_COLUMNS = ("split", "video", "reason")  # header of left_out.csv
METRICS = ("loss", "distillation_loss", "head_map_macro", "head_map_micro")  # of the monitor split
# endings of flags that do not change the result and are not in HParams
OMITTED_SUFFIXES = ("_dir", "_path", "resume", "overwrite", "dry_run", "cache_frames", "report")


class StudentTrainer(Trainer):
    """Training of the student. Videos that can't be decoded are excluded."""

    unit, first_epoch, learning_rate_column = "segment", 0, "learning_rate"
    unreadable_hint = "run extract_flows.py again"
    tags: ClassVar = {"epoch": "", "learning_rate": ""}
    loss_names = loops.LOSS_NAMES

    def __init__(
        self,
        args: argparse.Namespace,
        run: RunOptions,
        student: Student,
        splits: TrainingSplits,
        cache: FrameCache | None = None,
    ):
        self.args, self.config, self.input_size = args, student.config, student.preprocess.size
        self.model, self.excluded = student.model.to(run.device), splits.excluded()  # (split, video, reason)
        super().__init__(
            run,
            make_train_state(args, self.model, run.precision),
            splits.datasets(args.sequence_length, student.preprocess, cache),
            {"config": self.config, "class_names": student.class_names, "versions": versions.package_versions()},
            seed=args.seed,
            batch_size=args.batch_size,
            epochs=args.epochs,
            annotations_dir=args.dataset_dir / "annotations",
            settings=plain_settings(args),
        )
        self.objective = loops.StudentObjective(
            student.preprocess,
            partial(device.autocast, run.device, run.precision),
            args.distillation_loss_mode,
            args.class_positive_weight,
            args.distillation_weight,
        )
        self.micro_batch_size = choose_micro_batch_size(
            args.micro_batch_size, args.batch_size, self.model, self.objective, args.sequence_length - 1
        )

    @property
    def probe_batch_size(self) -> int:
        return self.micro_batch_size

    def train_steps(self, replica: ModelReplica, batches: Iterable[Any]) -> Iterator[LossMeter]:
        exclude = partial(self._exclude, "train")
        return loops.train_steps(replica, batches, self.objective, self.micro_batch_size, exclude)

    def zero_loss(self, forward: Callable[..., Any]) -> torch.Tensor:
        images = torch.zeros(1, 1, 3, *self.input_size, device=self.run.device)  # one black frame
        output = forward(images, torch.ones(1, 1, dtype=torch.bool, device=self.run.device), [1])
        return 0 * (output.predicted.float().sum() + output.logits.float().sum())

    def evaluate(self, batches: Iterable[Any]) -> EvaluationResult:
        exclude = partial(self._exclude, self.monitor_split)
        return loops.evaluate(self.model, batches, self.objective, self.micro_batch_size, exclude, self.run.group)

    def best_row(self) -> MetricsRow | None:
        """Return the row of the lowest loss, the first of equals."""
        return best_row(self.progress.rows, self.monitor_split)

    def is_finished(self) -> bool:
        rows, patience = self.progress.rows, self.args.early_stopping_patience
        return super().is_finished() or has_stopped_early(rows, self.monitor_split, patience)

    # --- what files hold

    def item_ids(self) -> list[Any]:
        return [(segment.video.key, segment.start, segment.length) for segment in self.train_set.segments]

    def checkpoint_content(self) -> dict[str, Any]:
        """Return `config` and `progress`, which has the fields of Progress under the keys of last.pth."""
        progress, best = self.progress, self.best_row()
        content = {
            "epoch": len(progress.rows),
            "step": progress.step,
            "seen": progress.seen,
            "global_step": progress.global_step,
            "sums": progress.losses.sums,
            "best": best[f"{self.monitor_split}_loss"] if best else math.inf,
            "stale": stale_epochs(progress.rows, self.monitor_split),
            "rows": progress.rows,
            "unreadable": progress.unreadable,
            "segments": progress.items_sha256,
        }
        return {"config": self.config, "progress": content}

    @classmethod
    def parse_progress(cls, saved: Mapping[str, Any]) -> Progress:
        progress = saved["progress"]
        return Progress(
            rows=progress["rows"],
            step=progress["step"],
            seen=progress["seen"],
            losses=LossMeter(progress["sums"]),
            items_sha256=progress["segments"],
            global_step=progress["global_step"],
            unreadable=progress["unreadable"],
        )

    def check_resumable(self, saved: Mapping[str, Any]) -> None:
        """Raise UserError if last.pth has another encoder, flow, teacher, protocol or selection."""
        hint = "resume with the same data, or start a new run"
        cli.check_settings_match(self.config, saved["config"], "this command", str(self.last_path), hint)

    def train(self) -> None:
        super().train()
        best_path = self.run.folder / "student_best.pth"
        print(f"finished after epoch {len(self.progress.rows)}; best student: {best_path}", flush=True)

    def resume(self) -> None:
        super().resume()
        self.excluded += [(split, key, reason) for split, key, reason in self.progress.unreadable]
        self._write_left_out()

    def save_epoch(self, row: MetricsRow, evaluation: EvaluationResult, is_best: bool) -> None:
        """Write student_epoch_N.pth and, after the best epoch, student_best.pth."""
        for name in [f"student_epoch_{row['epoch']}.pth"] + ["student_best.pth"] * is_best:
            self.save_model(name, row["epoch"], row)

    def output_bytes(self, epochs: int) -> int:
        """Return the size of the epochs' checkpoints, of the best one, and of last.pth with Adam's moments."""
        trained = nn.ParameterList(p for p in self.model.parameters() if p.requires_grad)
        return parameter_bytes(self.model) * (epochs + 2) + 2 * parameter_bytes(trained)

    def _exclude(self, split: str, video: UnreadableVideo) -> None:
        """Add a video to left_out.csv, once."""
        if any(row[:2] == (split, video.key) for row in self.excluded):
            return
        self.excluded.append((split, *video))
        self.progress.unreadable.append([split, *video])
        if self.writer is not None:  # not in a dry run, which writes nothing
            self._write_left_out()
        print(f"  excluded: {video.key}: {video.reason}", flush=True)

    def _write_left_out(self) -> None:
        if self.run.group.is_main:
            csv.write_csv(self.run.folder / "left_out.csv", LEFT_OUT_COLUMNS, self.excluded)

    # --- TensorBoard and printed lines

    @property
    def last_step(self) -> int:
        return self.progress.global_step

    def step_scalars(self, losses: dict[str, float], learning_rate: float) -> dict[str, float]:
        scalars = losses | {"learning_rate": learning_rate}
        return {f"step/{name}": value for name, value in scalars.items()}

    def panel_clips(self) -> Sequence[tensorboard.PanelClip]:
        flow_paths = {segment.video.key: segment.video.flow_path for segment in self.monitor_set.segments}
        videos_dir = self.args.videos_dir or self.args.dataset_dir / "videos"
        return tensorboard.load_panel_clips(
            list(flow_paths), self.monitor_set.reader.labels, videos_dir, flow_paths.get
        )

    def format_row(self, row: MetricsRow) -> str:
        loss, distillation, macro, micro = (row[f"{self.monitor_split}_{name}"] for name in METRICS)
        return (
            f"train loss {row['train_loss']:.4f}, {self.monitor_split} loss {loss:.4f} (distillation "
            f"{distillation:.4f}), classification head's {self.monitor_split} map_macro {macro:.4f}, map_micro "
            f"{micro:.4f}"
        )

    def hparams(self) -> tuple[Mapping[str, Any], Mapping[str, float]] | None:
        """Return the row of the HParams tab, with the metrics of the epoch of student_best.pth."""
        if (best := self.best_row()) is None:
            return None
        results = {f"final/{self.monitor_split}_{name}": best[f"{self.monitor_split}_{name}"] for name in METRICS}
        settings = {k: v for k, v in self.settings.items() if not k.endswith(OMITTED_SUFFIXES)}
        return {"stage": "student", **settings, "protocol": self.config["protocol"]}, results


def make_train_state(args: argparse.Namespace, model: MoCLIP, precision: str) -> TrainState:
    """Return the student, prepared for training on its device, with AdamW and linear warmup."""
    device_type = next(model.parameters()).device.type
    fuse_quick_gelu(model)
    model.visual_encoder.to(memory_format=torch.channels_last)  # a quarter less time for a small ResNet on a CPU
    scaler = make_grad_scaler(device_type, precision)
    optimizer, scheduler = build_optimizer(args, model)
    if args.compile:
        model.visual_encoder.compile(dynamic=True)
    loops.set_train_mode(model)
    return TrainState(model, optimizer, scheduler, scaler, "step", args.grad_clip_norm, rng_key="random_state")


def best_row(rows: Sequence[MetricsRow], monitor_split: str) -> MetricsRow | None:
    """Return the row of the lowest loss on the monitor split, the first of equals; None without rows."""
    return min(rows, key=lambda row: row[f"{monitor_split}_loss"], default=None)


def stale_epochs(rows: Sequence[MetricsRow], monitor_split: str) -> int:
    """Return the number of epochs since the best one."""
    best = best_row(rows, monitor_split)
    return len(rows) - best["epoch"] if best else 0


def has_stopped_early(rows: Sequence[MetricsRow], monitor_split: str, patience: int | None) -> bool:
    """Return whether early stopping ends a run with these rows; `patience`: epochs without a lower loss, None: off."""
    return patience is not None and stale_epochs(rows, monitor_split) >= patience


def plain_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the flags' values, with paths as text."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}


def build_optimizer(args: argparse.Namespace, model: MoCLIP) -> tuple[Any, Any]:
    """Return (AdamW, linear warmup). The encoder has its own learning rate; with weight decay 0, AdamW is Adam."""
    encoder_ids = {id(p) for p in model.visual_encoder.parameters()}
    encoder_rate = args.encoder_learning_rate or args.learning_rate
    groups = [
        {"params": [p for p in model.parameters() if id(p) in encoder_ids and p.requires_grad], "lr": encoder_rate},
        {"params": [p for p in model.parameters() if id(p) not in encoder_ids], "lr": args.learning_rate},
    ]
    # fused: 0.08 s instead of 0.37 s for 86 million parameters on a CPU
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], weight_decay=args.weight_decay, fused=True)
    warmup = partial(_warmup_factor, steps=args.warmup_steps)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, warmup)


def _warmup_factor(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / steps) if steps else 1.0
