"""What the animals in videos do, and when: from the file to a timeline, in one pass, without files in between.

    python predict.py video.mp4 --student checkpoints/<run> --tfam checkpoints/TFAM/<config>/seed49 -o predictions/
    python predict.py my_videos/ --labels drinking running        by CLIP alone, without any training

Takes videos, folders of videos, and lists (.txt, a path a line). Writes for each predictions/<stem>.html (the video
over its timeline, to look at in a browser), <stem>.csv (when which action is seen), <stem>_windows.csv (the scores of
all windows), <stem>.boris.tsv (for BORIS) and <stem>.json (all of it). How frames are chosen, prepared and embedded is
as the checkpoints learnt it. Safe to stop and run again: videos that are done are skipped.

A score is that of a window of --window seconds around its middle. An action is there as long as its score is at least
its class's threshold: that which the run fitted on its selection clips, or 0.5. See docs/numbers.md."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimoclip import UserError, VideoError, cli

if TYPE_CHECKING:
    import numpy as np

    from vimoclip.predicting import Eyes, Part, Score
    from vimoclip.timeline import Timeline

WHOLE_VIDEOS = "whole_videos.csv"
ZERO_SHOT_FPS = 4.0


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("videos", type=Path, nargs="+", help="videos, folders of them, lists of them (.txt)")
    parser.add_argument("--tfam", type=Path, default=None, help="a run folder of TFAM, or a checkpoint in one")
    parser.add_argument("--student", type=Path, default=None, help="the run folder of train.py that --tfam learnt from")
    parser.add_argument("-o", "--output-dir", type=Path, default=Path("predictions"), help="gets all files")
    add_zero_shot(parser)
    add_timeline(parser)
    cli.add_clip(parser, None)
    parser.add_argument("--ckpt-path", default=None, help="the flow's checkpoint, where the student learnt from a file")
    parser.add_argument("--frame-batch-size", type=cli.positive_int, default=16, help="of the encoders, in frames")
    cli.add_compute(parser, workers=1, int8=True)
    cli.add_run_control(parser)
    return parser


def add_zero_shot(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("without training (in the place of --tfam)")
    group.add_argument("--labels", nargs="+", default=None, metavar="LABEL", help="what may be seen, in words")
    group.add_argument(
        "--template", nargs="+", default=None, metavar="TEXT", help="prompts, with {} for the label; default: some"
    )
    group.add_argument(
        "--fps", type=cli.positive_float, default=None, help=f"frames a second to look at; default: {ZERO_SHOT_FPS:g}"
    )


def add_timeline(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("timeline")
    group.add_argument("--window", type=cli.positive_float, default=6.0, help="seconds that are scored together")
    group.add_argument("--stride-seconds", type=cli.positive_float, default=1.0, help="from one window to the next")
    group.add_argument(
        "--threshold", type=cli.non_negative_float, default=None, help="of all classes; default: each one's own"
    )
    group.add_argument("--min-length", type=cli.non_negative_float, default=1.0, help="seconds; shorter bouts go")
    group.add_argument("--max-gap", type=cli.non_negative_float, default=1.0, help="seconds; shorter gaps are closed")


@dataclass(frozen=True)
class Model:
    """What scores windows, what it looks with, and what a JSON file says of both."""

    eyes: "Eyes"
    score: "Score"
    classes: tuple[str, ...]
    thresholds: "np.ndarray"
    made_with: dict[str, Any] = field(default_factory=dict)


def main(argv: list[str] | None = None) -> cli.Report:
    args = build_parser().parse_args(argv)
    check(args)
    from vimoclip import runs

    videos = find_videos(args)
    cli.need_place(args.output_dir, "--output-dir")
    runs.seed_everything(args.seed)
    model = load_words(args) if args.labels else load_trained(args)
    report = cli.Report()
    todo = videos if args.overwrite else to_do(videos, args.output_dir, model.made_with, report)
    print(f"{len(todo)} videos to do, {report.already} done already, into {args.output_dir}", flush=True)
    if args.dry_run:
        return report
    predict_all(args, todo, model, report)
    if len(videos) > 1:
        write_whole_videos(args.output_dir, videos, model)
    report.outputs.append(args.output_dir)
    report.print()
    return report


def check(args: argparse.Namespace) -> None:
    """Raise UserError for flags that don't go together."""
    if bool(args.tfam) == bool(args.labels):
        raise UserError("give either --tfam (and --student), a trained model, or --labels, words for CLIP alone")
    for flag in ("student", "ckpt_path"):
        if args.labels and getattr(args, flag):
            raise UserError(f"--{flag.replace('_', '-')} belongs to --tfam; with --labels there is no motion")
    for flag in ("template", "fps"):
        if args.tfam and getattr(args, flag):
            raise UserError(f"--{flag} belongs to --labels; with --tfam it is as the checkpoints learnt it")
    if args.student and not args.student.exists():
        raise UserError(f"{args.student}: there is no such student; name a run folder of train.py with --student")
    if args.tfam and not args.tfam.exists():
        raise UserError(
            f"{args.tfam}: there is no such run; name a folder checkpoints/TFAM/<config>/seed<k> with --tfam"
        )


def find_videos(args: argparse.Namespace) -> dict[str, Path]:
    """Stem -> video, of all that was named. Raises UserError where there is none, or two would share their files."""
    from vimoclip import video

    paths: list[Path] = []
    for place in args.videos:
        if place.is_dir():
            paths += video.find(place)[0]
        elif place.suffix.lower() == ".txt":
            paths += listed(place)
        else:
            paths.append(cli.need_file(place, "name a video, a folder of videos or a list of them (.txt)"))
    if not paths:
        raise UserError(f"{args.videos[0]}: holds no video; name videos or a folder of them")
    stems: dict[str, Path] = {}
    for path in dict.fromkeys(paths):
        for taken in (path.stem, f"{path.stem}_windows", path.stem.removesuffix("_windows")):
            if other := stems.get(taken):
                raise UserError(
                    f"{path} and {other} would write the same files; give them folders of their own with -o"
                )
        if f"{path.stem}.csv" == WHOLE_VIDEOS:
            raise UserError(f"{path}: would be written to {WHOLE_VIDEOS}, which is of all videos; rename it")
        stems[path.stem] = path
    return dict(list(stems.items())[: args.limit])


def listed(path: Path) -> list[Path]:
    """The videos that a list names, a path a line; relative ones start where the list is."""
    text = cli.need_file(path, "name a list of videos, a path a line").read_text(encoding="utf-8-sig")
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    return [cli.need_file(path.parent / line, f"mend line {number} of {path}") for number, line in lines]


def load_trained(args: argparse.Namespace) -> Model:
    """A trained TFAM with its student and teacher. Raises UserError where they don't fit."""
    import numpy as np

    from TFAM.predicting import Fused
    from vimoclip.predicting.loading import load_eyes

    machine = machine_of(args)
    fused = Fused(args.tfam, machine.device, machine.precision)
    weights = {key: getattr(args, key) for key in ("clip_model_name", "clip_pretrained", "ckpt_path")}
    eyes = load_eyes(fused.inputs, fused.path, args.student, weights, machine)
    own = fused.thresholds() if args.threshold is None else np.full(len(fused.classes), args.threshold)
    print(f"{fused.path} on {machine.device} in {machine.precision}", flush=True)
    return Model(eyes, fused, fused.classes, own, settings(args, machine.precision, own) | fused.described())


def load_words(args: argparse.Namespace) -> Model:
    """CLIP alone, by words. Raises UserError."""
    import numpy as np

    from vimoclip import clip, video
    from vimoclip.predicting import Eyes
    from vimoclip.predicting.loading import eye, load_labels

    machine, labels = machine_of(args), tuple(dict.fromkeys(args.labels))
    name, pretrained = args.clip_model_name or "ViT-B/32", args.clip_pretrained
    pretrained = pretrained or (None if ":" in name else "openai")
    encoder, words = load_labels(name, pretrained, labels, args.template)
    eyes = Eyes(video.Sampling(fps=args.fps or ZERO_SHOT_FPS), eye(encoder, machine))

    def score(parts: "Sequence[Part]") -> np.ndarray:
        return np.stack([words.scores(part.rgb).double().numpy() for part in parts if part.rgb is not None])

    own = np.full(len(labels), 0.5 if args.threshold is None else args.threshold)
    described = {
        "zero_shot": True,
        "clip_model": encoder.config["clip_model"],
        "clip_weights_sha256": encoder.config["weights_sha256"],
        "templates": list(args.template or clip.TEMPLATES),
        "sampling": eyes.sampling.as_dict(),
    }
    print(f"{name} on {machine.device} in {machine.precision}, by words alone", flush=True)
    return Model(eyes, score, labels, own, settings(args, machine.precision, own) | described)


def machine_of(args: argparse.Namespace) -> Any:
    from vimoclip import runs
    from vimoclip.predicting.loading import Machine

    device = runs.pick_device(args.device)
    return Machine(device, runs.pick_precision(args.precision, device), args.frame_batch_size)


def settings(args: argparse.Namespace, precision: str, thresholds: "np.ndarray") -> dict[str, Any]:
    """What of the command line a result depends on."""
    from vimoclip import runs

    names = ("window", "stride_seconds", "min_length", "max_gap")
    chosen = {name: getattr(args, name) for name in names}
    return chosen | {"precision": precision, "thresholds": thresholds.round(6).tolist(), "versions": runs.versions()}


def to_do(
    videos: Mapping[str, Path], folder: Path, made_with: Mapping[str, Any], report: cli.Report
) -> dict[str, Path]:
    """Those without a result. Raises UserError where there is one of other settings."""
    from vimoclip import timeline

    todo = {}
    for stem, path in videos.items():
        there = timeline.made_with(folder / f"{stem}.json")
        if there is None:
            todo[stem] = path
            continue
        same = {key: value for key, value in made_with.items() if key != "versions"}
        cure = "give --overwrite, or another folder with -o"
        cli.check_same(same, there, "this command", str(folder / f"{stem}.json"), cure)
        report.already += 1
    return todo


def predict_all(args: argparse.Namespace, videos: Mapping[str, Path], model: Model, report: cli.Report) -> None:
    """Predict each video; what fails is in the report."""
    from vimoclip import timeline
    from vimoclip.predicting import frames_expected

    expected = 0
    for path in videos.values():
        try:
            expected += frames_expected(path, model.eyes)
        except VideoError:
            continue  # said when its turn comes
    meter = cli.Meter(expected or None, "frame", "predicting")
    for path in videos.values():
        try:
            found = predict(args, path, model, meter)
        except VideoError as error:
            report.failed[path.name] = str(error)
            continue
        timeline.write(args.output_dir, found)
        tell(found)
        report.done += 1
    meter.close()


def predict(args: argparse.Namespace, path: Path, model: Model, meter: cli.Meter) -> "Timeline":
    """One video's timeline. Raises VideoError."""
    from vimoclip import timeline
    from vimoclip.predicting import watch

    workers = cli.usable_workers(args.num_workers)
    how = args.window, args.stride_seconds, args.frame_batch_size, workers
    seen = watch(path, model.eyes, model.score, *how, on_frames=lambda count: meter.add(items=count))
    for remark in filter(None, (seen.end.problem, seen.end.note)):
        print(f"{path.name}: {remark}", flush=True)
    if seen.unscored:
        print(f"{path.name}: {seen.unscored} windows hold too few frames to be scored", flush=True)
    spans = seen.starts, seen.stops, seen.scores
    bouts = timeline.find_bouts(*spans, model.thresholds, model.classes, seen.seconds, args.min_length, args.max_gap)
    remarks = {"problem": seen.end.problem, "note": seen.end.note, "windows_unscored": seen.unscored}
    return timeline.Timeline(
        path,
        seen.seconds,
        seen.end.fps,
        len(seen.end.timestamps),
        model.classes,
        *spans,
        seen.whole,
        seen.whole_by,
        model.thresholds,
        bouts,
        model.made_with | remarks,
    )


def tell(found: "Timeline", most: int = 5) -> None:
    """A few lines on what was found."""
    best = sorted(zip(found.whole.tolist(), found.classes, strict=True), reverse=True)[:most]
    likely = ", ".join(f"{name} {score:.2f}" for score, name in best)
    print(f"{found.video.name}: {found.seconds:.1f} s, {len(found.bouts)} bouts; as a whole: {likely}", flush=True)


def write_whole_videos(folder: Path, videos: Mapping[str, Path], model: Model) -> None:
    """A table of all videos that are done, a row each, which evaluate.py reads."""
    import numpy as np

    from vimoclip import predictions

    rows = {}
    for stem, path in videos.items():
        if (place := folder / f"{stem}.json").is_file():
            whole = json.loads(place.read_text(encoding="utf-8"))["whole"]
            rows[path.name] = [whole[name] for name in model.classes]
    if rows:
        predictions.write(folder / WHOLE_VIDEOS, list(rows), np.array(rows.values()), model.classes)


if __name__ == "__main__":
    cli.run(main)
