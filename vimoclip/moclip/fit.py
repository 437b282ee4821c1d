"""One run of the student: epochs of training and evaluation that can stop anywhere and go on with the same results."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from vimoclip import UserError, VideoError, cli, runs, video
from vimoclip.clip import Preprocess
from vimoclip.data import SegmentDataset, Unreadable, collate
from vimoclip.moclip import MoCLIP, engine

PANEL_VIDEOS = 4
LEFT_OUT = ("split", "video", "reason")  # header of left_out.csv


def fit(
    args: argparse.Namespace,
    folder: Path,
    model: MoCLIP,
    config: dict[str, Any],
    preprocess: Preprocess,
    sets: dict[str, SegmentDataset],
    class_names: list[str],
    left_out: list[tuple[str, str, str]],
) -> None:
    """Train from where the folder's last.pth stands, or from the beginning, to the last epoch.

    `left_out`: (split, video, reason) of what can't be used; flow videos that break on reading join it."""
    device = next(model.parameters()).device
    precision = runs.pick_precision(args.precision, device)
    autocast = partial(runs.autocast, device, precision)
    compute_losses = engine.make_losses(
        args.distillation_loss_mode, args.class_positive_weight, args.distillation_weight
    )
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16" and device.type == "cuda")
    optimizer, scheduler = build_optimizer(args, model)
    state = engine.TrainState(model, config, optimizer, scheduler, scaler, engine.new_progress())
    last = folder / "last.pth"
    if last.exists():
        state.load(last)
        print(f"going on at epoch {state.progress['epoch'] + 1}, step {state.progress['step'] + 1}", flush=True)
    progress = state.progress
    check_segments(progress, sets["train"], last)
    left_out = left_out + [tuple(line) for line in progress["unreadable"]]
    tensorboard = runs.tensorboard(args.logs_dir / folder.absolute().name, progress["epoch"], progress["global_step"])
    runs.write_csv(folder / "left_out.csv", LEFT_OUT, left_out)

    def tell(split: str, unreadable: Unreadable) -> None:
        if not any(line[:2] == (split, unreadable.key) for line in left_out):
            left_out.append((split, *unreadable))
            progress["unreadable"].append([split, *unreadable])
            runs.write_csv(folder / "left_out.csv", LEFT_OUT, left_out)
            print(f"  left out: {unreadable.key}: {unreadable.reason}", flush=True)

    due, sums = runs.Every(60 * args.save_every_minutes), engine.Sums(progress["sums"])

    def after_step(values: dict[str, float]) -> None:
        progress["step"] += 1
        progress["global_step"] += 1
        if not values:  # nothing of the batch could be read
            return
        values["learning_rate"] = state.optimizer.param_groups[-1]["lr"]
        for name, value in values.items():
            tensorboard.add_scalar(f"step/{name}", value, progress["global_step"])
        if due():
            progress["sums"] = dict(sums.state)
            tensorboard.flush()
            state.save(last)

    workers = cli.usable_workers(args.num_workers)
    val_loader = loader(sets["val"], range(len(sets["val"])), args.batch_size, workers)
    while progress["epoch"] < args.epochs and not stopped_early(args, progress):
        order = runs.epoch_order(len(sets["train"]), args.seed, progress["epoch"])
        batches = loader(sets["train"], order, args.batch_size, workers, progress["step"])
        steps = cli.progress(batches, len(batches), "step", f"epoch {progress['epoch'] + 1}/{args.epochs}")
        trained = engine.train_one_epoch(
            state,
            steps,
            compute_losses,
            preprocess,
            autocast,
            sums=sums,
            grad_clip_norm=args.grad_clip_norm,
            after_step=after_step,
            tell=partial(tell, "train"),
        )
        validated, probabilities = engine.evaluate(
            model, val_loader, compute_losses, preprocess, autocast, partial(tell, "val")
        )
        row = finish_epoch(state, folder, trained, validated, class_names)
        sums.state.clear()
        log_epoch(tensorboard, row, panel(args, sets["val"], probabilities, class_names))
        state.save(last)  # last: what a stop leaves half done before it is done again, with the same result
        print(describe_epoch(row, args.epochs, better=progress["stale"] == 0), flush=True)
    tensorboard.close()
    print(f"finished after epoch {progress['epoch']}; the best student is {folder / 'student_best.pth'}", flush=True)


def check_segments(progress: dict[str, Any], dataset: SegmentDataset, last: Path) -> None:
    """Raise UserError in the middle of an epoch of other segments, whose order would be another."""
    digest = runs.digest([(segment.clip.key, segment.start, segment.length) for segment in dataset.segments])
    if progress["step"] and progress["segments"] != digest:
        raise UserError(
            f"{last}: stopped in the middle of an epoch of other videos than there are now; bring back what was there "
            "(see left_out.csv), or start anew"
        )
    progress["segments"] = digest


def finish_epoch(
    state: engine.TrainState,
    folder: Path,
    trained: dict[str, float],
    validated: dict[str, float],
    class_names: list[str],
) -> dict[str, Any]:
    """Book an epoch in the progress and in the run folder, but for last.pth; its row of metrics."""
    progress = state.progress
    row = {"epoch": progress["epoch"] + 1, "learning_rate": state.optimizer.param_groups[-1]["lr"]}
    row |= {f"train_{k}": v for k, v in trained.items()} | {f"val_{k}": v for k, v in validated.items()}
    better = validated["loss"] < progress["best"]
    progress.update(epoch=row["epoch"], step=0, sums={}, rows=[*progress["rows"], row])
    progress.update(best=min(progress["best"], validated["loss"]), stale=0 if better else progress["stale"] + 1)
    student = {"state_dict": state.model.state_dict(), "config": state.config, "class_names": class_names}
    student |= {"epoch": row["epoch"], "metrics": row, "versions": runs.versions()}
    runs.save_checkpoint(folder / f"student_epoch_{row['epoch']}.pth", student)
    if better:
        runs.save_checkpoint(folder / "student_best.pth", student)
    runs.write_csv(folder / "metrics.csv", list(row), [list(r.values()) for r in progress["rows"]])
    return row


def build_optimizer(args: argparse.Namespace, model: MoCLIP) -> tuple[Any, Any]:
    """(AdamW, which at weight decay 0 is Adam; a schedule that only warms up). The encoder may have its own rate."""
    encoder = {id(p) for p in model.visual_encoder.parameters()}
    rate = args.encoder_learning_rate or args.learning_rate
    groups = [
        {"params": [p for p in model.parameters() if id(p) in encoder and p.requires_grad], "lr": rate},
        {"params": [p for p in model.parameters() if id(p) not in encoder], "lr": args.learning_rate},
    ]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], weight_decay=args.weight_decay)
    warmup = partial(_warmup, steps=args.warmup_steps)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, warmup)


def _warmup(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / steps) if steps else 1.0


def loader(dataset: SegmentDataset, order: Sequence[int], batch_size: int, workers: int, skip: int = 0) -> DataLoader:
    """Batches of the segments in this order, without the first `skip` batches.

    The loader's own generator keeps it from the model's random numbers, of which a run that goes on in the middle of an
    epoch would else draw one more than a run that was never stopped."""
    batches = [list(order[i : i + batch_size]) for i in range(0, len(order), batch_size)]
    return DataLoader(
        dataset,
        batch_sampler=batches[skip:],
        num_workers=workers,
        collate_fn=collate,
        generator=torch.Generator(),
    )


def stopped_early(args: argparse.Namespace, progress: dict[str, Any]) -> bool:
    patience = args.early_stopping_patience
    return patience is not None and progress["stale"] >= patience


def describe_epoch(row: dict[str, float], epochs: int, better: bool) -> str:
    return (
        f"epoch {row['epoch']}/{epochs}: train loss {row['train_loss']:.4f}, val loss {row['val_loss']:.4f} "
        f"(distillation {row['val_distillation_loss']:.4f}), accessory head's val map_macro "
        f"{row['val_head_map_macro']:.4f}, map_micro {row['val_head_map_micro']:.4f}{' *best' if better else ''}"
    )


def log_epoch(tensorboard: Any, row: dict[str, float], image: Any) -> None:
    for name, value in row.items():
        split, _, metric = name.partition("_")
        if split in ("train", "val"):
            tensorboard.add_scalar(f"{split}/{metric}", value, row["epoch"])
    if image is not None:
        tensorboard.add_image("val/rgb_flow_labels", image, row["epoch"], dataformats="HWC")
    tensorboard.flush()


def panel(args: argparse.Namespace, dataset: SegmentDataset, probabilities: dict[str, Any], names: list[str]) -> Any:
    """An image of some validation videos: RGB frame, flow frame, labels and what the accessory head thinks."""
    rows = []
    clips = list(dict.fromkeys(segment.clip for segment in dataset.segments))
    for clip in clips[:: max(1, len(clips) // PANEL_VIDEOS)][:PANEL_VIDEOS]:
        middle = (clip.frames - 1) // 2
        indices = dataset.reader.frame_indices(clip.key)
        source = (args.videos_dir or args.dataset_dir / "videos") / clip.key
        flow = frame_at(clip.flow, middle)
        if flow is None or clip.key not in probabilities:
            continue
        rgb = frame_at(source, middle if indices is None else int(indices[middle]))
        labels = [names[i] for i in dataset.reader.labels(clip.key).nonzero()[0]]
        top = probabilities[clip.key].topk(min(3, len(names)))
        guesses = [f"{names[i]} {p:.2f}" for p, i in zip(top.values.tolist(), top.indices.tolist(), strict=True)]
        rows.append((rgb, flow, f"{clip.key}: {', '.join(labels) or 'no label'} | {', '.join(guesses)}"))
    return runs.panel(rows) if rows else None


def frame_at(path: Path, index: int) -> np.ndarray | None:
    """(H, W, 3) uint8; None where it can't be had: videos may be gone by the time that their embeddings are used."""
    try:
        return video.SpanReader(path).read(index, index + 1)[0]
    except VideoError:
        return None
