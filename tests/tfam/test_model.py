"""The fusion Transformer: published logits, independence of the batch, state dict."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.conftest import REPOSITORY
from tests.tfam.helpers import CPU, build_model, random_clips
from TFAM.data import collate
from TFAM.model import Fusion
from vimoclip.errors import UserError
from vimoclip.training.checkpoint import load_checkpoint, load_state

PUBLISHED_LOGITS = REPOSITORY.parent / "shared" / "data" / "published_files" / "tfam_logits.npz"
VARIANTS = [(fusion, positions) for fusion in Fusion for positions in (False, True)]


@pytest.mark.parametrize(("fusion", "positions"), VARIANTS)
def test_padded_mean_gives_the_published_logits(fusion, positions):
    if not PUBLISHED_LOGITS.is_file():
        pytest.skip("the outputs of the published code are not available")
    data = {key: torch.from_numpy(value) for key, value in np.load(PUBLISHED_LOGITS).items()}
    heads = int(data["num_heads"])
    shape = {"d_model": 32, "num_heads": heads, "num_layers": 2, "dim_feedforward": 64, "num_classes": 5}
    model = build_model(fusion, positions, "padded_mean", **shape).eval()
    weights = {key.removeprefix("weights/"): value for key, value in data.items() if key.startswith("weights/")}
    model.load_state_dict(weights)
    with torch.no_grad():
        logits = model(data["rgb"], data["rgb_lengths"], data["motion"], data["motion_lengths"])
    expected = data[f"logits/{fusion}" + "/positions" * positions]
    torch.testing.assert_close(logits, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("fusion", "stream"), [(f, s) for f in Fusion for s in ("rgb", "motion") if {f, s} != {"rgb", "motion"}]
)
@pytest.mark.parametrize("positions", [False, True])
def test_normalized_inputs_make_logits_independent_of_scale(fusion, positions, stream):
    batch = collate(random_clips([6, 3, 5]))
    scaled = batch._replace(**{stream: 100 * getattr(batch, stream)})

    def logits(inputs, **changes):
        with torch.no_grad():
            return build_model(fusion, positions, **changes).eval()(*inputs.model_inputs(CPU))

    normalized = logits(batch, normalize_inputs=True)
    torch.testing.assert_close(logits(scaled, normalize_inputs=True), normalized, atol=1e-5, rtol=0)
    assert (logits(scaled) - logits(batch)).abs().max() > 1e-3
    assert torch.equal(logits(batch), logits(batch, normalize_inputs=False))
    assert (normalized - logits(batch)).abs().max() > 1e-6


@pytest.mark.parametrize(("fusion", "positions"), VARIANTS)
@hypothesis_settings(max_examples=6, deadline=None)
@given(lengths=st.lists(st.integers(2, 12), min_size=2, max_size=4), seed=st.integers(0, 99))
def test_logits_do_not_depend_on_the_batch(fusion, positions, lengths, seed):
    model = build_model(fusion, positions).eval()
    videos = random_clips(lengths, seed)
    with torch.no_grad():
        together = model(*collate(videos).model_inputs(CPU))
        alone = torch.cat([model(*collate([video]).model_inputs(CPU)) for video in videos])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("fusion", Fusion)
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
        for fusion in Fusion:
            model = build_model(fusion, num_classes=3)
            load_state(model, load_checkpoint(tmp_path / name)["state_dict"], tmp_path / name)


def test_heads_must_divide_the_width():
    with pytest.raises(UserError) as error:
        build_model("rgb", num_heads=3)
    assert "num_heads" in error.value.problem and "num_heads" in error.value.hint


def test_motion_is_required_by_variants_that_use_it():
    with pytest.raises(ValueError, match="motion"):
        build_model("cross_attention")(torch.zeros(1, 4, 8), torch.tensor([4]))
