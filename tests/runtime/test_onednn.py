"""Float32 matmuls through oneDNN against torch, forward and backward."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from vimoclip.runtime import onednn, processor


@pytest.fixture(autouse=True)
def amd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take oneDNN's way on every machine; it is correct on all."""
    monkeypatch.setattr(processor, "vendor", lambda: processor.AMD)


@pytest.mark.parametrize("bias", [True, False])
def test_linear_and_its_gradients_match_torch(bias: bool) -> None:
    torch.manual_seed(0)
    x, w, b = torch.randn(37, 16), torch.randn(24, 16), torch.randn(24) * bias
    results: list[list[torch.Tensor]] = []
    for function in (onednn.linear, F.linear):
        leaves = [t.clone().requires_grad_() for t in (x, w, b)]
        out = function(*leaves)
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)


def test_torch_modules_compute_the_same_through_onednn() -> None:
    torch.manual_seed(0)
    net = torch.nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    x, gradients = torch.randn(3, 9, 16), list[tuple[torch.Tensor, ...]]()
    num_calls = 0
    matmul = onednn._matmul

    def counting_matmul(*args: Any) -> torch.Tensor:
        nonlocal num_calls
        num_calls += 1
        return matmul(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onednn, "_matmul", counting_matmul)
        for context in (onednn.use_onednn(torch.device("cpu")), nullcontext()):
            with context:
                gradients.append(torch.autograd.grad(net(x).square().sum(), list(net.parameters())))
    assert num_calls == 11  # four forward, eight backward, less the gradient of the input
    for ours, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)
