"""Shared helpers of the tests: clips with painted frame indices, a tiny CLIP, a tiny data set."""

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import numpy as np
import pytest

from vimoclip import video

if TYPE_CHECKING:
    from tests.browser import Browser

hypothesis.settings.register_profile("vimoclip", deadline=None)  # times vary on a loaded machine
hypothesis.settings.load_profile("vimoclip")

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared" / "data"  # real clips and files of the published code; optional
CLASSES = ("walking", "running", "eating")
# files and folders that take longest: they start first, so that the processes of pytest-xdist end together
SLOW = (
    "cli/test_flags.py",
    "chain",
    "demo",
    "benchmarks/test_gpu.py",
    "extraction",
    "training",
    "clip",
    "moclip",
    "tfam",
    "flow",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def order(item: pytest.Item) -> int:
        path = item.path.relative_to(REPOSITORY / "tests").as_posix()
        return next((i for i, slow in enumerate(SLOW) if path.startswith(slow)), len(SLOW))

    items.sort(key=order)


def write_video(path: Path, frames: np.ndarray, fps: float = 25, lossless: bool = True) -> Path:
    """Write (T, H, W, 3) uint8 to an .mp4 with `VideoWriter`, which pads odd sizes."""
    with video.VideoWriter(path, fps, {}, lossless) as writer:
        writer.write(frames)
    return path


def indexed_frames(count: int, height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """Return textured frames with their index painted on: bit b is column block b, black or white."""
    rng = np.random.default_rng(seed)
    frames = np.repeat(rng.integers(60, 180, (1, height, width, 3), dtype=np.uint8), count, axis=0)
    for t in range(count):
        for bit in range(8):
            frames[t, : height // 2, bit * width // 8 : (bit + 1) * width // 8] = 255 * (t >> bit & 1)
    return frames


def read_index(frame: np.ndarray) -> int:
    """Return the index that `indexed_frames` painted into a frame, which may be scaled."""
    height, width = frame.shape[:2]
    centers = [int((bit + 0.5) * width / 8) for bit in range(8)]
    return sum(1 << bit for bit, x in enumerate(centers) if frame[height // 4, x].mean() > 127)


def moving_frames(
    count: int, velocity: tuple[int, int], height: int = 48, width: int = 64, seed: int = 0
) -> np.ndarray:
    """Return frames of a smooth texture that moves by (dx, dy) pixels per frame."""
    import cv2

    rng = np.random.default_rng(seed)
    margin = count * max(abs(velocity[0]), abs(velocity[1]), 1)
    noise = rng.integers(0, 256, (height + 2 * margin, width + 2 * margin, 3), dtype=np.uint8)
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)
    dx, dy = velocity
    return np.stack(
        [
            texture[margin - t * dy : margin - t * dy + height, margin - t * dx : margin - t * dx + width]
            for t in range(count)
        ]
    )


def modification_times(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file()}


@contextlib.contextmanager
def lock_in_subprocess(output: Path) -> Iterator[int]:
    """Lock the output in another process for the block; yield its process id."""
    code = "import sys, time; from pathlib import Path; from vimoclip.io import lock\n"
    code += "with lock.exclusive_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", code, str(output)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout and process.stdout.readline() == b"held\n"
        try:
            yield process.pid
        finally:
            process.kill()


def make_embedded_dataset(root: Path, *selection: str) -> Path:
    """Run `make_dataset` in root/dataset; add RGB embeddings of root/tinyclip, flow videos and `selection.txt`."""
    import extract_embeddings
    import extract_flows

    make_dataset(root / "dataset")
    if selection:
        (root / "dataset" / "annotations" / "selection.txt").write_text("".join(f"{name}\n" for name in selection))
    make_tiny_clip(root / "tinyclip")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        extract_embeddings.main(["--clip-model-name", "local-dir:tinyclip"])
        extract_flows.main(["--model", "dis", "--num-workers", "0"])
    return root


def write_annotations(folder: Path, splits: Mapping[str, Mapping[str, tuple[int, ...]]], name: str = "ak") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}_action.csv").write_text("id,name\n" + "".join(f"{i},{c}\n" for i, c in enumerate(CLASSES)))
    for split, videos in splits.items():
        lines = [" ".join([video_id, *map(str, labels)]) for video_id, labels in videos.items()]
        (folder / f"{split}_multi.txt").write_text("\n".join(lines) + "\n")


def make_tiny_clip(folder: Path, embed_dim: int = 32, vocabulary: int = 512, **vision: float) -> str:
    """Write a CLIP for 32x32 images with random weights in open_clip's folder format; return `local-dir:<folder>`.

    `vocabulary`: of the text tower; reading any text requires the 49408 tokens of CLIP's tokenizer."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    config = {
        "embed_dim": embed_dim,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32, **vision},
        "text_cfg": {"context_length": 77, "vocab_size": vocabulary, "width": 32, "heads": 2, "layers": 1},
    }
    torch.manual_seed(0)
    model = open_clip.CLIP(**config)
    preprocess = {"mean": [0.48, 0.45, 0.4], "std": [0.27, 0.26, 0.27], "interpolation": "bicubic"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def copy_with_other_preprocessing(clip_folder: Path, folder: Path) -> str:
    """Copy a CLIP of `make_tiny_clip`, and change what its images are normalized with; return `local-dir:<folder>`."""
    shutil.copytree(clip_folder, folder)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["mean"] = [0.5, 0.5, 0.5]
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return f"local-dir:{folder}"


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_tiny_clip(tmp_path_factory.mktemp("models") / "tinyclip")


@pytest.fixture(scope="session")
def shared_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of `make_dataset`, which no test changes."""
    return make_dataset(tmp_path_factory.mktemp("shared") / "dataset")


@pytest.fixture
def tiny_dataset(shared_dataset: Path, tmp_path: Path) -> Path:
    return shutil.copytree(shared_dataset, tmp_path / "dataset")


def make_dataset(dataset: Path) -> Path:
    """Write 6 training and 4 validation clips of moving texture, 12 to 17 frames of 48x64."""
    velocities = {0: (2, 0), 1: (0, 3), 2: (0, 0)}
    splits = {}
    for split, count in (("train", 6), ("val", 4)):
        splits[split] = {f"{split}{i}.mp4": (i % 3,) for i in range(count)}
        for i, (name, labels) in enumerate(splits[split].items()):
            frames = moving_frames(12 + i, velocities[labels[0]], seed=i + 100 * (split == "val"))
            write_video(dataset / "videos" / name, frames, lossless=False)
    write_annotations(dataset / "annotations", splits)
    return dataset


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Limit the size of files that this process writes to `size` bytes for the block."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Browser"]:
    """One browser for all tests of a module."""
    from tests.browser import chromium

    with chromium(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture
def browser(window: "Browser") -> "Browser":
    """The browser window, without errors and requests of earlier tests."""
    window.errors(), window.requests()
    return type(window)(window.driver)
