"""Reading embeddings: every video of a file once, against the published file, gzip in chunks of one frame."""

from pathlib import Path

import h5py
import numpy as np

from benchmarks.harness import Row, copy_rate, in_turn, peak_memory, row
from benchmarks.inputs import Inputs

GOAL = "15x gzip"


def run(inputs: Inputs, rounds: int) -> list[Row]:
    path = inputs.embeddings()["rgb_train"]
    published = inputs.folder / "published.h5"
    if not published.is_file() or published.stat().st_mtime < path.stat().st_mtime:
        write_published(path, published)
    check_equal(path, published)
    ours = reader(path)
    work = {
        "plain": lambda: read_plain(published, ours.keys),
        "ours": lambda: read_ours(path),
        "again": lambda: sum(len(ours.embeddings(key)) for key in ours.keys),
        "unpacked": lambda: read_plain(path, ours.keys),
    }
    rates = in_turn(work, rounds)
    bound = copy_rate() / (4 * ours.dim)
    memory = peak_memory(read_plain, published, ours.keys), peak_memory(read_ours, path)
    common = {"bound": bound, "bound_name": "copying memory"}
    plain = rates["plain"]
    return [
        row(
            "reading", "all videos, with opening the file", "frame", {"plain": plain, "ours": rates["ours"]},
            memory=memory, goal=GOAL, **common,
        ),
        row("reading", "all videos, file open", "frame", {"plain": plain, "ours": rates["again"]}, goal=GOAL, **common),
        row(
            "reading", "all videos, one opening a video, but not packed", "frame",
            {"plain": plain, "ours": rates["unpacked"]}, note="what the packing alone costs", **common,
        ),
    ]  # fmt: skip


def reader(path: Path):  # type: ignore[no-untyped-def]  # h5py, and with it store, waits until run is called
    from vimoclip.store import Reader

    return Reader(path, "rgb")


def read_plain(path: Path, keys: list[str]) -> int:
    """As a published data set reads an item: open the file, take the rows, close it. Gives the number of frames."""
    frames = 0
    for key in keys:
        with h5py.File(path, "r") as file:
            frames += len(np.array(file[key]["embeddings"]))
    return frames


def read_ours(path: Path) -> int:
    opened = reader(path)
    frames = sum(len(opened.embeddings(key)) for key in opened.keys)
    opened.close()
    return frames


def write_published(path: Path, published: Path) -> None:
    """The same values as the published extractor packs them."""
    ours = reader(path)
    with h5py.File(published, "w") as file:
        for key in ours.keys:
            group, rows = file.create_group(key), ours.embeddings(key)
            group.create_dataset("embeddings", data=rows, chunks=(1, rows.shape[1]), compression="gzip")
            group.create_dataset("labels", data=ours.labels(key))


def check_equal(path: Path, published: Path) -> None:
    """Raise ValueError where the two ways don't read the same."""
    ours = reader(path)
    with h5py.File(published, "r") as file:
        for key in ours.keys:
            if not np.array_equal(ours.embeddings(key), file[key]["embeddings"][:]):
                raise ValueError(f"{key} is read differently from {path} and {published}")
