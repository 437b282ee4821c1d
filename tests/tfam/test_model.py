"""The fusion Transformer: published logits, independence of the batch, state dict."""

import re
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from tests.conftest import REPOSITORY
from tests.tfam.helpers import CPU, FUSIONS, build_model, random_clips
from TFAM.data import ClipFeatures, collate
from TFAM.model import FusionTransformer, sinusoidal_positions
from TFAM.packing import Fusion, pack
from vimoclip.errors import UserError
from vimoclip.training.checkpoint import load_checkpoint, load_state

PUBLISHED_LOGITS = REPOSITORY.parent / "shared" / "data" / "published_files" / "tfam_logits.npz"
VARIANTS = [(fusion, positions) for fusion in FUSIONS for positions in (False, True)]


@pytest.mark.parametrize(("fusion", "positions"), VARIANTS)
def test_padded_mean_gives_the_published_logits(fusion, positions):
    if not PUBLISHED_LOGITS.is_file():
        pytest.skip("the outputs of the published code are not available")
    data = {key: torch.from_numpy(value) for key, value in np.load(PUBLISHED_LOGITS).items()}
    heads = int(data["num_heads"])
    shape = {"d_model": 32, "num_heads": heads, "num_layers": 2, "dim_feedforward": 64, "num_classes": 5}
    model = build_model(fusion, positions, "padded_mean", **shape).eval()
    rgb, motion = (
        [video[:length] for video, length in zip(data[name], data[f"{name}_lengths"], strict=True)]
        for name in ("rgb", "motion")
    )
    clips = [ClipFeatures("", *streams, torch.empty(0)) for streams in zip(rgb, motion, strict=True)]
    weights = {key.removeprefix("weights/"): value for key, value in data.items() if key.startswith("weights/")}
    model.load_state_dict(weights)
    with torch.no_grad():
        logits = model(*collate(clips, "padded_mean").model_inputs(CPU))
    expected = data[f"logits/{fusion}" + "/positions" * positions]
    torch.testing.assert_close(logits, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("fusion", "stream"), [(f, s) for f in FUSIONS for s in ("rgb", "motion") if {f, s} != {"rgb", "motion"}]
)
@pytest.mark.parametrize("positions", [False, True])
def test_normalized_inputs_make_logits_independent_of_scale(fusion, positions, stream):
    batch = collate(random_clips([6, 3, 5]))
    tokens = getattr(batch, stream)
    scaled = batch._replace(**{stream: tokens._replace(x=100 * tokens.x)})

    def logits(inputs, **changes):
        with torch.no_grad():
            return build_model(fusion, positions, **changes).eval()(*inputs.model_inputs(CPU))

    normalized = logits(batch, normalize_inputs=True)
    torch.testing.assert_close(logits(scaled, normalize_inputs=True), normalized, atol=1e-5, rtol=0)
    assert (logits(scaled) - logits(batch)).abs().max() > 1e-3
    assert torch.equal(logits(batch), logits(batch, normalize_inputs=False))
    assert (normalized - logits(batch)).abs().max() > 1e-6


def reference_logits(model: FusionTransformer, clips: list[ClipFeatures]) -> torch.Tensor:
    """Compute the logits as published, on padded batches with nn.MultiheadAttention and `key_padding_mask`."""

    def attend(attention, x, context, padding):
        module = nn.MultiheadAttention(attention.embed_dim, attention.num_heads, batch_first=True)
        arguments = {"key_padding_mask": padding, "need_weights": False}
        parameters = dict(attention.named_parameters())
        return torch.func.functional_call(module, parameters, (x, context, context), arguments)[0]

    def padding_mask(lengths, longest):
        return torch.arange(longest) >= torch.tensor(lengths)[:, None]

    rgb, motion = (
        pad_sequence([getattr(clip, name) for clip in clips], batch_first=True) for name in ("rgb", "motion")
    )
    if model.normalize_inputs:
        rgb, motion = (F.normalize(x, dim=-1) * x.shape[-1] ** 0.5 for x in (rgb, motion))
    if model.positions:
        rgb, motion = (x + sinusoidal_positions(*x.shape[1:]) for x in (rgb, motion))
    longest, lengths, is_masked = rgb.shape[1], [len(clip.rgb) for clip in clips], model.pooling == "masked"
    rgb_padding, motion_padding = padding_mask(lengths, longest), padding_mask([n - 1 for n in lengths], longest - 1)
    if model.fusion in ("rgb", "cross_attention"):
        x, padding = rgb, rgb_padding
    elif model.fusion == "motion":
        x, padding = motion, motion_padding
    elif model.fusion == "concat_embedding":
        x, padding = model.projection_layer(torch.cat([rgb[:, :-1], motion], -1)), motion_padding
    else:
        frame_padding = motion_padding if is_masked else rgb_padding[:, :-1]
        x, padding = torch.cat([rgb[:, :-1], motion], 1), torch.cat([frame_padding, motion_padding], 1)
    layer: Any
    for layer in model.layers:
        x = layer.norm_self(x + attend(layer.self_attn, x, x, padding))
        if model.fusion == "cross_attention":
            x = layer.norm_cross(x + attend(layer.cross_attn, x, motion, motion_padding))
        x = layer.norm_ffn(x + layer.ffn(x.flatten(0, 1)).view(x.shape))
    counted = (~padding if is_masked else torch.ones_like(padding))[..., None]
    return model.classifier((x * counted).sum(1) / counted.sum(1))


@pytest.mark.parametrize("pooling", ["masked", "padded_mean"])
@pytest.mark.parametrize(("fusion", "positions"), VARIANTS)
@hypothesis_settings(max_examples=6, deadline=None)
@given(lengths=st.lists(st.integers(2, 12), min_size=1, max_size=4), seed=st.integers(0, 99), normalize=st.booleans())
def test_logits_and_gradients_are_those_of_padded_batches(fusion, positions, pooling, lengths, seed, normalize):
    model = build_model(fusion, positions, pooling, normalize_inputs=normalize).eval()
    clips = random_clips(lengths, seed)
    logits, expected = model(*collate(clips, pooling).model_inputs(CPU)), reference_logits(model, clips)
    torch.testing.assert_close(logits, expected, atol=1e-6, rtol=0)
    gradients, references = (
        torch.autograd.grad(values.square().sum(), list(model.parameters()), allow_unused=True)
        for values in (logits, expected)
    )
    for gradient, reference in zip(gradients, references, strict=True):
        assert (gradient is None) == (reference is None)
        if gradient is not None and reference is not None:
            torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_gradients_reach_the_parameters_that_a_variant_uses(fusion):
    model = build_model(fusion)
    logits = model(*collate(random_clips([5, 3])).model_inputs(CPU))
    assert logits.shape == (2, 3)
    logits.square().sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    unused = {name for name, _ in model.named_parameters()} - reached
    expected = r"layers\.\d\.(cross_attn|norm_cross)\." if fusion != Fusion.CROSS_ATTENTION else r"$^"
    projected = fusion == Fusion.CONCAT_EMBEDDING
    assert all(re.match(expected, n) or (not projected and n.startswith("projection_layer.")) for n in unused)


def test_every_variant_has_the_published_state_dict_keys(tmp_path):
    layer = ["self_attn", "cross_attn", "ffn.0", "ffn.3", "norm_self", "norm_cross", "norm_ffn"]
    prefixes = {f"layers.{i}.{name}" for i in range(2) for name in layer}
    prefixes |= {"projection_layer", "classifier.0", "classifier.1", "classifier.4"}
    state = build_model("cross_attention").state_dict()
    names = {re.sub(r"(\.out_proj)?\.(in_proj_)?(weight|bias)$", "", key) for key in state}
    assert names == prefixes
    for name, prefix in (("plain.pth", ""), ("wrapped.pth", "module.")):
        torch.save({prefix + key: value for key, value in state.items()}, tmp_path / name)
        for fusion in FUSIONS:
            model = build_model(fusion, num_classes=3)
            load_state(model, load_checkpoint(tmp_path / name)["state_dict"], tmp_path / name)


def test_heads_must_divide_the_width():
    with pytest.raises(UserError) as error:
        build_model("rgb", num_heads=3)
    assert "num_heads" in error.value.problem and "num_heads" in error.value.hint


def test_motion_is_required_by_variants_that_use_it():
    with pytest.raises(ValueError, match="motion"):
        build_model("cross_attention")(pack([torch.zeros(4, 8)]))
