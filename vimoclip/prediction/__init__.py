"""Predict in one pass over a video, from decoded frames to the scores of sliding windows, without files in between.

`EncodedVideo` yields the embeddings that extract_embeddings.py, extract_flows.py and inference.py would write,
`SlidingWindows` groups them, `score_windows` scores each window and the whole video."""

from vimoclip.prediction.sliding_window import WindowFeatures, WindowScores

__all__ = ["WindowFeatures", "WindowScores"]
