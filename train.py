"""Train MoCLIP: a copy of the CLIP image encoder learns to embed flow frames, by distillation and classification.

    python train.py --run-name first --epochs 10 --learning-rate 1e-5
    tensorboard --logdir logs

Reads the RGB embeddings (extract_embeddings.py) and the flow videos (extract_flows.py), writes checkpoints/<run>/ and
logs/<run>/. Goes on where it stopped with --resume checkpoints/<run>, or with the same command and --run-name."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimoclip import UserError, cli

if TYPE_CHECKING:
    from vimoclip.data import Pairing
    from vimoclip.store import Reader

# What may differ when a run goes on: more epochs, and whatever changes nothing of what is learnt. Where files are may
# change too: what they hold is compared with what the checkpoint learnt from.
MAY_CHANGE = {"epochs", "early_stopping_patience", "num_workers", "device", "resume", "run_name", "overwrite"}
MAY_CHANGE |= {"save_every_minutes", "dry_run", "clip_model_name", "clip_pretrained", "dataset_name"}


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    add = parser.add_argument_group("data").add_argument
    add("--train-hdf5-path", type=Path, default=None, help="RGB embeddings; default: <name>_train_... in the data set")
    add("--val-hdf5-path", type=Path, default=None, help="RGB embeddings; default: <name>_val_... in the data set")
    add("--flow-videos-dir", type=Path, default=None, help="default: flows/ in the data set")
    add("--videos-dir", type=Path, default=None, help="of the frames in TensorBoard's panel; default: videos/")
    add("--num-classes", type=cli.none_or(cli.positive_int), default=None, help="must be what the embeddings have")
    add("--sequence-length", type=_at_least_two, default=30, help="frames a segment; it has one flow less")
    add = parser.add_argument_group("method").add_argument
    add("--distillation-loss-mode", choices=["cosine", "mse"], default="cosine", help="1 - cos, or squared error")
    add("--distillation-weight", type=cli.non_negative_float, default=1.0, help="of that loss; 0: classification alone")
    add("--residual-alpha", type=float, default=0.1, help="of the residual MLP")
    add("--class-positive-weight", type=cli.non_negative_float, default=9.0, help="a positive weighs this + 1")
    add("--freeze-encoder", action="store_true", help="train only the MLP and the head")
    add = parser.add_argument_group("optimisation").add_argument
    add("--epochs", type=cli.positive_int, default=10, help="how many times each segment is seen")
    add("--batch-size", type=cli.positive_int, default=32, help="in segments")
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
    from vimoclip import lock, runs, store
    from vimoclip.data import FlowFolder, pair

    readers = {split: open_embeddings(args, split, store.Reader) for split in ("train", "val")}
    check_readers(args, readers)
    for place, flag in ((args.checkpoints_dir, "--checkpoints-dir"), (args.logs_dir, "--logs-dir")):
        cli.need_place(place, flag)
    flows_dir = cli.need_folder(args.flow_videos_dir or args.dataset_dir / "flows", "run extract_flows.py")
    flows = FlowFolder(flows_dir, [key for reader in readers.values() for key in reader.keys])
    pairings = {split: pair(reader, flows, args.limit) for split, reader in readers.items()}
    check_pairings(pairings, readers)
    device = runs.pick_device(args.device)
    if args.dry_run:
        return folder or args.checkpoints_dir
    folder = folder or args.checkpoints_dir / (args.run_name or runs.name_by_time())
    with lock.only_process(folder):
        run(args, folder, readers, pairings, device)
    return folder


def run(
    args: argparse.Namespace, folder: Path, readers: dict[str, "Reader"], pairings: dict[str, "Pairing"], device: Any
) -> None:
    """Train in a folder, from its last.pth on where there is one. Raises UserError, TrainingError."""
    from vimoclip import runs
    from vimoclip.data import SegmentDataset
    from vimoclip.moclip import fit

    config, model, preprocess = build_student(args, readers["train"], pairings["train"].flow_settings)
    config["embeddings"] = {s: r.attributes.get("content_sha256") for s, r in readers.items()}
    sets = {
        split: SegmentDataset(readers[split], pairings[split].clips, args.sequence_length, preprocess)
        for split in readers
    }
    if args.overwrite:
        runs.remove(folder, args.logs_dir / folder.name)
    folder.mkdir(parents=True, exist_ok=True)
    runs.write_yaml(folder / "args.yaml", {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()})
    cli.go_on_with(lambda: f"python train.py --resume {shlex.quote(str(folder))}")
    left_out = [(split, key, why) for split in pairings for key, why in pairings[split].left_out.items()]
    print(
        f"run {folder} on {device}: {len(sets['train'])} segments to train on, {len(sets['val'])} to validate",
        flush=True,
    )
    class_names = list(readers["train"].attributes.get("class_names") or map(str, range(config["num_classes"])))
    fit.fit(args, folder, model.to(device), config, preprocess, sets, class_names, left_out)


def parse(argv: list[str]) -> tuple[argparse.Namespace, Path | None]:
    """The arguments, and the folder of the run to go on with, whose settings must agree. Raises UserError."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.resume and args.overwrite:
        raise UserError("--resume goes on with a run, --overwrite starts it afresh; give one of them")
    if args.run_name is not None and (args.run_name in ("", ".", "..") or Path(args.run_name).name != args.run_name):
        raise UserError(f"--run-name {args.run_name}: must be the name of one folder, without slashes")
    named = args.checkpoints_dir / args.run_name if args.run_name else None
    began = named if named and not args.overwrite and (named / "last.pth").exists() else None
    folder = args.resume or began
    if folder is None:
        return args, None
    from vimoclip import runs

    # last.pth may not be there yet: then the run begins again, with its settings
    about = cli.need_file(folder / "args.yaml", "give --resume the folder of a run that train.py began")
    saved = runs.read_yaml(about)
    parser.set_defaults(**{k: v for k, v in saved.items() if k not in ("resume", "overwrite", "dry_run", "run_name")})
    args = parser.parse_args(argv)
    now = {k: v for k, v in vars(args).items() if k not in MAY_CHANGE and not k.endswith(("_dir", "_path"))}
    cli.check_same(now, saved, "this command", str(about), "go on with the same settings, or start anew")
    return args, folder


def open_embeddings(args: argparse.Namespace, split: str, reader: type["Reader"]) -> "Reader":
    from vimoclip.store import rgb_path

    given = args.train_hdf5_path if split == "train" else args.val_hdf5_path
    path = given or rgb_path(args.dataset_dir / "embeddings", args.dataset_name, split)
    return reader(cli.need_file(path, "run extract_embeddings.py, or name the file with a flag"), kind="rgb")


def check_readers(args: argparse.Namespace, readers: dict[str, "Reader"]) -> None:
    """Raise UserError where the two splits, or the number of classes asked for, don't fit together."""
    train, val = readers["train"], readers["val"]
    for reader in (train, val):
        if not reader.keys:
            raise UserError(f"{reader.path}: holds no video; run extract_embeddings.py again")
        if not reader.known:
            print(f"warning: {reader.path} does not say what made it, so nothing can be checked against it")
    classes = {split: len(reader.labels(reader.keys[0])) for split, reader in readers.items()}
    cure = "make both with one set of flags"
    cli.check_same({"classes": classes["train"]}, {"classes": classes["val"]}, str(train.path), str(val.path), cure)
    if args.num_classes not in (None, classes["train"]):
        raise UserError(f"--num-classes {args.num_classes}: {train.path} has {classes['train']}; leave the flag out")
    if train.known and val.known:
        keys = ("clip_model", "weights_sha256", "quick_gelu", "resize", "sampling", "class_names")
        ours, theirs = ({k: r.attributes.get(k) for k in keys} for r in (train, val))
        cli.check_same(ours, theirs, str(train.path), str(val.path), cure)


def check_pairings(pairings: dict[str, "Pairing"], readers: dict[str, "Reader"]) -> None:
    """Say which videos can't be used. Raises UserError where none can, or the splits' flow differs."""
    for split, pairing in pairings.items():
        print(f"{split}: {len(pairing.clips)} videos, {len(pairing.left_out)} left out")
        for key, why in pairing.left_out.items():
            print(f"  left out: {key}: {why}")
        if not pairing.clips:
            raise UserError(
                f"{readers[split].path}: no video of it has flow; run extract_flows.py, see --flow-videos-dir"
            )
    ours, theirs = pairings["train"].flow_settings, pairings["val"].flow_settings
    cli.check_same(ours, theirs, "the training videos' flow", "the validation videos' flow", "make the flow anew")


def build_student(args: argparse.Namespace, reader: "Reader", flow_settings: dict[str, Any]) -> Any:
    """(config, model, preprocessing) of a student that starts as the teacher. Raises UserError if it doesn't."""
    from vimoclip import clip, runs
    from vimoclip.moclip import MoCLIP

    made = reader.attributes if reader.known else {}
    name = args.clip_model_name or made.get("clip_model") or "ViT-B/32"
    pretrained = args.clip_pretrained or made.get("clip_pretrained") or (None if ":" in name else "openai")
    if download := clip.missing_download(name, pretrained):
        cli.check_reachable(download)
    runs.seed_everything(args.seed)
    encoder = clip.load(name, pretrained, made.get("resize", "model"))
    student, teacher = f"the student ({name}, {pretrained})", f"the teacher ({reader.path})"
    same: dict[str, Any] = {
        key: made[key] for key in ("clip_model", "quick_gelu", "weights_sha256", "embed_dim") if key in made
    }
    cure = "give the --clip-model-name and --clip-pretrained that extract_embeddings.py had"
    cli.check_same({key: encoder.config[key] for key in same}, same, student, teacher, cure)
    cli.check_same({"width": encoder.config["embed_dim"]}, {"width": reader.dim}, student, teacher, cure)
    num_classes = len(reader.labels(reader.keys[0]))
    model = MoCLIP(encoder.visual, reader.dim, num_classes, args.residual_alpha)
    if args.freeze_encoder:
        model.visual_encoder.requires_grad_(False)
    config = {
        "clip": encoder.config,
        "alpha": args.residual_alpha,
        "num_classes": num_classes,
        "sequence_length": args.sequence_length,
        "teacher": same | ({"sampling": made["sampling"]} if "sampling" in made else {}),
        "flow": flow_settings,
    }
    return config, model, encoder.preprocess


if __name__ == "__main__":
    cli.run(main)
