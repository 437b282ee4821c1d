"""Helpers to run a check and to break a data set."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import prepare_dataset
from tests.conftest import REPOSITORY
from tests.preloaded import executable
from vimoclip.errors import UserError
from vimoclip.video import VideoReader, VideoWriter, probe

SPLITS = {
    "train": {"t0.mp4": (0,), "t1.mp4": (1,), "t2.mp4": (2,), "t3.mp4": (0,), "still.mp4": (0,)},
    "val": {"v0.mp4": (0,), "v1.mp4": (1,)},
}
RGB_FILE = "embeddings/ak_train_clip_embeddings.h5"
MOTION_FILE = "embeddings/flow_embeddings.h5"


def run_check(dataset: Path, *flags: str) -> dict[str, Any]:
    """Return the JSON report of a check, and compare it with the exit code and the counts of --report."""
    path, counts_path = dataset.parent / "report.json", dataset.parent / "counts.json"
    arguments = ["check", "--dataset-dir", str(dataset), "--json", str(path), "--num-workers", "0", *flags]
    arguments += ["--report", str(counts_path)]
    code = 0
    try:
        prepare_dataset.main(arguments)
    except UserError as error:
        code = error.exit_code
    report = json.loads(path.read_text())
    assert code == (0 if report["fine"] else 1)
    assert report["fine"] == (not report["problems"])
    counts = json.loads(counts_path.read_text())
    assert counts["unit"] == "entry" and counts["outputs"] == [str(path)]
    assert counts["done"] == sum(area["fine"] for area in report["areas"].values())
    assert counts["failed"].keys() == {f"{problem['area']}: {problem['id']}" for problem in report["problems"]}
    for problem in report["problems"]:
        assert f"{problem['kind']}: {problem['reason']}" in counts["failed"][f"{problem['area']}: {problem['id']}"]
    return report


def problem_names(report: dict[str, Any]) -> list[str]:
    """Return each problem as `area, name, kind`."""
    return [f"{p['area']}, {p['id'].rpartition('/')[2]}, {p['kind']}" for p in report["problems"]]


def edit_text(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def edit_manifest(path: Path, video: str, **changes: Any) -> None:
    """Change fields of an entry in a manifest."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert any(line["id"] == video for line in lines)
    path.write_text("".join(json.dumps(e | changes if e["id"] == video else e) + "\n" for e in lines))


def edit_attributes(path: Path, **changes: Any) -> None:
    """Change root attributes, or keys of one that holds JSON."""
    with h5py.File(path, "r+") as file:
        for name, value in changes.items():
            if isinstance(value, dict):
                value = json.dumps(json.loads(file.attrs[name]) | value)
            file.attrs[name] = value


def replace_arrays(path: Path, key: str, **arrays: np.ndarray) -> None:
    """Replace arrays of a video."""
    with h5py.File(path, "r+") as file:
        for name, values in arrays.items():
            del file[key][name]
            file[key][name] = values
        file[key].attrs["total_frames"] = len(file[key]["embeddings"])


def remove_items(path: Path, *names: str) -> None:
    with h5py.File(path, "r+") as file:
        for name in names:
            del file[name]


def corrupt_bytes(path: Path, start: int = 200, count: int = 2**20) -> None:
    """Invert bytes; size and modification time stay."""
    state, content = path.stat(), path.read_bytes()
    inverted = bytes(255 - byte for byte in content[start : start + count])
    path.write_bytes(content[:start] + inverted + content[start + len(inverted) :])
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def rewrite_flow(path: Path, frames: int | None = None, **comment: Any) -> None:
    """Write a flow video again with another comment or length, which makes its motions stale."""
    info, images = probe(path), next(iter(VideoReader(path, 100))).frames
    with VideoWriter(path, info.fps, {**(info.comment or {}), **comment}, False) as writer:
        writer.write(images[:frames])


def corrupt_frames(path: Path) -> None:
    """Corrupt the second half of the frame data of an MP4 file."""
    content = path.read_bytes()
    start = content.index(b"mdat")
    end = start - 4 + int.from_bytes(content[start - 4 : start], "big")
    corrupt_bytes(path, (start + end) // 2, end - (start + end) // 2)


def run_check_command(dataset: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    script = str(REPOSITORY / "prepare_dataset.py")
    command = [str(executable()), script, "check", "--dataset-dir", str(dataset), *flags]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
