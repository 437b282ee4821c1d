"""The only user of open_clip: an image encoder and its preprocessing of uint8 batches, as one thing.

`load` gives the teacher (and what the student starts as), `build` the same tower without weights from a `config`,
a plain dictionary that says all that is needed to rebuild it and to prepare its input."""

from vimoclip.clip.batching import encode_stream
from vimoclip.clip.encoder import ImageEncoder, build, describe, embed, load, weights_sha256
from vimoclip.clip.preprocess import Preprocess
from vimoclip.clip.pretrained import canonical_name, missing_download
from vimoclip.clip.zero_shot import TEMPLATES, ZeroShot, load_zero_shot, readable

__all__ = [
    "TEMPLATES",
    "ImageEncoder",
    "Preprocess",
    "ZeroShot",
    "build",
    "canonical_name",
    "describe",
    "embed",
    "encode_stream",
    "load",
    "load_zero_shot",
    "missing_download",
    "readable",
    "weights_sha256",
]
