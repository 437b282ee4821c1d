"""The path of frames through `BatchEncoder` on a simulated card: what is copied, started and waited for per batch."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from tests.gpu.fake_card import FakeCard
from vimoclip import clip
from vimoclip.clip import pil_resampling
from vimoclip.clip.encoder import encoder_config

CUDA = torch.device("cuda:0")
BATCH, CHUNK, BATCHES = 16, 8, 4
HEIGHT, WIDTH = 360, 640
CHUNK_BYTES = CHUNK * HEIGHT * 366 * 3  # the columns that the central crop of 224 x 224 depends on
# kernels of a batch: of the encoder, and for each chunk its copies and resizing
MAX_KERNELS = 175 + BATCH // CHUNK * 16


@pytest.fixture(autouse=True)
def probed_resampling() -> Iterator[None]:
    """Forget which axis PIL resizes first: fake tensors have no pixels to compare."""
    yield
    pil_resampling.resizes_rows_first.cache_clear()


class Pipeline:
    """An encoder on a card, which has encoded two batches. `kernels`: started when a callback was called."""

    def __init__(self, card: FakeCard, height: int = HEIGHT, width: int = WIDTH):
        self.card, self.kernels, self.rows = card, list[int](), list[int]()
        self.encoder = clip.build_encoder(encoder_config("ViT-B/32")).freeze(CUDA, "bf16")
        self.batches = clip.BatchEncoder(
            self.encoder.encode_on_device, BATCH, False, self.encoder.prepare, self.encoder.device
        )
        self.frames = np.zeros((CHUNK, height, width, 3), np.uint8)
        self.add_batches(2)
        self.batches.flush()
        card.reset()
        self.kernels.clear()
        self.rows.clear()

    def add_batches(self, count: int) -> None:
        for _ in range(count * BATCH // CHUNK):
            self.batches.add_frames(self.encoder.load_frames(self.frames), self.receive)

    def receive(self, embeddings: np.ndarray) -> None:
        self.kernels.append(self.card.num_kernels)
        self.rows.append(len(embeddings))


def test_batches_run_without_waiting_for_the_card() -> None:
    with FakeCard() as card:
        pipeline = Pipeline(card)
        pipeline.add_batches(BATCHES)
        assert card.streams.races == []
        assert card.streams.used == 2  # inputs are copied and resized while the encoder computes
        assert card.num_synchronizations == card.num_blocking_copies == 0
        assert card.num_kernels <= BATCHES * MAX_KERNELS
        assert card.copies_to_card() == [CHUNK_BYTES] * (BATCHES * BATCH // CHUNK)  # each frame once
        assert not [op for op in card.operations if op.name == "aten._to_copy" and is_weight(op.inputs[0].shape)]
        assert not card.float64_operations()


def is_weight(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and min(shape) >= 512


def test_embeddings_are_fetched_when_the_next_batch_is_launched() -> None:
    with FakeCard() as card:
        pipeline = Pipeline(card)
        pipeline.add_batches(1)
        per_batch = card.num_kernels
        assert pipeline.kernels == []
        pipeline.add_batches(2)
        chunks = BATCH // CHUNK
        assert pipeline.kernels == [2 * per_batch] * chunks + [3 * per_batch] * chunks
        assert len(card.streams.waits) == 2
        assert min(card.streams.waits) >= per_batch  # operations after the event that is waited for
        pipeline.batches.flush()
        assert pipeline.rows == [CHUNK] * 3 * chunks
        assert card.streams.races == []


def test_callbacks_are_called_in_order_on_a_card() -> None:
    with FakeCard() as card:
        pipeline = Pipeline(card)
        batches, called = pipeline.batches, list[str]()

        def add(frames: int, name: str) -> None:
            loaded = pipeline.encoder.load_frames(pipeline.frames[:1].repeat(frames, 0))
            batches.add_frames(loaded, lambda rows: called.append(f"{name}{len(rows)}"))

        add(BATCH, "a")
        batches.add_callback(lambda: called.append("end of a"))
        add(5, "b")
        batches.add_callback(lambda: called.append("end of b"))
        assert called == []
        add(BATCH - 3, "c")
        assert called == [f"a{BATCH}", "end of a"]
        batches.flush()
        assert called[2:] == ["b5", "end of b", f"c{BATCH - 5}", "c2"]
        batches.add_callback(lambda: called.append("end of c"))
        assert called[-1] == "end of c"  # at once: no frame is before it


def test_memory_of_a_launched_batch_is_kept_after_an_error() -> None:
    with FakeCard() as card:
        pipeline = Pipeline(card)
        pipeline.add_batches(1)
        del pipeline.batches  # without `flush`, as after an error
        assert card.streams.races == []


@pytest.mark.parametrize(
    ("height", "width", "most_bytes"), [(2160, 3840, 2.5e9), (16, 8000, 1.2e9), (224, 398, 1.2e9), (224, 224, 1.2e9)]
)
def test_frames_of_any_size_fit_the_card(height: int, width: int, most_bytes: float) -> None:
    with FakeCard() as card:
        pipeline = Pipeline(card, height, width)
        pipeline.add_batches(1)
        pipeline.batches.flush()
        assert card.peak_bytes < most_bytes
        assert len(card.copies_to_card()) == BATCH // CHUNK
        assert card.streams.races == []
        assert card.num_synchronizations == card.num_blocking_copies == 0


@pytest.mark.parametrize(("memory", "fits"), [(24 * 10**9, True), (2 * 10**9, False)])
def test_a_batch_is_as_large_as_the_memory_allows(memory: int, fits: bool) -> None:
    with FakeCard(memory) as card:
        encoder = clip.build_encoder(encoder_config("RN50")).freeze(CUDA, "bf16")
        size = encoder.fitting_batch_size(256)
        assert (size == 256) == fits
        encoder.encode(torch.zeros(size, 3, *encoder.preprocess.size, dtype=torch.uint8))
        assert not card.num_failed_allocations
        assert fits or card.peak_bytes > memory / 2
