"""Zero-shot classification of video frames with CLIP's text tower (Radford et al. 2021)."""

import re
from collections.abc import Sequence
from typing import Any

import open_clip
import torch
import torch.nn.functional as F

from vimoclip.clip.encoder import ImageEncoder, load_clip
from vimoclip.errors import UserError, first_line

PROMPT_TEMPLATES = ("a photo of an animal {}.", "a video of an animal that is {}.", "a picture of the animal {}.")


class ZeroShotClassifier:
    """Scores frames by the text embeddings of the labels.

    text_embeddings (C, D) and background_embedding (D,) have length 1. A CLIP model that was trained with softmax
    (OpenAI's, LAION's) compares texts with each other: the score of a label is its softmax share among all labels and
    the background, the prompts without a label. The background keeps the score of a single label below 1. A model that
    was trained with sigmoid (SigLIP) has a `logit_bias` and scores each label independently."""

    def __init__(
        self,
        text_embeddings: torch.Tensor,
        background_embedding: torch.Tensor,
        logit_scale: float,
        logit_bias: float | None,
    ):
        self.text_embeddings, self.background_embedding = text_embeddings, background_embedding
        self.logit_scale, self.logit_bias = logit_scale, logit_bias

    def score(self, frames: torch.Tensor) -> torch.Tensor:
        """Frame embeddings (T, D), not normalized -> scores (C,) in 0..1, not calibrated.

        The video embedding is the mean of the normalized frame embeddings."""
        video = F.normalize(F.normalize(frames.float(), dim=-1).mean(0), dim=0)
        if self.logit_bias is not None:
            return torch.sigmoid(self.logit_scale * (self.text_embeddings @ video) + self.logit_bias)
        cosines = torch.cat([self.text_embeddings, self.background_embedding[None]]) @ video
        return (self.logit_scale * cosines).softmax(0)[:-1]


def load_zero_shot(
    name: str, pretrained: str | None, labels: Sequence[str], templates: Sequence[str] | None, resize: str = "model"
) -> tuple[ImageEncoder, ZeroShotClassifier]:
    """Load a CLIP model's image encoder and a classifier for `labels`. Raises UserError.

    templates: prompts with one {} for the label; default: PROMPT_TEMPLATES."""
    templates = templates or PROMPT_TEMPLATES
    for template in templates:
        if template.count("{}") != 1:
            raise UserError(f"--template {template!r}: must contain one {{}}, which the label replaces")
    encoder, model, source = load_clip(name, pretrained, resize)
    if not hasattr(model, "encode_text"):
        raise UserError(f"{name}: has no text tower", "give another --clip-model-name")
    tokenize = _load_tokenizer(name, source)
    background, *texts = (
        _encode_prompts(model, tokenize, [_format_prompt(template, label) for template in templates])
        for label in ("", *labels)
    )
    bias = getattr(model, "logit_bias", None)
    scale: torch.Tensor = getattr(model, "logit_scale")  # noqa: B009 - mypy knows no type of a module's attributes
    classifier = ZeroShotClassifier(
        torch.stack(texts), background, scale.exp().item(), None if bias is None else bias.item()
    )
    return encoder, classifier


def label_to_text(label: str) -> str:
    """Return a class name as words: Head_Up -> head up, LyingDown -> lying down, lying-down -> lying-down."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label.replace("_", " "))
    return " ".join(spaced.split()).lower()


def _format_prompt(template: str, label: str) -> str:
    """Return the prompt for a label; for an empty one, the prompt without the words that lead to it."""
    if label:
        return template.replace("{}", label_to_text(label))
    return re.sub(r"\s*(?:\b(?:that|which|who) (?:is|are) )?\{\}\s*", " ", template).replace(" .", ".").strip()


def _load_tokenizer(name: str, source: str) -> Any:
    try:
        return open_clip.get_tokenizer(source)
    except Exception as error:  # open_clip raises many types if a tokenizer can't be downloaded
        raise UserError(
            f"{name}: its tokenizer can't be loaded ({first_line(error)})",
            "download it on a machine with internet access, or give another --clip-model-name",
        ) from error


@torch.inference_mode()
def _encode_prompts(model: Any, tokenize: Any, prompts: list[str]) -> torch.Tensor:
    """Return the normalized mean (D,) of the prompts' normalized embeddings."""
    model.eval()
    return F.normalize(F.normalize(model.encode_text(tokenize(prompts)).float(), dim=-1).mean(0), dim=0)
