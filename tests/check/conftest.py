"""A data set with everything that the scripts create from it, and a copy of it to break."""

import shutil
from pathlib import Path

import pytest

import extract_embeddings
import extract_flows
import inference
import train
from tests.check.helpers import SPLITS
from tests.conftest import moving_frames, write_annotations, write_video

TRAIN_FLAGS = ["--epochs", "1", "--batch-size", "4", "--sequence-length", "6", "--num-workers", "0"]
TRAIN_FLAGS += ["--run-name", "run"]


@pytest.fixture(scope="session")
def complete_dataset(tiny_clip: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with the outputs of all scripts; `still.mp4` has one frame."""
    root = tmp_path_factory.mktemp("complete")
    for number, name in enumerate(name for names in SPLITS.values() for name in names):
        frames = moving_frames(1 if name == "still.mp4" else 9 + number, (number % 3, 1), 32, 44, seed=number)
        write_video(root / "dataset" / "videos" / name, frames, lossless=False)
    write_annotations(root / "dataset" / "annotations", SPLITS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        extract_embeddings.main(["--clip-model-name", tiny_clip])
        extract_flows.main(["--model", "dis", "--num-workers", "0"])
        train.main([*TRAIN_FLAGS, "--clip-model-name", tiny_clip])
        inference.main(["--checkpoint-dir", "checkpoints/run"])
    return root / "dataset"


@pytest.fixture
def dataset(complete_dataset: Path, tmp_path: Path) -> Path:
    """A copy to break, with the modification times of the files."""
    return Path(shutil.copytree(complete_dataset, tmp_path / "dataset"))
