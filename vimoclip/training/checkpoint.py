"""Checkpoints, which hold tensors and plain Python values only, and the state of a training in last.pth."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

import torch
from torch import nn

from vimoclip.errors import UserError
from vimoclip.io import atomic
from vimoclip.io.checkpoint_loading import load_state, load_tensors
from vimoclip.runtime import seeding


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> Path:
    """Write a file with torch.save, atomically, and return its path."""
    with atomic.open_atomic(path) as file:
        torch.save(dict(content), cast(IO[bytes], file))
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a file with torch.load and weights_only=True, and remove the prefix `module.` of the state dict's keys.

    A file that is a plain state dict becomes {"state_dict": ...}.

    Raises UserError if the file holds no state dict, or anything but tensors and plain values."""
    if not path.is_file():
        raise UserError("there is no such checkpoint", "give a checkpoint of train.py or TFAM", path=path)
    content = load_tensors(path)
    if isinstance(content, dict) and content and "state_dict" not in content:
        content = {"state_dict": content}
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise UserError("has no state dict", "give a checkpoint of train.py or TFAM", path=path)
    return content | {"state_dict": {key.removeprefix("module."): tensor for key, tensor in state.items()}}


def make_grad_scaler(device_type: str, precision: str) -> torch.amp.GradScaler:
    """Return a gradient scaler, enabled for fp16. Raises UserError for fp16 on Apple's GPUs.

    There, fused optimizers ignore the scaler, and earlier versions of PyTorch have none."""
    if precision == "fp16" and device_type == "mps":
        raise UserError("--precision fp16: does not train on Apple's GPUs", "use bf16 or fp32")
    if precision == "fp16":  # the first steps are skipped until the scale is found
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
    return torch.amp.GradScaler(device_type, enabled=precision == "fp16")


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
        load_state(self.model, saved["state_dict"], path)
        for saved_group, group in zip(saved["optimizer"]["param_groups"], self.optimizer.param_groups, strict=True):
            saved_group.update(fused=group["fused"], foreach=group["foreach"])  # these depend on the device
        self.optimizer.load_state_dict(saved["optimizer"])
        self._match_memory_format()
        self.scheduler.load_state_dict(saved["scheduler"])
        if saved["scaler"]:  # empty if the scaler was disabled
            self.scaler.load_state_dict(saved["scaler"])
        seeding.set_rng_state(saved[self.rng_key])

    def _match_memory_format(self) -> None:
        """Lay out the optimizer's tensors as the parameters are, which may be channels-last.

        load_state_dict keeps the strides with which they were saved, as on another device or by an earlier version.
        Fused optimizers index parameter, gradient and moments alike: they would update wrongly on the CPU, and fail on
        a GPU."""
        for parameter, state in self.optimizer.state.items():
            for name, value in state.items():
                if name != "step" and torch.is_tensor(value) and value.shape == parameter.shape:
                    state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def parameter_bytes(model: nn.Module) -> int:
    """Return the size of the parameters of a model."""
    return sum(p.numel() * p.element_size() for p in model.parameters())
