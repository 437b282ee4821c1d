"""Reading frames: stream batches of them, spread over a video, or a span by index."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from av.error import FFmpegError

from vimoclip import VideoError
from vimoclip.video.decoding import Decoding, Frame, converter
from vimoclip.video.opening import DECODER_OPTIONS, MAX_PIXELS, open_container, probe, video_stream
from vimoclip.video.sampling import EVERY_FRAME, End, Sampling

BATCH_PIXELS = MAX_PIXELS  # of all frames in a batch


def read(
    path: Path, batch_size: int, sampling: Sampling = EVERY_FRAME, shorter_side: int | None = None, overlap: int = 0
) -> Iterator[np.ndarray | End]:
    """Stream the kept frames as (n, H, W, 3) uint8, n <= batch_size, then one `End`. Memory: one batch.

    Of frames that are very large there are fewer in a batch.

    `shorter_side` scales while colours are converted. With `overlap` each batch begins with that many of the
    last one's frames and holds batch_size new ones. Raises VideoError, also for a video without any frame."""
    keep, indices, timestamps = sampling.picker(), [], []
    pending: list[np.ndarray] = []
    fresh, decoding = 0, Decoding(path, shorter_side)
    for frame in decoding:
        if not keep(frame.index, frame.seconds):
            continue
        indices.append(frame.index)
        timestamps.append(frame.seconds)
        pending.append(frame.convert())
        if not fresh:
            batch_size = min(batch_size, max(1, BATCH_PIXELS // pending[0][..., 0].size))
        fresh += 1
        if fresh == batch_size + (overlap if len(indices) <= batch_size + overlap else 0):
            yield np.stack(pending)
            pending, fresh = pending[len(pending) - overlap :], 0
    if not decoding.decoded:
        raise VideoError(decoding.problem or "has no frames")
    if not indices:
        raise VideoError("none of its frames that can be decoded is kept; choose a smaller --stride")
    if fresh:
        yield np.stack(pending)
    yield End(
        np.array(indices, np.int64),
        np.array(timestamps, np.float64),
        decoding.decoded,
        decoding.fps,
        decoding.expected,
        decoding.problem,
        decoding.note,
    )


def read_evenly(path: Path, count: int) -> np.ndarray:
    """(count, H, W, 3) uint8: frames evenly spread from the first to the last. Raises VideoError."""
    total = probe(path).frames or sum(1 for _ in Decoding(path))
    wanted = np.linspace(0, max(total - 1, 0), count).astype(int).tolist()
    frames: list[np.ndarray] = []
    for number, frame in enumerate(Decoding(path)):
        frames += [frame.convert()] * wanted.count(number)
        if len(frames) == count:
            break
    if not frames:
        raise VideoError("has no frame that can be decoded")
    return np.stack(frames + frames[-1:] * (count - len(frames)))  # a header may promise more than there is


class SpanReader:
    """Reads frames [start, stop) of a video by index, frame-exact, by way of the nearest keyframe before them."""

    def __init__(self, path: Path):
        self.path = path
        self._size = (0, 0)
        self._pts: list[int] | None = None  # None: timestamps can't be trusted, so count from the beginning
        with open_container(path) as container:
            stream = video_stream(container)
            self._size = stream.codec_context.width, stream.codec_context.height
            try:
                pts = [packet.pts for packet in container.demux(stream) if packet.size and not packet.is_discard]
            except FFmpegError:
                return
            if pts and all(p is not None for p in pts) and len(set(pts)) == len(pts):
                self._pts = sorted(p for p in pts if p is not None)

    def read(self, start: int, stop: int) -> np.ndarray:
        """(stop - start, H, W, 3) uint8. Raises VideoError where the video ends before."""
        frames = self._seek(start, stop) if self._pts is not None else None
        if frames is None:
            frames = [frame.convert() for frame in self._first(stop) if frame.index >= start]
        if len(frames) != stop - start:
            raise VideoError(f"has no frames {start}..{stop - 1}")
        return np.stack(frames)

    def _first(self, stop: int) -> Iterator[Frame]:
        for frame in Decoding(self.path):
            if frame.index >= stop:
                return
            yield frame

    def _seek(self, start: int, stop: int) -> list[np.ndarray] | None:
        """The frames whose timestamps are the start-th to stop-th; None where decoding shows other timestamps."""
        assert self._pts is not None
        if stop > len(self._pts):
            return None
        wanted = self._pts[start:stop]
        found: list[np.ndarray] = []
        with open_container(self.path) as container:
            stream = video_stream(container)
            stream.codec_context.options = dict(DECODER_OPTIONS)
            try:
                container.seek(wanted[0], stream=stream, backward=True)
                for frame in container.decode(stream):
                    if frame.pts is None or frame.pts < wanted[0]:
                        continue
                    if frame.pts != wanted[len(found)]:
                        return None
                    found.append(converter(frame, self._size)())
                    if len(found) == len(wanted):
                        return found
            except FFmpegError:
                return None
        return None
