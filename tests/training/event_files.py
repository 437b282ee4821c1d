"""Reading of TensorBoard's event files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

Events = dict[str, list[tuple[int, Any]]]  # tag -> (step, value)


def read_raw_events(logs: Path) -> Iterator[tuple[str, int]]:
    """Yield (tag, step) of all events in the files of a folder."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    for path in sorted(logs.glob("*tfevents*")):
        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                yield value.tag, event.step


def read_shown_events(logs: Path) -> Events:
    """Return what TensorBoard shows of a folder and its subfolders, and assert that each (tag, step) is shown once."""
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

    board = EventMultiplexer(tensor_size_guidance={"scalars": 0, "images": 0, "pr_curves": 0})
    board.AddRunsFromDirectory(str(logs)).Reload()
    events: Events = {}
    for run, tags in board.Runs().items():
        for tag in tags["tensors"]:
            values = [(e.step, e.tensor_proto.SerializeToString(deterministic=True)) for e in board.Tensors(run, tag)]
            assert len({step for step, _ in values}) == len(values), (run, tag)
            events[f"{run}/{tag}".removeprefix("./")] = values
    return events
