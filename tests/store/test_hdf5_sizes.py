"""HDF5 files that declare more data than they hold: memory and time are bounded."""

import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.store.test_untrusted_hdf5 import assert_refused
from tests.store.untrusted_hdf5 import ROWS, read_all_videos, write_h5
from tests.untrusted_files import refusal_message
from vimoclip import store

TERABYTE_SHAPE = (2**28, 2**10)  # a terabyte of float32


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (2**10, 2**10)},
        {"chunks": (2**10, 2**10), "compression": "gzip"},
        {"chunks": (1, 2**10), "maxshape": (None, 2**10), "fillvalue": 1},
    ],
)
@pytest.mark.parametrize("has_schema", [True, False])
def test_declaring_more_than_the_file_holds_allocates_no_memory(
    h5_path: Path, options: dict[str, Any], has_schema: bool
) -> None:
    with h5py.File(h5_path, "r+") as file:
        del file["a.mp4/embeddings"]
        data = file["a.mp4"].create_dataset("embeddings", TERABYTE_SHAPE, "f4", **options)
        if options:
            data[0] = 1
        if not has_schema:
            del file.attrs["schema"]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    text = refusal_message(lambda: read_all_videos(h5_path), h5_path)
    assert "'a.mp4'/embeddings claims" in text
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB
    assert h5_path.stat().st_size < 10_000_000


def test_data_beyond_the_end_of_the_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    rows = np.zeros((1000, 16), "f4")
    with h5py.File(path, "w") as file:
        file["a/embeddings"] = rows
        start = file["a/embeddings"].id.get_offset()
    data = path.read_bytes()
    layout = start.to_bytes(8, "little") + (64_000).to_bytes(8, "little")
    assert data.count(layout) == 1
    path.write_bytes(data.replace(layout, (len(data) - 100).to_bytes(8, "little") + layout[8:]))
    refusal_message(lambda: read_all_videos(path), path)


def test_a_chunk_that_decompresses_to_more_than_declared_is_refused(tmp_path: Path) -> None:
    import zlib

    path = write_h5(tmp_path / "a.h5", chunks=(ROWS, 4), compression="gzip")
    assert read_all_videos(path)
    with h5py.File(path, "r+") as file:
        file["a.mp4/embeddings"].id.write_direct_chunk((0, 0), zlib.compress(bytes(10**8)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refusal_message(lambda: read_all_videos(path), path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KB


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_missing_and_duplicated_chunks_are_refused(tmp_path: Path, compression: str | None) -> None:
    missing, duplicated = tmp_path / "missing.h5", tmp_path / "duplicated.h5"
    with h5py.File(missing, "w") as file:
        file.create_dataset("a/embeddings", (150, 150), "f4", chunks=(100, 100), compression=compression)
        for corner in ((0, 0), (0, 100), (100, 0)):  # more bytes than the values have
            file["a/embeddings"][corner] = 1
    with h5py.File(duplicated, "w") as file:
        data = file.create_dataset("a/embeddings", data=np.ones((20, 1024), "f4"), chunks=(1, 1024))
        starts: list[int] = []
        data.id.chunk_iter(lambda chunk: starts.append(chunk.byte_offset))
    changed = duplicated.read_bytes()
    for start in starts[1:]:
        changed = changed.replace(start.to_bytes(8, "little"), starts[0].to_bytes(8, "little"))
    end = starts[0] + 4096
    duplicated.write_bytes(changed[:40] + end.to_bytes(8, "little") + changed[48:end])
    with h5py.File(duplicated) as file:
        assert file["a/embeddings"][:].all()  # libhdf5 reports no error
    for path in (missing, duplicated):
        assert "holds fewer" in refusal_message(lambda: read_all_videos(path), path)  # noqa: B023


def test_nested_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((2, 4))
        for _ in range(2):
            properties.set_deflate(9)
        group, space = file.create_group("a"), h5py.h5s.create_simple((2, 4))
        h5py.h5d.create(group.id, b"embeddings", h5py.h5t.IEEE_F32LE, space, properties)
        group["embeddings"][:] = 1
    assert "gzip" in refusal_message(lambda: read_all_videos(path), path)


@pytest.mark.parametrize("options", [{"compression": "lzf"}, {"scaleoffset": 2}])
def test_other_compression_filters_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    path = write_h5(tmp_path / "a.h5", chunks=(ROWS, 4), **options)
    assert_refused(path, "'a.mp4'/embeddings")


def test_a_long_string_that_could_be_referenced_many_times_is_refused(h5_path: Path) -> None:
    with h5py.File(h5_path, "r+") as file:
        file.attrs["clip_model"] = "x" * 10**6
    assert "a heap of texts" in refusal_message(lambda: store.EmbeddingReader(h5_path), h5_path)


def test_endless_global_heap_is_refused(h5_path: Path) -> None:
    """libhdf5 loops over it forever, so this runs in a process that can be killed."""
    data = bytearray(h5_path.read_bytes())
    heap = data.index(b"GCOL")
    data[heap + 16 : heap + 32] = bytes(16)
    h5_path.write_bytes(data)
    code = (
        "import sys; from pathlib import Path; from vimoclip import store; from vimoclip.errors import UserError\n"
        "assert store.verify(Path(sys.argv[1]))\n"
        "try: store.EmbeddingReader(Path(sys.argv[1]))\nexcept UserError as error: print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, h5_path], capture_output=True, text=True, timeout=60, check=True
    )
    assert str(h5_path) in result.stdout
    assert "no end" in result.stdout


def test_thirty_thousand_videos_open_in_seconds(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for number in range(30_000):
            group = h5py.h5g.create(file.id, f"V{number:05d}.mp4".encode())
            if not number:
                h5py.Group(group)["embeddings"] = np.zeros((2, 4), "f4")
    started = time.monotonic()
    assert len(store.EmbeddingReader(path).keys) == 30_000
    assert time.monotonic() - started < 5  # 0.3 s alone on one core
