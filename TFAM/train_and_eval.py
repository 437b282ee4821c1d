"""Train TFAM, the Transformer that fuses RGB and motion embeddings, or evaluate a checkpoint of it.

    python -m TFAM.train_and_eval --config cross_attention
    python -m TFAM.train_and_eval --config rgb --seed 49 50 51 --set training.epochs=1
    python -m TFAM.train_and_eval --config rgb --shots 1 5 10 25
    python -m TFAM.train_and_eval --config cross_attention --init my_model
    python -m TFAM.train_and_eval --evaluate checkpoints/TFAM/rgb/seed49/best_model.pth
Reads dataset/embeddings/; writes checkpoints/TFAM/<config>/seed<k>/ and logs/TFAM/<config>/seed<k>/. The same command,
or --resume RUN_FOLDER, resumes from last.pth; a run that has a metrics.json is finished and is not repeated.
On several GPUs, or CPUs: torchrun --nproc-per-node 4 -m TFAM.train_and_eval ...; training.batch_size is per process.
The setting data.protocol (see --set) says on which clips the best epoch is selected. held_out, the default if there is
an annotations/selection.txt: the clips in that file, which are then not trained on; the val split is used only after
the last epoch. published: the val split.
--shots N trains on N clips of each class, the same clips for every config and seed, and writes seed<k>_shots<N>/. The
other splits stay whole. Of several seeds or N there is one run each, one after the other.
--init starts from the weights of a trained model, for the same classes or for others: my_model may be a model folder of
export_model.py, hf-hub:OWNER/NAME, or a run folder. The embeddings have to be of its encoder and its student:
extract_embeddings.py --clip-model-name local-dir:my_model and inference.py --checkpoint-dir my_model compute them.
--evaluate writes predictions.csv and metrics.json of the val split to
TFAM/results/evaluate/<config>-seed<k>-<checkpoint>/."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimoclip import cli
from vimoclip.errors import UserError

if TYPE_CHECKING:
    from TFAM.initial_weights import InitialWeights
    from TFAM.probe_fit import LinearProbeFit
    from TFAM.trainer import FusionTrainer
    from vimoclip.runtime.distributed import ProcessGroup

SETTINGS_HINT = "use the same settings, --overwrite to train from scratch, or a config of another name"


def build_parser(description: str | None = __doc__) -> cli.Parser:
    parser = cli.Parser(description=description)
    parser.add_argument(
        "--config",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME_OR_FILE",
        help="variant of TFAM/configs/variants.yaml, or YAML file with the differences from TFAM/configs/default.yaml; "
        "the first one names the run, later ones override earlier ones",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings that override the config, like training.epochs=1 model.fusion=rgb",
    )
    parser.add_argument(
        "--init",
        metavar="MODEL",
        help="start from the weights of a trained model: a model folder of export_model.py, hf-hub:OWNER/NAME, a run "
        "folder or a checkpoint; classes of other names start from random weights in the last layer; the section model "
        "of the settings is that of the trained model",
    )
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument(
        "--evaluate",
        type=Path,
        metavar="CHECKPOINT",
        help="evaluate a checkpoint of this script or of the paper's code, without training",
    )
    modes.add_argument("--resume", type=Path, metavar="RUN_FOLDER", help="resume this run with its config")
    parser.add_argument(
        "--shots",
        type=cli.positive_int,
        nargs="+",
        action="extend",
        default=[],
        metavar="N",
        help="few-shot: train on N clips of each class, drawn alike for all configs and seeds (data.shots); of several "
        "N one run each; default: all training clips",
    )
    parser.add_argument(
        "--checkpoints-dir", type=Path, default=Path("checkpoints"), help="folder that contains TFAM/<config>/seed<k>/"
    )
    parser.add_argument("--logs-dir", type=Path, default=Path("logs"), help="folder of TensorBoard's event files")
    parser.add_argument(
        "--results-dir", type=Path, default=Path("TFAM/results"), help="folder of the results of --evaluate"
    )
    cli.add_checkpoint_arguments(parser)
    cli.add_dataset_arguments(parser)
    cli.add_compute_arguments(parser, several_seeds=True)
    cli.add_run_arguments(parser, limit="use only the first N videos of each split")
    cli.add_report_argument(parser)
    return parser


def main(argv: list[str] | None = None) -> Any:
    """Return the run's folder as a Path, of several runs that of the last one; with --evaluate the content of
    metrics.json."""
    return run(build_parser().parse_args(argv))


def run(args: argparse.Namespace) -> Any:
    """Return the result of `main`. Raises UserError, TrainingError."""
    check_run_flags(args)
    if args.evaluate:
        from TFAM.evaluation import evaluate_checkpoint
        from vimoclip.runtime import distributed

        with distributed.init_process_group(args.device) as group:
            return evaluate_checkpoint(args, group)
    return train_each(args)


def check_run_flags(args: argparse.Namespace) -> None:
    """Raise UserError for flags that exclude each other."""
    if args.evaluate and args.init:
        raise UserError("--init and --evaluate exclude each other", "give --evaluate the checkpoint alone")
    for flag in ("evaluate", "resume"):
        if getattr(args, flag, None) and (args.shots or len(args.seed) > 1):
            several = "--shots" if args.shots else "several seeds"
            raise UserError(f"{several} and --{flag} exclude each other", "use one of them")


def train_each(args: argparse.Namespace) -> Path:
    """Train one run for each of `args.seed` and `args.shots`, by default one of all clips; write their common report.

    Returns the folder of the last run. Raises UserError, TrainingError."""
    seeds: list[list[int]] = [[seed] for seed in dict.fromkeys(args.seed)] or [[]]
    settings: list[list[str]] = [[f"data.shots={shots}"] for shots in dict.fromkeys(args.shots)] or [[]]
    runs = [
        train(argparse.Namespace(**vars(args) | {"seed": seed, "set": [*args.set, *more]}))
        for seed in seeds
        for more in settings
    ]
    total, *others = (report for _, report in runs)
    estimates = [report.estimate for _, report in runs if report.estimate]
    for report in others:
        total.merge(report)
    if others and estimates:
        total.estimate = cli.add_estimates(estimates)
        print(f"all {len(runs)} runs: {total.estimate}", flush=True)
    total.write(args.report)
    return runs[-1][0]


def run_name(config: dict[str, Any]) -> str:
    """Return the name of the run's folder in that of its config: seed49, or seed49_shots5 of a few-shot run."""
    shots = config["data"]["shots"]
    return f"seed{config['training']['seed']}" + (f"_shots{shots}" if shots else "")


def train(args: argparse.Namespace) -> tuple[Path, cli.RunReport]:
    """Train one run, new or resumed; return its folder and report. Raises UserError, TrainingError."""
    from TFAM.config import check_unchanged, flatten, from_arguments
    from TFAM.initial_weights import InitialWeights
    from TFAM.packing import Fusion
    from vimoclip.annotations import split_protocol
    from vimoclip.io import yaml_json
    from vimoclip.runtime import distributed

    if args.resume and args.overwrite:
        raise UserError("--resume and --overwrite exclude each other", "use one of them")
    if args.resume and not (args.resume / "config.yaml").is_file():
        raise UserError("has no config.yaml", "give --resume a run folder of TFAM.train_and_eval", path=args.resume)
    if not (args.config or args.resume):
        raise UserError("no --config", "give a variant of TFAM/configs/variants.yaml, like --config cross_attention")
    paths = args.config or [args.resume / "config.yaml"]
    initial = InitialWeights(args.init) if args.init else None
    config = initial.configure(args, paths) if initial else from_arguments(args, paths)
    folder = args.resume or args.checkpoints_dir / "TFAM" / args.config[0].stem / run_name(config)
    if initial and args.overwrite:
        initial.check_not_overwritten(folder)
    logs_dir = args.logs_dir / "TFAM" / folder.absolute().parent.name / folder.absolute().name
    if (folder / "config.yaml").is_file() and not args.overwrite:
        saved_config = yaml_json.read_yaml(folder / "config.yaml")
        data = config["data"]
        data["protocol"] = data["protocol"] or flatten(saved_config).get("data.protocol")  # of the existing run
        check_unchanged(saved_config, config, folder, SETTINGS_HINT)
        if (folder / "metrics.json").is_file():
            check_finished_inputs(folder, config)
            print(f"{folder}: finished already (protocol {data['protocol']}); --overwrite repeats it")
            left_out = left_out_videos(folder)
            pending = 0 if args.dry_run else None
            is_linear_probe = Fusion(config["model"]["fusion"]).is_linear_probe
            epochs, unit = (1, "run") if is_linear_probe else (config["training"]["epochs"], "epoch")
            return folder, cli.RunReport([folder], already_done=epochs, skipped=left_out, pending=pending, unit=unit)
    with distributed.init_process_group(args.device) as group:
        data = config["data"]
        data["protocol"] = split_protocol.resolve(data["protocol"], Path(data["annotations_dir"]))
        return folder, _train_in_group(args, config, initial, folder, logs_dir, group)


def left_out_videos(folder: Path) -> dict[str, str]:
    """Return the videos that a finished run excluded from any split, with reasons."""
    from TFAM.run_groups import read_metrics

    metrics = read_metrics(folder / "metrics.json")
    prefixes = ("train_", "selection_", "")
    return {
        video: reason for prefix in prefixes for video, reason in metrics.get(f"{prefix}left_out_videos", {}).items()
    }


def check_finished_inputs(folder: Path, config: dict[str, Any]) -> None:
    """Raise UserError if existing embeddings or selection.txt are not those of a finished run."""
    from TFAM.data import selection_digest
    from TFAM.run_groups import read_metrics
    from vimoclip import annotations
    from vimoclip.store import EmbeddingReader

    data, name = config["data"], "the content's SHA-256"
    for key, expected in read_metrics(folder / "metrics.json").get("inputs_sha256", {}).items():
        is_selection = key == "selection"
        embeddings_path = Path(data["rgb_train_h5" if is_selection else key])
        path = Path(data["annotations_dir"]) / annotations.SELECTION_FILE if is_selection else embeddings_path
        if expected and path.is_file() and embeddings_path.is_file():
            reader = EmbeddingReader(embeddings_path)
            current = selection_digest(reader, data) if is_selection else reader.attributes.get("content_sha256")
            cli.check_settings_match({name: expected}, {name: current}, str(folder), str(path), SETTINGS_HINT)


def _train_in_group(
    args: argparse.Namespace,
    config: dict[str, Any],
    initial: "InitialWeights | None",
    folder: Path,
    logs_dir: Path,
    group: "ProcessGroup",
) -> cli.RunReport:
    """Train and evaluate as one process of the group. Raises UserError, TrainingError."""
    from TFAM.data import evaluation_file, open_training_splits, write_training_clips
    from TFAM.evaluation import evaluate_best_checkpoint, run_metadata, warn_about_evaluation_labels
    from TFAM.initial_weights import resumed_init
    from TFAM.packing import Fusion
    from TFAM.students import warn_about_student
    from TFAM.trainer import FusionTrainer
    from vimoclip.annotations import split_protocol
    from vimoclip.runtime import defaults
    from vimoclip.runtime.device import select_device, select_precision
    from vimoclip.training import run_folder
    from vimoclip.training.trainer import RunOptions

    device = select_device(args.device, group.local_rank)
    precision = group.broadcast(select_precision(args.precision, device))
    if initial:
        initial.require_embeddings(config["data"])
    splits, motion = open_training_splits(config)
    evaluation_path = evaluation_file(config["data"])
    if config["data"]["protocol"] != split_protocol.PUBLISHED and not evaluation_path.is_file():
        print(f"note: {evaluation_path} does not exist yet; it is needed after the last epoch", flush=True)
    warn_about_student(config, splits["train"].rgb, motion)
    num_workers = defaults.loader_processes(args.num_workers, device)
    run = RunOptions(folder, logs_dir, device, precision, num_workers, args.save_every_minutes, group)
    metadata = run_metadata(config, splits["train"].rgb, motion)
    if initial:
        initial.check_inputs(metadata["config"])
        metadata["init"] = initial.describe(metadata["class_names"])
    elif init := resumed_init(config, folder, args.overwrite):
        metadata["init"] = init
    warn_about_evaluation_labels(config["data"], len(metadata["class_names"]))
    trainer: FusionTrainer | LinearProbeFit
    if Fusion(config["model"]["fusion"]).is_linear_probe:
        from TFAM import probe_fit  # scikit-learn takes a second to import

        trainer = probe_fit.LinearProbeFit(metadata, splits, run)
    else:
        trainer = FusionTrainer(metadata, splits, run)
    if initial and isinstance(trainer, FusionTrainer):
        initial.copy_to(trainer.state.model, metadata["class_names"])
    if args.dry_run:
        left_out = {video: reason for dataset in splits.values() for video, reason in dataset.excluded.items()}
        if isinstance(trainer, FusionTrainer):
            return print_dry_run(trainer, args.overwrite, left_out)
        return trainer.dry_run(left_out)
    with run_folder.open_run(folder, logs_dir, "config.yaml", config, args.overwrite, group):
        if group.is_main and config["data"]["shots"]:
            write_training_clips(folder, splits["train"])
        print(f"{folder}: on {device} in {precision}, {num_workers} loader workers", flush=True)
        trainer.train()
        group.barrier()  # rank 0 has written best_model.pth
        evaluate_best_checkpoint(config, splits, motion, run, trainer.seconds, trainer.last_step)
        return trainer.report(left_out_videos(folder) if group.is_main else {})


def print_dry_run(trainer: "FusionTrainer", overwrite: bool, left_out: dict[str, str]) -> cli.RunReport:
    """Print the completed epochs and the estimated cost of the remaining ones; write nothing. Raises UserError."""
    from vimoclip.annotations import split_protocol
    from vimoclip.runtime import cost_estimate
    from vimoclip.training import dry_run

    run = trainer.run
    progress = trainer.read_progress(None if overwrite else run.folder)
    num_train, num_monitor = len(trainer.train_set), len(trainer.monitor_set)
    text = dry_run.format_progress(run.folder, progress, trainer.epochs, trainer.unit, num_train, num_monitor)
    if trainer.monitor_split == split_protocol.MONITOR_SPLIT[split_protocol.HELD_OUT]:
        text += " (the model-selection split), plus one evaluation of the evaluation split"
    print(f"{text}; on {run.device} in {run.precision}; nothing was written")
    report = dry_run.plan(progress, trainer.epochs, left_out)
    if report.pending:
        memory_before = cost_estimate.peak_memory()
        estimate = dry_run.estimate_cost(trainer, progress, final_items=num_monitor)
        longest, memory = trainer.longest_clip()
        if run.device.type == "cuda":
            estimate = replace(estimate, gpu_memory_bytes=max(estimate.gpu_memory_bytes, memory))
        else:
            estimate = replace(estimate, memory_bytes=max(estimate.memory_bytes, memory_before + memory))
        report.estimate = estimate
        print(f"{estimate}\n{longest}")
    return report


if __name__ == "__main__":
    cli.run(main)
