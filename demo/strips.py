"""Pictures of clips: strips of frames and of flow, and the highest scores of a TFAM run.

    python -m demo.strips --run checkpoints/demo/TFAM/cross_attention/seed49
Writes TFAM/results/demo/<clip>.png for the first evaluation clips, or for those named with --clips; with --sheet one
picture with all of them. The clip's labels have dark bars and are always shown."""

import argparse
from pathlib import Path
from typing import Any

from demo import add_dataset_arguments
from vimoclip import cli
from vimoclip.errors import UserError

STRIP_FRAMES, TOP_ACTIONS = 6, 5
STRIP_HEIGHT, GAP, FONT_SIZE, BARS_WIDTH = 120, 6, 15, 380  # pixels
LABEL_COLOR, OTHER_COLOR = (38, 94, 156), (188, 200, 212)


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished TFAM run")
    parser.add_argument("--clips", nargs="+", default=None, help="file names of evaluation clips")
    parser.add_argument("--count", type=cli.positive_int, default=4, help="number of clips, without --clips")
    parser.add_argument("--output-dir", type=Path, default=Path("TFAM/results/demo"), help="folder for the pictures")
    parser.add_argument(
        "--sheet", default=None, metavar="NAME", help="write one picture of this name, like animals.png"
    )
    for flag, folder in (
        ("--annotations-dir", "annotations"),
        ("--videos-dir", "videos"),
        ("--flow-videos-dir", "flows"),
    ):
        parser.add_argument(flag, type=Path, help=f"default: {folder}/ in --dataset-dir")
    add_dataset_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> list[Path]:
    """Write the pictures and return their paths."""
    args = build_parser().parse_args(argv)
    from vimoclip import annotations
    from vimoclip.flow.flow_folder import FlowFolder
    from vimoclip.io import predictions_csv

    path = cli.require_file(args.run / "predictions.csv", "name a finished run, like .../cross_attention/seed49")
    table = predictions_csv.read(path)
    rows = zip(table.videos, table.scores.tolist(), strict=True)
    scores = {name: dict(zip(table.classes, row, strict=True)) for name, row in rows}
    annotations_dir = args.annotations_dir or args.dataset_dir / "annotations"
    data = annotations.load(annotations_dir, args.dataset_name, ["val"])
    flow_videos_dir = args.flow_videos_dir or args.dataset_dir / "flows"
    flows = FlowFolder(cli.require_folder(flow_videos_dir, "run extract_flows.py"))
    pictures: dict[str, Any] = {}  # file name -> image
    for name in args.clips or list(scores)[: args.count]:
        if name not in scores or name not in data.splits["val"]:
            raise UserError(f"{name}: not in {path} and val_multi.txt", "name clips of the evaluation split")
        labels = {data.classes[i] for i in data.splits["val"][name]}
        top = top_actions(scores[name], labels)
        video_path = (args.videos_dir or args.dataset_dir / "videos") / name
        pictures[f"{annotations.stem(name)}.png"] = draw_picture(video_path, flows.find(name), top, labels)
    if args.sheet:
        pictures = {args.sheet: stack(list(pictures.values()), 3 * GAP).quantize(256)}  # a third of the size
    args.output_dir.mkdir(parents=True, exist_ok=True)
    written = [args.output_dir / name for name in pictures]
    for path, picture in zip(written, pictures.values(), strict=True):
        picture.save(path, optimize=True)
    print("wrote " + " ".join(map(str, written)), flush=True)
    return written


def top_actions(probabilities: dict[str, float], labels: set[str]) -> list[tuple[str, float]]:
    """Return the clip's labels and the highest-scored other actions: TOP_ACTIONS in all, or more for more labels."""
    order = sorted(probabilities, key=lambda action: (action not in labels, -probabilities[action]))
    selected = order[: max(TOP_ACTIONS, len(labels))]
    return sorted(((action, probabilities[action]) for action in selected), key=lambda item: -item[1])


def draw_picture(rgb: Path, flow: Path | None, top: list[tuple[str, float]], labels: set[str]) -> Any:
    """Return a PIL image: the filmstrips above each other, the bars at their right."""
    from vimoclip.video.filmstrip import render_filmstrip

    strips = [render_filmstrip(path, STRIP_FRAMES, STRIP_HEIGHT, GAP) for path in (rgb, flow) if path is not None]
    sheet = stack(strips, GAP)
    bars = draw_bars(top, labels, sheet.height)
    return stack([sheet, bars], 2 * GAP, across=True)


def stack(images: list[Any], gap: int, across: bool = False) -> Any:
    """Return a PIL image of images below each other, or across: beside each other."""
    from PIL import Image

    widths, heights = [image.width for image in images], [image.height for image in images]
    gaps = gap * (len(images) - 1)
    size = (sum(widths) + gaps, max(heights)) if across else (max(widths), sum(heights) + gaps)
    sheet, offset = Image.new("RGB", size, "white"), 0
    for image in images:
        sheet.paste(image, (offset, 0) if across else (0, offset))
        offset += gap + (image.width if across else image.height)
    return sheet


def draw_bars(top: list[tuple[str, float]], labels: set[str], height: int) -> Any:
    from PIL import Image, ImageDraw, ImageFont

    sheet = Image.new("RGB", (BARS_WIDTH, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    row_height, max_bar = height / len(top), BARS_WIDTH - 190
    for i, (name, probability) in enumerate(top):
        y = int((i + 0.5) * row_height)
        draw.text((130, y), name if len(name) <= 18 else f"{name[:16]}..", fill="black", font=font, anchor="rm")
        draw.rectangle(
            (140, y - 9, 140 + max(1, int(max_bar * probability)), y + 9),
            fill=LABEL_COLOR if name in labels else OTHER_COLOR,
        )
        draw.text((148 + int(max_bar * probability), y), f"{probability:.2f}", fill="black", font=font, anchor="lm")
    return sheet


if __name__ == "__main__":
    cli.run(main)
