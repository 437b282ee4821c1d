"""A trained fusion model or probe with what is needed to use it, read from a run or from a model folder."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from TFAM.evaluation import checkpoint_config
from vimoclip import model_folder
from vimoclip.errors import UserError
from vimoclip.evaluation import calibration_file
from vimoclip.evaluation.calibration_file import RunCalibration
from vimoclip.io import yaml_json
from vimoclip.io.checkpoint_loading import tensors_sha256
from vimoclip.training import checkpoint

BEST_CHECKPOINT = "best_model.pth"  # the checkpoint that metrics.json and calibration.json describe


@dataclass(frozen=True)
class TrainedFusion:
    """A fusion model or probe. `path`: its checkpoint or model folder, for messages; `name`: what results record of it.

    `config`: of its checkpoint, with the sections training, model, data and inputs. `calibration`, and
    `calibration_document`, the content of calibration.json: None if it has none or it was not read; `raw_thresholds`:
    of raw scores by class, None if none were fitted. `versions`: of the packages it was trained with."""

    path: Path
    name: str
    config: dict[str, Any]
    classes: tuple[str, ...]
    state_dict: dict[str, torch.Tensor]
    calibration: RunCalibration | None
    calibration_document: dict[str, Any] | None
    raw_thresholds: dict[str, float] | None
    versions: dict[str, str]


def load(path: Path, calibrated: bool = True) -> TrainedFusion:
    """Load a model from a run folder of TFAM.train_and_eval, a checkpoint, or a model folder.

    `calibrated`: whether to read the calibration. Raises UserError if the checkpoint does not record its inputs, or a
    file is damaged."""
    is_folder = model_folder.is_model_folder(path)
    return _from_model_folder(path, calibrated) if is_folder else _from_run(path, calibrated)


def _from_run(path: Path, calibrated: bool) -> TrainedFusion:
    path = path / BEST_CHECKPOINT if path.is_dir() else path
    state = checkpoint.load_checkpoint(path)
    config = checkpoint_config(state)
    if config is None:
        raise UserError(
            "has no metadata of its embeddings, like all published checkpoints",
            "give a run folder of TFAM.train_and_eval",
            path=path,
        )
    classes, document, thresholds = tuple(state["class_names"]), None, None
    if path.name == BEST_CHECKPOINT:
        document = calibration_file.read_document(path.parent) if calibrated else None
        with contextlib.suppress(UserError):
            thresholds = yaml_json.read_json(path.parent / "metrics.json").get("thresholds")
    calibration = _parse_calibration(document, classes, path.with_name(calibration_file.FILE_NAME))
    name, versions = "/".join(path.absolute().parts[-3:]), state.get("versions", {})
    return TrainedFusion(path, name, config, classes, state["state_dict"], calibration, document, thresholds, versions)


def _from_model_folder(path: Path, calibrated: bool) -> TrainedFusion:
    folder = model_folder.open_folder(path)
    state, config_path = folder.tensors(model_folder.FUSION), path / model_folder.CONFIG_FILE
    try:
        fusion, classes = folder.config["fusion"], tuple(map(str, folder.config["classes"]))
        name, sha256, thresholds = str(fusion["name"]), str(fusion["weights_sha256"]), folder.config["raw_thresholds"]
        document = folder.config["calibration"] if calibrated else None
        versions = folder.config["versions"]["training"]
        config = checkpoint_config({"config": fusion["config"], "class_names": list(classes)})
        is_valid = config is not None and all(isinstance(part, dict | None) for part in (thresholds, document))
        if config is None or not (is_valid and np.isfinite(list((thresholds or {}).values())).all()):
            raise TypeError("fusion.config, raw_thresholds or calibration")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"is damaged ({error})", model_folder.HINT, path=config_path) from None
    if tensors_sha256(state) != sha256:
        problem = "its weights are not those of its config.json"
        raise UserError(problem, "copy both again, or export the model again", path=path)
    calibration = _parse_calibration(document, classes, config_path)
    return TrainedFusion(path, name, config, classes, state, calibration, document, thresholds, versions)


def _parse_calibration(document: dict[str, Any] | None, classes: tuple[str, ...], path: Path) -> RunCalibration | None:
    return None if document is None else calibration_file.parse(document, classes, path)
