"""Mechanics of a training run. A run can be stopped at any time and resumes with the same results."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch

from vimoclip import cli
from vimoclip.errors import TrainingError, UserError
from vimoclip.io import csv
from vimoclip.runtime.distributed import ProcessGroup
from vimoclip.training import checkpoint, run_folder, tensorboard
from vimoclip.training.checkpoint import TrainState
from vimoclip.training.data_parallel import EpochBatchSampler, ModelReplica, make_loader, sequential_batches
from vimoclip.training.losses import LossMeter

FORMAT = 1  # value of `format` in last.pth
MetricsRow = dict[str, Any]  # of metrics.csv


@dataclass(frozen=True)
class RunOptions:
    """Folders of a run, and how this process computes. last.pth is written after each epoch, and within one at most
    every `save_every_minutes`."""

    folder: Path
    logs_dir: Path
    device: torch.device
    precision: str = "fp32"
    num_workers: int = 0
    save_every_minutes: float = math.inf
    group: ProcessGroup = ProcessGroup()  # noqa: RUF009 - immutable


@dataclass
class Progress:
    """Progress of a run over all processes. `step`, `seen` and `losses` are of the epoch that is not finished."""

    rows: list[MetricsRow] = field(default_factory=list)  # of metrics.csv, one per finished epoch
    step: int = 0
    seen: int = 0  # items in the epoch's order, including unreadable ones
    losses: LossMeter = field(default_factory=LossMeter)
    items_sha256: str = ""  # hash of the training items, to whose order `seen` refers
    global_step: int = 0  # steps of all epochs
    unreadable: list[list[str]] = field(default_factory=list)  # videos found to be so in training, for the subclass
    seconds: float = 0.0


class UnreadStep(NamedTuple):
    """A step whose losses have not been read yet, its number on TensorBoard's axis, and the learning rate after it."""

    losses: LossMeter
    number: int
    learning_rate: float


class EvaluationResult(NamedTuple):
    """Metrics by name, and the probabilities and labels (N, C) of N videos."""

    metrics: dict[str, float]
    videos: list[str]
    probabilities: torch.Tensor
    labels: torch.Tensor


class Trainer(ABC):
    """A run in its folder, new or resumed from last.pth. Rank 0 writes; all processes have the same progress.

    `datasets`: "train" and the monitor split. `metadata`: `config`, `class_names` and `versions`, stored in each
    checkpoint. `settings`: what TensorBoard shows. A subclass defines the loss loop, the evaluation, and the content of
    its files."""

    unit: ClassVar[str]  # of the items, like video
    unreadable_hint: ClassVar[str] = ""  # what to do if no item can be read
    first_epoch: ClassVar[int]  # number of the first epoch in `seeding.epoch_permutation`, from which its order follows
    learning_rate_column: ClassVar[str]  # of metrics.csv
    tags: ClassVar[Mapping[str, str]]  # TensorBoard tag by column; default: val_loss -> val/loss; empty: none
    loss_names: ClassVar[tuple[str, ...]] = ("loss",)  # of a step
    persistent_workers: ClassVar[bool] = False

    def __init__(
        self,
        run: RunOptions,
        state: TrainState,
        datasets: Mapping[str, Any],
        metadata: Mapping[str, Any],
        *,
        seed: int,
        batch_size: int,
        epochs: int,
        annotations_dir: Path,
        settings: Mapping[str, Any],
    ):
        self.run, self.state, self.metadata, self.settings = run, state, metadata, settings
        self.seed, self.batch_size, self.epochs, self.annotations_dir = seed, batch_size, epochs, annotations_dir
        (self.monitor_split,) = datasets.keys() - {"train"}  # selection or val
        self.train_set, self.monitor_set = datasets["train"], datasets[self.monitor_split]
        self.last_path = run.folder / "last.pth"
        self.progress = Progress(items_sha256=run_folder.digest(self.item_ids()))
        self.saved_at = time.monotonic()
        self.epochs_before = 0  # finished when this process started
        self.writer: Any = None  # of TensorBoard, on rank 0
        self.unread: UnreadStep | None = None

    # --- the loss loop

    @abstractmethod
    def train_steps(self, replica: ModelReplica, batches: Iterable[Any]) -> Iterator[LossMeter]:
        """Take an optimizer step per batch and yield its losses over all processes.

        Reading the losses waits for the device, and raises TrainingError if they are not finite."""

    @abstractmethod
    def zero_loss(self, forward: Callable[..., Any]) -> torch.Tensor:
        """See `data_parallel.ZeroLoss`."""

    @abstractmethod
    def evaluate(self, batches: Iterable[Any]) -> EvaluationResult:
        """Evaluate the monitor split; `batches`: of this process. Raises TrainingError."""

    @abstractmethod
    def best_row(self) -> MetricsRow | None:
        """Return the row of the epoch that is best so far, None if there is none yet."""

    def is_finished(self) -> bool:
        """Return whether no epoch is left to train."""
        return len(self.progress.rows) >= self.epochs

    # --- what files hold

    @abstractmethod
    def item_ids(self) -> list[Any]:
        """Return plain values that identify the items of the training split, in order."""

    @abstractmethod
    def checkpoint_content(self) -> dict[str, Any]:
        """Return what last.pth holds besides the TrainState and `format`."""

    @classmethod
    @abstractmethod
    def parse_progress(cls, saved: Mapping[str, Any]) -> Progress:
        """Return the progress in the content of last.pth."""

    @abstractmethod
    def check_resumable(self, saved: Mapping[str, Any]) -> None:
        """Raise UserError if the content of last.pth belongs to other settings or data."""

    @abstractmethod
    def save_epoch(self, row: MetricsRow, evaluation: EvaluationResult, is_best: bool) -> None:
        """Write the checkpoints of an epoch, other than last.pth."""

    @abstractmethod
    def output_bytes(self, epochs: int) -> int:
        """Return the size of the checkpoints of a run that has `epochs` epochs left."""

    # --- TensorBoard and printed lines

    @property
    @abstractmethod
    def last_step(self) -> int:
        """Number of the last finished step on TensorBoard's axis."""

    @abstractmethod
    def step_scalars(self, losses: dict[str, float], learning_rate: float) -> dict[str, float]:
        """Return the scalars of a step by tag."""

    @abstractmethod
    def panel_clips(self) -> Sequence[tensorboard.PanelClip]:
        """Return example clips of the monitor split."""

    @abstractmethod
    def format_row(self, row: MetricsRow) -> str:
        """Return what is printed after an epoch."""

    def hparams(self) -> tuple[Mapping[str, Any], Mapping[str, float]] | None:
        """Return (settings, final metrics) for the HParams tab; None if there are none yet."""
        return None

    # --- the run

    @classmethod
    def read_progress(cls, folder: Path | None) -> Progress:
        """Return the progress of the run in a folder; that of a new run if there is none. Raises UserError."""
        last_path = folder / "last.pth" if folder else None
        if last_path is None or not last_path.is_file():
            return Progress()
        return cls.parse_progress(checkpoint.load_checkpoint(last_path))

    def train(self) -> None:
        """Resume the run, if it has a last.pth, and train up to the last epoch. Raises UserError, TrainingError."""
        self.resume()
        if not self.is_finished():
            self.prepare_data()
        replica = ModelReplica(self.state, self.run.group, self.zero_loss, self.loss_names)
        if self.run.group.is_main and not self.is_finished():
            self._open_writer()
        sampler = EpochBatchSampler(len(self.train_set), self.seed, self.batch_size, self.run.group)
        loader = self.make_loader(self.train_set, sampler)
        monitor_batches = sequential_batches(len(self.monitor_set), self.batch_size, self.run.group)
        monitor_loader = self.make_loader(self.monitor_set, monitor_batches)
        while not self.is_finished():
            sampler.epoch, sampler.skip = self.first_epoch + len(self.progress.rows), self.progress.seen
            self._run_epoch(replica, loader, monitor_loader)
        if self.writer:
            self.writer.close()
        if self.run.group.is_main and (row := self.hparams()):
            tensorboard.write_hparams(self.run.logs_dir, *row, self.last_step)

    def resume(self) -> None:
        """Restore last.pth, if there is one. Raises UserError."""
        if self.run.group.broadcast(self.last_path.is_file()):
            saved = checkpoint.load_checkpoint(self.last_path)
            self.check_resumable(saved)
            items_sha256, self.progress = self.progress.items_sha256, self.parse_progress(saved)
            if self.progress.step and self.progress.items_sha256 != items_sha256:
                problem = "was saved within an epoch of other training data"
                hint = "restore that data, or use --overwrite to train from scratch"
                raise UserError(problem, hint, path=self.last_path)
            self.progress.items_sha256 = items_sha256
            self.state.restore(saved, self.last_path)
            position = f"epoch {len(self.progress.rows)}, step {self.progress.step} of the next"
            print(f"{self.run.folder}: resumes after {position}", flush=True)
            self.epochs_before = len(self.progress.rows)
        self.run.group.barrier()  # all processes have read last.pth before rank 0 writes
        self.started = time.monotonic() - self.progress.seconds

    def prepare_data(self) -> None:  # noqa: B027 - most runs have nothing to prepare
        """Prepare the data of a run that has epochs left. Raises UserError."""

    @property
    def probe_batch_size(self) -> int:
        """Items per step when the speed is measured for --dry-run."""
        return self.batch_size

    @property
    def probe_items(self) -> Sequence[int]:
        """Numbers of the training items with which the speed is measured for --dry-run."""
        return range(len(self.train_set))

    def make_loader(self, dataset: Any, batches: Any) -> Any:
        """Return an iterable of batches of this process, with a length."""
        return make_loader(dataset, batches, self.run.num_workers, self.run.device, self.persistent_workers)

    def report(self, left_out: Mapping[str, str]) -> cli.RunReport:
        """Return the result of `train`, in epochs; `left_out`: video -> reason."""
        done, before = len(self.progress.rows) - self.epochs_before, self.epochs_before
        return cli.RunReport([self.run.folder], done=done, already_done=before, skipped=dict(left_out), unit="epoch")

    def _open_writer(self) -> None:
        first_step = self.last_step + 1
        self.writer = tensorboard.open_writer(self.run.logs_dir, first_step)
        tensorboard.add_settings(self.writer, self.settings, first_step)
        arguments = (self.monitor_split, self.metadata["class_names"], self.annotations_dir, self.panel_clips())
        self.logger = tensorboard.EpochLogger(self.writer, *arguments)

    def _run_epoch(self, replica: ModelReplica, loader: Any, monitor_loader: Any) -> None:
        progress, started = self.progress, time.monotonic()
        epoch = len(progress.rows) + 1
        for losses in self.train_steps(replica, self._step_batches(loader, f"epoch {epoch}/{self.epochs}")):
            self.after_step(losses)
        self.read_losses()
        if not progress.losses.count:
            raise TrainingError(f"no {self.unit} of the training split is readable", self.unreadable_hint)
        replica.broadcast_running_stats()
        row: MetricsRow = {"epoch": epoch, self.learning_rate_column: self.state.learning_rate}
        row |= {f"train_{name}": value for name, value in progress.losses.means().items()}
        if self.state.schedule == "epoch":
            self.state.scheduler.step()
        evaluation = self.evaluate(monitor_loader)
        row |= {f"{self.monitor_split}_{name}": value for name, value in evaluation.metrics.items()}
        progress.rows.append(row)
        progress.step, progress.seen, progress.losses = 0, 0, LossMeter()
        if self.writer:
            self._write_epoch(row, evaluation)
            best = " *best" if row is self.best_row() else ""
            seconds = time.monotonic() - started
            print(f"epoch {epoch}/{self.epochs}: {self.format_row(row)}, {seconds:.0f} s{best}", flush=True)

    def _step_batches(self, loader: Any, description: str) -> Iterator[Any]:
        """Yield the loader's batches with a progress bar; seed each step on all ranks but 0."""
        batches = cli.progress(loader, len(loader), "step", description) if self.run.group.is_main else loader
        for batch in batches:
            self.run.group.seed_step(self.seed, self.last_step)
            yield batch

    def after_step(self, losses: LossMeter) -> None:
        """Count a step and log the one before it; write last.pth if it is time to. Raises TrainingError."""
        progress = self.progress
        self.read_losses()  # one step late: the device has this step in its queue
        progress.step += 1
        progress.global_step += 1
        progress.seen = min(progress.seen + self.batch_size * self.run.group.size, len(self.train_set))
        self.unread = UnreadStep(losses, self.last_step, self.state.learning_rate)
        # Not after the last step of an epoch: a run that resumes there would log the epoch's values again, since they
        # have the same step.
        minutes = (time.monotonic() - self.saved_at) / 60
        if self.writer and progress.seen < len(self.train_set) and minutes >= self.run.save_every_minutes:
            self.save()

    def read_losses(self) -> None:
        """Add the losses of the last step to the epoch's, and log them. Raises TrainingError if they are not finite.

        They are empty if no item of the step could be read."""
        if self.unread is None:
            return
        (losses, number, learning_rate), self.unread = self.unread, None
        self.progress.losses.add(losses.sums)
        if self.writer and losses.count:
            for tag, value in self.step_scalars(losses.means(), learning_rate).items():
                self.writer.add_scalar(tag, value, number)

    def _write_epoch(self, row: MetricsRow, evaluation: EvaluationResult) -> None:
        """Write checkpoints and metrics.csv, and log the epoch to TensorBoard."""
        self.save_epoch(row, evaluation, is_best=row is self.best_row())
        csv.write_csv(self.run.folder / "metrics.csv", list(row), [list(r.values()) for r in self.progress.rows])
        tags = {name: self.tags.get(name, name.replace("_", "/", 1)) for name in row}  # val_loss -> val/loss
        scalars = {tag: row[name] for name, tag in tags.items() if tag}
        self.logger.log_epoch(self.last_step, scalars, *evaluation[1:])
        self.save()  # last: a run that is killed before repeats the epoch and writes the same files again

    def save(self) -> None:
        """Write last.pth. Raises TrainingError if a loss or the weights are not finite."""
        self.read_losses()
        if not all(weight.isfinite().all() for weight in self.state.model.parameters()):
            raise TrainingError("the weights are not finite", "use a smaller learning rate", path=self.run.folder)
        self.writer.flush()  # events up to the checkpoint's step must be on disk
        self.progress.seconds = time.monotonic() - self.started
        content = self.checkpoint_content() | self.state.state_dict() | {"format": FORMAT}
        checkpoint.save_checkpoint(self.last_path, content)
        self.saved_at = time.monotonic()

    def save_model(self, name: str, epoch: int, metrics: Mapping[str, Any]) -> None:
        """Write a checkpoint of the model, with the metadata."""
        content = {"state_dict": self.state.model.state_dict(), **self.metadata, "epoch": epoch, "metrics": metrics}
        checkpoint.save_checkpoint(self.run.folder / name, content)
