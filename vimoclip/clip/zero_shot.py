"""Zero-shot recognition: what is seen, by the words for it, with CLIP's text tower (Radford et al. 2021)."""

import re
from collections.abc import Sequence
from typing import Any

import open_clip
import torch
import torch.nn.functional as F

from vimoclip.clip.encoder import ImageEncoder, load_whole
from vimoclip.errors import UserError

TEMPLATES = ("a photo of an animal {}.", "a video of an animal that is {}.", "a picture of the animal {}.")


class ZeroShot:
    """Labels as CLIP's text tower embeds them. `labels` (C, D), `neither` (D,): of length 1.

    A CLIP that learnt by softmax (OpenAI's, LAION's) compares texts with each other: a label's score is its share
    among all labels and `neither`, the prompts without any label, which keeps a single label from being always sure.
    One that learnt by sigmoid (SigLIP) has a bias, and scores each label by itself."""

    def __init__(self, labels: torch.Tensor, neither: torch.Tensor, scale: float, bias: float | None):
        self.labels, self.neither, self.scale, self.bias = labels, neither, scale, bias

    def scores(self, frames: torch.Tensor) -> torch.Tensor:
        """(T, D) embeddings of frames, as they leave the image tower -> (C,) in 0..1 of their stretch of video.

        Of the mean of the frames' directions. The numbers are as CLIP gives them, and not calibrated."""
        video = F.normalize(F.normalize(frames.float(), dim=-1).mean(0), dim=0)
        if self.bias is not None:
            return torch.sigmoid(self.scale * (self.labels @ video) + self.bias)
        cosines = torch.cat([self.labels, self.neither[None]]) @ video
        return (self.scale * cosines).softmax(0)[:-1]


def load_zero_shot(
    name: str, pretrained: str | None, labels: Sequence[str], templates: Sequence[str] | None, resize: str = "model"
) -> tuple[ImageEncoder, ZeroShot]:
    """The image tower, and the labels by the text tower of the same CLIP. Raises UserError."""
    templates = templates or TEMPLATES
    for template in templates:
        if template.count("{}") != 1:
            raise UserError(f"--template {template!r}: needs one {{}}, where the label goes")
    encoder, model, source = load_whole(name, pretrained, resize)
    if not hasattr(model, "encode_text"):
        raise UserError(f"{name}: has no text tower", "give another --clip-model-name")
    tokenize = _tokenizer(name, source)
    rows = [_embed(model, tokenize, [_fill(template, label) for template in templates]) for label in ("", *labels)]
    bias = getattr(model, "logit_bias", None)
    neither, *words = rows
    scale: torch.Tensor = getattr(model, "logit_scale")  # noqa: B009 - for mypy, to whom a module's is anything
    return encoder, ZeroShot(torch.stack(words), neither, scale.exp().item(), None if bias is None else bias.item())


def readable(label: str) -> str:
    """A class's name as words: Head_Up, LyingDown and lying-down become head up, lying down and lying-down."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label.replace("_", " "))
    return " ".join(spaced.split()).lower()


def _fill(template: str, label: str) -> str:
    """The prompt; of no label without what leads up to it."""
    if label:
        return template.replace("{}", readable(label))
    return re.sub(r"\s*(?:\b(?:that|which|who) (?:is|are) )?\{\}\s*", " ", template).replace(" .", ".").strip()


def _tokenizer(name: str, source: str) -> Any:
    try:
        return open_clip.get_tokenizer(source)
    except Exception as error:  # a tokenizer of the hub that isn't here, and can't be had
        words = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{name}: its tokenizer can't be loaded ({words[0]})",
            "get it on a machine with a network, or give another --clip-model-name",
        ) from error


@torch.inference_mode()
def _embed(model: Any, tokenize: Any, prompts: list[str]) -> torch.Tensor:
    """(D,) of length 1: the mean of the prompts' directions."""
    model.eval()
    return F.normalize(F.normalize(model.encode_text(tokenize(prompts)).float(), dim=-1).mean(0), dim=0)
