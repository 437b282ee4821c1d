"""Changes of ptlflow's models: limits of cuDNN, precision of the correlation, needless work, launches of kernels."""

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

CORRELATIONS = {"corr", "init_corr_pyr"}  # methods of RAFT and its relatives; other models have others of these names
FEATURE_MAPS = {"fmap1", "feature0"}  # first parameter of those that correlate all pixels
MAX_SAMPLES = 65_535  # in a batch of grid_sample: cuDNN fails from 65,536 on (issue 88380 of PyTorch)
MAX_ELEMENTS = 2**31 - 1  # of avg_pool2d on CUDA, which counts them in 32 bits


def patch_modules() -> None:
    """Patch the modules of ptlflow, which must be imported, and two functions of torch; call it once.

    RAFT looks up the correlation of each pixel of a feature map, that is 115,200 samples for 8 pairs of 1280x720 and
    129,600 for one pair of 3840x2160, and pools it, 17 billion elements for the latter."""
    F.grid_sample = _in_parts(F.grid_sample, lambda input: MAX_SAMPLES)
    F.avg_pool2d = _in_parts(F.avg_pool2d, lambda input: max(1, MAX_ELEMENTS // max(1, input[0].numel())))
    for name, module in list(sys.modules.items()):
        for value in list(vars(module).values()) if name.startswith("ptlflow.models.") else []:
            if isinstance(value, type) and value.__module__ == name:
                _correlate_in_float32(value)
    block = sys.modules["ptlflow.models.raft.corr"].CorrBlock
    look_up = block.__call__
    block.__call__ = lambda self, coords: (look_up_on_gpu if coords.is_cuda else look_up)(self, coords)


def _in_parts(
    function: Callable[..., torch.Tensor], max_samples: Callable[[torch.Tensor], int]
) -> Callable[..., torch.Tensor]:
    """Return a function that computes at most `max_samples(input)` samples of a batch at a time."""

    @functools.wraps(function)
    def wrapper(input: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        size = max_samples(input)
        if len(input) <= size:
            return function(input, *args, **kwargs)
        output: torch.Tensor | None = None  # not a list of parts, of which torch.cat would make a second copy
        for start in range(0, len(input), size):
            rows = slice(start, start + size)
            part_args = [arg[rows] if isinstance(arg, torch.Tensor) else arg for arg in args]
            part_kwargs = {k: arg[rows] if isinstance(arg, torch.Tensor) else arg for k, arg in kwargs.items()}
            part = function(input[rows], *part_args, **part_kwargs)
            output = part.new_empty((len(input), *part.shape[1:])) if output is None else output
            output[rows] = part
        assert output is not None
        return output

    return wrapper


def _correlate_in_float32(owner: type) -> None:
    """Make a class compute the correlation of all pixels of two feature maps in float32 also under autocast.

    RAFT's authors do so. In half precision, each lookup would also convert the whole correlation to float32."""
    for name in CORRELATIONS & vars(owner).keys():
        attribute = vars(owner)[name]
        correlate = attribute.__func__ if isinstance(attribute, staticmethod) else attribute
        if FEATURE_MAPS & inspect.signature(correlate).parameters.keys():
            wrapper = _in_float32(correlate)
            setattr(owner, name, staticmethod(wrapper) if isinstance(attribute, staticmethod) else wrapper)


def _in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that computes in float32 from all its tensors, without autocast."""

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
        largest = max(tensor.numel() for tensor in tensors)
        with torch.autocast(tensors[0].device.type, enabled=False), _DivideInPlace(largest):
            return function(*(arg.float() if isinstance(arg, torch.Tensor) else arg for arg in args))

    return wrapper


class _DivideInPlace(TorchFunctionMode):
    """Within this context, a tensor of more than `min_numel` elements is divided in place.

    That is the correlation, which is divided by the root of the number of features: without a second copy of it, a pair
    of 1920x1080 takes 6.1 GB in RAFT, not 8.5."""

    def __init__(self, min_numel: int):
        super().__init__()
        self.min_numel = min_numel

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.div and not kwargs and args[0].numel() > self.min_numel:
            return args[0].div_(args[1])
        return func(*args, **(kwargs or {}))


def look_up_on_gpu(block: Any, coords: torch.Tensor) -> torch.Tensor:
    """Sample the correlation pyramid of RAFT's CorrBlock around `coords` (n, 2, H, W), like its `__call__`.

    Returns (n, levels * (2 * radius + 1)**2, H, W), under autocast in half precision. The positions at all levels are
    one kernel, and those of samples are computed in another order: 10 kernels instead of 58 per iteration."""
    count, _, height, width = coords.shape
    if not hasattr(block, "position_factors"):
        block.position_factors, block.position_offsets = _level_positions(block, coords)
    centers = coords.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)
    grids = torch.addcmul(block.position_offsets, centers, block.position_factors)  # [levels, n * H * W, side, side, 2]
    is_half = torch.is_autocast_enabled("cuda")
    dtype = torch.get_autocast_dtype("cuda") if is_half else coords.dtype
    channels = (2 * block.radius + 1) ** 2
    output = torch.empty((count, len(grids), channels, height, width), dtype=dtype, device=coords.device)
    for level, (correlation, grid) in enumerate(zip(block.corr_pyramid, grids, strict=True)):
        samples = F.grid_sample(correlation, grid, align_corners=True)
        output[:, level] = samples.view(count, height, width, channels).permute(0, 3, 1, 2)
    return output.flatten(1, 2)


def _level_positions(block: Any, coords: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return factors (levels, 1, 1, 1, 2) and offsets (levels, 1, side, side, 2) of the positions at each level.

    A position in pixels times its factor, plus the offset, is where grid_sample finds it: from -1 to 1."""
    steps = torch.linspace(-block.radius, block.radius, 2 * block.radius + 1, dtype=coords.dtype, device=coords.device)
    window = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1)  # [side, side, 2]
    factors, offsets = list[torch.Tensor](), list[torch.Tensor]()
    for level, correlation in enumerate(block.corr_pyramid):
        height, width = correlation.shape[-2:]
        # filled on the GPU: for a copy from the CPU it would wait
        factor = torch.stack([coords.new_full((), 2 / (side - 1)) for side in (width, height)])
        factors.append((factor / 2**level).view(1, 1, 1, 2))
        offsets.append((window * factor - 1)[None])
    return torch.stack(factors), torch.stack(offsets)


def encode_flow_in_half(model: Any) -> None:
    """Give the update block of RAFT its flow in the precision of its other inputs.

    Otherwise torch.cat makes float32 of the inputs of each convolution, which casts them back: 6 casts per iteration.
    The flow is cast anyway before it is used, so the result is the same."""

    def cast_flow(block: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden, context, correlation, flow = inputs
        return hidden, context, correlation, flow.to(hidden.dtype)

    model.update_block.register_forward_pre_hook(cast_flow)


def upsample_last_only(model: Any) -> None:
    """Upsample the flow of RAFT's last iteration only; the others are needed for its training loss.

    Gives the same flow in 0.91 of the processor time, at 398x224 and 12 iterations."""
    mask, upsample, iteration = model.update_block.mask.forward, model.upsample_flow, 0

    def reset(*_: Any) -> None:
        nonlocal iteration
        iteration = 0

    def last_mask(hidden: torch.Tensor) -> torch.Tensor:
        nonlocal iteration
        iteration += 1
        return mask(hidden) if iteration >= model.iters else hidden.new_empty(0)

    def last_upsample(flow: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        count, _, height, width = flow.shape
        return (
            upsample(flow, weights) if weights.numel() else flow.new_zeros(()).expand(count, 2, 8 * height, 8 * width)
        )

    model.register_forward_pre_hook(reset)
    model.update_block.mask.forward, model.upsample_flow = last_mask, last_upsample
