"""Train the fusion Transformer on RGB and motion embeddings, or evaluate a checkpoint of it.

    python -m TFAM.train_and_eval --config TFAM/configs/cross_attention.yaml
    python -m TFAM.train_and_eval --config TFAM/configs/rgb.yaml --seed 50 --set training.epochs=1
    python -m TFAM.train_and_eval --evaluate checkpoints/TFAM/rgb/seed49/best_model.pth
Reads dataset/embeddings/; writes checkpoints/TFAM/<config>/seed<k>/ and logs/TFAM/<config>/seed<k>/. The same command,
or --resume RUN_FOLDER, goes on where last.pth was written; a run that has metrics.json is finished and isn't repeated.
On several GPUs, or CPUs: torchrun --nproc-per-node 4 -m TFAM.train_and_eval ..., training.batch_size is each process's.
Which clips the epoch is chosen on is data.protocol: held_out, the default where the annotations have a selection.txt,
keeps its clips out of training, and reads the val file when all epochs are done; published chooses on the val clips.
--evaluate writes TFAM/results/evaluate/<config>-seed<k>-<checkpoint>/{predictions.csv,metrics.json} on the val file."""

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimoclip import cli
from vimoclip.errors import UserError

if TYPE_CHECKING:
    from vimoclip.runtime.distributed import Group

KEEP = "give the same, --overwrite to start afresh, or a copy of the config under another name"


def build_parser() -> cli.Parser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "--config",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="YAML with what differs from TFAM/configs/default.yaml; the first names the run, further ones win over it",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings that win over the config's, like training.epochs=1 model.fusion=rgb",
    )
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--evaluate", type=Path, metavar="CHECKPOINT", help="no training; ours, or a published one")
    modes.add_argument("--resume", type=Path, metavar="RUN_FOLDER", help="go on with this run; needs no --config")
    parser.add_argument("--checkpoints-dir", type=Path, default=Path("checkpoints"), help="gets TFAM/<config>/seed<k>/")
    parser.add_argument("--logs-dir", type=Path, default=Path("logs"), help="gets TFAM/<config>/seed<k>/")
    parser.add_argument(
        "--results-dir", type=Path, default=Path("TFAM/results"), help="gets evaluate/... of --evaluate"
    )
    cli.add_saving(parser)
    cli.add_dataset(parser)
    cli.add_compute(parser)
    cli.add_run_control(parser, limit="only the first N videos of each split")
    parser.set_defaults(seed=None)  # the config's
    return parser


def main(argv: list[str] | None = None) -> Any:
    """The run's folder as Path; with --evaluate the metrics, as metrics.json has them."""
    args = build_parser().parse_args(argv)
    if args.evaluate:
        from TFAM.evaluation import evaluate_checkpoint

        return evaluate_checkpoint(args)
    return train(args)


def train(args: argparse.Namespace) -> Path:
    """One run, from its beginning or from where it stopped. Raises UserError, TrainingError."""
    from TFAM.config import check_unchanged, flatten, from_arguments
    from vimoclip.annotations import split_protocol
    from vimoclip.io import yaml_json
    from vimoclip.runtime import distributed

    if args.resume and args.overwrite:
        raise UserError("--resume goes on with a run, --overwrite starts it afresh", "give one of them")
    if args.resume and not (args.resume / "config.yaml").is_file():
        raise UserError(f"{args.resume}: holds no config.yaml", "name the folder of a run that was begun")
    if not (args.config or args.resume):
        raise UserError("no --config", "give one of TFAM/configs/, like --config TFAM/configs/cross_attention.yaml")
    config = from_arguments(args, args.config or [args.resume / "config.yaml"])
    seed = f"seed{config['training']['seed']}"
    folder = args.resume or args.checkpoints_dir / "TFAM" / args.config[0].stem / seed
    logs = args.logs_dir / "TFAM" / folder.absolute().parent.name / folder.absolute().name
    if (folder / "config.yaml").is_file() and not args.overwrite:
        begun = yaml_json.read_yaml(folder / "config.yaml")
        data = config["data"]
        # a run that was begun goes on under its own; one from before there were protocols is published
        data["protocol"] = data["protocol"] or flatten(begun).get("data.protocol") or split_protocol.PUBLISHED
        check_unchanged(begun, config, folder, KEEP)
        if (folder / "metrics.json").is_file():
            check_inputs_of_finished(folder, config)
            words = f"protocol {data['protocol']}; metrics.json is there"
            print(f"{folder}: finished already ({words}); --overwrite repeats it")
            return folder
    with distributed.join() as group:
        data = config["data"]
        data["protocol"] = split_protocol.settle(data["protocol"], Path(data["annotations_dir"]))
        _run(args, config, folder, logs, group)
    return folder


def check_inputs_of_finished(folder: Path, config: dict[str, Any]) -> None:
    """Raise UserError where a finished run had other embeddings, or selection clips, than the files that are there."""
    from TFAM.data import selection_digest
    from TFAM.evaluation import INPUTS
    from TFAM.table import read_metrics
    from vimoclip import annotations
    from vimoclip.store import Reader

    learnt = read_metrics(folder / "metrics.json").get("inputs_sha256", {})
    for key in INPUTS:
        path = Path(config["data"][key])
        if learnt.get(key) and path.is_file():  # a file that the run's protocol doesn't read is not among them
            now = {"the content's SHA-256": Reader(path).attributes.get("content_sha256")}
            cli.check_same({"the content's SHA-256": learnt[key]}, now, str(folder), str(path), KEEP)
    drawn = Path(config["data"]["annotations_dir"]) / annotations.SELECTION
    train = Path(config["data"]["rgb_train_h5"])
    if learnt.get("selection") and drawn.is_file() and train.is_file():
        now = {"the selection clips' hash": selection_digest(Reader(train), config["data"])}
        cli.check_same({"the selection clips' hash": learnt["selection"]}, now, str(folder), str(drawn), KEEP)


def _run(args: argparse.Namespace, config: dict[str, Any], folder: Path, logs: Path, group: "Group") -> None:
    from TFAM.data import open_training, reported_file
    from TFAM.dry_run import say_what_to_do
    from TFAM.evaluation import about_run
    from TFAM.final_evaluation import finish, warn_of_student
    from TFAM.trainer import fit
    from vimoclip.annotations import split_protocol
    from vimoclip.io import lock, yaml_json
    from vimoclip.runtime.device import pick_device, pick_precision
    from vimoclip.training import checkpoint, run_folder

    device = pick_device(args.device, group.local_rank)
    precision = pick_precision(args.precision, device)
    splits, motion = open_training(config)
    reported = reported_file(config["data"])
    if config["data"]["protocol"] != split_protocol.PUBLISHED and not reported.is_file():
        print(f"note: {reported} is not there yet; it is needed once the last epoch is done", flush=True)
    warn_of_student(config, splits["train"].rgb, motion)
    about = about_run(config, splits["train"].rgb, motion)
    if args.dry_run:
        say_what_to_do(about, splits, folder, device, precision, args.overwrite, group)
        return
    with lock.only_process(folder) if group.main else nullcontext():
        if group.main:
            if args.overwrite:
                run_folder.remove(folder, logs)
                cli.begun_afresh()
            folder.mkdir(parents=True, exist_ok=True)
            yaml_json.write_yaml(folder / "config.yaml", config)
        group.barrier()  # from here on the folder is as the run finds it
        due = checkpoint.Every(60 * args.save_every_minutes)
        workers = cli.usable_workers(args.num_workers)
        seconds = fit(about, splits, folder, logs, device, precision, workers, due, group)
        group.barrier()  # best_model.pth is whole
        finish(config, splits, motion, folder, device, precision, workers, group, seconds, logs)


if __name__ == "__main__":
    cli.run(main)
