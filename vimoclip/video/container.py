"""Open a video with PyAV: known container formats, local files and bounded frame sizes only."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from vimoclip.errors import VideoError

VIDEO_EXTENSIONS = frozenset(
    {".mp4", ".avi", ".mov", ".mkv", ".m4v", ".mpg", ".mpeg", ".webm", ".wmv", ".flv", ".ts", ".mts", ".m2ts"}
    | {".ogv", ".3gp", ".gif"}
)
# FFmpeg's names of the container formats behind these extensions. Playlists, scripts and session descriptions (hls,
# concat, sdp, ...) are excluded because they make FFmpeg open other files. Audio formats are included so that they are
# reported as audio.
FORMAT_WHITELIST = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,asf,flv,ogg,gif,mp3,aac,wav,flac"
)
MAX_PIXELS = 2**26  # per frame: 8K video has half as many
CONTAINER_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": FORMAT_WHITELIST, "max_pixels": str(MAX_PIXELS)}
# explode: report errors in a frame, which FFmpeg conceals by default
DECODER_OPTIONS = {"max_pixels": str(MAX_PIXELS), "err_detect": "explode"}


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
            "is not in a supported video format (mp4, mov, mkv, webm, avi, ts, mpg, wmv, flv, ogv, gif); it may be a "
            "picture or a playlist"
        ) from None
    except av.error.EOFError:
        raise VideoError("ends before its first frame") from None
    except FFmpegError as error:
        if _read_magic(path)[4:8] == b"ftyp":
            raise VideoError("is an MP4 without a readable index (moov): cut short, or never finished") from None
        raise VideoError(f"is not a video that can be read: {error_text(error)}") from None
    except (ValueError, OverflowError) as error:  # raised by PyAV itself for a damaged header
        raise VideoError(f"is not a video that can be read: {error}") from None


def video_stream(container: Any) -> Any:
    """Return the first video stream that is not a cover picture. Raises VideoError if there is none."""
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        raise VideoError("has no video stream (sound only?)")
    stream = streams[0]
    context = stream.codec_context
    if context is None:
        raise VideoError("its video stream can't be decoded (unknown codec)")
    if context.width * context.height > MAX_PIXELS:
        raise VideoError(f"declares frames of {context.width}x{context.height}, more than {MAX_PIXELS} pixels")
    if context.width <= 0 or context.height <= 0:
        raise VideoError(f"declares no valid frame size, or more than {MAX_PIXELS} pixels")
    return stream


def frame_rate(stream: Any) -> Fraction:
    """Return the frame rate in frames/s, or 25 if the file has none."""
    return Fraction(stream.average_rate or stream.guessed_rate or 25)


def error_text(error: FFmpegError) -> str:
    """Return FFmpeg's description of an error."""
    return (error.strerror or str(error)).strip()


def _read_magic(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(8)
    except OSError:  # no permission: FFmpeg's error reports it
        return b""
