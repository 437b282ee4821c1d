"""Check that single frames of the demo do not reveal the actions that are defined by motion.

    python -m demo.check_frames
Fine-tunes a copy of the demo's teacher to recognise a clip's actions from one frame, with frames of all clips in random
order. The score of an evaluation clip is the mean over its frames. Prints the macro AP of each group of actions and its
chance level (permuted labels), and writes them to TFAM/results/demo/frames.json."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo import add_dataset_arguments
from vimoclip import cli
from vimoclip.cli import progress

if TYPE_CHECKING:
    import torch


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--clip-model-name", default="local-dir:checkpoints/demo/teacher", help="model to fine-tune")
    parser.add_argument("--clip-pretrained", default=None, help="tag or file of its weights")
    parser.add_argument("--freeze-encoder", action="store_true", help="train only the head, for large encoders")
    parser.add_argument("--frames", type=cli.positive_int, default=4, help="frames per clip, evenly spaced")
    parser.add_argument("--epochs", type=cli.positive_int, default=6, help="passes over all frames")
    add_dataset_arguments(parser)
    parser.add_argument("--output-dir", type=Path, default=Path("TFAM/results/demo"), help="folder for frames.json")
    parser.add_argument(
        "--rounds", type=cli.positive_int, default=500, help="permutations of the labels for the chance level"
    )
    parser.add_argument("--seed", type=cli.seed, default=0, help="seed of head, order and permutations")
    return parser


def main(argv: list[str] | None = None) -> Path:
    """Write frames.json, unless it has the same settings already; return its path."""
    args = build_parser().parse_args(argv)
    from demo.report import format_single_frames

    output: Path = args.output_dir / "frames.json"
    settings = {key: str(value) for key, value in vars(args).items() if key != "output_dir"}
    if output.is_file() and json.loads(output.read_text(encoding="utf-8"))["settings"] == settings:
        print(f"{output}: exists already")
    else:
        from vimoclip.io import yaml_json
        from vimoclip.runtime import versions

        results = evaluate_single_frames(args) | {"settings": settings, "versions": versions.package_versions()}
        args.output_dir.mkdir(parents=True, exist_ok=True)
        yaml_json.write_json(output, results)
    print(format_single_frames(output), end="", flush=True)
    return output


def evaluate_single_frames(args: argparse.Namespace) -> dict[str, Any]:
    """Train on frames of the training clips and evaluate on those of the evaluation clips."""
    from demo.report import class_groups
    from vimoclip import annotations, clip
    from vimoclip.runtime import seeding

    data = annotations.load(args.dataset_dir / "annotations", args.dataset_name, ["train", "val"])
    encoder = clip.load_encoder(args.clip_model_name, args.clip_pretrained, "squash")
    images = {split: load_frames(args, list(data.splits[split]), encoder.preprocess) for split in ("train", "val")}
    targets = {split: stack_rows([data.multi_hot(split, video) for video in data.splits[split]]) for split in images}
    seeding.seed_everything(args.seed)
    scores = train_and_score(encoder, images, targets["train"], args)
    return summarize(scores, targets["val"], class_groups(data.classes), args)


def stack_rows(rows: list[Any]) -> "torch.Tensor":
    import numpy as np
    import torch

    return torch.from_numpy(np.stack(rows))


def load_frames(args: argparse.Namespace, names: list[str], preprocess: Any) -> "torch.Tensor":
    """Return (clips, frames, 3, S, S) uint8: evenly spaced frames of each clip."""
    import torch

    from vimoclip.video import read_evenly_spaced

    clips = []
    for name in progress(names, len(names), "clip", "reading"):
        clips.append(preprocess(read_evenly_spaced(args.dataset_dir / "videos" / name, args.frames)))
    return torch.stack(clips)


def train_and_score(
    encoder: Any, images: dict[str, Any], targets: "torch.Tensor", args: argparse.Namespace
) -> "torch.Tensor":
    """Return (val clips, C) logits of a classifier of single frames, averaged over the frames of each clip."""
    import torch
    import torch.nn.functional as F

    from vimoclip.clip import encode_images
    from vimoclip.runtime.device import select_device

    device = select_device("auto")
    visual = encoder.visual.to(device).requires_grad_(not args.freeze_encoder)
    head = torch.nn.Linear(encoder.config["embed_dim"], targets.shape[1]).to(device)
    parameters = [p for p in [*visual.parameters(), *head.parameters()] if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2 if args.freeze_encoder else 3e-4, weight_decay=0.05)

    def features(frames: torch.Tensor) -> torch.Tensor:
        if frames.dtype != torch.uint8:
            return frames  # embeddings of a frozen encoder
        return encode_images(visual, encoder.preprocess.normalize(frames.to(device)))

    train, val = (images[split].flatten(0, 1) for split in ("train", "val"))
    visual.eval()
    if args.freeze_encoder:
        with torch.no_grad():
            train, val = (torch.cat([features(batch) for batch in frames.split(64)]) for frames in (train, val))
    labels = targets.repeat_interleave(args.frames, 0).to(device)
    visual.train(not args.freeze_encoder)
    for _ in progress(range(args.epochs), args.epochs, "epoch", "single frames"):
        for rows in torch.randperm(len(train)).split(32):
            loss = F.binary_cross_entropy_with_logits(head(features(train[rows])), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    visual.eval()
    with torch.inference_mode():
        logits = torch.cat([head(features(batch)) for batch in val.split(64)])
    return logits.reshape(len(images["val"]), args.frames, -1).mean(1).cpu()


def summarize(
    scores: "torch.Tensor", targets: "torch.Tensor", groups: dict[str, list[int]], args: argparse.Namespace
) -> dict[str, Any]:
    """Return the macro AP of each group of classes, its chance level and 95 % of the permutations' values."""
    import numpy as np

    from demo.report import permuted_group_maps

    maps, permuted_maps = permuted_group_maps(scores, targets, groups, args.rounds, args.seed)
    macro = {}
    for name in groups:
        values = [permuted_map[f"map_macro_{name}"] for permuted_map in permuted_maps]
        low, high = np.percentile(values, [2.5, 97.5]).tolist()
        macro[name] = {"value": maps[f"map_macro_{name}"], "chance": float(np.mean(values)), "chance_95": [low, high]}
    return {"macro_ap": macro, "clips": len(scores), "permutations": args.rounds}


if __name__ == "__main__":
    cli.run(main)
