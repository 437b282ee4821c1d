"""One pass over a video, from decoded frames to the scores of windows, without files in between.

`see` gives what extract_embeddings.py, extract_flows.py and inference.py would have put into their files, `slide` lays
windows over it, `watch` scores them, and the video as a whole."""

from vimoclip.prediction.frame_encoder import Eye, Eyes, Seen, see
from vimoclip.prediction.sliding_window import Part, Windows
from vimoclip.prediction.window_scores import Score, Scores, frames_expected, watch

__all__ = ["Eye", "Eyes", "Part", "Score", "Scores", "Seen", "Windows", "frames_expected", "see", "watch"]
