"""Encode H.264 videos atomically and reproducibly."""

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
# In frames. A training segment of 30 frames has 29 flow frames, and segments start every 29 frames: a segment is one
# group of pictures, so no other frame is decoded for it.
KEYFRAME_INTERVAL = 29
# Measured on flow videos of four clips at a shorter side of 224, relative to preset veryfast at CRF 17 (deblocking,
# CABAC, adaptive quantisation): 0.95 to 1.2 times the size (1.4 to 2.0 kB per frame), -0.2 to +0.2 dB, 0.45 times the
# encoding time, 0.5 times the decoding time. The size is 1.6 times as large without mbtree, and 1.8 times with adaptive
# quantisation, which spends bits on uniform areas.
LOSSY_OPTIONS = {
    "crf": "13",
    "preset": "ultrafast",
    "x264-params": "mbtree=1:rc-lookahead=10:8x8dct=1:partitions=i8x8,i4x4",
}
LOSSLESS_OPTIONS = {"crf": "0", "preset": "veryfast"}
MIN_TICK = Fraction(1, 1_000_000)  # seconds; MP4 stores durations of 2**31 ticks at most, here 36 min


def pad_to_even(frames: np.ndarray) -> np.ndarray:
    """Pad (n, H, W, 3) to an even height and width by repeating the last row or column."""
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return frames


class VideoWriter:
    """Atomic, reproducible writer of an H.264 .mp4, as a context manager; equal input gives equal bytes.

    `comment`: JSON object for the container, read when the file is finalized. Odd sizes are padded (4:2:0 requires even
    ones). `lossless` keeps every RGB value; the default quality is LOSSY_OPTIONS. `tick`: unit of the frames' times in
    seconds, at least MIN_TICK; default: one frame. `end`: seconds from the first frame to the end of the last one, if
    set before the file is finalized. Encoding runs in a background thread: errors of a batch are raised by the next
    `write` or by `finalize`."""

    def __init__(
        self,
        path: Path,
        fps: Fraction | float,
        comment: dict[str, Any],
        lossless: bool = False,
        tick: Fraction | None = None,
    ):
        self.path, self.comment, self.lossless = path, comment, lossless
        self.fps = Fraction(fps).limit_denominator(100_000)
        self.tick = max(tick, MIN_TICK) if tick else 1 / self.fps
        self.end: float | None = None
        self._last_pts = -1
        self._temporary = temporary_path(path)
        self._encoding_path = temporary_path(path, "encoding")
        self.frames = 0
        self._finalized = False
        self._container: Any = None
        self._stream: Any = None
        self._thread = ThreadPoolExecutor(1, "encoding")
        self._future: Future[None] | None = None

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, error_type: Any, error: Any, traceback: Any) -> None:
        try:
            if error_type is None:
                self.finalize()
                if self._finalized:
                    publish(self._temporary, self.path)
        finally:
            self.discard()

    def discard(self) -> None:
        """Delete the temporary files; a published file stays."""
        self._thread.shutdown(cancel_futures=True)
        if self._container is not None:
            with contextlib.suppress(FFmpegError):  # already reported, or the file is discarded
                self._container.close()
        self._container, self._finalized = None, False
        self._temporary.unlink(missing_ok=True)
        self._encoding_path.unlink(missing_ok=True)

    def write(self, frames: np.ndarray, times: np.ndarray | None = None) -> None:
        """Append (n, H, W, 3) uint8. Raises VideoError for a size that H.264 cannot encode, OSError for a full disk.

        `times` (n,): seconds since the first frame, rounded to ticks; default: one tick after each other. Frames at one
        time are a tick apart, as H.264 needs."""
        self._wait_for_thread()
        self._future = self._thread.submit(self._encode, frames, times)

    def _wait_for_thread(self) -> None:
        """Wait for the current batch or the completion, and raise its error."""
        future, self._future = self._future, None
        if future is not None:
            future.result()

    def _encode(self, frames: np.ndarray, times: np.ndarray | None) -> None:
        frames = pad_to_even(frames)
        with self._errors():
            if self._container is None:
                self._open_stream(frames.shape[2], frames.shape[1])
            for number, image in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                pts = 0 if times is None else round(float(times[number]) / self.tick)
                frame.pts = self._last_pts = max(pts, self._last_pts + 1)
                self.frames += 1
                self._container.mux(self._stream.encode(frame))

    def _open_stream(self, width: int, height: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._encoding_path.unlink(missing_ok=True)  # left by a killed run, or a symbolic link
        self._container = av.open(str(self._encoding_path), "w", format="mp4")
        self._stream = self._container.add_stream("libx264rgb" if self.lossless else "libx264", rate=self.fps)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "rgb24" if self.lossless else "yuv420p"
        self._stream.time_base = self._stream.codec_context.time_base = self.tick
        options = LOSSLESS_OPTIONS if self.lossless else LOSSY_OPTIONS
        self._stream.options = options | {
            "bf": "0",
            "g": str(KEYFRAME_INTERVAL),
            "sc_threshold": "0",  # no additional keyframes
            # x264's output depends on the number of threads
            "threads": "1",
            # Compute mbtree in plain C. x264's AVX-512 code processes eight macroblocks at a time and reads beyond the
            # frame if the width is not a multiple of 128 pixels: uninitialized memory changed the bytes of 24 of 1200
            # flow videos of 170x96, and of none with this option (+0.3 % size, -0.02 dB, same speed). It also makes
            # x264, but not the color conversion, independent of the CPU. Lossless encoding has no mbtree.
            "x264-params": ":".join(filter(None, ["cpu-independent=1", options.get("x264-params")])),
        }

    def finalize(self) -> None:
        """Complete the temporary file, which the end of the `with` block publishes. Without frames there is no file."""
        self.start_finalizing()
        self._wait_for_thread()

    def start_finalizing(self) -> None:
        """Let the thread complete the temporary file, for which `finalize` waits."""
        if self._future is not None or (self._container is not None and not self._finalized):
            self._future = self._thread.submit(self._complete, self._future)

    def _complete(self, last_batch: Future[None] | None) -> None:
        if last_batch is not None:
            last_batch.result()  # raises its error
        if self._finalized:
            return
        with self._errors():
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._add_comment()
        # before the video is published: a run that is killed after that does not clean up
        self._encoding_path.unlink(missing_ok=True)
        self._finalized = True

    def size(self) -> int:
        """Return the size of the finalized file in bytes."""
        return self._temporary.stat().st_size

    def _add_comment(self) -> None:
        """Remux with the comment, whose entries may not be known before the last frame."""
        self._temporary.unlink(missing_ok=True)
        with (
            av.open(str(self._encoding_path)) as source,
            av.open(str(self._temporary), "w", format="mp4", options={"movflags": "+faststart"}) as target,
        ):
            target.metadata["comment"] = json.dumps(self.comment, sort_keys=True)
            copy = target.add_stream_from_template(source.streams.video[0])
            packets = (packet for packet in source.demux(source.streams.video[0]) if packet.dts is not None)
            for number, packet in enumerate(packets, start=1):
                if self.end is not None and number == self.frames:
                    packet.duration = max(1, round(self.end / packet.time_base) - (packet.pts or 0))
                packet.stream = copy
                target.mux(packet)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise disk errors as OSError with the output's path, other encoder errors as VideoError."""
        try:
            yield
        except FFmpegError as error:
            if error.errno in DISK_ERRORS:
                raise OSError(error.errno, error.strerror, str(self.path)) from None
            raise VideoError(f"can't be encoded as H.264: {error.strerror}") from None
