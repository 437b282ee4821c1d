"""Reading of TensorBoard's event files."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Events = dict[str, list[tuple[int, Any]]]  # tag -> (step, value)


def read_raw_events(logs: Path) -> Iterator[tuple[str, int, Any]]:
    """Yield (tag, step, value) of all events in the files of a folder."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    for path in sorted(logs.glob("*tfevents*")):
        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                yield value.tag, event.step, value.image.encoded_image_string or value.simple_value


def read_shown_events(logs: Path) -> Events:
    """Return the events that TensorBoard shows, and assert that each (tag, step) is in the files once."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    duplicates = {key: n for key, n in Counter((tag, step) for tag, step, _ in read_raw_events(logs)).items() if n > 1}
    assert not duplicates
    board = EventAccumulator(str(logs), {"images": 0, "scalars": 0}).Reload()
    events: Events = {tag: [(e.step, e.value) for e in board.Scalars(tag)] for tag in board.Tags()["scalars"]}
    return events | {
        tag: [(e.step, e.encoded_image_string) for e in board.Images(tag)] for tag in board.Tags()["images"]
    }
