"""Flow: its colours, its direction and size, odd sizes, and what is refused."""

import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.utils import flow_to_image

import extract_flows
import inference
from tests.conftest import REPOSITORY, moving_frames, write_video
from vimoclip import flow, video
from vimoclip.errors import UserError, VideoError

CPU = torch.device("cpu")
OPENCV = ("dis", "farneback")
SIZES = [(1, 1), (2, 2), (17, 31)]


def torchvision_color(vectors: np.ndarray) -> np.ndarray:
    """(H, W, 2) of one frame -> (H, W, 3)."""
    return flow_to_image(torch.from_numpy(vectors).float().permute(2, 0, 1)).permute(1, 2, 0).numpy()


def uniform(u: float, v: float, height: int = 6, width: int = 8) -> np.ndarray:
    return np.full((1, height, width, 2), (u, v), np.float32)


def saturation(color: np.ndarray) -> int:
    return int(color.max()) - int(color.min())


def load(method: str, normalization: str = "frame") -> Any:
    return flow.load(method, None, None, normalization, 0.05, CPU)


# --- colours


def test_table_is_torchvisions_wheel_on_its_own_vectors() -> None:
    half = flow.TABLE_SIDE // 2
    axis = (np.arange(-half, half + 1) / half).astype(np.float32)
    vectors = np.stack(np.meshgrid(axis, axis), axis=-1)
    inside = np.hypot(vectors[..., 0], vectors[..., 1]) <= 1
    expected = torchvision_color(np.where(inside[..., None], vectors, 0))
    difference = np.abs(flow.color_table().astype(int) - expected)[inside]
    assert difference.max() <= 1  # where a float32 lies on the edge between two grey levels
    assert (difference > 0).mean() < 1e-4


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.floats(1e-3, 300))
def test_frame_normalisation_is_torchvisions_within_two_grey_levels(seed: int, size: float) -> None:
    vectors = (np.random.default_rng(seed).normal(size=(3, 20, 24, 2)) * size).astype(np.float32)
    colors = flow.to_color(vectors, "frame")
    for t in range(3):
        size_of = np.linalg.norm(vectors[t], axis=-1)
        u, v = np.moveaxis(vectors[t], -1, 0) / size_of.max()
        away = ~((np.abs(v) < 3 / flow.TABLE_SIDE) & (u > 0))  # torchvision's wheel has a seam there
        away &= size_of < size_of.max()  # torchvision's rounding may turn the largest one's 0 into 255
        difference = np.abs(colors[t].astype(int) - torchvision_color(vectors[t]))
        assert difference[away].max() <= 2


def test_each_frame_is_normalised_by_its_own_largest_vector() -> None:
    vectors = np.concatenate([uniform(1, 2), 50 * uniform(1, 2)])
    first, second = flow.to_color(vectors, "frame")
    assert np.array_equal(first, second)


@pytest.mark.parametrize("normalization", flow.NORMALIZATIONS)
def test_vectors_of_full_size_change_colour_steadily_with_direction(normalization: str) -> None:
    angles = np.linspace(0, 2 * np.pi, 40_000).reshape(1, 200, 200)
    vectors = (100 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)).astype(np.float32)
    colors = flow.to_color(vectors, normalization, 0.05).reshape(-1, 3).astype(int)
    assert np.abs(np.diff(colors, axis=0))[200:-200].max() < 30
    assert (colors.min(axis=1) < 5).all()
    assert (colors.max(axis=1) > 250).all()


@pytest.mark.parametrize("normalization", flow.NORMALIZATIONS)
def test_no_motion_is_white(normalization: str) -> None:
    assert (flow.to_color(uniform(0, 0), normalization) == 255).all()


@pytest.mark.parametrize("normalization", flow.NORMALIZATIONS)
def test_direction_decides_the_hue(normalization: str) -> None:
    right, left = (flow.to_color(uniform(u, 0.001), normalization, 0.05)[0, 0, 0].astype(int) for u in (1, -1))
    down, up = (flow.to_color(uniform(0, v), normalization, 0.05)[0, 0, 0].astype(int) for v in (1, -1))
    assert right.argmax() == 0  # red
    assert left.argmin() == 0  # blue-green
    assert down.argmin() == 2  # yellow
    assert up.argmin() == 1  # violet


@pytest.mark.parametrize("normalization", ["linear", "log"])
def test_speed_shows_as_saturation_and_clips_at_the_largest(normalization: str) -> None:
    diagonal = float(np.hypot(60, 80))
    shares = [0, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 20]
    colors = [flow.to_color(uniform(0, 0.05 * diagonal * s, 60, 80), normalization, 0.05) for s in shares]
    found = [saturation(color) for color in colors]
    assert found[:7] == sorted(set(found[:7]))
    assert found[6] == 255
    assert np.array_equal(colors[6], colors[7])
    assert np.array_equal(colors[6], colors[8])


def test_linear_is_proportional_and_log_lies_above_it() -> None:
    diagonal = float(np.hypot(60, 80))
    for share in (0.1, 0.2, 0.4):
        once, twice, log = (
            saturation(flow.to_color(uniform(0, 0.05 * diagonal * s, 60, 80), how, 0.05))
            for s, how in ((share, "linear"), (2 * share, "linear"), (share, "log"))
        )
        assert once == pytest.approx(255 * share, abs=2)
        assert twice == pytest.approx(2 * once, abs=3)
        knee = flow.LOG_KNEE
        assert log == pytest.approx(255 * np.log(1 + share / knee) / np.log(1 + 1 / knee), abs=2)
        assert once < log < 255


def test_flow_max_is_a_fraction_of_the_diagonal() -> None:
    small = flow.to_color(uniform(1, 2, 30, 40), "linear", 0.1)[0, 0, 0]
    assert np.array_equal(flow.to_color(uniform(2, 4, 60, 80), "linear", 0.1)[0, 0, 0], small)
    assert np.array_equal(flow.to_color(uniform(2, 4, 30, 40), "linear", 0.2)[0, 0, 0], small)


@pytest.mark.parametrize("normalization", flow.NORMALIZATIONS)
def test_colours_made_where_the_flow_is_are_the_same_but_for_rounding(normalization: str) -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 40, 50, 2)).astype(np.float32) * 3
    there = flow.device_color(torch.from_numpy(vectors).permute(0, 3, 1, 2), normalization, 0.05).numpy()
    here = flow.to_color(vectors, normalization, 0.05)
    assert (there.shape, there.dtype) == (here.shape, here.dtype)
    difference = np.abs(there.astype(int) - here)
    assert difference.max() <= 6  # a neighbouring cell of the table
    assert (difference > 0).mean() < 1e-3


# --- direction, size and time


@pytest.mark.parametrize("method", OPENCV)
@pytest.mark.parametrize("velocity", [(2, 0), (-3, 0), (0, 2), (0, -1), (3, -2), (-1, 4)])
def test_moved_picture_gives_the_vector_it_was_moved_by(method: str, velocity: tuple[int, int]) -> None:
    vectors = flow.opencv_flow(method)(moving_frames(3, velocity, 120, 160))
    assert vectors.shape == (2, 120, 160, 2)
    for pair in vectors:
        assert np.median(pair[10:-10, 10:-10].reshape(-1, 2), axis=0) == pytest.approx(velocity, abs=0.3)


@pytest.mark.parametrize("method", OPENCV)
def test_frame_t_shows_the_motion_from_t_to_t_plus_1(method: str) -> None:
    moving = moving_frames(3, (3, 0), 120, 160)
    frames = np.concatenate([moving[:1], moving[:1], moving[1:], moving[2:]])
    u = np.median(flow.opencv_flow(method)(frames)[:, 10:-10, 10:-10, 0], axis=(1, 2))
    assert u == pytest.approx([0, 3, 3, 0], abs=0.3)


@pytest.mark.parametrize("method", flow.WITHOUT_WEIGHTS)
def test_n_frames_give_n_minus_1_colour_frames_each_of_its_own_pair(method: str) -> None:
    frames, render = moving_frames(6, (2, 1)), load(method)
    colors = render(frames)
    assert (colors.shape, colors.dtype) == ((5, 48, 64, 3), np.uint8)
    for t in range(5):
        assert np.array_equal(render(frames[t : t + 2])[0], colors[t])


@pytest.mark.parametrize("method", flow.WITHOUT_WEIGHTS)
@pytest.mark.parametrize("size", SIZES)
def test_tiny_frames_work(method: str, size: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, *size, 3), dtype=np.uint8)
    colors = load(method)(frames)
    assert (colors.shape, colors.dtype) == ((3, *size, 3), np.uint8)
    still = load(method, "linear")(frames[:1].repeat(3, axis=0))
    assert (np.abs(still.astype(int) - (0 if method == "frame_diff" else 255)) < 16).all()


def test_frame_difference_is_the_absolute_difference_of_neighbouring_grey_frames() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 7, 9, 3), dtype=np.uint8)
    frames[1], frames[2] = 255, 0  # the full range, both ways
    found = flow.frame_difference(frames)
    assert (found.shape, found.dtype) == ((4, 7, 9, 3), np.uint8)
    assert np.array_equal(found[..., 0], found[..., 1])
    assert np.array_equal(found[..., 0], found[..., 2])
    grey = frames @ np.array([0.299, 0.587, 0.114])
    assert np.abs(found[..., 0] - np.abs(np.diff(grey, axis=0))).max() <= 1.01  # each grey is rounded
    assert (found[1] == 255).all()


def test_frame_difference_of_grey_frames_is_exact_in_both_directions() -> None:
    grey = np.random.default_rng(1).integers(0, 256, (4, 5, 6, 1)).astype(np.uint8)
    found = flow.frame_difference(grey.repeat(3, axis=-1))
    assert np.array_equal(found[..., :1], np.abs(np.diff(grey.astype(int), axis=0)))


# --- presets, threads, and what is written


@pytest.mark.parametrize("preset", flow.PRESETS)
def test_every_preset_finds_the_motion(preset: str) -> None:
    vectors = flow.opencv_flow("dis", preset)(moving_frames(3, (3, -2), 120, 160))
    assert np.median(vectors[:, 10:-10, 10:-10].reshape(-1, 2), axis=0) == pytest.approx((3, -2), abs=0.3)


def test_presets_differ_and_medium_is_the_default() -> None:
    frames = moving_frames(3, (3, 1), 120, 160)
    found = [flow.opencv_flow("dis", preset)(frames) for preset in flow.PRESETS]
    assert np.array_equal(flow.opencv_flow("dis")(frames), found[0])
    assert not np.array_equal(found[0], found[1])
    assert not np.array_equal(found[1], found[2])


@pytest.mark.parametrize(("method", "preset"), [("farneback", "fast"), ("frame_diff", "medium"), ("raft", "fast")])
def test_presets_of_another_method_are_refused(method: str, preset: str) -> None:
    with pytest.raises(UserError, match=rf"--dis-preset {preset}: {method} has no presets"):
        flow.load(method, None, None, "frame", 0.05, CPU, preset=preset)


def draw_clips(tmp_path: Path, name: str, *flags: str) -> list[bytes]:
    """The flow videos that a run makes of two clips."""
    if not (tmp_path / "videos").is_dir():
        for number in range(2):
            frames = moving_frames(40, (2, 1 - number), 64, 80, seed=number)
            write_video(tmp_path / "videos" / f"{number}.mp4", frames, lossless=False)
    places = ["--videos-dir", str(tmp_path / "videos"), "--output-dir", str(tmp_path / name)]
    extract_flows.main(["--model", "dis", *places, *flags])
    return [(tmp_path / name / f"{number}.mp4").read_bytes() for number in range(2)]


def test_bytes_are_those_of_a_run_that_does_one_thing_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    side_by_side = draw_clips(tmp_path, "threads")

    class AtOnce:
        def __init__(self, *_: Any) -> None: ...

        def submit(self, work: Any, *args: Any) -> Any:
            done: Future[Any] = Future()
            done.set_result(work(*args))
            return done

        def shutdown(self, **_: Any) -> None: ...

    monkeypatch.setattr("vimoclip.flow.factory.ThreadPoolExecutor", AtOnce)
    monkeypatch.setattr("vimoclip.video.writer.ThreadPoolExecutor", AtOnce)
    assert draw_clips(tmp_path, "serial", "--num-workers", "0") == side_by_side


def test_flow_of_one_preset_is_not_mixed_with_that_of_another(tmp_path: Path) -> None:
    medium = draw_clips(tmp_path, "flows")
    assert video.probe(tmp_path / "flows" / "0.mp4").comment["preset"] == "medium"  # type: ignore[index]
    with pytest.raises(UserError, match="preset is fast in this run but medium in"):
        draw_clips(tmp_path, "flows", "--dis-preset", "fast")
    assert draw_clips(tmp_path, "flows", "--dis-preset", "medium") == medium
    assert draw_clips(tmp_path, "fast", "--dis-preset", "fast") != medium


def test_flow_from_before_there_were_presets_is_mediums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = extract_flows.flow_settings
    with monkeypatch.context() as patch:
        patch.setattr(
            extract_flows, "flow_settings", lambda *a: {k: v for k, v in settings(*a).items() if k != "preset"}
        )
        before = draw_clips(tmp_path, "flows")
    assert "preset" not in (video.probe(tmp_path / "flows" / "0.mp4").comment or {})
    with pytest.raises(UserError, match="preset is fast in this run but medium in"):
        draw_clips(tmp_path, "flows", "--dis-preset", "fast")
    assert draw_clips(tmp_path, "flows") == before


@pytest.mark.parametrize("lossless", [False, True])
def test_every_segment_of_thirty_frames_begins_with_a_keyframe_and_nothing_else_does(
    lossless: bool, tmp_path: Path
) -> None:
    """Also where the picture changes altogether."""
    frames = np.concatenate([moving_frames(45, (1, 0), seed=0), moving_frames(45, (0, 1), seed=1)])
    with video.Writer(tmp_path / "a.mp4", 25, {}, lossless) as writer:
        writer.write(frames)
    with av.open(str(tmp_path / "a.mp4")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert [number for number, packet in enumerate(packets) if packet.is_keyframe] == [0, 29, 58, 87]


def test_an_error_of_the_encoder_reaches_who_writes(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="can't be encoded"), video.Writer(tmp_path / "a.mp4", 25, {}) as writer:
        writer.write(np.zeros((1, 2, 40_000, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


# --- learned models


@pytest.fixture(scope="module")
def raft() -> flow.LearnedFlow:
    """RAFT with random weights and two iterations."""
    torch.manual_seed(0)
    return flow.LearnedFlow("raft", None, 2, CPU)


@pytest.mark.parametrize("size", [(2, 2), (40, 60), (130, 141)])
def test_raft_gives_finite_flow_at_any_size(raft: flow.LearnedFlow, size: tuple[int, int]) -> None:
    vectors = raft(np.random.default_rng(0).integers(0, 256, (3, *size, 3), dtype=np.uint8))
    assert (vectors.shape, vectors.dtype) == ((2, *size, 2), np.float32)
    assert np.isfinite(vectors).all()


def test_batch_of_pairs_is_each_pair_alone(raft: flow.LearnedFlow) -> None:
    frames = moving_frames(4, (2, 1), 40, 60)
    together = raft(frames)
    for t in range(3):
        assert np.abs(raft(frames[t : t + 2])[0] - together[t]).max() < 1e-3
    assert np.abs(together[0] - together[1]).max() > 1e-3


def test_raft_sees_the_colours_of_the_frames(raft: flow.LearnedFlow) -> None:
    """ptlflow takes BGR: what its own adapter makes of the same pictures is the reference."""
    from ptlflow.utils.io_adapter import IOAdapter

    frames = moving_frames(2, (2, 1), 128, 128)
    adapter = IOAdapter(output_stride=raft.model.output_stride, input_size=(128, 128))
    inputs = adapter.prepare_inputs([frame[..., ::-1] for frame in frames])  # as cv2.imread would read them
    with torch.inference_mode():
        expected = raft.model(inputs)["flows"][0, 0].permute(1, 2, 0).numpy()
    assert np.abs(raft(frames)[0] - expected).max() < 1e-3


def test_frames_that_are_not_drawn_on_a_cpu_are_drawn_where_the_model_is(
    raft: flow.LearnedFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = moving_frames(4, (2, 1), 40, 60)

    def colors(device: str) -> np.ndarray:
        monkeypatch.setattr("vimoclip.flow.ptlflow_model.LearnedFlow", lambda *_: raft)
        monkeypatch.setattr(raft, "device", torch.device(device))
        monkeypatch.setattr(raft, "_upload", torch.from_numpy)
        return flow.load("raft", None, None, "log", 0.05, torch.device(device))(frames).astype(int)

    difference = np.abs(colors("cpu") - colors("cuda"))  # of which only the name is used
    assert difference.max() <= 6
    assert (difference > 0).mean() < 0.01


def test_upsampling_only_the_last_iteration_changes_no_flow(
    raft: flow.LearnedFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vimoclip.flow.ptlflow_model._upsample_last_only", lambda model: None)
    torch.manual_seed(0)
    plain = flow.LearnedFlow("raft", None, 2, CPU)
    frames = moving_frames(4, (2, 1), 40, 60)
    assert np.array_equal(plain(frames), raft(frames))


def test_iterations_reach_the_model(raft: flow.LearnedFlow) -> None:
    frames = moving_frames(2, (2, 1), 40, 60)
    torch.manual_seed(0)
    other = flow.LearnedFlow("raft", None, 1, CPU)
    assert np.abs(other(frames) - raft(frames)).max() > 1e-3


def test_raft_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    code = (
        "import numpy as np, torch; from vimoclip import flow\n"
        "render = flow.load('raft', None, 1, 'frame', 0.05, torch.device('cpu'))\n"
        "render(np.zeros((2, 16, 16, 3), np.uint8))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
    assert capfd.readouterr() == ("", "")


# --- what is refused, and what is not imported


@pytest.mark.parametrize("method", flow.WITHOUT_WEIGHTS)
def test_iterations_of_a_method_without_any_are_refused(method: str) -> None:
    with pytest.raises(UserError, match=rf"--iters 12: {method}"):
        flow.load(method, None, 12, "frame", 0.05, CPU)


def test_unknown_model_is_refused_with_the_list_of_models() -> None:
    for call in (lambda: load("rafft"), lambda: flow.missing_download("rafft", "things")):
        with pytest.raises(UserError) as caught:
            call()
        assert "rafft" in str(caught.value)
        assert all(f" {name}" in str(caught.value) for name in ("dis", "farneback", "frame_diff", "raft", "sea_raft"))
        assert "\n" not in str(caught.value)


def test_unknown_checkpoint_is_refused_with_the_list_of_checkpoints() -> None:
    for call in (
        lambda: flow.missing_download("raft", "thngs"),
        lambda: flow.load("raft", "thngs", None, "frame", 1, CPU),
    ):
        with pytest.raises(UserError) as caught:
            call()
        assert all(name in str(caught.value) for name in ("thngs", "raft", "chairs", "things", "sintel", "kitti"))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no checkpoint"])
def test_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "raft.ckpt"
    path.write_bytes(content)
    assert flow.missing_download("raft", str(path)) is None
    with pytest.raises(UserError) as caught:
        flow.load("raft", str(path), None, "frame", 0.05, CPU)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_checkpoint_file_is_what_the_model_then_has(tmp_path: Path, raft: flow.LearnedFlow) -> None:
    path = tmp_path / "raft.ckpt"
    torch.save({"state_dict": raft.model.state_dict(), "hyper_parameters": {}}, path)
    torch.manual_seed(1)
    loaded = flow.LearnedFlow("raft", str(path), 2, CPU)
    frames = moving_frames(2, (2, 1), 40, 60)
    assert np.abs(loaded(frames) - raft(frames)).max() < 1e-4


def test_missing_download_says_what_to_get_from_where_and_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    missing = flow.missing_download("raft", "things")
    assert missing is not None
    assert missing["url"].startswith("https://")
    assert missing["url"].endswith(".ckpt")
    assert "things" in missing["what"]
    target = Path(missing["cure"].split()[3].rstrip(","))
    assert target.is_relative_to(tmp_path)
    target.parent.mkdir(parents=True)
    target.touch()
    assert flow.missing_download("raft", "things") is None
    assert flow.missing_download("raft", None) is None
    assert flow.missing_download("dis", "things") is None


def test_ptlflow_is_imported_only_by_methods_that_need_it() -> None:
    code = (
        "import sys, numpy as np, torch; from vimoclip import flow\n"
        "assert 'ptlflow' not in sys.modules\n"
        "for method in flow.WITHOUT_WEIGHTS:\n"
        "    flow.load(method, None, None, 'frame', 0.05, torch.device('cpu'))(np.zeros((2, 48, 64, 3), np.uint8))\n"
        "    flow.missing_download(method, None)\n"
        "assert 'ptlflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


def test_flow_is_on_a_logarithmic_scale_unless_asked_otherwise(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "a.mp4", moving_frames(4, (1, 0)), lossless=False)
    for name, flags in (
        ("plain", []),
        ("asked", ["--flow-normalization", "log"]),
        ("frame", ["--flow-normalization", "frame"]),
    ):
        places = ["--videos-dir", str(tmp_path / "videos"), "--output-dir", str(tmp_path / name)]
        extract_flows.main(["--model", "dis", *places, *flags])
    plain, asked, frame = ((tmp_path / name / "a.mp4").read_bytes() for name in ("plain", "asked", "frame"))
    assert plain == asked != frame
    comment = video.probe(tmp_path / "plain" / "a.mp4").comment
    assert comment and (comment["normalization"], comment["flow_max"]) == ("log", 0.05)


@pytest.mark.parametrize(("normalization", "warns"), [("log", True), ("linear", True), ("frame", False)])
def test_a_student_that_does_not_say_its_flow_is_told_apart_from_flow_that_is_not_as_published(
    normalization: str, warns: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.mp4"
    with video.Writer(path, 25, {"method": "dis", "normalization": normalization}) as writer:
        writer.write(moving_frames(3, (1, 0)))
    inference.check_flows({"a": path}, {}, tmp_path / "published.pth")
    said = capsys.readouterr().out
    assert ("warning: " in said and f"made with {normalization}" in said) == warns
    inference.check_flows({"a": path}, {"normalization": normalization}, tmp_path / "ours.pth")
    assert not capsys.readouterr().out
