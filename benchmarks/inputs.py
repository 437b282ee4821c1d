"""Deterministic inputs of the benchmarks: generated clips, flow videos, an encoder and embeddings."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

CLIPS, CLIP_FRAMES, HEIGHT, WIDTH, FPS = 24, (125, 175), 360, 640, 25
VIDEOS, CLASSES, DIM = 400, 140, 512
MEAN_LENGTH, MAX_FRAMES = 150, 1500  # frames per video of the embeddings


class BenchmarkInputs:
    """Inputs that are created at first use and kept in the folder."""

    def __init__(self, folder: Path, num_clips: int = CLIPS, num_videos: int = VIDEOS):
        self.folder, self._num_clips, self._num_videos = folder, num_clips, num_videos

    def clips(self) -> list[Path]:
        """Return paths of H.264 clips, 640x360, 25 frames/s, about 6 s: a disc moves over a moving textured ground."""
        paths = [self.folder / "videos" / f"clip{number:02}.mp4" for number in range(self._num_clips)]
        for number, path in enumerate(paths):
            if not path.is_file():
                write_clip(path, number)
        return paths

    def frames(self) -> int:
        """Total number of frames of the clips."""
        return sum(clip_length(number) for number in range(self._num_clips))

    def flows(self, size: int | None) -> Path:
        """Return a folder with one flow video per clip, from `extract_flows.py --model dis --size ...`."""
        folder = self.folder / f"flows-{size}"
        if not (folder.is_dir() and len(list(folder.glob("*.mp4"))) >= self._num_clips):
            import extract_flows

            self.clips()
            videos = str(self.folder / "videos")
            arguments = ["--videos-dir", videos, "--output-dir", str(folder), "--model", "dis", "--size", str(size)]
            extract_flows.main(arguments)
        return folder

    def clip_model(self) -> str:
        """Return `local-dir:<folder>` of a ViT-B/32 with random weights and QuickGELU, in open_clip's format."""
        folder = self.folder / "ViT-B-32"
        if not (folder / "open_clip_model.safetensors").is_file():
            write_clip_model(folder, vit_b32_config())
        return f"local-dir:{folder}"

    def embeddings(self) -> dict[str, Path]:
        """Return files of `rgb_train`, `rgb_val` (a fifth of the videos), `motion`: 512-d float32, long-tailed."""
        folder = self.folder / "embeddings"
        file_names = {"rgb_train": "ak_train_clip_embeddings", "rgb_val": "ak_val_clip_embeddings"}
        file_names["motion"] = "flow_embeddings"
        paths = {role: folder / f"{file_name}.h5" for role, file_name in file_names.items()}
        if not all(path.is_file() for path in paths.values()):
            write_embeddings(paths, video_lengths(self._num_videos), self._num_videos // 5)
        return paths


def vit_b32_config() -> dict[str, Any]:
    """Return open_clip's config of OpenAI's ViT-B/32."""
    import open_clip

    return {**(open_clip.get_model_config("ViT-B-32") or {}), "quick_gelu": True}


def write_clip_model(folder: Path, config: dict[str, Any]) -> None:
    """Write a CLIP model with random weights in open_clip's format. `config`: open_clip's of the model."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = open_clip.CLIP(**config)
    preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    open_clip_config = {"model_cfg": config, "preprocess_cfg": {**preprocess, "interpolation": "bicubic"}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(open_clip_config))
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "open_clip_model.safetensors")


def clip_length(number: int) -> int:
    """Return the number of frames of a clip: about 6 s."""
    return int(np.random.default_rng(number).integers(*CLIP_FRAMES))


def clip_frames(number: int) -> Iterator[np.ndarray]:
    """Yield (H, W, 3) uint8 frames: a sliding texture, another one in a moving disc, and slight noise."""
    import cv2

    rng = np.random.default_rng(number)
    count = clip_length(number)
    ground, disc_texture = (_random_texture(rng, count) for _ in range(2))
    (dx, dy), (ax, ay) = rng.uniform(-2, 2, 2), rng.uniform(-3, 3, 2)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    margin = 3 * count + 2
    noise = rng.integers(0, 4, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for t in range(count):
        image = _crop_texture(ground, margin + t * dx, margin + t * dy)
        x, y = WIDTH / 2 + 120 * np.sin(t / 20 + number), HEIGHT / 2 + 60 * np.cos(t / 15)
        disc = (columns - x) ** 2 + (rows - y) ** 2 < (60 + number) ** 2
        image[disc] = _crop_texture(disc_texture, margin + t * ax, margin + t * ay)[disc]
        yield cv2.add(image, np.roll(noise, 7 * t, axis=1))


def _random_texture(rng: np.random.Generator, count: int) -> np.ndarray:
    import cv2

    margin = 3 * count + 2
    height, width = HEIGHT + 2 * margin + 2, WIDTH + 2 * margin + 2
    coarse = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    fine = rng.integers(0, 64, (height // 2, width // 2, 3), dtype=np.uint8)
    return cv2.add(cv2.resize(coarse, (width, height)) // 4 * 3, cv2.resize(fine, (width, height)))


def _crop_texture(texture: np.ndarray, x: float, y: float) -> np.ndarray:
    """Return the (H, W, 3) crop of the texture at a subpixel offset."""
    import cv2

    return cv2.getRectSubPix(texture, (WIDTH, HEIGHT), (x + WIDTH / 2, y + HEIGHT / 2)).copy()


def read_whole_video(path: Path) -> list[np.ndarray]:
    """Decode all frames at once, as the plain implementations do: (H, W, 3) uint8 each."""
    import av

    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def write_clip(path: Path, number: int) -> None:
    from vimoclip import video

    with video.VideoWriter(path, FPS, {}) as writer:
        for image in clip_frames(number):
            writer.write(image[None])


def repeat_video(source: Path, target: Path, times: int) -> None:
    """Write a video that repeats the packets of the source `times` times."""
    import av

    partial_path = target.with_suffix(".partial")
    with av.open(str(partial_path), "w", format="mp4") as output:
        output_stream: Any = None
        offset = 0
        for _ in range(times):
            with av.open(str(source)) as container:
                stream = container.streams.video[0]
                output_stream = output_stream or output.add_stream_from_template(stream)
                end = 0
                for packet in container.demux(stream):
                    if packet.dts is None or packet.pts is None:
                        continue
                    end = max(end, packet.pts + (packet.duration or 0))
                    packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                    packet.stream = output_stream
                    output.mux(packet)
                offset += end
    partial_path.rename(target)


def video_lengths(num_videos: int) -> list[int]:
    """Return the frames of each video: log-normal like real clips, mean 150, at most 1,500."""
    lengths = np.random.default_rng(0).lognormal(0, 1, num_videos)
    return np.clip(np.rint(lengths / lengths.mean() * MEAN_LENGTH), 12, MAX_FRAMES).astype(int).tolist()


def write_embeddings(paths: dict[str, Path], lengths: list[int], num_val: int) -> None:
    """Write RGB embeddings of two splits and motion embeddings of both: random, but correlated with the labels.

    `paths`: role (`rgb_train`, `rgb_val`, `motion`) -> file; `num_val`: the first videos are those of `rgb_val`."""
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
    writers = {role: store.EmbeddingWriter(path, attributes[role], overwrite=True) for role, path in paths.items()}
    for number, length in enumerate(lengths):
        labels = (rng.random(CLASSES) < 0.02).astype(np.float32)
        times = np.arange(length) / FPS
        signal = labels @ directions
        for role in ("rgb_val" if number < num_val else "rgb_train", "motion"):
            rows = length - (role == "motion")
            key, video_labels = (f"v{number:05}", None) if role == "motion" else (f"v{number:05}.mp4", labels)
            part = writers[role].open_part(key)
            part.append(rng.standard_normal((rows, DIM)).astype(np.float32) + signal)
            part.finalize(np.arange(rows), times[:rows], length, FPS, video_labels)
            part.publish()
    for role, writer in writers.items():
        keys = [f"v{n:05}" + (".mp4" if role != "motion" else "") for n in range(len(lengths))]
        writer.merge(keys)
