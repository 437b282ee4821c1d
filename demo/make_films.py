"""Draw films of animals and a label table, as example data for docs/your-own-data.md.

    python -m demo.make_films --output-dir my_films
Writes my_films/film01.mp4 ..., each a sequence of scenes of two seconds, my_films/table.csv (columns
video,labels,start,end,day), and the same labels as a BORIS project, my_films/project.boris. my_films/unseen.mp4 is in
neither of them; its labels are in unseen.csv."""

import argparse
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from demo import map_in_parallel
from demo.make_clips import SEEDS_PER_DATASET
from vimoclip import cli

UNSEEN = "unseen"
LABEL_COLUMNS = ("video", "labels", "start", "end", "day")


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--films", type=cli.positive_int, default=12, help="films in the table")
    parser.add_argument(
        "--first",
        type=cli.positive_int,
        default=1,
        help="number of the first film, to draw more films into a new folder",
    )
    parser.add_argument("--scenes", type=cli.positive_int, default=20, help="scenes per film")
    parser.add_argument("--output-dir", type=Path, default=Path("my_films"))
    parser.add_argument(
        "--num-workers", type=cli.non_negative_int, default=2, help="drawing processes; 0: draw in this process"
    )
    parser.add_argument("--seed", type=cli.seed, default=5, help="seed of the scenes")
    return parser


def main(argv: list[str] | None = None) -> Path:
    """Write films, table and BORIS project; return the path of the table."""
    args = build_parser().parse_args(argv)
    from demo.scenes import sample_scene
    from vimoclip.io import atomic, csv

    args.output_dir.mkdir(parents=True, exist_ok=True)
    names = [*(f"film{args.first + i:02d}" for i in range(args.films)), UNSEEN]
    first_seed, films = args.seed * SEEDS_PER_DATASET, {}
    for number, name in enumerate(names, start=args.first - 1):
        films[name] = [sample_scene(first_seed + number * args.scenes + i) for i in range(args.scenes)]
    missing = {name: scenes for name, scenes in films.items() if not (args.output_dir / f"{name}.mp4").exists()}
    for _ in map_in_parallel(
        partial(write_film, args.output_dir), missing.items(), cli.limit_workers(args.num_workers), "film"
    ):
        pass
    labelled = {name: scenes for name, scenes in films.items() if name != UNSEEN}
    csv.write_csv(args.output_dir / f"{UNSEEN}.csv", LABEL_COLUMNS, label_rows({UNSEEN: films[UNSEEN]}, 1))
    atomic.write_text(args.output_dir / "project.boris", json.dumps(boris_project(labelled)))
    written = csv.write_csv(args.output_dir / "table.csv", LABEL_COLUMNS, label_rows(labelled, args.first))
    print(f"{len(labelled)} films of {args.scenes} scenes in {written}, and {args.output_dir / UNSEEN}.mp4", flush=True)
    return written


def label_rows(films: dict[str, list[Any]], first: int) -> Iterator[tuple[Any, ...]]:
    """Yield a row per scene: film, actions, start and end in seconds, and day (one per two films)."""
    from demo.scenes import FPS, FRAMES

    length = FRAMES / FPS
    for number, (name, scenes) in enumerate(films.items(), start=first - 1):
        for index, scene in enumerate(scenes):
            actions = ";".join(sorted(scene.actions()))
            yield f"{name}.mp4", actions, f"{index * length:g}", f"{(index + 1) * length:g}", number // 2 + 1


def boris_project(films: dict[str, list[Any]]) -> dict[str, Any]:
    """Return a BORIS project with one observation per film; each action starts and stops with its scene."""
    from demo.scenes import ACTIONS, FPS, FRAMES

    length, observations = FRAMES / FPS, {}
    for name, scenes in films.items():
        events = []
        for index, scene in enumerate(scenes):
            for action in sorted(scene.actions()):
                for time in (index * length, (index + 1) * length):
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
    empty_fields = ("key", "description", "color", "category", "modifiers", "excluded", "coding map")
    behavior = {"type": "State event", **dict.fromkeys(empty_fields, "")}
    lists, mappings = ("behavioral_categories", "behaviors_coding_map"), ("subjects_conf", "independent_variables")
    return {
        "time_format": "hh:mm:ss",
        "project_date": "2026-01-01T00:00:00",
        "project_name": "drawn animals",
        "project_description": "",
        "project_format_version": "7.0",
        **{name: [] for name in lists},
        **{name: {} for name in (*mappings, "coding_map", "converters")},
        "behaviors_conf": {str(number): {**behavior, "code": action} for number, action in enumerate(ACTIONS)},
        "observations": observations,
    }


def write_film(folder: Path, item: tuple[str, list[Any]]) -> None:
    """Write the scenes of a film one after the other."""
    from demo.drawing import draw_clip
    from demo.scenes import FPS
    from vimoclip import video

    name, scenes = item
    with video.VideoWriter(folder / f"{name}.mp4", FPS, {"scenes": [scene.seed for scene in scenes]}) as writer:
        for scene in scenes:
            writer.write(draw_clip(scene))


if __name__ == "__main__":
    cli.run(main)
