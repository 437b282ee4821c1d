"""Kernels and defaults by processor, with what Linux reports about several ones."""

from collections.abc import Iterator, Mapping

import pytest
import torch

from vimoclip import cli
from vimoclip.runtime import defaults, onednn, processor
from vimoclip.runtime.device import describe_precision
from vimoclip.runtime.versions import package_versions

CPU, GPU = torch.device("cpu"), torch.device("cuda")
ZEN = {"vendor_id": "AuthenticAMD", "flags": "sse2 avx2 avx512f avx512_vnni avx512_bf16"}
SAPPHIRE_RAPIDS = {"vendor_id": "GenuineIntel", "flags": "avx2 avx512f avx512_vnni avx512_bf16 amx_bf16 amx_int8"}
HASWELL = {"vendor_id": "GenuineIntel", "flags": "sse2 avx2"}
GRAVITON = {"CPU implementer": "0x41", "Features": "fp asimd bf16"}


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Forget what is known about the processor, before and after the test."""
    for function in (processor.vendor, processor.features):
        function.cache_clear()
    yield monkeypatch
    for function in (processor.vendor, processor.features):
        function.cache_clear()


@pytest.mark.parametrize(
    ("cpuinfo", "uses_onednn", "fastest"),
    [(ZEN, True, "int8"), (SAPPHIRE_RAPIDS, False, "bf16"), (HASWELL, False, "fp32"), (GRAVITON, False, "fp32")],
)
def test_kernels_and_precision_follow_from_the_processor(
    report: pytest.MonkeyPatch, cpuinfo: Mapping[str, str], uses_onednn: bool, fastest: str
) -> None:
    report.setattr(processor, "_cpuinfo", lambda: cpuinfo)
    report.setattr(onednn, "_AVAILABLE", True)
    assert onednn.is_used() == uses_onednn
    assert processor.fast_precision() == fastest
    description = package_versions()["processor"]
    assert all(flag in description for flag in processor.features())
    assert description.startswith(processor.vendor())


def test_a_faster_precision_is_named_only_where_there_is_one(report: pytest.MonkeyPatch) -> None:
    report.setattr(processor, "_cpuinfo", lambda: SAPPHIRE_RAPIDS)
    for precision in ("fp32", "int8"):
        assert "--precision bf16" in describe_precision(precision, CPU)
    assert describe_precision("bf16", CPU) == "bf16"
    assert describe_precision("fp32", GPU) == "fp32"
    processor.features.cache_clear()
    report.setattr(processor, "_cpuinfo", lambda: HASWELL)
    assert describe_precision("fp32", CPU) == "fp32"


def test_batch_sizes_follow_from_the_device(report: pytest.MonkeyPatch) -> None:
    report.setattr(processor, "_cpuinfo", lambda: SAPPHIRE_RAPIDS)
    sizes = {precision: defaults.frame_batch_size("auto", CPU, precision) for precision in ("fp32", "bf16", "int8")}
    assert sizes == {"fp32": 16, "bf16": 64, "int8": 16}
    assert defaults.frame_batch_size("auto", GPU, "bf16") == 256
    assert defaults.frame_batch_size("auto", torch.device("mps"), "fp32") == 64
    assert [defaults.pair_batch_size("auto", device) for device in (CPU, GPU)] == [8, 32]
    assert defaults.frame_batch_size(5, GPU, "bf16") == defaults.pair_batch_size(5, GPU) == 5


@pytest.mark.parametrize(
    ("device", "processors", "processes", "expected"),
    [(CPU, 16, 1, 2), (CPU, 1, 1, 1), (GPU, 16, 1, 14), (GPU, 16, 4, 3), (GPU, 2, 1, 1), (GPU, 16, 8, 1)],
)
def test_workers_follow_from_device_processors_and_processes(
    monkeypatch: pytest.MonkeyPatch, device: torch.device, processors: int, processes: int, expected: int
) -> None:
    monkeypatch.setattr(cli, "num_processors", lambda: processors)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert defaults.num_workers("auto", device) == expected


def test_a_large_machine_has_at_most_16_loaders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their batches are in shared memory."""
    monkeypatch.setattr(cli, "num_processors", lambda: 128)
    assert defaults.loader_processes("auto", GPU) == 16
    assert defaults.loader_processes("auto", CPU) == 2


@pytest.mark.parametrize(("processors", "processes", "expected"), [(16, 1, 4), (16, 4, 2), (2, 1, 2)])
def test_a_gpu_has_several_flow_videos_encoded_at_once(
    monkeypatch: pytest.MonkeyPatch, processors: int, processes: int, expected: int
) -> None:
    monkeypatch.setattr(cli, "num_processors", lambda: processors)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert defaults.videos_written_at_once(GPU) == expected
    assert defaults.videos_written_at_once(CPU) == 1
