"""A run that resumes on another device takes the steps of an uninterrupted one.

On a CUDA GPU the encoder's convolutions are channels-last, on the CPU contiguous. Both layouts exist on the CPU."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vimoclip.errors import UserError
from vimoclip.training import checkpoint
from vimoclip.training.checkpoint import TrainState, make_grad_scaler

LAYOUTS: dict[str, Any] = {"CPU": torch.contiguous_format, "GPU": torch.channels_last}


def make_state(device: str) -> TrainState:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.Flatten(), nn.Linear(8 * 16, 5))
    model.register_parameter("scale", nn.Parameter(torch.ones(())))
    model.to(memory_format=LAYOUTS[device])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    return TrainState(model, optimizer, scheduler, torch.amp.GradScaler("cpu", enabled=False), "step")


def train(state: TrainState, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(6, 3, 16, 16, generator=generator)
        state.optimizer.zero_grad()
        (state.model.scale * state.model(images)).square().sum().backward()
        state.update()


@pytest.mark.parametrize("devices", [("CPU", "CPU"), ("GPU", "CPU"), ("CPU", "GPU"), ("CPU", "GPU", "CPU")])
def test_resuming_on_another_device_gives_the_updates_of_an_uninterrupted_run(
    devices: tuple[str, ...], tmp_path: Path
) -> None:
    uninterrupted = make_state("CPU")
    train(uninterrupted, range(2 * len(devices)))
    for number, device in enumerate(devices):
        state = make_state(device)
        if number:
            state.restore(torch.load(tmp_path / "last.pth", weights_only=True), tmp_path / "last.pth")
        train(state, range(2 * number, 2 * number + 2))
        checkpoint.save_checkpoint(tmp_path / "last.pth", state.state_dict())
    for expected, parameter in zip(uninterrupted.model.parameters(), state.model.parameters(), strict=True):
        assert torch.allclose(expected, parameter, atol=1e-6)  # the weights change by up to 0.01 a step
    for parameter in state.model.parameters():
        for name in ("exp_avg", "exp_avg_sq"):
            assert state.optimizer.state[parameter][name].stride() == parameter.stride()


def test_fp16_is_refused_where_fused_optimizers_ignore_the_gradient_scaler() -> None:
    with pytest.raises(UserError, match="fp16"):
        make_grad_scaler("mps", "fp16")
    assert not make_grad_scaler("mps", "bf16").is_enabled()
    assert make_grad_scaler("cpu", "fp16").is_enabled()
