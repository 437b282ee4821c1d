"""One pass over a video, from decoded frames to the scores of windows, without files in between.

`see` gives what extract_embeddings.py, extract_flows.py and inference.py would have put into their files, `slide` lays
windows over it, `watch` scores them, and the video as a whole."""

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
    "FrameEncoder",
    "TwoStreamEncoder",
    "WindowFeatures",
    "ScoreWindows",
    "VideoScores",
    "FrameEmbeddings",
    "SlidingWindows",
    "estimate_kept_frames",
    "encode_video",
    "score_windows",
]
