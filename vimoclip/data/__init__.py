"""Training data of the student: segments of a video, aligned RGB embeddings and flow frames."""

from vimoclip.data.cache import FrameCache
from vimoclip.data.pairing import Clip, Pairing, pair
from vimoclip.data.segments import Batch, Segment, SegmentDataset, Unreadable, collate, segments
from vimoclip.data.splits import Splits, check_pairings, check_readers, pair_splits
from vimoclip.matching import FlowFolder, settings_of

__all__ = [
    "Batch",
    "Clip",
    "FlowFolder",
    "FrameCache",
    "Pairing",
    "Segment",
    "SegmentDataset",
    "Splits",
    "Unreadable",
    "check_pairings",
    "check_readers",
    "collate",
    "pair",
    "pair_splits",
    "segments",
    "settings_of",
]
