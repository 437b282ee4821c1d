"""Rates of the machine: large matrix products, and copies."""

from functools import partial

import torch

from benchmarks.gpu_checks.check import Check, CheckContext, Measured
from benchmarks.gpu_checks.measure import seconds_per_call

NAME = "machine"
PRODUCTS_PER_CALL = 8
COPIED_BYTES, HOST_COPIED_BYTES = 2**30, 2**28


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
    source, host_source = (
        torch.zeros(context.pick(num_bytes, dry_run=2**20), dtype=torch.uint8, device=device)
        for num_bytes in (COPIED_BYTES, HOST_COPIED_BYTES)
    )
    target, host = torch.empty_like(source), torch.zeros(len(host_source), dtype=torch.uint8)
    host = host.pin_memory() if device.type == "cuda" else host
    copies = {
        "device_copy_gb_per_second": (source, target),
        "host_to_device_gb_per_second": (host, host_source),
        "device_to_host_gb_per_second": (host_source, host),
    }
    for name, (origin, destination) in copies.items():
        copy = partial(destination.copy_, origin, non_blocking=True)
        measured[name] = len(origin) / 1e9 / seconds_per_call(copy, device, seconds)
    return measured


CHECKS = [Check(NAME, "rates of matrix products and copies (GB copied)", measure_machine)]
