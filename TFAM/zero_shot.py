"""Zero-shot baseline: score each clip by the similarity of its RGB embeddings to embeddings of the class names.

    python -m TFAM.zero_shot
Reads the RGB embeddings of the evaluation split and writes the run folder checkpoints/TFAM/zero_shot/seed0/, which
TFAM.table and evaluate.py read. The text encoder is that of the CLIP model that made the embeddings."""

import argparse
from pathlib import Path
from typing import Any

from vimoclip import cli
from vimoclip.errors import UserError

CONFIG_NAME = "zero_shot"


def build_parser() -> cli.Parser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "--rgb-h5-path", type=Path, default=None, help="RGB embeddings; default: those of the evaluation split"
    )
    parser.add_argument(
        "--template", nargs="+", default=None, metavar="TEXT", help="prompts, in which {} is replaced by the class name"
    )
    parser.add_argument(
        "--checkpoints-dir", type=Path, default=Path("checkpoints"), help="folder that contains TFAM/zero_shot/seed0/"
    )
    cli.add_clip_arguments(parser, None)
    cli.add_dataset_arguments(parser)
    cli.add_report_argument(parser)
    return parser


def main(argv: list[str] | None = None) -> Path:
    """Write the run folder and return it. Raises UserError."""
    args = build_parser().parse_args(argv)
    from vimoclip import store
    from vimoclip.annotations.split_protocol import ZERO_SHOT, evaluation_split
    from vimoclip.io import yaml_json
    from vimoclip.runtime import versions

    split = evaluation_split(args.dataset_dir / "annotations")
    path = args.rgb_h5_path or store.rgb_embeddings_path(args.dataset_dir / "embeddings", args.dataset_name, split)
    reader = store.EmbeddingReader(cli.require_file(path, "run extract_embeddings.py, or set --rgb-h5-path"), "rgb")
    if not (reader.has_schema and reader.keys):
        raise UserError("has no metadata or no videos", "run extract_embeddings.py", path=path)
    split = reader.attributes.get("type", split)  # --rgb-h5-path may name another split
    folder = args.checkpoints_dir / "TFAM" / CONFIG_NAME / "seed0"
    metrics = {
        **score_videos(reader, load_classifier(args, reader), folder / "predictions.csv"),
        "config": CONFIG_NAME,
        "fusion": CONFIG_NAME,
        "protocol": ZERO_SHOT,
        "reported_split": split,
        "epoch_chosen_by": "nothing, since there is no training",
        "seed": 0,
        "settings": {"template": args.template} if args.template else {},
        "inputs_sha256": {f"rgb_{split}_h5": reader.attributes.get("content_sha256")},
        "versions": versions.package_versions(),
    }
    yaml_json.write_yaml(folder / "config.yaml", {"data": {f"rgb_{split}_h5": str(path)}})
    yaml_json.write_json(folder / "metrics.json", metrics)
    print(f"map_macro {metrics['map_macro']:.4f}\nmap_micro {metrics['map_micro']:.4f}\nwrote {folder}", flush=True)
    cli.RunReport([folder], done=metrics["num_videos"]).write(args.report)
    return folder


def load_classifier(args: argparse.Namespace, reader: Any) -> Any:
    """Return a zero-shot classifier of the file's classes by the CLIP that made its embeddings. Raises UserError."""
    from vimoclip.check.compatibility import class_names
    from vimoclip.prediction.load_pipeline import check_teacher, load_zero_shot_classifier, resolve_teacher

    attributes = reader.attributes
    name, pretrained = resolve_teacher(attributes, reader.path, args.clip_model_name, args.clip_pretrained)
    encoder, classifier = load_zero_shot_classifier(
        name, pretrained, class_names(reader), args.template, attributes.get("resize", "model")
    )
    check_teacher(attributes, reader.path, encoder)
    return classifier


def score_videos(reader: Any, classifier: Any, path: Path) -> dict[str, Any]:
    """Score all videos of a file, write the predictions to `path`, and return the metrics."""
    import numpy as np
    import torch

    from vimoclip.check.compatibility import class_names
    from vimoclip.io import predictions_csv
    from vimoclip.metrics import map_macro, map_micro

    path.parent.mkdir(parents=True, exist_ok=True)
    scores = torch.stack([classifier.score(torch.from_numpy(reader.embeddings(video))) for video in reader.keys])
    labels = torch.from_numpy(np.stack([reader.labels(video) for video in reader.keys]))
    predictions_csv.write(path, reader.keys, scores, class_names(reader))
    return {
        "map_macro": map_macro(scores, labels),
        "map_micro": map_micro(scores, labels),
        "classes_with_a_positive": int((labels > 0).any(0).sum()),
        "num_videos": len(reader.keys),
        "left_out": 0,
        "left_out_videos": {},
    }


if __name__ == "__main__":
    cli.run(main)
