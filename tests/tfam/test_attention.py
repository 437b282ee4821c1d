"""Attention within packed batches: devices, dropout, padding."""

import numpy as np
import pytest
import torch

from tests.tfam.helpers import CPU, FUSIONS, build_model, random_clips
from TFAM import model as fusion_model
from TFAM.data import ClipFeatures, collate
from TFAM.model import FusionTransformer, PackedAttention
from TFAM.packing import Layout, Pooling, make_paddings, pack


@pytest.mark.parametrize("fusion", FUSIONS)
def test_all_tensors_are_made_on_the_model_s_device(fusion: str) -> None:
    model = build_model(fusion, positions=True, dropout=0.5).to("meta")
    batch = collate(random_clips([4, 3])).model_inputs(torch.device("meta"))
    assert model(*batch).shape == (2, 3)


@pytest.mark.parametrize("p", [1e-9, 0.99999, 0.999999999])
def test_dropout_near_its_limits_is_finite(p: float) -> None:
    model = build_model("cross_attention", dropout=p)
    logits = model(*collate(random_clips([6, 4])).model_inputs(CPU))
    logits.sum().backward()
    assert logits.isfinite().all()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("pooling", Pooling)
@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_attention_to_all_videos_at_once_equals_one_video_at_a_time(
    fusion: str, positions: bool, pooling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU all videos are padded; here both ways are computed on the CPU."""
    for lengths in ([6, 4, 9], [5, 5], [2], [2, 30, 3]):
        model, batch = build_model(fusion, positions, pooling), collate(random_clips(lengths), pooling)
        results = []
        for is_together in (False, True):
            monkeypatch.setattr(fusion_model, "pads_videos", lambda *_, value=is_together: value)
            logits = model(*batch.model_inputs(CPU))
            gradients = torch.autograd.grad(logits.square().sum(), list(model.parameters()), allow_unused=True)
            results.append([logits, *gradients])
        torch.testing.assert_close(results[1][0], results[0][0], atol=1e-6, rtol=0)
        for gradient, expected in zip(results[1], results[0], strict=True):
            assert (gradient is None) == (expected is None)
            assert gradient is None or torch.allclose(gradient, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("is_together", [False, True])
def test_attention_dropout_drops_weights_in_training_only(is_together: bool) -> None:
    """All values are equal, so that each output counts the attention weights that are kept."""
    torch.manual_seed(0)
    attention = PackedAttention(8, 2, dropout=0.25)
    torch.nn.init.zeros_(attention.in_proj_weight)
    with torch.no_grad():
        attention.in_proj_bias[-8:] = 1
    attention.out_proj.load_state_dict({"weight": torch.eye(8), "bias": torch.zeros(8)})
    tokens = pack([torch.randn(300, 8), torch.randn(200, 8)])
    if is_together:
        paddings, _ = make_paddings([Layout.of(tokens)], np.empty(0, np.int64), CPU, torch.float32)
        tokens = tokens._replace(padding=paddings[0])
    out = attention(tokens, tokens).detach()
    assert float(out.mean()) == pytest.approx(1, abs=0.01)
    expected_deviation = (0.25 / 0.75 / 250) ** 0.5
    assert float(out[:, 0].std()) == pytest.approx(expected_deviation, rel=0.2)
    torch.testing.assert_close(attention.eval()(tokens, tokens), torch.ones(500, 8))


@pytest.mark.parametrize(
    ("dropout", "attention_dropout", "random"), [(0.5, 0.0, True), (0.0, 0.5, True), (0, 0, False)]
)
def test_dropout_and_attention_dropout_are_separate_and_off_in_evaluation(
    dropout: float, attention_dropout: float, random: bool
) -> None:
    model = build_model("cross_attention", dropout=dropout, attention_dropout=attention_dropout)
    inputs = collate(random_clips([6, 4])).model_inputs(CPU)
    assert torch.equal(model(*inputs), model(*inputs)) is not random
    model.eval()
    assert torch.equal(model(*inputs), model(*inputs))
    torch.testing.assert_close(model(*inputs), build_model("cross_attention").eval()(*inputs))


def test_attention_dropout_may_differ_from_dropout() -> None:
    def rates(attention_dropout: float | None) -> tuple[set[float], set[float]]:
        model = FusionTransformer(
            16, 3, "rgb", False, "masked", 2, 1, 32, 0.3, 0.0, attention_dropout=attention_dropout
        )
        modules = list(model.layers.modules())
        return (
            {module.dropout for module in modules if isinstance(module, PackedAttention)},
            {module.p for module in modules if isinstance(module, torch.nn.Dropout)},
        )

    assert rates(0.0) == ({0.0}, {0.3})
    assert rates(None) == ({0.3}, {0.3})


def test_a_batch_has_no_padding_unless_the_pooling_needs_it() -> None:
    clips = random_clips([5, 2])
    batch = collate(clips)
    assert torch.equal(batch.rgb.x, torch.cat([clip.rgb for clip in clips]))
    assert batch.motion is not None and batch.motion.lengths == [4, 1] and batch.motion.key_mask is None
    padded = collate(clips, "padded_mean")
    assert padded.rgb.lengths == [5, 5] and padded.rgb.key_lengths == [5, 2]
    assert torch.equal(padded.rgb.keys(), batch.rgb.x) and not padded.rgb.x[7:].any()
    for pooling, inputs in (("masked", padded), ("padded_mean", batch)):
        with pytest.raises(ValueError, match=pooling):
            build_model("rgb", pooling=pooling)(*inputs.model_inputs(CPU))
    one = [ClipFeatures("a.mp4", clips[0].rgb, None, clips[0].labels)]
    assert collate(one).motion is None and collate([]).videos == []
