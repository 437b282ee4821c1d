"""Fixtures of the tests that run train.py."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import make_embedded_dataset


@pytest.fixture(scope="session")
def embedded_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_embedded_dataset(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def workspace(embedded_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a copy of the data set and its embeddings."""
    shutil.copytree(embedded_dataset, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path
