"""The bound of a stage: the card's rate of matrix products with the shapes and dtype of the stage's largest layers."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from benchmarks.gpu_checks.check import CheckContext, Measured
from benchmarks.gpu_checks.measure import Work, seconds_per_call

SHARE = "share_of_products"
NUM_SHAPES = 3  # of the layers with the most FLOP, which the bound is the mean of
FLOP_PER_CALL, MAX_PRODUCTS = 2e12, 1000  # so that waiting for the end counts little
aten = torch.ops.aten


class Product(NamedTuple):
    """A matrix product (rows, inner) x (inner, columns), such as a linear layer, or a convolution over patches."""

    rows: int
    inner: int
    columns: int
    dtype: torch.dtype

    @property
    def flop(self) -> float:
        return 2.0 * self.rows * self.inner * self.columns

    def __str__(self) -> str:
        return f"{self.rows}x{self.inner}x{self.columns} {str(self.dtype).removeprefix('torch.')}"


def count_products(work: Work) -> tuple[float, Counter[Product]]:
    """Return the FLOP of a call, those of attention included, and the FLOP of its linear layers and convolutions."""
    flop_by_product = Counter[Product]()

    def recording(count: Callable[..., int], describe: Callable[..., Product]) -> Callable[..., int]:
        def formula(*args: Any, out_val: Any = None, **kwargs: Any) -> int:
            flop = count(*args, out_val=out_val, **kwargs)
            flop_by_product[describe(*args, out_val)] += flop
            return flop

        formula._get_raw = True  # type: ignore[attr-defined]  # tensors, not their shapes
        return formula

    formulas = {operation: recording(flop_registry[operation], describe) for operation, describe in DESCRIBED.items()}
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        work()
    return float(counter.get_total_flops()), flop_by_product


def _linear(*args: Any) -> Product:
    """Describe mm and addmm, whose last arguments before the output are the factors."""
    a, b = args[-3:-1]
    return Product(a.shape[0], a.shape[1], b.shape[1], a.dtype)


def _convolution(*args: Any) -> Product:
    weight, output = args[1], args[-1]
    rows = output.shape[0] * output[0, 0].numel()
    return Product(rows, weight[0].numel(), weight.shape[0], weight.dtype)


DESCRIBED: dict[Any, Callable[..., Product]] = {
    aten.mm: _linear,
    aten.addmm: _linear,
    aten.convolution: _convolution,
    aten._convolution: _convolution,
    aten.cudnn_convolution: _convolution,
}


def product_rate(flop_by_product: Mapping[Product, float], seconds_of: Callable[[Product], float]) -> float:
    """Return the FLOP/s of products, each weighted by its FLOP in the stage. `seconds_of`: measures one product."""
    seconds = sum(flop * seconds_of(product) / product.flop for product, flop in flop_by_product.items())
    return sum(flop_by_product.values()) / seconds


def product_share(context: CheckContext, work: Work, seconds: float) -> Measured:
    """Return the FLOP/s of a call of `work`, which takes `seconds`, relative to that of its largest products.

    On a CPU some layers are not counted: those that oneDNN computes. Without any, nothing is returned."""
    flop, flop_by_product = count_products(work)
    largest = dict(flop_by_product.most_common(NUM_SHAPES))
    if not largest:
        return {}

    def seconds_of(product: Product) -> float:
        a = torch.randn(product.rows, product.inner, device=context.device).to(product.dtype)
        b = torch.randn(product.columns, product.inner, device=context.device).to(product.dtype)
        times = context.pick(min(MAX_PRODUCTS, math.ceil(FLOP_PER_CALL / product.flop)), dry_run=1)

        def multiply() -> None:
            for _ in range(times):
                a @ b.t()

        return seconds_per_call(multiply, context.device, context.pick(0.2, dry_run=0.0)) / times

    bound = product_rate(largest, seconds_of)
    return {
        SHARE: flop / seconds / bound,
        "bound_tflop_per_second": bound / 1e12,
        "largest_products": ", ".join(map(str, largest)),
    }
