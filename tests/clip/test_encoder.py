"""The image encoder and its precisions against the tower's own forward."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import open_clip
import pytest
import torch
from torch import nn

import extract_embeddings
import inference
from tests.conftest import moving_frames, write_annotations, write_video
from vimoclip import clip, store
from vimoclip.clip import fast_vit
from vimoclip.errors import UserError
from vimoclip.io.checkpoint_loading import weights_sha256
from vimoclip.runtime import processor
from vimoclip.runtime.device import select_precision

CPU = torch.device("cpu")
TINY = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 3, "head_width": 16}
TOWERS: dict[str, tuple[dict[str, Any], bool]] = {
    "class token, GELU": (TINY, False),
    "class token, QuickGELU": (TINY, True),
    "layer scale": (TINY | {"ls_init_value": 0.3}, False),
    "mean of tokens": (TINY | {"pool_type": "avg", "final_ln_after_pool": True}, False),
    "no norm before, norm after the pool": (TINY | {"no_ln_pre": True, "final_ln_after_pool": True}, False),
    "CoCa's pooler": (TINY | {"attentional_pool": True, "output_tokens": True}, True),
    "attention of its own": (TINY | {"block_type": "custom", "qk_norm": True}, False),
    "ResNet": ({"image_size": 32, "layers": [1, 1, 1, 1], "width": 16}, False),
    "timm": ({"image_size": 32, "timm_model_name": "resnet18", "timm_pool": "avg", "timm_proj": "linear"}, False),
}
BuildEncoder = Callable[[str], clip.ImageEncoder]


def build_encoder(kind: str) -> clip.ImageEncoder:
    vision_cfg, quick_gelu = TOWERS[kind]
    config = {
        "architecture": {"embed_dim": 24, "vision_cfg": vision_cfg, "quick_gelu": quick_gelu},
        "quick_gelu": quick_gelu,
        "image_size": [32, 32],
        "resize": "model",
        "resize_mode": "shortest",
        "interpolation": "bicubic",
        "fill_color": 0,
        "mean": list(open_clip.OPENAI_DATASET_MEAN),
        "std": list(open_clip.OPENAI_DATASET_STD),
    }
    torch.manual_seed(0)
    encoder = clip.build_encoder(config)
    for parameter in encoder.visual.parameters():  # zeros would hide a lost bias
        parameter.data += 0.02 * torch.randn_like(parameter)
    encoder.visual.eval()
    return encoder


def frames(count: int = 4) -> torch.Tensor:
    shape = (count, 3, 32, 32)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def encode_with_tower(encoder: clip.ImageEncoder, prepared: torch.Tensor) -> torch.Tensor:
    return clip.encode_images(encoder.visual, encoder.preprocess.normalize(prepared))


def cosines(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return torch.cosine_similarity(first.double(), second.double())


@pytest.mark.parametrize("kind", TOWERS)
def test_encoder_gives_the_towers_own_embeddings(kind: str) -> None:
    encoder = build_encoder(kind)
    expected = encode_with_tower(encoder, frames())
    assert torch.allclose(encoder.encode(frames()), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert cosines(encoder.encode(frames()), expected).min() > 0.99999


@pytest.mark.parametrize("kind", TOWERS)
def test_int8_is_close_and_rows_are_independent(kind: str) -> None:
    encoder = build_encoder(kind)
    expected = encode_with_tower(encoder, frames(8))
    encoder.freeze(precision="int8")
    ours = encoder.encode(frames(8))
    assert cosines(ours, expected).mean() > 0.9985  # these towers are narrow; ViT-B/32: 0.9998
    among_others = torch.cat([frames(8)[:1], torch.zeros(3, 3, 32, 32, dtype=torch.uint8), frames(8)[4:]])
    assert torch.equal(encoder.encode(among_others)[[0, 4, 5, 6, 7]], ours[[0, 4, 5, 6, 7]])
    encoder.freeze()
    assert cosines(encoder.encode(frames(8)), expected).min() > 0.99999


@pytest.mark.parametrize("kind", ["class token, QuickGELU", "ResNet"])
def test_bf16_runs_on_a_cpu_and_agrees(kind: str) -> None:
    encoder = build_encoder(kind)
    expected = encode_with_tower(encoder, frames())
    ours = encoder.freeze(precision="bf16").encode(frames())
    assert ours.dtype == torch.float32
    assert not torch.equal(ours, encoder.freeze().encode(frames()))
    assert (ours - expected).abs().max() < 1e-2 * expected.abs().max()
    assert cosines(ours, expected).min() > 0.999


@pytest.mark.parametrize("vendor", [processor.AMD, processor.INTEL])
def test_only_on_amd_weights_are_packed_for_onednn(monkeypatch: pytest.MonkeyPatch, vendor: str) -> None:
    monkeypatch.setattr(processor, "vendor", lambda: vendor)
    encoder = build_encoder("class token, QuickGELU").freeze()
    with torch.profiler.profile() as profile:
        embeddings = encoder.encode(frames())
    num_packed = sum(event.name == "mkldnn::_linear_pointwise" for event in profile.events() or ())
    assert num_packed == (4 * 3 + 3 if vendor == processor.AMD else 0)  # the last block has one more layer
    assert cosines(embeddings, encode_with_tower(encoder, frames())).min() > 0.99999


def test_bf16_casts_only_pixels_and_embeddings() -> None:
    """Autocast would cast the input of each layer, as LayerNorm's output is float32 there."""
    encoder = build_encoder("class token, QuickGELU").freeze(precision="bf16")
    with torch.profiler.profile() as profile:
        encoder.encode(frames())
    num_casts = sum(event.name == "aten::_to_copy" for event in profile.events() or ())
    assert num_casts <= 3  # with the number that is subtracted from the pixels; the tower has 15 linear layers


def test_bf16_is_as_accurate_as_autocast() -> None:
    """With pixels in 0..255 instead of around zero, rounded weights of the folded patch embedding would not cancel."""
    encoder = build_encoder("class token, QuickGELU")
    encoder.visual.conv1.weight.data += 0.3  # type: ignore[union-attr,operator]
    bright = (frames(16) // 4 + 160).to(torch.uint8)
    expected = encode_with_tower(encoder, bright)
    with torch.autocast("cpu", torch.bfloat16):
        autocast_error = (encode_with_tower(encoder, bright).float() - expected).norm()
    assert (encoder.freeze(precision="bf16").encode(bright) - expected).norm() < 1.5 * autocast_error


def test_new_weights_take_effect_when_the_encoder_is_frozen_again() -> None:
    encoder, other = build_encoder("class token, GELU"), build_encoder("class token, GELU")
    with torch.no_grad():
        for parameter in other.visual.parameters():
            parameter.mul_(1.1)
    before = encoder.encode(frames())
    encoder.visual.load_state_dict(other.visual.state_dict())
    after = encoder.freeze().encode(frames())
    assert not torch.allclose(after, before)
    assert torch.equal(after, other.encode(frames()))


def test_encoding_leaves_the_tower_unchanged() -> None:
    for kind in ("class token, QuickGELU", "ResNet"):
        encoder = build_encoder(kind)
        before = weights_sha256(encoder.visual), encode_with_tower(encoder, frames())
        for precision in ("fp32", "int8"):
            encoder.freeze(precision=precision)
            encoder.encode(frames())
        assert weights_sha256(encoder.visual) == before[0]
        assert torch.equal(encode_with_tower(encoder, frames()), before[1])


def test_folded_vit_is_used_only_for_supported_towers() -> None:
    supported = {kind for kind in TOWERS if fast_vit.is_supported(build_encoder(kind).visual)}
    assert supported == {
        "class token, GELU",
        "class token, QuickGELU",
        "layer scale",
        "no norm before, norm after the pool",
    }
    assert not fast_vit.is_supported(nn.Identity())


def test_int8_is_refused_off_the_cpu() -> None:
    with pytest.raises(UserError):
        build_encoder("class token, GELU").freeze(torch.device("meta"), "int8")


def test_auto_precision_is_fp32_on_a_cpu() -> None:
    assert select_precision("auto", CPU) == "fp32"
    assert select_precision("int8", CPU) == "int8"


@pytest.fixture
def command(tiny_clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Flags of extract_embeddings.py for two videos in the working directory."""
    for number in range(2):
        write_video(tmp_path / f"dataset/videos/v{number}.mp4", moving_frames(5, (1, 1), 32, 32), lossless=False)
    write_annotations(tmp_path / "dataset" / "annotations", {"train": {f"v{number}.mp4": (0,) for number in range(2)}})
    monkeypatch.chdir(tmp_path)
    return ["--clip-model-name", tiny_clip, "--num-workers", "0"]


OUTPUT = Path("dataset/embeddings/ak_train_clip_embeddings.h5")


def test_file_records_its_precision_and_is_not_resumed_with_another(command: list[str]) -> None:
    rows = {}
    for precision in ("fp32", "int8", "bf16"):
        extract_embeddings.main([*command, "--precision", precision, "--overwrite"])
        with h5py.File(OUTPUT) as file:
            assert (file.attrs["precision"], file.attrs["backend"]) == (precision, "torch")
            rows[precision] = torch.from_numpy(file["v0.mp4/embeddings"][:])
    for precision in ("int8", "bf16"):
        assert not torch.equal(rows[precision], rows["fp32"])
        assert cosines(rows[precision], rows["fp32"]).mean() > 0.998
    with pytest.raises(UserError, match="precision"):
        extract_embeddings.main([*command, "--precision", "fp32"])


def test_processors_of_several_vendors_may_add_to_one_file(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for vendor, flags in ((processor.AMD, ["--limit", "1"]), (processor.INTEL, [])):
        monkeypatch.setattr(processor, "vendor", lambda vendor=vendor: vendor)
        extract_embeddings.main([*command, *flags])
        with h5py.File(OUTPUT) as file:
            assert json.loads(file.attrs["versions"])["processor"].startswith(vendor)
    assert len(store.EmbeddingReader(OUTPUT).keys) == 2


def test_file_of_a_removed_backend_is_read_and_not_resumed(command: list[str]) -> None:
    extract_embeddings.main([*command, "--limit", "1"])
    with h5py.File(OUTPUT, "a") as file:
        file.attrs["backend"] = "openvino"
    content = OUTPUT.read_bytes()
    with pytest.raises(UserError, match="backend=openvino") as raised:
        extract_embeddings.main(command)
    assert raised.value.path == str(OUTPUT) and OUTPUT.read_bytes() == content
    reader = store.EmbeddingReader(OUTPUT)
    assert reader.attributes["backend"] == "openvino" and not store.verify(OUTPUT)
    assert reader.embeddings("v0.mp4").shape[0] == 5


@pytest.mark.parametrize("script", [extract_embeddings, inference])
def test_backend_torch_warns_once_and_others_are_refused(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    required = ["--checkpoint-dir", "x"] if script is inference else []
    script.build_parser().parse_args(required)
    assert not capsys.readouterr().out
    script.build_parser().parse_args([*required, "--backend", "torch"])
    assert capsys.readouterr().out.count("warning") == 1
    for backend in ("onnxruntime", "openvino"):
        with pytest.raises(SystemExit) as raised:
            script.build_parser().parse_args([*required, "--backend", backend])
        assert raised.value.code == 2 and backend in capsys.readouterr().err
