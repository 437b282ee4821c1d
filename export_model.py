"""Export a trained model into one folder that predict.py needs alone, to pass it on or to publish it.

    python export_model.py checkpoints/TFAM/cross_attention/seed49 --student checkpoints/<run> -o my_model/
    python predict.py video.mp4 --model my_model

Reads a finished run folder of TFAM.train_and_eval or TFAM.probe, the student and the CLIP encoder of its training.
Writes config.json (classes, thresholds, calibration, sampling of frames, flow, window, encoder, versions),
model.safetensors (the weights of fusion, student and image encoder), README.md, a model card that is to be completed by
you, and the licences of what the folder contains. It names no path of this machine. The scores of predict.py are those
of the run, to the bit on the same machine.

The folder can be uploaded to the Hugging Face Hub as it is; predict.py --model hf-hub:OWNER/NAME downloads it. Training
can start from it, with other classes too: python -m TFAM.train_and_eval --config cross_attention --init my_model"""

import argparse
from pathlib import Path

from vimoclip import cli
from vimoclip.errors import UserError


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("run", type=Path, help="finished run folder, such as checkpoints/TFAM/<config>/seed<k>")
    parser.add_argument("-o", "--output-dir", type=Path, required=True, help="folder of the exported model")
    parser.add_argument("--student", type=Path, help="run folder of train.py; needed if the run uses motion")
    parser.add_argument(
        "--without-encoder",
        action="store_true",
        help="leave out the image encoder of the RGB frames, which predict.py then loads or downloads by its name",
    )
    cli.add_window_arguments(parser)
    cli.add_clip_arguments(parser, None)
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an exported model, or an interrupted export, in the folder"
    )
    cli.add_report_argument(parser)
    return parser


def main(argv: list[str] | None = None) -> cli.RunReport:
    args = build_parser().parse_args(argv)
    check_folders(args)
    from TFAM import export, model_card
    from vimoclip import model_folder

    document, parts = export.collect(args)
    texts = model_card.file_texts(args.output_dir, args.run, document, parts, args.clip_model_name)
    model_folder.write_folder(args.output_dir, document, parts, texts)
    size = (args.output_dir / model_folder.WEIGHTS_FILE).stat().st_size
    names, count = ", ".join(sorted(parts)), len(document["classes"])
    classes = "one class" if count == 1 else f"{count} classes"
    print(f"{args.output_dir}: {names} with {classes}, {cli.format_bytes(size)}", flush=True)
    print(f"{args.output_dir / model_card.CARD}: complete the lines with TODO before you pass the model on", flush=True)
    report = cli.RunReport([args.output_dir], done=1, unit="model")
    report.write(args.report)
    return report


def check_folders(args: argparse.Namespace) -> None:
    """Raise UserError unless the run is finished, and the output folder is new or is to be replaced."""
    for name in ("best_model.pth", "metrics.json"):
        if not (args.run / name).is_file():
            hint = "give a finished run folder of TFAM.train_and_eval or TFAM.probe"
            raise UserError(f"has no {name}", hint, path=args.run)
    if args.student and not args.student.exists():
        raise UserError("there is no such run", "name the run folder of train.py: --student", path=args.student)
    output = cli.require_creatable_folder(args.output_dir, "--output-dir")
    from vimoclip import model_folder

    if output.is_dir() and any(output.iterdir()):
        is_unfinished = model_folder.is_unfinished(output)
        if not (is_unfinished or model_folder.is_model_folder(output)):
            raise UserError("is not empty and holds no exported model", "name a new folder with -o", path=output)
        if not args.overwrite:
            problem = "holds an interrupted export" if is_unfinished else "holds an exported model"
            raise UserError(problem, "use --overwrite, or name a new folder with -o", path=output)


if __name__ == "__main__":
    cli.run(main)
