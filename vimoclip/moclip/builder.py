"""Construction of the student from the teacher's image encoder, checked against the embedding file."""

import argparse
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from vimoclip import cli, clip, store
from vimoclip.check.compatibility import PREPROCESSING_ATTRIBUTES, class_names, recorded_attributes
from vimoclip.moclip import MoCLIP
from vimoclip.moclip.dataset import TrainingSplits
from vimoclip.runtime import seeding

LOSSY_FLOW_WARNING = (
    "the flow videos are lossy, and a frozen encoder may embed them unlike the flow of predict.py, which is not "
    "compressed, so that its scores differ from the evaluated ones; use extract_flows.py --lossless"
)
QUICK_GELU_SLOPE = 1.702  # of OpenAI's CLIP weights
# recorded in checkpoints, so that students that differ in more than the seed are not regarded as equal
TRAINING_SETTINGS = (
    "learning_rate",
    "encoder_learning_rate",
    "batch_size",
    "warmup_steps",
    "weight_decay",
    "grad_clip_norm",
    "distillation_loss_mode",
    "distillation_weight",
    "class_positive_weight",
    "freeze_encoder",
    "limit",
)


class Student(NamedTuple):
    """A student at the start of a run; `config`: of its checkpoints."""

    model: MoCLIP
    preprocess: clip.Preprocess
    config: dict[str, Any]
    class_names: list[str]


def resolve_clip_model(args: argparse.Namespace, reader: store.EmbeddingReader) -> tuple[str, str | None]:
    """Return (model name, pretrained weights) of the flags, else of the teacher, else ViT-B/32 of OpenAI."""
    attributes = reader.attributes if reader.has_schema else {}
    name = args.clip_model_name or attributes.get("clip_model") or "ViT-B/32"
    return name, args.clip_pretrained or attributes.get("clip_pretrained") or (None if ":" in name else "openai")


def build_student(args: argparse.Namespace, splits: TrainingSplits) -> Student:
    """Build the student. Raises UserError if its encoder is not the teacher of the embeddings."""
    reader = splits.readers["train"]
    attributes = reader.attributes if reader.has_schema else {}
    name, pretrained = resolve_clip_model(args, reader)
    cli.check_downloadable(clip.missing_download(name, pretrained))
    seeding.seed_everything(args.seed)
    encoder = clip.load_encoder(name, pretrained, attributes.get("resize", "model"))
    student_name, teacher_name = f"the student ({name}, {pretrained})", f"the teacher ({reader.path})"
    teacher_keys = ("clip_model", "quick_gelu", "weights_sha256", "embed_dim")
    teacher: dict[str, Any] = {key: attributes[key] for key in teacher_keys if key in attributes}
    preprocessing = recorded_attributes(attributes, *PREPROCESSING_ATTRIBUTES)
    hint = "use the --clip-model-name and --clip-pretrained of extract_embeddings.py"
    cli.check_settings_match(encoder.config, teacher | preprocessing, student_name, teacher_name, hint)
    cli.check_settings_match(
        {"width": encoder.config["embed_dim"]}, {"width": reader.dim}, student_name, teacher_name, hint
    )
    names = class_names(reader)
    model = MoCLIP(encoder.visual, reader.dim, len(names), args.residual_alpha)
    if args.freeze_encoder:
        model.visual_encoder.requires_grad_(False)
        if splits.paired_videos["train"].is_lossy:
            print(f"warning: {LOSSY_FLOW_WARNING}", flush=True)
    config = {
        "clip": encoder.config,
        "alpha": args.residual_alpha,
        "num_classes": len(names),
        "sequence_length": args.sequence_length,
        "teacher": teacher | {key: attributes[key] for key in ("sampling", "geometry") if key in attributes},
        "flow": splits.paired_videos["train"].flow_settings,
        "seed": args.seed,
        "training": {name: getattr(args, name) for name in TRAINING_SETTINGS},
    }
    return Student(model, encoder.preprocess, config | splits.metadata, names)


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
