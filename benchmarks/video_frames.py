"""The frames of videos on their way to an encoder: as the scripts read them, and by PIL frame by frame."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.inputs import read_whole_video

PLAIN_BATCH_SIZE = 16


def plain_transform(model: str) -> Callable[[Any], Any]:
    """Return open_clip's transform of PIL images."""
    import open_clip

    return open_clip.create_model_and_transforms(model)[2]


def plain_batches(path: Path, transform: Callable[[Any], Any]) -> Iterator[Any]:
    """Decode the whole video, transform each frame as a PIL image, and yield batches."""
    import torch
    from PIL import Image

    tensors = [transform(Image.fromarray(frame)) for frame in read_whole_video(path)]
    for start in range(0, len(tensors), PLAIN_BATCH_SIZE):
        yield torch.stack(tensors[start : start + PLAIN_BATCH_SIZE])


def decode_frames(clips: Sequence[Path]) -> float:
    """Decode to RGB with as many threads as the script uses; return the number of frames."""
    import av

    def decode(path: Path) -> int:
        frames = 0
        with av.open(str(path)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for frame in container.decode(video=0):
                frame.to_ndarray(format="rgb24")
                frames += 1
        return frames

    with ThreadPoolExecutor(reader_threads()) as pool:
        return sum(pool.map(decode, clips))


def reader_threads() -> int:
    """Return the number that the scripts choose on a CPU."""
    import torch

    from vimoclip.runtime import defaults

    return defaults.num_workers("auto", torch.device("cpu"))


class FramePipeline:
    """The pipeline of the scripts without writing files. A call reads videos; it returns how many frames it encoded.

    A batch that is incomplete after a call is completed by the next one, as in a long run."""

    def __init__(self, preprocess: Callable[[Any], Any], encode: Callable[[Any], Any], batch_size: int):
        from vimoclip import clip

        self.preprocess, self.batches, self.encoded = preprocess, clip.BatchEncoder(encode, batch_size), 0

    def __call__(self, paths: Sequence[Path]) -> float:
        from vimoclip.extraction.embeddings import CHUNK_FRAMES
        from vimoclip.video import VideoReader, prefetch_videos

        before = self.encoded
        readers = (VideoReader(path, CHUNK_FRAMES) for path in paths)
        workers = reader_threads()
        with prefetch_videos(readers, lambda batch: self.preprocess(batch.frames), workers) as videos:
            for _, chunks in videos:
                for frames in chunks:
                    self.batches.add_frames(frames, self._count)
        return self.encoded - before

    def _count(self, embeddings: Any) -> None:
        self.encoded += len(embeddings)
