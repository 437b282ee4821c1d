"""Train MoCLIP: a copy of the CLIP image encoder learns to embed flow frames, by distillation and classification.

    python train.py --run-name first --epochs 10 --learning-rate 1e-5
    tensorboard --logdir logs

Reads the RGB embeddings (extract_embeddings.py) and the flow videos (extract_flows.py), writes checkpoints/<run>/ and
logs/<run>/. The best epoch is that of the lowest loss on the clips of --protocol. Goes on where it stopped with
--resume checkpoints/<run>, or with the same command and --run-name. On several GPUs, or CPUs: torchrun --nproc-per-node
4 train.py ..., where --batch-size is each process's."""

import argparse
import os
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimoclip import cli
from vimoclip.errors import UserError

if TYPE_CHECKING:
    from vimoclip.moclip.dataset import Splits
    from vimoclip.runtime.distributed import Group
    from vimoclip.store import Reader

# What may differ when a run goes on: more epochs, and whatever changes nothing of what is learnt. Where files are may
# change too: what they hold is compared with what the checkpoint learnt from.
MAY_CHANGE = {"epochs", "early_stopping_patience", "num_workers", "device", "resume", "run_name", "overwrite"}
MAY_CHANGE |= {"save_every_minutes", "dry_run", "clip_model_name", "clip_pretrained", "dataset_name"}
MAY_CHANGE |= {"micro_batch_size", "compile", "cache_frames"}
AFRESH = {"resume", "overwrite", "dry_run", "run_name", "compile"}  # not taken over from the run gone on with


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    add = parser.add_argument_group("data").add_argument
    add("--train-hdf5-path", type=Path, default=None, help="RGB embeddings; default: <name>_train_... in the data set")
    add("--val-hdf5-path", type=Path, default=None, help="of --protocol published; default: <name>_val_... likewise")
    choose = "held_out: epochs are chosen on the clips of annotations/selection.txt, which aren't trained on, and the "
    choose += (
        "reported ones aren't read; published: on the reported clips, as the paper's code does; default: held_out "
    )
    choose += "where there is a selection.txt, published where there is none or --val-hdf5-path is given"
    add("--protocol", choices=["held_out", "published"], default=None, help=choose)
    add("--flow-videos-dir", type=Path, default=None, help="default: flows/ in the data set")
    add("--videos-dir", type=Path, default=None, help="of the frames in TensorBoard's panel; default: videos/")
    add("--num-classes", type=cli.none_or(cli.positive_int), default=None, help="must be what the embeddings have")
    add("--sequence-length", type=_at_least_two, default=30, help="frames a segment; it has one flow less")
    keep = "keep flow frames here as the student sees them, and read them instead of decoding: 150 KB a frame at 224"
    add("--cache-frames", type=cli.none_or(Path), default=None, metavar="FOLDER", help=keep)
    add = parser.add_argument_group("method").add_argument
    add("--distillation-loss-mode", choices=["cosine", "mse"], default="cosine", help="1 - cos, or squared error")
    add("--distillation-weight", type=cli.non_negative_float, default=1.0, help="of that loss; 0: classification alone")
    add("--residual-alpha", type=float, default=0.1, help="of the residual MLP")
    add("--class-positive-weight", type=cli.non_negative_float, default=9.0, help="a positive weighs this + 1")
    add("--freeze-encoder", action="store_true", help="train only the MLP and the head")
    add = parser.add_argument_group("optimisation").add_argument
    add("--epochs", type=cli.positive_int, default=10, help="how many times each segment is seen")
    add("--batch-size", type=cli.positive_int, default=32, help="in segments, of each process")
    few = "segments at a time of a batch, which give its gradient in less memory; default: all on a GPU, few on a CPU"
    add("--micro-batch-size", type=cli.none_or(cli.positive_int), default=None, help=few)
    add("--compile", action="store_true", help="the encoder by torch.compile, on a GPU")
    add("--learning-rate", type=cli.positive_float, default=1e-3, help="of Adam")
    add("--encoder-learning-rate", type=cli.none_or(cli.positive_float), default=None, help="None: as the rest")
    add("--warmup-steps", type=cli.count, default=0, help="over which learning rates grow to their value")
    add("--weight-decay", type=cli.non_negative_float, default=0.0, help="decoupled (AdamW); 0 is Adam")
    add("--grad-clip-norm", type=cli.none_or(cli.positive_float), default=None, help="None: off")
    add("--early-stopping-patience", type=cli.none_or(cli.positive_int), default=None, help="epochs without a gain")
    add = parser.add_argument_group("run folder").add_argument
    add("--checkpoints-dir", type=Path, default=Path("checkpoints"), help="of run folders")
    add("--logs-dir", type=Path, default=Path("logs"), help="of TensorBoard's files")
    add("--run-name", default=None, help="default: the time, like 20250328-003544")
    add("--resume", type=Path, default=None, metavar="RUN_FOLDER", help="go on with this run")
    cli.add_saving(parser)
    cli.add_clip(parser, name=None)
    cli.add_dataset(parser)
    cli.add_compute(parser, workers=4)
    cli.add_run_control(parser, "only the first N videos of each split")
    return parser


def _at_least_two(text: str) -> int:
    if (value := int(text)) < 2:
        raise argparse.ArgumentTypeError(f"{text} frames have no flow between them; give 2 or more")
    return value


def main(argv: list[str] | None = None) -> Path:
    args, folder = parse(sys.argv[1:] if argv is None else argv)
    from vimoclip.io import lock
    from vimoclip.runtime import distributed
    from vimoclip.runtime.device import pick_device
    from vimoclip.training import run_folder

    with distributed.join() as group:
        device = pick_device(args.device, group.local_rank)
        if args.compile and device.type == "cpu":
            raise UserError("--compile: is for a GPU, and this run is on the CPU", "leave it out")
        args.protocol = settle(args)
        splits = open_splits(args, group)
        group.barrier()  # before the folder changes all have looked at what is in it
        if args.dry_run:
            plan(args, folder, splits, device, group)
            return folder or args.checkpoints_dir
        folder = folder or args.checkpoints_dir / group.share(args.run_name or run_folder.name_by_time())
        with lock.only_process(folder) if group.main else nullcontext():
            run(args, folder, splits, device, group)
        return folder


def settle(args: argparse.Namespace) -> str:
    """The protocol. Raises UserError where the flags contradict each other, or there are no selection clips."""
    from vimoclip.annotations import split_protocol

    if args.val_hdf5_path and args.protocol is None:
        print(
            f"--val-hdf5-path is given, so the protocol is {split_protocol.PUBLISHED}: the epoch is chosen on its clips"
        )
        return split_protocol.PUBLISHED
    if args.val_hdf5_path and args.protocol == split_protocol.HELD_OUT:
        raise UserError(
            f"--val-hdf5-path {args.val_hdf5_path}: these clips aren't read with --protocol {split_protocol.HELD_OUT}",
            f"leave the path out, or give --protocol {split_protocol.PUBLISHED}",
        )
    return split_protocol.settle(args.protocol, args.dataset_dir / "annotations")


def open_splits(args: argparse.Namespace, group: "Group") -> "Splits":
    """The embeddings and, of each split, the videos to learn from, the same ones on each rank. Raises UserError."""
    from vimoclip import store
    from vimoclip.annotations import split_protocol
    from vimoclip.flow import flow_lookup
    from vimoclip.moclip import dataset

    needed = ("train",) if args.protocol == split_protocol.HELD_OUT else ("train", "val")
    readers = {split: open_embeddings(args, split, store.Reader) for split in needed}
    dataset.check_readers(readers, args.num_classes)
    for flag in ("--checkpoints-dir", "--logs-dir", "--cache-frames"):
        if place := getattr(args, flag.lstrip("-").replace("-", "_")):
            cli.need_place(place, flag)
    flows_dir = cli.need_folder(args.flow_videos_dir or args.dataset_dir / "flows", "run extract_flows.py")
    flows = flow_lookup.FlowFolder(flows_dir, [key for reader in readers.values() for key in reader.keys])
    notes = args.dataset_dir / "annotations"
    pairings, about = group.share(
        dataset.pair_splits(readers, flows, notes, args.limit, args.protocol) if group.main else ({}, {})
    )
    dataset.check_pairings(pairings, readers)
    return dataset.Splits({split: readers.get(split, readers["train"]) for split in pairings}, pairings, about)


def run(args: argparse.Namespace, folder: Path, splits: "Splits", device: Any, group: "Group") -> None:
    """Train in a folder, from its last.pth on where there is one. Raises UserError, TrainingError."""
    from vimoclip.annotations import split_protocol
    from vimoclip.io import yaml_json
    from vimoclip.moclip import builder, trainer
    from vimoclip.moclip.frame_cache import FrameCache
    from vimoclip.training import run_folder

    config, model, preprocess = begin(args, splits)
    if group.main:
        if args.overwrite:
            run_folder.remove(folder, args.logs_dir / folder.name)
        folder.mkdir(parents=True, exist_ok=True)
        yaml_json.write_yaml(
            folder / "args.yaml", {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
        )
    cli.go_on_with(lambda: f"{launcher(group)} train.py --resume {shlex.quote(str(folder))}")
    cache = FrameCache(args.cache_frames, config["clip"]) if args.cache_frames else None
    learning = trainer.Learning(args, model.to(device), preprocess, group)
    if cache:
        cache.fill_together(splits.clips(), preprocess, learning.workers, group)
    sets = splits.sets(args.sequence_length, preprocess, cache)
    processes, watched = f" in {group.size} processes" if group.size > 1 else "", split_protocol.WATCHED[args.protocol]
    print(
        f"run {folder} on {device}{processes}, protocol {args.protocol}: {len(sets['train'])} segments to train on, "
        f"{len(sets[watched])} to validate ({split_protocol.CHOSEN_ON[args.protocol]})",
        flush=True,
    )
    names = builder.class_names(splits.readers["train"])
    trainer.Run(args, folder, learning, config, sets, names, splits.left_out()).train()


def plan(args: argparse.Namespace, folder: Path | None, splits: "Splits", device: Any, group: "Group") -> None:
    """Say what a run would do and what it would cost, and write nothing. Raises UserError."""
    from vimoclip import clip
    from vimoclip.moclip import builder, dataset, dry_run, trainer
    from vimoclip.moclip.frame_cache import FrameCache

    progress = dry_run.progress_of(folder)
    counts = (len(dataset.segments(pairing.clips, args.sequence_length)) for pairing in splits.pairings.values())
    print(dry_run.describe_progress(folder, progress, args.epochs, *counts), flush=True)
    if download := clip.missing_download(*builder.name_of(args, splits.readers["train"])):
        print(f"how long it takes can be told once {download['what']} is here: it would be downloaded")
        return
    config, model, preprocess = begin(args, splits)
    room = 0
    if args.cache_frames:
        cache = FrameCache(args.cache_frames, config["clip"])
        cache.check_room(missing := cache.missing(splits.clips()))
        room = cache.size(missing)
    learning = trainer.Learning(args, model.to(device), preprocess, group)
    sets = splits.sets(args.sequence_length, preprocess)
    print(dry_run.describe_cost(learning, sets, progress, room), flush=True)


def begin(args: argparse.Namespace, splits: "Splits") -> Any:
    """(config, model, preprocessing) of the student. Raises UserError."""
    from vimoclip.moclip import builder

    config, model, preprocess = builder.build(args, splits.readers["train"], splits.pairings["train"].flow_settings)
    return config | splits.about, model, preprocess


def launcher(group: "Group") -> str:
    """How this process was started."""
    local = os.environ.get("LOCAL_WORLD_SIZE", group.size)
    return f"torchrun --nproc-per-node {local}" if group.size > 1 else "python"


def parse(argv: list[str]) -> tuple[argparse.Namespace, Path | None]:
    """The arguments, and the folder of the run to go on with, whose settings must agree. Raises UserError."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.resume and args.overwrite:
        raise UserError("--resume goes on with a run, --overwrite starts it afresh", "give one of them")
    if args.run_name is not None and (args.run_name in ("", ".", "..") or Path(args.run_name).name != args.run_name):
        raise UserError(f"--run-name {args.run_name}: must be the name of one folder, without slashes")
    named = args.checkpoints_dir / args.run_name if args.run_name else None
    began = named if named and not args.overwrite and (named / "last.pth").exists() else None
    folder = args.resume or began
    if folder is None:
        return args, None
    from vimoclip.io import yaml_json

    # last.pth may not be there yet: then the run begins again, with its settings
    about = cli.need_file(folder / "args.yaml", "give --resume the folder of a run that train.py began")
    saved = {"protocol": "published"} | yaml_json.read_yaml(about)  # of before there was any: the paper's
    parser.set_defaults(**{k: v for k, v in saved.items() if k not in AFRESH})
    args = parser.parse_args(argv)
    now = {k: v for k, v in vars(args).items() if k not in MAY_CHANGE and not k.endswith(("_dir", "_path"))}
    cli.check_same(now, saved, "this command", str(about), "go on with the same settings, or start anew")
    return args, folder


def open_embeddings(args: argparse.Namespace, split: str, reader: type["Reader"]) -> "Reader":
    from vimoclip.store import rgb_path

    given = args.train_hdf5_path if split == "train" else args.val_hdf5_path
    path = given or rgb_path(args.dataset_dir / "embeddings", args.dataset_name, split)
    return reader(cli.need_file(path, "run extract_embeddings.py, or name the file with a flag"), kind="rgb")


if __name__ == "__main__":
    cli.run(main)
