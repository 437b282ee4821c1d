"""Encoding: H.264 that appears under its name only when whole."""

import contextlib
import errno
import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from vimoclip.errors import VideoError
from vimoclip.io.atomic import publish, temporary_path

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT}
# frames: train.py's segments of 30 frames are 29 flows that begin every 29, so each is one group of pictures, and
# nothing else is decoded for it
KEYFRAME_EVERY = 29
# For flow at a shorter side of 224, drawn of four clips, against preset veryfast at CRF 17 with its deblocking, CABAC
# and adaptive quantisation: 0.95 to 1.2 of the bytes (1.4 to 2.0 kB a frame), -0.2 to +0.2 dB, 0.45 of the time to
# encode, 0.5 of the time to decode. Without the macroblock-tree it is 1.6 times as large; with adaptive quantisation,
# which spends bits on even ground, 1.8 times.
LOSSY = {
    "crf": "13",
    "preset": "ultrafast",
    "x264-params": "mbtree=1:rc-lookahead=10:8x8dct=1:partitions=i8x8,i4x4",
}
LOSSLESS = {"crf": "0", "preset": "veryfast"}


def made_even(frames: np.ndarray) -> np.ndarray:
    """(n, H, W, 3) with an even height and width, by repeating the last row or column."""
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return frames


class Writer:
    """Writes an H.264 .mp4, which appears under its name only when whole and is the same bytes on any machine load.

    `comment`: JSON for the container. Sizes are made even by repeating the last row or column (4:2:0 needs it).
    Quality: that of LOSSY; `lossless` keeps every value of RGB. A thread encodes while the next frames are made, so
    that what `write` raises may be of the frames before, or come from `complete`."""

    def __init__(self, path: Path, fps: Fraction | float, comment: dict[str, Any], lossless: bool = False):
        self.path, self.comment, self.lossless = path, comment, lossless
        self.fps = Fraction(fps).limit_denominator(100_000)
        self.temporary = temporary_path(path)
        self._encoded = temporary_path(path, "encoding")
        self.frames = 0
        self._complete = False
        self._container: Any = None
        self._stream: Any = None
        self._thread = ThreadPoolExecutor(1, "encoding")
        self._encoding: Future[None] | None = None

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
        self._thread.shutdown(cancel_futures=True)
        if self._container is not None:
            with contextlib.suppress(FFmpegError):  # it has failed before, or doesn't matter
                self._container.close()
        self._container, self._complete = None, False
        self.temporary.unlink(missing_ok=True)
        self._encoded.unlink(missing_ok=True)

    def write(self, frames: np.ndarray) -> None:
        """Append (n, H, W, 3) uint8. Raises VideoError for sizes that H.264 has not, OSError for a full disk."""
        self._wait()
        self._encoding = self._thread.submit(self._encode, frames)

    def _wait(self) -> None:
        """For what is being encoded; raises its error."""
        encoding, self._encoding = self._encoding, None
        if encoding is not None:
            encoding.result()

    def _encode(self, frames: np.ndarray) -> None:
        frames = made_even(frames)
        with self._errors():
            if self._container is None:
                self._start(frames.shape[2], frames.shape[1])
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
        options = LOSSLESS if self.lossless else LOSSY
        self._stream.options = options | {
            "bf": "0",
            "g": str(KEYFRAME_EVERY),
            "sc_threshold": "0",  # no keyframes beside those
            # x264's output depends on its number of threads; it works beside what makes the frames instead
            "threads": "1",
            # Macroblock-tree in plain C. x264's AVX-512 code for it takes eight macroblocks at a time and reads past
            # the frame's last one where the width doesn't fill eight (128 pixels): what lay in memory there gave
            # other bytes for 24 of 1200 flow videos of 170x96, and for none of 1200 with this (+0.3 % in size,
            # -0.02 dB, no slower), which also makes x264, though not the conversion of colours, independent of the
            # CPU. Lossless has no such tree.
            "x264-params": ":".join(filter(None, ["cpu-independent=1", options.get("x264-params")])),
        }

    def complete(self) -> None:
        """Make the file whole, not yet visible: leaving the block does that. Without frames there is none."""
        self._wait()
        if self._container is None or self._complete:
            return
        with self._errors():
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._add_comment()
        # before the video has its name: a run that is killed behind that doesn't come back to it
        self._encoded.unlink(missing_ok=True)
        self._complete = True

    def size(self) -> int:
        """Bytes of the file, once it is complete."""
        return self.temporary.stat().st_size

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
