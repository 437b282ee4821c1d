"""Train the demo's teacher: a small CLIP that knows what drawn animals look like, and nothing of motion.

    python -m demo.make_teacher
Draws stills by the clips' own generator (other scenes), learns them with captions of species, ground and objects, by
CLIP's contrastive loss, and writes checkpoints/demo/teacher/ in open_clip's folder format, for
`--clip-model-name local-dir:checkpoints/demo/teacher`. How well it knows held-out stills goes into retrieval.json."""

import argparse
import json
from pathlib import Path
from typing import Any

from demo import spread
from demo.make_clips import SEED_STEP
from vimoclip import cli
from vimoclip.cli import progress

IMAGE_SIZE = 64
MODEL: dict[str, Any] = {
    "embed_dim": 128,
    # an image tower of 1.0 M parameters
    "vision_cfg": {"image_size": IMAGE_SIZE, "layers": [1, 1, 1, 1], "width": 14, "patch_size": None, "head_width": 32},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
FIRST_SCENE = 2**32 * SEED_STEP  # seeds of the stills, beyond those of any clip


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("-o", "--output-dir", type=Path, default=Path("checkpoints/demo/teacher"), help="the folder")
    parser.add_argument("--stills", type=cli.positive_int, default=8000, help="to learn from")
    parser.add_argument("--held-out", type=cli.positive_int, default=1000, help="stills that retrieval is measured on")
    parser.add_argument("--steps", type=cli.positive_int, default=500, help="of the optimiser")
    parser.add_argument("--batch-size", type=cli.positive_int, default=64, help="in stills")
    parser.add_argument("--learning-rate", type=cli.positive_float, default=1e-3, help="of AdamW, falls along a cosine")
    parser.add_argument("--num-workers", type=cli.count, default=2, help="processes that draw")
    parser.add_argument("--seed", type=cli.seed, default=0, help="of weights and batches")
    return parser


def main(argv: list[str] | None = None) -> Path:
    """The folder of the model."""
    args = build_parser().parse_args(argv)
    settings = {key: value for key, value in vars(args).items() if key not in ("output_dir", "num_workers")}
    known = args.output_dir / "retrieval.json"
    if known.is_file():
        found = json.loads(known.read_text(encoding="utf-8"))
        cli.check_same(
            settings, found["settings"], "this command", str(known), "give the same, or another --output-dir"
        )
        print(f"{args.output_dir}: is there already\n{describe(found)}")
        return args.output_dir
    import open_clip
    import torch

    from vimoclip.io import yaml_json
    from vimoclip.runtime import seeding, versions

    images, captions = draw_stills(args.stills + args.held_out, cli.usable_workers(args.num_workers))
    seeding.seed_everything(args.seed)
    model = open_clip.CLIP(**MODEL)
    tokens = open_clip.SimpleTokenizer(context_length=MODEL["text_cfg"]["context_length"])(captions)
    print(f"image tower of {sum(p.numel() for p in model.visual.parameters()):,} parameters", flush=True)
    train(model, torch.from_numpy(images[args.held_out :]), tokens[args.held_out :], args)
    found = retrieval(model, torch.from_numpy(images[: args.held_out]), tokens[: args.held_out])
    save(model, args.output_dir)
    print(describe(found))
    yaml_json.write_json(known, found | {"settings": settings, "versions": versions.versions()})
    return args.output_dir


def describe(found: dict[str, Any]) -> str:
    return (
        f"held-out stills: of {found['captions']} captions the right one comes first for {found['recall_at_1']:.0%} "
        f"and among the first five for {found['recall_at_5']:.0%} (chance: {1 / found['captions']:.1%})"
    )


def draw_stills(count: int, workers: int) -> tuple[Any, list[str]]:
    """((count, S, S, 3) uint8, captions), of scenes that no clip shows."""
    import numpy as np

    stills = list(spread(draw_one, range(FIRST_SCENE, FIRST_SCENE + count), workers, "still"))
    return np.stack([image for image, _ in stills]), [caption for _, caption in stills]


def draw_one(seed: int) -> tuple[Any, str]:
    from demo.drawing import draw_still
    from demo.scenes import draw_scene
    from vimoclip.clip import Preprocess

    scene = draw_scene(seed)
    prepared = Preprocess(input_config())(draw_still(scene)[None])[0]
    return prepared.permute(1, 2, 0).numpy(), scene.caption()


def input_config() -> dict[str, Any]:
    from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    # squash: animals may stand where a crop to a square would cut them off
    config = {
        "mean": OPENAI_DATASET_MEAN,
        "std": OPENAI_DATASET_STD,
        "interpolation": "bicubic",
        "resize_mode": "squash",
    }
    return {**config, "image_size": [IMAGE_SIZE, IMAGE_SIZE], "resize": "model", "fill_color": 0}


def train(model: Any, images: Any, tokens: Any, args: argparse.Namespace) -> None:
    import open_clip
    import torch

    from vimoclip.clip import Preprocess

    loss_function, normalize = open_clip.ClipLoss(), Preprocess(input_config()).normalize
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.learning_rate, args.steps, pct_start=0.05)
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


def retrieval(model: Any, images: Any, tokens: Any) -> dict[str, Any]:
    """How often a still's own caption is the nearest of all captions of the held-out stills, each counted once."""
    import torch

    from vimoclip.clip import Preprocess

    normalize = Preprocess(input_config()).normalize
    captions, right = torch.unique(tokens, dim=0, return_inverse=True)
    model.eval()
    with torch.inference_mode():
        parts = images.permute(0, 3, 1, 2).split(100)
        z_image = torch.cat([model.encode_image(normalize(part), normalize=True) for part in parts])
        similarity = z_image @ model.encode_text(captions, normalize=True).T  # [stills, captions]
    better = (~(similarity <= similarity.gather(1, right[:, None]))).sum(1)  # NaN is never right
    recall = {f"recall_at_{k}": float((better < k).float().mean()) for k in (1, 5)}
    return {"stills": len(images), "captions": len(captions), **recall}


def save(model: Any, folder: Path) -> None:
    """open_clip's own folder format: its config beside its weights."""
    from safetensors.torch import save_file

    from vimoclip.io import yaml_json

    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {k: v for k, v in input_config().items() if k in ("mean", "std", "interpolation", "resize_mode")}
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    yaml_json.write_json(folder / "open_clip_config.json", {"model_cfg": MODEL, "preprocess_cfg": preprocess})


if __name__ == "__main__":
    cli.run(main)
