"""Scaling with the number of videos, up to Animal Kingdom's: start-up, the data of an epoch, resumed extraction.

    SCALE_VIDEOS=300,3000,30100 python -m benchmarks scale
30,100 videos need 10 GB in the folder of inputs, removed at the end, and 5 minutes; they are not in the default. Each
measurement runs in a separate process; its memory excludes that of the imports."""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import inputs as input_sizes
from benchmarks.harness import BenchmarkRow, run_in_process
from benchmarks.inputs import BenchmarkInputs

DEFAULT_VIDEOS = "300,3000"
MEAN_FRAMES = 166  # per video: 5 million frames in 30,100 videos
BATCH_SIZE, NUM_WORKERS = 8, 0
FILE_NAMES = ("ak_train_clip_embeddings.h5", "ak_val_clip_embeddings.h5", "flow_embeddings.h5")


def run(inputs: BenchmarkInputs, rounds: int) -> list[BenchmarkRow]:
    rows: list[BenchmarkRow] = []
    inputs.folder.mkdir(parents=True, exist_ok=True)
    for num_videos in map(int, os.environ.get("SCALE_VIDEOS", DEFAULT_VIDEOS).split(",")):
        with tempfile.TemporaryDirectory(dir=inputs.folder) as folder:
            rows += data_rows(Path(folder), num_videos, rounds)
            rows += bookkeeping_rows(Path(folder), num_videos)
    return rows


@dataclass
class Cost:
    """Wall-clock seconds, CPU seconds (less affected by other processes), and bytes of memory."""

    seconds: float
    cpu_seconds: float
    memory: int | None = None


def cost_row(what: str, unit: str, units: float, costs: Sequence[Cost], goal: str) -> BenchmarkRow:
    seconds, cpu_seconds = median(cost.seconds for cost in costs), median(cost.cpu_seconds for cost in costs)
    note, memory = f"{seconds:.2f} s, CPU {cpu_seconds:.2f} s", costs[-1].memory
    return BenchmarkRow("scale", what, unit, ours=units / seconds, memory_ours=memory, goal=goal, note=note)


# --- the data side of TFAM


def data_rows(folder: Path, num_videos: int, rounds: int) -> list[BenchmarkRow]:
    num_frames = write_embedding_files(folder, scaled_lengths(num_videos))
    first_cost = run_in_process(measure_cost, read_all_metadata, folder)
    repeated_costs = [run_in_process(measure_cost, read_all_metadata, folder) for _ in range(rounds)]
    epoch_cost, prefix = run_in_process(measure_cost, train_epoch, folder), f"{num_videos:,} videos: "
    goal = "under 5 minutes, 6 GiB"
    return [
        cost_row(f"{prefix}start-up, first time", "video", num_videos, [first_cost], ""),
        cost_row(f"{prefix}start-up, later", "video", num_videos, repeated_costs, "under 5 s"),
        cost_row(f"{prefix}an epoch's data ({num_frames:,} frames)", "frame", num_frames, [epoch_cost], goal),
    ]


def measure_cost(work: Callable[[Path], None], folder: Path) -> Cost:
    """Return the cost of work in this process, without the imports."""
    import TFAM.loops  # noqa: F401 - excludes the imports from the cost
    from vimoclip.runtime import cost_estimate

    before = cost_estimate.peak_memory()
    cost = time_call(lambda: work(folder))
    return Cost(cost.seconds, cost.cpu_seconds, cost_estimate.peak_memory() - before)


def time_call(work: Callable[[], object]) -> Cost:
    started, cpu_started = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - started, time.process_time() - cpu_started)


def scaled_lengths(num_videos: int) -> list[int]:
    """Return long-tailed lengths with a mean of 166."""
    lengths = np.array(input_sizes.video_lengths(num_videos))
    return np.clip(np.rint(lengths * MEAN_FRAMES / lengths.mean()), 12, input_sizes.MAX_FRAMES).astype(int).tolist()


def write_embedding_files(folder: Path, video_lengths: list[int]) -> int:
    """Write two RGB splits and the motion of both, float16, in the layout of `EmbeddingWriter`; return the RGB frames.

    Uses h5py directly, since syncing a part file per video would take most of the time."""
    import h5py

    from vimoclip.store import SCHEMA

    rng = np.random.default_rng(0)
    pool = rng.standard_normal((2 * input_sizes.MAX_FRAMES, input_sizes.DIM)).astype(np.float16)
    train, val, motion = (h5py.File(folder / name, "w") for name in FILE_NAMES)
    for file, kind in ((train, "rgb"), (val, "rgb"), (motion, "motion")):
        file.attrs.update(schema=SCHEMA, kind=kind, sampling='{"stride": 1}', content_sha256=kind)
    for number, length in enumerate(video_lengths):
        labels = (rng.random(input_sizes.CLASSES) < 0.02).astype(np.float32)
        rows = pool[number % input_sizes.MAX_FRAMES :][:length]
        write_video((val if number % 5 == 0 else train).create_group(f"v{number:05}.mp4"), rows, labels)
        write_video(motion.create_group(f"v{number:05}"), rows[1:], None)
    for file in (train, val, motion):
        file.close()
    return sum(video_lengths)


def write_video(group: Any, rows: np.ndarray, labels: np.ndarray | None) -> None:
    group.create_dataset("embeddings", data=rows)
    group.create_dataset("frame_indices", data=np.arange(len(rows)))
    group.create_dataset("timestamps", data=np.arange(len(rows)) / input_sizes.FPS)
    if labels is not None:
        group.create_dataset("labels", data=labels)
    group.attrs.update(total_frames=len(rows), original_frames=len(rows), fps=float(input_sizes.FPS))


def open_pairs(folder: Path) -> dict[str, Any]:
    """Return PairedEmbeddings of both splits."""
    from TFAM import config
    from TFAM.data import open_training_splits

    keys = ("rgb_train_h5", "rgb_val_h5", "motion_h5")
    paths = [f"data.{key}={folder / name}" for key, name in zip(keys, FILE_NAMES, strict=True)]
    with redirect_stdout(StringIO()):
        return open_training_splits(config.load([], ["data.protocol=published", *paths]))[0]


def read_all_metadata(folder: Path) -> None:
    """Open and pair the files; read lengths, labels and frame indices of all videos."""
    for pairs in open_pairs(folder).values():
        for video, _ in pairs.keys:
            pairs.rgb.length(video), pairs.rgb.labels(video), pairs.rgb.frame_indices(video)


def train_epoch(folder: Path) -> None:
    """Train one small layer on every video of both splits once."""
    import torch

    from vimoclip.runtime.distributed import ProcessGroup
    from vimoclip.training.data_parallel import EpochBatchSampler, make_loader

    splits, device = open_pairs(folder), torch.device("cpu")
    model = torch.nn.Linear(input_sizes.DIM, input_sizes.CLASSES)
    for pairs in splits.values():
        sampler = EpochBatchSampler(len(pairs), 0, BATCH_SIZE, ProcessGroup())
        for batch in make_loader(pairs, sampler, NUM_WORKERS, device, persistent_workers=True):
            loss = sum(model(tokens.x.mean(0)).square().mean() for tokens in (batch.rgb, batch.motion))
            # SGD by hand, since torch.optim imports more of torch than all else here
            weights = list(model.parameters())
            for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight.data -= 1e-3 * gradient


# --- resuming an extraction


def bookkeeping_rows(folder: Path, num_videos: int) -> list[BenchmarkRow]:
    """Measure the work of a resumed run before its first video, and that of a finished run."""
    from vimoclip import cli, store
    from vimoclip.extraction import manifest, video_status

    output, finished = folder / "flow_embeddings.h5.begun", folder / FILE_NAMES[0]
    sources = write_partial_extraction(folder, output, num_videos)
    attributes, keys = output_attributes(), list(sources)
    store.EmbeddingWriter(output, attributes)
    steps: dict[str, Any] = {
        "manifest": lambda: manifest.Manifest(output),
        "resume scan": lambda: video_status.VideoTracker(
            output, sources, store.EmbeddingWriter(output, attributes).is_done, cli.RunReport()
        ),
        "finished file": lambda: store.EmbeddingWriter(
            finished, store.EmbeddingReader(finished).attributes, "float16"
        ).is_done(keys[0]),
    }
    rows = []
    for name, step in steps.items():
        with redirect_stdout(StringIO()):
            costs = [time_call(step) for _ in range(3)]
        rows.append(cost_row(f"{num_videos:,} videos: {name}", "video", num_videos, costs, "under 5 s"))
    return rows


def output_attributes() -> dict[str, Any]:
    return {"kind": "motion", "sampling": {"stride": 1}}


def write_partial_extraction(folder: Path, output: Path, num_videos: int) -> dict[str, Path]:
    """Write sources, manifest and part files of an interrupted run; return key -> source."""
    from vimoclip.extraction import manifest
    from vimoclip.store import EmbeddingWriter

    sources = {f"v{number:05}": folder / "flows" / f"v{number:05}.mp4" for number in range(num_videos)}
    (folder / "flows").mkdir()
    parts = EmbeddingWriter(output, output_attributes()).parts_dir
    for key, path in sources.items():
        path.touch()
        (parts / f"{key}.part").touch()
    entries = manifest.Manifest(output)
    for key, path in sources.items():
        entries.entries[key] = manifest.ManifestEntry(key, "ok", "", 150, 150, **manifest.stat_source(path))  # type: ignore[arg-type]
    entries.compact()
    return sources
