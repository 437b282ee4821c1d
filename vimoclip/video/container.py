"""Opening a video: as a container of a known kind, from that one file only, and of a size that memory can take."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from vimoclip.errors import VideoError

EXTENSIONS = frozenset(
    {".mp4", ".avi", ".mov", ".mkv", ".m4v", ".mpg", ".mpeg", ".webm", ".wmv", ".flv", ".ts", ".mts", ".m2ts"}
    | {".ogv", ".3gp", ".gif"}
)
# FFmpeg's names of the containers behind these extensions. Playlists, scripts and session descriptions (hls, concat,
# sdp, ...), which make FFmpeg open other files, are none of them. Sound is let in to be called by its name.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,asf,flv,ogg,gif,mp3,aac,wav,flac"
MAX_PIXELS = 2**26  # a frame: 8K video has half as many
OPTIONS = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS, "max_pixels": str(MAX_PIXELS)}
# explode: an error in a frame is an error, where FFmpeg would paint over it
DECODER_OPTIONS = {"max_pixels": str(MAX_PIXELS), "err_detect": "explode"}


def open_container(path: Path, options: dict[str, str] = OPTIONS) -> Any:
    """A PyAV container. Raises VideoError with the reason in words."""
    if path.is_dir():
        raise VideoError("is a folder")
    if not path.exists():
        raise VideoError("there is no such file" + (", the link points nowhere" if path.is_symlink() else ""))
    if not path.is_file():
        raise VideoError("is not a file but a device or a pipe")
    if path.stat().st_size == 0:
        raise VideoError("is empty (0 bytes)")
    try:
        # absolute, as FFmpeg takes what stands before a colon in a relative name for a protocol
        return av.open(str(path.absolute()), metadata_errors="replace", options=dict(options))
    except FileNotFoundError:
        raise VideoError("there is no such file") from None
    except av.error.ArgumentError:  # what FFmpeg says where a file's kind is not in the list
        raise VideoError(
            "is not a video of a kind that is opened here (mp4, mov, mkv, webm, avi, ts, mpg, wmv, flv, ogv, gif) "
            "but a picture, a playlist or the like"
        ) from None
    except av.error.EOFError:
        raise VideoError("ends before its first frame") from None
    except FFmpegError as error:
        if _first_bytes(path)[4:8] == b"ftyp":
            raise VideoError("is an MP4 without a readable index (moov): cut short, or never finished") from None
        raise VideoError(f"is not a video that can be read: {words(error)}") from None
    except (ValueError, OverflowError) as error:  # PyAV's own, where a damaged header makes no sense
        raise VideoError(f"is not a video that can be read: {error}") from None


def video_stream(container: Any) -> Any:
    """The first video stream that is no cover picture. Raises VideoError."""
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        raise VideoError("has no video stream (sound only?)")
    stream = streams[0]
    context = stream.codec_context
    if context is None:
        raise VideoError("its video stream can't be decoded (unknown codec)")
    if context.width * context.height > MAX_PIXELS:
        raise VideoError(f"says that its frames have {context.width}x{context.height} pixels: more than {MAX_PIXELS}")
    if context.width <= 0 or context.height <= 0:
        raise VideoError(f"its frames have no size that can be read, or more than {MAX_PIXELS} pixels")
    return stream


def frame_rate(stream: Any) -> Fraction:
    """Frames/s; 25 where the file doesn't say."""
    return Fraction(stream.average_rate or stream.guessed_rate or 25)


def words(error: FFmpegError) -> str:
    """What FFmpeg says of an error."""
    return (error.strerror or str(error)).strip()


def _first_bytes(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(8)
    except OSError:  # no permission: FFmpeg's own words say so
        return b""
