"""Animal action recognition from CLIP embeddings of frames and of optical flow."""

__version__ = "0.1.0"
