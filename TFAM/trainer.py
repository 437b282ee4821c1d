"""Training run of the fusion Transformer or of the attentive probe."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from TFAM import loops
from TFAM.config import check_unchanged, logged_sections
from TFAM.data import ClipFeatures, PairedEmbeddings, selection_digest
from TFAM.probes import build_model
from TFAM.resident import ResidentLoader, ResidentSplit, load_splits
from vimoclip import cli
from vimoclip.flow.flow_folder import FlowFolder
from vimoclip.runtime import cost_estimate, seeding
from vimoclip.runtime.cost_estimate import PART_TOKENS
from vimoclip.runtime.device import total_memory
from vimoclip.training import tensorboard
from vimoclip.training.checkpoint import TrainState, make_grad_scaler, parameter_bytes
from vimoclip.training.data_parallel import ModelReplica
from vimoclip.training.losses import MULTI_LABEL_LOSSES, LossMeter
from vimoclip.training.trainer import EvaluationResult, MetricsRow, Progress, RunOptions, Trainer

BYTES_PER_PREDICTION = 12  # of a probability in predictions.csv
COLUMNS = ("loss", "map_macro", "map_micro")  # of metrics.csv, for the monitor split


class FusionTrainer(Trainer):
    """Training of the model that `metadata["config"]` describes."""

    unit, first_epoch, learning_rate_column = "video", 1, "lr"
    tags: ClassVar = {"epoch": "", "lr": "train/lr", "train_loss": "train/loss_by_epoch"}
    persistent_workers = True  # epochs are short

    def __init__(self, metadata: Mapping[str, Any], splits: Mapping[str, PairedEmbeddings], run: RunOptions):
        config = metadata["config"]
        self.training, self.data = config["training"], config["data"]
        self.loss_function = MULTI_LABEL_LOSSES[self.training["loss"]]
        seeding.seed_everything(self.training["seed"])
        super().__init__(
            run,
            make_train_state(config, run.device, run.precision),
            splits,
            metadata,
            seed=self.training["seed"],
            batch_size=self.training["batch_size"],
            epochs=self.training["epochs"],
            annotations_dir=Path(self.data["annotations_dir"]),
            settings=logged_sections(config),
        )
        self.resident: dict[PairedEmbeddings, ResidentSplit] = {}  # on the GPU, if they fit

    def prepare_data(self) -> None:
        (line, memory), total = self.longest_clip(), total_memory(self.run.device)
        if memory > total:
            print(f"warning: {line}; there are {cli.format_bytes(total)}", flush=True)
        self.resident = load_splits([self.train_set, self.monitor_set], self.batch_size, self.run)

    def step_tokens(self, frames: int) -> int:
        """Return the number of frames and flows of a video that a step computes."""
        return frames if self.train_set.motion is None else 2 * frames - 1

    @property
    def probe_items(self) -> Sequence[int]:
        """Those of ordinary length: a step with a clip of 20 minutes may take an hour on a CPU."""
        frames = self.train_set.frames().values()
        return [number for number, count in enumerate(frames) if self.step_tokens(count) <= PART_TOKENS]

    def longest_clip(self) -> tuple[str, float]:
        """Return a line about the longest training video, and the memory in bytes of a step with it."""
        frames, model = self.train_set.frames(), self.metadata["config"]["model"]
        tokens = self.step_tokens(max(frames.values()))
        memory = cost_estimate.fusion_step_memory(tokens, model["d_model"], model["num_layers"])
        return cost_estimate.describe_longest_clip(frames, memory), memory

    def make_loader(self, dataset: Any, batches: Any) -> Any:
        if dataset in self.resident:
            return ResidentLoader(self.resident[dataset], batches)
        return super().make_loader(dataset, batches)

    def train_steps(self, replica: ModelReplica, batches: Iterable[Any]) -> Iterator[LossMeter]:
        return loops.train_steps(replica, batches, self.loss_function, self.run.device, self.run.precision)

    def zero_loss(self, forward: Callable[..., Any]) -> torch.Tensor:
        rgb = torch.zeros(2, self.train_set.rgb.dim)  # one video of two frames
        batch = self.train_set.collate([ClipFeatures("", rgb, rgb[1:], torch.empty(0))])
        return 0 * forward(*batch.model_inputs(self.run.device)).float().sum()

    def evaluate(self, batches: Iterable[Any]) -> EvaluationResult:
        run = self.run
        result = loops.evaluate(self.state.model, batches, self.loss_function, run.device, run.precision, run.group)
        self.monitor_metrics = result.metrics
        return result._replace(metrics={name: self.monitor_metrics[name] for name in COLUMNS})

    def best_row(self) -> MetricsRow | None:
        """Return the row of the epoch that best_model.pth holds so far, by training.checkpoint."""
        rows = self.progress.rows
        if self.training["checkpoint"] == "last":
            return rows[-1] if len(rows) == self.epochs else None
        return max(rows, key=lambda row: row[f"{self.monitor_split}_map_micro"], default=None)  # the first of equals

    # --- what files hold

    def item_ids(self) -> list[Any]:
        return self.train_set.keys

    @cached_property
    def monitor_fingerprint(self) -> dict[str, str]:
        """Return the hash of the monitor split under its key in last.pth."""
        if self.monitor_split == "val":
            return {"validated_on": str(self.monitor_set.rgb.attributes.get("content_sha256"))}
        return {"selection": selection_digest(self.train_set.rgb, self.data)}

    def checkpoint_content(self) -> dict[str, Any]:
        progress = self.progress
        return {
            **self.metadata,
            "precision": self.run.precision,
            "history": progress.rows,
            "videos": progress.items_sha256,
            **self.monitor_fingerprint,
            "progress": {
                "steps": progress.step,
                "loss": progress.losses.sums.get("loss", 0.0),
                "videos": progress.seen,
            },
            "seconds": progress.seconds,
        }

    @classmethod
    def parse_progress(cls, saved: Mapping[str, Any]) -> Progress:
        epoch = saved["progress"]
        return Progress(
            rows=saved["history"],
            step=epoch["steps"],
            seen=epoch["videos"],
            losses=LossMeter({"loss": epoch["loss"], "count": epoch["videos"]}),
            items_sha256=saved["videos"],
            seconds=saved["seconds"],
        )

    def check_resumable(self, saved: Mapping[str, Any]) -> None:
        """Raise UserError if the settings or the monitor split have changed."""
        current = {"config": self.metadata["config"], "precision": self.run.precision, **self.monitor_fingerprint}
        previous = {key: saved.get(key) for key in current}
        hint = "use the same, or --overwrite to train from scratch"
        check_unchanged(previous, current, self.last_path, hint)

    def save_epoch(self, row: MetricsRow, evaluation: EvaluationResult, is_best: bool) -> None:
        """Write best_model.pth if this is the best epoch."""
        if is_best:
            self.save_model("best_model.pth", row["epoch"], self.monitor_metrics)

    def output_bytes(self, epochs: int) -> int:
        """Return the size of best_model.pth, last.pth (with AdamW's two moments) and predictions.csv."""
        num_probabilities = len(self.monitor_set) * len(self.metadata["class_names"])
        return 4 * parameter_bytes(self.state.model) + num_probabilities * BYTES_PER_PREDICTION

    # --- TensorBoard and printed lines

    @property
    def seconds(self) -> float:
        """Time of all sessions, without steps that were repeated after a stop."""
        return self.progress.seconds

    @property
    def last_step(self) -> int:
        """Number of the last finished step; the first step of the run is 0.

        Counted in batches of one process, so that TensorBoard's axis does not depend on the number of processes."""
        finished, unfinished = (-(-items // self.batch_size) for items in (len(self.train_set), self.progress.seen))
        return len(self.progress.rows) * finished + unfinished - 1

    def step_scalars(self, losses: dict[str, float], learning_rate: float) -> dict[str, float]:
        return {"train/loss_by_step": losses["loss"]}

    def panel_clips(self) -> Sequence[tensorboard.PanelClip]:
        dataset_dir = self.annotations_dir.parent
        videos, labels = [video for video, _ in self.monitor_set.keys], self.monitor_set.rgb.labels
        flows_dir = dataset_dir / "flows"
        find_flow = FlowFolder(flows_dir).find if flows_dir.is_dir() else lambda video: None
        clips = tensorboard.load_panel_clips(videos, labels, dataset_dir / "videos", find_flow)
        if not clips:
            print(f"{dataset_dir}: no readable videos in videos/, so TensorBoard shows no clips", flush=True)
        return clips

    def format_row(self, row: MetricsRow) -> str:
        numbers = ", ".join(f"{name} {value:.4f}" for name, value in row.items() if name not in ("epoch", "lr"))
        return f"{numbers}, lr {row['lr']:.3g}"


def make_train_state(config: Mapping[str, Any], device: torch.device, precision: str) -> TrainState:
    """Return a new model with AdamW and a learning rate that falls along a cosine."""
    training, model = config["training"], build_model(config["model"]).to(device)
    # fused takes a quarter of the time on a CPU
    fused = device.type in ("cpu", "cuda")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=training["lr"], weight_decay=training["weight_decay"], fused=fused
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training["epochs"], training["min_lr"])
    scaler = make_grad_scaler(device.type, precision)
    return TrainState(model, optimizer, scheduler, scaler, "epoch", training["grad_clip_norm"])
