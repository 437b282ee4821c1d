"""TensorBoard shows no step twice after a resume, also if the stopped process logged events after its checkpoint."""

from pathlib import Path

import pytest
import torch

from tests.training.event_files import read_shown_events
from vimoclip.training import tensorboard

STEPS_PER_EPOCH = 4


def log_steps(folder: Path, first: int, last: int, closed: bool = True, old: bool = False) -> None:
    """Log these steps, and an epoch every STEPS_PER_EPOCH, like a process that resumes before the first one.

    `old`: like versions that opened a SummaryWriter without a purge step."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder)) if old else tensorboard.open_writer(folder, first)
    for step in range(first, last + 1):
        writer.add_scalar("step/loss", step, step)
        if step % STEPS_PER_EPOCH == 0:
            writer.add_scalar("val/loss", step, step)
            writer.add_image("val/panel", torch.full((3, 4, 4), step / 99), step)
            writer.add_pr_curve("val/curve", torch.tensor([1, 0]), torch.tensor([0.9, 0.1]), step)
    writer.flush()
    (path,) = folder.glob("*tfevents.1[0-9]*")
    # each process runs on a machine whose clock is behind that of the one before
    path.rename(folder / f"events.out.tfevents.{1_900_000_000 - len(list(folder.iterdir()))}.host")
    if closed:
        writer.close()


def assert_shows_steps(folder: Path, last: int) -> None:
    shown = {tag: [step for step, _ in values] for tag, values in read_shown_events(folder).items()}
    steps, epochs = [*range(1, last + 1)], [*range(STEPS_PER_EPOCH, last + 1, STEPS_PER_EPOCH)]
    assert shown.pop("step/loss") == steps
    assert shown == dict.fromkeys(("val/loss", "val/panel", "val/curve"), epochs)


@pytest.mark.parametrize("checkpoint", [0, 4, 6, 7, 8])  # a new start, ends of epochs, within an epoch
@pytest.mark.parametrize("old", [False, True])
def test_events_after_the_checkpoint_are_hidden(tmp_path: Path, checkpoint: int, old: bool) -> None:
    log_steps(tmp_path, 1, 9, closed=False, old=old)  # killed
    log_steps(tmp_path, checkpoint + 1, checkpoint + 1)  # killed after a step, without a checkpoint
    log_steps(tmp_path, checkpoint + 1, 13)
    assert_shows_steps(tmp_path, 13)
    log_steps(tmp_path, 11, 16)
    assert_shows_steps(tmp_path, 16)


@pytest.mark.parametrize("cut", [1, 10, 30])
def test_a_truncated_record_hides_no_later_event(tmp_path: Path, cut: int) -> None:
    log_steps(tmp_path, 1, 6)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-cut])
    log_steps(tmp_path, 6, 9)
    (tmp_path / "events.out.tfevents.0000000003.empty").touch()
    assert_shows_steps(tmp_path, 9)
