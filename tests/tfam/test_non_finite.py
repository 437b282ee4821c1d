"""A loss that is not finite ends a run before anything is saved, although it is read one step late."""

from pathlib import Path

import pytest
import torch

from tests.tfam.helpers import train_command
from TFAM import train_and_eval
from TFAM.data import ClipFeatures, PairedEmbeddings
from vimoclip.errors import TrainingError
from vimoclip.runtime import seeding
from vimoclip.training import checkpoint, losses

BATCH_SIZE, SEED, LAST = 2, 49, Path("checkpoints/TFAM/cross_attention/seed49/last.pth")


@pytest.mark.parametrize("step", [2, 4])  # within the epoch of five steps, the last one
@pytest.mark.parametrize("minutes", ["0", "60"])
def test_no_checkpoint_holds_the_weights_of_a_non_finite_loss(
    step: int, minutes: str, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned = f"V{seeding.epoch_permutation(9, SEED, 1)[step * BATCH_SIZE]:02}.mp4"
    read = PairedEmbeddings.__getitem__

    def read_poisoned(self: PairedEmbeddings, index: int) -> ClipFeatures:
        clip = read(self, index)
        return clip._replace(rgb=clip.rgb * float("nan")) if clip.video == poisoned else clip

    monkeypatch.setattr(PairedEmbeddings, "__getitem__", read_poisoned)
    with pytest.raises(TrainingError) as error:
        train_and_eval.main(["--save-every-minutes", minutes, *train_command(), f"training.batch_size={BATCH_SIZE}"])
    assert poisoned in error.value.problem
    assert "training.lr" in error.value.hint
    if minutes == "60":
        assert not LAST.exists()
        return
    saved = checkpoint.load_checkpoint(LAST)
    assert saved["progress"]["steps"] == step
    assert all(torch.isfinite(weight).all() for weight in saved["state_dict"].values())


def test_no_checkpoint_holds_weights_that_a_finite_loss_makes_nan(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def has_nan_gradient(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return losses.MULTI_LABEL_LOSSES["focal"](logits, labels) + (0 * logits).sum().sqrt()

    monkeypatch.setitem(losses.MULTI_LABEL_LOSSES, "bce", has_nan_gradient)
    with pytest.raises(TrainingError):
        train_and_eval.main(["--save-every-minutes", "0", *train_command(), f"training.batch_size={BATCH_SIZE}"])
    assert not LAST.exists()
