"""The few-shot learning curve: means and intervals of the table's section and of few_shot.csv."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tfam.helpers import read_csv
from tests.tfam.test_table import make_table, noisy_scores, sklearn_average_precisions, write_finished_run
from vimoclip import metrics
from vimoclip.io import predictions_csv

METRICS = ("map_macro", "map_micro")


def write_few_shot_run(config: str, seed: int, shots: int | None, scores: np.ndarray, **changes: Any) -> Path:
    """Write a finished run of `shots` clips a class, which are two training clips each; None: all 99."""
    settings = {"model.fusion": config} | ({"data.shots": shots} if shots else {})
    clips = 2 * shots if shots else 99
    folder = write_finished_run(config, seed, scores, settings=settings, train_num_videos=clips, **changes)
    return folder.rename(folder.with_name(f"seed{seed}_shots{shots}")) if shots else folder


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def curve_rows(**conditions: str) -> list[dict[str, str]]:
    rows = read_csv(Path("results/few_shot.csv"))
    return [row for row in rows if all(row[key] == value for key, value in conditions.items())]


def test_curve_matches_scikit_learn(workspace: Path) -> None:
    """Two seeds of one and of five shots, and of all clips; rgb alone has no few-shot run, so no curve."""
    write_finished_run("rgb", 1, noisy_scores(9, 1.0))
    scores = {}
    for shots, noise in ((1, 2.0), (5, 1.0), (None, 0.5)):
        for seed in (1, 2):
            folder = write_few_shot_run("motion", seed, shots, noisy_scores(10 * seed + (shots or 0), noise))
            scores[shots, seed] = predictions_csv.read(folder / "predictions.csv").scores
    _, text = make_table("--resamples", "40")
    rows = curve_rows()
    assert {row["config"] for row in rows} == {"motion"}
    assert [(row["shots"], row["train_videos"], row["seeds"], row["num_videos"]) for row in rows] == [
        ("1", "2", "2", "30"),
        ("5", "10", "2", "30"),
        ("all", "99", "2", "30"),
    ]
    drawn = metrics.bootstrap_weights(30, 40, 0)
    drawn_seeds = 1 + np.random.default_rng([0, 1]).integers(0, 2, (40, 2))  # each resample draws seeds too
    (macro_line, _) = [line for line in text.splitlines() if line.startswith("| motion |") and "[" in line][-2:]
    for row, shots in zip(rows, (1, 5, None), strict=True):
        for column, metric in enumerate(METRICS):
            values = [sklearn_average_precisions(scores[shots, seed], np.ones(30))[column] for seed in (1, 2)]
            resampled = [
                np.mean([sklearn_average_precisions(scores[shots, seed], weights)[column] for seed in seeds])
                for weights, seeds in zip(drawn, drawn_seeds, strict=True)
            ]
            interval = np.percentile(resampled, [2.5, 97.5]) + np.mean(values) - np.mean(resampled)
            expected = [np.mean(values), *interval]
            assert [float(row[f"{metric}{end}"]) for end in ("", "_low", "_high")] == pytest.approx(expected, abs=5e-5)
        value, low, high = (float(row[f"map_macro{end}"]) for end in ("", "_low", "_high"))
        assert f"| {value:.2f} [{low:.2f}, {high:.2f}] |" in macro_line
    assert Path("checkpoints/TFAM/few_shot.csv").read_text() == Path("results/few_shot.csv").read_text()


def test_without_few_shot_runs_there_is_no_curve(workspace: Path) -> None:
    folder = write_few_shot_run("rgb", 1, 5, noisy_scores(2, 1.0))
    write_finished_run("rgb", 1, noisy_scores(1, 1.0))
    _, text = make_table("--resamples", "2")
    assert "Few-shot" in text
    folder.rename("elsewhere")
    _, text = make_table("--resamples", "2")
    assert "Few-shot" not in text  # and the files of before are gone
    assert not Path("results/few_shot.csv").exists() and not Path("checkpoints/TFAM/few_shot.csv").exists()


def test_runs_that_differ_in_more_than_shots_have_curves_of_their_own(workspace: Path) -> None:
    write_few_shot_run("rgb", 1, 1, noisy_scores(1, 1.0))
    write_few_shot_run("rgb", 2, 1, noisy_scores(2, 1.0), protocol="published")
    write_few_shot_run("rgb", 2, None, noisy_scores(3, 1.0), protocol="published")
    # the remark is of few-shot runs only: the run of all clips belongs to the curve
    write_few_shot_run("motion", 1, 1, noisy_scores(4, 1.0), student_has_more_labels=True)
    write_few_shot_run("motion", 1, None, noisy_scores(5, 1.0))
    _, text = make_table("--resamples", "0")
    assert [(row["config"], row["protocol"], row["shots"]) for row in curve_rows()] == [
        ("rgb", "held_out", "1"),
        ("rgb", "published", "1"),
        ("rgb", "published", "all"),
        ("motion", "held_out, student of more labels", "1"),
        ("motion", "held_out, student of more labels", "all"),
    ]
    assert {row["map_macro_low"] for row in curve_rows()} == {""}
    assert "student of more labels: " in text


def test_a_curve_without_labels_has_no_interval_but_a_reason(workspace: Path) -> None:
    write_few_shot_run("rgb", 1, 1, noisy_scores(1, 1.0))
    Path("val-30.h5").unlink()
    _, text = make_table("--resamples", "5")
    (row,) = curve_rows()
    assert row["map_macro"] and row["map_macro_low"] == ""
    assert "val-30.h5" in text
