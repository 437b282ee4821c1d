"""The simulated card itself: what it counts, when it is full, what it answers, and that nothing of it stays."""

import pytest
import torch
from torch import nn

from tests.gpu.fake_backward import python_backward
from tests.gpu.fake_card import FakeCard
from vimoclip.runtime.device import autocast, select_device, select_precision

CUDA = torch.device("cuda:0")


def test_memory_counts_each_storage_once_while_it_lives() -> None:
    with FakeCard() as card:
        tensor = torch.zeros(1000, 1000, device=CUDA)
        view = tensor[:10].t()
        assert card.live_bytes == 4_000_256  # a multiple of 512
        del tensor
        assert card.live_bytes == torch.cuda.memory_allocated() == 4_000_256
        del view
        assert (card.live_bytes, card.peak_bytes) == (0, 4_000_256)
        torch.zeros(1000)  # on the CPU
        assert torch.cuda.max_memory_allocated() == 4_000_256
        torch.cuda.reset_peak_memory_stats()
        assert (torch.cuda.max_memory_allocated(), card.peak_bytes) == (0, 4_000_256)


def test_memory_keeps_what_the_backward_pass_needs() -> None:
    """Each of three layers keeps its input; weights and gradients are small."""
    with FakeCard() as card:
        model = nn.Sequential(*(nn.Linear(16, 16) for _ in range(3))).to(CUDA)
        inputs = torch.zeros(2**20, 16, device=CUDA)
        loss = model(inputs).sum()
        assert 3 * inputs.nbytes <= card.live_bytes < 3.1 * inputs.nbytes
        loss.backward()
        assert inputs.nbytes <= card.live_bytes < 1.1 * inputs.nbytes
        assert card.peak_bytes < 5.1 * inputs.nbytes


def test_a_full_card_raises_and_keeps_what_it_has() -> None:
    with FakeCard(10**6) as card:
        kept = torch.zeros(10**5, device=CUDA)
        with pytest.raises(torch.OutOfMemoryError):
            torch.zeros(10**6, device=CUDA)
        assert (card.live_bytes, card.num_failed_allocations) == (kept.nbytes + 384, 1)
        free, total = torch.cuda.mem_get_info()
        assert (free, total) == (10**6 - card.live_bytes, 10**6)


def test_masks_are_true_and_numbers_finite() -> None:
    with FakeCard():
        values = torch.zeros(4, 5, 6, device=CUDA)
        mask = torch.zeros(4, 5, dtype=torch.bool, device=CUDA)
        assert values[mask].shape == (20, 6)
        assert values[0][mask[0]].shape == (5, 6)
        assert values.masked_select(mask[..., None]).shape == (120,)
        assert mask.nonzero().shape == (20, 2)
        assert bool(torch.isfinite(values).all())
        assert float(values.sum()) == 0
        assert values.cpu().numpy().shape == (4, 5, 6)


def test_two_devices_in_one_operation_are_refused() -> None:
    with FakeCard(), pytest.raises(RuntimeError, match="device"):
        torch.zeros(3, device=CUDA) + torch.zeros(3)


@pytest.mark.parametrize("context", [torch.inference_mode, torch.enable_grad])
def test_kernels_casts_and_copies_are_counted(context: type) -> None:
    with FakeCard() as card:
        layer = nn.Linear(8, 8).to(CUDA)
        card.reset()
        with context(), autocast(CUDA, "bf16"):
            output = layer(torch.zeros(2, 8).pin_memory().to(CUDA, non_blocking=True))
        assert output.dtype == torch.bfloat16
        output.detach().cpu()
        assert card.count("aten._to_copy", torch.float32, torch.bfloat16) == 3  # input, weight, bias
        assert (card.copies_to_card(), card.copies_to_cpu(), card.num_pinned) == ([64], [32], 1)
        assert card.num_kernels == 6  # those copies and addmm
        assert card.num_synchronizations == 1


def test_the_product_sees_one_card_within_the_block_only() -> None:
    before = torch.cuda.is_available()
    with FakeCard():
        assert select_device("auto") == CUDA
        assert select_precision("auto", CUDA) == "bf16"
    assert torch.cuda.is_available() == before
    assert torch.zeros(3).numpy().shape == (3,)


def test_backward_pass_equals_pytorchs() -> None:
    """On the CPU, with layers that broadcast, branch, have several outputs, and change their input."""
    expected = example_gradients()
    with python_backward():
        gradients = example_gradients()
    for gradient, reference in zip(gradients, expected, strict=True):
        assert torch.equal(gradient, reference)


def example_gradients() -> list[torch.Tensor]:
    torch.manual_seed(0)
    attention, shift = nn.MultiheadAttention(8, 2, batch_first=True), nn.Parameter(torch.randn(1, 8))
    images = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16, 8))
    tokens = (images(torch.randn(6, 3, 4, 4)) + shift).unflatten(0, (2, 3))
    attended, _ = attention(tokens, tokens, tokens, need_weights=False)
    first, second = (attended * shift).chunk(2, -1)
    chosen = tokens[torch.tensor([[True, False, True], [True, True, False]])]
    ((first * second.exp()).square().mean() + chosen.sum() + shift.norm()).backward()
    parameters = [*images.parameters(), *attention.parameters(), shift]
    return [parameter.grad for parameter in parameters if parameter.grad is not None]
