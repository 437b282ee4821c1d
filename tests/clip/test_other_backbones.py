"""Other CLIP backbones, from embeddings to the fusion."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import REPOSITORY, make_dataset, make_tiny_clip
from vimoclip import clip, model_folder, store
from vimoclip.training import checkpoint

SMALL_FUSION = ["training.epochs=1", "model.num_layers=1", "model.dim_feedforward=16"]
BACKBONES = {
    # as in SigLIP: timm's ViT with an attention pool, whose width is that of the embeddings
    "siglip": (
        192,
        {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "map", "timm_proj": "none", "image_size": 224},
    ),
    # as in PE-Core and MobileCLIP: timm's trunk with a projection
    "timm": (48, {"timm_model_name": "resnet10t", "timm_pool": "avg", "timm_proj": "linear"}),
}


@pytest.mark.parametrize("kind", ["timm", "quick_gelu"])
def test_a_model_folder_gives_the_embeddings_of_its_encoder(kind: str, tmp_path: Path) -> None:
    """Also with the running statistics of BatchNorm, and with OpenAI's activation, in all precisions."""
    width, vision = BACKBONES.get(kind, (32, {}))
    name = make_tiny_clip(tmp_path / "backbone", width, **vision)  # type: ignore[arg-type]
    config = tmp_path / "backbone" / "open_clip_config.json"
    content = json.loads(config.read_text())
    content["model_cfg"]["quick_gelu"] = kind == "quick_gelu"
    config.write_text(json.dumps(content))
    encoder = clip.load_encoder(name, None)
    for module in encoder.visual.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.load_state_dict({name: torch.rand_like(x.float()) + 1 for name, x in module.state_dict().items()})
    folder = model_folder.write_folder(
        tmp_path / "model", {"backbone": encoder.config}, {"encoder": encoder.visual.state_dict()}, {}
    )
    frames = np.random.default_rng(0).integers(0, 256, (3, 50, 70, 3), dtype=np.uint8)
    for precision in ("fp32", "bf16", "int8"):
        expected, found = (
            loaded.freeze(precision=precision).encode(loaded.prepare(loaded.load_frames(frames)))
            for loaded in (encoder, clip.load_encoder(f"local-dir:{folder}", None))
        )
        assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", BACKBONES)
def test_backbone_works_through_the_whole_chain(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import extract_embeddings
    import extract_flows
    import inference
    import train
    from TFAM import train_and_eval

    width, vision = BACKBONES[kind]
    make_dataset(tmp_path / "dataset")
    name = make_tiny_clip(tmp_path / "backbone", width, **vision)  # type: ignore[arg-type]
    monkeypatch.chdir(tmp_path)
    extract_embeddings.main(["--clip-model-name", name, "--max-frames", "3", "--frame-batch-size", "3"])
    extract_flows.main(["--model", "frame_diff", "--num-workers", "0", "--max-frames", "3"])
    flags = [
        "--freeze-encoder",
        "--epochs",
        "1",
        "--sequence-length",
        "3",
        "--run-name",
        "student",
        "--num-workers",
        "0",
    ]
    train.main([*flags, "--clip-model-name", name])
    inference.main(["--checkpoint-dir", "checkpoints/student", "--frame-batch-size", "3"])
    config = str(REPOSITORY / "TFAM" / "configs" / "cross_attention.yaml")
    train_and_eval.main(["--config", config, "--num-workers", "0", "--set", *SMALL_FUSION])
    rgb = store.EmbeddingReader(Path("dataset/embeddings/ak_train_clip_embeddings.h5"), "rgb")
    motion = store.EmbeddingReader(Path("dataset/embeddings/flow_embeddings.h5"), "motion")
    assert rgb.dim == motion.dim == width
    assert motion.attributes["student"]["flow"]["method"] == "frame_diff"
    # frozen, with the running means of timm's batch normalisation, so that no clip or label changed it
    assert motion.attributes["weights_sha256"] == rgb.attributes["weights_sha256"]
    fused = checkpoint.load_checkpoint(Path("checkpoints/TFAM/cross_attention/seed49/best_model.pth"))
    assert fused["config"]["model"]["d_model"] == width
