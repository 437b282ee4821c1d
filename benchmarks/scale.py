"""Animal Kingdom's size: start-up, an epoch's data, and the extraction's bookkeeping, at 300, 3,000 and 30,100 videos.

    SCALE_VIDEOS=300,3000,30100 python -m benchmarks scale
The largest makes 10 GB in the folder of inputs, removed at the end, and takes 5 minutes; without the variable it is
left out. Each measurement is taken in a process of its own, and its memory is what it takes beyond its imports."""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import inputs as made
from benchmarks.harness import Row, peak_memory
from benchmarks.inputs import Inputs

DEFAULT = "300,3000"
FRAMES = 166  # of a video: 5 million of 30,100
BATCH, WORKERS = 8, 0
NAMES = ("ak_train_clip_embeddings.h5", "ak_val_clip_embeddings.h5", "flow_embeddings.h5")


def run(inputs: Inputs, rounds: int) -> list[Row]:
    rows: list[Row] = []
    inputs.folder.mkdir(parents=True, exist_ok=True)
    for videos in map(int, os.environ.get("SCALE_VIDEOS", DEFAULT).split(",")):
        with tempfile.TemporaryDirectory(dir=inputs.folder) as folder:
            rows += data_rows(Path(folder), videos, rounds)
            rows += bookkeeping_rows(Path(folder), videos)
    return rows


@dataclass
class Cost:
    """Seconds by the clock and of processors (which others who use the machine change less), bytes of memory."""

    seconds: float
    processors: float
    memory: int | None = None


def cost_row(what: str, unit: str, units: float, costs: Sequence[Cost], goal: str) -> Row:
    seconds, processors = median(cost.seconds for cost in costs), median(cost.processors for cost in costs)
    note, memory = f"{seconds:.2f} s, of processors {processors:.2f} s", costs[-1].memory
    return Row("scale", what, unit, ours=units / seconds, memory_ours=memory, goal=goal, note=note)


# --- the data side of TFAM


def data_rows(folder: Path, videos: int, rounds: int) -> list[Row]:
    frames = write_files(folder, lengths(videos))
    first = alone(start_up, folder)
    later = [alone(start_up, folder) for _ in range(rounds)]
    trained, what = alone(epoch, folder), f"{videos:,} videos: "
    goal = "under 5 minutes, 6 GiB"
    return [
        cost_row(f"{what}start-up, first time", "video", videos, [first], ""),
        cost_row(f"{what}start-up, later", "video", videos, later, "under 5 s"),
        cost_row(f"{what}an epoch's data ({frames:,} frames)", "frame", frames, [trained], goal),
    ]


def alone(work: Callable[[Path], None], folder: Path) -> Cost:
    """Of a process of its own, imports left out."""
    told = folder / "told.json"
    peak_memory(measured, work, folder, told)
    return Cost(*json.loads(told.read_text()))


def measured(work: Callable[[Path], None], folder: Path, told: Path) -> None:
    import TFAM.loops  # noqa: F401 - with all that it imports
    from vimoclip.runtime import cost_estimate

    before = cost_estimate.memory()
    cost = timed(lambda: work(folder))
    told.write_text(json.dumps([cost.seconds, cost.processors, cost_estimate.memory() - before]))


def timed(work: Callable[[], object]) -> Cost:
    started, used = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - started, time.process_time() - used)


def lengths(videos: int) -> list[int]:
    """Long-tailed, as of the other inputs, with a mean of 166."""
    drawn = np.array(made.video_lengths(videos))
    return np.clip(np.rint(drawn * FRAMES / drawn.mean()), 12, made.MOST_FRAMES).astype(int).tolist()


def write_files(folder: Path, video_lengths: list[int]) -> int:
    """Two splits and the motion of both, float16, as `store.Writer` lays them out; gives the number of RGB frames.

    By h5py alone: a part for each video, made safe on disk, would take most of the time."""
    import h5py

    from vimoclip.store import SCHEMA

    rng = np.random.default_rng(0)
    pool = rng.standard_normal((2 * made.MOST_FRAMES, made.DIM)).astype(np.float16)
    train, val, motion = (h5py.File(folder / name, "w") for name in NAMES)
    for file, kind in ((train, "rgb"), (val, "rgb"), (motion, "motion")):
        file.attrs.update(schema=SCHEMA, kind=kind, sampling='{"stride": 1}', content_sha256=kind)
    for number, length in enumerate(video_lengths):
        labels = (rng.random(made.CLASSES) < 0.02).astype(np.float32)
        rows = pool[number % made.MOST_FRAMES :][:length]
        write_video((val if number % 5 == 0 else train).create_group(f"v{number:05}.mp4"), rows, labels)
        write_video(motion.create_group(f"v{number:05}"), rows[1:], None)
    for file in (train, val, motion):
        file.close()
    return sum(video_lengths)


def write_video(group: Any, rows: np.ndarray, labels: np.ndarray | None) -> None:
    group.create_dataset("embeddings", data=rows)
    group.create_dataset("frame_indices", data=np.arange(len(rows)))
    group.create_dataset("timestamps", data=np.arange(len(rows)) / made.FPS)
    if labels is not None:
        group.create_dataset("labels", data=labels)
    group.attrs.update(total_frames=len(rows), original_frames=len(rows), fps=float(made.FPS))


def opened(folder: Path) -> dict[str, Any]:
    """The pairs of both splits."""
    from TFAM.data import open_splits

    rgb = {"train": folder / NAMES[0], "val": folder / NAMES[1]}
    with quiet():
        return open_splits(rgb, folder / NAMES[2], "cross_attention", None)[0]


def start_up(folder: Path) -> None:
    """Open, index, join: then lengths, labels and frame indices of all are known."""
    for pairs in opened(folder).values():
        for video, _ in pairs.keys:
            pairs.rgb.length(video), pairs.rgb.labels(video), pairs.rgb.frame_indices(video)


def epoch(folder: Path) -> None:
    """Train a model of one small layer on every video of both splits once."""
    import torch

    from TFAM.loops import EpochOrder, make_loader

    splits = opened(folder)
    model = torch.nn.Linear(made.DIM, made.CLASSES)
    for pairs in splits.values():
        for batch in make_loader(pairs, EpochOrder(len(pairs), 0, BATCH), WORKERS):
            loss = sum(model(rows.flatten(0, -2).mean(0)).square().mean() for rows in (batch.rgb, batch.motion))
            weights = list(model.parameters())  # not torch.optim, which imports more of torch than all else here
            for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight.data -= 1e-3 * gradient


# --- the extraction's bookkeeping


def bookkeeping_rows(folder: Path, videos: int) -> list[Row]:
    """What a run that goes on does before its first video, and one that has nothing left to do."""
    from vimoclip import cli, store
    from vimoclip.extraction import manifest, video_status

    output, finished = folder / "flow_embeddings.h5.begun", folder / NAMES[0]
    sources = write_begun(folder, output, videos)
    attributes, keys = begun_with(), list(sources)
    store.Writer(output, attributes)
    steps: dict[str, Any] = {
        "manifest": lambda: manifest.Manifest(output),
        "resume scan": lambda: video_status.Outcomes(
            output, sources, store.Writer(output, attributes).done, cli.Report()
        ),
        "finished file": lambda: store.Writer(finished, store.Reader(finished).attributes, "float16").done(keys[0]),
    }
    rows = []
    for name, step in steps.items():
        with quiet():
            costs = [timed(step) for _ in range(3)]
        rows.append(cost_row(f"{videos:,} videos: {name}", "video", videos, costs, "under 5 s"))
    return rows


def begun_with() -> dict[str, Any]:
    return {"kind": "motion", "sampling": {"stride": 1}}


def write_begun(folder: Path, output: Path, videos: int) -> dict[str, Path]:
    """Sources, a manifest and the parts of a run that was stopped before its end; gives key -> source."""
    from vimoclip.extraction import manifest
    from vimoclip.store import Writer

    sources = {f"v{number:05}": folder / "flows" / f"v{number:05}.mp4" for number in range(videos)}
    (folder / "flows").mkdir()
    parts = Writer(output, begun_with()).parts
    for key, path in sources.items():
        path.touch()
        (parts / f"{key}.part").touch()
    entries = manifest.Manifest(output)
    for key, path in sources.items():
        entries.entries[key] = manifest.Entry(key, "ok", "", 150, 150, **manifest.source_state(path))  # type: ignore[arg-type]
    entries.settle()
    return sources


@contextmanager
def quiet() -> Iterator[None]:
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield
