"""Saving and loading of checkpoints, which hold tensors and plain Python values only."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch

from vimoclip.errors import UserError
from vimoclip.io import atomic
from vimoclip.io.checkpoint_loading import load_tensors


class IntervalTimer:
    """Callable that returns True at most once every `seconds`; always if `seconds` is 0."""

    def __init__(self, seconds: float):
        self.seconds, self.last_time = seconds, time.monotonic()

    def __call__(self) -> bool:
        if time.monotonic() - self.last_time < self.seconds:
            return False
        self.last_time = time.monotonic()
        return True


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


def load_state(model: torch.nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Load a state dict strictly. `path`: file for the error message.

    Raises UserError with the name of the first tensor that is missing, unknown or of another shape."""
    expected = model.state_dict()
    mismatched = [key for key in expected if key not in state or expected[key].shape != state[key].shape]
    mismatched += [key for key in state if key not in expected]
    if mismatched:
        raise UserError(
            f"{len(mismatched)} tensors do not fit the model, the first is {mismatched[0]}",
            "give a checkpoint of the same architecture and number of classes",
            path=path,
        )
    model.load_state_dict(dict(state))
