"""Data sets of TFAM's tests. Each fixture writes its files into a temporary folder and changes to it."""

from pathlib import Path

import pytest

from tests.tfam.helpers import SELECTION_NUMBERS, write_motion, write_rgb, write_selection


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nine training and six validation videos."""
    monkeypatch.chdir(tmp_path)
    folder = Path("dataset/embeddings")
    write_rgb(folder / "ak_train_clip_embeddings.h5", range(9))
    write_rgb(folder / "ak_val_clip_embeddings.h5", range(9, 15))
    write_motion(folder / "flow_embeddings.h5", range(15))
    return folder


@pytest.fixture
def selection_dataset(dataset: Path) -> Path:
    """Nine training videos, three of them selection clips, and six validation videos."""
    write_selection(SELECTION_NUMBERS)
    return dataset


@pytest.fixture
def motion_only_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Videos whose RGB embeddings are noise: only motion determines the class."""
    monkeypatch.chdir(tmp_path)
    folder = Path("dataset/embeddings")
    write_rgb(folder / "ak_train_clip_embeddings.h5", range(36), informative=False, width=32)
    write_rgb(folder / "ak_val_clip_embeddings.h5", range(36, 66), informative=False, width=32)
    write_motion(folder / "flow_embeddings.h5", range(66), width=32)
    return folder
