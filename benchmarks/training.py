"""MoCLIP training: the data loader, a training step, and the time that steps wait for data.

The plain implementation is the published one: it decodes the whole flow video for each segment, preprocesses single
frames with PIL, and takes a step on the whole padded batch with Adam's loop over tensors."""

import argparse
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from benchmarks.harness import (
    BenchmarkRow,
    make_row,
    measure_peak_memory,
    measure_rates,
    memory_copy_rate,
    product_bound,
    product_work,
)
from benchmarks.inputs import BenchmarkInputs, read_whole_video
from vimoclip import clip, video
from vimoclip.moclip import MoCLIP, frame_cache, loops, trainer
from vimoclip.moclip.dataset import SegmentBatch, SegmentDataset, TrainingVideo, cached_video_reader
from vimoclip.moclip.micro_batch import choose_micro_batch_size
from vimoclip.training import losses
from vimoclip.training.data_parallel import ModelReplica, make_loader

SEQUENCE_LENGTH, BATCH_SIZE, CLASSES = 30, 4, 140  # frames per segment, segments per batch
FLOP_PER_FRAME = 3 * 2 * 4.37e9  # ViT-B/32, forward and backward; 4.37 billion multiply-adds a forward pass


def run(inputs: BenchmarkInputs, rounds: int) -> list[BenchmarkRow]:
    return [*loader_rows(inputs, rounds), step_row(inputs, rounds), data_wait_row(inputs)]


class RandomEmbeddingReader:
    """Replaces the reader of the RGB embeddings, which benchmarks.reading measures."""

    def embeddings(self, key: str, start: int, stop: int) -> np.ndarray:
        return np.random.default_rng(len(key) + start).standard_normal((stop - start, 512)).astype(np.float32)

    def labels(self, key: str) -> np.ndarray:
        return (np.arange(CLASSES) % 40 == len(key) % 40).astype(np.float32)


def list_training_videos(folder: Path) -> list[TrainingVideo]:
    return [TrainingVideo(path.name, path, video.probe(path).frames + 1) for path in video.VideoFolder(folder).videos]


# --- the loader


def sample_full_segments(dataset: SegmentDataset) -> list[int]:
    """Return indices of one full segment of each clip, so that no read profits from an earlier one."""
    rng, indices_by_clip = random.Random(0), dict[str, list[int]]()
    for index, segment in enumerate(dataset.segments):
        if segment.length == SEQUENCE_LENGTH - 1:
            indices_by_clip.setdefault(segment.video.key, []).append(index)
    return [rng.choice(indices) for indices in indices_by_clip.values()]


def loader_rows(inputs: BenchmarkInputs, rounds: int) -> list[BenchmarkRow]:
    """Measure segments/s of one process with one thread, as in a worker of the loader."""
    import open_clip
    from PIL import Image

    config = clip.load_encoder(inputs.clip_model(), None).config
    preprocess, transform = clip.Preprocess(config), open_clip.image_transform(224, is_train=False)
    large, small = list_training_videos(inputs.flows(None)), list_training_videos(inputs.flows(224))
    cache = frame_cache.FrameCache(inputs.folder / "prepared", config)
    cache.fill(cache.uncached_videos(large), preprocess, workers=2)
    reader: Any = RandomEmbeddingReader()
    datasets = {
        "640x360": SegmentDataset(reader, large, SEQUENCE_LENGTH, preprocess),
        "--size 224": SegmentDataset(reader, small, SEQUENCE_LENGTH, preprocess),
        "--cache-frames": SegmentDataset(reader, large, SEQUENCE_LENGTH, preprocess, cache),
    }
    indices = sample_full_segments(datasets["640x360"])

    def plain() -> float:
        for index in indices[::3]:
            segment = datasets["640x360"].segments[index]
            frames = read_whole_video(segment.video.flow_path)[segment.start :][: SEQUENCE_LENGTH - 1]
            torch.stack([transform(Image.fromarray(frame)) for frame in frames])
        return len(indices[::3])

    def ours(name: str) -> float:
        cached_video_reader.cache_clear()
        for start in range(0, len(indices), BATCH_SIZE):
            SegmentDataset.collate([datasets[name][index] for index in indices[start : start + BATCH_SIZE]])
        return len(indices)

    def decoder(name: str) -> float:
        cached_video_reader.cache_clear()
        for index in indices:
            segment = datasets[name].segments[index]
            cached_video_reader(segment.video.flow_path).read(segment.start, segment.start + SEQUENCE_LENGTH - 1)
        return len(indices)

    work: dict[str, Any] = {"plain": plain} | {name: partial(ours, name) for name in datasets}
    work |= {f"decoder {name}": partial(decoder, name) for name in ("640x360", "--size 224")}
    with torch_threads(1):
        rates = measure_rates(work, rounds)
    goals = {"640x360": "3x", "--size 224": "8x", "--cache-frames": "25x"}
    rows = []
    for name, goal in goals.items():
        decoder_rates = rates.get(f"decoder {name}")
        bound = (
            median(decoder_rates) if decoder_rates else memory_copy_rate() / ((SEQUENCE_LENGTH - 1) * cache.frame_bytes)
        )
        note = "plain: 640x360" + ("" if decoder_rates else "; files in memory")
        row_rates, what = {"plain": rates["plain"], "ours": rates[name]}, f"loader of train.py, {name}"
        bound_name = "decoder alone" if decoder_rates else "copy of memory"
        rows.append(
            make_row("training", what, "segment", row_rates, bound=bound, bound_name=bound_name, goal=goal, note=note)
        )
    return rows


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Set the number of torch's threads within the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- the step


def make_batch(seed: int = 0) -> SegmentBatch:
    generator = torch.Generator().manual_seed(seed)
    flow = torch.randint(0, 256, (BATCH_SIZE, SEQUENCE_LENGTH - 1, 3, 224, 224), generator=generator, dtype=torch.uint8)
    z_image = torch.randn(BATCH_SIZE, SEQUENCE_LENGTH - 1, 512, generator=generator)
    labels = (torch.rand(BATCH_SIZE, CLASSES, generator=generator) < 0.02).float()
    return SegmentBatch(flow, z_image, torch.ones(flow.shape[:2], dtype=torch.bool), labels, list("abcd"), [])


def make_student(name: str) -> tuple[MoCLIP, clip.Preprocess]:
    torch.manual_seed(0)
    encoder = clip.load_encoder(name, None)
    return MoCLIP(encoder.visual, 512, CLASSES, 0.1), encoder.preprocess


class PlainStep:
    """A training step on the whole batch, with Adam's default loop over tensors."""

    def __init__(self, name: str):
        self.model, self.preprocess = make_student(name)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-5)
        self.model.train()

    def __call__(self, batch: SegmentBatch) -> float:
        images = torch.stack([self.preprocess.normalize(segment) for segment in batch.flow])
        z = self.model.visual_encoder(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        predicted = z + self.model.alpha * self.model.residual_mlp(z)
        loss = losses.distillation_loss(predicted, batch.z_image, batch.mask, "cosine")
        logits = self.model.classification_head(losses.masked_mean(z, batch.mask))
        loss = loss + nn.functional.binary_cross_entropy_with_logits(
            logits, batch.labels, pos_weight=torch.full((CLASSES,), 10.0)
        )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


class TrainPyStep:
    """A training step as in train.py."""

    def __init__(self, name: str):
        self.model, self.preprocess = make_student(name)
        settings: dict[str, Any] = {"learning_rate": 1e-5, "encoder_learning_rate": None, "weight_decay": 0.0}
        args = argparse.Namespace(**settings, warmup_steps=0, grad_clip_norm=None, compile=False)
        self.objective = loops.StudentObjective(self.preprocess, nullcontext, "cosine", 9)
        self.replica = ModelReplica(trainer.make_train_state(args, self.model, "fp32"))
        length = SEQUENCE_LENGTH - 1
        self.micro_batch_size = choose_micro_batch_size(None, BATCH_SIZE, self.model, self.objective, length)

    def __call__(self, batch: SegmentBatch) -> float:
        (losses_of_step,) = loops.train_steps(self.replica, [batch], self.objective, self.micro_batch_size)
        return losses_of_step.means()["loss"]


def step_row(inputs: BenchmarkInputs, rounds: int) -> BenchmarkRow:
    """Measure steps/s and memory of one batch; assert that both implementations agree."""
    name, batch = inputs.clip_model(), make_batch()
    plain, ours = PlainStep(name), TrainPyStep(name)
    deviation = max(abs(plain(batch) - ours(batch)), max_gradient_difference(plain.model, ours.model))
    assert deviation < 1e-5, f"plain and ours differ by {deviation}"
    work = {"plain": lambda: bool(plain(batch)), "ours": lambda: bool(ours(batch)), **product_work()}
    memory = measure_peak_memory(_run_steps, PlainStep, name), measure_peak_memory(_run_steps, TrainPyStep, name)
    rates = measure_rates(work, rounds)
    bound = product_bound(rates) / (FLOP_PER_FRAME * BATCH_SIZE * (SEQUENCE_LENGTH - 1))
    what = f"step of train.py, ViT-B/32, batch {BATCH_SIZE} x {SEQUENCE_LENGTH} frames"
    note = f"loss and gradients within {deviation:.0e}; memory {memory[1] / memory[0]:.2f}x"
    goal = "1.4x; memory 0.5x"
    return make_row(
        "training", what, "step", rates, bound=bound, bound_name="FLOP", memory=memory, goal=goal, note=note
    )


def max_gradient_difference(a: nn.Module, b: nn.Module) -> float:
    """Return the largest difference of two models' gradients, relative to the maximum of each tensor."""
    pairs = [(p.grad, q.grad) for p, q in zip(a.parameters(), b.parameters(), strict=True)]
    return max(float((p - q).abs().max() / p.abs().max().clamp_min(1e-3)) for p, q in pairs if p is not None)  # type: ignore


def _run_steps(step_class: type[PlainStep] | type[TrainPyStep], name: str) -> None:
    step = step_class(name)
    for seed in range(2):
        step(make_batch(seed))


def data_wait_row(inputs: BenchmarkInputs, steps: int = 6) -> BenchmarkRow:
    """Measure the fraction of time that steps wait for the loader, with flow videos of 640x360."""
    ours, reader = TrainPyStep(inputs.clip_model()), cast(Any, RandomEmbeddingReader())
    dataset = SegmentDataset(reader, list_training_videos(inputs.flows(None)), SEQUENCE_LENGTH, ours.preprocess)
    indices = sample_full_segments(dataset)
    order = random.Random(0).sample(indices, BATCH_SIZE * min(steps + 1, len(indices) // BATCH_SIZE))
    order_batches = [order[i : i + BATCH_SIZE] for i in range(0, len(order), BATCH_SIZE)]
    batches = iter(make_loader(dataset, order_batches, 2, torch.device("cpu")))
    wait_seconds, step_seconds = 0.0, 0.0
    ours(next(batches))
    for _ in range(len(order) // BATCH_SIZE - 1):
        started = time.perf_counter()
        batch = next(batches)
        loaded = time.perf_counter()
        ours(batch)
        wait_seconds, step_seconds = wait_seconds + loaded - started, step_seconds + time.perf_counter() - loaded
    total_seconds, count = wait_seconds + step_seconds, len(order) // BATCH_SIZE - 1
    rates, bound = {"ours": [count / total_seconds]}, count / step_seconds
    what, note = (
        "steps of train.py with its loader, 640x360",
        f"{wait_seconds / total_seconds:.2%} of the time waits for data",
    )
    return make_row("training", what, "step", rates, bound=bound, bound_name="step alone", goal="98 % of it", note=note)
