"""Encoding: H.264 that appears under its name only when whole."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from vimoclip import publish

KEYFRAME_EVERY = 30  # frames: a span of a written video costs at most so many frames of decoding before it


class Writer:
    """Writes an H.264 .mp4, which appears under its name only when whole and is the same bytes on any machine load.

    `comment`: JSON for the container. Sizes are made even by repeating the last row or column (4:2:0 needs it).
    Quality: CRF 17; `lossless` keeps every value of RGB."""

    def __init__(self, path: Path, fps: Fraction | float, comment: dict[str, Any], lossless: bool = False):
        self.path, self.comment, self.lossless = path, comment, lossless
        self.fps = Fraction(fps).limit_denominator(100_000)
        self.temporary = path.with_name(f".{path.name}.partial")
        self._encoded = path.with_name(f".{path.name}.encoding")
        self.frames = 0
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if self._container is not None and kind is None:
                self._finish()
        finally:
            if self._container is not None:
                self._container.close()
            self.temporary.unlink(missing_ok=True)
            self._encoded.unlink(missing_ok=True)

    def write(self, frames: np.ndarray) -> None:
        """Append (n, H, W, 3) uint8."""
        height, width = frames.shape[1:3]
        frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._container is None:
            self._start(width + width % 2, height + height % 2)
        for image in frames:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = self.frames
            self.frames += 1
            self._container.mux(self._stream.encode(frame))

    def _start(self, width: int, height: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
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
        }

    def _finish(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()
        # The comment may say how many frames there are, which was not known when the header was written.
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
        publish(self.temporary, self.path)
