"""The fusion Transformer on a simulated card: one device, no float64, copies and synchronizations per batch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.gpu.fake_card import FakeCard
from tests.tfam.helpers import open_train_val, write_motion, write_rgb
from TFAM import config, loops
from TFAM.data import ClipFeatures, FusionBatch, collate
from TFAM.model import PackedAttention
from TFAM.packing import Fusion, Pooling
from TFAM.resident import ResidentLoader, load_splits
from TFAM.trainer import make_train_state
from vimoclip.training.data_parallel import ModelReplica
from vimoclip.training.trainer import RunOptions

CUDA = torch.device("cuda:0")
WIDTH, CLASSES = 512, 140
LENGTHS = (30, 17, 2, 64)
# budgets of a step, of which 156 are the norm and the scale of each gradient: two kernels on a real card
KERNELS = {Fusion.CROSS_ATTENTION: 680}
KERNELS |= dict.fromkeys((Fusion.RGB, Fusion.MOTION, Fusion.CONCAT_EMBEDDING, Fusion.CONCAT_TIME), 460)
KERNELS |= {Fusion.PROBE_ATTENTIVE: 460}  # attention is computed a video at a time
LAYERS = 4
INDEX_BYTES = 32_768  # the largest copy of what depends on the lengths only


def make_config(fusion: str, pooling: str) -> dict[str, Any]:
    """Return the default config for this fusion, with the sizes that the embeddings determine."""
    overrides = [f"model.fusion={fusion}", f"model.pooling={pooling}", "model.positions=true"]
    found = config.load([], [*overrides, "training.grad_clip_norm=1"])
    found["model"] |= {"d_model": WIDTH, "num_classes": CLASSES}
    return found


def make_batch(fusion: str, pooling: str, lengths: Sequence[int] = LENGTHS) -> FusionBatch:
    """Return videos as a loader gives them: on the CPU."""
    clips = []
    for length in lengths:
        motion = None if not Fusion(fusion).uses_motion else torch.zeros(length - 1, WIDTH)
        clips.append(ClipFeatures("video", torch.zeros(length, WIDTH), motion, torch.zeros(CLASSES)))
    return collate(clips, pooling)


@pytest.mark.parametrize("pooling", Pooling)
@pytest.mark.parametrize("fusion", KERNELS)
def test_step_and_evaluation_stay_on_the_card(fusion: str, pooling: str) -> None:
    with FakeCard() as card:
        state = make_train_state(make_config(fusion, pooling), CUDA, "bf16")
        batch, loss = make_batch(fusion, pooling), F.binary_cross_entropy_with_logits
        replica = ModelReplica(state)
        list(loops.train_steps(replica, [batch], loss, CUDA, "bf16"))  # creates the moments of Adam
        card.reset()
        (losses,) = loops.train_steps(replica, [batch], loss, CUDA, "bf16")
        assert card.num_synchronizations == len(card.streams.waits) == 0
        assert card.num_kernels <= KERNELS[Fusion(fusion)]
        copies = card.copies_to_card()
        large = [size for size in copies if size > INDEX_BYTES]
        assert len(large) == (1 if batch.motion is None else 2)  # embeddings
        assert len(copies) - len(large) <= 4  # labels, integers, at most two biases
        assert losses.count == len(batch.videos)
        assert len(card.streams.waits) == 1

        result = loops.evaluate(state.model, [batch], loss, CUDA, "bf16")
        assert card.num_synchronizations == 0
        assert result.probabilities.shape == (len(batch.videos), CLASSES)
        assert not card.mixed_device_operations()
        assert not card.float64_operations()


@pytest.mark.parametrize("pooling", Pooling)
def test_kernels_do_not_depend_on_the_number_of_videos(pooling: str) -> None:
    counts = []
    for lengths in (LENGTHS[:3], LENGTHS * 4):
        with FakeCard() as card:
            state = make_train_state(make_config(Fusion.CROSS_ATTENTION, pooling), CUDA, "bf16")
            batch = make_batch(Fusion.CROSS_ATTENTION, pooling, lengths)
            card.reset()
            list(loops.train_steps(ModelReplica(state), [batch], F.binary_cross_entropy_with_logits, CUDA, "bf16"))
            counts.append(card.num_kernels)
            attention = "aten._scaled_dot_product_efficient_attention"  # its bias is taken as it is, not copied
            assert card.count(attention) == card.count(f"{attention}_backward") == 2 * LAYERS
    assert counts[0] == counts[1]


@pytest.mark.parametrize("fusion", [Fusion.RGB, Fusion.CONCAT_TIME, Fusion.CROSS_ATTENTION])
def test_one_long_video_is_not_padded_to(fusion: str) -> None:
    peaks = []
    for lengths in ([20_000], [20_000] + [100] * 7):
        with FakeCard(memory_bytes=80 * 10**9) as card:
            state = make_train_state(make_config(fusion, Pooling.MASKED), CUDA, "bf16")
            batch = make_batch(fusion, Pooling.MASKED, lengths)
            list(loops.train_steps(ModelReplica(state), [batch], F.binary_cross_entropy_with_logits, CUDA, "bf16"))
            peaks.append(card.peak_bytes)
            assert card.num_synchronizations == 0
            assert not card.mixed_device_operations()
    assert peaks[1] < 1.1 * peaks[0]


def test_attention_is_not_computed_by_cudnn() -> None:
    enabled = []
    with FakeCard():
        model = make_train_state(make_config(Fusion.CROSS_ATTENTION, Pooling.MASKED), CUDA, "bf16").model
        for attention in model.modules():
            if isinstance(attention, PackedAttention):
                attention.register_forward_hook(lambda *_: enabled.append(torch.backends.cuda.cudnn_sdp_enabled()))
        model(*make_batch(Fusion.CROSS_ATTENTION, Pooling.MASKED).model_inputs(CUDA))
    assert enabled == [False] * 2 * LAYERS
    assert torch.backends.cuda.cudnn_sdp_enabled()


@pytest.mark.parametrize("pooling", Pooling)
def test_a_resident_split_copies_integers_only(pooling: str, tmp_path: Path) -> None:
    folder = tmp_path / "embeddings"  # of width 8
    for split in ("train", "val"):
        write_rgb(folder / f"ak_{split}_clip_embeddings.h5", range(9) if split == "train" else range(9, 12))
    write_motion(folder / "flow_embeddings.h5", range(12))
    train = open_train_val(folder)[0]["train"]
    train.pooling = pooling
    with FakeCard() as card:
        splits = load_splits([train], 4, RunOptions(Path("run"), Path("logs"), CUDA))
        found = make_config(Fusion.CROSS_ATTENTION, pooling)
        found["model"] |= {"d_model": 8, "num_classes": 3}
        state, replica_loader = make_train_state(found, CUDA, "bf16"), ResidentLoader(splits[train], [[0, 5, 2]])
        card.reset()
        loss = F.binary_cross_entropy_with_logits
        (losses,) = loops.train_steps(ModelReplica(state), replica_loader, loss, CUDA, "bf16")
        copied = [op.inputs[-1].dtype for op in card.operations if op.copies("cpu", "cuda")]
        assert sorted(map(str, copied)) == ["torch.bfloat16"] * 2 + ["torch.int64"] * 2
        assert card.num_synchronizations == 0
        assert losses.count == 3
        assert not card.mixed_device_operations()
    with FakeCard(memory_bytes=1000):
        assert not load_splits([train], 4, RunOptions(Path("run"), Path("logs"), CUDA))


def test_fp16_scales_gradients_on_the_card() -> None:
    with FakeCard() as card:
        state = make_train_state(make_config(Fusion.CROSS_ATTENTION, Pooling.MASKED), CUDA, "fp16")
        batch = make_batch(Fusion.CROSS_ATTENTION, Pooling.MASKED)
        card.reset()
        list(loops.train_steps(ModelReplica(state), [batch], F.binary_cross_entropy_with_logits, CUDA, "fp16"))
        assert card.num_synchronizations == 0
        assert card.count("aten._amp_update_scale_") == 1
        assert card.count("aten._fused_adamw_") > 0
        assert not card.mixed_device_operations()
        assert not card.float64_operations()
