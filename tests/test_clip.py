"""The image encoder: preprocessing, weights from every source, fixed batches."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from tests.conftest import REPOSITORY, SHARED, indexed_frames, moving_frames
from vimoclip import clip, video
from vimoclip.clip import preprocess, pretrained
from vimoclip.clip.pretrained import _file_sha256
from vimoclip.errors import UserError


def config_for(size: int, resize: str, resize_mode: str = "shortest", interpolation: str = "bicubic") -> dict:
    return {
        "image_size": [size, size],
        "resize": resize,
        "resize_mode": resize_mode,
        "interpolation": interpolation,
        "fill_color": 0,
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
    }


def real_frames() -> list[np.ndarray]:
    names = ["labelled/running.gif", "labelled/G0068-Run.gif", "labelled/ZG0217-Trot.gif", "awkward/av1_video.mkv"]
    names += ["awkward/nasa_13013_rotated.mp4", "awkward/testsrc2_odd_height_and_width_vp9.mp4"]
    paths = [SHARED / "clips" / name for name in names]
    if not paths[0].exists():
        return [moving_frames(2, (3, 1), 240, 320), moving_frames(2, (1, 2), 360, 640)]
    first = (next(iter(video.read(path, 4))) for path in paths)
    return [frames for frames in first if isinstance(frames, np.ndarray)]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
def test_preprocessing_is_within_one_grey_level_of_the_models_own_pil_transform(mode: str, interpolation: str) -> None:
    size = 224
    reference = image_transform_v2(
        PreprocessCfg(size=size, mean=(0, 0, 0), std=(1, 1, 1), interpolation=interpolation, resize_mode=mode), False
    )
    prepare = clip.Preprocess(config_for(size, "model", mode, interpolation))
    for frames in real_frames():
        ours = prepare(frames).int()
        theirs = torch.stack([reference(Image.fromarray(frame)) for frame in frames]).mul(255).round().int()
        difference = (ours - theirs).abs()
        assert ours.shape == theirs.shape
        assert difference.max() <= 1
        assert difference.float().mean() < 0.02


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(st.integers(1, 300), st.integers(1, 1200)),
    st.booleans(),
    st.sampled_from(["bicubic", "bilinear"]),
    st.integers(0, 2**32 - 1),
)
def test_far_longer_frames_are_cropped_first_with_the_same_pixels(
    size: tuple[int, int], tall: bool, interpolation: str, seed: int
) -> None:
    """What is cropped away isn't made: of 8000x16 pixels it would be 112000x224."""
    rng = np.random.default_rng(seed)
    # no overshoot of the bicubic filter is cut off: where it is, it shows which side PIL scales first
    frames = rng.integers(64, 192, (1, *size[:: -1 if tall else 1], 3), dtype=np.uint8)
    prepare = clip.Preprocess(config_for(64, "model", "shortest", interpolation))
    ours = prepare(frames).int()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preprocess, "FAR_LONGER", 10**9)
        assert (ours - prepare(frames).int()).abs().max() <= 1


@pytest.mark.parametrize(("resize", "mode"), [("center-crop", "shortest"), ("squash", "squash"), ("pad", "longest")])
def test_each_resize_is_one_of_open_clips_modes_whatever_the_models_own(resize: str, mode: str) -> None:
    frames = indexed_frames(2, 60, 90)
    other = "squash" if mode != "squash" else "shortest"
    ours = clip.Preprocess(config_for(32, resize, other))(frames)
    assert torch.equal(ours, clip.Preprocess(config_for(32, "model", mode))(frames))
    assert not torch.equal(ours, clip.Preprocess(config_for(32, "model", other))(frames))


def test_normalising_equals_the_models_own_transform(tiny_clip: str) -> None:
    encoder = clip.load(tiny_clip, None)
    frames = moving_frames(3, (1, 1), 32, 32)  # the model's own size: nothing to resize
    own = image_transform_v2(PreprocessCfg(size=32, mean=(0.48, 0.45, 0.4), std=(0.27, 0.26, 0.27)), False)
    ours = encoder.preprocess.normalize(encoder.preprocess(frames))
    assert torch.allclose(ours, torch.stack([own(Image.fromarray(frame)) for frame in frames]), atol=1e-6)


def test_a_row_does_not_depend_on_what_shares_its_batch_to_the_bit(tiny_clip: str) -> None:
    encoder = clip.load(tiny_clip, None)
    generator = torch.Generator().manual_seed(0)
    videos = [torch.randint(0, 256, (n, 3, 32, 32), generator=generator, dtype=torch.uint8) for n in (5, 1, 19, 8, 2)]

    def rows(order: list[int], pieces: int) -> dict[int, torch.Tensor]:
        items = [(i, piece) for i in order for piece in videos[i].split(pieces)]
        found: dict[int, list[torch.Tensor]] = {}
        for i, embedded in clip.encode_stream(items, encoder.encode, 8):
            found.setdefault(i, []).append(embedded)
        return {i: torch.cat(parts) for i, parts in found.items()}

    together = rows([0, 1, 2, 3, 4], 32)
    otherwise = rows([3, 4, 2, 0], 3) | rows([1], 1)
    for i in range(len(videos)):
        assert len(together[i]) == len(videos[i])
        assert torch.equal(together[i], otherwise[i])


def test_encode_stream_keeps_the_order_of_frames_and_of_what_is_no_frame() -> None:
    def encode(batch: torch.Tensor) -> torch.Tensor:
        assert len(batch) == 4  # every batch is full, the last one too
        return batch.flatten(1).float()

    def frames(*values: int) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.uint8).view(-1, 1)

    items: list = [("a", frames(1, 2, 3)), ("a", "end"), ("b", "broken"), ("c", frames(4, 5)), ("c", "end")]
    seen: list[tuple[str, object]] = []
    for tag, item in clip.encode_stream(items, encode, 4):
        seen += [(tag, item)] if isinstance(item, str) else [(tag, int(v)) for v in item]
    assert seen == [
        *[("a", 1), ("a", 2), ("a", 3), ("a", "end"), ("b", "broken")],
        *[("c", 4), ("c", 5), ("c", "end")],
    ]


def random_weights(path: Path, name: str = "ViT-B-32") -> Path:
    torch.manual_seed(1)
    torch.save(open_clip.create_model(name).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def b32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_weights(tmp_path_factory.mktemp("weights") / "b32.pt")


def test_openai_spelling_means_quick_gelu_with_weights_from_a_file_and_rebuilding_keeps_it(b32: Path) -> None:
    openai, plain = clip.load("ViT-B/32", str(b32)), clip.load("ViT-B-32", str(b32))
    assert openai.config["quick_gelu"]
    assert not plain.config["quick_gelu"]
    assert openai.config["clip_model"] == plain.config["clip_model"] == "ViT-B/32"
    assert openai.config["weights_sha256"] == plain.config["weights_sha256"]
    assert openai.config["clip_pretrained"] == "b32.pt"  # no path in what is stored
    prepared = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    assert not torch.allclose(openai.encode(prepared), plain.encode(prepared), atol=1e-3)
    for encoder in (openai, plain):
        rebuilt = clip.build(encoder.config)
        rebuilt.visual.load_state_dict(encoder.visual.state_dict())
        rebuilt.visual.eval()
        assert torch.equal(rebuilt.encode(prepared), encoder.encode(prepared))


@pytest.mark.parametrize("name", ["RN50", "ViT-B-16-SigLIP"])
def test_other_towers_load_and_can_be_rebuilt(name: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.manual_seed(0)
    torch.save(open_clip.create_model(name, pretrained_text=False).state_dict(), path)
    encoder = clip.load(name, str(path))
    frames = indexed_frames(1, 60, 80)
    embedded = encoder.encode(encoder.preprocess(frames))
    assert embedded.shape == (1, encoder.config["embed_dim"])
    rebuilt = clip.build(encoder.config)
    rebuilt.visual.load_state_dict(encoder.visual.state_dict())
    rebuilt.visual.eval()
    assert torch.equal(rebuilt.encode(rebuilt.preprocess(frames)), embedded)
    if "SigLIP" in name:  # its own preprocessing, although the weights are a plain file
        assert encoder.config["mean"] == [0.5, 0.5, 0.5]
        assert encoder.config["resize_mode"] == "squash"


def fill_hub_cache(home: Path, state: dict[str, torch.Tensor]) -> Path:
    """The hub's cache as its client leaves it, with OpenAI's ViT-B/32 in it."""
    from safetensors.torch import save_file

    repository = home / "hub" / "models--timm--vit_base_patch32_clip_224.openai"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    save_file({k: v.contiguous() for k, v in state.items()}, snapshot / "open_clip_model.safetensors")
    return home


def in_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh Python, as caches' places are read when the hub's client is imported."""
    import os

    env = os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)


def test_openais_weights_are_taken_from_the_hubs_cache_without_a_network(b32: Path, tmp_path: Path) -> None:
    state = torch.load(b32, weights_only=True)
    home = fill_hub_cache(tmp_path, state)
    code = """
from vimoclip import clip
assert clip.missing_download("ViT-B/32", "openai") is None
encoder = clip.load("ViT-B/32", "openai")
print(encoder.config["weights_sha256"], encoder.config["quick_gelu"], encoder.config["clip_pretrained"])
"""
    done = in_process(code, HF_HOME=str(home))
    assert done.returncode == 0, done.stderr
    expected = clip.load("ViT-B/32", str(b32)).config["weights_sha256"]
    assert done.stdout.split() == [expected, "True", "openai"]


def test_a_torchscript_file_that_openai_did_not_publish_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ViT-B-32.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    with pytest.raises(UserError, match=r"ViT-B-32.pt: is a TorchScript file, which holds code"):
        clip.load("ViT-B/32", str(path))


def test_a_torchscript_file_with_a_hash_that_openai_publishes_loads(
    b32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Holder(torch.nn.Module):  # OpenAI's archive has the weights in half precision and three numbers beside them
        def __init__(self, model: torch.nn.Module):
            super().__init__()
            self.register_buffer("input_resolution", torch.tensor(224))
            for name, tensor in model.state_dict().items():
                place, _, last = name.rpartition(".")
                module: torch.nn.Module = self
                for part in filter(None, place.split(".")):
                    if not hasattr(module, part):
                        module.add_module(part, torch.nn.Module())
                    module = getattr(module, part)
                module.register_buffer(last, tensor.half() if tensor.dtype == torch.float32 else tensor)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    model = open_clip.create_model("ViT-B-32")
    model.load_state_dict(torch.load(b32, weights_only=True))
    path = tmp_path / "ViT-B-32.pt"
    torch.jit.trace(Holder(model), torch.zeros(1)).save(str(path))
    monkeypatch.setattr(pretrained, "_openai_sha256", lambda: {_file_sha256(path)})
    encoder = clip.load("ViT-B/32", str(path))
    half = model.visual.state_dict()["conv1.weight"].half().float()
    assert torch.equal(encoder.visual.state_dict()["conv1.weight"], half)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match="can't be loaded"):
        clip.load("ViT-B/32", str(tmp_path / "evil.pt"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("ViT-B/33", "openai", "has no such model"),
        ("ViT-B/32", "nonsense", "neither a file nor a tag"),
        ("local-dir:/nowhere", None, "there is no such file"),
    ],
)
def test_wrong_names_are_said_with_the_cure(name: str, pretrained: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        clip.missing_download(name, pretrained)
    assert "\n" not in str(raised.value)


def test_a_folder_holds_its_own_weights(tiny_clip: str) -> None:
    with pytest.raises(UserError, match="holds its own weights"):
        clip.load(tiny_clip, "another.safetensors")
