"""Embeddings that are not finite are never written: the video fails, with the precision to use."""

import json
from pathlib import Path

import h5py
import numpy as np
import torch
from safetensors.torch import load_file, save_file

import extract_embeddings
from tests.conftest import make_tiny_clip
from vimoclip.cli import RunReport


def test_embeddings_beyond_the_range_of_their_format_fail(tiny_dataset: Path, tmp_path: Path) -> None:
    """The encoder's embeddings exceed 65504, the largest number of float16."""
    make_tiny_clip(tmp_path / "clip")
    weights = tmp_path / "clip" / "open_clip_model.safetensors"
    state = load_file(weights)
    save_file(state | {"visual.proj": (state["visual.proj"] * 1e7).to(torch.float32)}, weights)

    def run(*flags: str) -> RunReport:
        paths = ["--dataset-dir", str(tiny_dataset), "--clip-model-name", f"local-dir:{tmp_path / 'clip'}"]
        return extract_embeddings.main([*paths, "--split", "val", "--output-dir", str(tmp_path / flags[-1]), *flags])

    failed = run("--embedding-dtype", "float16").failed
    assert set(failed) == {f"val{i}.mp4" for i in range(4)}
    assert all("float32" in reason for reason in failed.values())
    manifest = tmp_path / "float16" / "ak_val_clip_embeddings.h5.manifest.jsonl"
    assert {json.loads(line)["status"] for line in manifest.read_text().splitlines()} == {"failed"}
    assert not run("--embedding-dtype", "float32").failed
    with h5py.File(tmp_path / "float32" / "ak_val_clip_embeddings.h5") as file:
        embeddings = file["val0.mp4"]["embeddings"][()]
    assert np.isfinite(embeddings).all() and np.abs(embeddings).max() > 65504
