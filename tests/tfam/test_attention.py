"""Packed attention and dropout against torch, forward and backward."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from TFAM import attention
from TFAM.attention import FastDropout, PackedAttention, dropout_mask
from TFAM.model import Fusion, FusionTransformer, padding_mask

HEADS, WIDTH = 4, 32


def torch_attention(ours: PackedAttention) -> torch.nn.MultiheadAttention:
    theirs = torch.nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    return theirs


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=4), st.booleans(), st.booleans()
)
@settings(max_examples=30, deadline=None)
def test_packed_attention_matches_torch(lengths: list[tuple[int, int]], is_self: bool, padded: bool) -> None:
    torch.manual_seed(0)
    ours = PackedAttention(WIDTH, HEADS, dropout=0.0)
    theirs = torch_attention(ours)
    queries = [torch.randn(n, WIDTH, requires_grad=True) for n, _ in lengths]
    context = queries if is_self else [torch.randn(m, WIDTH, requires_grad=True) for _, m in lengths]
    query_lengths, context_lengths = ([len(video) for video in videos] for videos in (queries, context))
    with pytest.MonkeyPatch.context() as patch:
        if padded:  # the path of GPUs
            patch.setattr(attention, "_attend_per_video", attention._attend_padded)
        x = torch.cat(queries)
        out = ours(x, query_lengths, x if is_self else torch.cat(context), context_lengths)
    expected = torch.cat([theirs(q[None], k[None], k[None])[0][0] for q, k in zip(queries, context, strict=True)])
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    weight = torch.randn_like(out)
    inputs = [*queries, *([] if is_self else context)]
    gradients = torch.autograd.grad((out * weight).sum(), [*inputs, ours.in_proj_weight, ours.out_proj.weight])
    parameters = [theirs.in_proj_weight, theirs.out_proj.weight]
    expected_gradients = torch.autograd.grad((expected * weight).sum(), [*inputs, *parameters])
    for gradient, reference in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 2**20])
def test_attention_with_dropout_has_the_gradients_of_its_formula(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "WEIGHTS_PER_CHUNK", chunk)
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, n, 8, dtype=torch.float64, requires_grad=True) for n in (5, 7, 7))
    mask, scale = dropout_mask((3, 5, 7), 0.4)
    monkeypatch.setattr(attention, "dropout_mask", lambda shape, p: (mask, scale))
    out = attention._AttentionWithDropout.apply(q, k, v, 0.4)
    expected = ((q @ k.transpose(1, 2) / 8**0.5).softmax(-1) * mask * scale) @ v
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    for gradient, reference in zip(
        torch.autograd.grad(out, (q, k, v), grad), torch.autograd.grad(expected, (q, k, v), grad), strict=True
    ):
        torch.testing.assert_close(gradient, reference)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_mask_has_the_requested_rate_and_is_independent(p: float) -> None:
    torch.manual_seed(3)
    mask, scale = dropout_mask((1000, 1001), p)
    rate = 1 - p
    assert scale == pytest.approx(1 / rate, rel=1e-4)
    deviation = (rate * p / mask.numel()) ** 0.5
    assert abs(float(mask.float().mean()) - rate) < 5 * deviation
    flat = mask.flatten().float() - rate
    for lag in (1, 2, 3, 4, 1001):  # four elements come from one random number
        assert abs(float((flat[lag:] * flat[:-lag]).mean())) < 6 * rate * p / mask.numel() ** 0.5
    torch.manual_seed(3)
    assert torch.equal(dropout_mask((1000, 1001), p)[0], mask)


def test_dropout_keeps_the_mean_and_does_nothing_in_evaluation() -> None:
    layer, x = FastDropout(0.25), torch.ones(200, 300)
    dropped = layer(x)
    assert dropped.unique().tolist() == [0.0, pytest.approx(4 / 3, rel=1e-4)]
    assert float(dropped.mean()) == pytest.approx(1, abs=0.02)
    assert layer.eval()(x) is x


@pytest.mark.parametrize("fusion", list(Fusion))
def test_logits_and_gradients_do_not_depend_on_longer_videos_in_the_batch(fusion: str) -> None:
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
    for gradient, reference in zip(
        torch.autograd.grad(alone[0].sum(), list(model.parameters()), allow_unused=True), gradients, strict=True
    ):
        assert (gradient is None) == (reference is None)
        if gradient is not None and reference is not None:
            torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-5)


def test_other_devices_do_not_use_the_cpu_dropout_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """On MPS, for example, a mask drawn on the CPU could not be multiplied with the weights."""
    monkeypatch.setattr(attention, "dropout_mask", None)
    layer, x = PackedAttention(16, 2, 0.5).to("meta"), torch.empty(7, 16, device="meta")
    assert layer(x, [4, 3], x, [4, 3]).shape == (7, 16)


@pytest.mark.parametrize("p", [1e-9, 0.99999, 0.999999999])
def test_dropout_near_its_limits_is_finite(p: float) -> None:
    assert FastDropout(p)(torch.ones(100)).isfinite().all()


def test_attention_dropout_may_differ_from_dropout() -> None:
    model = FusionTransformer(16, 3, "rgb", False, "masked", 2, 1, 32, 0.3, 0.0, attention_dropout=0.0)
    assert [module.dropout for module in model.modules() if isinstance(module, PackedAttention)] == [0.0, 0.0]
    assert {module.p for module in model.modules() if isinstance(module, FastDropout)} == {0.3}
    model = FusionTransformer(16, 3, "rgb", False, "masked", 2, 1, 32, 0.3, 0.0)
    assert [module.dropout for module in model.modules() if isinstance(module, PackedAttention)] == [0.3, 0.3]
