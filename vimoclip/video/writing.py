"""Encoding: H.264 that appears under its name only when whole."""

import contextlib
import errno
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from vimoclip import VideoError
from vimoclip.files import publish, temporary_path

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT}
KEYFRAME_EVERY = 30  # frames: a span of a written video costs at most so many frames of decoding before it


class Writer:
    """Writes an H.264 .mp4, which appears under its name only when whole and is the same bytes on any machine load.

    `comment`: JSON for the container. Sizes are made even by repeating the last row or column (4:2:0 needs it).
    Quality: CRF 17; `lossless` keeps every value of RGB."""

    def __init__(self, path: Path, fps: Fraction | float, comment: dict[str, Any], lossless: bool = False):
        self.path, self.comment, self.lossless = path, comment, lossless
        self.fps = Fraction(fps).limit_denominator(100_000)
        self.temporary = temporary_path(path)
        self._encoded = temporary_path(path, "encoding")
        self.frames = 0
        self._complete = False
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None:
                self.complete()
                if self._complete:
                    publish(self.temporary, self.path)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Leave nothing behind; what is published already stays."""
        if self._container is not None:
            with contextlib.suppress(FFmpegError):  # it has failed before, or doesn't matter
                self._container.close()
        self._container, self._complete = None, False
        self.temporary.unlink(missing_ok=True)
        self._encoded.unlink(missing_ok=True)

    def write(self, frames: np.ndarray) -> None:
        """Append (n, H, W, 3) uint8. Raises VideoError for sizes that H.264 has not, OSError for a full disk."""
        height, width = frames.shape[1:3]
        frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        with self._errors():
            if self._container is None:
                self._start(width + width % 2, height + height % 2)
            for image in frames:
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts = self.frames
                self.frames += 1
                self._container.mux(self._stream.encode(frame))

    def _start(self, width: int, height: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._encoded.unlink(missing_ok=True)  # what a killed run left, or a link to elsewhere
        self._container = av.open(str(self._encoded), "w", format="mp4")
        self._stream = self._container.add_stream("libx264rgb" if self.lossless else "libx264", rate=self.fps)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "rgb24" if self.lossless else "yuv420p"
        self._stream.time_base = 1 / self.fps
        self._stream.options = {
            "crf": "0" if self.lossless else "17",
            "preset": "veryfast",
            "bf": "0",
            "g": str(KEYFRAME_EVERY),
            # x264's output depends on its number of threads; videos are encoded beside each other instead
            "threads": "1",
            # Macroblock-tree in plain C. x264's AVX-512 code for it takes eight macroblocks at a time and reads past
            # the frame's last one where the width doesn't fill eight (128 pixels): what lay in memory there gave
            # other bytes for 24 of 1200 flow videos of 170x96, and for none of 1200 with this (+0.3 % in size,
            # -0.02 dB, no slower), which also makes x264, though not the conversion of colours, independent of the
            # CPU. Lossless has no such tree.
            "x264-params": "cpu-independent=1",
        }

    def complete(self) -> None:
        """Make the file whole, not yet visible: leaving the block does that. Without frames there is none."""
        if self._container is None or self._complete:
            return
        with self._errors():
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._add_comment()
        # before the video has its name: a run that is killed behind that doesn't come back to it
        self._encoded.unlink(missing_ok=True)
        self._complete = True

    def _add_comment(self) -> None:
        """Copy it into the header: it may say how many frames there are, which was not known when that was written."""
        self.temporary.unlink(missing_ok=True)
        with (
            av.open(str(self._encoded)) as source,
            av.open(str(self.temporary), "w", format="mp4", options={"movflags": "+faststart"}) as target,
        ):
            target.metadata["comment"] = json.dumps(self.comment, sort_keys=True)
            copy = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(source.streams.video[0]):
                if packet.dts is not None:
                    packet.stream = copy
                    target.mux(packet)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Errors of the disk under the output's name; others are of this video: its size, say."""
        try:
            yield
        except FFmpegError as error:
            if error.errno in DISK_ERRORS:
                raise OSError(error.errno, error.strerror, str(self.path)) from None
            raise VideoError(f"its frames can't be encoded as H.264: {error.strerror}") from None
