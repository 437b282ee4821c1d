"""What a run of the student needs to go on, and what it has counted so far."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vimoclip.annotations import split_protocol
from vimoclip.cli import check_same
from vimoclip.moclip import MoCLIP
from vimoclip.runtime import seeding
from vimoclip.training import checkpoint


@dataclass
class TrainState:
    """All that a run needs to go on: saved as `last.pth`. `progress` is plain Python; see `new_progress`."""

    model: MoCLIP
    config: dict[str, Any]
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    progress: dict[str, Any]

    def save(self, path: Path) -> None:
        content = {
            "state_dict": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random_state": seeding.random_state(),
            "progress": self.progress,
            "config": self.config,
        }
        checkpoint.save_checkpoint(path, content)

    def load(self, path: Path) -> None:
        """Raises UserError where the run was begun with another encoder, flow, teacher, protocol or selection."""
        last = checkpoint.load_checkpoint(path)
        before = {"protocol": split_protocol.PUBLISHED} | last["config"]  # of before there was any: the paper's
        check_same(self.config, before, "this command", str(path), "go on with the same data, or start anew")
        checkpoint.load_state(self.model, last["state_dict"], path)
        for group, own in zip(last["optimizer"]["param_groups"], self.optimizer.param_groups, strict=True):
            group.update(fused=own["fused"], foreach=own["foreach"])  # how it computes is no part of a run
        self.optimizer.load_state_dict(last["optimizer"])
        self.scheduler.load_state_dict(last["scheduler"])
        if last["scaler"]:  # empty where the run was on a CPU
            self.scaler.load_state_dict(last["scaler"])
        self.progress = last["progress"]
        seeding.set_random_state(last["random_state"])


def new_progress() -> dict[str, Any]:
    """`epoch`, `step`, `global_step` done; `sums` of the epoch begun; `best` loss, epochs since (`stale`), `rows`.

    `seen`: how many of the epoch's segments are done, whatever the batches; `unreadable`: what joined left_out.csv;
    `segments`: a hash of those trained on, of whose order `seen` speaks."""
    progress = {"epoch": 0, "step": 0, "seen": 0, "global_step": 0, "sums": {}, "best": math.inf, "stale": 0}
    return progress | {"rows": [], "unreadable": [], "segments": ""}


class Sums:
    """Means of losses over segments; its state is plain Python, so that a run can go on in the middle of an epoch."""

    def __init__(self, state: dict[str, float] | None = None):
        self.state = dict(state or {})

    def add(self, totals: dict[str, float], count: int) -> None:
        """Losses of so many segments, summed."""
        for name, total in (totals | {"count": count}).items():
            self.state[name] = self.state.get(name, 0.0) + total

    def means(self) -> dict[str, float]:
        count = self.state.get("count", 0) or 1
        return {name: total / count for name, total in self.state.items() if name != "count"}
