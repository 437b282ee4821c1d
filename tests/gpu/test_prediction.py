"""Encoding of a video's RGB frames and flow on a simulated card, as predict.py does."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from tests.gpu.fake_card import FakeCard
from vimoclip import clip, flow, video
from vimoclip.clip import pil_resampling
from vimoclip.clip.encoder import encoder_config
from vimoclip.flow import visualization
from vimoclip.prediction.frame_encoder import TwoStreamEncoder, _launch_batch, _prepare_batch
from vimoclip.prediction.load_pipeline import ComputeOptions, make_frame_encoder

CUDA = torch.device("cuda:0")
FRAMES, HEIGHT, WIDTH = 4, 1080, 1920
CROP_COLUMNS = 1096  # that the central crop depends on


@pytest.fixture(autouse=True)
def empty_caches() -> Iterator[None]:
    """Keep what depends on the pixels of fake tensors out of the caches."""
    visualization.color_table()
    yield
    visualization._color_table_tensor.cache_clear()
    pil_resampling.resizes_rows_first.cache_clear()


def test_both_streams_of_1080p_fit_the_card() -> None:
    with FakeCard() as card:
        compute = ComputeOptions(CUDA, "bf16", FRAMES, 8, None)
        encoders = [make_frame_encoder(clip.build_encoder(encoder_config("ViT-B/32")), compute) for _ in "ab"]
        render = flow.load_renderer("raft", None, 2, "frame", 1.0, CUDA, "bf16")
        encoder = TwoStreamEncoder(video.Sampling(), encoders[0], encoders[1], render, pair_batch_size=8)
        frames = np.zeros((FRAMES + 1, HEIGHT, WIDTH, 3), np.uint8)  # the first one is of the batch before
        batch = video.FrameBatch([frames, frames], np.arange(FRAMES + 1), 1)
        _launch_batch(_prepare_batch(batch, encoder), encoder)()  # the first batch of a size copies its matrices
        card.reset()
        fetch = _launch_batch(_prepare_batch(batch, encoder), encoder)
        crops = 2 * FRAMES * HEIGHT * CROP_COLUMNS * 3  # of the frames and the flow images
        assert sum(card.copies_to_card()) == frames.nbytes + crops
        assert card.num_blocking_copies == card.num_synchronizations == 0
        card.streams.waits.clear()
        encoded = fetch()
        assert len(card.streams.waits) == 2  # for the embeddings of both streams
        assert not card.streams.races
        assert encoded.rgb is not None
        assert encoded.motion is not None
        assert encoded.rgb.shape == encoded.motion.shape == (FRAMES, 512)
        assert not card.num_failed_allocations
        assert not card.mixed_device_operations()
        assert not card.float64_operations()
