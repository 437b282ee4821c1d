"""Train the demo's teacher: a small CLIP of the appearance of drawn animals, without motion.

    python -m demo.make_teacher
Draws still images of scenes that are in no clip, and trains on them and their captions (species, ground, objects) with
CLIP's contrastive loss. Writes checkpoints/demo/teacher/ in open_clip's folder format, for
`--clip-model-name local-dir:checkpoints/demo/teacher`. retrieval.json has the recall on held-out stills."""

import argparse
import json
from pathlib import Path
from typing import Any

from demo import map_in_parallel
from demo.make_clips import SEEDS_PER_DATASET
from vimoclip import cli
from vimoclip.cli import progress

IMAGE_SIZE = 64
MODEL_CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    # 1.0 M parameters
    "vision_cfg": {"image_size": IMAGE_SIZE, "layers": [1, 1, 1, 1], "width": 14, "patch_size": None, "head_width": 32},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
FIRST_STILL_SEED = 2**32 * SEEDS_PER_DATASET  # above the seeds of all clips


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "-o", "--output-dir", type=Path, default=Path("checkpoints/demo/teacher"), help="folder of the model"
    )
    parser.add_argument("--stills", type=cli.positive_int, default=5000, help="training images")
    parser.add_argument("--held-out", type=cli.positive_int, default=500, help="images for retrieval.json")
    parser.add_argument("--steps", type=cli.positive_int, default=300, help="optimizer steps")
    parser.add_argument("--batch-size", type=cli.positive_int, default=64, help="images per step")
    parser.add_argument("--learning-rate", type=cli.positive_float, default=1e-3, help="peak learning rate of AdamW")
    parser.add_argument(
        "--num-workers", type=cli.non_negative_int, default=2, help="drawing processes; 0: draw in this process"
    )
    parser.add_argument("--seed", type=cli.seed, default=0, help="seed of weights and batches")
    return parser


def main(argv: list[str] | None = None) -> Path:
    """Train and save the teacher, unless it exists; return the folder of the model."""
    args = build_parser().parse_args(argv)
    settings = {key: value for key, value in vars(args).items() if key not in ("output_dir", "num_workers")}
    retrieval_path = args.output_dir / "retrieval.json"
    if retrieval_path.is_file():
        retrieval = json.loads(retrieval_path.read_text(encoding="utf-8"))
        cli.check_settings_match(
            settings,
            retrieval["settings"],
            "this command",
            str(retrieval_path),
            "give the same settings or another --output-dir",
        )
        print(f"{args.output_dir}: exists already\n{format_retrieval(retrieval)}")
        return args.output_dir
    import open_clip
    import torch

    from vimoclip.io import yaml_json
    from vimoclip.runtime import seeding, versions

    images, captions = draw_stills(args.stills + args.held_out, cli.limit_workers(args.num_workers))
    seeding.seed_everything(args.seed)
    model = open_clip.CLIP(**MODEL_CONFIG)
    tokens = open_clip.SimpleTokenizer(context_length=MODEL_CONFIG["text_cfg"]["context_length"])(captions)
    print(f"image tower of {sum(p.numel() for p in model.visual.parameters()):,} parameters", flush=True)
    train_clip(model, torch.from_numpy(images[args.held_out :]), tokens[args.held_out :], args)
    retrieval = evaluate_retrieval(model, torch.from_numpy(images[: args.held_out]), tokens[: args.held_out])
    save_open_clip_folder(model, args.output_dir, MODEL_CONFIG, preprocess_config())
    print(format_retrieval(retrieval))
    yaml_json.write_json(retrieval_path, retrieval | {"settings": settings, "versions": versions.package_versions()})
    return args.output_dir


def format_retrieval(retrieval: dict[str, Any]) -> str:
    return (
        f"held-out stills: of {retrieval['captions']} captions the right one comes first for "
        f"{retrieval['recall_at_1']:.0%} and among the first five for {retrieval['recall_at_5']:.0%} "
        f"(chance: {1 / retrieval['captions']:.1%})"
    )


def draw_stills(count: int, workers: int) -> tuple[Any, list[str]]:
    """Return ((count, S, S, 3) uint8, captions) of scenes that are in no clip."""
    import numpy as np

    stills = list(
        map_in_parallel(draw_captioned_still, range(FIRST_STILL_SEED, FIRST_STILL_SEED + count), workers, "still")
    )
    return np.stack([image for image, _ in stills]), [caption for _, caption in stills]


def draw_captioned_still(seed: int) -> tuple[Any, str]:
    from demo.drawing import draw_still
    from demo.scenes import sample_scene
    from vimoclip.clip import Preprocess

    scene = sample_scene(seed)
    prepared = Preprocess(preprocess_config())(draw_still(scene)[None])[0]
    return prepared.permute(1, 2, 0).numpy(), scene.caption()


def preprocess_config() -> dict[str, Any]:
    from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    # squash, since a square crop would cut off animals at the sides
    config = {
        "mean": OPENAI_DATASET_MEAN,
        "std": OPENAI_DATASET_STD,
        "interpolation": "bicubic",
        "resize_mode": "squash",
    }
    return {**config, "image_size": [IMAGE_SIZE, IMAGE_SIZE], "resize": "model", "fill_color": 0}


def train_clip(model: Any, images: Any, tokens: Any, args: argparse.Namespace) -> None:
    import open_clip
    import torch

    from vimoclip.clip import Preprocess

    loss_function, normalize = open_clip.ClipLoss(), Preprocess(preprocess_config()).normalize
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.learning_rate, args.steps, pct_start=0.05)
    model.visual.to(memory_format=torch.channels_last)  # a quarter less time on a CPU
    model.train()
    for step in progress(range(args.steps), args.steps, "step", "teacher"):
        rows = torch.randint(len(images), (args.batch_size,))
        output = model(normalize(images[rows].permute(0, 3, 1, 2)), tokens[rows])
        loss = loss_function(*output)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}/{args.steps}: contrastive loss {loss.item():.3f}", flush=True)


def evaluate_retrieval(model: Any, images: Any, tokens: Any) -> dict[str, Any]:
    """Return recall at 1 and 5 of each held-out still's caption among the distinct captions of all stills."""
    import torch

    from vimoclip.clip import Preprocess

    normalize = Preprocess(preprocess_config()).normalize
    captions, target = torch.unique(tokens, dim=0, return_inverse=True)
    model.eval()
    with torch.inference_mode():
        batches = images.permute(0, 3, 1, 2).split(100)
        z_image = torch.cat([model.encode_image(normalize(batch), normalize=True) for batch in batches])
        similarity = z_image @ model.encode_text(captions, normalize=True).T  # [stills, captions]
    ranks = (~(similarity <= similarity.gather(1, target[:, None]))).sum(1)  # from 0; NaN counts as wrong
    recall = {f"recall_at_{k}": float((ranks < k).float().mean()) for k in (1, 5)}
    return {"stills": len(images), "captions": len(captions), **recall}


def save_open_clip_folder(model: Any, folder: Path, model_config: dict[str, Any], preprocess: dict[str, Any]) -> None:
    """Write open_clip's folder format: weights, then the config."""
    from safetensors.torch import save_file

    from vimoclip.io import yaml_json

    folder.mkdir(parents=True, exist_ok=True)
    kept = {k: v for k, v in preprocess.items() if k in ("mean", "std", "interpolation", "resize_mode")}
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    yaml_json.write_json(folder / "open_clip_config.json", {"model_cfg": model_config, "preprocess_cfg": kept})


if __name__ == "__main__":
    cli.run(main)
