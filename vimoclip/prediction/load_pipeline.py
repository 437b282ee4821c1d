"""Load the encoders and the flow method that a TFAM checkpoint records for its inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vimoclip import cli, clip, flow, moclip, video
from vimoclip.check.compatibility import ENCODER_ATTRIBUTES, PREPROCESSING_ATTRIBUTES, recorded_attributes
from vimoclip.errors import UserError
from vimoclip.io.checkpoint_loading import config_errors, weights_sha256
from vimoclip.prediction.frame_encoder import FrameEncoder, TwoStreamEncoder
from vimoclip.prediction.sliding_window import ScoreWindows, WindowFeatures, WindowScores
from vimoclip.runtime.device import HALF_DTYPES

FLOW_SETTINGS = {
    "method": str,
    "checkpoint": str | None,
    "iters": int | None,
    "normalization": str | None,
    "flow_max": float | int | None,
    "size": int | None,
    "preset": str | None,
}  # of a student, with the types of their values
OPTIONAL_FLOW_SETTINGS = ("size", "preset")


@dataclass(frozen=True)
class ComputeOptions:
    """Where and how to compute.

    `batch_size`: frames per encoder batch; `pair_batch_size`: pairs of frames per flow batch; `flow_precision`: of
    learned flow, None for half precision where the device is fast in it and the student's flow is not of fp32."""

    device: torch.device
    precision: str
    batch_size: int
    pair_batch_size: int
    flow_precision: str | None


def load_two_stream_encoder(
    inputs: Mapping[str, dict[str, Any] | None],
    paths: Mapping[str, Path],
    student: Path | None,
    weights: Mapping[str, str | None],
    compute: ComputeOptions,
) -> TwoStreamEncoder:
    """Return the encoders of a TFAM; its `inputs` are the attributes of its RGB and motion embeddings.

    `paths`: by stream, the checkpoint that records its attributes. `weights`: values of `clip_model_name`,
    `clip_pretrained` and `ckpt_path`; None to use those that `inputs` name. Raises UserError if a file is missing, or
    is not the one that the checkpoint was trained with."""
    rgb, motion = inputs["rgb"], inputs["motion"]
    if motion and student is None:
        raise UserError("uses motion", "name the student that it was trained with: --student", path=paths["motion"])
    source = rgb or motion or {}
    sampling = video.Sampling(**source["sampling"])
    geometry = video.geometry_of(source)
    rgb_encoder = motion_encoder = render = None
    flow_settings: dict[str, Any] = {}
    flow_precision = None
    if motion and student:  # first: the student needs no download, so a mismatch is reported early
        model, config = load_student(motion, paths["motion"], student)
        motion_encoder = make_frame_encoder(clip.ImageEncoder(model.visual_encoder, config["clip"]), compute)
        flow_settings = config["flow"]
        if flow_settings["method"] not in flow.METHODS_WITHOUT_WEIGHTS:
            is_half = flow_settings.get("precision") != "fp32" and compute.precision in HALF_DTYPES
            flow_precision = compute.flow_precision or (compute.precision if is_half else "fp32")
        render = _load_flow_renderer(flow_settings, weights["ckpt_path"], compute.device, flow_precision or "fp32")
    if rgb:
        teacher = load_teacher(rgb, paths["rgb"], weights["clip_model_name"], weights["clip_pretrained"])
        rgb_encoder = make_frame_encoder(teacher, compute)
    flow_side = flow_settings.get("size")
    return TwoStreamEncoder(
        sampling,
        rgb_encoder,
        motion_encoder,
        render,
        flow_side,
        compute.pair_batch_size,
        flow_precision,
        geometry,
    )


def make_frame_encoder(encoder: clip.ImageEncoder, compute: ComputeOptions) -> FrameEncoder:
    """Return the encoder with its preprocessing, on the device and in the precision of `compute`."""
    encoder.freeze(compute.device, compute.precision)
    batch_size = encoder.fitting_batch_size(compute.batch_size)

    def encode(prepared: torch.Tensor) -> torch.Tensor:
        # not padded to full batches, as in the extraction scripts: that would double the work for a clip
        return torch.cat([encoder.encode_on_device(batch) for batch in prepared.split(batch_size)])

    return FrameEncoder(encoder.load_frames, encoder.prepare, encode)


def load_zero_shot_encoder(
    name: str,
    pretrained: str | None,
    labels: Sequence[str],
    templates: Sequence[str] | None,
    sampling: video.Sampling,
    geometry: video.Geometry,
    compute: ComputeOptions,
) -> tuple[TwoStreamEncoder, ScoreWindows, dict[str, Any]]:
    """Return the encoder of a CLIP, a function that scores windows by `labels`, and metadata. Raises UserError."""
    image_encoder, classifier = load_zero_shot_classifier(name, pretrained, labels, templates)

    def score(windows: Sequence[WindowFeatures]) -> WindowScores:
        scores = [classifier.score(window.rgb).double().numpy() for window in windows if window.rgb is not None]
        if not np.isfinite(scores).all():
            raise UserError(f"{name}: gives scores that are not finite", "use --precision fp32")
        return WindowScores(np.stack(scores))

    metadata = {
        "zero_shot": True,
        "clip_model": image_encoder.config["clip_model"],
        "clip_weights_sha256": image_encoder.config["weights_sha256"],
        "templates": list(templates or clip.PROMPT_TEMPLATES),
        "sampling": sampling.as_dict(),
        "geometry": geometry.as_dict(),
    }
    encoder = make_frame_encoder(image_encoder, compute)
    return TwoStreamEncoder(sampling, encoder, geometry=geometry), score, metadata


def load_zero_shot_classifier(
    name: str, pretrained: str | None, labels: Sequence[str], templates: Sequence[str] | None, resize: str = "model"
) -> tuple[clip.ImageEncoder, clip.ZeroShotClassifier]:
    """Load an image encoder, and a classifier of `labels` by the text encoder of the same CLIP. Raises UserError."""
    cli.check_downloadable(clip.missing_download(name, pretrained))
    return clip.load_zero_shot(name, pretrained, labels, templates, resize)


def load_teacher(
    attributes: Mapping[str, Any], path: Path, name: str | None, pretrained: str | None
) -> clip.ImageEncoder:
    """Load the encoder of RGB embeddings with these `attributes`, recorded in the file `path`.

    `name`, `pretrained`: override the recorded ones. Raises UserError if a file is missing, or is of another encoder.
    """
    name, pretrained = resolve_teacher(attributes, path, name, pretrained)
    cli.check_downloadable(clip.missing_download(name, pretrained))
    encoder = clip.load_encoder(name, pretrained, attributes.get("resize", "model"))
    check_teacher(attributes, path, encoder)
    return encoder


def resolve_teacher(
    attributes: Mapping[str, Any], path: Path, name: str | None, pretrained: str | None
) -> tuple[str, str | None]:
    """Return name and weights of the CLIP of RGB embeddings with these `attributes`, recorded in the file `path`.

    `name`, `pretrained`: override the recorded ones. Raises UserError if the recorded one is a missing folder."""
    with config_errors(path):
        folder = attributes["clip_model"].removeprefix("local-dir:")
    if not name and attributes["clip_model"] != folder and not Path(folder).is_dir():
        problem = f"its RGB embeddings are from a CLIP in a folder {folder}, which is missing here"
        raise UserError(problem, f"name it with --clip-model-name local-dir:PATH/{folder}", path=path)
    name = name or attributes["clip_model"]
    return name, pretrained or (None if ":" in name else attributes.get("clip_pretrained") or None)


def check_teacher(attributes: Mapping[str, Any], path: Path, encoder: clip.ImageEncoder) -> None:
    """Raise UserError if `encoder` is not the one of RGB embeddings with these `attributes`."""
    hint = "use the --clip-model-name and --clip-pretrained of extract_embeddings.py"
    expected = recorded_attributes(attributes, *ENCODER_ATTRIBUTES)
    cli.check_settings_match(expected, encoder.config, str(path), "the given encoder", hint)


def load_student(attributes: Mapping[str, Any], tfam: Path, student: Path) -> tuple[moclip.MoCLIP, dict[str, Any]]:
    """Load the student of motion embeddings with these `attributes`, recorded in the file `tfam`, and its config.

    `student`: its run folder, checkpoint, or model folder. Raises UserError if it is another one, or if it does not
    record its flow."""
    path = moclip.find_checkpoint(student)
    model, config = moclip.load(path)
    hint = "name the student of inference.py --checkpoint-dir with --student"
    with config_errors(tfam):
        expected = recorded_attributes(attributes, "weights_sha256", *PREPROCESSING_ATTRIBUTES)
    actual = config["clip"] | {"weights_sha256": weights_sha256(model.visual_encoder)}
    cli.check_settings_match(expected, actual, f"the student of {tfam}", str(path), hint)
    if "method" not in config["flow"]:
        problem = "does not record the flow that it was trained on, like all published students"
        raise UserError(problem, "train a student with train.py", path=path)
    for key, kind in FLOW_SETTINGS.items():
        is_missing = key not in config["flow"] and key not in OPTIONAL_FLOW_SETTINGS
        if is_missing or not isinstance(config["flow"].get(key), kind):
            raise UserError(f"its setting flow.{key} is missing or invalid", "copy or download it again", path=path)
    return model, config


def _load_flow_renderer(
    settings: Mapping[str, Any], ckpt_path: str | None, device: torch.device, precision: str
) -> flow.FlowRenderer:
    """Return the renderer of flow with these `settings`; `ckpt_path`: checkpoint file, if not ptlflow's own."""
    checkpoint = settings["checkpoint"]
    if ckpt_path and not checkpoint:
        raise UserError(f"--ckpt-path {ckpt_path}: {settings['method']} has no weights", "omit the flag")
    if ckpt_path and Path(ckpt_path).name != checkpoint:
        problem = f"--ckpt-path {ckpt_path}: the student was trained on flow of {checkpoint}"
        raise UserError(problem, "name that file")
    checkpoint = ckpt_path or checkpoint
    cli.check_downloadable(flow.missing_download(settings["method"], checkpoint))
    return flow.load_renderer(
        settings["method"],
        checkpoint,
        settings["iters"],
        settings["normalization"] or "frame",
        settings["flow_max"] or 1.0,  # None only with a normalization that ignores it
        device,
        precision,
        settings.get("preset"),
    )
