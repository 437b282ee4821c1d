"""Shared helpers of the tests of `vimoclip.store`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import SHARED
from vimoclip import store
from vimoclip.errors import UserError

PUBLISHED_FILES = SHARED / "published_files"
needs_published = pytest.mark.skipif(
    not PUBLISHED_FILES.is_dir(), reason=f"{PUBLISHED_FILES} with published files is missing"
)

ATTRIBUTES: dict[str, Any] = {
    "kind": "rgb",
    "dataset_name": "ak",
    "type": "train",
    "num_classes": 3,
    "class_names": ["walking", "running", "eating, Löwe"],
    "clip_model": "ViT-B/32",
    "clip_pretrained": "",
    "quick_gelu": True,
    "embed_dim": 8,
    "image_size": 224,
    "resize": "model",
    "sampling": {"stride": 2, "fps": None, "max_frames": None},
    "weights_sha256": "ab" * 32,
    "versions": {"vimoclip": "0.1.0"},
}
VIDEOS = ("b.mp4", "a.mp4", "c d.mp4", "-e.mp4", "獅子.mp4", "F.avi")


def video_arrays(key: str) -> dict[str, np.ndarray]:
    """Return the arrays of a video: 3 to 8 frames, a function of the key."""
    seed = sum(map(ord, key))
    count = 3 + seed % 6
    indices = np.arange(0, 2 * count, 2)
    rows = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    labels = np.eye(3, dtype=np.float32)[seed % 3]
    return {"embeddings": rows, "frame_indices": indices, "timestamps": indices / 12.5, "labels": labels}


def write_part(writer: store.EmbeddingWriter, key: str, labels: bool = True) -> None:
    data = video_arrays(key)
    part = writer.open_part(key)
    for start in range(0, len(data["embeddings"]), 2):
        part.append(data["embeddings"][start : start + 2])
    count = 2 * len(data["frame_indices"])
    part.finalize(data["frame_indices"], data["timestamps"], count, 12.5, data["labels"] if labels else None)
    part.publish()


def write_file(path: Path, keys: tuple[str, ...] = VIDEOS, dtype: str = "float32", **changes: Any) -> Path:
    writer = store.EmbeddingWriter(path, ATTRIBUTES | changes, dtype)
    for key in keys:
        if not writer.is_done(key):
            write_part(writer, key, labels=(ATTRIBUTES | changes)["kind"] == "rgb")
    assert writer.merge(keys) == path
    return path


def writer_error(path: Path, **changes: Any) -> str:
    """Return the message of the UserError of a writer for `path`, which must be unchanged."""
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(UserError) as caught:
        store.EmbeddingWriter(path, ATTRIBUTES | changes)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert (path.read_bytes() if path.exists() else None) == before
    return str(caught.value)
