"""Read frames of a video by index, without decoding all frames before them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from av.error import FFmpegError

from vimoclip.errors import VideoError
from vimoclip.video.container import has_presentation_times, open_container, video_stream
from vimoclip.video.decoder import DecodedFrame, VideoDecoder
from vimoclip.video.geometry import displayed_size, pixel_aspect, rgb_converter
from vimoclip.video.probe import HEADER_OPTIONS
from vimoclip.video.seek import decode_from, find_keyframe, prepare_seeking


class RandomAccessReader:
    """Frame-exact reader of frames [start, stop) of a video, which decodes from the nearest keyframe before them."""

    def __init__(self, path: Path):
        self.path = path
        with open_container(path, HEADER_OPTIONS) as container:
            stream = video_stream(container)
            self._pixel_aspect = pixel_aspect(stream)
            context = stream.codec_context
            self._size = displayed_size(context.width, context.height, self._pixel_aspect)
            self._pts = _presentation_times(container, stream)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return (stop - start, H, W, 3) uint8. Raises VideoError if the video ends before `stop`."""
        frames = self._seek(start, stop) if self._pts is not None else None
        if frames is None:
            frames = [frame.to_rgb() for frame in self._decode_from_start(stop) if frame.index >= start]
        if len(frames) != stop - start:
            raise VideoError(f"has no frames {start}..{stop - 1}")
        return np.stack(frames)

    def _decode_from_start(self, stop: int) -> Iterator[DecodedFrame]:
        for frame in VideoDecoder(self.path):
            if frame.index >= stop:
                return
            yield frame

    def _seek(self, start: int, stop: int) -> list[np.ndarray] | None:
        """Return the frames with the start-th to stop-th timestamps, None if decoding gives other timestamps."""
        assert self._pts is not None
        if stop > len(self._pts):
            return None
        wanted_pts = self._pts[start:stop]
        frames: list[np.ndarray] = []
        # HEADER_OPTIONS: FFmpeg would decode the first frames to complete the header, 6 ms per segment
        with open_container(self.path, HEADER_OPTIONS) as container:
            stream = prepare_seeking(container)
            keyframe = find_keyframe(container, stream, wanted_pts[0])
            for frame in decode_from(container, stream, keyframe) if keyframe else ():
                if frame.pts < wanted_pts[0]:
                    continue
                if frame.pts != wanted_pts[len(frames)]:
                    return None
                frames.append(rgb_converter(frame, self._size, self._pixel_aspect)())
                if len(frames) == len(wanted_pts):
                    return frames
        return None


def _presentation_times(container: Any, stream: Any) -> list[int] | None:
    """Return the sorted pts of all frames, None if they are incomplete or ambiguous and frames have to be counted."""
    if not has_presentation_times(container, stream):
        return None
    try:
        times = [
            (packet.pts, packet.dts) for packet in container.demux(stream) if packet.size and not packet.is_discard
        ]
    except FFmpegError:
        return None
    pts, dts = [pts for pts, _ in times], [dts for _, dts in times if dts is not None]
    if not pts or None in pts or len(set(pts)) != len(pts):
        return None
    if dts != sorted(dts):  # the clock restarts
        return None
    return sorted(pts)
