"""Draw the demo's clips and write their annotations.

    python -m demo.make_clips
Writes dataset/demo/videos/clip0000.mp4 ... (H.264, 240x136, 25 frames/s, 2 s) and dataset/demo/annotations/. Existing
clips are not drawn again. The same seed gives the same clips. selection.txt holds the model-selection split, a tenth
of the training clips."""

import argparse
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from demo import add_dataset_arguments, map_in_parallel
from vimoclip import cli
from vimoclip.errors import UserError

SEEDS_PER_DATASET = 1_000_000  # so that the scene seeds of two data sets never overlap


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "--train", type=cli.positive_int, default=284, help="training clips, including the model-selection split"
    )
    parser.add_argument("--val", type=cli.positive_int, default=128, help="clips of the evaluation split")
    add_dataset_arguments(parser)
    parser.add_argument(
        "--num-workers", type=cli.non_negative_int, default=2, help="drawing processes; 0: draw in this process"
    )
    parser.add_argument("--seed", type=cli.seed, default=1, help="seed of the scenes")
    return parser


def main(argv: list[str] | None = None) -> Path:
    """Write annotations and missing clips; return the folder of the videos."""
    args = build_parser().parse_args(argv)
    from demo.scenes import ACTIONS, sample_scene
    from vimoclip import annotations
    from vimoclip.prepare import grouped_split

    first_seed = args.seed * SEEDS_PER_DATASET
    scenes = {f"clip{i:04d}.mp4": sample_scene(first_seed + i) for i in range(args.train + args.val)}
    videos = args.dataset_dir / "videos"
    missing = {name: scene for name, scene in scenes.items() if not is_up_to_date(videos / name, scene)}
    ids = {action: i for i, action in enumerate(ACTIONS)}
    labels = {name: tuple(sorted(ids[action] for action in scene.actions())) for name, scene in scenes.items()}
    names = list(scenes)
    splits = {"train": names[: args.train], "val": names[args.train :]}
    data = annotations.Annotations(
        tuple(ACTIONS), {s: {n: labels[n] for n in split_names} for s, split_names in splits.items()}
    )
    data = replace(data, selection=grouped_split.draw_stratified(data))
    annotations.write(args.dataset_dir / "annotations", args.dataset_name, data)
    videos.mkdir(parents=True, exist_ok=True)
    for _ in map_in_parallel(partial(write_clip, videos), missing.items(), cli.limit_workers(args.num_workers), "clip"):
        pass
    counts = Counter(action for scene in scenes.values() for action in scene.actions())
    for name, cue in ACTIONS.items():
        print(f"  {name:14} {counts[name]:4} clips   defined by {cue}")
    print(
        f"{len(scenes)} clips in {videos}: {args.val} for evaluation, {len(data.selection)} for model selection",
        flush=True,
    )
    return videos


def is_up_to_date(path: Path, scene: Any) -> bool:
    """Return whether the file shows the scene. Raises UserError if it shows another one."""
    from vimoclip import video
    from vimoclip.errors import VideoError

    if not path.exists():
        return False
    try:
        seed = (video.probe(path).comment or {}).get("scene")
    except VideoError:
        return False  # unreadable: draw it again
    if seed != scene.seed:
        raise UserError("shows another scene", f"give another --dataset-dir, or delete {path.parent.parent}", path=path)
    return True


def write_clip(folder: Path, item: tuple[str, Any]) -> None:
    from demo.drawing import draw_clip
    from demo.scenes import FPS
    from vimoclip import video

    name, scene = item
    with video.VideoWriter(folder / name, FPS, {"scene": scene.seed, "caption": scene.caption()}) as writer:
        writer.write(draw_clip(scene))


if __name__ == "__main__":
    cli.run(main)
