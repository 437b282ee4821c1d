"""Draw the demo's clips and write their annotations.

    python -m demo.make_clips
Writes dataset/demo/videos/clip0000.mp4 ... (H.264, 240x136, 25 frames/s, 2 s) and dataset/demo/annotations/. Clips that
are there are not drawn again; the same seed draws the same clips. A tenth of the training clips, in selection.txt, is
kept out of training: on them epochs and thresholds are chosen."""

import argparse
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from demo import add_dataset, spread
from vimoclip import cli
from vimoclip.errors import UserError

SEED_STEP = 1_000_000  # between the seeds of two data sets, so that none shares a scene with another


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--train", type=cli.positive_int, default=284, help="clips to learn from, and to choose on")
    parser.add_argument("--val", type=cli.positive_int, default=128, help="clips to report on")
    add_dataset(parser)
    parser.add_argument("--num-workers", type=cli.count, default=2, help="processes that draw")
    parser.add_argument("--seed", type=cli.seed, default=1, help="another seed draws other clips")
    return parser


def main(argv: list[str] | None = None) -> Path:
    """The folder of the videos."""
    args = build_parser().parse_args(argv)
    from demo.scenes import ACTIONS, draw_scene
    from vimoclip import annotations
    from vimoclip.prepare import grouped_split

    first = args.seed * SEED_STEP
    scenes = {f"clip{i:04d}.mp4": draw_scene(first + i) for i in range(args.train + args.val)}
    videos = args.dataset_dir / "videos"
    todo = {name: scene for name, scene in scenes.items() if not is_drawn(videos / name, scene)}
    ids = {action: i for i, action in enumerate(ACTIONS)}
    labels = {name: tuple(sorted(ids[action] for action in scene.actions())) for name, scene in scenes.items()}
    names = list(scenes)
    splits = {"train": names[: args.train], "val": names[args.train :]}
    data = annotations.Annotations(tuple(ACTIONS), {s: {n: labels[n] for n in part} for s, part in splits.items()})
    data = replace(data, selection=grouped_split.draw(data))
    annotations.write(args.dataset_dir / "annotations", args.dataset_name, data)
    videos.mkdir(parents=True, exist_ok=True)
    for _ in spread(partial(write_clip, videos), todo.items(), cli.usable_workers(args.num_workers), "clip"):
        pass
    counts = Counter(action for scene in scenes.values() for action in scene.actions())
    for name, kind in ACTIONS.items():
        print(f"  {name:14} {counts[name]:4} clips   told by {kind}")
    print(f"{len(scenes)} clips in {videos}: {args.val} to report on, {len(data.selection)} to choose on", flush=True)
    return videos


def is_drawn(path: Path, scene: Any) -> bool:
    """Raises UserError where the file shows another scene: all that was made from it would be wrong."""
    from vimoclip import video
    from vimoclip.errors import VideoError

    if not path.exists():
        return False
    try:
        shows = (video.probe(path).comment or {}).get("scene")
    except VideoError:
        return False  # broken: it is drawn again
    if shows != scene.seed:
        raise UserError("shows another scene", f"give another --dataset-dir, or delete {path.parent.parent}", path=path)
    return True


def write_clip(folder: Path, item: tuple[str, Any]) -> None:
    from demo.drawing import draw_clip
    from demo.scenes import FPS
    from vimoclip import video

    name, scene = item
    with video.Writer(folder / name, FPS, {"scene": scene.seed, "caption": scene.caption()}) as writer:
        writer.write(draw_clip(scene))


if __name__ == "__main__":
    cli.run(main)
