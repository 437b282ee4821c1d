"""Small HDF5 files written by h5py alone, for tests that manipulate their structure."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vimoclip import store

ROWS = 5
KEYS = ("a.mp4", "b b.mp4", "獅.mp4")
ATTRIBUTES: dict[str, Any] = {
    "schema": "vimoclip-embeddings-1",
    "kind": "rgb",
    "num_classes": 3,
    "class_names": np.array(["walking", "running", "eating"], dtype=h5py.string_dtype()),
    "clip_model": "ViT-B/32",
    "sampling": json.dumps({"stride": 1, "fps": None, "max_frames": None}),
    "versions": json.dumps({"vimoclip": "0.1.0"}),
}


def video_arrays(key: str) -> dict[str, np.ndarray]:
    rows = np.random.default_rng(len(key)).normal(size=(ROWS, 4)).astype(np.float32)
    indices = np.arange(ROWS)
    return {
        "embeddings": rows,
        "labels": np.eye(3, dtype=np.float32)[1],
        "frame_indices": indices,
        "timestamps": indices / 8,
    }


def write_h5(path: Path, libver: str = "earliest", keys: tuple[str, ...] = KEYS, **options: Any) -> Path:
    """Write a file with the schema of `vimoclip.store`. `options`: of the dataset `embeddings`."""
    with h5py.File(path, "w", libver=libver) as file:
        file.attrs.update(ATTRIBUTES)
        for key in keys:
            group = file.create_group(key)
            for name, data in video_arrays(key).items():
                group.create_dataset(name, data=data, **(options if name == "embeddings" else {}))
            group.attrs.update(total_frames=ROWS, original_frames=ROWS, fps=8.0)
    return path


def read_all_videos(path: Path) -> dict[str, dict[str, Any]]:
    reader = store.EmbeddingReader(path)
    try:
        return {
            key: {
                "embeddings": reader.embeddings(key),
                "labels": reader.labels(key),
                "frame_indices": reader.frame_indices(key),
                "timestamps": reader.timestamps(key),
            }
            for key in reader.keys
        }
    finally:
        reader.close()


def assert_consistent_arrays(read: dict[str, dict[str, Any]]) -> None:
    widths = {video["embeddings"].shape[1:] for video in read.values()}
    assert len(widths) <= 1
    for found in read.values():
        assert found["embeddings"].dtype == found["labels"].dtype == np.float32
        assert found["embeddings"].ndim == 2
        assert found["labels"].ndim == 1
        for name in ("frame_indices", "timestamps"):
            assert found[name] is None or found[name].shape == found["embeddings"].shape[:1]
