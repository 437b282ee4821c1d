"""What `python -m benchmarks gpu` measures, on the simulated card."""

from pathlib import Path

import torch

from benchmarks.gpu_checks import encoders
from benchmarks.gpu_checks.check import CheckContext
from tests.gpu.fake_card import FakeCard


def test_a_stream_of_batches_copies_each_frame_once_and_waits_for_nothing(tmp_path: Path) -> None:
    with FakeCard() as card:
        context = CheckContext(torch.device("cuda"), tmp_path, dry_run=True)
        encoder = encoders.freeze(encoders.make_encoder("ViT-B/32", context), context.device, "bf16")
        stream = encoders.EncodedStream(encoder, 4, 3, context.device)
        before = card.num_synchronizations, sum(card.copies_to_card())
        stream()
        assert card.num_synchronizations == before[0]
        assert sum(card.copies_to_card()) - before[1] == 3 * stream.frames.numel()
