"""A loss that is not finite ends a run before anything is saved, although it is read one step late."""

from pathlib import Path

import pytest
import torch

import train
from tests.moclip.helpers import TRAIN_FLAGS
from vimoclip.errors import TrainingError
from vimoclip.moclip.dataset import SegmentBatch, SegmentDataset
from vimoclip.runtime import seeding
from vimoclip.training import checkpoint


@pytest.mark.parametrize("step", [2, None])  # within the epoch, its last step
def test_no_checkpoint_holds_the_weights_of_a_non_finite_loss(
    step: int | None, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = SegmentDataset.__getitem__
    poisoned = []

    def read_poisoned(self: SegmentDataset, index: int) -> SegmentBatch:
        batch = read(self, index)
        assert isinstance(batch, SegmentBatch)
        order = seeding.epoch_permutation(len(self), 0, 0)
        if index != order[-1 if step is None else 4 * step + 1]:
            return batch
        poisoned.append(batch.keys[0])
        return batch._replace(z_image=batch.z_image * float("nan"))

    monkeypatch.setattr(SegmentDataset, "__getitem__", read_poisoned)
    flags = ["--seed", "0", "--batch-size", "4", "--epochs", "1", "--run-name", "run", "--save-every-minutes", "0"]
    with pytest.raises(TrainingError) as error:
        train.main([*TRAIN_FLAGS, *flags])
    assert poisoned[0] in error.value.problem
    assert "training loss" in error.value.problem  # not that of the validation
    saved = checkpoint.load_checkpoint(Path("checkpoints/run/last.pth"))
    assert step is None or saved["progress"]["step"] == step
    assert all(torch.isfinite(weight).all() for weight in saved["state_dict"].values())
