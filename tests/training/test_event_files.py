"""Resuming a run removes the TensorBoard events after its checkpoint."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.event_files import read_raw_events, read_shown_events
from vimoclip.training import tensorboard


def write_events(folder: Path, steps: range, epochs: range, value: float = 0.0) -> None:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    for step in steps:
        writer.add_scalar("step/loss", value + step, step)
    for epoch in epochs:
        writer.add_scalar("val/loss", value + epoch, epoch)
        writer.add_image("val/panel", torch.full((3, 4, 4), epoch / 9), epoch)
    writer.close()


def resume_writer(folder: Path, epoch: int, step: int) -> dict[str, list[int]]:
    """Open and close a writer; return the remaining steps by tag, and assert that TensorBoard shows the same."""
    tensorboard.open_writer(folder, epoch, step).close()
    steps = {tag: [step for step, _ in values] for tag, values in read_shown_events(folder).items()}
    raw: dict[str, list[int]] = {}
    for tag, number, _ in read_raw_events(folder):
        raw.setdefault(tag, []).append(number)
    assert raw == steps
    return steps


def test_only_events_up_to_the_checkpoint_stay(tmp_path: Path) -> None:
    write_events(tmp_path, range(1, 11), range(1, 4))
    before = {(tag, step): value for tag, step, value in read_raw_events(tmp_path)}
    expected = {"step/loss": [*range(1, 8)], "val/loss": [1, 2], "val/panel": [1, 2]}
    assert resume_writer(tmp_path, 2, 7) == expected
    assert all(before[tag, step] == value for tag, step, value in read_raw_events(tmp_path))
    assert resume_writer(tmp_path, 2, 7) == expected
    write_events(tmp_path, range(8, 13), range(3, 5))
    assert resume_writer(tmp_path, 3, 11) == {
        "step/loss": [*range(1, 12)],
        "val/loss": [1, 2, 3],
        "val/panel": [1, 2, 3],
    }
    assert len(list(tmp_path.iterdir())) == 2  # the rewritten file, and the writer's
    assert resume_writer(tmp_path, 0, 0) == {}  # a run that starts again


def test_events_duplicated_by_purge_step_are_removed(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    write_events(tmp_path, range(1, 11), range(1, 4))
    (first,) = tmp_path.iterdir()
    first.rename(tmp_path / "events.out.tfevents.1000000000.first")  # files are read in the order of their timestamps
    writer = SummaryWriter(str(tmp_path), purge_step=8)
    for step in range(8, 15):
        writer.add_scalar("step/loss", 100 + step, step)
    writer.add_scalar("val/loss", 103, 3)
    writer.close()
    assert resume_writer(tmp_path, 3, 13) == {
        "step/loss": [*range(1, 14)],
        "val/loss": [1, 2, 3],
        "val/panel": [1, 2, 3],
    }
    values = {(tag, step): value for tag, step, value in read_raw_events(tmp_path)}
    assert (
        values["step/loss", 7] == 7 and values["step/loss", 8] == 108 and values["val/loss", 3] == 103
    )  # the last one counts


@pytest.mark.parametrize("cut", [1, 10, 30])
def test_a_truncated_record_is_ignored(tmp_path: Path, cut: int) -> None:
    write_events(tmp_path, range(1, 6), range(0))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-cut])
    assert resume_writer(tmp_path, 0, 5) == {"step/loss": [1, 2, 3, 4]}
    (tmp_path / "events.out.tfevents.1.empty").touch()
    assert resume_writer(tmp_path, 0, 5) == {"step/loss": [1, 2, 3, 4]}


def test_a_kill_during_rewriting_loses_and_duplicates_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_events(tmp_path, range(1, 4), range(1, 2))
    write_events(tmp_path, range(4, 9), range(2, 3))
    expected = {"step/loss": [*range(1, 8)], "val/loss": [1, 2], "val/panel": [1, 2]}

    def kill(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    unlink, before = Path.unlink, sorted(read_raw_events(tmp_path), key=repr)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("vimoclip.io.atomic.publish", kill)  # before the new file is renamed
        tensorboard.open_writer(tmp_path, 2, 7)
    assert sorted(read_raw_events(tmp_path), key=repr) == before
    for num_deleted in (0, 1):  # after the rename and the removal of this number of old files
        remaining = [num_deleted]

        def unlink_or_interrupt(path: Path, remaining: list[int] = remaining) -> None:
            if not remaining[0]:
                raise KeyboardInterrupt
            remaining[0] -= 1
            unlink(path)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Path, "unlink", unlink_or_interrupt)
            tensorboard.open_writer(tmp_path, 2, 7)
        assert {(tag, step) for tag in expected for step in expected[tag]} <= {
            event[:2] for event in read_raw_events(tmp_path)
        }
    assert resume_writer(tmp_path, 2, 7) == expected
    assert not list(tmp_path.glob("*.partial"))
