"""State of a training as last.pth holds it: model, optimizer, learning rate, gradient scale and random numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from vimoclip.runtime import seeding
from vimoclip.training import checkpoint


@dataclass
class TrainState:
    """Everything that an optimizer step changes.

    `schedule`: whether the learning rate changes per step or per epoch; `rng_key`: key of the random state in
    last.pth."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    schedule: Literal["step", "epoch"] = "epoch"
    grad_clip_norm: float | None = None
    rng_key: str = "random"

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last parameter group."""
        return float(self.optimizer.param_groups[-1]["lr"])

    def update(self) -> None:
        """Clip the accumulated gradients, if requested, and update parameters, gradient scale and learning rate."""
        if self.grad_clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.requires_grad], self.grad_clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.schedule == "step":
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state under the keys of last.pth."""
        return {
            "state_dict": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            self.rng_key: seeding.get_rng_state(),
        }

    def restore(self, saved: Mapping[str, Any], path: Path) -> None:
        """Load the content of last.pth; `path` is for error messages. Raises UserError."""
        checkpoint.load_state(self.model, saved["state_dict"], path)
        for saved_group, group in zip(saved["optimizer"]["param_groups"], self.optimizer.param_groups, strict=True):
            saved_group.update(fused=group["fused"], foreach=group["foreach"])  # these depend on the device
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(saved["scheduler"])
        if saved["scaler"]:  # empty if the scaler was disabled
            self.scaler.load_state_dict(saved["scaler"])
        seeding.set_rng_state(saved[self.rng_key])


def parameter_bytes(model: nn.Module) -> int:
    """Return the size of the parameters of a model."""
    return sum(p.numel() * p.element_size() for p in model.parameters())
