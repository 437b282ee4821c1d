"""Read frames that are evenly spaced from the first to the last, with seeking in long videos."""

from collections.abc import Iterable
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
from av.error import FFmpegError

from vimoclip.errors import VideoError
from vimoclip.video.container import open_for_decoding
from vimoclip.video.decoder import FRAME_THREADS, VideoDecoder
from vimoclip.video.geometry import displayed_size, pixel_aspect, rgb_converter
from vimoclip.video.probe import probe
from vimoclip.video.seek import decode_from, find_keyframe, prepare_seeking

MAX_DECODED_FRAMES = 1000  # of a video that is read without seeking
MAX_REORDERED = 16  # frames that may be decoded before a frame displayed earlier: the limit of H.264 and HEVC
PROBED_POSITIONS = 32  # of a file, where the clock must have advanced
# containers that have no index of times: recordings that are joined to one file have a clock that restarts
UNINDEXED_CONTAINERS = ("mpegts", "mpeg")
UNSEEKABLE_CONTAINERS = ("gif", "apng")  # each image changes a part of the one before


def read_evenly_spaced(path: Path, count: int) -> np.ndarray:
    """Return (count, H, W, 3) uint8: frames evenly spaced from the first to the last. Raises VideoError.

    In a video of more than MAX_DECODED_FRAMES frames they are evenly spaced in time, and only the frames from a
    keyframe up to each are decoded. A video is decoded to its end, maybe twice, if it has one keyframe, if its clock
    restarts, or if its container or damage prevents seeking."""
    info = probe(path)
    long = (info.frames or info.seconds * float(info.fps)) > MAX_DECODED_FRAMES
    frames = _seek_frames(path, count) if long else []
    return np.stack(frames or _decode_frames(path, count, info.frames))


def _decode_frames(path: Path, count: int, total: int) -> list[np.ndarray]:
    """Return the frames of a video of `total` frames; if there are more or fewer, it is decoded twice."""
    positions = np.linspace(0, max(total - 1, 0), count).astype(int).tolist()
    frames, decoded = list[np.ndarray](), 0
    for frame in VideoDecoder(path):
        frames += [frame.to_rgb()] * positions.count(decoded)
        decoded += 1
    if not decoded:
        raise VideoError("has no frame that can be decoded")
    return frames if decoded == total else _decode_frames(path, count, decoded)


def _seek_frames(path: Path, count: int) -> list[np.ndarray]:
    """Return the frames; none if they have to be counted from the start."""
    try:
        with open_for_decoding(path) as container:
            stream = prepare_seeking(container)
            stream.thread_type = "AUTO" if stream.codec_context.name in FRAME_THREADS else "SLICE"
            if container.format.name in UNSEEKABLE_CONTAINERS or not (span := _time_span(container, stream)):
                return []
            return _frames_at(container, stream, np.linspace(*span, count).round().astype(int).tolist())
    except FFmpegError:
        return []


def _time_span(container: Any, stream: Any) -> tuple[int, int] | None:
    """Return the pts of the first and of the last frame, None if the times are no clock that goes on."""
    packets = (packet for packet in container.demux(stream) if _is_visible(packet))
    first = min((packet.pts for packet in islice(packets, MAX_REORDERED)), default=None)
    if first is None or (container.format.name in UNINDEXED_CONTAINERS and not _clock_advances(container, stream)):
        return None
    if stream.duration:
        end = (stream.start_time or 0) + stream.duration
    else:
        end = round(((container.start_time or 0) + (container.duration or 0)) / 1_000_000 / stream.time_base)
    keyframe = find_keyframe(container, stream, end)
    if keyframe is None:
        return None
    tail = [keyframe, *(packet for packet in container.demux(stream) if packet.size)]
    dts = [packet.dts for packet in tail if packet.dts is not None]
    if dts != sorted(dts):
        return None
    return first, max((packet.pts for packet in tail if _is_visible(packet)), default=first)


def _is_visible(packet: Any) -> bool:
    return bool(packet.size) and packet.pts is not None and not packet.is_discard


def _clock_advances(container: Any, stream: Any) -> bool:
    """Return whether times increase with the position in the file."""
    last = None
    for number in range(PROBED_POSITIONS):
        container.seek(container.size * number // PROBED_POSITIONS, unsupported_byte_offset=True)
        dts = next((packet.dts for packet in container.demux(stream) if packet.dts is not None), None)
        if last is not None and dts is not None and dts < last:
            return False
        last = last if dts is None else dts
    return True


def _frames_at(container: Any, stream: Any, times: list[int]) -> list[np.ndarray]:
    """Return the frame displayed at each pts; none if a keyframe before it is not found."""
    keyframes = [find_keyframe(container, stream, time) for time in times]
    if None in keyframes:
        return []
    frames = list[Any]()
    for _, group in groupby(zip(keyframes, times, strict=True), key=lambda pair: pair[0].pts):
        wanted = [time for _, time in group]
        shown = _shown_frames(decode_from(container, stream, find_keyframe(container, stream, wanted[0])), wanted)
        if not shown:
            return []
        frames += shown
    aspect = pixel_aspect(stream)
    size = displayed_size(frames[0].width, frames[0].height, aspect)
    return [rgb_converter(frame, size, aspect)() for frame in frames]


def _shown_frames(decoded: Iterable[Any], times: list[int]) -> list[Any]:
    """Return the last frame up to each time; none if the first frame is later."""
    shown, last = list[Any](), None
    for frame in decoded:
        while last is not None and len(shown) < len(times) and frame.pts > times[len(shown)]:
            shown.append(last)
        if len(shown) == len(times) or (last is None and frame.pts > times[0]):
            return shown
        last = frame
    return shown + [last] * (len(times) - len(shown)) if last is not None else []
