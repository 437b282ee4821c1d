"""The only decoder and encoder of video (PyAV): probe, stream batches of frames, read a span, write.

Frames are uint8 RGB, upright (rotation metadata is applied), all of the first frame's size."""

from vimoclip.video.prefetch import read_ahead
from vimoclip.video.probe import Info, find, probe
from vimoclip.video.random_access import SpanReader
from vimoclip.video.reader import read, read_evenly, read_sizes
from vimoclip.video.sampling import EVERY_FRAME, End, Sampling, describe_frames, described_indices, described_timestamps
from vimoclip.video.writer import Writer, made_even

__all__ = [
    "EVERY_FRAME",
    "End",
    "Info",
    "Sampling",
    "SpanReader",
    "Writer",
    "describe_frames",
    "described_indices",
    "described_timestamps",
    "find",
    "made_even",
    "probe",
    "read",
    "read_ahead",
    "read_evenly",
    "read_sizes",
]
