"""Seeds, epoch permutations and the state of torch's random number generators."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed random, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def epoch_permutation(length: int, seed: int, epoch: int) -> list[int]:
    """Return the order of one epoch, a function of seed and epoch, so that a resumed run can continue in it."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(length, generator=generator).tolist()


def get_rng_state() -> dict[str, Any]:
    """Return the state of torch's generators on the CPU and, if the process uses one, on its current GPU."""
    state: dict[str, Any] = {"torch": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        state["cuda"] = [torch.cuda.get_rng_state()]
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Restore a state of `get_rng_state`, also on a GPU of another number. An earlier version saved all GPUs."""
    torch.set_rng_state(state["torch"])
    if state.get("cuda") and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(state["cuda"][min(torch.cuda.current_device(), len(state["cuda"]) - 1)])
