"""`python -m benchmarks gpu`: without a card, as a dry run, and with checks that fail."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import benchmarks.__main__ as benchmarks
from benchmarks import gpu
from benchmarks.gpu_checks import encoders, host, machine
from benchmarks.gpu_checks.check import FAIL, PASS, SKIP, Check, CheckContext, CheckFailed, at_most, run_check
from benchmarks.gpu_checks.dataset import run_python, run_script
from benchmarks.gpu_checks.measure import count_weight_casts
from benchmarks.gpu_checks.products import Product, count_products, product_rate, product_share
from benchmarks.gpu_checks.summary import describe_bound
from benchmarks.gpu_checks.trace import GpuTrace, summarize_trace
from tests import preloaded
from vimoclip import cli
from vimoclip.errors import UserError


def exit_code(main: Callable[[], Any]) -> Any:
    with pytest.raises(SystemExit) as stop:
        cli.run(main)
    return stop.value.code


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA GPU")
def test_without_a_gpu_the_stage_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["gpu", "--json", str(tmp_path / "results.json"), "--inputs-dir", str(tmp_path / "inputs")]
    assert exit_code(lambda: benchmarks.main(arguments)) == 2
    assert "no CUDA GPU" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", ["start --dry-run", "--minutes 3", "gpu start", "gpu --rounds 2"])
def test_flags_and_stages_that_do_not_belong_together(arguments: str) -> None:
    with pytest.raises(UserError):
        benchmarks.main(arguments.split())


def test_a_dry_run_passes_and_writes_one_line_per_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", str(preloaded.executable()))
    path = tmp_path / "results_gpu.json"
    report = benchmarks.main(["gpu", "--dry-run", "--json", str(path), "--inputs-dir", str(tmp_path / "inputs")])
    written = json.loads(path.read_text())
    names = [check.name for check in gpu.all_checks()]
    lines = {line["check"]: line for line in written["checks"]}
    assert list(lines) == names
    assert isinstance(report, cli.RunReport) and not report.failed, report
    assert "dry run" in written["machine"]["mode"]
    assert all(line["reason"] for line in lines.values() if line["status"] == SKIP)
    passed = {name for name, line in lines.items() if line["status"] == PASS}
    assert passed >= {"encoder RN50 fp32", "flow bf16", "training resumed", "two processes, training", "chain predict"}
    stages = {f"stage {name}" for name in ("extract_embeddings", "extract_flows", "train", "TFAM", "predict")}
    assert passed >= stages | {"encoder ViT-B/32 rates", "flow share", "summary train"}
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(table) == len(names) + 2
    assert not list((tmp_path / "inputs").iterdir())


def test_a_check_that_raises_or_exceeds_its_limit_fails_and_the_next_one_runs(tmp_path: Path) -> None:
    def missing_file(context: CheckContext) -> dict[str, float | str]:
        raise FileNotFoundError("there is no such file\nsecond line")

    tight = replace(encoders.CHECKS[1], limits=(at_most("min_cosine", 0.5),))
    checks = [Check("broken", "reads a file", missing_file), tight, *machine.CHECKS]
    path = tmp_path / "results.json"
    assert exit_code(lambda: gpu.run(tmp_path / "inputs", path, 9, True, checks)) == 1
    broken, exceeded, good = json.loads(path.read_text())["checks"]
    assert (broken["status"], broken["reason"]) == (FAIL, "FileNotFoundError: there is no such file")
    assert (exceeded["status"], exceeded["limit"]) == (FAIL, "min_cosine at most 0.5")
    assert good["status"] == PASS and good["measured"]["fp32_products_tflop_per_second"] > 0


def test_a_check_after_the_last_minute_is_skipped_with_the_reason(tmp_path: Path) -> None:
    context = CheckContext(torch.device("cpu"), tmp_path, minutes=0, dry_run=True)
    result = run_check(machine.CHECKS[0], context)
    assert result.status == SKIP and "--minutes" in result.reason


def test_the_reason_of_a_failed_script_is_kept() -> None:
    with pytest.raises(CheckFailed, match=r"exit code 1 .*: ValueError: no frames"):
        run_python(["-c", "print('begins'); raise ValueError('no frames')"], 60)
    with pytest.raises(CheckFailed, match="not finished after 1 s"):
        run_python(["-c", "import time; time.sleep(60)"], 1)
    with pytest.raises(CheckFailed, match=r"extract_flows: .*--colour"):
        run_script("extract_flows", "--colour", "red")


@pytest.mark.parametrize(
    ("measured", "bound"),
    [
        ({"share_of_products": 0.5, "gpu_busy_share": 0.95}, "bound by matrix products"),
        ({"share_of_products": 0.1, "gpu_busy_share": 0.95}, "by the card"),
        ({"share_of_products": 0.1, "gpu_busy_share": 0.3}, "by the host"),
        ({}, "unknown"),
    ],
)
def test_what_bounds_a_stage_follows_from_its_shares(measured: dict[str, float | str], bound: str) -> None:
    assert bound in describe_bound(measured)


def test_casts_of_weights_are_counted_but_not_casts_of_activations() -> None:
    weight, bias, x = torch.randn(8, 8), torch.randn(8).bfloat16(), torch.randn(2, 8)

    def linear(weight: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            return torch.nn.functional.linear(x * 2, weight, bias)

    assert count_weight_casts(lambda: linear(weight)) == 1
    assert count_weight_casts(lambda: linear(weight.bfloat16())) == 1  # the cast in the call itself
    low = weight.bfloat16()
    assert count_weight_casts(lambda: linear(low)) == 0


LIMITING_PARTS = {"decoding": 500.0, "x264": 1000.0}  # frames/s of one processor; of both together 333


@pytest.mark.parametrize(
    ("busy_share", "gpu_rate", "main_rate", "processors", "part", "needed"),
    [
        (0.95, 3000, 9000, 4, None, None),
        (0.3, 3000, 9000, 4, "decoding", 11),  # 3000 / 333 and two more
        (0.3, 3000, 9000, 11, "decoding", 11),  # enough, so the code is at fault
        (0.3, 3000, 600, 4, host.MAIN_THREAD, None),
        (0.3, 3000, 700, 4, "decoding", 11),  # two processors read 667 frames/s
    ],
)
def test_the_part_of_the_host_that_limits_a_stage(
    busy_share: float, gpu_rate: float, main_rate: float, processors: int, part: str | None, needed: int | None
) -> None:
    diagnosis = host.diagnose(busy_share, gpu_rate, LIMITING_PARTS, main_rate, processors, "frame")
    measured = {"gpu_busy_share": busy_share} | diagnosis
    assert diagnosis.get("processors_needed") == needed
    assert part is None or part in str(diagnosis.get("note", diagnosis.get(host.TOO_FEW_PROCESSORS)))
    is_excused = needed is not None and processors < needed
    assert host.BUSY_LIMIT.holds(measured, dry_run=False) == (busy_share >= 0.9 or is_excused)


def test_a_stage_without_parallel_parts_is_limited_by_the_main_thread() -> None:
    assert host.MAIN_THREAD in str(host.diagnose(0.5, 100, {}, 1000, 4, "video")["note"])
    assert host.combined_rate({}) == float("inf")


def test_a_trace_gives_launches_copies_and_the_time_in_which_a_kernel_runs() -> None:
    events: list[dict[str, Any]] = [
        {"cat": "kernel", "name": "gemm", "ts": 10.0, "dur": 10.0},
        {"cat": "kernel", "name": "add", "ts": 15.0, "dur": 10.0},  # on another stream
        {"cat": "kernel", "name": "add", "ts": 16.0, "dur": 2.0},
        {"cat": "kernel", "name": "add", "ts": 40.0, "dur": 5.0},
        {"cat": "gpu_memcpy", "name": "Memcpy HtoD (Pinned -> Device)", "ts": 0.0, "dur": 9.0, "args": {"bytes": 100}},
        {"cat": "gpu_memcpy", "name": "Memcpy DtoH (Device -> Pinned)", "ts": 50.0, "dur": 1.0, "args": {"bytes": 7}},
        {"cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": 1.0, "dur": 1.0},
        {"cat": "cuda_runtime", "name": "cudaGraphLaunch", "ts": 2.0, "dur": 1.0},
        {"cat": "cuda_runtime", "name": "cudaMemcpyAsync", "ts": 3.0, "dur": 1.0},
        {"name": "process_name", "ph": "M"},
    ]
    trace = summarize_trace(events)
    assert trace.busy_seconds == pytest.approx(20e-6)
    assert trace._replace(busy_seconds=0) == GpuTrace(kernels=4, launches=2, busy_seconds=0, bytes_to_gpu=100)


def test_the_bound_has_the_shapes_and_the_dtype_of_the_largest_layers(tmp_path: Path) -> None:
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4, 4), torch.nn.Flatten(2), torch.nn.Linear(64, 32))
    images = torch.randn(2, 3, 32, 32)

    def forward() -> torch.Tensor:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            return layers(images)

    flop, flop_by_product = count_products(forward)
    convolution, linear = Product(128, 48, 8, torch.bfloat16), Product(16, 64, 32, torch.bfloat16)
    assert flop_by_product == {convolution: convolution.flop, linear: linear.flop}
    assert flop == convolution.flop + linear.flop
    seconds = {convolution: 3.0, linear: 1.0}
    assert product_rate(flop_by_product, seconds.__getitem__) == pytest.approx(flop / 4)
    assert product_rate({linear: 10 * linear.flop}, seconds.__getitem__) == pytest.approx(linear.flop)
    context = CheckContext(torch.device("cpu"), tmp_path, dry_run=True)
    assert float(product_share(context, forward, 1.0)["share_of_products"]) > 0
    assert product_share(context, lambda: None, 1.0) == {}
