"""Choice of device, precision, backend and random state on machines with several GPUs, by what PyTorch reports."""

from typing import Any

import pytest
import torch

from TFAM.data import PairedEmbeddings
from vimoclip.errors import UserError
from vimoclip.runtime import device, distributed, seeding
from vimoclip.training.data_parallel import make_loader

A100, T4, M60 = (8, 0), (7, 5), (5, 2)  # compute capabilities


class Machine:
    """What PyTorch reports on a machine with GPUs; `selected`: the GPUs that a process has opened."""

    def __init__(self, patch: pytest.MonkeyPatch, gpus: int, capability: tuple[int, int] = A100, processes: int = 1):
        self.selected: list[int] = []
        self.random_states = [torch.tensor([number]) for number in range(gpus)]
        reported: dict[str, Any] = {
            "is_available": lambda: gpus > 0,
            "device_count": lambda: gpus,
            "set_device": lambda device: self.selected.append(torch.device(device).index),
            "is_initialized": lambda: bool(self.selected),
            "current_device": lambda: self.selected[-1],
            "get_device_capability": lambda device=None: capability,
            "is_bf16_supported": lambda including_emulation=True: including_emulation or capability >= A100,
            "get_rng_state": lambda: self.random_states[self.selected[-1]],
            "set_rng_state": lambda state: self.random_states.__setitem__(self.selected[-1], state),
        }
        for name, function in reported.items():
            patch.setattr(torch.cuda, name, function)
        patch.setattr(torch.backends.cudnn, "allow_tf32", True)
        patch.setenv("LOCAL_WORLD_SIZE", str(processes))


def test_each_process_opens_its_own_gpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU in exclusive mode refuses a second process."""
    for rank in range(4):
        machine = Machine(monkeypatch, gpus=4, processes=4)
        assert device.select_device("auto", rank) == torch.device("cuda", rank)
        seeding.get_rng_state()
        assert machine.selected == [rank]


def test_a_run_on_the_cpu_opens_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, gpus=1)
    assert device.select_device("cpu") == torch.device("cpu")
    assert "cuda" not in seeding.get_rng_state()
    assert machine.selected == []


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_a_loader_pins_memory_only_for_a_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pinning opens a GPU, also for a run on the CPU."""
    Machine(monkeypatch, gpus=1)
    dataset: Any = PairedEmbeddings(None, None, [], {})  # type: ignore[arg-type]
    loader = make_loader(dataset, [[0]], 0, device.select_device(name))
    assert loader.pin_memory == (name == "cuda")


def test_a_loader_has_no_more_workers_than_batches() -> None:
    dataset: Any = PairedEmbeddings(None, None, [], {})  # type: ignore[arg-type]
    assert make_loader(dataset, [[0], [1]], 100, torch.device("cpu")).num_workers == 2
    assert make_loader(dataset, [], 100, torch.device("cpu"), persistent_workers=True).num_workers == 0


def test_fp32_on_a_gpu_is_not_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch, gpus=1)
    device.select_device("cuda")
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(("capability", "precision"), [(A100, "bf16"), (T4, "fp16"), (M60, "fp32")])
def test_automatic_precision_is_what_the_gpu_computes_fast(
    capability: tuple[int, int], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Machine(monkeypatch, 1, capability)
    assert device.select_precision("auto", torch.device("cuda:0")) == precision
    assert device.select_precision("fp32", torch.device("cuda:0")) == "fp32"
    assert device.select_precision("auto", torch.device("cpu")) == "fp32"


@pytest.mark.parametrize(
    ("gpus", "processes", "name", "has_nccl"),
    [
        (4, 4, "auto", True),
        (4, 2, "cuda", True),
        (1, 2, "auto", False),  # NCCL refuses two processes on one GPU
        (4, 2, "cuda:1", False),
        (4, 2, "cpu", False),
        (0, 2, "auto", False),
    ],
)
def test_nccl_is_used_if_each_process_has_its_own_gpu(
    gpus: int, processes: int, name: str, has_nccl: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    Machine(monkeypatch, gpus, processes=processes)
    assert ("nccl" in distributed.select_backend(name)) == has_nccl


def test_more_processes_than_gpus_share_them(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch, gpus=2, processes=5)
    assert [device.select_device("auto", rank).index for rank in range(5)] == [0, 1, 0, 1, 0]
    assert device.processes_per_gpu() == 3
    with pytest.raises(UserError):
        device.select_device("cuda:2")


@pytest.mark.parametrize(("saved_on", "resumed_on"), [(0, 1), (1, 0), (1, 1)])
def test_random_state_is_restored_on_another_gpu(
    saved_on: int, resumed_on: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, gpus=2)
    machine.random_states[saved_on] = torch.tensor([42])
    device.select_device(f"cuda:{saved_on}")
    state = seeding.get_rng_state()
    machine = Machine(monkeypatch, gpus=2)
    device.select_device(f"cuda:{resumed_on}")
    seeding.set_rng_state(state)
    assert machine.random_states[resumed_on].item() == 42
    assert machine.random_states[1 - resumed_on].item() == 1 - resumed_on  # that of the other GPU is unchanged


def test_random_states_of_all_gpus_of_an_earlier_version_are_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, gpus=2)
    device.select_device("cuda:1")
    states = [torch.tensor([7]), torch.tensor([8]), torch.tensor([9])]
    seeding.set_rng_state({"torch": torch.get_rng_state(), "cuda": states})
    assert [state.item() for state in machine.random_states] == [0, 8]


@pytest.mark.parametrize(("name", "is_pinned"), [("cuda:0", True), ("mps", False), ("cpu", False)])
def test_only_copies_from_pinned_memory_do_not_wait(
    name: str, is_pinned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        calls.append("pinned")
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device, non_blocking: calls.append(non_blocking))
    device.copy_to_device(torch.zeros(2), torch.device(name))
    assert calls == (["pinned", True] if is_pinned else [False])
