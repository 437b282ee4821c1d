"""Rates of the machine, beside which the rates of the stages are reported."""

import torch

from benchmarks.gpu_checks.check import Check, CheckContext, Measured
from benchmarks.gpu_checks.measure import seconds_per_call

NAME = "machine"
PRODUCTS_PER_CALL = 8


def measure_machine(context: CheckContext) -> Measured:
    """Measure square matrix products and copies of one large tensor."""
    device, size = context.device, context.pick(8192, dry_run=128)
    seconds = context.pick(0.5, dry_run=0.0)
    measured: Measured = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

        def multiply(a: torch.Tensor = a, b: torch.Tensor = b) -> None:
            for _ in range(PRODUCTS_PER_CALL):
                a @ b

        flop = 2.0 * PRODUCTS_PER_CALL * size**3
        measured[f"{name}_products_tflop_per_second"] = flop / seconds_per_call(multiply, device, seconds) / 1e12
    source = torch.zeros(context.pick(2**30, dry_run=2**20), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    host = torch.zeros(len(source), dtype=torch.uint8, pin_memory=device.type == "cuda")
    gigabytes = len(source) / 1e9
    copies = {
        "device_copy_gb_per_second": lambda: target.copy_(source),
        "host_to_device_gb_per_second": lambda: source.copy_(host, non_blocking=True),
        "device_to_host_gb_per_second": lambda: host.copy_(source, non_blocking=True),
    }
    return measured | {name: gigabytes / seconds_per_call(copy, device, seconds) for name, copy in copies.items()}


def product_share(context: CheckContext, flop_per_second: float) -> Measured:
    """Return the share of the machine's rate of products in the automatic precision; nothing if it was not measured."""
    rate = context.value(NAME, f"{context.precision}_products_tflop_per_second")
    return {"share_of_products": flop_per_second / 1e12 / rate} if rate else {}


CHECKS = [Check(NAME, "rates of matrix products and copies (GB copied)", measure_machine)]
