"""Open a video with PyAV: known container formats, local files and bounded frame sizes only."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from vimoclip.errors import VideoError
from vimoclip.video.raw_stream import describe_raw_stream

VIDEO_EXTENSIONS = frozenset(
    {".mp4", ".avi", ".mov", ".mkv", ".m4v", ".mpg", ".mpeg", ".webm", ".wmv", ".flv", ".ts", ".mts", ".m2ts"}
    | {".ogv", ".3gp", ".gif", ".asf", ".f4v", ".qt", ".3g2", ".ogm", ".divx", ".mpe", ".m1v", ".m2v", ".mod", ".tod"}
    | {".vob", ".m2t", ".dv", ".mxf", ".nut", ".ivf", ".y4m", ".wtv", ".rm", ".rmvb", ".dav", ".cine", ".ser"}
)
# FFmpeg's names of the container formats behind these extensions. Playlists, scripts and session descriptions (hls,
# concat, sdp, mlv, ...) are excluded because they make FFmpeg open other files. Audio formats are included so that they
# are reported as audio.
FORMAT_WHITELIST = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,asf,flv,ogg,gif,dv,mxf,nut,ivf,yuv4mpegpipe,"
    "wtv,rm,dhav,hxvs,cine,ser,mp3,aac,wav,flac"
)
MP4_FORMAT = "mov,mp4,m4a,3gp,3g2,mj2"
DECODING_TIMES = ("asf", "mxf")  # containers whose time stamps may be those of decoding
MAX_PIXELS = 2**26  # per frame: 8K video has half as many
CONTAINER_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": FORMAT_WHITELIST, "max_pixels": str(MAX_PIXELS)}
# without seeking, FFmpeg reads the packets of an AVI in sequence and not by its index
SEQUENTIAL_OPTIONS = CONTAINER_OPTIONS | {"seekable": "0"}
TOLERANT_CODECS = ("tiff",)  # decoders that refuse intact frames with err_detect=explode


def open_container(path: Path, options: dict[str, str] = CONTAINER_OPTIONS) -> Any:
    """Open a PyAV container. Raises VideoError if `path` is not a readable video file."""
    if path.is_dir():
        raise VideoError("is a folder")
    if not path.exists():
        raise VideoError("there is no such file" + (" (broken symbolic link)" if path.is_symlink() else ""))
    if not path.is_file():
        raise VideoError("is not a file but a device or a pipe")
    if path.stat().st_size == 0:
        raise VideoError("is empty (0 bytes)")
    try:
        # absolute: in a relative name FFmpeg reads the text before a colon as a protocol
        return av.open(str(path.absolute()), metadata_errors="replace", options=dict(options))
    except FileNotFoundError:
        raise VideoError("there is no such file") from None
    except av.error.ArgumentError:  # the format is not in FORMAT_WHITELIST
        raise VideoError(
            describe_raw_stream(path, MAX_PIXELS)
            or "is not in a supported video format (mp4, mov, mkv, webm, avi, ts, mpg, wmv, flv, ogv, gif and others); "
            "it may be a picture or a playlist"
        ) from None
    except av.error.EOFError:
        raise VideoError("ends before its first frame") from None
    except FFmpegError as error:
        if _read_magic(path)[4:8] == b"ftyp":
            raise VideoError("is an MP4 without a readable index (moov): cut short, or never finished") from None
        raise VideoError(f"is not a video that can be read: {error_text(error)}") from None
    except (ValueError, OverflowError) as error:  # raised by PyAV itself for a damaged header
        raise VideoError(f"is not a video that can be read: {error}") from None


def open_for_decoding(path: Path) -> Any:
    """Open a PyAV container to read all packets. Raises VideoError.

    The index of an AVI is ignored if it does not name all packets in the file."""
    container = open_container(path)
    if container.format.name != "avi":
        return container
    stream = video_stream(container)
    last = stream.index_entries[-1].timestamp + 1 if len(stream.index_entries) else 0
    named = _count_named_packets(path, stream)
    if named == len(stream.index_entries) and last >= stream.frames - 1:  # some recorders declare one too many
        return container
    with open_container(path, SEQUENTIAL_OPTIONS) as sequential:
        found = sum(1 for packet in sequential.demux(video_stream(sequential)) if packet.size)
    if found <= named:
        return container
    container.close()
    return open_container(path, SEQUENTIAL_OPTIONS)


def _count_named_packets(path: Path, stream: Any) -> int:
    """Return how many entries in the index of an AVI name the place of a packet of the stream."""
    chunk_id, named = b"%02d" % stream.index, 0
    with open(path, "rb") as file:
        for entry in stream.index_entries:
            file.seek(max(0, entry.pos))
            named += file.read(2) == chunk_id
    return named


def find_second_recording(path: Path) -> int | None:
    """Return the byte at which an MP4 begins that was joined to this one, and is not read; None if there is none."""
    position, size = 0, path.stat().st_size
    with open(path, "rb") as file:
        while position + 8 <= size:
            file.seek(position)
            header = file.read(16)
            if position and header[4:8] == b"ftyp":
                return position
            length = int.from_bytes(header[:4], "big")
            length = int.from_bytes(header[8:16], "big") if length == 1 else length
            if length < 8:  # 0: up to the end of the file
                return None
            position += length
    return None


def video_stream(container: Any) -> Any:
    """Return the video stream that FFmpeg calls best, never a cover picture. Raises VideoError if there is none."""
    streams = _films(container)
    if not streams:
        raise VideoError("has no video stream (sound only?)")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    context = stream.codec_context
    if context is None:
        raise VideoError("its video stream can't be decoded (unknown codec)")
    if context.width * context.height > MAX_PIXELS:
        raise VideoError(f"declares frames of {context.width}x{context.height}, more than {MAX_PIXELS} pixels")
    if context.width <= 0 or context.height <= 0:
        raise VideoError(f"declares no valid frame size, or more than {MAX_PIXELS} pixels")
    return stream


def other_video_streams(container: Any, stream: Any) -> list[Any]:
    """Return the video streams besides `stream` that are no cover pictures."""
    return [other for other in _films(container) if other != stream]


def _films(container: Any) -> list[Any]:
    return [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]


def describe_stream(stream: Any) -> str:
    """Return the number, codec and frame size of a video stream."""
    context = stream.codec_context
    return f"{stream.index}" + (f" ({context.name} {context.width}x{context.height})" if context else "")


def decoder_options(codec: str) -> dict[str, str]:
    """Return the options to decode with: the decoder reports errors in a frame, which FFmpeg conceals by default."""
    strict = {} if codec in TOLERANT_CODECS else {"err_detect": "explode"}
    return {"max_pixels": str(MAX_PIXELS)} | strict


def frame_rate(stream: Any) -> Fraction:
    """Return the frame rate in frames/s, or 25 if the file has none."""
    average = None if is_dv_type_1(stream) else stream.average_rate
    return Fraction(average or stream.guessed_rate or 25)


def is_dv_type_1(stream: Any) -> bool:
    """Return whether a stream is DV with its sound in an AVI, which has time stamps but no number of frames."""
    return stream.codec_context.name == "dvvideo" and not stream.frames and stream.average_rate == 1 / stream.time_base


def has_presentation_times(container: Any, stream: Any) -> bool:
    """Return whether the time stamps of packets are those of display.

    FFmpeg guesses those of AVI, and gives B-frames in ASF and MXF those of decoding."""
    name = container.format.name
    return name != "avi" and not (name in DECODING_TIMES and stream.codec_context.has_b_frames)


def declared_frames(container: Any, stream: Any) -> int:
    """Return the number of frames that the header declares and an edit list does not discard, 0 if it declares none."""
    frames, entries = int(stream.frames), stream.index_entries
    if frames and len(entries) and container.format.name == MP4_FORMAT:
        return sum(not entry.is_discard for entry in entries)  # samples behind the last edit are not in the index
    if frames and len(entries) and container.format.name == "avi":
        missing = frames - (entries[-1].timestamp + 1)  # without empty packets, which repeat the frame before
        return len(entries) + (0 if missing == 1 else missing)  # some recorders declare one too many
    return frames


def error_text(error: FFmpegError) -> str:
    """Return FFmpeg's description of an error."""
    return (error.strerror or str(error)).strip()


def _read_magic(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(8)
    except OSError:  # no permission: FFmpeg's error reports it
        return b""
