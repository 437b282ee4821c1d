"""Training MoCLIP: its loader, a step, and how long a step waits for its data.

Plain is the published way: a flow video is decoded whole for each segment of it, frames are prepared one by one by PIL;
a step takes its batch at once, with its padding, and Adam goes from one tensor to the next."""

import argparse
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.harness import Row, copy_rate, in_turn, matmul_rate, peak_memory, row
from benchmarks.inputs import Inputs
from vimoclip import clip, video
from vimoclip.moclip import MoCLIP, flow_pairing, frame_cache, trainer
from vimoclip.moclip.data_parallel import Replicas
from vimoclip.moclip.dataset import Batch, SegmentDataset, collate, span_reader
from vimoclip.moclip.train_state import Sums
from vimoclip.runtime.distributed import Group
from vimoclip.training import losses

LENGTH, BATCH, CLASSES = 30, 4, 140  # frames a segment, segments a batch
FLOP_A_FRAME = 3 * 2 * 4.37e9  # of ViT-B/32, forward and backward, at 4.37 billion multiply-adds a frame


def run(inputs: Inputs, rounds: int) -> list[Row]:
    return [*loaders(inputs, rounds), step(inputs, rounds), waiting(inputs)]


class Teacher:
    """In the place of the RGB embeddings: reading them is measured elsewhere."""

    def embeddings(self, key: str, start: int, stop: int) -> np.ndarray:
        return np.random.default_rng(len(key) + start).standard_normal((stop - start, 512)).astype(np.float32)

    def labels(self, key: str) -> np.ndarray:
        return (np.arange(CLASSES) % 40 == len(key) % 40).astype(np.float32)


def clips_of(folder: Path) -> list[flow_pairing.Clip]:
    return [flow_pairing.Clip(path.name, path, video.probe(path).frames + 1) for path in video.find(folder)[0]]


# --- the loader


def plain_segment(path: Path, start: int, transform: Any) -> torch.Tensor:
    """(29, 3, 224, 224) float32, normalised."""
    import av
    from PIL import Image

    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.stack([transform(Image.fromarray(frame)) for frame in frames[start : start + LENGTH - 1]])


def full_segments(dataset: SegmentDataset) -> list[int]:
    """One of each clip, so that none profits from what was read before of its video."""
    rng, of_clip = random.Random(0), dict[str, list[int]]()
    for number, segment in enumerate(dataset.segments):
        if segment.length == LENGTH - 1:
            of_clip.setdefault(segment.clip.key, []).append(number)
    return [rng.choice(numbers) for numbers in of_clip.values()]


def loaders(inputs: Inputs, rounds: int) -> list[Row]:
    """Segments/s of one process with one thread, which is what a worker of a loader has."""
    import open_clip

    config = clip.load(inputs.clip_model(), None).config
    preprocess, transform = clip.Preprocess(config), open_clip.image_transform(224, is_train=False)
    large, small = clips_of(inputs.flows(None)), clips_of(inputs.flows(224))
    cache = frame_cache.FrameCache(inputs.folder / "prepared", config)
    cache.fill(cache.missing(large), preprocess, workers=2)
    reader: Any = Teacher()
    sets = {
        "640x360": SegmentDataset(reader, large, LENGTH, preprocess),
        "--size 224": SegmentDataset(reader, small, LENGTH, preprocess),
        "--cache-frames": SegmentDataset(reader, large, LENGTH, preprocess, cache),
    }
    chosen = full_segments(sets["640x360"])

    def plain() -> float:
        for number in chosen[::3]:
            segment = sets["640x360"].segments[number]
            plain_segment(segment.clip.flow, segment.start, transform)
        return len(chosen[::3])

    def ours(name: str) -> float:
        span_reader.cache_clear()
        for start in range(0, len(chosen), BATCH):
            collate([sets[name][number] for number in chosen[start : start + BATCH]])
        return len(chosen)

    def decoder(name: str) -> float:
        span_reader.cache_clear()
        for number in chosen:
            segment = sets[name].segments[number]
            span_reader(segment.clip.flow).read(segment.start, segment.start + LENGTH - 1)
        return len(chosen)

    work: dict[str, Any] = {"plain": plain} | {name: partial(ours, name) for name in sets}
    work |= {f"decoder {name}": partial(decoder, name) for name in ("640x360", "--size 224")}
    with threads(1):
        rates = in_turn(work, rounds)
    goals = {"640x360": "3x", "--size 224": "8x", "--cache-frames": "25x"}
    rows = []
    for name, goal in goals.items():
        decoded = rates.get(f"decoder {name}")
        bound = sorted(decoded)[len(decoded) // 2] if decoded else copy_rate() / ((LENGTH - 1) * cache.frame_bytes)
        note = "plain: 640x360" + ("" if decoded else "; files in memory")
        both, what = {"plain": rates["plain"], "ours": rates[name]}, f"loader of train.py, {name}"
        named = "decoder alone" if decoded else "copy of memory"
        rows.append(row("training", what, "segment", both, bound=bound, bound_name=named, goal=goal, note=note))
    return rows


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many of torch's meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- the step


def a_batch(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    flow = torch.randint(0, 256, (BATCH, LENGTH - 1, 3, 224, 224), generator=generator, dtype=torch.uint8)
    z_image = torch.randn(BATCH, LENGTH - 1, 512, generator=generator)
    labels = (torch.rand(BATCH, CLASSES, generator=generator) < 0.02).float()
    return Batch(flow, z_image, torch.ones(flow.shape[:2], dtype=torch.bool), labels, list("abcd"), [])


def a_student(name: str) -> tuple[MoCLIP, clip.Preprocess]:
    torch.manual_seed(0)
    encoder = clip.load(name, None)
    return MoCLIP(encoder.visual, 512, CLASSES, 0.1), encoder.preprocess


class PlainStep:
    """The whole batch at once, Adam as it comes."""

    def __init__(self, name: str):
        self.model, self.preprocess = a_student(name)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-5)
        self.model.train()

    def __call__(self, batch: Batch) -> float:
        images = torch.stack([self.preprocess.normalize(segment) for segment in batch.flow])
        z = self.model.visual_encoder(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        predicted = z + self.model.alpha * self.model.residual_mlp(z)
        loss = losses.distillation(predicted, batch.z_image, batch.mask, "cosine")
        logits = self.model.classification_head(losses.masked_mean(z, batch.mask))
        loss = loss + nn.functional.binary_cross_entropy_with_logits(
            logits, batch.labels, pos_weight=torch.full((CLASSES,), 10.0)
        )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


class OurStep:
    """What train.py does."""

    def __init__(self, name: str):
        self.model, preprocess = a_student(name)
        settings: dict[str, Any] = {"precision": "fp32", "learning_rate": 1e-5, "encoder_learning_rate": None}
        settings |= {"distillation_loss_mode": "cosine", "class_positive_weight": 9, "distillation_weight": 1.0}
        settings |= {"weight_decay": 0.0, "warmup_steps": 0, "compile": False, "micro_batch_size": None}
        settings |= {"num_workers": 2, "batch_size": BATCH, "sequence_length": LENGTH, "grad_clip_norm": None}
        self.learning = trainer.Learning(argparse.Namespace(**settings), self.model, preprocess, Group())
        self.state, self.replicas = self.learning.state({}), Replicas(self.model)

    def __call__(self, batch: Batch) -> float:
        return self.learning.train(self.state, [batch], self.replicas, sums=Sums())["loss"]


def step(inputs: Inputs, rounds: int) -> Row:
    """Steps/s and memory of one batch, after a look that both learn the same."""
    name, batch = inputs.clip_model(), a_batch()
    plain, ours = PlainStep(name), OurStep(name)
    apart = max(abs(plain(batch) - ours(batch)), difference(plain.model, ours.model))
    assert apart < 1e-5, f"plain and ours differ by {apart}"
    work = {"plain": lambda: bool(plain(batch)), "ours": lambda: bool(ours(batch))}
    memory = peak_memory(_step_plainly, name), peak_memory(_step_as_ours, name)
    rates = in_turn(work, rounds)
    bound = matmul_rate() / (FLOP_A_FRAME * BATCH * (LENGTH - 1))
    what = f"step of train.py, ViT-B/32, batch {BATCH} x {LENGTH} frames"
    note = f"loss and gradients within {apart:.0e}; memory {memory[1] / memory[0]:.2f}x"
    goal = "1.4x; memory 0.5x"
    return row("training", what, "step", rates, bound=bound, bound_name="FLOP", memory=memory, goal=goal, note=note)


def difference(a: nn.Module, b: nn.Module) -> float:
    """The largest of two models' gradients, beside the largest of each tensor's."""
    pairs = [(p.grad, q.grad) for p, q in zip(a.parameters(), b.parameters(), strict=True)]
    return max(float((p - q).abs().max() / p.abs().max().clamp_min(1e-3)) for p, q in pairs if p is not None)  # type: ignore


def _step_plainly(name: str) -> None:
    plain = PlainStep(name)
    for seed in range(2):
        plain(a_batch(seed))


def _step_as_ours(name: str) -> None:
    ours = OurStep(name)
    for seed in range(2):
        ours(a_batch(seed))


def waiting(inputs: Inputs, steps: int = 6) -> Row:
    """How much of a step goes by in waiting for the loader, at flow videos of 640x360."""
    ours, reader = OurStep(inputs.clip_model()), Teacher()
    chosen: Any = reader
    dataset = SegmentDataset(chosen, clips_of(inputs.flows(None)), LENGTH, ours.learning.preprocess)
    order = random.Random(0).sample(
        full_segments(dataset), BATCH * min(steps + 1, len(full_segments(dataset)) // BATCH)
    )
    waited, worked, batches = 0.0, 0.0, iter(ours.learning.loader(dataset, order))
    ours(next(batches))
    for _ in range(len(order) // BATCH - 1):
        started = time.perf_counter()
        batch = next(batches)
        got = time.perf_counter()
        ours(batch)
        waited, worked = waited + got - started, worked + time.perf_counter() - got
    share, count = waited / (waited + worked), len(order) // BATCH - 1
    rates, bound = {"ours": [count / (waited + worked)]}, count / worked
    what, note = "steps of train.py with its loader, 640x360", f"{share:.2%} of the time waits for data"
    return row("training", what, "step", rates, bound=bound, bound_name="step alone", goal="98 % of it", note=note)
