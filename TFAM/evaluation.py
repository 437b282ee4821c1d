"""Metadata of runs, and evaluation of a checkpoint without training."""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from TFAM.config import Config, changed_settings, check_unchanged, from_arguments
from TFAM.data import PairedEmbeddings, open_evaluation_split
from TFAM.loops import evaluate
from TFAM.model import FusionTransformer, shape_from_state_dict
from TFAM.trainer import BYTES_PER_PREDICTION
from vimoclip import cli
from vimoclip.annotations.split_protocol import THREE_SPLITS
from vimoclip.check.compatibility import check_classes, check_encoder, class_names
from vimoclip.cli import progress
from vimoclip.errors import UserError
from vimoclip.io import predictions_csv, yaml_json
from vimoclip.runtime import cost_estimate, distributed, versions
from vimoclip.runtime.device import autocast, select_device, select_precision
from vimoclip.store import EmbeddingReader
from vimoclip.training import checkpoint
from vimoclip.training.batches import make_loader, sequential_batches
from vimoclip.training.dry_run import total_rate
from vimoclip.training.losses import MULTI_LABEL_LOSSES

EMBEDDING_KEYS = ("rgb_train_h5", "rgb_val_h5", "rgb_test_h5", "motion_h5")  # of the config's section `data`


def run_metadata(config: Config, rgb: EmbeddingReader, motion: EmbeddingReader | None) -> dict[str, Any]:
    """Return the metadata in each checkpoint of a run, which rebuild the model and identify its inputs.

    Raises UserError if the config describes no valid model."""
    names = class_names(rgb)
    inputs = {"rgb": rgb.attributes, "motion": motion.attributes if motion else None}
    model = {**config["model"], "d_model": rgb.dim, "num_classes": len(names)}
    count_parameters(model)  # raises UserError before anything is written
    return {
        "config": {**config, "model": model, "inputs": inputs},
        "class_names": names,
        "versions": versions.package_versions(),
    }


def count_parameters(model: Mapping[str, Any]) -> int:
    """Return the number of parameters; `model`: arguments of FusionTransformer."""
    with torch.device("meta"):  # shapes without memory
        return sum(p.numel() for p in FusionTransformer(**model).parameters())


def metrics_summary(metrics: Mapping[str, Any], dataset: PairedEmbeddings, model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of metrics.json that training and --evaluate have in common. Metrics are fractions of 1."""
    return {
        **metrics,
        "left_out": len(dataset.excluded),
        "left_out_videos": dataset.excluded,
        "fusion": model["fusion"],
        "parameters": count_parameters(model),
    }


def evaluate_checkpoint(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate one checkpoint on the evaluation split; print the metrics and write them with the predictions.

    The model of our own checkpoints is rebuilt from them; for published ones --config describes it. Under torchrun all
    processes share the work. Returns the content of metrics.json, or {} with --dry-run. Raises UserError."""
    with distributed.init_process_group() as group:
        return _evaluate_checkpoint(args, group)


def _evaluate_checkpoint(args: argparse.Namespace, group: distributed.ProcessGroup) -> dict[str, Any]:
    path: Path = args.evaluate
    state = checkpoint.load_checkpoint(path)
    saved_config = checkpoint_config(state)
    config = evaluation_config(args, state, saved_config)
    dataset, motion = open_evaluation_split(config)
    metadata = run_metadata(config, dataset.rgb, motion)
    check_checkpoint(state, saved_config, metadata, path, dataset.rgb.path)
    device = select_device(args.device, group.local_rank)
    precision = select_precision(args.precision, device)
    folder = args.results_dir / "evaluate" / "-".join([*path.absolute().parts[-3:-1], path.stem])
    model = FusionTransformer(**metadata["config"]["model"])
    checkpoint.load_state(model, state["state_dict"], path)
    batches = sequential_batches(len(dataset), config["training"]["batch_size"], group)
    loader: Any = make_loader(dataset, batches, cli.limit_workers(args.num_workers), device)
    if args.dry_run:
        rate = total_rate(_probe_batches(model.to(device), loader, device, precision), group)
        disk = len(dataset) * len(metadata["class_names"]) * BYTES_PER_PREDICTION
        estimate = cost_estimate.estimate_cost(len(dataset), "video", rate, disk)
        print(f"{len(dataset)} videos on {device} in {precision}, into {folder}; nothing was written\n{estimate}")
        cli.RunReport(pending=len(dataset), skipped=dataset.excluded, estimate=estimate).write(args.report)
        return {}
    if group.is_main:
        loader = progress(loader, len(loader), "step", "evaluating")
    loss_function = MULTI_LABEL_LOSSES[config["training"]["loss"]]
    result = evaluate(model.to(device), loader, loss_function, device, precision, group)
    metrics = metrics_summary(result["metrics"], dataset, metadata["config"]["model"]) | {
        "checkpoint": str(path),
        "protocol": saved_config["data"]["protocol"] if saved_config else None,
        "settings": changed_settings(config),
        "precision": precision,
        "versions": metadata["versions"],
    }
    if group.is_main:
        write_evaluation(folder, result, state.get("class_names") or metadata["class_names"], metrics)
        cli.RunReport([folder], done=len(dataset), skipped=dataset.excluded).write(args.report)
    return metrics


@torch.no_grad()
def _probe_batches(model: FusionTransformer, loader: Any, device: torch.device, precision: str) -> Iterator[float]:
    """Evaluate batches, and yield their numbers of videos."""
    model.eval()
    for batch in loader:
        with autocast(device, precision):
            model(*batch.model_inputs(device))
        yield len(batch.videos)


def evaluation_config(
    args: argparse.Namespace, state: Mapping[str, Any], saved_config: Mapping[str, Any] | None
) -> Config:
    """Return the config saved in the checkpoint, if it has one, with the changes of the command line.

    Raises UserError if it is no checkpoint of TFAM or the command line describes another model."""
    path: Path = args.evaluate
    if not shape_from_state_dict(state["state_dict"]):
        raise UserError("is no checkpoint of TFAM", "name a best_model.pth under checkpoints/TFAM/", path=path)
    if not saved_config:
        if not args.config:
            raise UserError("doesn't say what model it is", "give the --config of its variant", path=path)
        return from_arguments(args, args.config)
    model = {k: v for k, v in saved_config["model"].items() if k not in ("d_model", "num_classes")}
    data = {"motion": saved_config["data"]["motion"]}
    if saved_config["data"]["protocol"] == THREE_SPLITS:
        data["protocol"] = THREE_SPLITS  # which evaluates the test file
    base = {"training": saved_config["training"], "model": model, "data": data}
    config = from_arguments(args, args.config, base)
    check_unchanged({"model": model}, {"model": config["model"]}, path, "leave out --config and --set model...")
    return config


def check_checkpoint(
    state: Mapping[str, Any],
    saved_config: Mapping[str, Any] | None,
    metadata: Mapping[str, Any],
    path: Path,
    rgb_path: Path,
) -> None:
    """Raise UserError if shape or training inputs of a checkpoint differ from `metadata`, see `run_metadata`."""
    shape = shape_from_state_dict(state["state_dict"])
    expected = {key: metadata["config"]["model"][key] for key in shape}
    cli.check_settings_match(
        shape, expected, str(path), f"the config and {rgb_path}", "give --set model.<key>, or other files"
    )
    if saved_config:
        _check_inputs(state, metadata, path, rgb_path)


def write_evaluation(
    folder: Path, result: Mapping[str, Any], class_names: list[str], metrics: Mapping[str, Any]
) -> None:
    """Write predictions.csv and metrics.json, and print macro and micro AP. `result`: of `loops.evaluate`."""
    folder.mkdir(parents=True, exist_ok=True)
    predictions_csv.write(folder / "predictions.csv", result["videos"], result["probabilities"], class_names)
    yaml_json.write_json(folder / "metrics.json", metrics)
    print(f"map_macro {metrics['map_macro']:.4f}\nmap_micro {metrics['map_micro']:.4f}\nwrote {folder}", flush=True)


def checkpoint_config(state: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the config of one of our checkpoints; None for a published one, another project's, or a malformed one."""
    config = state.get("config")
    if not isinstance(config, dict) or not isinstance(state.get("class_names"), list):
        return None
    if not all(isinstance(config.get(section), dict) for section in ("training", "model", "data", "inputs")):
        return None
    if not all(isinstance(config["inputs"].get(stream), dict | None) for stream in ("rgb", "motion")):
        return None
    return config if {"motion", "protocol"} <= config["data"].keys() else None


def _check_inputs(state: Mapping[str, Any], metadata: Mapping[str, Any], path: Path, rgb_path: Path) -> None:
    """Raise UserError if a checkpoint was trained with other classes, encoders or frame sampling."""
    check_classes(state["class_names"], metadata["class_names"], str(path), str(rgb_path))
    saved_inputs, current_inputs = state["config"]["inputs"], metadata["config"]["inputs"]
    for stream in ("rgb", "motion"):
        if saved_inputs.get(stream) and current_inputs[stream]:
            check_encoder(saved_inputs[stream], current_inputs[stream], str(path), f"the {stream} embeddings given")
