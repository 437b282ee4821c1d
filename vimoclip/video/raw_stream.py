"""Recognise raw streams, such as .h264, which hold no times, and name the FFmpeg command that makes a video of one."""

import os
import shlex
import subprocess
from pathlib import Path

import av
from av.error import FFmpegError

RAW_EXTENSIONS = frozenset(
    {".h264", ".264", ".avc", ".h26l", ".h265", ".265", ".hevc", ".h266", ".266", ".vvc", ".mjpeg", ".mjpg", ".obu"}
    | {".h261", ".h263", ".vc1"}
)
RAW_FORMATS = frozenset(
    {"h264", "hevc", "vvc", "evc", "mjpeg", "obu", "av1", "h261", "h263", "vc1", "dirac", "cavsvideo"}
)
RAW_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": ",".join(sorted(RAW_FORMATS))}


def describe_raw_stream(path: Path, max_pixels: int = 2**26) -> str | None:
    """Return that a file is a raw stream, with the command that makes a video of it; None if it is none."""
    try:
        with av.open(str(path.absolute()), options=RAW_OPTIONS | {"max_pixels": str(max_pixels)}) as container:
            # FFmpeg gives B-frames of a raw stream wrong times unless it decodes them
            reorders = container.streams.video[0].codec_context.has_b_frames
            name = container.format.name
    except (FFmpegError, OSError, ValueError, IndexError, AttributeError):
        return None
    codec = ["-c:v", "libx264", "-crf", "12"] if reorders else ["-c", "copy"]
    source = os.path.join(os.curdir, path)  # ./ : a name may begin with a dash
    target = os.path.join(os.curdir, path.with_suffix(".mp4" if path.suffix.lower() == ".mkv" else ".mkv"))
    command = ["ffmpeg", "-framerate", "25", "-f", name, "-i", source, *codec, target]
    text = shlex.join(command) if os.name == "posix" else subprocess.list2cmdline(command)
    return f"is a raw {name} stream, which holds no times; make a video of it, with its own frame rate: {text}"
