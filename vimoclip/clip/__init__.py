"""Image encoders of CLIP models with the preprocessing of their input. The only package that imports open_clip.

`load_encoder` returns an image tower with its weights; `build_encoder` rebuilds the same tower without weights from
its `config`, a plain dictionary that describes the architecture and the preprocessing."""

from vimoclip.clip.batching import BatchEncoder
from vimoclip.clip.encoder import (
    ImageEncoder,
    build_encoder,
    encode_images,
    encoder_config,
    load_encoder,
)
from vimoclip.clip.preprocess import Preprocess
from vimoclip.clip.pretrained import canonical_name, missing_download
from vimoclip.clip.zero_shot import PROMPT_TEMPLATES, ZeroShotClassifier, label_to_text, load_zero_shot

__all__ = [
    "PROMPT_TEMPLATES",
    "BatchEncoder",
    "ImageEncoder",
    "Preprocess",
    "ZeroShotClassifier",
    "build_encoder",
    "canonical_name",
    "encode_images",
    "encoder_config",
    "label_to_text",
    "load_encoder",
    "load_zero_shot",
    "missing_download",
]
