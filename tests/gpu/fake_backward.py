"""Backward passes of fake CUDA tensors, in Python: PyTorch's own engine asks the CUDA driver for streams."""

import contextlib
import heapq
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import torch

Gradient = torch.Tensor | None


@contextlib.contextmanager
def python_backward() -> Iterator[None]:
    """Replace Tensor.backward for the block.

    As in PyTorch's engine, an operation's saved tensors are freed once its gradient is computed. Hooks on tensors,
    double backward passes and retain_graph are not supported."""
    saved_by_node: list[_SavedTensor] = []  # of the node that runs

    def unpack(saved: _SavedTensor) -> torch.Tensor:
        saved_by_node.append(saved)
        assert saved.tensor is not None, "a second backward pass through the same graph"
        return saved.tensor

    def backward(tensors: Any, grad_tensors: Any = None, *args: Any, **kwargs: Any) -> None:
        assert isinstance(tensors, torch.Tensor) and grad_tensors is None, "only of one scalar"
        with torch.no_grad():
            _run(tensors.grad_fn, torch.ones_like(tensors), saved_by_node)

    hooks = torch.autograd.graph.saved_tensors_hooks(_SavedTensor, unpack)
    # by which torch.utils.checkpoint computes a block once for all of its operations, not once for each
    task_id = mock.patch.object(torch._C, "_current_graph_task_id", lambda: 0)
    with hooks, task_id, mock.patch.object(torch.autograd, "backward", backward):
        yield


class _SavedTensor:
    """A tensor that the forward pass keeps for the backward pass."""

    def __init__(self, tensor: torch.Tensor):
        self.tensor: torch.Tensor | None = tensor


def _run(root: Any, gradient: torch.Tensor, saved_by_node: list[_SavedTensor]) -> None:
    """Compute the gradients of all leaves of a graph. Later operations come first: their numbers are higher."""
    gradients: dict[Any, list[Gradient]] = {root: [gradient]}
    queue = [(-root._sequence_nr(), 0, root)]
    num_queued = 1  # distinguishes nodes of equal numbers, which can't be compared
    del gradient
    while queue:
        node = heapq.heappop(queue)[-1]
        results = node(*gradients.pop(node))
        for saved in saved_by_node:
            saved.tensor = None
        saved_by_node.clear()
        results = list(results) if isinstance(results, tuple) else [results]
        for position, (next_node, index) in enumerate(node.next_functions):
            result, results[position] = results[position], None
            if next_node is None or result is None:
                continue
            if hasattr(next_node, "variable"):
                _accumulate(next_node.variable, *_conform([result], next_node._input_metadata))
                continue
            if next_node not in gradients:
                gradients[next_node] = [None] * len(next_node._input_metadata)
                heapq.heappush(queue, (-next_node._sequence_nr(), num_queued, next_node))
                num_queued += 1
            earlier, (result,) = gradients[next_node][index], _conform([result], [next_node._input_metadata[index]])
            gradients[next_node][index] = result if earlier is None else earlier + result


def _conform(gradients: Sequence[Gradient], metadata: Sequence[Any]) -> list[Gradient]:
    """Give gradients the shapes and dtypes of their tensors: operations leave broadcasting to the engine."""
    conformed = []
    for gradient, target in zip(gradients, metadata, strict=True):
        if gradient is not None:
            gradient = gradient.sum_to_size(target.shape) if gradient.shape != target.shape else gradient
            gradient = gradient.to(target.dtype)
        conformed.append(gradient)
    return conformed


def _accumulate(variable: torch.Tensor, gradient: Gradient) -> None:
    if variable.grad is None or gradient is None:
        variable.grad = gradient
    else:
        variable.grad += gradient
