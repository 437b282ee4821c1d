"""evaluate.py on runs with a calibration.json: metrics of calibrated and of raw scores, against scikit-learn."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, log_loss
from torchmetrics.classification import BinaryCalibrationError

import evaluate
from tests.evaluation.test_evaluate import (
    CLASSES,
    FAST,
    SCORES,
    TRAIN,
    VAL,
    make_run,
    names,
    read_rows,
    write_annotations,
    write_csv,
)
from vimoclip import metrics
from vimoclip.errors import UserError
from vimoclip.evaluation import Evaluation

SLOPES, INTERCEPTS = np.array([0.5, 2.0, 0.8, 0.8]), np.array([1.0, -1.5, 0.0, 0.0])
SCALINGS, POSITIVES = ("platt", "platt", "temperature", "temperature"), (12, 10, 9, 0)


def calibrate(scores: np.ndarray, slopes: np.ndarray = SLOPES, intercepts: np.ndarray = INTERCEPTS) -> np.ndarray:
    """The formula, without logits: odds to the power of the slope, times e to the intercept."""
    odds = (scores / (1 - scores)) ** slopes * np.exp(intercepts)
    return odds / (1 + odds)


def write_calibration(
    run: Path, slopes: np.ndarray = SLOPES, intercepts: np.ndarray = INTERCEPTS, **changes: Any
) -> Path:
    rows = zip(CLASSES, SCALINGS, slopes.tolist(), intercepts.tolist(), POSITIVES, strict=True)
    document = {
        "schema": 1,
        "method": "platt",
        "temperature": 1.25,
        "num_videos": 31,
        "folds": 5,
        "by_sources": False,
        "cross_validated_log_loss": {"none": 0.6, "temperature": 0.5, "platt": 0.4},
        "classes": {
            name: {"scaling": scaling, "slope": a, "intercept": b, "positives": positives, "threshold": 0.5}
            for name, scaling, a, b, positives in rows
        },
        "versions": {},
    }
    path = run / "calibration.json"
    path.write_text(json.dumps(document | changes))
    return path


class EvaluationData:
    """A data set of 60 evaluation and 40 selection clips; `scores`, `targets` (60, 4) and those of selection."""

    def __init__(self, folder: Path):
        rng = np.random.default_rng(5)
        self.folder = folder
        self.videos, self.selection_videos = (
            [f"{name}{i}.mp4" for i in range(n)] for name, n in (("v", 60), ("s", 40))
        )
        self.targets, self.selection_targets = (rng.random((n, 4)) < [0.5, 0.3, 0.2, 0.1] for n in (60, 40))
        self.targets[0] = self.selection_targets[0] = True
        self.scores, self.selection_scores = (
            np.round(1 / (1 + np.exp(1 - 2 * t - rng.normal(0, 1.5, t.shape))), 6)
            for t in (self.targets, self.selection_targets)
        )
        labels, selection = (
            {video: np.flatnonzero(row).tolist() for video, row in zip(videos, rows, strict=True)}
            for videos, rows in ((self.videos, self.targets), (self.selection_videos, self.selection_targets))
        )
        self.annotations_dir = write_annotations(
            folder / "zoo" / "annotations", {**TRAIN, **selection}, labels, self.selection_videos
        )

    def make_run(self, name: str, **more: Any) -> Path:
        run = make_run(self.folder / "runs" / name, self.annotations_dir, **more)
        write_csv(run / "predictions.csv", dict(zip(self.videos, self.scores, strict=True)))
        write_csv(
            run / "selection_predictions.csv", dict(zip(self.selection_videos, self.selection_scores, strict=True))
        )
        return run


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EvaluationData:
    monkeypatch.chdir(tmp_path)
    return EvaluationData(tmp_path)


def run_script(*arguments: Path | str) -> Evaluation:
    return evaluate.main([*map(str, arguments), *FAST])


def check_calibration(entries: dict[str, Any], scores: np.ndarray, targets: np.ndarray) -> None:
    """Assert that ECE, log loss and bins are those of the scores."""
    error = BinaryCalibrationError(n_bins=15)(torch.tensor(scores.ravel()), torch.tensor(targets.ravel()).int())
    assert entries["ece"]["value"] == pytest.approx(float(error), abs=1e-5)
    assert entries["log_loss"]["value"] == pytest.approx(log_loss(targets.ravel(), scores.ravel()))
    means = [b["mean_score"] * b["count"] for b in entries["bins"] if b["count"]]
    assert sum(means) == pytest.approx(scores.sum())


def test_every_metric_is_of_calibrated_scores(dataset: EvaluationData, capsys: pytest.CaptureFixture[str]) -> None:
    run = dataset.make_run("seed49")
    write_calibration(run)
    result = run_script(run)
    printed = capsys.readouterr().out
    calibrated, targets = calibrate(dataset.scores), dataset.targets
    np.testing.assert_allclose(result.scores, calibrated, rtol=1e-9)
    np.testing.assert_allclose(result.raw_scores, dataset.scores, rtol=1e-9)
    numbers = json.loads((run / "evaluation" / "metrics.json").read_text())
    calibration, raw = numbers["calibration"], numbers["calibration"]["raw"]
    check_calibration(calibration, calibrated, targets)
    check_calibration(raw, dataset.scores, targets)
    assert (calibration["method"], calibration["num_videos"]) == ("platt", 31)
    assert calibration["cross_validated_log_loss"] == {"none": 0.6, "temperature": 0.5, "platt": 0.4}
    micro, raw_micro = (average_precision_score(targets.ravel(), x.ravel()) for x in (calibrated, dataset.scores))
    assert numbers["map_micro"]["value"] == pytest.approx(micro)
    assert raw["map_micro"]["value"] == pytest.approx(raw_micro) != pytest.approx(micro)
    for average in ("macro", "micro"):
        f1 = f1_score(targets, calibrated >= 0.5, average=average)
        assert numbers[f"f1_{average}_at_0.5"]["value"] == pytest.approx(f1)
    assert numbers["hit_at_1"]["value"] == pytest.approx(
        (targets[np.arange(60), calibrated.argmax(1)] & targets.any(1)).sum() / targets.any(1).sum()
    )
    thresholds = metrics.fit_thresholds(calibrate(dataset.selection_scores), dataset.selection_targets)
    assert [row["threshold"] for row in result.per_class] == pytest.approx(thresholds.tolist())
    fitted = f1_score(targets, calibrated >= thresholds, average="macro")
    assert numbers["f1_macro_at_fitted_thresholds"]["value"] == pytest.approx(fitted)
    assert names(numbers["notes"], "Platt", "31", "hit@1", f"{raw_micro:.4f}")
    for entry in (calibration["ece"], raw["ece"], calibration["log_loss"], raw["log_loss"], raw["map_micro"]):
        assert f"{entry['value']:.4f}" in printed


def test_average_precisions_of_classes_and_all_numbers_with_raw_are_those_without_calibration(
    dataset: EvaluationData,
) -> None:
    run = dataset.make_run("seed49")
    without = run_script(run)
    write_calibration(run, slopes=SLOPES * 60)  # float64 rounds many of the calibrated scores to 1
    calibrated, raw = run_script(run), run_script(run, "--raw")
    assert (calibrated.scores == 1).sum() > 10
    assert calibrated.metrics["map_macro"] == without.metrics["map_macro"]
    for key in ("ap", "ap_low", "ap_high"):
        assert [row[key] for row in calibrated.per_class] == [row[key] for row in without.per_class]
    del raw.metrics["command"], without.metrics["command"]
    assert raw.metrics == without.metrics
    assert raw.per_class == without.per_class
    assert raw.metrics["calibration"]["method"] is raw.metrics["calibration"]["raw"] is None
    check_calibration(raw.metrics["calibration"], dataset.scores, dataset.targets)


def test_columns_of_per_class_csv(dataset: EvaluationData) -> None:
    run = dataset.make_run("seed49")
    write_calibration(run)
    run_script(run)
    calibrated = calibrate(dataset.scores)
    rows = read_rows(run / "evaluation" / "per_class.csv")
    columns = ["ece", "ece_raw", "log_loss", "log_loss_raw", "scaling", "selection_positives"]
    for c, row in enumerate(rows.values()):
        assert list(row)[-6:] == columns
        for suffix, scores in (("", calibrated), ("_raw", dataset.scores)):
            column = torch.tensor(scores[:, c]), torch.tensor(dataset.targets[:, c]).int()
            error = float(BinaryCalibrationError(n_bins=15)(*column))
            assert float(row[f"ece{suffix}"]) == pytest.approx(error, abs=1e-5)
            loss = log_loss(dataset.targets[:, c], scores[:, c])
            assert float(row[f"log_loss{suffix}"]) == pytest.approx(loss, rel=1e-5)
        assert (row["scaling"], row["selection_positives"]) == (SCALINGS[c], str(POSITIVES[c]))
    run_script(run, "--raw")
    for row in read_rows(run / "evaluation" / "per_class.csv").values():
        assert [bool(row[name]) for name in columns] == [True, False, True, False, False, False]


def test_log_loss_has_an_interval_and_chance_levels(dataset: EvaluationData) -> None:
    run = dataset.make_run("seed49")
    certain = np.where(np.random.default_rng(0).random(dataset.targets.shape) < 0.1, ~dataset.targets, dataset.targets)
    write_csv(run / "predictions.csv", dict(zip(dataset.videos, certain.astype(float), strict=True)))
    entry = run_script(run).metrics["calibration"]["log_loss"]
    low, high = entry["ci95"]
    assert 1 < low < entry["value"] < high  # nats, not a fraction
    assert entry["value"] == pytest.approx(log_loss(dataset.targets.ravel(), certain.ravel().astype(float)))
    prevalences = np.array([3, 1, 1, 0]) / 4  # the training clips that are not in the model-selection split
    constant = np.tile(prevalences, (60, 1))
    assert entry["baseline"] == pytest.approx(log_loss(dataset.targets.ravel(), constant.ravel()))
    assert entry["random"] == pytest.approx(1, abs=0.05)  # the mean of -log(u) of uniform u


def test_a_calibration_that_changes_nothing_leaves_scores_exactly(
    dataset: EvaluationData, capsys: pytest.CaptureFixture[str]
) -> None:
    run = dataset.make_run("seed49")
    without = run_script(run)
    printed = capsys.readouterr().out
    write_calibration(run, np.ones(4), np.zeros(4), method="none")
    result = run_script(run)
    rows = [[line for line in text.splitlines() if " to " in line] for text in (printed, capsys.readouterr().out)]
    assert len(rows[0]) > 5 and rows[0] == rows[1]  # no row is repeated
    assert (result.scores == without.scores).all()
    assert result.metrics["calibration"]["method"] == "none"
    assert (
        result.metrics["map_micro"] == without.metrics["map_micro"] == result.metrics["calibration"]["raw"]["map_micro"]
    )
    assert not names(result.metrics["notes"], "table.csv")


def test_one_temperature_changes_calibration_error_and_log_loss_alone(dataset: EvaluationData) -> None:
    run = dataset.make_run("seed49")
    without = run_script(run).metrics
    write_calibration(run, np.full(4, 0.4), np.zeros(4), method="temperature")
    result = run_script(run).metrics
    assert names(result["notes"], "31") and not names(result["notes"], "table.csv")
    different = {key for key in without if result[key] != without[key]}
    assert different == {"calibration", "notes"}
    assert result["calibration"]["ece"] != without["calibration"]["ece"] == result["calibration"]["raw"]["ece"]


def test_each_side_of_a_comparison_has_its_own_calibration(dataset: EvaluationData) -> None:
    first, second = dataset.make_run("seed49"), dataset.make_run("seed50")
    write_calibration(first)
    # the second run's raw scores are the calibrated scores of the first
    calibrated = calibrate(dataset.scores)
    table = write_csv(dataset.folder / "calibrated.csv", dict(zip(dataset.videos, calibrated, strict=True)))
    write_csv(second / "predictions.csv", dict(zip(dataset.videos, calibrated, strict=True)))
    write_calibration(second, np.ones(4), np.zeros(4))

    def micro(*arguments: Path | str) -> float:
        return run_script(*arguments).metrics["comparison"]["map_micro"]["difference"]

    assert micro(first, "--compare", second) == pytest.approx(0)
    assert micro(first, "--compare", table) == pytest.approx(0)  # a CSV is taken as it is
    gain = micro(first, "--compare", second, "--raw")
    averages = [average_precision_score(dataset.targets.ravel(), x.ravel()) for x in (dataset.scores, calibrated)]
    assert gain == pytest.approx(averages[0] - averages[1]) != pytest.approx(0)
    write_calibration(second)
    twice = average_precision_score(dataset.targets.ravel(), calibrate(calibrated).ravel())
    assert micro(first, "--compare", second) == pytest.approx(averages[1] - twice)
    compared = run_script(first, "--compare", second).metrics
    assert compared["comparison"]["other_calibration"] == "platt"
    mixed = run_script(first, "--compare", table).metrics
    assert mixed["comparison"]["other_calibration"] is None
    assert names(mixed["notes"], "--raw") and not names(compared["notes"], "--raw")
    write_calibration(second, np.full(4, 0.4), np.zeros(4), method="temperature")  # which leaves micro AP as it is
    assert not names(run_script(second, "--compare", table).metrics["notes"], "--raw")
    assert names(run_script(first, "--compare", second).metrics["notes"], "--raw")


def test_a_damaged_calibration_is_refused_unless_raw(dataset: EvaluationData) -> None:
    run = dataset.make_run("seed49")
    path = write_calibration(run, schema=2)
    with pytest.raises(UserError, match="--raw") as error:
        run_script(run)
    assert error.value.path == str(path)
    run_script(run, "--raw")


def test_predictions_in_a_csv_beside_a_calibration_are_taken_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_annotations(tmp_path / "dataset" / "annotations", TRAIN, VAL)
    write_calibration(tmp_path)
    result = run_script(write_csv(Path("p.csv"), SCORES))
    assert result.scores.tolist() == list(SCORES.values()) and result.metrics["calibration"]["method"] is None
