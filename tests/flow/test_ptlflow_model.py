"""Flow models of ptlflow: weights, sizes, and what is refused."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import REPOSITORY, moving_frames
from tests.flow.test_opencv import CPU, load_renderer
from vimoclip import flow
from vimoclip.errors import UserError
from vimoclip.flow import ptlflow_model, ptlflow_patches
from vimoclip.runtime import device


@pytest.mark.parametrize("name", ["sea_raft_s", "neuflow2"])
def test_other_flow_models_load_checkpoint_files(name: str, tmp_path: Path) -> None:
    """In the format that real checkpoints have, with random weights; the same ones give the same flow."""
    torch.manual_seed(0)
    model = ptlflow_model._import_ptlflow().get_model(name)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "weights.ckpt")
    frames = moving_frames(2, (1, 0), 51, 67)
    found = [flow.PTLFlowModel(name, str(tmp_path / "weights.ckpt"), None, torch.device("cpu"))(frames) for _ in "ab"]
    assert found[0].shape == (1, 51, 67, 2)
    assert np.isfinite(found[0]).all()
    assert (found[0] == found[1]).all()
    colors = flow.load_renderer(name, str(tmp_path / "weights.ckpt"), None, "log", 0.05, torch.device("cpu"))(frames)
    assert colors.shape == (1, 51, 67, 3)


# --- learned models


@pytest.fixture(scope="module")
def raft() -> flow.PTLFlowModel:
    """RAFT with random weights and two iterations."""
    torch.manual_seed(0)
    return flow.PTLFlowModel("raft", None, 2, CPU)


@pytest.mark.parametrize("size", [(2, 2), (40, 60), (130, 141)])
def test_raft_gives_finite_flow_at_any_size(raft: flow.PTLFlowModel, size: tuple[int, int]) -> None:
    vectors = raft(np.random.default_rng(0).integers(0, 256, (3, *size, 3), dtype=np.uint8))
    assert (vectors.shape, vectors.dtype) == ((2, *size, 2), np.float32)
    assert np.isfinite(vectors).all()


@pytest.mark.parametrize("name", ["raft", "raft_small"])
def test_half_weights_give_the_flow_of_autocast(name: str) -> None:
    half, frames, found = partial(device.autocast, CPU, "bf16"), moving_frames(3, (2, 1), 40, 60), []
    for cast_once in (True, False):
        torch.manual_seed(0)
        model = flow.PTLFlowModel(name, None, 2, CPU, half) if cast_once else flow.PTLFlowModel(name, None, 2, CPU)
        assert (
            {parameter.dtype for parameter in model.model.update_block.parameters()} == {torch.bfloat16}
        ) == cast_once
        model.autocast = half
        found.append(model(frames))
    assert (found[0] == found[1]).all()


def test_batch_equals_single_pairs(raft: flow.PTLFlowModel) -> None:
    frames = moving_frames(4, (2, 1), 40, 60)
    together = raft(frames)
    for t in range(3):
        assert np.abs(raft(frames[t : t + 2])[0] - together[t]).max() < 1e-3
    assert np.abs(together[0] - together[1]).max() > 1e-3


def test_raft_gets_bgr_as_ptlflows_adapter_gives_it(raft: flow.PTLFlowModel) -> None:
    """ptlflow takes BGR: what its own adapter makes of the same pictures is the reference."""
    from ptlflow.utils.io_adapter import IOAdapter

    frames = moving_frames(2, (2, 1), 128, 128)
    adapter = IOAdapter(output_stride=raft.model.output_stride, input_size=(128, 128))
    inputs = adapter.prepare_inputs([frame[..., ::-1] for frame in frames])  # as cv2.imread would read them
    with torch.inference_mode():
        expected = raft.model(inputs)["flows"][0, 0].permute(1, 2, 0).numpy()
    assert np.abs(raft(frames)[0] - expected).max() < 1e-3


def test_upsampling_only_the_last_iteration_changes_no_flow(
    raft: flow.PTLFlowModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vimoclip.flow.ptlflow_patches.upsample_last_only", lambda model: None)
    torch.manual_seed(0)
    plain = flow.PTLFlowModel("raft", None, 2, CPU)
    frames = moving_frames(4, (2, 1), 40, 60)
    assert np.array_equal(plain(frames), raft(frames))


def test_iterations_reach_the_model(raft: flow.PTLFlowModel) -> None:
    frames = moving_frames(2, (2, 1), 40, 60)
    torch.manual_seed(0)
    other = flow.PTLFlowModel("raft", None, 1, CPU)
    assert np.abs(other(frames) - raft(frames)).max() > 1e-3


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    methods, checkpoints = (
        ("dis", "farneback", "frame_diff", "raft", "sea_raft"),
        ("chairs", "things", "sintel", "kitti"),
    )
    for call, names in (
        (lambda: load_renderer("rafft"), ("rafft", *methods)),
        (lambda: flow.missing_download("rafft", "things"), ("rafft", *methods)),
        (lambda: flow.missing_download("raft", "thngs"), ("thngs", "raft", *checkpoints)),
        (lambda: flow.load_renderer("raft", "thngs", None, "frame", 1, CPU), ("thngs", "raft", *checkpoints)),
    ):
        with pytest.raises(UserError) as caught:
            call()
        assert all(name in str(caught.value) for name in names) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no checkpoint"])
def test_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "raft.ckpt"
    path.write_bytes(content)
    assert flow.missing_download("raft", str(path)) is None
    with pytest.raises(UserError) as caught:
        flow.load_renderer("raft", str(path), None, "frame", 0.05, CPU)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_download_gives_url_and_target_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    missing = flow.missing_download("raft", "things")
    assert missing is not None
    assert missing["url"].startswith("https://")
    assert missing["url"].endswith(".ckpt")
    assert "things" in missing["name"]
    target = Path(missing["hint"].split()[3].rstrip(","))
    assert target.is_relative_to(tmp_path)
    target.parent.mkdir(parents=True)
    target.touch()
    assert flow.missing_download("raft", "things") is None
    assert flow.missing_download("raft", None) is None
    assert flow.missing_download("dis", "things") is None


def test_ptlflow_is_imported_only_if_needed_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys, numpy as np, torch; from vimoclip import flow\n"
        "for method in (*flow.METHODS_WITHOUT_WEIGHTS, 'raft'):\n"
        "    assert 'ptlflow' not in sys.modules\n"
        "    iters = 1 if method == 'raft' else None\n"
        "    render = flow.load_renderer(method, None, iters, 'frame', 0.05, torch.device('cpu'))\n"
        "    render(np.zeros((2, 16, 16, 3), np.uint8))\n"
        "    flow.missing_download(method, None)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
    assert capfd.readouterr() == ("", "")


# --- half precision, memory


@pytest.mark.parametrize(("precision", "limit"), [("bf16", 0.02), ("fp16", 0.004)])
def test_half_precision_gives_nearly_the_same_flow(precision: str, limit: float) -> None:
    """Mean end-point error relative to the mean length of the flow, RAFT with random weights and 12 iterations."""
    torch.manual_seed(0)
    frames = moving_frames(2, (3, 1), 128, 160)
    exact, rounded = (
        flow.PTLFlowModel("raft", None, 12, CPU, partial(device.autocast, CPU, name))(frames)
        for name in ("fp32", precision)
        if torch.manual_seed(0)
    )
    error = np.linalg.norm(rounded - exact, axis=-1).mean() / np.linalg.norm(exact, axis=-1).mean()
    assert 0 < error < limit


@pytest.mark.parametrize("name", ["raft", "gma", "sea_raft_s"])
def test_the_correlation_is_float32_in_half_precision(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sampled: set[tuple[torch.dtype, torch.dtype]] = set()
    grid_sampler = torch.grid_sampler

    def record(images: torch.Tensor, grid: torch.Tensor, *args: Any) -> torch.Tensor:
        if len(images) >= 128 // 8 * 128 // 8:  # one image per pixel of the feature map: a correlation
            sampled.add((images.dtype, grid.dtype))
        return grid_sampler(images, grid, *args)

    monkeypatch.setattr(torch, "grid_sampler", record)
    model = flow.PTLFlowModel(name, None, 1, CPU, partial(device.autocast, CPU, "bf16"))
    model(moving_frames(2, (2, 1), 128, 128))
    assert sampled == {(torch.float32, torch.float32)}


def test_grid_sample_of_more_samples_than_cudnn_takes_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    ptlflow_model._import_ptlflow()
    batches: list[int] = []
    grid_sampler = torch.grid_sampler

    def record(images: torch.Tensor, *args: Any) -> torch.Tensor:
        batches.append(len(images))
        return grid_sampler(images, *args)

    monkeypatch.setattr(torch, "grid_sampler", record)
    generator = torch.Generator().manual_seed(0)
    images, grid = torch.rand(140_000, 1, 2, 2, generator=generator), torch.rand(140_000, 3, 1, 2, generator=generator)
    found = torch.nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=True)
    assert len(batches) == 3 and max(batches) < 65_536
    assert torch.equal(found, grid_sampler(images, grid, 0, 1, True))


def test_iterations_of_a_model_with_several_numbers_are_refused() -> None:
    with pytest.raises(UserError, match="ccmr"):
        flow.PTLFlowModel("ccmr", None, 3, CPU)


def test_a_model_that_fails_in_half_precision_names_the_precision_to_use() -> None:
    """As craft, which mixes number formats."""
    model = flow.PTLFlowModel("raft_small", None, 1, CPU, partial(device.autocast, CPU, "bf16"))
    values, index = torch.zeros(2), torch.tensor([0])
    model.model.forward = lambda inputs: values.index_put_((index,), torch.zeros(1, dtype=torch.bfloat16))
    with pytest.raises(UserError, match="fp32"):
        model(moving_frames(2, (2, 1), 40, 60))


# --- what is computed otherwise on a GPU


@pytest.mark.parametrize("name", ["raft", "raft_small"])
def test_flow_in_half_precision_is_not_changed_by_casting_it_early(name: str) -> None:
    """And the convolutions' inputs are no longer concatenated in float32."""
    frames = moving_frames(2, (2, 1), 128, 136)
    torch.manual_seed(0)
    model = flow.PTLFlowModel(name, None, 3, CPU, partial(device.autocast, CPU, "bf16"))
    inputs: set[torch.dtype] = set()
    convolution = next(module for module in model.model.update_block.gru.modules() if isinstance(module, nn.Conv2d))
    convolution.register_forward_pre_hook(lambda module, args: inputs.add(args[0].dtype))
    vectors = model(frames)
    assert inputs == {torch.bfloat16}
    model.model.update_block._forward_pre_hooks.clear()
    assert np.array_equal(vectors, model(frames))
    assert inputs == {torch.bfloat16, torch.float32}


@pytest.mark.parametrize("radius", [3, 4])
def test_the_lookup_of_a_gpu_samples_the_same_correlation(radius: int) -> None:
    block = _correlation_block(radius)
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(20.0), indexing="ij")
    moved = torch.stack([columns, rows]) + 4 * torch.randn(2, 2, 16, 20)  # some beyond the borders
    expected, found = block(moved), ptlflow_patches.look_up_on_gpu(block, moved)
    assert (found.shape, found.dtype, found.is_contiguous()) == (expected.shape, expected.dtype, True)
    assert expected.abs().max() > 1
    assert torch.allclose(found, expected, atol=1e-4)


def _correlation_block(radius: int) -> Any:
    ptlflow_model._import_ptlflow()
    from ptlflow.models.raft.corr import CorrBlock

    torch.manual_seed(0)
    return CorrBlock(torch.randn(2, 64, 16, 20), torch.randn(2, 64, 16, 20), radius=radius)
