"""After the last epoch: the one that was chosen, on the reported clips, and metrics.json, which ends a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from TFAM import epoch_log
from TFAM.config import Config, settings
from TFAM.data import Pairs, open_reported, selection_digest
from TFAM.evaluation import summary
from TFAM.loops import evaluate, in_order, make_loader
from TFAM.model import FusionTransformer
from vimoclip.annotations.split_protocol import HELD_OUT, PUBLISHED, THREE_SPLITS, WATCHED
from vimoclip.cli import progress
from vimoclip.errors import TrainingError, UserError
from vimoclip.io import predictions_csv, yaml_json
from vimoclip.metrics import fit_thresholds
from vimoclip.runtime.distributed import Group
from vimoclip.store import Reader
from vimoclip.training import checkpoint
from vimoclip.training.losses import MULTI_LABEL

SELECTION = WATCHED[HELD_OUT]
PREDICTIONS = {"val": "predictions.csv", SELECTION: "selection_predictions.csv"}
CLIPS = {HELD_OUT: "the selection clips", PUBLISHED: "the reported clips", THREE_SPLITS: "the val clips"}
AGAIN = "all epochs are done: once this is mended the same command goes on with the evaluation alone"


def finish(
    config: Config,
    splits: Mapping[str, Pairs],
    motion: Reader | None,
    folder: Path,
    device: torch.device,
    precision: str,
    workers: int,
    group: Group,
    seconds: float,
    logs: Path,
) -> None:
    """Evaluate best_model.pth; write predictions.csv, selection_predictions.csv, last metrics.json.

    The second is of the clips on which epochs were chosen, where these aren't those reported. `splits`: those of the
    training; but under published the file of what is reported is opened here. `seconds`: that the training took;
    `logs`: TensorBoard's folder of the run, which gets its row of HParams.
    Raises UserError, TrainingError."""
    best = checkpoint.load_checkpoint(folder / "best_model.pth")
    if config["data"]["protocol"] == THREE_SPLITS:  # from here on "val" are the clips that are reported
        splits = {"train": splits["train"], SELECTION: splits["val"]}
    splits = {**splits, "val": splits.get("val") or _open_reported(config, splits["train"].rgb)}
    model = FusionTransformer(**best["config"]["model"]).to(device)
    checkpoint.load_state(model, best["state_dict"], folder / "best_model.pth")
    found = {}
    for split in [name for name in PREDICTIONS if name in splits]:
        batches = in_order(len(splits[split]), config["training"]["batch_size"], group)
        loader = make_loader(splits[split], batches, workers)
        shown = progress(loader, len(loader), "step", f"evaluating {split}") if group.main else loader
        found[split] = evaluate(model, shown, MULTI_LABEL[config["training"]["loss"]], device, precision, group)
        if not found[split]["metrics"]["classes_with_a_positive"]:
            raise TrainingError("no video has a label, so nothing can be measured on them", path=splits[split].rgb.path)
    if not group.main:
        return
    for split, of_split in found.items():
        scores = of_split["probabilities"]
        predictions_csv.write(folder / PREDICTIONS[split], of_split["videos"], scores, best["class_names"])
    metrics = {split: of_split["metrics"] for split, of_split in found.items()}
    whole = run_summary(config, best, metrics, splits, motion) | {
        "config": folder.absolute().parent.name,
        "precision": precision,
        "seconds": round(seconds, 1),
        "thresholds": thresholds(found.get(SELECTION), best["class_names"]),
    }
    scores = f"map_macro {whole['map_macro']:.4f}, map_micro {whole['map_micro']:.4f}"
    print(f"{folder}: {scores} on the reported clips, at epoch {whole['epoch']}, chosen by {whole['epoch_chosen_by']}")
    epoch_log.add_final(logs, best["config"], whole)
    yaml_json.write_json(folder / "metrics.json", whole)  # last: it says that the run is finished


def thresholds(found: Mapping[str, Any] | None, class_names: list[str]) -> dict[str, float] | None:
    """Class -> the threshold of highest F1 on the selection clips, `found` by `evaluate`; None where there are none."""
    if not found:
        return None
    fitted = fit_thresholds(found["probabilities"].double().numpy(), found["labels"].numpy() > 0)
    return dict(zip(class_names, fitted.tolist(), strict=True))


def _open_reported(config: Config, train: Reader) -> Pairs:
    try:
        return open_reported(config, train)[0]
    except UserError as error:
        raise UserError(error, AGAIN) from None


def run_summary(
    config: Config,
    best: Mapping[str, Any],
    metrics: Mapping[str, Mapping[str, Any]],
    splits: Mapping[str, Pairs],
    motion: Reader | None,
) -> dict[str, Any]:
    """metrics.json of a finished run, but for its place and how it was computed; `best`: its checkpoint.

    `metrics`: those of each split that was evaluated. map_macro, map_micro and so on are those of the val clips."""
    protocol, chosen_on = config["data"]["protocol"], splits.get(SELECTION)
    inputs = {
        key: reader.attributes.get("content_sha256") if reader else None
        for key, reader in {
            "rgb_train_h5": splits["train"].rgb,
            "rgb_val_h5": chosen_on.rgb if chosen_on and protocol == THREE_SPLITS else splits["val"].rgb,
            "motion_h5": motion,
        }.items()
    }
    if protocol == THREE_SPLITS:
        inputs["rgb_test_h5"] = splits["val"].rgb.attributes.get("content_sha256")
    elif chosen_on:
        inputs[SELECTION] = selection_digest(splits["train"].rgb, config["data"])
    found = {
        **summary(metrics["val"], splits["val"], best["config"]["model"]),
        "epoch": best["epoch"],
        "epoch_chosen_by": chosen_by(config),
        "protocol": protocol,
        "reported_split": "test" if protocol == THREE_SPLITS else "val",
        "student_protocol": student_protocol(motion),
        "student_selection_agrees": student_selection_agrees(config, splits["train"].rgb, motion),
        "seed": config["training"]["seed"],
        "settings": settings(config),
        "inputs_sha256": inputs,
        "versions": best["versions"],
    }
    for split in ("train", SELECTION):
        if split in splits:
            left_out = splits[split].left_out
            found[f"{split}_num_videos"] = len(splits[split])
            found |= {f"{split}_left_out": len(left_out), f"{split}_left_out_videos": left_out}
    return found | ({SELECTION: metrics[SELECTION]} if SELECTION in metrics else {})


def chosen_by(config: Config) -> str:
    """In words, by what the epoch of best_model.pth was chosen."""
    if config["training"]["checkpoint"] == "last":
        return "being the last"
    return f"map_micro on {CLIPS[config['data']['protocol']]}"


def student_protocol(motion: Reader | None) -> str | None:
    """Under which protocol the student of these motions was trained; None where there is none that is known.

    One that was trained before there were protocols chose its epoch on the reported clips."""
    student = motion.attributes.get("student") if motion else None
    return student.get("protocol", PUBLISHED) if isinstance(student, dict) else None


def student_selection_agrees(config: Config, train: Reader, motion: Reader | None) -> bool | None:
    """Whether a student that was held out had this run's selection clips; None where there is nothing to compare."""
    student = motion.attributes.get("student") if motion else None
    if student_protocol(motion) != HELD_OUT or config["data"]["protocol"] != HELD_OUT:
        return None
    if not isinstance(student, dict) or student.get("selection") is None:
        return None
    return student["selection"] == selection_digest(train, config["data"])


def warn_of_student(config: Config, train: Reader, motion: Reader | None) -> None:
    """Say where a run would be held out, but what it reads is not; `train`: the training file."""
    if motion is None or config["data"]["protocol"] != HELD_OUT or config["data"]["motion"] == "none":
        return
    cure = f"train.py --protocol {HELD_OUT} and inference.py make other motions"
    if (protocol := student_protocol(motion)) != HELD_OUT:
        known = f"its student's protocol was {protocol}" if protocol else "doesn't say its student's protocol"
        print(
            f"warning: {motion.path}: {known}, so the student may have chosen its epoch on the reported clips, and "
            f"learnt from the selection clips; {cure}"
        )
    elif student_selection_agrees(config, train, motion) is False:
        print(f"warning: {motion.path}: its student had other selection clips, and may have learnt from these; {cure}")
