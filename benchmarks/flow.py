"""Flow: `extract_flows.py` from H.264 to H.264, against Farneback or RAFT at full size, a pair at a time."""

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
from benchmarks.harness import Row, in_turn, peak_memory, row
from benchmarks.inputs import Inputs
from vimoclip import flow, video

CLIPS, SIZE = 4, 224
RAFT_PAIRS, PLAIN_RAFT_PAIRS = 8, 1  # the plain one takes 5 s a pair
GOALS = {"medium": "8x, under 0.2 px", "fast": "15x, under 0.4 px", "ultrafast": "15x, under 0.4 px"}
PairFlow = Callable[[np.ndarray, np.ndarray], np.ndarray]


def run(inputs: Inputs, rounds: int) -> list[Row]:
    clips = inputs.clips()[:CLIPS]
    with tempfile.TemporaryDirectory() as folder:
        return [*dis_rows(clips, Path(folder), rounds), color_row(clips[0], rounds), *raft_rows(clips[0], rounds)]


# --- DIS, from video to video


def dis_rows(clips: Sequence[Path], folder: Path, rounds: int) -> list[Row]:
    videos, frames = folder / "videos", some_frames(clips[0], SIZE, 65)
    videos.mkdir()
    for clip in clips:
        (videos / clip.name).symlink_to(clip.absolute())
    work: dict[str, Callable[[], float]] = {"plain": lambda: plain_farneback(clips[0], folder / "plain.mp4")}
    for preset in flow.PRESETS:
        work[preset] = lambda preset=preset: extracted(videos, folder / preset, preset)  # type: ignore[misc]
        work[f"{preset} alone"] = lambda preset=preset: flow_alone(frames, preset)  # type: ignore[misc]
    work["decoder"] = lambda: decoder_alone(clips[0])
    rates = in_turn(work, rounds)
    memory = peak_memory(plain_farneback, clips[0], folder / "plain.mp4"), peak_memory(extracted, videos, folder / "m")
    return [
        row(
            "flow",
            f"extract_flows.py --model dis --size {SIZE} --dis-preset {preset}",
            "pair",
            {"plain": rates["plain"], "ours": rates[preset]},
            bound=bound_of(rates["decoder"], rates[f"{preset} alone"]),
            bound_name="decoder and OpenCV's DIS alone, all cores",
            memory=memory,
            goal=GOALS[preset],
            note=f"{end_point_error(clips, preset):.2f} px of 640x360 from DIS medium at full size",
        )
        for preset in flow.PRESETS
    ]


def plain_farneback(clip: Path, output: Path) -> float:
    """The whole video in memory; flow, colours and encoding frame by frame. Pairs done."""
    cv2.setNumThreads(torch.get_num_threads())

    def between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        grey = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, second))
        return cv2.calcOpticalFlowFarneback(*grey, None, 0.5, 3, 15, 3, 5, 1.2, 0)  # type: ignore[call-overload]

    try:
        return drawn_plainly(whole_video(clip), between, output)
    finally:
        cv2.setNumThreads(1)  # what flow.load asks for


def whole_video(clip: Path) -> list[np.ndarray]:
    with av.open(str(clip)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def drawn_plainly(frames: Sequence[np.ndarray] | np.ndarray, between: PairFlow, output: Path) -> float:
    with av.open(str(output), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        (stream.height, stream.width), stream.pix_fmt = frames[0].shape[:2], "yuv420p"
        for first, second in pairwise(frames):
            vectors = torch.from_numpy(between(first, second)).permute(2, 0, 1)
            image = flow_to_image(vectors).permute(1, 2, 0).contiguous().numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return len(frames) - 1


def extracted(videos: Path, output: Path, preset: str = "medium") -> float:
    """Pairs that the script itself has done."""
    command = ["--model", "dis", "--size", str(SIZE), "--dis-preset", preset, "--overwrite"]
    with redirect_stdout(StringIO()):
        extract_flows.main([*command, "--videos-dir", str(videos), "--output-dir", str(output)])
    return sum(video.probe(path).frames for path in output.glob("*.mp4"))


def decoder_alone(clip: Path) -> float:
    """Frames of 640x360 decoded by one thread, and thrown away."""
    with av.open(str(clip)) as container:
        container.streams.video[0].thread_count = 1
        return sum(1 for _ in container.decode(video=0))


def flow_alone(frames: np.ndarray, preset: str) -> float:
    """Pairs of DIS by one thread."""
    return len(flow.opencv_flow("dis", preset)(frames))


def bound_of(decoder: Sequence[float], alone: Sequence[float]) -> float:
    """Pairs/s if there were nothing but these two, which were measured on one core each."""
    return torch.get_num_threads() / (1 / median(decoder) + 1 / median(alone))


def some_frames(clip: Path, size: int | None, count: int) -> np.ndarray:
    frames = next(video.read(clip, count, shorter_side=size))
    assert isinstance(frames, np.ndarray)
    return frames


def end_point_error(clips: Sequence[Path], preset: str) -> float:
    """Mean distance of flow at SIZE, enlarged, from DIS medium at full size, in pixels of the full size."""
    errors = []
    for clip in clips:
        full = flow.opencv_flow("dis")(some_frames(clip, None, 17))
        small = flow.opencv_flow("dis", preset)(some_frames(clip, SIZE, 17))
        height, width = full.shape[1:3]
        enlarge = np.array([width / small.shape[2], height / small.shape[1]], np.float32)
        for ours, theirs in zip(small, full, strict=True):
            away = cv2.resize(ours, (width, height)) * enlarge - theirs
            errors.append(float(np.linalg.norm(away, axis=-1).mean()))
    return float(np.mean(errors))


# --- colours


def color_row(clip: Path, rounds: int) -> Row:
    vectors = flow.opencv_flow("dis")(some_frames(clip, SIZE, 65))

    def plain() -> float:
        for one in vectors:
            flow_to_image(torch.from_numpy(one).permute(2, 0, 1))
        return len(vectors)

    rates = in_turn({"plain": plain, "ours": lambda: len(flow.to_color(vectors, "log"))}, rounds)
    return row("flow", f"colours at {SIZE}, one thread, against flow_to_image", "frame", rates)


# --- RAFT


def raft_rows(clip: Path, rounds: int) -> list[Row]:
    torch.manual_seed(0)
    cpu = torch.device("cpu")
    full, small = some_frames(clip, None, PLAIN_RAFT_PAIRS + 1), some_frames(clip, SIZE, RAFT_PAIRS + 1)
    render = flow.load("raft", None, 12, "log", 0.05, cpu)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "plain.mp4"
        published, equal = plain_raft(32), plain_raft(12)
        work: dict[str, Callable[[], float]] = {
            "plain": lambda: drawn_plainly(full, published, output),
            "equal": lambda: drawn_plainly(small, equal, output),
            "ours": lambda: written(render(small), Path(folder) / "ours.mp4"),
        }
        rates = in_turn(work, rounds)
    what, against = f"--model raft --size {SIZE} --iters 12, random weights", "against one pair at a time"
    return [
        row("flow", f"{what}, {against} at 640x360, 32 iterations", "pair", rates, goal="5x"),
        row(
            "flow",
            f"{what}, {against} at the same size and iterations",
            "pair",
            {"plain": rates["equal"], "ours": rates["ours"]},
            goal="1x",
        ),
    ]


def plain_raft(iters: int) -> PairFlow:
    """ptlflow's RAFT on one pair, as its own examples call it."""
    import ptlflow
    from ptlflow.utils.io_adapter import IOAdapter

    torch.manual_seed(0)  # the same weights for all
    with redirect_stdout(StringIO()):
        model = ptlflow.get_model("raft").eval()
    model.iters = iters

    def between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        adapter = IOAdapter(output_stride=model.output_stride, input_size=first.shape[:2])
        inputs = adapter.prepare_inputs([first[..., ::-1], second[..., ::-1]])
        with torch.inference_mode():
            return model(inputs)["flows"][0, 0].permute(1, 2, 0).numpy()

    return between


def written(colors: np.ndarray, output: Path) -> float:
    with video.Writer(output, 25, {}) as writer:
        writer.write(colors)
    return len(colors)
