"""Write videos with any encoder and container, and compare the reader with plain PyAV."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.conftest import read_index
from vimoclip import video
from vimoclip.errors import VideoError

# options of encoders: small, exact enough for the barcode, and on one thread
OPTIONS: dict[str, dict[str, str]] = {
    "libx264": {"crf": "10", "g": "8", "bf": "3", "sc_threshold": "0"},
    "libx264rgb": {"crf": "10", "g": "8", "bf": "3", "sc_threshold": "0"},
    "libx265": {"x265-params": "keyint=8:min-keyint=8:scenecut=0:crf=10:log-level=none:pools=none:frame-threads=1"},
    "libsvtav1": {"preset": "10", "crf": "10", "svtav1-params": "lp=1"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "b": "3M"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "b": "3M"},
    # the quantizers of these clip large coefficients
    **{name: {"b": "3M", "g": "8", "mbd": "rd"} for name in ("h263p", "msmpeg4", "msmpeg4v2", "rv10", "rv20")},
}
LOSSY = {"b": "3M", "g": "8"}


@dataclass(frozen=True)
class Clip:
    """How to write a clip. `times`: of the frames in `tick`, 1/25 s by default; `mux`: options of the container;
    `edit`: changes the data of packet n."""

    encoder: str
    pix_fmt: str
    options: dict[str, str] | None = None
    times: Sequence[int] | None = None
    tick: Fraction = Fraction(1, 25)
    mux: dict[str, str] | None = None
    edit: Callable[[int, bytes], bytes] | None = None

    def write(self, path: Path, images: Iterable[np.ndarray], muxer: str | None = None) -> Path:
        """Encode RGB frames (H, W, 3). Raises FFmpegError if the container does not accept them."""
        options = OPTIONS.get(self.encoder, LOSSY) if self.options is None else self.options
        with av.open(str(path), "w", format=muxer, options=self.mux or {}) as container:
            stream: Any = None
            packets = list[Any]()
            for number, image in enumerate(images):
                if stream is None:
                    stream = container.add_stream(self.encoder, rate=25, options=dict(options))
                    stream.height, stream.width = image.shape[:2]
                    stream.pix_fmt = self.pix_fmt
                    context = stream.codec_context
                    context.thread_count, context.time_base = 1, self.tick
                frame = _frame(image, self.pix_fmt)
                frame.pts, frame.time_base = (self.times or range(number + 1))[number], self.tick
                packets += stream.encode(frame)
            for number, packet in enumerate(packets + stream.encode(None)):
                container.mux(self._edited(number, packet))
        return path

    def _edited(self, number: int, packet: Any) -> Any:
        if self.edit is None:
            return packet
        edited = av.Packet(self.edit(number, bytes(packet)))
        edited.stream, edited.time_base = packet.stream, packet.time_base
        edited.pts, edited.dts, edited.duration = packet.pts, packet.dts, packet.duration
        edited.is_keyframe = packet.is_keyframe
        return edited


def _frame(image: np.ndarray, pix_fmt: str) -> Any:
    if pix_fmt != "pal8":
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    palette = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 4, axis=1) | np.array([255, 0, 0, 0], np.uint8)
    indexed: Any = (np.ascontiguousarray(image[..., 1]), palette)
    return av.VideoFrame.from_ndarray(indexed, format="pal8")


@dataclass(frozen=True)
class PlainFrames:
    """What plain PyAV decodes: `images` (H, W, 3) uint8, `times` in seconds or None."""

    images: list[np.ndarray]
    times: list[float | None]

    @property
    def numbers(self) -> list[int]:
        """The barcodes."""
        return [read_index(image) for image in self.images]


def decode_plainly(path: Path) -> PlainFrames:
    """Decode FFmpeg's best video stream with the default options, to square pixels.

    AVI, which stores no times, is timed by its rate."""
    images, times = list[np.ndarray](), list[float | None]()
    with av.open(str(path)) as container:
        stream: Any = container.streams.best("video")
        is_avi = container.format.name == "avi"
        for frame in container.decode(stream) if stream is not None else ():
            aspect = stream.sample_aspect_ratio or 1
            scaling = {"interpolation": "BICUBIC" if aspect > 1 else "AREA", "width": round(frame.width * aspect)}
            rate = stream.average_rate or stream.guessed_rate or 25
            times.append(float(len(images) / rate) if is_avi else frame.time)
            images.append(frame.to_ndarray(format="rgb24", **({} if aspect == 1 else scaling)))
    return PlainFrames(images, times)


def differences(path: Path, plain: PlainFrames, is_joined: bool = False) -> list[str]:
    """Return how the reader differs from plain PyAV, one text per difference.

    Times are compared where PyAV's increase; the reader's may never decrease. `is_joined`: the clock restarts, and the
    header counts the frames of the first recording."""
    count, reader = len(plain.images), video.VideoReader(path, 5)
    try:
        images = [image for batch in reader for image in batch.frames]
    except VideoError as error:
        return [f"refused: {error.problem}"]
    summary, texts = reader.summary, list[str]()
    if summary.problem:
        texts.append(f"problem: {summary.problem}")
    if len(images) != count or not _equal(images, plain.images):
        texts.append(f"frames {[read_index(image) for image in images]} instead of {plain.numbers}")
    if summary.frame_indices.tolist() != list(range(count)):
        texts.append(f"indices {summary.frame_indices.tolist()}")
    times = summary.timestamps.tolist()
    if sorted(times) != times:
        texts.append(f"times decrease: {times}")
    known = [time for time in plain.times if time is not None]
    rises = len(known) == count and sorted(set(known)) == known and not is_joined
    if rises and len(times) == count and not np.allclose(times, known, rtol=0, atol=1e-6):
        texts.append(f"times {np.round(times, 4).tolist()} instead of {np.round(known, 4).tolist()}")
    if (frames := video.probe(path).frames) not in (0, count) and not is_joined:
        texts.append(f"probe gives {frames} frames of {count}")
    return texts + _differences_of_ranges(path, plain)


def _differences_of_ranges(path: Path, plain: PlainFrames) -> list[str]:
    count = len(plain.images)
    try:
        reader = video.RandomAccessReader(path)
        for start in sorted({0, count // 2, max(0, count - 3)}):
            stop = min(count, start + 3)
            frames = list(reader.read(start, stop))
            if not _equal(frames, plain.images[start:stop]):
                return [f"range {start}..{stop - 1} has frames {[read_index(frame) for frame in frames]}"]
    except VideoError as error:
        return [f"a range is refused: {error.problem}"]
    return []


def _equal(some: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))
