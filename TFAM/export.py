"""Collect a trained run, its student and its image encoder into a model folder."""

import argparse
from typing import Any

import torch

from TFAM.config import INPUT_KEYS
from TFAM.predictor import FusionPredictor
from vimoclip import clip, model_folder, video
from vimoclip.errors import UserError
from vimoclip.io.checkpoint_loading import tensors_sha256
from vimoclip.moclip.model import TOWER_PREFIX
from vimoclip.prediction.load_pipeline import load_student, load_teacher
from vimoclip.runtime import versions


def collect(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, dict[str, torch.Tensor]]]:
    """Return the config.json and the state dicts of the parts of a model folder. `args`: those of export_model.py.

    Raises UserError for a run that predict.py refuses, or if student or encoder are not those of its training."""
    predictor = FusionPredictor(args.run, torch.device("cpu"), "fp32")
    inputs, trained = predictor.inputs, predictor.trained
    parts = {model_folder.FUSION: trained.state_dict}
    document = describe_fusion(predictor) | {
        "window": {"seconds": args.window, "stride_seconds": args.stride_seconds},
        "backbone": None,
        "student": None,
        "flow": None,
        "versions": {"export": versions.package_versions(), "training": trained.versions},
    }
    if motion := inputs["motion"]:
        if not args.student:
            raise UserError("uses motion", "name the student that it was trained with: --student", path=predictor.path)
        student, config = load_student(motion, predictor.path, args.student)
        parts[model_folder.STUDENT] = student.state_dict()
        document |= {"student": config, "flow": config["flow"], "backbone": config["clip"]}
    elif args.student:
        print(f"note: {predictor.path} uses no motion, so the model does not contain --student", flush=True)
    if rgb := inputs["rgb"]:
        encoder = load_teacher(rgb, predictor.path, args.clip_model_name, args.clip_pretrained)
        document["backbone"] = encoder.config
        add_encoder(parts, encoder, args.without_encoder)
    return document, parts


def describe_fusion(predictor: FusionPredictor) -> dict[str, Any]:
    """Return what config.json says about the fusion, its classes and its frames, without paths of this machine."""
    trained = predictor.trained
    is_in_place = "TFAM" in trained.path.absolute().parts[-4:-3]  # else the third folder may be anything
    source = predictor.inputs["rgb"] or predictor.inputs["motion"] or {}
    data = {key: value for key, value in trained.config["data"].items() if f"data.{key}" not in INPUT_KEYS}
    return {
        "classes": list(trained.classes),
        "thresholds": dict(zip(trained.classes, predictor.thresholds().tolist(), strict=True)),
        "raw_thresholds": trained.raw_thresholds,
        "calibration": trained.calibration_document,
        "sampling": source["sampling"],
        "geometry": video.geometry_of(source).as_dict(),
        "fusion": {
            "name": trained.name if is_in_place else "/".join(trained.path.parts[-2:]),
            "weights_sha256": predictor.weights_sha256,
            "config": {**trained.config, "data": data},
        },
    }


def add_encoder(parts: dict[str, dict[str, torch.Tensor]], encoder: clip.ImageEncoder, without_encoder: bool) -> None:
    """Add the image tower to the parts, and take it out of a student that has the same one.

    Raises UserError if it shall be left out, but is the student's too."""
    tower, student = encoder.visual.state_dict(), parts.get(model_folder.STUDENT, {})
    own = {name: tensor for name, tensor in student.items() if not name.startswith(TOWER_PREFIX)}
    student_tower = {name.removeprefix(TOWER_PREFIX): student[name] for name in student if name not in own}
    is_shared = bool(student_tower) and tensors_sha256(student_tower) == encoder.config["weights_sha256"]
    if without_encoder and is_shared:
        raise UserError("the student is the frozen encoder, so the model needs its weights", "omit --without-encoder")
    if is_shared:
        parts[model_folder.STUDENT] = own
    if not without_encoder:
        parts[model_folder.ENCODER] = tower
