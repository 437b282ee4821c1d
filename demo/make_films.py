"""Draw films of animals and a table of what is seen when, as somebody may have them who begins with this.

    python -m demo.make_films --output-dir my_films
Writes my_films/film01.mp4 ..., each of some scenes of two seconds, one after the other, and my_films/table.csv
(columns video,labels,start,end); beside them my_films/unseen.mp4, which isn't in the table, and unseen.csv, which says
what is seen in it."""

import argparse
import csv
import io
from functools import partial
from pathlib import Path
from typing import Any

from demo import spread
from demo.make_clips import SEED_STEP
from vimoclip import cli

UNSEEN = "unseen"


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--films", type=cli.positive_int, default=12, help="in the table")
    parser.add_argument("--scenes", type=cli.positive_int, default=20, help="in a film")
    parser.add_argument("--output-dir", type=Path, default=Path("my_films"))
    parser.add_argument("--num-workers", type=cli.count, default=2, help="processes that draw")
    parser.add_argument("--seed", type=cli.seed, default=5, help="another seed draws other films")
    return parser


def main(argv: list[str] | None = None) -> Path:
    """The table."""
    args = build_parser().parse_args(argv)
    from demo.scenes import draw_scene
    from vimoclip import files

    args.output_dir.mkdir(parents=True, exist_ok=True)
    names = [*(f"film{i + 1:02d}" for i in range(args.films)), UNSEEN]
    first, films = args.seed * SEED_STEP, {}
    for place, name in enumerate(names):
        films[name] = [draw_scene(first + place * args.scenes + i) for i in range(args.scenes)]
    todo = {name: scenes for name, scenes in films.items() if not (args.output_dir / f"{name}.mp4").exists()}
    for _ in spread(partial(write_film, args.output_dir), todo.items(), cli.usable_workers(args.num_workers), "film"):
        pass
    known = {name: scenes for name, scenes in films.items() if name != UNSEEN}
    files.write_text(args.output_dir / f"{UNSEEN}.csv", table({UNSEEN: films[UNSEEN]}))
    written = files.write_text(args.output_dir / "table.csv", table(known))
    print(f"{len(known)} films of {args.scenes} scenes in {written}, and {args.output_dir / UNSEEN}.mp4", flush=True)
    return written


def table(films: dict[str, list[Any]]) -> str:
    """A line a scene: film, actions, from when to when in seconds."""
    from demo.scenes import FPS, FRAMES

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["video", "labels", "start", "end"])
    length = FRAMES / FPS
    for name, scenes in films.items():
        for place, scene in enumerate(scenes):
            actions = ";".join(sorted(scene.actions()))
            writer.writerow([f"{name}.mp4", actions, f"{place * length:g}", f"{(place + 1) * length:g}"])
    return text.getvalue()


def write_film(folder: Path, item: tuple[str, list[Any]]) -> None:
    """One scene after the other."""
    from demo.drawing import draw_clip
    from demo.scenes import FPS
    from vimoclip import video

    name, scenes = item
    with video.Writer(folder / f"{name}.mp4", FPS, {"scenes": [scene.seed for scene in scenes]}) as writer:
        for scene in scenes:
            writer.write(draw_clip(scene))


if __name__ == "__main__":
    cli.run(main)
