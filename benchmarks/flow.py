"""Optical flow: `extract_flows.py` from H.264 to H.264, against Farneback or RAFT on single pairs at full size."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from io import StringIO
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import av
import cv2
import numpy as np
import torch
from torchvision.utils import flow_to_image

import extract_flows
from benchmarks.harness import BenchmarkRow, make_row, measure_peak_memory, measure_rates
from benchmarks.inputs import BenchmarkInputs, read_whole_video
from vimoclip import flow, video

CLIPS, SIZE = 4, 224
RAFT_PAIRS, PLAIN_RAFT_PAIRS = 8, 1  # the plain implementation takes 5 s a pair
GOALS = {"medium": "8x, under 0.2 px", "fast": "15x, under 0.4 px", "ultrafast": "15x, under 0.4 px"}
PairFlow = Callable[[np.ndarray, np.ndarray], np.ndarray]


def run(inputs: BenchmarkInputs, rounds: int) -> list[BenchmarkRow]:
    clips = inputs.clips()[:CLIPS]
    with tempfile.TemporaryDirectory() as folder:
        return [*dis_rows(clips, Path(folder), rounds), *raft_rows(clips[0], Path(folder), rounds)]


# --- DIS


def dis_rows(clips: Sequence[Path], folder: Path, rounds: int) -> list[BenchmarkRow]:
    videos, frames = folder / "videos", read_frames(clips[0], SIZE, 65)
    videos.mkdir()
    for clip in clips:
        (videos / clip.name).symlink_to(clip.absolute())
    work: dict[str, Callable[[], float]] = {"plain": lambda: plain_farneback(clips[0], folder / "plain.mp4")}
    for preset in flow.DIS_PRESETS:
        work[preset] = lambda preset=preset: run_extract_flows(videos, folder / preset, preset)  # type: ignore[misc]
        work[f"{preset} alone"] = lambda preset=preset: compute_dis(frames, preset)  # type: ignore[misc]
    work["decoder"] = lambda: decode_frames(clips[0])
    rates = measure_rates(work, rounds)
    memory = (
        measure_peak_memory(plain_farneback, clips[0], folder / "plain.mp4"),
        measure_peak_memory(run_extract_flows, videos, folder / "memory"),
    )
    return [
        make_row(
            "flow",
            f"extract_flows.py --model dis --size {SIZE} --dis-preset {preset}",
            "pair",
            {"plain": rates["plain"], "ours": rates[preset]},
            bound=pair_rate_bound(rates["decoder"], rates[f"{preset} alone"]),
            bound_name="decoder and OpenCV's DIS alone, all cores",
            memory=memory,
            goal=GOALS[preset],
            note=f"{end_point_error(clips, preset):.2f} px of 640x360 from DIS medium at full size",
        )
        for preset in flow.DIS_PRESETS
    ]


def plain_farneback(clip: Path, output: Path) -> float:
    """Read the whole video; compute, colour and encode frame by frame. Return the number of pairs."""
    cv2.setNumThreads(torch.get_num_threads())

    def compute(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        grey = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, second))
        return cv2.calcOpticalFlowFarneback(*grey, None, 0.5, 3, 15, 3, 5, 1.2, 0)  # type: ignore[call-overload]

    try:
        return write_plain_flow_video(read_whole_video(clip), compute, output)
    finally:
        cv2.setNumThreads(1)  # as set by vimoclip.flow.opencv


def write_plain_flow_video(frames: Sequence[np.ndarray] | np.ndarray, compute: PairFlow, output: Path) -> float:
    with av.open(str(output), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        (stream.height, stream.width), stream.pix_fmt = frames[0].shape[:2], "yuv420p"
        for first, second in pairwise(frames):
            vectors = torch.from_numpy(compute(first, second)).permute(2, 0, 1)
            image = flow_to_image(vectors).permute(1, 2, 0).contiguous().numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return len(frames) - 1


def run_extract_flows(videos: Path, output: Path, preset: str = "medium") -> float:
    """Run the script; return the number of pairs."""
    command = ["--model", "dis", "--size", str(SIZE), "--dis-preset", preset, "--overwrite"]
    with redirect_stdout(StringIO()):
        extract_flows.main([*command, "--videos-dir", str(videos), "--output-dir", str(output)])
    return sum(video.probe(path).frames for path in output.glob("*.mp4"))


def decode_frames(clip: Path) -> float:
    """Decode with one thread; return the number of frames."""
    with av.open(str(clip)) as container:
        container.streams.video[0].thread_count = 1
        return sum(1 for _ in container.decode(video=0))


def compute_dis(frames: np.ndarray, preset: str) -> float:
    """Compute DIS with one thread; return the number of pairs."""
    return len(flow.opencv_flow("dis", preset)(frames))


def pair_rate_bound(decoder_rates: Sequence[float], dis_rates: Sequence[float]) -> float:
    """Return the pairs/s of all cores if only decoding and DIS took time; both rates are of one core."""
    return torch.get_num_threads() / (1 / median(decoder_rates) + 1 / median(dis_rates))


def read_frames(clip: Path, size: int | None, count: int) -> np.ndarray:
    return next(iter(video.VideoReader(clip, count, shorter_sides=(size,)))).frames


def end_point_error(clips: Sequence[Path], preset: str) -> float:
    """Return the mean end-point error of upscaled flow at SIZE against DIS medium at full size, in full-size pixels."""
    errors = []
    for clip in clips:
        full = flow.opencv_flow("dis")(read_frames(clip, None, 17))
        small = flow.opencv_flow("dis", preset)(read_frames(clip, SIZE, 17))
        height, width = full.shape[1:3]
        scale = np.array([width / small.shape[2], height / small.shape[1]], np.float32)
        for ours, reference in zip(small, full, strict=True):
            difference = cv2.resize(ours, (width, height)) * scale - reference
            errors.append(float(np.linalg.norm(difference, axis=-1).mean()))
    return float(np.mean(errors))


# --- RAFT


def raft_rows(clip: Path, folder: Path, rounds: int) -> list[BenchmarkRow]:
    torch.manual_seed(0)
    cpu = torch.device("cpu")
    full, small = read_frames(clip, None, PLAIN_RAFT_PAIRS + 1), read_frames(clip, SIZE, RAFT_PAIRS + 1)
    render = flow.load_renderer("raft", None, 12, "log", 0.05, cpu)
    raft_32, raft_12 = plain_raft(32), plain_raft(12)
    work: dict[str, Callable[[], float]] = {
        "plain": lambda: write_plain_flow_video(full, raft_32, folder / "plain.mp4"),
        "plain, same size": lambda: write_plain_flow_video(small, raft_12, folder / "plain.mp4"),
        "ours": lambda: write_flow_video(render(small), folder / "ours.mp4"),
    }
    rates = measure_rates(work, rounds)
    what, against = f"--model raft --size {SIZE} --iters 12, random weights", "against one pair at a time"
    return [
        make_row("flow", f"{what}, {against} at 640x360, 32 iterations", "pair", rates, goal="5x"),
        make_row(
            "flow",
            f"{what}, {against} at the same size and iterations",
            "pair",
            {"plain": rates["plain, same size"], "ours": rates["ours"]},
            goal="1x",
        ),
    ]


def plain_raft(iters: int) -> PairFlow:
    """Return a function that computes ptlflow's RAFT on one pair, as in its examples."""
    import ptlflow
    from ptlflow.utils.io_adapter import IOAdapter

    torch.manual_seed(0)  # the same weights in each model
    with redirect_stdout(StringIO()):
        model = ptlflow.get_model("raft").eval()
    model.iters = iters

    def compute(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        adapter = IOAdapter(output_stride=model.output_stride, input_size=first.shape[:2])
        inputs = adapter.prepare_inputs([first[..., ::-1], second[..., ::-1]])
        with torch.inference_mode():
            return model(inputs)["flows"][0, 0].permute(1, 2, 0).numpy()

    return compute


def write_flow_video(colors: np.ndarray, output: Path) -> float:
    with video.VideoWriter(output, 25, {}) as writer:
        writer.write(colors)
    return len(colors)
