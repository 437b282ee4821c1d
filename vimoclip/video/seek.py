"""Seek in an open video: find a keyframe and decode from it."""

import contextlib
from collections.abc import Iterator
from itertools import chain
from typing import Any

from av.error import FFmpegError

from vimoclip.video.container import decoder_options, video_stream

BACKWARD_STEPS = (0, 1, 4, 16, 64)  # seconds before the time: some containers seek to packets between keyframes


def prepare_seeking(container: Any) -> Any:
    """Configure and return the video stream."""
    stream = video_stream(container)
    stream.codec_context.options = decoder_options(stream.codec_context.name)
    return stream


def find_keyframe(container: Any, stream: Any, pts: int) -> Any:
    """Seek to and return the packet of a keyframe displayed at `pts` or before it; None if none is found.

    The container continues with the packet after it."""
    for seconds in BACKWARD_STEPS:
        with contextlib.suppress(FFmpegError):
            container.seek(round(pts - seconds / stream.time_base), stream=stream, backward=True)
            for packet in container.demux(stream):
                if not packet.size or packet.pts is None or packet.pts > pts:
                    break
                if packet.is_keyframe:
                    return packet
    return None


def decode_from(container: Any, stream: Any, keyframe: Any) -> Iterator[Any]:
    """Yield the frames from a keyframe on, after `find_keyframe`, up to an error; none if it is not a keyframe."""
    first = not keyframe.is_discard
    with contextlib.suppress(FFmpegError):
        for packet in chain([keyframe], container.demux(stream)):
            for frame in packet.decode():
                if frame.pts is None or frame.is_corrupt:
                    return
                if frame.pts < keyframe.pts:  # it may refer to frames before the keyframe
                    continue
                if first and not (frame.key_frame and frame.pts == keyframe.pts):
                    return
                first = False
                yield frame
