"""Reading of all embeddings of a file, against the published format (gzip, chunks of one frame)."""

from pathlib import Path

import h5py
import numpy as np

from benchmarks.harness import BenchmarkRow, make_row, measure_peak_memory, measure_rates, memory_copy_rate
from benchmarks.inputs import BenchmarkInputs


def run(inputs: BenchmarkInputs, rounds: int) -> list[BenchmarkRow]:
    path = inputs.embeddings()["rgb_train"]
    published = inputs.folder / "published.h5"
    if not published.is_file() or published.stat().st_mtime < path.stat().st_mtime:
        write_published(path, published)
    check_same_rows(path, published)
    ours = open_reader(path)
    work = {
        "plain": lambda: read_plain(published, ours.keys),
        "ours": lambda: read_embeddings(path),
    }
    bound = memory_copy_rate() / (4 * ours.dim)
    memory = measure_peak_memory(read_plain, published, ours.keys), measure_peak_memory(read_embeddings, path)
    row = make_row(
        "reading",
        "all videos, with opening the file",
        "frame",
        measure_rates(work, rounds),
        bound=bound,
        bound_name="copying memory",
        memory=memory,
        goal="15x gzip",
    )
    return [row]


def open_reader(path: Path):  # type: ignore[no-untyped-def]  # imports h5py, so only at a call
    from vimoclip.store import EmbeddingReader

    return EmbeddingReader(path, "rgb")


def read_plain(path: Path, keys: list[str]) -> int:
    """Open the file for each item, as the published data set does; return the number of frames."""
    frames = 0
    for key in keys:
        with h5py.File(path, "r") as file:
            frames += len(np.array(file[key]["embeddings"]))
    return frames


def read_embeddings(path: Path) -> int:
    reader = open_reader(path)
    frames = sum(len(reader.embeddings(key)) for key in reader.keys)
    reader.close()
    return frames


def write_published(path: Path, published: Path) -> None:
    """Write the same values, compressed as by the published extractor."""
    ours = open_reader(path)
    with h5py.File(published, "w") as file:
        for key in ours.keys:
            group, rows = file.create_group(key), ours.embeddings(key)
            group.create_dataset("embeddings", data=rows, chunks=(1, rows.shape[1]), compression="gzip")
            group.create_dataset("labels", data=ours.labels(key))


def check_same_rows(path: Path, published: Path) -> None:
    """Raise ValueError if the two files differ."""
    ours = open_reader(path)
    with h5py.File(published, "r") as file:
        for key in ours.keys:
            if not np.array_equal(ours.embeddings(key), file[key]["embeddings"][:]):
                raise ValueError(f"{key} is read differently from {path} and {published}")
