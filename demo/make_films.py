"""Draw films of animals and a table of what is seen when, as somebody may have them who begins with this.

    python -m demo.make_films --output-dir my_films
Writes my_films/film01.mp4 ..., each of some scenes of two seconds, one after the other, and my_films/table.csv
(columns video,labels,start,end,day), and the same as a project of BORIS, my_films/project.boris; beside them
my_films/unseen.mp4, which isn't in these, and unseen.csv, which says what is seen in it."""

import argparse
import csv
import io
import json
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
    from vimoclip.io import atomic

    args.output_dir.mkdir(parents=True, exist_ok=True)
    names = [*(f"film{i + 1:02d}" for i in range(args.films)), UNSEEN]
    first, films = args.seed * SEED_STEP, {}
    for place, name in enumerate(names):
        films[name] = [draw_scene(first + place * args.scenes + i) for i in range(args.scenes)]
    todo = {name: scenes for name, scenes in films.items() if not (args.output_dir / f"{name}.mp4").exists()}
    for _ in spread(partial(write_film, args.output_dir), todo.items(), cli.usable_workers(args.num_workers), "film"):
        pass
    known = {name: scenes for name, scenes in films.items() if name != UNSEEN}
    atomic.write_text(args.output_dir / f"{UNSEEN}.csv", table({UNSEEN: films[UNSEEN]}))
    atomic.write_text(args.output_dir / "project.boris", json.dumps(project(known)))
    written = atomic.write_text(args.output_dir / "table.csv", table(known))
    print(f"{len(known)} films of {args.scenes} scenes in {written}, and {args.output_dir / UNSEEN}.mp4", flush=True)
    return written


def table(films: dict[str, list[Any]]) -> str:
    """A line a scene: film, actions, from when to when in seconds, and the day: two films each."""
    from demo.scenes import FPS, FRAMES

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["video", "labels", "start", "end", "day"])
    length = FRAMES / FPS
    for number, (name, scenes) in enumerate(films.items()):
        for place, scene in enumerate(scenes):
            actions = ";".join(sorted(scene.actions()))
            writer.writerow(
                [f"{name}.mp4", actions, f"{place * length:g}", f"{(place + 1) * length:g}", number // 2 + 1]
            )
    return text.getvalue()


def project(films: dict[str, list[Any]]) -> dict[str, Any]:
    """What BORIS has of it: an observation a film, in which each action begins and ends with its scene."""
    from demo.scenes import ACTIONS, FPS, FRAMES

    length, observations = FRAMES / FPS, {}
    for name, scenes in films.items():
        events = []
        for place, scene in enumerate(scenes):
            for action in sorted(scene.actions()):
                for time in (place * length, (place + 1) * length):
                    events.append([time, "", action, "", "", round(time * FPS)])
        media = f"{name}.mp4"
        observations[name] = {
            "type": "MEDIA",
            "date": "2026-01-01T00:00:00",
            "description": "",
            "file": {str(player): [media] if player == 1 else [] for player in range(1, 9)},
            "events": sorted(events, key=lambda event: event[0]),
            "time offset": 0.0,
            "observation time interval": [0, 0],
            "independent_variables": {},
            "media_info": {
                "length": {media: len(scenes) * length},
                "fps": {media: float(FPS)},
                "hasVideo": {media: True},
                "hasAudio": {media: False},
                "offset": {"1": 0.0},
            },
        }
    empty = ("key", "description", "color", "category", "modifiers", "excluded", "coding map")
    kind = {"type": "State event", **dict.fromkeys(empty, "")}
    lists, mappings = ("behavioral_categories", "behaviors_coding_map"), ("subjects_conf", "independent_variables")
    return {
        "time_format": "hh:mm:ss",
        "project_date": "2026-01-01T00:00:00",
        "project_name": "drawn animals",
        "project_description": "",
        "project_format_version": "7.0",
        **{name: [] for name in lists},
        **{name: {} for name in (*mappings, "coding_map", "converters")},
        "behaviors_conf": {str(number): {**kind, "code": action} for number, action in enumerate(ACTIONS)},
        "observations": observations,
    }


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
