"""Can single frames tell the demo's actions? Those told by motion they must not: else its table would mean nothing.

    python -m demo.check_frames
Trains a copy of the demo's teacher, all of it, to name a clip's actions from one frame, with frames of all clips in
random order; a validation clip's score is the mean over its frames, in which their order plays no part. Prints the
macro AP by what tells an action, beside what permuted labels give, and writes TFAM/results/demo/frames.json."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo import add_dataset
from vimoclip import cli
from vimoclip.cli import progress

if TYPE_CHECKING:
    import torch


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--clip-model-name", default="local-dir:checkpoints/demo/teacher", help="what the copy is of")
    parser.add_argument("--clip-pretrained", default=None, help="tag or file, where the model doesn't hold its own")
    parser.add_argument("--freeze-encoder", action="store_true", help="train a head alone: for large encoders")
    parser.add_argument("--frames", type=cli.positive_int, default=4, help="of each clip, evenly spread")
    parser.add_argument("--epochs", type=cli.positive_int, default=6, help="over all frames")
    add_dataset(parser)
    parser.add_argument("--output-dir", type=Path, default=Path("TFAM/results/demo"), help="gets frames.json")
    parser.add_argument("--rounds", type=cli.positive_int, default=500, help="permutations behind chance")
    parser.add_argument("--seed", type=cli.seed, default=0, help="of the head, the order and the permutations")
    return parser


def main(argv: list[str] | None = None) -> Path:
    """The path of frames.json."""
    args = build_parser().parse_args(argv)
    from demo.report import single_frames

    output: Path = args.output_dir / "frames.json"
    settings = {key: str(value) for key, value in vars(args).items() if key != "output_dir"}
    if output.is_file() and (found := json.loads(output.read_text(encoding="utf-8")))["settings"] == settings:
        print(f"{output}: is there already")
    else:
        from vimoclip.io import yaml_json
        from vimoclip.runtime import versions

        found = measure(args) | {"settings": settings, "versions": versions.versions()}
        args.output_dir.mkdir(parents=True, exist_ok=True)
        yaml_json.write_json(output, found)
    print(single_frames(output), end="", flush=True)
    return output


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Train on the training clips' frames, score the validation clips'."""
    from demo.report import groups
    from vimoclip import annotations, clip
    from vimoclip.runtime import seeding

    data = annotations.load(args.dataset_dir / "annotations", args.dataset_name, ["train", "val"])
    encoder = clip.load(args.clip_model_name, args.clip_pretrained, "squash")
    images = {split: load_frames(args, list(data.splits[split]), encoder.preprocess) for split in ("train", "val")}
    targets = {split: stack([data.multi_hot(split, video) for video in data.splits[split]]) for split in images}
    seeding.seed_everything(args.seed)
    scores = classify(encoder, images, targets["train"], args)
    return summarize(scores, targets["val"], groups(data.classes), args)


def stack(rows: list[Any]) -> "torch.Tensor":
    import numpy as np
    import torch

    return torch.from_numpy(np.stack(rows))


def load_frames(args: argparse.Namespace, names: list[str], preprocess: Any) -> "torch.Tensor":
    """(clips, frames, 3, S, S) uint8."""
    import torch

    from vimoclip.video import read_evenly

    clips = []
    for name in progress(names, len(names), "clip", "reading"):
        clips.append(preprocess(read_evenly(args.dataset_dir / "videos" / name, args.frames)))
    return torch.stack(clips)


def classify(encoder: Any, images: dict[str, Any], targets: "torch.Tensor", args: argparse.Namespace) -> "torch.Tensor":
    """(val clips, C) mean logits of a classifier that saw single frames alone."""
    import torch
    import torch.nn.functional as F

    from vimoclip.clip import embed
    from vimoclip.runtime.device import pick_device

    device = pick_device("auto")
    visual = encoder.visual.to(device).requires_grad_(not args.freeze_encoder)
    head = torch.nn.Linear(encoder.config["embed_dim"], targets.shape[1]).to(device)
    trained = [p for p in [*visual.parameters(), *head.parameters()] if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2 if args.freeze_encoder else 3e-4, weight_decay=0.05)

    def features(frames: torch.Tensor) -> torch.Tensor:
        if frames.dtype != torch.uint8:
            return frames  # embedded already
        return embed(visual, encoder.preprocess.normalize(frames.to(device)))

    train, val = (images[split].flatten(0, 1) for split in ("train", "val"))
    visual.eval()
    if args.freeze_encoder:
        with torch.no_grad():
            train, val = (torch.cat([features(part) for part in frames.split(64)]) for frames in (train, val))
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
        logits = torch.cat([head(features(part)) for part in val.split(64)])
    return logits.reshape(len(images["val"]), args.frames, -1).mean(1).cpu()


def summarize(
    scores: "torch.Tensor", targets: "torch.Tensor", columns: dict[str, list[int]], args: argparse.Namespace
) -> dict[str, Any]:
    import numpy as np

    from demo.report import precisions
    from vimoclip import metrics

    found = precisions(scores, targets, columns)
    drawn = [
        precisions(scores, permuted, columns) for permuted in metrics.permutations(targets, args.rounds, args.seed)
    ]
    macro = {}
    for name in columns:
        values = [one[f"map_macro_{name}"] for one in drawn]
        low, high = np.percentile(values, [2.5, 97.5]).tolist()
        macro[name] = {"value": found[f"map_macro_{name}"], "chance": float(np.mean(values)), "chance_95": [low, high]}
    return {"macro_ap": macro, "clips": len(scores), "permutations": args.rounds}


if __name__ == "__main__":
    cli.run(main)
