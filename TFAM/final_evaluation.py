"""Final evaluation of a run: best_model.pth on the evaluation split, and metrics.json, which marks the run finished."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from TFAM.config import INPUT_KEYS, Config, changed_settings, flatten, logged_sections
from TFAM.data import PairedEmbeddings, open_evaluation_split, selection_digest
from TFAM.evaluation import metrics_summary
from TFAM.loops import evaluate
from TFAM.model import FusionTransformer
from vimoclip.annotations.split_protocol import HELD_OUT, MONITOR_SPLIT, PUBLISHED, THREE_SPLITS
from vimoclip.cli import progress
from vimoclip.errors import TrainingError, UserError
from vimoclip.io import predictions_csv, yaml_json
from vimoclip.metrics import fit_thresholds
from vimoclip.store import EmbeddingReader
from vimoclip.training import checkpoint, tensorboard
from vimoclip.training.batches import make_loader, sequential_batches
from vimoclip.training.losses import MULTI_LABEL_LOSSES
from vimoclip.training.trainer import RunOptions

SELECTION_SPLIT = MONITOR_SPLIT[HELD_OUT]
PREDICTION_FILES = {"val": "predictions.csv", SELECTION_SPLIT: "selection_predictions.csv"}
# clips on which the epoch is chosen, as in metrics.json
CRITERION_CLIPS = {HELD_OUT: "the selection clips", PUBLISHED: "the reported clips", THREE_SPLITS: "the val clips"}
RERUN_HINT = "all epochs are done: once this is fixed the same command continues with the evaluation alone"


def evaluate_best_checkpoint(
    config: Config,
    splits: Mapping[str, PairedEmbeddings],
    motion: EmbeddingReader | None,
    run: RunOptions,
    seconds: float,
    last_step: int,
) -> None:
    """Evaluate best_model.pth; write predictions.csv, selection_predictions.csv and, last, metrics.json.

    selection_predictions.csv exists if the monitor split is not the evaluation split. `splits`: those of training; with
    held_out and three_splits the evaluation file is opened here. `seconds`: training time; `last_step`: number of the
    last training step. Raises UserError, TrainingError."""
    folder, device = run.folder, run.device
    best = checkpoint.load_checkpoint(folder / "best_model.pth")
    if config["data"]["protocol"] == THREE_SPLITS:  # from here on, "val" is the evaluation split
        splits = {"train": splits["train"], SELECTION_SPLIT: splits["val"]}
    splits = {**splits, "val": splits.get("val") or _open_evaluation_split(config, splits["train"].rgb)}
    model = FusionTransformer(**best["config"]["model"]).to(device)
    checkpoint.load_state(model, best["state_dict"], folder / "best_model.pth")
    loss_function = MULTI_LABEL_LOSSES[config["training"]["loss"]]
    results = {}
    for split in [name for name in PREDICTION_FILES if name in splits]:
        dataset = splits[split]
        batches = sequential_batches(len(dataset), config["training"]["batch_size"], run.group)
        loader: Any = make_loader(dataset, batches, run.num_workers, device)
        if run.group.is_main:
            loader = progress(loader, len(loader), "step", f"evaluating {split}")
        results[split] = evaluate(model, loader, loss_function, device, run.precision, run.group)
        if not results[split]["metrics"]["classes_with_a_positive"]:
            raise TrainingError("no video has a label, so nothing can be measured on them", path=dataset.rgb.path)
    if not run.group.is_main:
        return
    for split, result in results.items():
        path = folder / PREDICTION_FILES[split]
        predictions_csv.write(path, result["videos"], result["probabilities"], best["class_names"])
    split_metrics = {split: result["metrics"] for split, result in results.items()}
    metrics = run_summary(config, best, split_metrics, splits, motion) | {
        "config": folder.absolute().parent.name,
        "precision": run.precision,
        "seconds": round(seconds, 1),
        "thresholds": fit_class_thresholds(results.get(SELECTION_SPLIT), best["class_names"]),
    }
    scores = f"map_macro {metrics['map_macro']:.4f}, map_micro {metrics['map_micro']:.4f}"
    epoch = f"epoch {metrics['epoch']}, chosen by {metrics['epoch_chosen_by']}"
    print(f"{folder}: {scores} on the reported clips, at {epoch}")
    write_hparams(run.logs_dir, best["config"], metrics, last_step)
    yaml_json.write_json(folder / "metrics.json", metrics)  # last: it marks the run finished


def write_hparams(logs_dir: Path, config: Mapping[str, Any], metrics: Mapping[str, Any], step: int) -> None:
    """Write the run's row of TensorBoard's HParams tab; `metrics`: content of metrics.json."""
    flat = flatten(logged_sections(config))
    settings = {"stage": "TFAM", "config": metrics["config"]} | {k: v for k, v in flat.items() if k not in INPUT_KEYS}
    results = {f"final/reported_{name}": metrics[name] for name in ("map_macro", "map_micro")}
    if "selection" in metrics:
        results |= {f"final/selection_{name}": metrics["selection"][name] for name in ("map_macro", "map_micro")}
    tensorboard.write_hparams(logs_dir, settings, results, step)


def fit_class_thresholds(result: Mapping[str, Any] | None, class_names: list[str]) -> dict[str, float] | None:
    """Return the threshold of highest F1 by class; `result`: of `loops.evaluate` on the selection clips, or None."""
    if not result:
        return None
    thresholds = fit_thresholds(result["probabilities"].double().numpy(), result["labels"].numpy() > 0)
    return dict(zip(class_names, thresholds.tolist(), strict=True))


def _open_evaluation_split(config: Config, train: EmbeddingReader) -> PairedEmbeddings:
    try:
        return open_evaluation_split(config, train)[0]
    except UserError as error:
        hint = f"{error.hint}; {RERUN_HINT}" if error.hint else RERUN_HINT
        raise UserError(error.problem, hint, path=error.path) from None


def run_summary(
    config: Config,
    best: Mapping[str, Any],
    metrics: Mapping[str, Mapping[str, Any]],
    splits: Mapping[str, PairedEmbeddings],
    motion: EmbeddingReader | None,
) -> dict[str, Any]:
    """Return metrics.json of a finished run, without folder, precision, seconds and thresholds.

    `best`: content of best_model.pth; `metrics`: by split. The metrics at the top level are those of "val", the
    evaluation split."""
    protocol, selection_set = config["data"]["protocol"], splits.get(SELECTION_SPLIT)
    input_readers = {
        "rgb_train_h5": splits["train"].rgb,
        "rgb_val_h5": selection_set.rgb if selection_set and protocol == THREE_SPLITS else splits["val"].rgb,
        "motion_h5": motion,
    }
    inputs_sha256 = {
        key: reader.attributes.get("content_sha256") if reader else None for key, reader in input_readers.items()
    }
    if protocol == THREE_SPLITS:
        inputs_sha256["rgb_test_h5"] = splits["val"].rgb.attributes.get("content_sha256")
    elif selection_set:
        inputs_sha256[SELECTION_SPLIT] = selection_digest(splits["train"].rgb, config["data"])
    summary = {
        **metrics_summary(metrics["val"], splits["val"], best["config"]["model"]),
        "epoch": best["epoch"],
        "epoch_chosen_by": epoch_criterion(config),
        "protocol": protocol,
        "reported_split": "test" if protocol == THREE_SPLITS else "val",
        "student_protocol": student_protocol(motion),
        "student_selection_agrees": student_selection_matches(config, splits["train"].rgb, motion),
        "seed": config["training"]["seed"],
        "settings": changed_settings(config),
        "inputs_sha256": inputs_sha256,
        "versions": best["versions"],
    }
    for split in ("train", SELECTION_SPLIT):
        if split in splits:
            excluded = splits[split].excluded
            summary[f"{split}_num_videos"] = len(splits[split])
            summary |= {f"{split}_left_out": len(excluded), f"{split}_left_out_videos": excluded}
    if SELECTION_SPLIT in metrics:
        summary[SELECTION_SPLIT] = metrics[SELECTION_SPLIT]
    return summary


def epoch_criterion(config: Config) -> str:
    """Return how the epoch of best_model.pth is chosen, as in metrics.json."""
    if config["training"]["checkpoint"] == "last":
        return "being the last"
    return f"map_micro on {CRITERION_CLIPS[config['data']['protocol']]}"


def student_protocol(motion: EmbeddingReader | None) -> str | None:
    """Return the protocol of the student that computed the motion embeddings, or None if unknown.

    Students without a recorded protocol chose their epoch on val, as published."""
    student = motion.attributes.get("student") if motion else None
    return student.get("protocol", PUBLISHED) if isinstance(student, dict) else None


def student_selection_matches(config: Config, train: EmbeddingReader, motion: EmbeddingReader | None) -> bool | None:
    """Return whether a held-out student had this run's selection clips, or None if that is unknown or irrelevant."""
    student = motion.attributes.get("student") if motion else None
    if student_protocol(motion) != HELD_OUT or config["data"]["protocol"] != HELD_OUT:
        return None
    if not isinstance(student, dict) or student.get("selection") is None:
        return None
    return student["selection"] == selection_digest(train, config["data"])


def warn_about_student(config: Config, train: EmbeddingReader, motion: EmbeddingReader | None) -> None:
    """Print a warning if a held_out run reads motion of a student that may have seen its held-out clips."""
    if motion is None or config["data"]["protocol"] != HELD_OUT or config["data"]["motion"] == "none":
        return
    hint = f"train.py --protocol {HELD_OUT} and inference.py make other motions"
    if (protocol := student_protocol(motion)) != HELD_OUT:
        origin = f"its student's protocol was {protocol}" if protocol else "doesn't say its student's protocol"
        print(
            f"warning: {motion.path}: {origin}, so the student may have chosen its epoch on the reported clips, and "
            f"learnt from the selection clips; {hint}"
        )
    elif student_selection_matches(config, train, motion) is False:
        print(f"warning: {motion.path}: its student had other selection clips, and may have learnt from these; {hint}")
