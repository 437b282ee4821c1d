"""Learned flow on a simulated card: memory, batches of grid_sample, precision of the correlation, copies."""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor

from tests.gpu.fake_card import FakeCard, Operation
from vimoclip import flow
from vimoclip.errors import DeviceMemoryError, VideoError
from vimoclip.flow import visualization
from vimoclip.runtime.device import autocast

CUDA = torch.device("cuda:0")
CUDNN_SAMPLES = 65_536  # in a batch of grid_sample: cuDNN fails from here on
SMALL, LARGE = 24 * 10**9, 141 * 10**9  # bytes: of an RTX 4090 and an H200
SIZES = {"720p": (720, 1280), "1080p": (1080, 1920), "2160p": (2160, 3840)}  # height, width
MODELS = ("sea_raft_s", "gma", "neuflow2")


def make_flow(name: str, precision: str = "bf16") -> flow.PTLFlowModel:
    """Return a model with random weights and two iterations, on which memory does not depend."""
    model = flow.PTLFlowModel(name, None, None, CUDA, partial(autocast, CUDA, precision))
    for attribute in {"iters", "iters_s8"} & vars(model.model).keys():
        setattr(model.model, attribute, 2)
    return model


def compute_flow(model: flow.PTLFlowModel, size: str, pairs: int) -> None:
    height, width = SIZES[size]
    vectors = model.on_device(np.zeros((pairs + 1, height, width, 3), np.uint8))
    assert (tuple(vectors.shape), vectors.dtype) == ((pairs, 2, height, width), torch.float32)


def most_samples(card: FakeCard) -> int:
    """Return the length of the largest batch of grid_sample."""
    return max((op.inputs[0].shape[0] for op in card.operations if "grid_sampler" in op.name), default=0)


@pytest.mark.parametrize(
    ("size", "memory", "pairs"),
    [
        ("720p", SMALL, 8),
        ("1080p", 7 * 10**9, 1),  # without a second copy of the correlation, which is divided in place
        ("1080p", SMALL, 8),
        ("1080p", LARGE, 8),
        ("2160p", LARGE, 2),
    ],
)
def test_raft_fits_the_card_at_any_size(size: str, memory: int, pairs: int) -> None:
    """One pair of 2160p correlates 129,600 with as many pixels, in 67 GB."""
    with FakeCard(memory) as card:
        compute_flow(make_flow("raft"), size, pairs)
        assert not card.num_failed_allocations
        assert most_samples(card) < CUDNN_SAMPLES
        pooled = [math.prod(op.inputs[0].shape) for op in card.operations if op.name == "aten.avg_pool2d"]
        assert pooled and max(pooled) < 2**31  # the kernel counts elements in 32 bits


@pytest.mark.parametrize("name", MODELS)
def test_other_models_fit_the_card(name: str) -> None:
    with FakeCard(SMALL) as card:
        model = make_flow(name)
        card.reset()
        compute_flow(model, "720p", 8)
        assert not card.num_failed_allocations
        assert most_samples(card) < CUDNN_SAMPLES
        assert not card.float64_operations()
        assert not card.mixed_device_operations()


@pytest.mark.parametrize(("size", "memory"), [("2160p", SMALL), ("720p", 10**9)])
def test_too_little_memory_for_one_pair_is_the_videos_error(size: str, memory: int) -> None:
    with FakeCard(memory), pytest.raises(VideoError):
        compute_flow(make_flow("raft"), size, 2)


def test_dpflow_has_the_same_correlation_after_too_little_memory() -> None:
    """By itself it would take another one for all later videos, which needs an extension that ptlflow lacks."""
    with FakeCard(2 * 10**8):
        model = make_flow("dpflow")
        with pytest.raises(VideoError):
            compute_flow(model, "720p", 1)
        assert model.model.corr_mode == "allpairs"


def test_batch_is_halved_if_another_process_takes_memory() -> None:
    with FakeCard(SMALL) as card:
        model = make_flow("raft")
        compute_flow(model, "720p", 1)
        card.memory_bytes = 10 * 10**9  # eight pairs take more, four less
        compute_flow(model, "720p", 8)
        assert card.num_failed_allocations == 1


def test_memory_that_other_processes_use_ends_the_run_and_fails_no_video() -> None:
    """The run can be resumed when the memory is free; a failed video would not be tried again."""
    with FakeCard(10**9), pytest.MonkeyPatch.context() as patch, pytest.raises(DeviceMemoryError):
        patch.setattr(torch.cuda, "mem_get_info", lambda device=None: (10**9 // 2, SMALL))
        compute_flow(make_flow("raft"), "720p", 2)


@pytest.mark.parametrize(
    ("name", "precision"),
    [("raft", "bf16"), ("raft", "fp16"), ("sea_raft_s", "bf16"), ("neuflow2", "bf16")],
)
def test_correlation_is_float32_in_half_precision(name: str, precision: str) -> None:
    """The correlation of all pairs of pixels is the largest matrix product."""
    with FakeCard(SMALL) as card:
        model = make_flow(name, precision)
        card.reset()
        compute_flow(model, "720p", 1)
        products = [op for op in card.operations if op.name in ("aten.bmm", "aten.mm")]
        correlation = max(products, key=lambda op: op.outputs[0].nbytes)
        assert {tensor.dtype for tensor in correlation.tensors} == {torch.float32}
        assert not [op for op in card.operations if changes_precision(op, correlation.outputs[0].nbytes // 2)]


@pytest.mark.parametrize("name", ["raft", "raft_small"])
def test_a_batch_casts_no_weights(name: str) -> None:
    with FakeCard(SMALL) as card:
        model = make_flow(name)
        shapes = {tuple(parameter.shape) for parameter in model.model.parameters()}
        card.reset()
        compute_flow(model, "720p", 1)
        assert not [op for op in card.operations if op.name == "aten._to_copy" and op.inputs[0].shape in shapes]


def test_other_models_cast_weights_once_for_all_iterations() -> None:
    with FakeCard(SMALL) as card:
        model = make_flow("gma")
        weights = [weight for weight in model.model.update_block.parameters() if weight.dim() == 4]
        shapes = {tuple(weight.shape) for weight in weights}
        card.reset()
        compute_flow(model, "720p", 1)
        casts = [op for op in card.operations if op.name == "aten._to_copy" and op.inputs[0].shape in shapes]
        assert 0 < len(casts) <= len(weights)


def changes_precision(operation: Operation, min_bytes: int) -> bool:
    """Return whether an operation converts a tensor of at least this size to another dtype."""
    return (
        operation.name == "aten._to_copy"
        and operation.inputs[0].nbytes >= min_bytes
        and operation.inputs[0].dtype != operation.outputs[0].dtype
    )


def test_frames_are_copied_once_from_pinned_memory() -> None:
    with FakeCard(SMALL) as card:
        model = make_flow("raft")
        card.reset()
        compute_flow(model, "720p", 8)
        assert card.copies_to_card() == [9 * 720 * 1280 * 3]
        assert card.num_pinned == 1
        assert card.num_synchronizations == 0


# --- launches, copies back


@pytest.fixture
def color_tables() -> Iterator[None]:
    """Keep fake tensors out of the cached tables of flow colours."""
    visualization.color_table()
    yield
    visualization._color_table_tensor.cache_clear()


def make_renderer(card: FakeCard, height: int, width: int, normalization: str = "log") -> flow.FlowRenderer:
    """Return a renderer by RAFT that knows the memory of a pair of this size."""
    render = flow.load_renderer("raft", None, 2, normalization, 0.05, CUDA, "bf16")
    render(np.zeros((2, height, width, 3), np.uint8))
    card.reset()
    return render


def test_an_iteration_of_raft_starts_few_kernels() -> None:
    """ptlflow's own starts 113."""
    kernels = []
    with FakeCard(LARGE) as card:
        model = make_flow("raft")
        for model.model.iters in (2, 2, 3):  # the first one measures memory
            card.reset()
            model.on_device(np.zeros((33, 224, 398, 3), np.uint8))
            kernels.append(card.num_kernels)
    assert 0 < kernels[2] - kernels[1] <= 60


@pytest.mark.parametrize("normalization", flow.NORMALIZATIONS)
def test_colors_start_few_kernels_and_no_float64(normalization: str, color_tables: None) -> None:
    with FakeCard() as card:
        vectors = torch.zeros(32, 2, 224, 398, device=CUDA)
        flow.flow_to_color_torch(vectors, normalization, 0.05)  # copies the table
        card.reset()
        flow.flow_to_color_torch(vectors, normalization, 0.05)
        assert card.num_kernels <= 18
        assert not card.num_synchronizations
        assert not card.float64_operations()


def test_images_come_back_as_bytes_without_a_synchronization(color_tables: None) -> None:
    with FakeCard(LARGE) as card:
        render = make_renderer(card, 128, 160)
        assert render(np.zeros((33, 128, 160, 3), np.uint8)).shape == (32, 128, 160, 3)
        assert card.copies_to_card() == [33 * 128 * 160 * 3]
        assert card.copies_to_cpu() == [32 * 128 * 160 * 3, 32 * 4]  # images, largest magnitudes
        assert not card.num_synchronizations
        assert not card.streams.races


def test_a_batch_is_launched_before_the_images_of_the_one_before_are_awaited(color_tables: None) -> None:
    with FakeCard(LARGE) as card:
        render = make_renderer(card, 128, 160)
        batches = [np.zeros((frames, 128, 160, 3), np.uint8) for frames in (5, 5, 3)]
        launched = [len(images) for images in render.render_batches(batches) if card.streams.waits]
        assert launched == [4, 4, 2]
        waits = card.streams.waits[::2]  # of the images; the magnitudes of a batch follow them at once
        assert all(later_operations > 100 for later_operations in waits[:2])
        assert not card.streams.races


def test_flow_that_is_not_finite_is_noticed_with_its_images(
    color_tables: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeCard(LARGE) as card:
        render = make_renderer(card, 128, 160)
        fetch = render.launch(np.zeros((3, 128, 160, 3), np.uint8))
        not_a_number = lambda tensor: np.full(tuple(tensor.shape), np.nan)  # noqa: E731
        monkeypatch.setattr(FakeTensor, "numpy", not_a_number)
        with pytest.raises(VideoError, match="not finite"):
            fetch()
