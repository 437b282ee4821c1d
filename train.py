"""Train MoCLIP, the student: a copy of the CLIP image encoder that learns to embed flow frames.

Its embeddings of flow approach CLIP's embeddings of the frames (distillation), and classify the actions.

    python train.py --run-name first --epochs 10 --learning-rate 1e-5
    tensorboard --logdir logs

Reads RGB embeddings (extract_embeddings.py) and flow videos (extract_flows.py), writes checkpoints/<run>/ and
logs/<run>/. The best epoch has the lowest loss on the model-selection split. --resume checkpoints/<run>, or the same
command with --run-name, resumes a run that was stopped. On several GPUs, or CPUs: torchrun --nproc-per-node 4
train.py ..."""

import argparse
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from vimoclip import cli
from vimoclip.errors import UserError

if TYPE_CHECKING:
    from vimoclip.moclip.dataset import TrainingSplits
    from vimoclip.runtime.distributed import ProcessGroup
    from vimoclip.store import EmbeddingReader
    from vimoclip.training.trainer import RunOptions

# Settings that may differ when a run resumes. Paths may differ too, since the content of the files is compared.
MAY_CHANGE_ON_RESUME = {"epochs", "early_stopping_patience", "num_workers", "device", "resume", "run_name", "overwrite"}
MAY_CHANGE_ON_RESUME |= {"save_every_minutes", "dry_run", "clip_model_name", "clip_pretrained", "dataset_name"}
MAY_CHANGE_ON_RESUME |= {"micro_batch_size", "compile", "cache_frames", "report"}
NOT_RESTORED = {"resume", "overwrite", "dry_run", "run_name", "compile", "report"}  # from args.yaml on resume


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    add = parser.add_argument_group("data").add_argument
    add(
        "--train-hdf5-path",
        type=Path,
        default=None,
        help="RGB embeddings of the training split; default: embeddings/<dataset name>_train_clip_embeddings.h5",
    )
    add(
        "--val-hdf5-path", type=Path, default=None, help="RGB embeddings of the val split; implies --protocol published"
    )
    protocol_help = "how the best epoch is selected. held_out: on the clips of annotations/selection.txt, which are "
    protocol_help += (
        "excluded from training; published: on the val split, as in the paper's code. Default: held_out if "
    )
    protocol_help += "there is a selection.txt and no --val-hdf5-path, else published"
    add("--protocol", choices=["held_out", "published"], default=None, help=protocol_help)
    shots_help = (
        "few-shot: train on N clips of each class, those that TFAM.train_and_eval --shots N draws; default: all"
    )
    add("--shots", type=cli.none_or(cli.positive_int), default=None, metavar="N", help=shots_help)
    add("--flow-videos-dir", type=Path, default=None, help="folder of flow videos; default: flows/ in --dataset-dir")
    videos_help = "folder of videos, whose frames TensorBoard shows; default: videos/ in --dataset-dir"
    add("--videos-dir", type=Path, default=None, help=videos_help)
    classes_help = "expected number of classes; default: that of the embeddings"
    add("--num-classes", type=cli.none_or(cli.positive_int), default=None, help=classes_help)
    add("--sequence-length", type=_sequence_length, default=30, help="frames per training segment")
    cache_help = "cache of preprocessed flow frames, so that later epochs decode no video; 150 KB per frame of 224x224"
    add("--cache-frames", type=cli.none_or(Path), default=None, metavar="FOLDER", help=cache_help)
    add = parser.add_argument_group("method").add_argument
    mode_help = "distillation loss: 1 - cosine similarity, or mean squared error"
    add("--distillation-loss-mode", choices=["cosine", "mse"], default="cosine", help=mode_help)
    weight_help = "weight of the distillation loss; 0: classification only"
    add("--distillation-weight", type=cli.non_negative_float, default=1.0, help=weight_help)
    add(
        "--residual-alpha",
        type=float,
        default=0.1,
        help="weight of the residual MLP's output, which is added to the embedding",
    )
    positive_help = "additional weight of positive labels in the loss: with 9, a positive counts ten times a negative"
    add("--class-positive-weight", type=cli.non_negative_float, default=9.0, help=positive_help)
    add("--freeze-encoder", action="store_true", help="train only the residual MLP and the classification head")
    add = parser.add_argument_group("optimisation").add_argument
    add("--epochs", type=cli.positive_int, default=10, help="number of epochs")
    add("--batch-size", type=cli.positive_int, default=32, help="segments per batch of each process")
    micro_batch_help = (
        "segments per forward pass; fewer take less memory and give the same gradient; default: on a CUDA GPU as many "
        "as fit into its free memory, else about 32 frames"
    )
    add("--micro-batch-size", type=cli.none_or(cli.positive_int), default=None, help=micro_batch_help)
    add("--compile", action="store_true", help="compile the encoder with torch.compile; GPU only")
    add("--learning-rate", type=cli.positive_float, default=1e-3, help="learning rate of Adam")
    encoder_help = "learning rate of the encoder; default: --learning-rate"
    add("--encoder-learning-rate", type=cli.none_or(cli.positive_float), default=None, help=encoder_help)
    add("--warmup-steps", type=cli.non_negative_int, default=0, help="steps of linear learning rate warmup")
    decay_help = "decoupled weight decay (AdamW); 0 is Adam"
    add("--weight-decay", type=cli.non_negative_float, default=0.0, help=decay_help)
    clip_help = "maximum norm of the gradient; default: no clipping"
    add("--grad-clip-norm", type=cli.none_or(cli.positive_float), default=None, help=clip_help)
    patience_help = "epochs without a lower loss after which training stops; default: no early stopping"
    add("--early-stopping-patience", type=cli.none_or(cli.positive_int), default=None, help=patience_help)
    add = parser.add_argument_group("run folder").add_argument
    add("--checkpoints-dir", type=Path, default=Path("checkpoints"), help="folder of run folders")
    add("--logs-dir", type=Path, default=Path("logs"), help="folder of TensorBoard's event files")
    add("--run-name", default=None, help="name of the run folder; default: the time, like 20250328-003544")
    add("--resume", type=Path, default=None, metavar="RUN_FOLDER", help="resume this run with its settings")
    cli.add_checkpoint_arguments(parser)
    cli.add_clip_arguments(parser, default_model=None)
    cli.add_dataset_arguments(parser)
    cli.add_compute_arguments(parser)
    cli.add_run_arguments(parser, "use only the first N videos of each split")
    cli.add_report_argument(parser)
    return parser


def _sequence_length(text: str) -> int:
    if (value := int(text)) < 2:
        raise argparse.ArgumentTypeError(f"{text} frames have no flow between them; give 2 or more")
    return value


def main(argv: list[str] | None = None) -> Path:
    args, folder = parse_arguments(sys.argv[1:] if argv is None else argv)
    from vimoclip.runtime import defaults, distributed
    from vimoclip.runtime.device import select_device, select_precision
    from vimoclip.training.trainer import RunOptions

    with distributed.init_process_group(args.device) as group:
        device = select_device(args.device, group.local_rank)
        if args.compile and device.type == "cpu":
            raise UserError("--compile needs a GPU, but this run is on the CPU", "remove the flag")
        args.protocol = resolve_protocol(args)
        splits = open_splits(args, group)
        group.barrier()  # all processes have read the folder before rank 0 changes it
        is_new = folder is None
        now = time.strftime("%Y%m%d-%H%M%S")
        folder = folder or args.checkpoints_dir / group.broadcast(args.run_name or now)
        logs_dir = args.logs_dir / folder.absolute().name
        precision = group.broadcast(select_precision(args.precision, device))
        workers = defaults.loader_processes(args.num_workers, device)
        run = RunOptions(folder, logs_dir, device, precision, workers, args.save_every_minutes, group)
        report = print_dry_run(args, run, splits, is_new) if args.dry_run else run_training(args, run, splits)
        report.write(args.report)
        return folder


def resolve_protocol(args: argparse.Namespace) -> str:
    """Return the run's protocol. Raises UserError if flags contradict each other, or if its clips do not exist."""
    from vimoclip.annotations import split_protocol

    if args.val_hdf5_path and args.protocol is None:
        print(f"--val-hdf5-path is given, so the protocol is {split_protocol.PUBLISHED}")
        return split_protocol.PUBLISHED
    if args.val_hdf5_path and args.protocol == split_protocol.HELD_OUT:
        raise UserError(
            f"--val-hdf5-path {args.val_hdf5_path} is not read with --protocol {split_protocol.HELD_OUT}",
            f"remove the path, or use --protocol {split_protocol.PUBLISHED}",
        )
    return split_protocol.resolve(args.protocol, args.dataset_dir / "annotations")


def open_splits(args: argparse.Namespace, group: "ProcessGroup") -> "TrainingSplits":
    """Open the embedding files and pair their videos with flow. All ranks get the same. Raises UserError."""
    from vimoclip.annotations import split_protocol
    from vimoclip.check.compatibility import check_labels
    from vimoclip.flow import flow_folder
    from vimoclip.moclip.dataset import TrainingSplits, check_embedding_files, check_paired_videos, pair_splits

    file_splits = ("train",) if args.protocol == split_protocol.HELD_OUT else ("train", "val")
    readers = {split: open_embeddings(args, split) for split in file_splits}
    check_embedding_files(readers, args.num_classes)
    for flag in ("--checkpoints-dir", "--logs-dir", "--cache-frames"):
        if folder := getattr(args, flag.lstrip("-").replace("-", "_")):
            cli.require_creatable_folder(folder, flag)
    flows_dir = cli.require_folder(args.flow_videos_dir or args.dataset_dir / "flows", "run extract_flows.py")
    flows = flow_folder.FlowFolder(flows_dir, [key for reader in readers.values() for key in reader.keys])
    annotations_dir = args.dataset_dir / "annotations"
    paired_videos, metadata = group.broadcast(
        pair_splits(readers, flows, annotations_dir, args.limit, args.protocol, args.shots)
        if group.is_main
        else ({}, {})
    )
    check_paired_videos(paired_videos, readers)
    split_readers = {split: readers.get(split, readers["train"]) for split in paired_videos}
    keys = {split: [video.key for video in paired.videos] for split, paired in paired_videos.items()}
    check_labels({split: (split_readers[split], keys[split]) for split in keys}, needs_monitor_label=False)
    return TrainingSplits(split_readers, paired_videos, metadata)


def open_embeddings(args: argparse.Namespace, split: str) -> "EmbeddingReader":
    from vimoclip.store import EmbeddingReader, rgb_embeddings_path

    path = args.train_hdf5_path if split == "train" else args.val_hdf5_path
    path = path or rgb_embeddings_path(args.dataset_dir / "embeddings", args.dataset_name, split)
    hint = "run extract_embeddings.py, or give the path with --train-hdf5-path or --val-hdf5-path"
    return EmbeddingReader(cli.require_file(path, hint), kind="rgb")


def run_training(args: argparse.Namespace, run: "RunOptions", splits: "TrainingSplits") -> cli.RunReport:
    """Train in the run folder; resume if it has a last.pth. Raises UserError, TrainingError."""
    from vimoclip.annotations import split_protocol
    from vimoclip.moclip import builder
    from vimoclip.moclip.frame_cache import FrameCache
    from vimoclip.moclip.trainer import StudentTrainer, plain_settings
    from vimoclip.training import run_folder

    student = builder.build_student(args, splits)
    with run_folder.open_run(run.folder, run.logs_dir, "args.yaml", plain_settings(args), args.overwrite, run.group):
        cli.set_resume_command(lambda: f"{launch_command(run.group)} train.py --resume {shlex.quote(str(run.folder))}")
        cache = FrameCache(args.cache_frames, student.config["clip"]) if args.cache_frames else None
        if cache:
            cache.fill_distributed(splits.videos(), student.preprocess, run.num_workers, run.group)
        trainer = StudentTrainer(args, run, student, splits, cache)
        processes = f" in {run.group.size} processes" if run.group.size > 1 else ""
        monitor = f"{len(trainer.monitor_set)} to validate on ({split_protocol.MONITOR_DESCRIPTION[args.protocol]})"
        print(
            f"run {run.folder} on {run.device}{processes}, protocol {args.protocol}: {len(trainer.train_set)} segments "
            f"to train on, {monitor}; {run.num_workers} loader workers",
            flush=True,
        )
        trainer.train()
        return trainer.report({video: reason for _, video, reason in trainer.excluded})


def print_dry_run(args: argparse.Namespace, run: "RunOptions", splits: "TrainingSplits", is_new: bool) -> cli.RunReport:
    """Print what a run would do and its estimated cost; write nothing. Raises UserError."""
    from vimoclip import clip
    from vimoclip.annotations import split_protocol
    from vimoclip.moclip import builder
    from vimoclip.moclip.dataset import split_into_segments
    from vimoclip.moclip.frame_cache import FrameCache
    from vimoclip.moclip.trainer import StudentTrainer, has_stopped_early
    from vimoclip.training import dry_run

    folder = None if is_new else run.folder
    progress = StudentTrainer.read_progress(folder)
    sizes = [len(split_into_segments(paired.videos, args.sequence_length)) for paired in splits.paired_videos.values()]
    print(dry_run.format_progress(folder, progress, args.epochs, StudentTrainer.unit, *sizes), flush=True)
    monitor_split = split_protocol.MONITOR_SPLIT[args.protocol]
    has_stopped = has_stopped_early(progress.rows, monitor_split, args.early_stopping_patience)
    epochs = len(progress.rows) if has_stopped else args.epochs
    report = dry_run.plan(progress, epochs, {video: reason for _, video, reason in splits.excluded()})
    if not report.pending:
        return report
    if download := clip.missing_download(*builder.resolve_clip_model(args, splits.readers["train"])):
        print(f"no estimate: {download['name']} must be downloaded first")
        return report
    student = builder.build_student(args, splits)
    cache_bytes = 0
    if args.cache_frames:
        cache = FrameCache(args.cache_frames, student.config["clip"])
        uncached = cache.uncached_videos(splits.videos())
        cache.check_disk_space(uncached)
        cache_bytes = cache.required_bytes(uncached)
    report.estimate = dry_run.estimate_cost(StudentTrainer(args, run, student, splits), progress, cache_bytes)
    print(report.estimate, flush=True)
    return report


def launch_command(group: "ProcessGroup") -> str:
    """Return the command that started this process: python or torchrun."""
    local_size = os.environ.get("LOCAL_WORLD_SIZE", group.size)
    return f"torchrun --nproc-per-node {local_size}" if group.size > 1 else "python"


def parse_arguments(argv: list[str]) -> tuple[argparse.Namespace, Path | None]:
    """Return the arguments, and the folder of the run to resume or None. Its settings are the arguments' defaults.

    Raises UserError if the arguments contradict these settings."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.resume and args.overwrite:
        raise UserError("--resume and --overwrite exclude each other", "use one of them")
    if args.run_name is not None and (args.run_name in ("", ".", "..") or Path(args.run_name).name != args.run_name):
        raise UserError(f"--run-name {args.run_name} must be a folder name without slashes")
    named_folder = args.checkpoints_dir / args.run_name if args.run_name else None
    folder = args.resume
    if not folder and named_folder and not args.overwrite and (named_folder / "last.pth").exists():
        folder = named_folder
    if folder is None:
        return args, None
    from vimoclip.io import yaml_json

    # a run folder without last.pth is trained from scratch with its settings
    settings_path = cli.require_file(folder / "args.yaml", "give --resume a run folder of train.py")
    saved = {"shots": None} | yaml_json.read_yaml(settings_path)  # runs of earlier versions do not have it
    parser.set_defaults(**{k: v for k, v in saved.items() if k not in NOT_RESTORED})
    args = parser.parse_args(argv)
    fixed_settings = {
        k: v for k, v in vars(args).items() if k not in MAY_CHANGE_ON_RESUME and not k.endswith(("_dir", "_path"))
    }
    hint = "resume with the same settings, or start a new run"
    cli.check_settings_match(fixed_settings, saved, "this command", str(settings_path), hint)
    return args, folder


if __name__ == "__main__":
    cli.run(main)
