"""Packed videos give what padded ones give, forwards and backwards; dropping drops what it says."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from TFAM import attention
from TFAM.attention import Attention, Dropout, keep
from TFAM.model import Fusion, FusionTransformer, padding_mask
from vimoclip.runtime import onednn

HEADS, WIDTH = 4, 32


def by_torch(ours: Attention) -> torch.nn.MultiheadAttention:
    theirs = torch.nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    return theirs


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=4), st.booleans(), st.booleans()
)
@settings(max_examples=30, deadline=None)
def test_attention_and_its_gradients_are_torchs_without_the_padding(
    lengths: list[tuple[int, int]], own: bool, at_once: bool
) -> None:
    torch.manual_seed(0)
    ours = Attention(WIDTH, HEADS, dropout=0.0)
    theirs = by_torch(ours)
    asked = [torch.randn(n, WIDTH, requires_grad=True) for n, _ in lengths]
    asking = asked if own else [torch.randn(m, WIDTH, requires_grad=True) for _, m in lengths]
    sizes, other_sizes = [len(video) for video in asked], [len(video) for video in asking]
    with pytest.MonkeyPatch.context() as patch:
        if at_once:  # what a GPU does
            patch.setattr(attention, "_one_by_one", attention._padded)
        x = torch.cat(asked)
        out = ours(x, sizes, x if own else torch.cat(asking), other_sizes)
    expected = torch.cat([theirs(q[None], k[None], k[None])[0][0] for q, k in zip(asked, asking, strict=True)])
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    weight = torch.randn_like(out)
    inputs = [*asked, *([] if own else asking)]
    found = torch.autograd.grad((out * weight).sum(), [*inputs, ours.in_proj_weight, ours.out_proj.weight])
    told = torch.autograd.grad((expected * weight).sum(), [*inputs, theirs.in_proj_weight, theirs.out_proj.weight])
    for mine, reference in zip(found, told, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 2**20])
def test_dropped_attention_has_the_gradients_of_its_formula(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "CHUNK", chunk)
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, n, 8, dtype=torch.float64, requires_grad=True) for n in (5, 7, 7))
    kept, scale = keep((3, 5, 7), 0.4)
    monkeypatch.setattr(attention, "keep", lambda shape, share: (kept, scale))
    out = attention._DroppedAttention.apply(q, k, v, 0.4)
    expected = ((q @ k.transpose(1, 2) / 8**0.5).softmax(-1) * kept * scale) @ v
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    for mine, reference in zip(
        torch.autograd.grad(out, (q, k, v), grad), torch.autograd.grad(expected, (q, k, v), grad), strict=True
    ):
        torch.testing.assert_close(mine, reference)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_as_many_are_dropped_as_are_to_be_and_independently(share: float) -> None:
    torch.manual_seed(3)
    kept, scale = keep((1000, 1001), share)
    rate = 1 - share
    assert scale == pytest.approx(1 / rate, rel=1e-4)
    deviation = (rate * share / kept.numel()) ** 0.5
    assert abs(float(kept.float().mean()) - rate) < 5 * deviation
    flat = kept.flatten().float() - rate
    for apart in (1, 2, 3, 4, 1001):  # four are drawn from one number
        assert abs(float((flat[apart:] * flat[:-apart]).mean())) < 6 * rate * share / kept.numel() ** 0.5
    torch.manual_seed(3)
    assert torch.equal(keep((1000, 1001), share)[0], kept)


def test_dropout_keeps_the_mean_and_does_nothing_in_evaluation() -> None:
    layer, x = Dropout(0.25), torch.ones(200, 300)
    dropped = layer(x)
    assert dropped.unique().tolist() == [0.0, pytest.approx(4 / 3, rel=1e-4)]
    assert float(dropped.mean()) == pytest.approx(1, abs=0.02)
    assert layer.eval()(x) is x


@pytest.mark.parametrize("bias", [True, False])
def test_a_product_and_its_gradients_are_torchs(bias: bool) -> None:
    torch.manual_seed(0)
    x, w, b = torch.randn(37, 16), torch.randn(24, 16), torch.randn(24) * bias
    found: list[torch.Tensor] = []
    told: list[torch.Tensor] = []
    for function, into in ((onednn.linear, found), (F.linear, told)):
        leaves = [t.clone().requires_grad_() for t in (x, w, b)]
        out = function(*leaves)
        into += [out, *torch.autograd.grad(out.square().sum(), leaves)]
    for mine, reference in zip(found, told, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-4)


def test_modules_of_others_compute_the_same_by_onednn() -> None:
    torch.manual_seed(0)
    net = torch.nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    x, gradients = torch.randn(3, 9, 16), list[tuple[torch.Tensor, ...]]()
    used = 0
    real = onednn._product

    def counted(*args: Any) -> torch.Tensor:
        nonlocal used
        used += 1
        return real(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onednn, "_product", counted)
        for context in (onednn.by_onednn(torch.device("cpu")), nullcontext()):
            with context:
                gradients.append(torch.autograd.grad(net(x).square().sum(), list(net.parameters())))
    assert used == 11  # four forwards, for each two backwards, but for the input, which learns nothing
    for mine, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fusion", list(Fusion))
def test_a_videos_logits_and_gradients_are_the_same_alone_and_beside_long_ones(fusion: str) -> None:
    torch.manual_seed(0)
    model = FusionTransformer(16, 3, fusion, True, "masked", 2, 2, 32, 0.0, 0.0)
    lengths = torch.tensor([2, 11, 30])
    rgb, motion = (torch.randn(3, n, 16) for n in (30, 29))
    rgb *= ~padding_mask(lengths, 30)[..., None]
    motion *= ~padding_mask(lengths - 1, 29)[..., None]
    together = model(rgb, lengths, motion, lengths - 1)
    gradients = torch.autograd.grad(together[1].sum(), list(model.parameters()), allow_unused=True)
    alone = model(rgb[1:2, :11], lengths[1:2], motion[1:2, :10], lengths[1:2] - 1)
    torch.testing.assert_close(alone[0], together[1], rtol=1e-5, atol=1e-5)
    for mine, reference in zip(
        torch.autograd.grad(alone[0].sum(), list(model.parameters()), allow_unused=True), gradients, strict=True
    ):
        assert (mine is None) == (reference is None)
        if mine is not None and reference is not None:
            torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-5)


def test_on_another_device_than_the_cpu_nothing_is_made_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """MPS, say: what is kept of the attention's weights is drawn on the CPU, and can't be multiplied with others."""
    monkeypatch.setattr(attention, "keep", None)
    layer, x = Attention(16, 2, 0.5).to("meta"), torch.empty(7, 16, device="meta")
    assert layer(x, [4, 3], x, [4, 3]).shape == (7, 16)


@pytest.mark.parametrize("share", [1e-9, 0.99999, 0.999999999])
def test_a_dropout_near_its_limits_gives_numbers(share: float) -> None:
    assert Dropout(share)(torch.ones(100)).isfinite().all()


def test_attention_may_have_a_dropout_of_its_own() -> None:
    model = FusionTransformer(16, 3, "rgb", False, "masked", 2, 1, 32, 0.3, 0.0, attention_dropout=0.0)
    assert [part.dropout for part in model.modules() if isinstance(part, Attention)] == [0.0, 0.0]
    assert {part.share for part in model.modules() if isinstance(part, Dropout)} == {0.3}
    model = FusionTransformer(16, 3, "rgb", False, "masked", 2, 1, 32, 0.3, 0.0)
    assert [part.dropout for part in model.modules() if isinstance(part, Attention)] == [0.3, 0.3]
