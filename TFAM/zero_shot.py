"""The baseline that learns nothing: CLIP names the actions by their words, from the RGB embeddings that are there.

    python -m TFAM.zero_shot
Reads the val file (the test file, where there is one) and writes checkpoints/TFAM/zero_shot/seed0/, which the table
has as a row and evaluate.py reads. The text tower is that of the CLIP which made the embeddings."""

import argparse
from pathlib import Path
from typing import Any

from vimoclip import cli
from vimoclip.errors import UserError

CONFIG = "zero_shot"


def build_parser() -> cli.Parser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--rgb-h5-path", type=Path, default=None, help="default: that of the clips that are reported")
    parser.add_argument("--template", nargs="+", default=None, metavar="TEXT", help="prompts, with {} for the label")
    parser.add_argument("--checkpoints-dir", type=Path, default=Path("checkpoints"), help="gets TFAM/zero_shot/seed0/")
    cli.add_clip(parser, None)
    cli.add_dataset(parser)
    return parser


def main(argv: list[str] | None = None) -> Path:
    """The run's folder. Raises UserError."""
    args = build_parser().parse_args(argv)
    from vimoclip import store
    from vimoclip.annotations.split_protocol import ZERO_SHOT, reported_split
    from vimoclip.io import yaml_json
    from vimoclip.runtime import versions

    split = reported_split(args.dataset_dir / "annotations")
    path = args.rgb_h5_path or store.rgb_path(args.dataset_dir / "embeddings", args.dataset_name, split)
    reader = store.Reader(cli.need_file(path, "run extract_embeddings.py, or name one with --rgb-h5-path"), "rgb")
    if not (reader.known and reader.keys):
        raise UserError("doesn't say what made it, or holds no video", "run extract_embeddings.py", path=path)
    split = reader.attributes.get("type", split)  # of a file that is named
    words = text_of(args, reader)
    result = {
        **score(reader, words, args.checkpoints_dir / "TFAM" / CONFIG / "seed0"),
        "config": CONFIG,
        "fusion": CONFIG,
        "protocol": ZERO_SHOT,
        "reported_split": split,
        "epoch_chosen_by": "nothing: no clip was learnt from",
        "seed": 0,
        "settings": {"template": args.template} if args.template else {},
        "inputs_sha256": {f"rgb_{split}_h5": reader.attributes.get("content_sha256")},
        "versions": versions.versions(),
    }
    folder = args.checkpoints_dir / "TFAM" / CONFIG / "seed0"
    yaml_json.write_yaml(folder / "config.yaml", {"data": {f"rgb_{split}_h5": str(path)}})
    yaml_json.write_json(folder / "metrics.json", result)
    print(f"map_macro {result['map_macro']:.4f}\nmap_micro {result['map_micro']:.4f}\nwrote {folder}", flush=True)
    return folder


def text_of(args: argparse.Namespace, reader: Any) -> Any:
    """The class names by the text tower of what made a file of embeddings. Raises UserError for another one."""
    from vimoclip.check.compatibility import class_names
    from vimoclip.prediction.load_pipeline import check_teacher, load_labels, teacher_name

    made = reader.attributes
    name, pretrained = teacher_name(made, str(reader.path), args.clip_model_name, args.clip_pretrained)
    encoder, words = load_labels(name, pretrained, class_names(reader), args.template, made.get("resize", "model"))
    check_teacher(made, str(reader.path), encoder)
    return words


def score(reader: Any, words: Any, folder: Path) -> dict[str, Any]:
    """predictions.csv of all videos of a file, and what it is worth."""
    import numpy as np
    import torch

    from vimoclip import metrics
    from vimoclip.check.compatibility import class_names
    from vimoclip.io import predictions_csv

    folder.mkdir(parents=True, exist_ok=True)
    scores = torch.stack([words.scores(torch.from_numpy(reader.embeddings(video))) for video in reader.keys])
    labels = torch.from_numpy(np.stack([reader.labels(video) for video in reader.keys]))
    predictions_csv.write(folder / "predictions.csv", reader.keys, scores, class_names(reader))
    return {
        "map_macro": metrics.map_macro(scores, labels),
        "map_micro": metrics.map_micro(scores, labels),
        "classes_with_a_positive": int((labels > 0).any(0).sum()),
        "num_videos": len(reader.keys),
        "left_out": 0,
        "left_out_videos": {},
    }


if __name__ == "__main__":
    cli.run(main)
