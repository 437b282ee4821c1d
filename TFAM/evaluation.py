"""Evaluation of checkpoints: of a run's best one after the last epoch, or of any one with --evaluate."""

import argparse
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from TFAM import loops
from TFAM.config import INPUT_KEYS, Config, changed_settings, check_unchanged, flatten, from_arguments, logged_sections
from TFAM.data import PairedEmbeddings, open_evaluation_split, selection_digest
from TFAM.packing import Fusion
from TFAM.probes import build_model, model_settings, shape_from_state_dict
from TFAM.students import describe_student, student_protocol
from TFAM.trainer import BYTES_PER_PREDICTION
from vimoclip import annotations, cli
from vimoclip.annotations.split_protocol import HELD_OUT, MONITOR_DESCRIPTION, MONITOR_SPLIT, THREE_SPLITS
from vimoclip.check.compatibility import check_classes, check_encoder, class_names
from vimoclip.errors import TrainingError, UserError
from vimoclip.evaluation import calibration_file
from vimoclip.io import predictions_csv, yaml_json
from vimoclip.io.checkpoint_loading import load_model
from vimoclip.metrics import fit_thresholds
from vimoclip.runtime import cost_estimate, defaults, versions
from vimoclip.runtime.device import select_device, select_precision
from vimoclip.runtime.distributed import ProcessGroup
from vimoclip.store import EmbeddingReader
from vimoclip.training import checkpoint, tensorboard
from vimoclip.training.data_parallel import make_loader, sequential_batches
from vimoclip.training.dry_run import total_rate
from vimoclip.training.losses import MULTI_LABEL_LOSSES
from vimoclip.training.trainer import EvaluationResult, RunOptions

SELECTION_SPLIT = MONITOR_SPLIT[HELD_OUT]
PREDICTION_FILES = {"val": "predictions.csv", SELECTION_SPLIT: "selection_predictions.csv"}
LABEL_HINT = "label its clips, and extract its embeddings again"
RERUN_HINT = "then run the same command again: all epochs are done, and only the evaluation is left"


def run_metadata(config: Config, rgb: EmbeddingReader, motion: EmbeddingReader | None) -> dict[str, Any]:
    """Return the metadata in each checkpoint of a run, which rebuild the model and identify its inputs."""
    names = class_names(rgb)
    inputs = {"rgb": rgb.attributes, "motion": motion.attributes if motion else None}
    model = {**config["model"], "d_model": rgb.dim, "num_classes": len(names)}
    return {
        "config": {**config, "model": model, "inputs": inputs},
        "class_names": names,
        "versions": versions.package_versions(),
    }


class Evaluator:
    """A checkpoint's model, which scores data sets in the processes of `run`. `model`: see `build_model`.

    Raises UserError if the model is invalid or the tensors of `state` do not fit it."""

    def __init__(
        self, config: Config, model: Mapping[str, Any], state: Mapping[str, torch.Tensor], path: Path, run: RunOptions
    ):
        self.config, self.run = config, run
        self.model = load_model(lambda: build_model(model), state, path)
        self.model.to(run.device).eval()

    def make_loader(self, dataset: PairedEmbeddings) -> Any:
        """Return a loader of this process's batches."""
        batches = sequential_batches(len(dataset), self.config["training"]["batch_size"], self.run.group)
        return make_loader(dataset, batches, self.run.num_workers, self.run.device)

    def evaluate(self, dataset: PairedEmbeddings, description: str) -> EvaluationResult:
        """Return the results of all processes. Raises TrainingError."""
        loader, run = self.make_loader(dataset), self.run
        if run.group.is_main:
            loader = cli.progress(loader, len(loader), "step", description)
        loss_function = MULTI_LABEL_LOSSES[self.config["training"]["loss"]]
        return loops.evaluate(self.model, loader, loss_function, run.device, run.precision, run.group)

    def summary(self, result: EvaluationResult, dataset: PairedEmbeddings) -> dict[str, Any]:
        """Return the part of metrics.json that training and --evaluate have in common."""
        return {
            **result.metrics,
            "left_out": len(dataset.excluded),
            "left_out_videos": dataset.excluded,
            "fusion": self.model.fusion.value,
            "parameters": sum(p.numel() for p in self.model.parameters()),
        }

    @torch.no_grad()
    def probe_batches(self, dataset: PairedEmbeddings) -> Iterator[float]:
        """Evaluate batches, and yield their numbers of videos."""
        for batch in self.make_loader(dataset):
            loops.score_batch(self.model, batch, self.run.device, self.run.precision)
            yield len(batch.videos)


def evaluate_checkpoint(args: argparse.Namespace, group: ProcessGroup) -> dict[str, Any]:
    """Evaluate one checkpoint on the evaluation split; print the metrics and write them with the predictions.

    The model of our own checkpoints is rebuilt from them; for published ones --config describes it. All processes share
    the work. Returns the content of metrics.json, or {} with --dry-run. Raises UserError."""
    path: Path = args.evaluate
    state = checkpoint.load_checkpoint(path)
    saved_config = checkpoint_config(state)
    config = evaluation_config(args, state, saved_config)
    dataset, motion = open_evaluation_split(config)
    metadata = run_metadata(config, dataset.rgb, motion)
    check_checkpoint(state, saved_config, metadata, path, dataset.rgb.path)
    device = select_device(args.device, group.local_rank)
    folder = args.results_dir / "evaluate" / "-".join([*path.absolute().parts[-3:-1], path.stem])
    precision = group.broadcast(select_precision(args.precision, device))
    num_workers = defaults.loader_processes(args.num_workers, device)
    run = RunOptions(folder, args.logs_dir, device, precision, num_workers, group=group)
    evaluator = Evaluator(config, metadata["config"]["model"], state["state_dict"], path, run)
    if args.dry_run:
        rate = total_rate(evaluator.probe_batches(dataset), group)
        disk = len(dataset) * len(metadata["class_names"]) * BYTES_PER_PREDICTION
        estimate = cost_estimate.estimate_cost(len(dataset), "video", rate, disk)
        print(f"{len(dataset)} videos on {device} in {precision}, into {folder}; nothing was written\n{estimate}")
        cli.RunReport(pending=len(dataset), skipped=dataset.excluded, estimate=estimate).write(args.report)
        return {}
    result = evaluator.evaluate(dataset, "evaluating")
    metrics = evaluator.summary(result, dataset) | {
        "checkpoint": str(path),
        "protocol": saved_config["data"]["protocol"] if saved_config else None,
        "settings": changed_settings(config),
        "precision": precision,
        "versions": metadata["versions"],
    }
    if group.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        names = state.get("class_names") or metadata["class_names"]
        predictions_csv.write(folder / "predictions.csv", result.videos, result.probabilities, names)
        yaml_json.write_json(folder / "metrics.json", metrics)
        print(f"map_macro {metrics['map_macro']:.4f}\nmap_micro {metrics['map_micro']:.4f}\nwrote {folder}", flush=True)
        cli.RunReport([folder], done=len(dataset), skipped=dataset.excluded).write(args.report)
    return metrics


def evaluation_config(
    args: argparse.Namespace, state: Mapping[str, Any], saved_config: Mapping[str, Any] | None
) -> Config:
    """Return the config saved in the checkpoint, if it has one, with the changes of the command line.

    Raises UserError if it is no checkpoint of TFAM or the command line describes another model."""
    path: Path = args.evaluate
    if not shape_from_state_dict(state["state_dict"]):
        raise UserError("is not a checkpoint of TFAM", "give a best_model.pth under checkpoints/TFAM/", path=path)
    if not saved_config:
        if not args.config:
            raise UserError("has no config", "give the --config of its variant", path=path)
        return from_arguments(args, args.config)
    model = model_settings(saved_config["model"])
    data = {"motion": saved_config["data"]["motion"], "shots": saved_config["data"].get("shots")}
    if saved_config["data"]["protocol"] == THREE_SPLITS:
        data["protocol"] = THREE_SPLITS  # which evaluates the test file
    base = {"training": saved_config["training"], "model": model, "data": data}
    config = from_arguments(args, args.config, base)
    check_unchanged({"model": model}, {"model": config["model"]}, path, "remove --config and --set model...")
    return config


def check_checkpoint(
    state: Mapping[str, Any],
    saved_config: Mapping[str, Any] | None,
    metadata: Mapping[str, Any],
    path: Path,
    rgb_path: Path,
) -> None:
    """Raise UserError if shape, classes, encoders or sampling of a checkpoint differ from `metadata`.

    `metadata`: of `run_metadata`; only the shape of a published checkpoint is known."""
    shape = shape_from_state_dict(state["state_dict"])
    expected = {key: metadata["config"]["model"][key] for key in shape}
    hint = "use --set model.<key>, or other files"
    cli.check_settings_match(shape, expected, str(path), f"the config and {rgb_path}", hint)
    if not saved_config:
        return
    check_classes(state["class_names"], metadata["class_names"], str(path), str(rgb_path))
    for stream in ("rgb", "motion"):
        saved, current = (config["inputs"].get(stream) for config in (saved_config, metadata["config"]))
        if saved and current:
            check_encoder(saved, current, str(path), f"the {stream} embeddings given")


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


def evaluate_best_checkpoint(
    config: Config,
    splits: Mapping[str, PairedEmbeddings],
    motion: EmbeddingReader | None,
    run: RunOptions,
    seconds: float,
    last_step: int,
) -> None:
    """Evaluate best_model.pth; write predictions.csv, selection_predictions.csv, calibration.json, last metrics.json.

    selection_predictions.csv and calibration.json, which is fitted on it, exist if the monitor split is not the
    evaluation split. `splits`: those of training; with held_out and three_splits the evaluation file is opened here.
    `seconds`: of the training; `last_step`: number of its last step on TensorBoard's axis. Raises UserError,
    TrainingError."""
    folder = run.folder
    best = checkpoint.load_checkpoint(folder / "best_model.pth")
    if config["data"]["protocol"] == THREE_SPLITS:  # from here on, "val" is the evaluation split
        splits = {"train": splits["train"], SELECTION_SPLIT: splits["val"]}
    splits = {**splits, "val": splits.get("val") or _open_evaluation_split(config, splits["train"].rgb)}
    evaluator = Evaluator(config, best["config"]["model"], best["state_dict"], folder / "best_model.pth", run)
    results = {}
    for split in [name for name in PREDICTION_FILES if name in splits]:
        results[split] = evaluator.evaluate(splits[split], f"evaluating {split}")
        if not results[split].metrics["classes_with_a_positive"]:
            problem = "no video of it has a label, so there is no metric to report"
            raise TrainingError(problem, f"{LABEL_HINT}, {RERUN_HINT}", path=splits[split].rgb.path)
    if not run.group.is_main:
        return
    for split, result in results.items():
        path = folder / PREDICTION_FILES[split]
        predictions_csv.write(path, result.videos, result.probabilities, best["class_names"])
    thresholds = None
    if selection := results.get(SELECTION_SPLIT):
        probabilities, targets = selection.probabilities.double().numpy(), selection.labels.numpy() > 0
        thresholds = dict(zip(best["class_names"], fit_thresholds(probabilities, targets).tolist(), strict=True))
        sources = selection_sources(config, selection.videos)
        calibration = calibration_file.fit(folder, probabilities, targets, best["class_names"], sources)
        print(f"{folder}: {calibration_file.describe(calibration)}")
    metrics = evaluator.summary(results["val"], splits["val"]) | run_summary(config, best, splits, motion)
    if selection:
        metrics[SELECTION_SPLIT] = selection.metrics
    metrics |= {
        "config": folder.absolute().parent.name,
        "precision": run.precision,
        "seconds": round(seconds, 1),
        "thresholds": thresholds,
    }
    scores = f"map_macro {metrics['map_macro']:.4f}, map_micro {metrics['map_micro']:.4f}"
    epoch = "" if metrics["epoch"] is None else f"; epoch {metrics['epoch']}, selected by {metrics['epoch_chosen_by']}"
    print(f"{folder}: {scores} on the evaluation split{epoch}")
    flat = flatten(logged_sections(best["config"]))
    settings = {"stage": "TFAM", "config": metrics["config"]} | {k: v for k, v in flat.items() if k not in INPUT_KEYS}
    final = {"reported" if split == "val" else split: result.metrics for split, result in results.items()}
    names = ("map_macro", "map_micro")
    scalars = {f"final/{split}_{name}": values[name] for split, values in final.items() for name in names}
    tensorboard.write_hparams(run.logs_dir, settings, scalars, last_step)
    yaml_json.write_json(folder / "metrics.json", metrics)  # last: it marks the run finished


def selection_sources(config: Config, videos: Sequence[str]) -> list[str] | None:
    """Return the source of each video by sources.csv, and itself for one that it does not name; None without it."""
    sources = annotations.read_sources(Path(config["data"]["annotations_dir"]))
    return [sources.get(video, video) for video in videos] if sources else None


def _open_evaluation_split(config: Config, train: EmbeddingReader) -> PairedEmbeddings:
    try:
        return open_evaluation_split(config, train)[0]
    except UserError as error:
        hint = f"{error.hint}; {RERUN_HINT}" if error.hint else RERUN_HINT
        raise UserError(error.problem, hint, path=error.path) from None


def run_summary(
    config: Config,
    best: Mapping[str, Any],
    splits: Mapping[str, PairedEmbeddings],
    motion: EmbeddingReader | None,
) -> dict[str, Any]:
    """Return the part of metrics.json that describes a run; `best`: content of best_model.pth."""
    protocol, train = config["data"]["protocol"], splits["train"].rgb
    has_three_splits = protocol == THREE_SPLITS
    val = splits[SELECTION_SPLIT if has_three_splits else "val"].rgb
    input_readers = {"rgb_train_h5": train, "rgb_val_h5": val, "motion_h5": motion}
    if has_three_splits:
        input_readers["rgb_test_h5"] = splits["val"].rgb
    inputs_sha256 = {
        key: reader.attributes.get("content_sha256") if reader else None for key, reader in input_readers.items()
    }
    if protocol == HELD_OUT:
        inputs_sha256[SELECTION_SPLIT] = selection_digest(train, config["data"])
    chosen_by = f"map_micro on {MONITOR_DESCRIPTION[protocol]}"
    if Fusion(config["model"]["fusion"]).is_linear_probe:
        chosen_by = f"nothing (a linear probe has no epochs; C selected by {chosen_by})"
    elif config["training"]["checkpoint"] == "last":
        chosen_by = "being the last"
    summary = {
        "epoch": best["epoch"],
        "epoch_chosen_by": chosen_by,
        "protocol": protocol,
        "reported_split": "test" if has_three_splits else "val",
        **student_protocol(config, train, motion),
        **describe_student(motion),
        "seed": config["training"]["seed"],
        "settings": changed_settings(config),
        "inputs_sha256": inputs_sha256,
        "versions": best["versions"],
    }
    summary |= {key: best[key] for key in ("regularisation", "init") if key in best}
    for split in ("train", SELECTION_SPLIT):
        if split in splits:
            excluded = splits[split].excluded
            summary[f"{split}_num_videos"] = len(splits[split])
            summary |= {f"{split}_left_out": len(excluded), f"{split}_left_out_videos": excluded}
    return summary


def warn_about_evaluation_labels(data: Mapping[str, Any], num_classes: int) -> None:
    """Print a warning if no clip of the evaluation split is labelled in the annotations; `data`: section of the config.

    Its embeddings are not opened before the last epoch."""
    split = "test" if data["protocol"] == THREE_SPLITS else "val"
    path = Path(data["annotations_dir"]) / f"{split}_multi.txt"
    with contextlib.suppress(UserError):  # broken annotations are reported by prepare_dataset.py check
        labels = annotations.read_split(path, num_classes).values()
        if labels and not any(labels):
            print(
                f"warning: {path}: no video of it has a label, so there is no metric to report; {LABEL_HINT}",
                flush=True,
            )
