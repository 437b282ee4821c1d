"""Construction of the student from the teacher's image encoder, checked against the embedding file's attributes."""

import argparse
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vimoclip import cli, clip, store
from vimoclip.moclip import MoCLIP
from vimoclip.runtime import seeding

QUICK_GELU_SLOPE = 1.702  # of OpenAI's CLIP weights


def resolve_clip_model(args: argparse.Namespace, reader: store.EmbeddingReader) -> tuple[str, str | None]:
    """Return (model name, pretrained weights) of the flags, else of the teacher, else ViT-B/32 of OpenAI."""
    attributes = reader.attributes if reader.has_schema else {}
    name = args.clip_model_name or attributes.get("clip_model") or "ViT-B/32"
    return name, args.clip_pretrained or attributes.get("clip_pretrained") or (None if ":" in name else "openai")


def build_student(
    args: argparse.Namespace, reader: store.EmbeddingReader, flow_settings: dict[str, Any]
) -> tuple[dict[str, Any], MoCLIP, clip.Preprocess]:
    """Return (config, model, preprocessing). Raises UserError if the encoder is not the teacher of the embeddings."""
    attributes = reader.attributes if reader.has_schema else {}
    name, pretrained = resolve_clip_model(args, reader)
    if download := clip.missing_download(name, pretrained):
        cli.check_downloadable(download)
    seeding.seed_everything(args.seed)
    encoder = clip.load_encoder(name, pretrained, attributes.get("resize", "model"))
    student_name, teacher_name = f"the student ({name}, {pretrained})", f"the teacher ({reader.path})"
    teacher_keys = ("clip_model", "quick_gelu", "weights_sha256", "embed_dim")
    teacher: dict[str, Any] = {key: attributes[key] for key in teacher_keys if key in attributes}
    student = {key: encoder.config[key] for key in teacher}
    hint = "give the --clip-model-name and --clip-pretrained that extract_embeddings.py had"
    cli.check_settings_match(student, teacher, student_name, teacher_name, hint)
    cli.check_settings_match(
        {"width": encoder.config["embed_dim"]}, {"width": reader.dim}, student_name, teacher_name, hint
    )
    num_classes = len(reader.labels(reader.keys[0]))
    model = MoCLIP(encoder.visual, reader.dim, num_classes, args.residual_alpha)
    if args.freeze_encoder:
        model.visual_encoder.requires_grad_(False)
    config = {
        "clip": encoder.config,
        "alpha": args.residual_alpha,
        "num_classes": num_classes,
        "sequence_length": args.sequence_length,
        "teacher": teacher | ({"sampling": attributes["sampling"]} if "sampling" in attributes else {}),
        "flow": flow_settings,
    }
    return config, model, encoder.preprocess


def class_names_or_numbers(reader: store.EmbeddingReader) -> list[str]:
    """Return the class names of an RGB file, or numbers if it has none."""
    return list(reader.attributes.get("class_names") or map(str, range(len(reader.labels(reader.keys[0])))))


class FusedQuickGELU(nn.Module):
    """x * sigmoid(1.702 x), computed as silu(1.702 x) / 1.702: saves one tensor for the backward pass, not two."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.silu(x * QUICK_GELU_SLOPE) / QUICK_GELU_SLOPE


def fuse_quick_gelu(model: nn.Module) -> None:
    """Replace open_clip's QuickGELU modules, which have no parameters, in place."""
    for parent in list(model.modules()):
        for name, module in parent.named_children():
            if type(module).__name__ == "QuickGELU":
                setattr(parent, name, FusedQuickGELU())
