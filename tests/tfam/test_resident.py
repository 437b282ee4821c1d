"""Splits in the memory of a device: the batches of a loader, bit for bit, and whole runs."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from tests.tfam.helpers import CPU, have_same_weights, open_train_val, train_command
from TFAM import train_and_eval, trainer
from TFAM.data import PairedEmbeddings, pair_embeddings
from TFAM.packing import Pooling
from TFAM.resident import ResidentSplit, load_splits
from vimoclip.errors import UserError
from vimoclip.store import EmbeddingReader
from vimoclip.training.trainer import RunOptions

RUN = RunOptions(Path("run"), Path("logs"), CPU)


def assert_same_batches(dataset: PairedEmbeddings) -> None:
    split = ResidentSplit(dataset, 2, RUN)
    for indices in ([3, 0, 8], [5], [1, 1], []):
        batch, expected = split.batch(indices), dataset.collate([dataset[i] for i in indices])
        assert batch.videos == expected.videos
        assert torch.equal(batch.labels, expected.labels)
        for mine, theirs in ((batch.rgb, expected.rgb), (batch.motion, expected.motion)):
            assert (mine is None) == (theirs is None)
            if mine is not None and theirs is not None:
                assert torch.equal(mine.x, theirs.x)
                assert mine.x.dtype == theirs.x.dtype
                assert (mine.lengths, mine.key_lengths) == (theirs.lengths, theirs.key_lengths)
                masks = [None if tokens.key_mask is None else tokens.key_mask.tolist() for tokens in (mine, theirs)]
                assert masks[0] == masks[1]


@pytest.mark.parametrize("pooling", Pooling)
@pytest.mark.parametrize("motion", ["real", "none", "shuffled"])
def test_batches_are_those_of_the_loader(dataset: Path, pooling: str, motion: str) -> None:
    train = open_train_val(dataset)[0]["train"]
    train.pooling, train.motion_mode = pooling, motion
    if motion == "shuffled":
        train.shuffle_motion(0)
    assert_same_batches(train)


def test_a_split_without_motion(dataset: Path) -> None:
    assert_same_batches(open_train_val(dataset, "rgb")[0]["train"])


def test_float16_is_kept_as_it_is_in_the_file(dataset: Path) -> None:
    for path in dataset.glob("*.h5"):
        with h5py.File(path, "a") as file:
            for video in file.values():
                rows = video["embeddings"][:].astype(np.float16)
                del video["embeddings"]
                video["embeddings"] = rows
    train = open_train_val(dataset)[0]["train"]
    assert train.rgb.dtype == "float16"
    assert ResidentSplit(train, 4, RUN).rgb.dtype == torch.float16
    assert_same_batches(train)


def test_a_run_on_a_resident_split_is_the_same(selection_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = train_and_eval.main([*train_command(), "--checkpoints-dir", "plain"])
    loaded = []

    def load(datasets: list[PairedEmbeddings], batch_size: int, run: RunOptions) -> dict:
        loaded.extend(datasets)
        return {dataset: ResidentSplit(dataset, batch_size, run) for dataset in datasets}

    monkeypatch.setattr(trainer, "load_splits", load)
    resident = train_and_eval.main([*train_command(), "--checkpoints-dir", "resident"])
    assert len(loaded) == 2
    assert have_same_weights(plain / "last.pth", resident / "last.pth")
    assert (plain / "metrics.csv").read_text() == (resident / "metrics.csv").read_text()


def test_an_unreadable_video_is_reported_like_in_an_epoch(dataset: Path) -> None:
    with h5py.File(dataset / "ak_train_clip_embeddings.h5", "a") as file:
        del file["V03.mp4"]["labels"]
    train = pair_embeddings(EmbeddingReader(dataset / "ak_train_clip_embeddings.h5", "rgb"), None, "rgb")
    with pytest.raises(UserError) as expected:
        train[3]
    with pytest.raises(UserError) as error:
        ResidentSplit(train, 4, RUN)
    assert str(error.value) == str(expected.value)
    assert error.value.path == expected.value.path


def test_a_run_on_the_cpu_loads_nothing(dataset: Path) -> None:
    assert load_splits(list(open_train_val(dataset)[0].values()), 4, RUN) == {}
