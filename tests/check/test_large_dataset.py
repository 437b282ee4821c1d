"""The duration of a check of 30,000 entries."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import extract_flows
from tests.check.helpers import MOTION_FILE, run_check_command
from tests.conftest import CLASSES, moving_frames, write_annotations, write_video
from vimoclip import store
from vimoclip.extraction import manifest
from vimoclip.video import EVERY_FRAME


def write_manifest(path: Path, sources: dict[str, Path]) -> None:
    """Write a manifest in which all entries are done."""
    entries = ({"id": name, "status": "ok", **manifest.stat_source(source)} for name, source in sources.items())
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def make_large_dataset(dataset: Path, count: int, first_run: bool) -> None:
    """Create a data set of `count` entries of 640x360 and 30 frames: one video under many names, and its flow.

    Takes 1.3 GB of flow and 2 GB of embeddings, and a minute."""
    stems, frames = [f"clip{i:05d}" for i in range(count)], 30
    stems_by_split = {"train": stems[: count * 4 // 5], "val": stems[count * 4 // 5 :]}
    splits = {
        split: {f"{s}.mp4": (i % 3,) for i, s in enumerate(split_stems)}
        for split, split_stems in stems_by_split.items()
    }
    write_annotations(dataset / "annotations", splits)
    video_path = write_video(dataset / "videos/clip00000.mp4", moving_frames(frames, (2, 1), 360, 640), lossless=False)
    for stem in stems[1:]:
        os.link(video_path, dataset / "videos" / f"{stem}.mp4")
    if first_run:
        return
    extract_flows.main(["--model", "dis", "--dataset-dir", str(dataset), "--limit", "1"])
    flow = (dataset / "flows/clip00000.mp4").read_bytes()
    for stem in stems:  # names are equally long, so nothing in the file moves
        (dataset / "flows" / f"{stem}.mp4").write_bytes(flow.replace(b'"clip00000"', f'"{stem}"'.encode()))
    videos = {f"{stem}.mp4": dataset / "videos" / f"{stem}.mp4" for stem in stems}
    write_manifest(dataset / "flows.manifest.jsonl", videos)
    encoder = {"clip_model": "x", "weights_sha256": "y", "sampling": EVERY_FRAME.as_dict()}
    for split, labels in splits.items():
        metadata = {"kind": "rgb", "type": split, "class_names": list(CLASSES), **encoder}
        one_hot = {name: np.eye(3, dtype=np.float32)[label] for name, (label,) in labels.items()}
        path = dataset / "embeddings" / f"ak_{split}_clip_embeddings.h5"
        write_large_file(path, metadata, frames, one_hot)
        write_manifest(Path(f"{path}.manifest.jsonl"), {name: videos[name] for name in labels})
    write_large_file(
        dataset / MOTION_FILE, {"kind": "motion", "student": {}, **encoder}, frames - 1, dict.fromkeys(stems)
    )
    flows = {stem: dataset / "flows" / f"{stem}.mp4" for stem in stems}
    write_manifest(dataset / f"{MOTION_FILE}.manifest.jsonl", flows)


def write_large_file(
    path: Path, metadata: dict[str, Any], frames: int, labels: Mapping[str, np.ndarray | None]
) -> None:
    writer = store.EmbeddingWriter(path, metadata, "float16")
    for key, one_hot in labels.items():
        part = writer.open_part(key)
        part.append(np.ones((frames, 512), np.float16))
        part.finalize(np.arange(frames), np.arange(frames) / 25, 30, 25.0, one_hot)
        part.publish()
    writer.merge(labels)


@pytest.mark.long
@pytest.mark.parametrize("first_run", [True, False], ids=["before the first run", "with all outputs"])
def test_30000_entries(first_run: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Print elapsed time and CPU time (shown with -s); the latter is comparable if the cores are shared."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # 150,000 calls would take longer than everything else
    make_large_dataset(tmp_path / "dataset", 30_000, first_run)
    monkeypatch.undo()
    before = os.times()
    process = run_check_command(tmp_path / "dataset", "--num-workers", "2")
    after = os.times()
    assert process.returncode == 0, process.stderr
    cpu_seconds = after.children_user - before.children_user + after.children_system - before.children_system
    print(f"{after.elapsed - before.elapsed:.0f} s, CPU time {cpu_seconds:.0f} s")
