"""Encoders and flow as a trained TFAM's embeddings were made with, by what its checkpoint says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vimoclip import cli, clip, flow, moclip, video
from vimoclip.errors import UserError
from vimoclip.prediction.frame_encoder import FrameEncoder, TwoStreamEncoder
from vimoclip.runtime.device import autocast

TEACHER_ATTRIBUTES = ("clip_model", "quick_gelu", "weights_sha256", "resize")


@dataclass(frozen=True)
class ComputeOptions:
    """How it is computed; `batch_size`: frames at a time."""

    device: torch.device
    precision: str
    batch_size: int


def load_two_stream_encoder(
    inputs: Mapping[str, dict[str, Any] | None],
    learnt: Path,
    student: Path | None,
    weights: Mapping[str, str | None],
    machine: ComputeOptions,
) -> TwoStreamEncoder:
    """What looks at frames for the checkpoint `learnt`, whose `inputs` say what made its `rgb` and its `motion`.

    `weights`: `clip_model_name`, `clip_pretrained`, `ckpt_path` where the files are that those can't name; else None.
    Raises UserError where something isn't there, or is another than it learnt from."""
    rgb, motion = inputs["rgb"], inputs["motion"]
    if motion and student is None:
        raise UserError(f"{learnt}: looks at motion", "give the student that it learnt from with --student")
    sampling = video.Sampling(**(rgb or motion or {})["sampling"])
    embed_motion, settings = _load_student(motion, learnt, student, machine) if motion and student else (None, {})
    # the student first: it needs no download, and what doesn't fit is said at once
    render = _load_flow_renderer(settings, weights["ckpt_path"], machine) if embed_motion else None
    embed_rgb = _load_teacher(rgb, learnt, weights, machine) if rgb else None
    return TwoStreamEncoder(sampling, embed_rgb, embed_motion, render, settings.get("size"))


def make_frame_encoder(encoder: clip.ImageEncoder, machine: ComputeOptions) -> FrameEncoder:
    """An encoder, ready to encode."""
    encoder.visual.to(machine.device)
    encoder.set_backend("torch", machine.precision)

    def encode(prepared: torch.Tensor) -> torch.Tensor:
        # the last batch isn't filled up, as the stages do for the same bytes: of a clip of seconds that would be half
        with autocast(machine.device, machine.precision):
            return torch.cat([encoder.encode(part) for part in prepared.split(machine.batch_size)])

    return FrameEncoder(encoder.preprocess, encode)


def load_image_encoder(name: str, pretrained: str | None, resize: str) -> clip.ImageEncoder:
    """An image tower whose download, if it needs one, is possible. Raises UserError."""
    if download := clip.missing_download(name, pretrained):
        cli.check_downloadable(download)
    return clip.load_encoder(name, pretrained, resize)


def load_zero_shot_classifier(
    name: str, pretrained: str | None, labels: Sequence[str], templates: Sequence[str] | None, resize: str = "model"
) -> tuple[clip.ImageEncoder, clip.ZeroShotClassifier]:
    """An image tower, and labels by its CLIP's text tower. Raises UserError."""
    if download := clip.missing_download(name, pretrained):
        cli.check_downloadable(download)
    return clip.load_zero_shot(name, pretrained, labels, templates, resize)


def resolve_teacher(
    made: Mapping[str, Any], where: str, name: str | None, pretrained: str | None
) -> tuple[str, str | None]:
    """Name and weights of the CLIP that made the embeddings `where`, of which `made` are the attributes.

    `name`, `pretrained`: where these are given. Raises UserError where a folder is meant, but not which."""
    folder = made["clip_model"].removeprefix("local-dir:")
    if not name and made["clip_model"] != folder and not Path(folder).is_dir():
        raise UserError(
            f"{where}: its RGB embeddings were made by the CLIP in a folder called {folder}, which isn't here",
            f"say where it is: --clip-model-name local-dir:PATH/{folder}",
        )
    name = name or made["clip_model"]
    return name, pretrained or (None if ":" in name else made.get("clip_pretrained") or None)


def check_teacher(made: Mapping[str, Any], where: str, encoder: clip.ImageEncoder) -> None:
    """Raise UserError where an encoder isn't the one that made the embeddings `where`."""
    cure = "give the --clip-model-name and --clip-pretrained that extract_embeddings.py had"
    said = {key: made[key] for key in TEACHER_ATTRIBUTES if key in made}
    given = {key: encoder.config[key] for key in said}
    cli.check_settings_match(said, given, where, "the encoder that is given", cure)


def _load_teacher(
    made: dict[str, Any], learnt: Path, weights: Mapping[str, str | None], machine: ComputeOptions
) -> FrameEncoder:
    name, pretrained = resolve_teacher(made, str(learnt), weights["clip_model_name"], weights["clip_pretrained"])
    encoder = load_image_encoder(name, pretrained, made.get("resize", "model"))
    check_teacher(made, str(learnt), encoder)
    return make_frame_encoder(encoder, machine)


def _load_student(
    made: dict[str, Any], learnt: Path, place: Path, machine: ComputeOptions
) -> tuple[FrameEncoder, dict[str, Any]]:
    """The student, and how the flow is made that it looks at."""
    path = moclip.find_checkpoint(place)
    model, config = moclip.load(path)
    cure = "give the --checkpoint-dir that inference.py had, with --student"
    said = {"weights_sha256": made["weights_sha256"]} if "weights_sha256" in made else {}
    given = {"weights_sha256": clip.weights_sha256(model.visual_encoder)}
    cli.check_settings_match(said, given, f"the student of {learnt}", str(path), cure)
    settings = config["flow"]
    if "method" not in settings:
        raise UserError(
            "doesn't say which flow it learnt from, as published students don't", "train one anew", path=path
        )
    return make_frame_encoder(clip.ImageEncoder(model.visual_encoder, config["clip"]), machine), settings


def _load_flow_renderer(settings: Mapping[str, Any], ckpt_path: str | None, machine: ComputeOptions) -> Any:
    """What draws flow as `settings` say; `ckpt_path`: the file of a checkpoint that is none of ptlflow's."""
    checkpoint = settings["checkpoint"]
    if ckpt_path and not checkpoint:
        raise UserError(f"--ckpt-path {ckpt_path}: {settings['method']} has no weights", "leave it out")
    if ckpt_path and Path(ckpt_path).name != checkpoint:
        raise UserError(f"--ckpt-path {ckpt_path}: the student learnt from flow by {checkpoint}", "give that file")
    checkpoint = ckpt_path or checkpoint
    if download := flow.missing_download(settings["method"], checkpoint):
        cli.check_downloadable(download)
    return flow.load_renderer(
        settings["method"],
        checkpoint,
        settings["iters"],
        settings["normalization"] or "frame",
        settings["flow_max"] or 1.0,  # unused where it isn't said
        machine.device,
        partial(autocast, machine.device, machine.precision),
        settings.get("preset"),
    )
