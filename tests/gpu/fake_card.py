"""A simulated CUDA card: CUDA code runs on PyTorch's fake tensors, which have shapes, dtypes and devices, no values.

    with FakeCard(memory_bytes=24 * 10**9) as card:
        encoder = clip.build_encoder(config).freeze(torch.device("cuda"), "bf16")
        encoder.encode(torch.zeros(16, 3, 224, 224, dtype=torch.uint8))
    assert card.peak_bytes < 10**9

Models and inputs must be created within the block. An operation takes about 0.1 ms for tensors of any size."""

import contextlib
import gc
import math
import weakref
from collections.abc import Callable, Iterator
from functools import cache, partial
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from tests.gpu.fake_backward import python_backward
from tests.gpu.fake_streams import FakeEvent, FakeStream, StreamOrder, use_stream

aten = torch.ops.aten
ALLOCATION_BYTES = 512  # PyTorch's allocator rounds each tensor up to a multiple of this
COMPUTE_CAPABILITY = 9, 0
MAX_FUSED_HEAD_WIDTH = 256  # of PyTorch's flash and memory-efficient attention on CUDA
BIAS_ALIGNMENT = 16  # elements between rows of a bias that CUDA's attention takes as it is
# operations that start no kernel, besides views
WITHOUT_KERNEL = {"aten._unsafe_view", "aten.detach", "aten.alias", "aten.lift_fresh", "aten.empty", "aten.empty_like"}
WITHOUT_KERNEL |= {"aten.empty_strided", "aten.new_empty", "aten.new_empty_strided", "aten.is_pinned"}
COPIES = ("aten._to_copy", "aten.copy_", "aten.copy")
INDEXING = ("aten.index", "aten.index_put", "aten.index_put_", "aten._index_put_impl_")
SYNCHRONIZATIONS = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.equal")


class TensorInfo(NamedTuple):
    """What is recorded of a tensor."""

    device: str  # cpu or cuda
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class Operation(NamedTuple):
    """An operation on tensors, as PyTorch dispatches it, below autograd and autocast."""

    name: str  # like aten.mm, without the overload
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    starts_kernel: bool
    non_blocking: bool = False  # a copy from or to pinned memory, for which the CPU does not wait

    @property
    def tensors(self) -> tuple[TensorInfo, ...]:
        return self.inputs + self.outputs

    def copies(self, source: str, target: str) -> bool:
        """Return whether the operation copies a tensor from one type of device to another."""
        return (
            self.name in COPIES
            and bool(self.inputs and self.outputs)
            and (self.inputs[-1].device, self.outputs[0].device) == (source, target)
        )


class FakeCard:
    """A card with `memory_bytes`, as the only CUDA device within the block.

    Data-dependent operations are answered as if all masks were true and all numbers finite. More live bytes than
    `memory_bytes` raise torch.OutOfMemoryError. `fused_attention`: whether attention is computed by PyTorch's flash and
    memory-efficient kernels, as on a real card, or by matrix products. `streams`: the order of operations on all
    streams. Memory that kernels use internally, such as the workspaces of cuDNN, is not counted."""

    def __init__(self, memory_bytes: int = 24 * 10**9, fused_attention: bool = True):
        self.memory_bytes, self.fused_attention = memory_bytes, fused_attention
        self.operations: list[Operation] = []
        self.live_bytes = self.peak_bytes = self.num_pinned = self.num_failed_allocations = 0
        self._peak_since_reset = 0
        self._storages: set[int] = set()
        self._pinned: set[int] = set()
        self.streams = StreamOrder()

    def __enter__(self) -> "FakeCard":
        with contextlib.ExitStack() as stack:
            for target, replacements in self._replacements():
                for name, replacement in replacements.items():
                    stack.enter_context(mock.patch.object(target, name, replacement))
            if gc.isenabled():  # it would take a third of the time, as all recorded operations are searched
                gc.disable()
                stack.callback(gc.enable)
            stack.enter_context(python_backward())
            stack.enter_context(_FakeMode(allow_fallback_kernels=False, allow_non_fake_inputs=True))
            stack.enter_context(_Recorder(self))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    # --- results

    def count(self, name: str, from_: torch.dtype | None = None, to: torch.dtype | None = None) -> int:
        """Return how many operations of this name ran on the card, with a first input and output of these dtypes."""
        return sum(
            operation.name == name
            and any(tensor.device == "cuda" for tensor in operation.tensors)
            and (from_ is None or operation.inputs[0].dtype == from_)
            and (to is None or operation.outputs[0].dtype == to)
            for operation in self.operations
        )

    @property
    def num_kernels(self) -> int:
        """Number of operations on CUDA tensors that are no views; most start one kernel."""
        return sum(operation.starts_kernel for operation in self.operations)

    @property
    def num_synchronizations(self) -> int:
        """Number of operations for which the CPU waits for the card: to learn a number, or how many masks are true."""
        return sum(
            (operation.copies("cuda", "cpu") and not operation.non_blocking)
            or (operation.name in SYNCHRONIZATIONS and operation.inputs[0].device == "cuda")
            or (operation.name in INDEXING and any(x[:2] == ("cuda", torch.bool) for x in operation.inputs[1:]))
            for operation in self.operations
        )

    def copies_to_card(self) -> list[int]:
        """Return the bytes of each copy from the CPU to the card."""
        return [op.outputs[0].nbytes for op in self.operations if op.copies("cpu", "cuda")]

    @property
    def num_blocking_copies(self) -> int:
        """Number of copies between CPU and card, in either direction, for which the CPU waits."""
        copies = [op for op in self.operations if op.copies("cpu", "cuda") or op.copies("cuda", "cpu")]
        return sum(not operation.non_blocking for operation in copies)

    def copies_to_cpu(self) -> list[int]:
        """Return the bytes of each copy from the card to the CPU."""
        return [op.outputs[0].nbytes for op in self.operations if op.copies("cuda", "cpu")]

    def float64_operations(self) -> list[Operation]:
        """Return the operations on float64 tensors on the card, except scalars: GradScaler inverts its scale so."""
        return [
            operation
            for operation in self.operations
            if any(x.device == "cuda" and x.dtype == torch.float64 and x.shape for x in operation.tensors)
        ]

    def mixed_device_operations(self) -> list[Operation]:
        """Return the operations, other than copies, with CUDA tensors and CPU tensors that are no scalars."""
        return [
            operation
            for operation in self.operations
            if operation.name not in COPIES
            and {x.device for x in operation.tensors if x.shape or x.device == "cuda"} == {"cpu", "cuda"}
        ]

    def reset(self) -> None:
        """Forget the operations and the peak so far."""
        self.operations.clear()
        self.streams.waits.clear()
        self.num_pinned, self.peak_bytes, self._peak_since_reset = 0, self.live_bytes, self.live_bytes

    # --- what the recorder calls

    def allocate(self, tensor: torch.Tensor) -> None:
        """Count the storage of a CUDA tensor until it is freed. Raises torch.OutOfMemoryError."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return
        size = -(-storage.nbytes() // ALLOCATION_BYTES) * ALLOCATION_BYTES
        if self.live_bytes + size > self.memory_bytes:
            self.num_failed_allocations += 1
            message = f"CUDA out of memory. Tried to allocate {size} bytes with {self.live_bytes} in use"
            raise torch.OutOfMemoryError(message)
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        self._peak_since_reset = max(self._peak_since_reset, self.live_bytes)
        self._storages.add(key)
        self.streams.track(storage)
        weakref.finalize(storage, self._free, key, size).atexit = False

    def _free(self, key: int, size: int) -> None:
        self._storages.discard(key)
        self.live_bytes -= size

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        """Count a tensor's memory as pinned until it is freed."""
        storage = tensor.untyped_storage()
        self.num_pinned += 1
        self._pinned.add(storage._cdata)
        self.streams.track(storage, is_pinned=True)
        weakref.finalize(storage, self._pinned.discard, storage._cdata).atexit = False
        return tensor

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        return not tensor.is_cuda and tensor.untyped_storage()._cdata in self._pinned

    # --- what PyTorch reports

    def _replacements(self) -> Iterator[tuple[Any, dict[str, Callable[..., Any]]]]:
        """Yield (module or class, functions that replace its own, by name)."""
        properties = SimpleNamespace(
            name="fake", major=COMPUTE_CAPABILITY[0], minor=COMPUTE_CAPABILITY[1], total_memory=self.memory_bytes
        )

        def reset_peak(device: Any = None) -> None:
            self._peak_since_reset = self.live_bytes

        cuda: dict[str, Callable[..., Any]] = {
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "is_initialized": lambda: True,
            "_lazy_init": lambda: None,
            "current_device": lambda: 0,
            "set_device": lambda device: None,
            "get_device_name": lambda device=None: properties.name,
            "get_device_capability": lambda device=None: COMPUTE_CAPABILITY,
            "get_device_properties": lambda device=None: properties,
            "is_bf16_supported": lambda including_emulation=True: True,
            "is_current_stream_capturing": lambda: False,
            "mem_get_info": lambda device=None: (self.memory_bytes - self.live_bytes, self.memory_bytes),
            "memory_allocated": lambda device=None: self.live_bytes,
            "memory_reserved": lambda device=None: self.live_bytes,
            "max_memory_allocated": lambda device=None: self._peak_since_reset,
            "max_memory_reserved": lambda device=None: self._peak_since_reset,
            "reset_peak_memory_stats": reset_peak,
            "empty_cache": lambda: None,
            "synchronize": lambda device=None: None,
            "manual_seed": lambda seed: None,
            "manual_seed_all": lambda seed: None,
            "get_rng_state": lambda device=None: torch.zeros(16, dtype=torch.uint8),
            "set_rng_state": lambda state, device=None: None,
            "Stream": lambda device=None, priority=0: FakeStream(self.streams),
            "Event": partial(FakeEvent, self.streams),
            "current_stream": lambda device=None: FakeStream(self.streams, self.streams.current),
            "default_stream": lambda device=None: FakeStream(self.streams, 0),
            "stream": partial(use_stream, self.streams),
        }
        yield torch.cuda, cuda
        yield fake_tensor, {"init_gpu_context": lambda device: None}
        yield torch.utils, {"swap_tensors": _assign}
        yield FakeTensor, {"numpy": self._numpy(), "pin_memory": self._pin_memory(), "__deepcopy__": _deepcopy}
        yield FakeTensor, {"record_stream": self._record_stream()}
        if self.fused_attention:
            yield F, {"scaled_dot_product_attention": _fused_attention(F.scaled_dot_product_attention)}

    def _pin_memory(self) -> Callable[[torch.Tensor], torch.Tensor]:
        def pin_memory(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.is_cuda:
                raise RuntimeError("cannot pin a CUDA tensor, only dense CPU tensors can be pinned")
            return tensor if self.is_pinned(tensor) else self.pin(tensor.clone())

        return pin_memory

    def _record_stream(self) -> Callable[[torch.Tensor, FakeStream], None]:
        def record_stream(tensor: torch.Tensor, stream: FakeStream) -> None:
            self.streams.record_stream(tensor.untyped_storage(), stream.number)

        return record_stream

    def _numpy(self) -> Callable[..., np.ndarray]:
        def numpy(tensor: torch.Tensor, *, force: bool = False) -> np.ndarray:
            """Return zeros in the shape of a CPU tensor."""
            if tensor.is_cuda and not force:
                raise TypeError("can't convert cuda:0 device type tensor to numpy")
            self.streams.read_on_cpu(tensor.untyped_storage())
            return np.zeros(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))

        return numpy


class _FakeMode(FakeTensorMode):
    @property
    def avoid_device_init(self) -> bool:
        return True  # also while torch.cuda.is_available is replaced: there is no driver


class _Recorder(TorchDispatchMode):
    """Records operations on a card, and answers those whose result depends on values."""

    def __init__(self, card: FakeCard):
        super().__init__()
        self.card = card

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "prim":  # asks for a tensor's device or layout
            is_device = func is torch.ops.prim.device.default and isinstance(args[0], FakeTensor)
            return args[0].fake_device if is_device else func(*args, **kwargs)
        if _is_composite(func):  # in inference mode, operations arrive in larger pieces than otherwise
            with self:
                return func.decompose(*args, **kwargs)
        pin_memory = bool(kwargs.get("pin_memory")) and func.overloadpacket is aten.empty
        if pin_memory:
            kwargs = kwargs | {"pin_memory": False}
        if answer := _ANSWERS.get(func.overloadpacket):
            result = answer(func, *args, **kwargs)
        else:
            result = func(*args, **kwargs)
        inputs, outputs = _tensors((args, kwargs)), _tensors(result)
        for tensor in outputs:
            if tensor.is_cuda:
                self.card.allocate(tensor)
            elif pin_memory:
                self.card.pin(tensor)
        name = f"{func.namespace}.{func.overloadpacket.__name__}"
        on_card = any(tensor.is_cuda for tensor in (*inputs, *outputs))
        starts_kernel = on_card and not func.is_view and name not in WITHOUT_KERNEL
        infos = [tuple(map(_info, tensors)) for tensors in (inputs, outputs)]
        non_blocking = bool(kwargs.get("non_blocking") or (name == "aten.copy_" and len(args) > 2 and args[2]))
        non_blocking = non_blocking and any(map(self.card.is_pinned, (*inputs, *outputs)))
        self.card.operations.append(Operation(name, infos[0], infos[1], starts_kernel, non_blocking))
        if starts_kernel:
            written = [tensor.untyped_storage()._cdata for tensor in outputs]
            read = [key for tensor in inputs if (key := tensor.untyped_storage()._cdata) not in written]
            self.card.streams.run(name, read, written)
        return result


@cache
def _is_composite(func: Any) -> bool:
    """Return whether CUDA has no kernel for an operation, but computes it by others."""
    return func._can_decompose() and not torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CUDA")


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _info(tensor: torch.Tensor) -> TensorInfo:
    return TensorInfo(tensor.device.type, tensor.dtype, tuple(tensor.shape))


# --- operations whose result depends on values: all masks are true, all numbers finite


def _item(func: Any, tensor: torch.Tensor) -> bool | int | float:
    """Return a constant's value; else true, 1, or 0.0, which is GradScaler's number of infinite gradients."""
    if (value := getattr(tensor, "item_memo", None)) is not None:
        return value
    return True if tensor.dtype == torch.bool else 0.0 if tensor.is_floating_point() else 1


def _nonzero(func: Any, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.new_empty((tensor.numel(), tensor.dim()), dtype=torch.int64)


def _masked_select(func: Any, tensor: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return tensor.new_empty(math.prod(torch.broadcast_shapes(tensor.shape, mask.shape)))


def _index(func: Any, tensor: torch.Tensor, indices: list[Any], *args: Any, **kwargs: Any) -> torch.Tensor:
    """Index with integers in place of masks: one index per dimension of a mask."""
    numbers: list[Any] = []
    for index in indices:
        if index is not None and index.dtype == torch.bool:
            numbers += [index.new_empty(index.numel(), dtype=torch.int64) for _ in range(index.dim())]
        else:
            numbers.append(index)
    return func(tensor, numbers, *args, **kwargs)


def _cudnn_grid_sampler(func: Any, images: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    return images.new_empty((*images.shape[:2], *grid.shape[1:3]))  # fake tensors don't know the operation


_ANSWERS: dict[Any, Callable[..., Any]] = {
    aten._local_scalar_dense: _item,
    aten.nonzero: _nonzero,
    aten.masked_select: _masked_select,
    aten.equal: lambda func, first, second: first.shape == second.shape,
    aten.index: _index,
    aten.index_put: _index,
    aten.index_put_: _index,
    aten._index_put_impl_: _index,
    aten.cudnn_grid_sampler: _cudnn_grid_sampler,
}


# --- replacements of PyTorch's functions


def _assign(parameter: Any, moved: Any) -> None:
    """Give a module's parameter another device; PyTorch's own way is refused, as fake tensors have weak references."""
    parameter.data = moved.data
    parameter.fake_device = moved.fake_device


def _deepcopy(tensor: torch.Tensor, memo: dict[int, Any]) -> torch.Tensor:
    copied = tensor.detach().clone()
    memo[id(tensor)] = nn.Parameter(copied, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copied
    return memo[id(tensor)]


def _fused_attention(plain: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return an attention that takes the kernel of a real card; fake tensors only know `plain`, by matrix products."""

    def attention(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **options: Any,
    ) -> torch.Tensor:
        has_kernel = query.is_cuda and query.dim() == 4 and query.shape[-1] <= MAX_FUSED_HEAD_WIDTH
        if not has_kernel or (attn_mask is not None and attn_mask.dtype == torch.bool) or options:
            return plain(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **options)
        if torch.is_autocast_enabled("cuda"):
            dtype = torch.get_autocast_dtype("cuda")
            query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
            attn_mask = None if attn_mask is None else attn_mask.to(dtype)
        if attn_mask is not None:
            attn_mask = attn_mask.expand(*query.shape[:-1], key.shape[-2])
            if any(stride % BIAS_ALIGNMENT for stride in attn_mask.stride()[:-1]):  # PyTorch copies it, for each head
                attn_mask = attn_mask.contiguous()
        if query.dtype == torch.float32 or attn_mask is not None:
            return aten._scaled_dot_product_efficient_attention(
                query, key, value, attn_mask, query.requires_grad, dropout_p, is_causal, scale=scale
            )[0]
        return aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, scale=scale)[0]

    return attention
