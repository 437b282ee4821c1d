"""The student as a run begins with it: its teacher's own tower, checked against what made the embeddings."""

import argparse
from typing import Any

from vimoclip import cli, clip, store
from vimoclip.moclip import MoCLIP
from vimoclip.runtime import seeding


def name_of(args: argparse.Namespace, reader: store.Reader) -> tuple[str, str | None]:
    """The CLIP model and its weights that the student starts as: the teacher's, if nothing else is asked for."""
    made = reader.attributes if reader.known else {}
    name = args.clip_model_name or made.get("clip_model") or "ViT-B/32"
    return name, args.clip_pretrained or made.get("clip_pretrained") or (None if ":" in name else "openai")


def build(
    args: argparse.Namespace, reader: store.Reader, flow_settings: dict[str, Any]
) -> tuple[dict[str, Any], MoCLIP, clip.Preprocess]:
    """(config, model, preprocessing) of a student that starts as the teacher. Raises UserError if it doesn't."""
    made = reader.attributes if reader.known else {}
    name, pretrained = name_of(args, reader)
    if download := clip.missing_download(name, pretrained):
        cli.check_reachable(download)
    seeding.seed_everything(args.seed)
    encoder = clip.load(name, pretrained, made.get("resize", "model"))
    student, teacher = f"the student ({name}, {pretrained})", f"the teacher ({reader.path})"
    same: dict[str, Any] = {
        key: made[key] for key in ("clip_model", "quick_gelu", "weights_sha256", "embed_dim") if key in made
    }
    cure = "give the --clip-model-name and --clip-pretrained that extract_embeddings.py had"
    cli.check_same({key: encoder.config[key] for key in same}, same, student, teacher, cure)
    cli.check_same({"width": encoder.config["embed_dim"]}, {"width": reader.dim}, student, teacher, cure)
    num_classes = len(reader.labels(reader.keys[0]))
    model = MoCLIP(encoder.visual, reader.dim, num_classes, args.residual_alpha)
    if args.freeze_encoder:
        model.visual_encoder.requires_grad_(False)
    config = {
        "clip": encoder.config,
        "alpha": args.residual_alpha,
        "num_classes": num_classes,
        "sequence_length": args.sequence_length,
        "teacher": same | ({"sampling": made["sampling"]} if "sampling" in made else {}),
        "flow": flow_settings,
    }
    return config, model, encoder.preprocess


def class_names(reader: store.Reader) -> list[str]:
    """Of a file of RGB embeddings; numbers where it doesn't name them."""
    return list(reader.attributes.get("class_names") or map(str, range(len(reader.labels(reader.keys[0])))))
