"""Reading frames of a video by index, without decoding all that stands before them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from av.error import FFmpegError

from vimoclip.errors import VideoError
from vimoclip.video.container import DECODER_OPTIONS, open_container, video_stream
from vimoclip.video.decoder import Decoding, Frame, converter
from vimoclip.video.probe import HEADER_OPTIONS


class SpanReader:
    """Reads frames [start, stop) of a video by index, frame-exact, by way of the nearest keyframe before them."""

    def __init__(self, path: Path):
        self.path = path
        with open_container(path, HEADER_OPTIONS) as container:
            stream = video_stream(container)
            self._size = stream.codec_context.width, stream.codec_context.height
            self._pts = _timestamps(container, stream)

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
        # the header alone: else FFmpeg decodes the first frames to learn what it is told by the packets, 6 ms a segment
        with open_container(self.path, HEADER_OPTIONS) as container:
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


def _timestamps(container: Any, stream: Any) -> list[int] | None:
    """Of each frame, in order; None where they can't be trusted, so that frames must be counted from the beginning."""
    try:
        pts = [packet.pts for packet in container.demux(stream) if packet.size and not packet.is_discard]
    except FFmpegError:
        return None
    if not pts or any(p is None for p in pts) or len(set(pts)) != len(pts):
        return None
    return sorted(p for p in pts if p is not None)
