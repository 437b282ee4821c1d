"""Video decoding and encoding; the only user of PyAV.

Frames are uint8 RGB as a player shows them (turned and mirrored by the display matrix, with square pixels), and have
the size of the first frame."""

from vimoclip.video.container import VIDEO_EXTENSIONS
from vimoclip.video.evenly_spaced import read_evenly_spaced
from vimoclip.video.folder import VideoFolder, existing_spelling, unique_stems
from vimoclip.video.geometry import AS_DISPLAYED, Geometry, geometry_of, recorded_geometry
from vimoclip.video.measure import MeasuredVideo, measure
from vimoclip.video.prefetch import BatchIterator, batches_in_memory, prefetch_videos
from vimoclip.video.probe import VideoInfo, estimate_kept_frames, probe
from vimoclip.video.random_access import RandomAccessReader
from vimoclip.video.reader import MAX_BATCH_PIXELS, FrameBatch, VideoReader
from vimoclip.video.sampling import (
    EVERY_FRAME,
    ReadSummary,
    Sampling,
    frame_indices_from_comment,
    frames_to_comment,
    timestamps_from_comment,
)
from vimoclip.video.writer import VideoWriter, pad_to_even

__all__ = [
    "AS_DISPLAYED",
    "EVERY_FRAME",
    "MAX_BATCH_PIXELS",
    "VIDEO_EXTENSIONS",
    "BatchIterator",
    "FrameBatch",
    "Geometry",
    "MeasuredVideo",
    "RandomAccessReader",
    "ReadSummary",
    "Sampling",
    "VideoFolder",
    "VideoInfo",
    "VideoReader",
    "VideoWriter",
    "batches_in_memory",
    "estimate_kept_frames",
    "existing_spelling",
    "frame_indices_from_comment",
    "frames_to_comment",
    "geometry_of",
    "measure",
    "pad_to_even",
    "prefetch_videos",
    "probe",
    "read_evenly_spaced",
    "recorded_geometry",
    "timestamps_from_comment",
    "unique_stems",
]
