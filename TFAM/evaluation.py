"""What checkpoints and metrics.json say of a run, and the evaluation of a checkpoint without training."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from TFAM import dry_run
from TFAM.config import Config, check_unchanged, from_arguments, settings
from TFAM.data import Pairs, open_reported
from TFAM.loops import evaluate, in_order, make_loader
from TFAM.model import FusionTransformer, shape_of
from vimoclip import cli
from vimoclip.annotations.split_protocol import PUBLISHED, THREE_SPLITS
from vimoclip.check.compatibility import check_classes, check_origin, class_names
from vimoclip.cli import progress
from vimoclip.errors import UserError
from vimoclip.io import predictions_csv, yaml_json
from vimoclip.runtime import distributed, versions
from vimoclip.runtime.device import pick_device, pick_precision
from vimoclip.store import Reader
from vimoclip.training import checkpoint
from vimoclip.training.losses import MULTI_LABEL

INPUTS = ("rgb_train_h5", "rgb_val_h5", "rgb_test_h5", "motion_h5")  # keys of the config's `data`


def about_run(config: Config, rgb: Reader, motion: Reader | None) -> dict[str, Any]:
    """What each checkpoint of a run says of itself, enough to rebuild the model and to know its inputs from it alone.

    Raises UserError where such a model can't be."""
    names = class_names(rgb)
    inputs = {"rgb": rgb.attributes, "motion": motion.attributes if motion else None}
    model = {**config["model"], "d_model": rgb.dim, "num_classes": len(names)}
    count_parameters(model)  # complains, before anything is written
    return {
        "config": {**config, "model": model, "inputs": inputs},
        "class_names": names,
        "versions": versions.versions(),
    }


def count_parameters(model: Mapping[str, Any]) -> int:
    with torch.device("meta"):  # shapes without memory
        return sum(p.numel() for p in FusionTransformer(**model).parameters())


def summary(metrics: Mapping[str, Any], val: Pairs, model: Mapping[str, Any]) -> dict[str, Any]:
    """The part of metrics.json that training and --evaluate share. Metrics are fractions of 1."""
    return {
        **metrics,
        "left_out": len(val.left_out),
        "left_out_videos": val.left_out,
        "fusion": model["fusion"],
        "parameters": count_parameters(model),
    }


def evaluate_checkpoint(args: argparse.Namespace) -> dict[str, Any]:
    """As `_evaluate_checkpoint`, of all processes that there are."""
    with distributed.join() as group:
        return _evaluate_checkpoint(args, group)


def _evaluate_checkpoint(args: argparse.Namespace, group: distributed.Group) -> dict[str, Any]:
    """Metrics of one checkpoint on the val file, printed and written beside its predictions.

    A checkpoint of ours rebuilds its own model; a published one takes it from --config. Raises UserError."""
    path: Path = args.evaluate
    state = checkpoint.load_checkpoint(path)
    own = own_config(state)
    config = config_of(args, state, own)
    val, motion = open_reported(config)
    about = about_run(config, val.rgb, motion)
    check_model(state, own, about, path, val.rgb.path)
    device = pick_device(args.device, group.local_rank)
    precision = pick_precision(args.precision, device)
    folder = args.results_dir / "evaluate" / "-".join([*path.absolute().parts[-3:-1], path.stem])
    net = FusionTransformer(**about["config"]["model"])
    checkpoint.load_state(net, state["state_dict"], path)
    batches = in_order(len(val), config["training"]["batch_size"], group)
    if args.dry_run:
        cost = dry_run.cost_of_evaluation(net.to(device), val, batches, device, precision, group)
        print(f"{len(val)} videos on {device} in {precision}, into {folder}; nothing was written\n{cost}")
        return {}
    loader = make_loader(val, batches, cli.usable_workers(args.num_workers))
    shown = progress(loader, len(loader), "step", "evaluating") if group.main else loader
    found = evaluate(net.to(device), shown, MULTI_LABEL[config["training"]["loss"]], device, precision, group)
    result = summary(found["metrics"], val, about["config"]["model"]) | {
        "checkpoint": str(path),
        "protocol": (own["data"].get("protocol") or PUBLISHED) if own else None,
        "settings": settings(config),
        "precision": precision,
        "versions": about["versions"],
    }
    if group.main:
        write_evaluation(folder, found, state.get("class_names") or about["class_names"], result)
    return result


def config_of(args: argparse.Namespace, state: Mapping[str, Any], own: Mapping[str, Any] | None) -> Config:
    """The config by which a checkpoint is evaluated: its own as far as it has one, then the command line's.

    Raises UserError for what is no checkpoint, or doesn't fit the command line."""
    path: Path = args.evaluate
    if not shape_of(state["state_dict"]):
        raise UserError("is no checkpoint of TFAM", "name a best_model.pth under checkpoints/TFAM/", path=path)
    if not own:
        if not args.config:
            raise UserError("doesn't say what model it is", "give the --config of its variant", path=path)
        return from_arguments(args, args.config)
    model = {k: v for k, v in own["model"].items() if k not in ("d_model", "num_classes")}
    data = {"motion": own["data"].get("motion", "real")}
    if own["data"].get("protocol") == THREE_SPLITS:
        data["protocol"] = THREE_SPLITS  # the test file is what it is evaluated on
    base = {"training": own["training"], "model": model, "data": data}
    config = from_arguments(args, args.config, base)
    check_unchanged({"model": model}, {"model": config["model"]}, path, "leave out --config and --set model...")
    return config


def check_model(
    state: Mapping[str, Any], own: Mapping[str, Any] | None, about: Mapping[str, Any], path: Path, rgb: Path
) -> None:
    """Raise UserError where a checkpoint is of another model, or learnt from other inputs, than it is given."""
    shape = shape_of(state["state_dict"])
    wanted = {key: about["config"]["model"][key] for key in shape}
    cli.check_same(shape, wanted, str(path), f"the config and {rgb}", "give --set model.<key>, or other files")
    if own:
        check_inputs(state, about, path, rgb)


def write_evaluation(folder: Path, found: Mapping[str, Any], class_names: list[str], result: Mapping[str, Any]) -> None:
    """predictions.csv and metrics.json, and the two averages on the terminal."""
    folder.mkdir(parents=True, exist_ok=True)
    predictions_csv.write(folder / "predictions.csv", found["videos"], found["probabilities"], class_names)
    yaml_json.write_json(folder / "metrics.json", result)
    print(f"map_macro {result['map_macro']:.4f}\nmap_micro {result['map_micro']:.4f}\nwrote {folder}", flush=True)


def own_config(state: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a checkpoint of ours says of itself; None for a published one, another project's, or nonsense."""
    own = state.get("config")
    if not isinstance(own, dict) or not isinstance(state.get("class_names"), list):
        return None
    inputs = own.get("inputs")
    parts = [own.get("training"), own.get("model"), own.get("data", {}), inputs]
    if not all(isinstance(part, dict) for part in parts):
        return None
    assert isinstance(inputs, dict)
    inputs_fit = all(isinstance(inputs.get(kind), dict | None) for kind in ("rgb", "motion"))
    return {"data": {}, **own} if inputs_fit else None


def check_inputs(state: Mapping[str, Any], about: Mapping[str, Any], path: Path, rgb: Path) -> None:
    """Raise UserError where a checkpoint learned from other classes, encoders or frames than it is given."""
    check_classes(state["class_names"], about["class_names"], str(path), str(rgb))
    learned, given = state["config"]["inputs"], about["config"]["inputs"]
    for kind in ("rgb", "motion"):
        if learned.get(kind) and given[kind]:
            check_origin(learned.get(kind, {}), given[kind], str(path), f"the {kind} embeddings given")
