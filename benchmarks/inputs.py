"""Inputs of the benchmarks: generated clips, flow videos, an encoder and embeddings, deterministic."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

CLIPS, FRAMES, HEIGHT, WIDTH, FPS = 24, (125, 175), 360, 640, 25
VIDEOS, CLASSES, DIM = 400, 140, 512
MEAN_LENGTH, MOST_FRAMES = 150, 1500


class BenchmarkInputs:
    """Each kind is created at first use and kept in the folder."""

    def __init__(self, folder: Path, clips: int = CLIPS, videos: int = VIDEOS):
        self.folder, self._clips, self._videos = folder, clips, videos

    def clips(self) -> list[Path]:
        """H.264, 640x360, 25 frames/s, about 6 s: moving textured ground and a disc that moves over it."""
        paths = [self.folder / "videos" / f"clip{number:02}.mp4" for number in range(self._clips)]
        for number, path in enumerate(paths):
            if not path.is_file():
                write_clip(path, number)
        return paths

    def frames(self) -> int:
        """Total number of frames of the clips."""
        return sum(clip_length(number) for number in range(self._clips))

    def flows(self, size: int | None) -> Path:
        """A folder with one flow video a clip, from `extract_flows.py --model dis --size ...`."""
        folder = self.folder / f"flows-{size}"
        if not (folder.is_dir() and len(list(folder.glob("*.mp4"))) >= self._clips):
            import extract_flows

            self.clips()
            videos = str(self.folder / "videos")
            arguments = ["--videos-dir", videos, "--output-dir", str(folder), "--model", "dis", "--size", str(size)]
            extract_flows.main(arguments)
        return folder

    def clip_model(self) -> str:
        """`local-dir:<folder>` of a ViT-B/32 with random weights, QuickGELU as OpenAI's, in open_clip's own format."""
        folder = self.folder / "ViT-B-32"
        if not (folder / "open_clip_model.safetensors").is_file():
            import open_clip
            import torch
            from safetensors.torch import save_file

            torch.manual_seed(0)
            config = {**(open_clip.get_model_config("ViT-B-32") or {}), "quick_gelu": True}
            model = open_clip.CLIP(**config)
            preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
            open_clip_config = {"model_cfg": config, "preprocess_cfg": {**preprocess, "interpolation": "bicubic"}}
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "open_clip_config.json").write_text(json.dumps(open_clip_config))
            tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
            save_file(tensors, folder / "open_clip_model.safetensors")
        return f"local-dir:{folder}"

    def embeddings(self) -> dict[str, Path]:
        """Paths of `rgb_train`, `rgb_val` (a fifth of the videos) and `motion`: 512-d float32, long-tailed lengths."""
        folder = self.folder / "embeddings"
        names = {"rgb_train": "ak_train_clip_embeddings", "rgb_val": "ak_val_clip_embeddings"}
        paths = {kind: folder / f"{name}.h5" for kind, name in (names | {"motion": "flow_embeddings"}).items()}
        if not all(path.is_file() for path in paths.values()):
            write_embeddings(paths, video_lengths(self._videos), self._videos // 5)
        return paths


def clip_length(number: int) -> int:
    """Number of frames of a clip: about 6 s."""
    return int(np.random.default_rng(number).integers(*FRAMES))


def clip_frames(number: int) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8: a sliding texture, another one in a moving disc, and slight noise."""
    import cv2

    rng = np.random.default_rng(number)
    count = clip_length(number)
    ground, animal = (_texture(rng, count) for _ in range(2))
    (dx, dy), (ax, ay) = rng.uniform(-2, 2, 2), rng.uniform(-3, 3, 2)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    margin = 3 * count + 2
    noise = rng.integers(0, 4, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for t in range(count):
        image = _shifted_window(ground, margin + t * dx, margin + t * dy)
        x, y = WIDTH / 2 + 120 * np.sin(t / 20 + number), HEIGHT / 2 + 60 * np.cos(t / 15)
        disc = (columns - x) ** 2 + (rows - y) ** 2 < (60 + number) ** 2
        image[disc] = _shifted_window(animal, margin + t * ax, margin + t * ay)[disc]
        yield cv2.add(image, np.roll(noise, 7 * t, axis=1))


def _texture(rng: np.random.Generator, count: int) -> np.ndarray:
    import cv2

    margin = 3 * count + 2
    height, width = HEIGHT + 2 * margin + 2, WIDTH + 2 * margin + 2
    coarse = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    fine = rng.integers(0, 64, (height // 2, width // 2, 3), dtype=np.uint8)
    return cv2.add(cv2.resize(coarse, (width, height)) // 4 * 3, cv2.resize(fine, (width, height)))


def _shifted_window(texture: np.ndarray, x: float, y: float) -> np.ndarray:
    """The part of the texture at a subpixel offset."""
    import cv2

    return cv2.getRectSubPix(texture, (WIDTH, HEIGHT), (x + WIDTH / 2, y + HEIGHT / 2)).copy()


def write_clip(path: Path, number: int) -> None:
    from vimoclip import video

    with video.VideoWriter(path, FPS, {}) as writer:
        for image in clip_frames(number):
            writer.write(image[None])


def video_lengths(videos: int) -> list[int]:
    """Frames of each video: log-normal like real clips, mean 150, at most 1,500."""
    drawn = np.random.default_rng(0).lognormal(0, 1, videos)
    return np.clip(np.rint(drawn / drawn.mean() * MEAN_LENGTH), 12, MOST_FRAMES).astype(int).tolist()


def write_embeddings(paths: dict[str, Path], lengths: list[int], validation: int) -> None:
    """RGB embeddings of two splits and motion embeddings of both: random values that depend slightly on the labels."""
    from vimoclip import store

    rng = np.random.default_rng(1)
    directions = rng.standard_normal((CLASSES, DIM)).astype(np.float32)
    common: dict[str, Any] = {"dataset_name": "ak", "num_classes": CLASSES, "embed_dim": DIM, "sampling": {"stride": 1}}
    names = [f"class {number}" for number in range(CLASSES)]
    attributes = {
        "rgb_train": common | {"kind": "rgb", "type": "train", "class_names": names},
        "rgb_val": common | {"kind": "rgb", "type": "val", "class_names": names},
        "motion": common | {"kind": "motion", "student": {}},
    }
    writers = {kind: store.EmbeddingWriter(path, attributes[kind], overwrite=True) for kind, path in paths.items()}
    for number, length in enumerate(lengths):
        labels = (rng.random(CLASSES) < 0.02).astype(np.float32)
        times = np.arange(length) / FPS
        signal = labels @ directions
        for kind in ("rgb_val" if number < validation else "rgb_train", "motion"):
            rows = length - (kind == "motion")
            key, marks = (f"v{number:05}", None) if kind == "motion" else (f"v{number:05}.mp4", labels)
            part = writers[kind].open_part(key)
            part.append(rng.standard_normal((rows, DIM)).astype(np.float32) + signal)
            part.finalize_and_publish(np.arange(rows), times[:rows], length, FPS, marks)
    for kind, writer in writers.items():
        keys = [f"v{n:05}" + (".mp4" if kind != "motion" else "") for n in range(len(lengths))]
        writer.merge(keys)
