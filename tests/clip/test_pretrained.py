"""Loading image encoders: model names, weights from every source, refused files."""

import json
from collections.abc import Iterator
from pathlib import Path

import open_clip
import pytest
import torch

from tests import preloaded
from tests.conftest import REPOSITORY, indexed_frames
from vimoclip import clip
from vimoclip.clip import pretrained
from vimoclip.clip.pretrained import _file_sha256
from vimoclip.errors import UserError

TEXT = {"context_length": 8, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
# small architectures under the names of open_clip, which weights, tags and preprocessing belong to
SMALL_MODELS = {
    "ViT-B-32": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "RN50": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16},
    "ViT-B-16-SigLIP": {
        "image_size": 224,
        "timm_model_name": "vit_tiny_patch16_224",
        "timm_pool": "map",
        "timm_proj": "none",
    },
}


@pytest.fixture(scope="module", autouse=True)
def small_models() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, vision in SMALL_MODELS.items():
            config = {"embed_dim": 192, "vision_cfg": vision, "text_cfg": TEXT}
            patch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
        yield


@pytest.fixture(scope="module")
def b32_weights(small_models: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "b32.pt"
    torch.manual_seed(1)
    torch.save(open_clip.create_model("ViT-B-32").state_dict(), path)
    return path


def test_openai_spelling_implies_quick_gelu_and_rebuilding_keeps_it(b32_weights: Path) -> None:
    openai, plain = clip.load_encoder("ViT-B/32", str(b32_weights)), clip.load_encoder("ViT-B-32", str(b32_weights))
    assert openai.config["quick_gelu"]
    assert not plain.config["quick_gelu"]
    assert openai.config["clip_model"] == plain.config["clip_model"] == "ViT-B/32"
    assert openai.config["weights_sha256"] == plain.config["weights_sha256"]
    assert openai.config["clip_pretrained"] == "b32.pt"  # the config holds no path
    prepared = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert not torch.allclose(openai.encode(prepared), plain.encode(prepared), atol=1e-3)
    for encoder in (openai, plain):
        rebuilt = clip.build_encoder(encoder.config)
        rebuilt.visual.load_state_dict(encoder.visual.state_dict())
        rebuilt.visual.eval()
        assert torch.equal(rebuilt.encode(prepared), encoder.encode(prepared))


@pytest.mark.parametrize("name", ["RN50", "ViT-B-16-SigLIP"])
def test_other_towers_load_and_can_be_rebuilt(name: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.manual_seed(0)
    torch.save(open_clip.create_model(name, pretrained_text=False).state_dict(), path)
    encoder = clip.load_encoder(name, str(path))
    frames = indexed_frames(1, 60, 80)
    embedded = encoder.encode(encoder.preprocess(frames))
    assert embedded.shape == (1, encoder.config["embed_dim"])
    rebuilt = clip.build_encoder(encoder.config)
    rebuilt.visual.load_state_dict(encoder.visual.state_dict())
    rebuilt.visual.eval()
    assert torch.equal(rebuilt.encode(rebuilt.preprocess(frames)), embedded)
    if "SigLIP" in name:  # the model's own preprocessing, also for weights from a file
        assert encoder.config["mean"] == [0.5, 0.5, 0.5]
        assert encoder.config["resize_mode"] == "squash"


def fill_hub_cache(home: Path, state: dict[str, torch.Tensor]) -> Path:
    """Create the hub's cache with OpenAI's ViT-B/32, in the layout of huggingface_hub."""
    from safetensors.torch import save_file

    repository = home / "hub" / "models--timm--vit_base_patch32_clip_224.openai"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    save_file({k: v.contiguous() for k, v in state.items()}, snapshot / "open_clip_model.safetensors")
    return home


def test_openai_weights_are_loaded_from_the_hub_cache_offline(b32_weights: Path, tmp_path: Path) -> None:
    state = torch.load(b32_weights, weights_only=True)
    home = fill_hub_cache(tmp_path, state)
    config = {"embed_dim": 192, "vision_cfg": SMALL_MODELS["ViT-B-32"], "text_cfg": TEXT}
    (tmp_path / "ViT-B-32.json").write_text(json.dumps(config))
    code = f"""
import open_clip
from vimoclip import clip
open_clip.add_model_config({str(tmp_path / "ViT-B-32.json")!r})
assert clip.missing_download("ViT-B/32", "openai") is None
encoder = clip.load_encoder("ViT-B/32", "openai")
print(encoder.config["weights_sha256"], encoder.config["quick_gelu"], encoder.config["clip_pretrained"])
"""
    completed = preloaded.run(["-c", code], tmp_path, HF_HOME=str(home), PYTHONPATH=str(REPOSITORY))
    assert completed.returncode == 0, completed.stderr
    expected = clip.load_encoder("ViT-B/32", str(b32_weights)).config["weights_sha256"]
    assert completed.stdout.split() == [expected, "True", "openai"]


def test_unknown_torchscript_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ViT-B-32.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    with pytest.raises(UserError) as raised:
        clip.load_encoder("ViT-B/32", str(path))
    assert raised.value.path == str(path)


def test_torchscript_file_with_a_published_hash_loads(
    b32_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OpenAIArchive(torch.nn.Module):  # weights in half precision, and three numbers
        def __init__(self, model: torch.nn.Module):
            super().__init__()
            self.register_buffer("input_resolution", torch.tensor(32))
            for name, tensor in model.state_dict().items():
                parent, _, last = name.rpartition(".")
                module: torch.nn.Module = self
                for part in filter(None, parent.split(".")):
                    if not hasattr(module, part):
                        module.add_module(part, torch.nn.Module())
                    module = getattr(module, part)
                module.register_buffer(last, tensor.half() if tensor.dtype == torch.float32 else tensor)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    model = open_clip.create_model("ViT-B-32")
    model.load_state_dict(torch.load(b32_weights, weights_only=True))
    path = tmp_path / "ViT-B-32.pt"
    torch.jit.trace(OpenAIArchive(model), torch.zeros(1)).save(str(path))
    monkeypatch.setattr(pretrained, "_openai_sha256", lambda: {_file_sha256(path)})
    encoder = clip.load_encoder("ViT-B/32", str(path))
    half = model.visual.state_dict()["conv1.weight"].half().float()
    assert torch.equal(encoder.visual.state_dict()["conv1.weight"], half)


def test_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    class RunsCode:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": RunsCode()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match=r"evil\.pt"):
        clip.load_encoder("ViT-B/32", str(tmp_path / "evil.pt"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "pretrained", "words"),
    [
        ("ViT-B/33", "openai", "ViT-B/33"),
        ("ViT-B/32", "nonsense", "nonsense.*laion2b_s34b_b79k"),  # its tags are listed
        ("local-dir:/nowhere", None, "/nowhere/open_clip_config.json"),
    ],
)
def test_unknown_names_are_reported(name: str, pretrained: str | None, words: str) -> None:
    with pytest.raises(UserError, match=words) as raised:
        clip.missing_download(name, pretrained)
    assert "\n" not in str(raised.value)


def test_weights_beside_a_model_folder_are_refused(tiny_clip: str) -> None:
    with pytest.raises(UserError, match=r"--clip-pretrained another\.safetensors"):
        clip.load_encoder(tiny_clip, "another.safetensors")
