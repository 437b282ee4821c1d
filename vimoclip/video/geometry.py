"""Geometry of decoded frames: pictures as a player shows them. Orientation, square pixels, size, deinterlacing."""

import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from av.error import BlockingIOError as NoFrameYetError
from av.error import EOFError as EndOfFramesError
from av.error import FFmpegError
from av.filter import Graph
from av.sidedata import sidedata

from vimoclip.errors import VideoError
from vimoclip.video.container import MAX_PIXELS, error_text, open_for_decoding, video_stream

MAX_UPSCALED_PIXELS = 2**23  # of an upscaled frame: as many as 4K video has
MAX_PIXEL_ASPECT = 4  # and its inverse: more than any format has (352x576 shown as 16:9 has 2.9)
ROUNDED_PIXEL_ASPECT = 0.02  # difference to 1; that of formats is 0.07 or more
MIN_BWDIF_SIDE = 13  # bwdif needs 4 lines in every plane, also in those of 4:1:0
TICK = Fraction(1, 25)

Matrix = tuple[int, int, int, int]
IDENTITY: Matrix = (1, 0, 0, 1)
QUARTER_TURNS: tuple[Matrix, ...] = (IDENTITY, (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0))  # counterclockwise
side_data_of: Any = sidedata.SideDataContainer  # PyAV's stubs lack its argument
IndexedFrame = tuple[int, float, Any]  # index, time in seconds, frame of PyAV


@dataclass(frozen=True)
class Geometry:
    """How frames are made of the stored pictures. `deinterlace`: "off", or "auto" for frames flagged as interlaced."""

    deinterlace: str = "off"

    def as_dict(self) -> dict[str, str]:
        """Return what files record. Orientation and pixels differ from those of earlier versions, which record none."""
        return {"deinterlace": self.deinterlace, "orientation": "display matrix", "pixels": "square"}


AS_DISPLAYED = Geometry()


def recorded_geometry(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the geometry among the attributes of a file. Earlier versions recorded none, and did not deinterlace."""
    return settings.get("geometry") or {"deinterlace": "off"}


def geometry_of(settings: Mapping[str, Any]) -> Geometry:
    """Return the geometry to read further videos with, for a model whose inputs have these attributes."""
    return Geometry(recorded_geometry(settings)["deinterlace"])


def is_as_displayed(settings: Mapping[str, Any]) -> bool:
    """Return whether a file records frames that are mirrored and of square pixels, as a player shows them."""
    return recorded_geometry(settings).keys() >= AS_DISPLAYED.as_dict().keys()


def changed_geometry(path: Path) -> str:
    """Return how frames differ from those of earlier versions; "" if they are the same. Raises VideoError."""
    try:
        with open_for_decoding(path) as container:
            stream = video_stream(container)
            if (aspect := pixel_aspect(stream)) != 1:
                return f"its pixels are {aspect:.3g} times as wide as high"
            frame = next(container.decode(stream), None)
    except FFmpegError as error:
        raise VideoError(error_text(error)) from None
    a, b, c, d = display_matrix(frame) if frame else IDENTITY
    return "it is mirrored by its display matrix" if a * d < b * c else ""


def pixel_aspect(stream: Any) -> float:
    """Return the width of a pixel relative to its height, as players use it; 1 if it is unknown or absurd.

    Ratios near 1 count as 1: an encoder writes them where it has rounded the size of scaled frames."""
    aspect, context = float(stream.sample_aspect_ratio or 1), stream.codec_context
    is_usable = 1 / MAX_PIXEL_ASPECT <= aspect <= MAX_PIXEL_ASPECT and abs(aspect - 1) > ROUNDED_PIXEL_ASPECT
    return aspect if is_usable and context.width * context.height * aspect <= MAX_PIXELS else 1.0


def displayed_size(width: int, height: int, aspect: float) -> tuple[int, int]:
    """Return (width, height) with square pixels, of stored ones with this `pixel_aspect`."""
    return max(1, round(width * aspect)), height


def scaled_size(width: int, height: int, shorter_side: int | None) -> tuple[int, int]:
    """Return (width, height) after scaling to `shorter_side`, None for no scaling. Raises VideoError."""
    if shorter_side is None or shorter_side == min(width, height):
        return width, height
    scale = shorter_side / min(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size[0] * size[1] > max(MAX_UPSCALED_PIXELS, width * height):
        raise VideoError(f"has frames of {width}x{height}, too large at a shorter side of {shorter_side}")
    return size


def rgb_converter(frame: Any, size: tuple[int, int], aspect: float = 1.0) -> Callable[[], np.ndarray]:
    """Return a function that converts a frame to (H, W, 3) uint8 RGB, scaled to `size` = (W, H) and then oriented.

    `aspect`: the `pixel_aspect` of the stored frame."""

    def convert() -> np.ndarray:
        if (frame.width, frame.height) == size:
            image = frame.to_ndarray(format="rgb24")
        else:  # area averaging avoids aliasing when shrinking; frames of square pixels have always been scaled by it
            is_stretched = aspect != 1 and (size[0] > frame.width or size[1] > frame.height)
            interpolation = "BICUBIC" if is_stretched else "AREA"
            image = frame.to_ndarray(format="rgb24", width=size[0], height=size[1], interpolation=interpolation)
        return orient(image, display_matrix(frame))

    return convert


def display_matrix(frame: Any) -> Matrix:
    """Return a, b, c, d of a frame's display matrix: a pixel (x, y) is shown at (a x + c y, b x + d y)."""
    try:
        # not frame.side_data, whose reference cycle keeps the frame until a garbage collection: much memory, and if it
        # runs in a forked process (DataLoader), it waits for the threads of swscale, which are not there
        matrices = [bytes(data) for data in side_data_of(frame) if data.type.name == "DISPLAYMATRIX"]
    except ValueError:  # PyAV 18 does not know all types of side data, such as EXIF in TIFF and JPEG
        return QUARTER_TURNS[round(frame.rotation / 90) % 4]
    if not matrices:
        return IDENTITY
    a, b, _, c, d, *_ = struct.unpack("=9i", matrices[0])
    return a, b, c, d


def orient(image: np.ndarray, matrix: Matrix) -> np.ndarray:
    """Turn and mirror (H, W, 3) by the nearest of the eight matrices of quarter turns and mirrorings."""
    a, b, c, d = matrix
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, a, d = image.swapaxes(0, 1), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def deinterlaced(frames: Iterator[IndexedFrame]) -> Iterator[IndexedFrame]:
    """Yield the same frames, in which bwdif has replaced one field of each frame that is flagged as interlaced.

    Frames before the first interlaced one stay unchanged. bwdif looks at the frames before and after, so it begins
    again where frames are left out, and where their size or format changes."""
    graph: Graph | None = None
    pending, layout, last = deque[IndexedFrame](), None, -1
    for index, time, frame in frames:
        if graph and (layout != _layout(frame) or index != last + 1):
            yield from _flush(graph, pending)
            graph = None
        if not graph and frame.interlaced_frame and min(frame.width, frame.height) >= MIN_BWDIF_SIDE:
            graph, layout = _bwdif(frame), _layout(frame)
        if graph:
            frame.pts, frame.time_base = index, TICK  # `time` is known: bwdif needs any that increase
            graph.push(frame)
            pending.append((index, time, frame))
            yield from _pull(graph, pending)
        else:
            yield index, time, frame
        last = index
    if graph:
        yield from _flush(graph, pending)


def _layout(frame: Any) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name


def _bwdif(frame: Any) -> Graph:
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=TICK)
    bwdif, sink = graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink")
    source.link_to(bwdif)
    bwdif.link_to(sink)
    graph.configure()
    return graph


def _pull(graph: Graph, pending: deque[IndexedFrame]) -> Iterator[IndexedFrame]:
    """Yield the frames that the filter has finished; it keeps their order and number."""
    while pending:
        try:
            frame = graph.pull()
        except (NoFrameYetError, EndOfFramesError):
            return
        index, time, _ = pending.popleft()
        yield index, time, frame


def _flush(graph: Graph, pending: deque[IndexedFrame]) -> Iterator[IndexedFrame]:
    graph.push(None)
    yield from _pull(graph, pending)
