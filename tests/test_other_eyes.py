"""Other backbones and flow models through the same flags, from the frames to the fusion."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import REPOSITORY, make_clip, make_dataset, moving_frames
from vimoclip import flow, store
from vimoclip.flow import ptlflow_model
from vimoclip.training import checkpoint

SMALL = ["training.epochs=1", "model.num_layers=1", "model.dim_feedforward=16"]
EYES = {
    # as SigLIP: a ViT of timm's, pooled by attention, its width that of the embeddings
    "siglip": (
        192,
        {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "map", "timm_proj": "none", "image_size": 224},
    ),
    # as PE-Core and MobileCLIP have it: a trunk of timm's with a projection
    "timm": (48, {"timm_model_name": "resnet10t", "timm_pool": "avg", "timm_proj": "linear"}),
}


@pytest.mark.parametrize("kind", EYES)
def test_a_backbone_goes_through_the_whole_chain_by_its_name(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import extract_embeddings
    import extract_flows
    import inference
    import train
    from TFAM import train_and_eval

    width, vision = EYES[kind]
    make_dataset(tmp_path / "dataset")
    name = make_clip(tmp_path / "eye", width, **vision)  # type: ignore[arg-type]
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
    train_and_eval.main(["--config", config, "--num-workers", "0", "--set", *SMALL])
    rgb = store.Reader(Path("dataset/embeddings/ak_train_clip_embeddings.h5"), "rgb")
    motion = store.Reader(Path("dataset/embeddings/flow_embeddings.h5"), "motion")
    assert rgb.dim == motion.dim == width
    assert motion.attributes["student"]["flow"]["method"] == "frame_diff"
    fused = checkpoint.load_checkpoint(Path("checkpoints/TFAM/cross_attention/seed49/best_model.pth"))
    assert fused["config"]["model"]["d_model"] == width


@pytest.mark.parametrize("name", ["sea_raft_s", "neuflow2"])
def test_a_flow_model_works_by_its_name_with_a_checkpoint_from_a_file(name: str, tmp_path: Path) -> None:
    """In the format that real checkpoints have, with random weights; the same ones give the same flow."""
    torch.manual_seed(0)
    model = ptlflow_model._ptlflow().get_model(name)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "weights.ckpt")
    frames = moving_frames(2, (1, 0), 51, 67)
    found = [flow.LearnedFlow(name, str(tmp_path / "weights.ckpt"), None, torch.device("cpu"))(frames) for _ in "ab"]
    assert found[0].shape == (1, 51, 67, 2)
    assert np.isfinite(found[0]).all()
    assert (found[0] == found[1]).all()
    colors = flow.load(name, str(tmp_path / "weights.ckpt"), None, "log", 0.05, torch.device("cpu"))(frames)
    assert colors.shape == (1, 51, 67, 3)
