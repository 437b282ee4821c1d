"""State of a training run of the student, saved as last.pth, and the running means of its losses."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vimoclip.annotations import split_protocol
from vimoclip.cli import check_settings_match
from vimoclip.moclip import MoCLIP
from vimoclip.runtime import seeding
from vimoclip.training import checkpoint


@dataclass
class StudentTrainerState:
    """Everything that a run needs to resume. For `progress` see `initial_progress`."""

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
            "random_state": seeding.get_rng_state(),
            "progress": self.progress,
            "config": self.config,
        }
        checkpoint.save_checkpoint(path, content)

    def load(self, path: Path) -> None:
        """Restore last.pth. Raises UserError if the run has another encoder, flow, teacher, protocol or selection."""
        saved = checkpoint.load_checkpoint(path)
        saved_config = {"protocol": split_protocol.PUBLISHED} | saved["config"]  # old files have no protocol
        hint = "resume with the same data, or start a new run"
        check_settings_match(self.config, saved_config, "this command", str(path), hint)
        checkpoint.load_state(self.model, saved["state_dict"], path)
        for saved_group, param_group in zip(
            saved["optimizer"]["param_groups"], self.optimizer.param_groups, strict=True
        ):
            # these depend on the device
            saved_group.update(fused=param_group["fused"], foreach=param_group["foreach"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(saved["scheduler"])
        if saved["scaler"]:  # empty if the scaler was disabled
            self.scaler.load_state_dict(saved["scaler"])
        self.progress = saved["progress"]
        seeding.set_rng_state(saved["random_state"])


def initial_progress() -> dict[str, Any]:
    """Return the progress of a new run, as plain Python values.

    | key                        | meaning                                                                |
    |----------------------------|------------------------------------------------------------------------|
    | epoch, global_step, rows   | completed epochs and steps, rows of metrics.csv                        |
    | step, seen, sums           | steps, segments and LossMeter state of the current epoch               |
    | best, stale                | lowest loss of the monitored split, epochs since                       |
    | unreadable                 | rows added to left_out.csv during the run                              |
    | segments                   | hash of the training segments, to whose order `seen` refers            |
    """
    progress = {"epoch": 0, "step": 0, "seen": 0, "global_step": 0, "sums": {}, "best": math.inf, "stale": 0}
    return progress | {"rows": [], "unreadable": [], "segments": ""}


class LossMeter:
    """Running means of losses over segments. `state` is plain Python, so that a run can resume within an epoch."""

    def __init__(self, state: dict[str, float] | None = None):
        self.state = dict(state or {})

    def add(self, loss_sums: dict[str, float], count: int) -> None:
        """Add losses summed over `count` segments."""
        for name, total in (loss_sums | {"count": count}).items():
            self.state[name] = self.state.get(name, 0.0) + total

    def means(self) -> dict[str, float]:
        count = self.state.get("count", 0) or 1
        return {name: total / count for name, total in self.state.items() if name != "count"}
