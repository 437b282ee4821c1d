"""Image encoders on a simulated card: one device, no float64, casts, copies, kernels and memory per batch."""

from collections.abc import Iterator

import pytest
import torch

from tests.gpu.fake_card import FakeCard
from vimoclip import clip
from vimoclip.clip.encoder import encoder_config

CUDA = torch.device("cuda:0")
BATCH = 11  # no layer has a dimension that is a multiple of it
HALF_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# budgets of a batch, a tenth above what it takes: kernels, and bytes with the encoder's weights in two precisions
KERNELS = {"ViT-B/32": 175, "RN50": 228, "coca_ViT-B-32": 250, "ViT-B-16-SigLIP": 190}
PEAK_BYTES = {"ViT-B/32": 0.70e9, "RN50": 0.33e9, "coca_ViT-B-32": 0.62e9, "ViT-B-16-SigLIP": 0.68e9}
MAX_CAST_BYTES = 2**20  # positions and projections that are plain parameters of open_clip's towers may be cast


@pytest.fixture
def card() -> Iterator[FakeCard]:
    with FakeCard() as card:
        yield card


def encode_second_batch(card: FakeCard, name: str, precision: str) -> clip.ImageEncoder:
    """Encode two batches; the card has recorded the second one."""
    encoder = clip.build_encoder(encoder_config(name)).freeze(CUDA, precision)
    for _ in range(2):
        card.reset()
        embeddings = encoder.encode(torch.zeros(BATCH, 3, *encoder.preprocess.size, dtype=torch.uint8))
    assert (embeddings.device.type, embeddings.dtype) == ("cpu", torch.float32)
    return encoder


@pytest.mark.parametrize(
    ("name", "precision"),
    [("ViT-B/32", "fp32"), ("RN50", "fp16"), *((name, "bf16") for name in KERNELS if name != "RN50")],
)
def test_encoder_stays_on_the_card_within_its_budget(card: FakeCard, name: str, precision: str) -> None:
    encoder = encode_second_batch(card, name, precision)
    assert not card.mixed_device_operations()
    assert not card.float64_operations()
    assert card.num_kernels <= KERNELS[name]
    assert card.peak_bytes <= PEAK_BYTES[name]
    if precision != "fp32":
        check_casts(card, HALF_DTYPES[precision])
    assert len(card.copies_to_cpu()) == card.num_synchronizations == card.num_pinned == 1
    assert card.copies_to_card() == [BATCH * 3 * encoder.preprocess.size[0] * encoder.preprocess.size[1]]


def check_casts(card: FakeCard, dtype: torch.dtype) -> None:
    """Check that matrix products have this dtype, and that no batch casts their weights."""
    products = [op for op in card.operations if op.name in ("aten.addmm", "aten.mm", "aten.bmm", "aten.convolution")]
    assert {tensor.dtype for op in products for tensor in op.tensors} == {dtype}
    casts = [op for op in card.operations if op.name == "aten._to_copy" and op.outputs[0].dtype == dtype]
    sources = [op.inputs[0] for op in casts if BATCH not in op.inputs[0].shape[:2]]
    assert [source.shape for source in sources if source.nbytes > MAX_CAST_BYTES] == []


def test_no_float64_while_weights_are_prepared(card: FakeCard) -> None:
    clip.build_encoder(encoder_config("ViT-B/32")).freeze(CUDA, "bf16")
    assert not card.float64_operations()
