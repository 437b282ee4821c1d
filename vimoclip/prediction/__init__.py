"""Predict in one pass over a video, from decoded frames to the scores of sliding windows, without files in between.

`encode_video` yields the embeddings that extract_embeddings.py, extract_flows.py and inference.py would write,
`SlidingWindows` groups them, `score_windows` scores each window and the whole video."""

from vimoclip.prediction.frame_encoder import FrameEmbeddings, FrameEncoder, TwoStreamEncoder, encode_video
from vimoclip.prediction.sliding_window import (
    ScoreWindows,
    SlidingWindows,
    VideoScores,
    WindowFeatures,
    estimate_kept_frames,
    score_windows,
)

__all__ = [
    "FrameEmbeddings",
    "FrameEncoder",
    "ScoreWindows",
    "SlidingWindows",
    "TwoStreamEncoder",
    "VideoScores",
    "WindowFeatures",
    "encode_video",
    "estimate_kept_frames",
    "score_windows",
]
