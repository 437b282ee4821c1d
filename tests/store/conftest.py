"""Fixtures for the tests of HDF5 files."""

from pathlib import Path

import pytest

from tests.store.untrusted_hdf5 import write_h5


@pytest.fixture
def h5_path(tmp_path: Path) -> Path:
    return write_h5(tmp_path / "a.h5")
