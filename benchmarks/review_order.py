"""Compare measures by which review_order.csv could sort windows: how many wrong labels do the first windows have?

    python -m benchmarks.review_order checkpoints/TFAM/cross_attention/seed49 --dataset-dir my_data --dataset-name mine
Each clip of the val split is a window. Its predicted labels are the scores that reach the thresholds of the run. Prints
for each measure the mean number of wrong labels in the fifth of the windows that it puts first, as a multiple of that
in all windows, and how often the label that has the highest value in such a window is wrong."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from vimoclip import cli


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders of TFAM.train_and_eval")
    cli.add_dataset_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> dict[str, dict[str, tuple[float, float]]]:
    """Return and print, by run and measure: multiple of wrong labels, share of wrong labels among the named ones."""
    args = build_parser().parse_args(argv)
    import torch

    from TFAM.predictor import FusionPredictor

    windows, labels = load_windows(args.dataset_dir / "embeddings", args.dataset_name)
    results = {}
    for run in args.runs:
        predictor = FusionPredictor(run, torch.device("cpu"), "fp32")
        values, wrong = measure(predictor, windows, labels)
        per_window = wrong.sum(axis=1)
        print(f"{run}: {len(windows)} windows, {per_window.mean():.2f} wrong labels each")
        results[str(run)] = {name: evaluate(value, wrong) for name, value in values.items()}
        for name, (multiple, named) in results[str(run)].items():
            print(f"  {name}: {multiple:.2f} times as many wrong labels; {named:.0%} of the named labels are wrong")
    return results


def load_windows(folder: Path, dataset_name: str) -> tuple[list[Any], np.ndarray]:
    """Return the clips of the val split as windows, and their labels (W, C)."""
    import torch

    from vimoclip.prediction import WindowFeatures
    from vimoclip.store import EmbeddingReader, rgb_embeddings_path

    rgb = EmbeddingReader(rgb_embeddings_path(folder, dataset_name, "val"))
    motion = EmbeddingReader(folder / "flow_embeddings.h5")
    windows = []
    for key in rgb.keys:
        frames = torch.from_numpy(rgb.embeddings(key)).float()
        flows = torch.from_numpy(motion.embeddings(Path(key).stem)).float()
        windows.append(WindowFeatures(0.0, 1.0, frames, flows, len(frames)))
    return windows, np.array([rgb.labels(key) for key in rgb.keys])


def measure(predictor: Any, windows: list[Any], labels: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return (W, C) values by measure, and whether each predicted label is wrong (W, C)."""
    from vimoclip.ethogram.review_order import uncertainties

    batches = [windows[start : start + 16] for start in range(0, len(windows), 16)]
    scores = np.concatenate([predictor(batch) for batch in batches])
    thresholds = predictor.thresholds()
    values = {"uncertainty": uncertainties(scores, thresholds)}
    if predictor.has_two_streams:
        by_rgb, by_motion = np.concatenate([predictor.score_streams(batch) for batch in batches], axis=1)
        values["disagreement of the streams"] = np.abs(by_rgb - by_motion)
    return values, (scores >= thresholds) != (labels > 0)


def evaluate(values: np.ndarray, wrong: np.ndarray) -> tuple[float, float]:
    """Return what `main` prints for a measure; windows are sorted by its mean over the labels."""
    first = np.argsort(-values.mean(axis=1), kind="stable")[: max(1, len(values) // 5)]
    named = values[first].argmax(axis=1)
    multiple = wrong[first].sum(axis=1).mean() / max(wrong.sum(axis=1).mean(), 1e-9)
    return float(multiple), float(wrong[first, named].mean())


if __name__ == "__main__":
    cli.run(main)
