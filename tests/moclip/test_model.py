"""The student and its checkpoints."""

from pathlib import Path

import open_clip
import pytest
import torch

from tests.conftest import indexed_frames
from tests.moclip.helpers import make_student
from vimoclip import clip, moclip
from vimoclip.errors import UserError
from vimoclip.training.checkpoint import save_checkpoint


def embed(visual: torch.nn.Module, config: dict) -> torch.Tensor:
    encoder = clip.ImageEncoder(visual.eval(), config["clip"])
    return encoder.encode(encoder.preprocess(indexed_frames(3, 60, 80)))


def test_state_dict_keys_are_published_and_the_student_starts_as_the_teacher(tiny_clip: str) -> None:
    encoder = clip.load_encoder(tiny_clip, None)
    model, _ = make_student(encoder)
    keys = set(model.state_dict())
    encoder_keys = {f"visual_encoder.{name}" for name in encoder.visual.state_dict()}
    other_layers = {"residual_mlp.fc1", "residual_mlp.fc2", "classification_head.0", "classification_head.2"}
    assert keys == encoder_keys | {f"{layer}.{name}" for layer in other_layers for name in ("weight", "bias")}
    prepared = encoder.preprocess(indexed_frames(4))
    output = model.eval()(encoder.preprocess.normalize(prepared)[None], torch.ones(1, 4, dtype=torch.bool))
    assert torch.allclose(output.z_motion[0], encoder.encode(prepared), atol=1e-6)
    assert torch.equal(output.predicted, output.z_motion)  # the MLP's second layer starts at zero


def test_padding_changes_no_output(tiny_clip: str) -> None:
    encoder = clip.load_encoder(tiny_clip, None)
    model, _ = make_student(encoder)
    torch.nn.init.normal_(model.residual_mlp.fc2.weight)
    images = torch.randn(1, 6, 3, 32, 32)
    mask = torch.arange(6)[None] < 4
    padded, alone = model(images, mask), model(images[:, :4], mask[:, :4])
    assert torch.allclose(padded.logits, alone.logits, atol=1e-6)
    assert torch.allclose(padded.predicted[:, :4], alone.predicted, atol=1e-6)
    assert not padded.predicted[:, 4:].any()


def test_saving_and_loading_a_student_is_bit_exact(tiny_clip: str, tmp_path: Path) -> None:
    model, config = make_student(clip.load_encoder(tiny_clip, None))
    before = embed(model.visual_encoder, config)
    save_checkpoint(tmp_path / "student_best.pth", {"state_dict": model.state_dict(), "config": config})
    loaded, loaded_config = moclip.load(moclip.find_checkpoint(tmp_path))
    assert torch.equal(embed(loaded.visual_encoder, loaded_config), before)


def test_a_student_of_openai_weights_keeps_quick_gelu_bit_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vision = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}
    text = {"context_length": 8, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    small = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32", small)
    torch.manual_seed(2)
    torch.save(open_clip.create_model("ViT-B-32").state_dict(), tmp_path / "weights.pt")
    encoder = clip.load_encoder("ViT-B/32", str(tmp_path / "weights.pt"))
    model, config = make_student(encoder, num_classes=140)
    before = embed(model.visual_encoder, config)
    ours = save_checkpoint(tmp_path / "ours.pth", {"state_dict": model.state_dict(), "config": config})
    loaded, loaded_config = moclip.load(ours)
    assert torch.equal(embed(loaded.visual_encoder, loaded_config), before)
    # a published checkpoint is the plain state dict of DataParallel, in "<run> - best"
    (tmp_path / "20250328-003544 - best").mkdir()
    plain = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save(plain, tmp_path / "20250328-003544 - best" / "student_epoch_7.pth")
    published = moclip.find_checkpoint(tmp_path / "20250328-003544")
    loaded, loaded_config = moclip.load(published, "ViT-B/32", 140)
    assert torch.equal(embed(loaded.visual_encoder, loaded_config), before)


def test_other_checkpoints_are_refused(tiny_clip: str, tmp_path: Path) -> None:
    model, config = make_student(clip.load_encoder(tiny_clip, None))
    good = save_checkpoint(tmp_path / "good.pth", {"state_dict": model.state_dict(), "config": config})
    with pytest.raises(UserError, match="--num-classes is 140"):
        moclip.load(good, num_classes=140)
    with pytest.raises(UserError, match=r"--clip-model-name is ViT-B/16, .*local-dir:tinyclip"):
        moclip.load(good, clip_model_name="ViT-B/16")
    other = save_checkpoint(tmp_path / "other.pth", {"state_dict": {"weight": torch.zeros(2)}})
    with pytest.raises(UserError, match="not a MoCLIP student") as error:
        moclip.load(other)
    assert error.value.path == str(other)
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(UserError, match="can't be loaded") as error:
        moclip.load(tmp_path / "text.pth")
    assert error.value.path == str(tmp_path / "text.pth")
    with pytest.raises(UserError, match=r"student_best\.pth") as error:
        moclip.find_checkpoint(tmp_path / "nowhere")
    assert error.value.path == str(tmp_path / "nowhere")
