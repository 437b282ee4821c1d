"""Run folders and what is in them: checkpoints, seeds, metrics, TensorBoard; and the device that a run computes on."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch

from vimoclip.errors import UserError
from vimoclip.io import atomic
from vimoclip.io.checkpoint_loading import load_tensors


class Every:
    """True once every so many seconds; with 0 each time."""

    def __init__(self, seconds: float):
        self.seconds, self.last = seconds, time.monotonic()

    def __call__(self) -> bool:
        if time.monotonic() - self.last < self.seconds:
            return False
        self.last = time.monotonic()
        return True


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> Path:
    """torch.save under its name only when whole. Content: tensors and plain Python, so that it loads safely."""
    with atomic.new_file(path) as file:
        torch.save(dict(content), cast(IO[bytes], file))
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `torch.load(weights_only=True)` gives; a plain state dict, with `module.` or not, comes as `state_dict`.

    Raises UserError, also for a file that would run code."""
    if not path.is_file():
        raise UserError("there is no such checkpoint", "name one that train.py or TFAM wrote", path=path)
    content = load_tensors(path)
    if not isinstance(content, dict) or not content:
        raise UserError("holds no state dict", "name a checkpoint that train.py or TFAM wrote", path=path)
    if "state_dict" not in content:
        content = {"state_dict": content}
    state = content["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise UserError("holds no state dict", "name a checkpoint that train.py or TFAM wrote", path=path)
    content["state_dict"] = {k.removeprefix("module."): v for k, v in content["state_dict"].items()}
    return content


def load_state(model: torch.nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Load strictly. Raises UserError that names the first tensors that don't fit."""
    own = model.state_dict()
    wrong = [k for k in own if k not in state or own[k].shape != state[k].shape] + [k for k in state if k not in own]
    if wrong:
        raise UserError(
            f"{len(wrong)} tensors don't fit the model, the first is {wrong[0]}",
            "is it a checkpoint of another architecture or number of classes?",
            path=path,
        )
    model.load_state_dict(dict(state))
