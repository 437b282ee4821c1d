"""Damaged HDF5 files: flipped bits, and arbitrary changes in processes that may crash."""

import random
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import fuzzing
from tests.store.untrusted_hdf5 import KEYS, assert_consistent_arrays, read_all_videos, video_arrays, write_h5
from tests.untrusted_files import assert_read_or_refused, is_one_line
from vimoclip import store
from vimoclip.errors import UserError


@pytest.fixture(scope="module")
def valid_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_h5(tmp_path_factory.mktemp("valid") / "a.h5")


@pytest.fixture(scope="module")
def value_ranges(valid_file: Path) -> dict[tuple[str, str], range]:
    """Byte range of each dataset."""
    with h5py.File(valid_file) as file:
        datasets = [(key, name, file[key][name].id) for key in KEYS for name in video_arrays(key)]
        return {(k, n): range(d.get_offset(), d.get_offset() + d.get_storage_size()) for k, n, d in datasets}


@pytest.fixture(scope="module")
def structure_bytes(valid_file: Path, value_ranges: dict[tuple[str, str], range]) -> list[int]:
    """Offsets of all bytes except values, the only copies of dataset addresses, and the names of videos."""
    data = valid_file.read_bytes()
    excluded = set().union(*value_ranges.values())
    for extent in value_ranges.values():
        address = data.index(extent.start.to_bytes(8, "little") + len(extent).to_bytes(8, "little"))
        excluded |= set(range(address, address + 8))
    for key in KEYS:
        for match in re.finditer(re.escape(key.encode()), data):
            excluded |= set(range(match.start() - 24, match.end() + 8))  # the link message of its group
    return [i for i in range(len(data)) if i not in excluded]


def read_damaged(path: Path, data: bytes) -> dict[str, dict[str, Any]]:
    """Read a file with these bytes; {} if it is refused with one line that names the file."""
    path.write_bytes(data)
    try:
        return read_all_videos(path)
    except UserError as error:
        assert str(path) in str(error)
        assert is_one_line(str(error))
        return {}
    finally:
        path.unlink()


fixed_settings = settings(max_examples=100, deadline=None, derandomize=True)


@fixed_settings
@given(st.sampled_from(KEYS), st.sampled_from(sorted(video_arrays(KEYS[0]))), st.integers(0, 500), st.integers(0, 7))
def test_a_flipped_bit_in_a_value_changes_only_that_value(
    tmp_path_factory: pytest.TempPathFactory,
    valid_file: Path,
    value_ranges: dict[tuple[str, str], range],
    key: str,
    name: str,
    offset: int,
    bit: int,
) -> None:
    data, offset = bytearray(valid_file.read_bytes()), offset % len(value_ranges[key, name])
    data[value_ranges[key, name][offset]] ^= 1 << bit
    read = read_damaged(tmp_path_factory.mktemp("h5") / "a.h5", bytes(data))
    expected = {video_id: video_arrays(video_id) for video_id in KEYS}
    expected[key][name].view("u1").ravel()[offset] ^= 1 << bit
    assert set(read) == set(KEYS)
    assert all(read[k][n].tobytes() == expected[k][n].tobytes() for k in KEYS for n in expected[k])


@fixed_settings
@given(offset=st.integers(0), bit=st.integers(0, 7))
def test_a_flipped_bit_in_the_structure_is_refused_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, valid_file: Path, structure_bytes: list[int], offset: int, bit: int
) -> None:
    data = bytearray(valid_file.read_bytes())
    data[structure_bytes[offset % len(structure_bytes)]] ^= 1 << bit
    if read := read_damaged(tmp_path_factory.mktemp("h5") / "a.h5", bytes(data)):
        assert set(read) == set(KEYS)
        assert all(np.array_equal(read[k][n], value) for k in KEYS for n, value in video_arrays(k).items())


@fixed_settings
@given(st.integers(0, 2**32))
def test_damaged_files_are_refused_or_consistent(
    tmp_path_factory: pytest.TempPathFactory, valid_file: Path, seed: int
) -> None:
    data = fuzzing.mutate(valid_file.read_bytes(), random.Random(seed))
    assert_consistent_arrays(read_damaged(tmp_path_factory.mktemp("h5") / "a.h5", data))


def read_embeddings(path: Path) -> str:
    store.verify(path)
    try:
        assert_consistent_arrays(read_all_videos(path))
    except UserError as error:
        assert is_one_line(str(error))
        return "refused"
    return "read"


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_2000_damaged_files_of_embeddings(tmp_path: Path) -> None:
    originals = [write_h5(tmp_path / "ours.h5"), write_h5(tmp_path / "latest.h5", libver="latest")]
    originals += [write_h5(tmp_path / "chunks.h5", chunks=(2, 4))]
    originals += [write_h5(tmp_path / "gzip.h5", chunks=(1, 4), compression="gzip", shuffle=True)]
    assert_read_or_refused(read_embeddings, originals, tmp_path)
