"""evaluate.py: files, exit codes, and metrics against numbers worked by hand and scikit-learn."""

import csv
import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score
from torchmetrics.classification import BinaryCalibrationError

import evaluate
from tests.conftest import REPOSITORY
from vimoclip import annotations, metrics
from vimoclip.annotations import Annotations
from vimoclip.annotations.split_protocol import PROTOCOL_NOTES
from vimoclip.errors import UserError
from vimoclip.io import csv as csv_files

CLASSES = ("walk", "run, fast", "eat", "7")
FAST = ["--resamples", "50"]
Labels = Mapping[str, Sequence[int]]


def write_annotations(
    folder: Path, train: Labels, val: Labels, selection: Sequence[str] = (), segments: bool = False
) -> Path:
    splits = {
        split: {video: tuple(labels) for video, labels in videos.items()}
        for split, videos in (("train", train), ("val", val))
    }
    partitions = {"segment": ("head", "head", "tail", "tail")} if segments else {}
    annotations.write(folder, "zoo", Annotations(CLASSES, splits, partitions, tuple(selection)))
    return folder


def write_csv(path: Path, rows: Mapping[str, Sequence[Any]], header: Sequence[str] = CLASSES) -> Path:
    return csv_files.write_csv(path, ["video_id", *header], [[video, *row] for video, row in rows.items()])


TRAIN = {"t0.mp4": [0], "t1.mp4": [0, 1], "t2.mp4": [2], "t3.mp4": [0]}
VAL = {"a.mp4": [0], "b.mp4": [0, 1], "c.mp4": [1], "d.mp4": [2]}
SCORES = {
    "a.mp4": [0.9, 0.6, 0.1, 0.2],
    "b.mp4": [0.7, 0.8, 0.2, 0.2],
    "c.mp4": [0.8, 0.4, 0.3, 0.2],
    "d.mp4": [0.1, 0.2, 0.9, 0.2],
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def annotations_dir(folder: Path) -> Path:
    return write_annotations(folder / "dataset" / "annotations", TRAIN, VAL)


def names(notes: Sequence[str], *words: str) -> bool:
    """Whether a note has all words: names of clips and classes, and numbers."""
    return any(all(word in note for word in words) for note in notes)


def read_rows(path: Path) -> dict[str, dict[str, str]]:
    with open(path, newline="") as file:
        return {row["class"]: row for row in csv.DictReader(file)}


def test_metrics_of_a_small_example_worked_by_hand(annotations_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate.main([str(write_csv(Path("p.csv"), SCORES)), *FAST])
    result = json.loads(Path("p_evaluation/metrics.json").read_text())
    # walk: a +, c -, b +: 1/1 and 2/3; run: b +, a -, c +: 1 and 2/3; eat: d first
    macro = ((1 + 2 / 3) / 2 + (1 + 2 / 3) / 2 + 1) / 3
    assert result["map_macro"]["value"] == pytest.approx(macro)
    assert result["map_macro"]["classes"] == 3 and result["num_classes"] == 4
    # pooled: .9 .9 ++, .8 .8 +-, .7 +, .6 -, .4 + ...
    assert result["map_micro"]["value"] == pytest.approx((2 * 1 + 3 / 4 + 4 / 5 + 5 / 7) / 5)
    assert result["torchmetrics_macro"]["value"] == pytest.approx(macro * 3 / 4)
    # constant: an AP is the share of positives among the clips; pooled by training prevalences 3/4, 1/4, 1/4, 0
    assert result["map_macro"]["baseline"] == pytest.approx((2 / 4 + 2 / 4 + 1 / 4) / 3)
    assert result["map_micro"]["baseline"] == pytest.approx((2 * 2 / 4 + 3 * 5 / 12) / 5)
    # predicted at 0.5: walk a b c, run a b, eat d
    assert result["f1_macro_at_0.5"]["value"] == pytest.approx((4 / 5 + 1 / 2 + 1) / 3)
    assert result["f1_micro_at_0.5"]["value"] == pytest.approx(2 * 4 / (6 + 5))
    assert result["hit_at_1"]["value"] == pytest.approx(3 / 4)
    assert result["precision_at_3"]["value"] == pytest.approx((1 + 2 + 1 + 1) / 12)
    assert result["top1"] is None  # b has two labels
    assert result["precision_at_5"]["value"] is result["precision_at_5"]["ci95"] is None  # there are four classes
    assert result["f1_macro_at_fitted_thresholds"] is None
    assert result["protocol"] is None and result["comparison"] is None
    for name in ("map_macro", "map_micro", "hit_at_1", "f1_micro_at_0.5"):
        low, high = result[name]["ci95"]
        assert 0 <= low <= result[name]["value"] <= high <= 1
    rows = read_rows(Path("p_evaluation/per_class.csv"))
    assert list(rows) == list(CLASSES)
    assert rows["run, fast"]["positives"] == "2" and float(rows["run, fast"]["train_prevalence"]) == 0.25
    assert rows["7"]["ap"] == "" and rows["7"]["positives"] == "0"
    assert float(rows["walk"]["ap"]) == pytest.approx(5 / 6, abs=1e-5)
    output = capsys.readouterr().out
    assert f"{macro:.4f}" in output and "report.html" in output
    page = Path("p_evaluation/report.html").read_text(encoding="utf-8")
    assert "run, fast" in page


def check_intervals(scores: np.ndarray, targets: np.ndarray, result: Mapping[str, Any]) -> None:
    """Assert that intervals are the percentiles of scikit-learn's values, shifted to the value of all clips."""

    def averages(weights: np.ndarray) -> list[float]:
        present = [c for c in range(4) if weights[targets[:, c]].any()]  # classes with a positive in the resample
        per_class = [average_precision_score(targets[:, c], scores[:, c], sample_weight=weights) for c in present]
        pooled = average_precision_score(targets.ravel(), scores.ravel(), sample_weight=weights.repeat(4))
        return [float(np.mean(per_class)), float(pooled)]

    resampled = np.array([averages(weights) for weights in metrics.bootstrap_weights(len(scores), 50, 0)])
    for values, name in zip(resampled.T, ("map_macro", "map_micro"), strict=True):
        plain = np.percentile(values, [2.5, 97.5])
        assert result[name]["ci95"] == pytest.approx((plain + result[name]["value"] - values.mean()).tolist())
        assert result[name]["ci95"] != pytest.approx(plain.tolist(), abs=1e-4)


def test_against_scikit_learn(folder: Path) -> None:
    rng = np.random.default_rng(3)
    targets = rng.random((60, 4)) < [0.5, 0.3, 0.1, 0.1]
    scores = np.round(np.clip(0.4 * targets + rng.random((60, 4)) * 0.6, 0, 1), 1)  # ties
    names = [f"v{i}.mp4" for i in range(60)]
    val = {name: np.flatnonzero(row).tolist() for name, row in zip(names, targets, strict=True)}
    write_annotations(folder / "annotations", TRAIN, val)
    path = write_csv(folder / "p.csv", dict(zip(names, scores, strict=True)))
    result = evaluate.main([str(path), "--annotations-dir", "annotations", *FAST]).metrics
    per_class = [average_precision_score(targets[:, c], scores[:, c]) for c in range(4)]
    assert result["map_macro"]["value"] == pytest.approx(np.mean(per_class))
    assert result["map_micro"]["value"] == pytest.approx(average_precision_score(targets.ravel(), scores.ravel()))
    check_intervals(scores, targets, result)
    error = BinaryCalibrationError(n_bins=15)(torch.tensor(scores.ravel()), torch.tensor(targets.ravel()).int())
    assert result["calibration"]["ece"]["value"] == pytest.approx(float(error), abs=1e-6)
    assert len(result["calibration"]["bins"]) == 15
    for average in ("macro", "micro"):
        expected = f1_score(targets, scores >= 0.5, average=average)
        assert result[f"f1_{average}_at_0.5"]["value"] == pytest.approx(expected)


def test_a_perfect_a_constant_and_a_random_predictor(annotations_dir: Path) -> None:
    perfect = {video: [float(c in labels) for c in range(4)] for video, labels in VAL.items()}
    result = evaluate.main([str(write_csv(Path("perfect.csv"), perfect)), *FAST]).metrics
    assert result["map_macro"]["value"] == result["map_micro"]["value"] == 1
    assert result["map_macro"]["ci95"] == [1, 1]
    assert result["calibration"]["ece"]["value"] == 0
    assert names(result["notes"], "walk", "eat")  # an AP of 1 is suspicious
    constant = {video: [0.75, 0.25, 0.25, 0.0] for video in VAL}  # the training prevalences
    perfect_notes = result["notes"]
    result = evaluate.main([str(write_csv(Path("constant.csv"), constant)), *FAST]).metrics
    for name in ("map_macro", "map_micro", "hit_at_1", "f1_micro_at_0.5", "precision_at_3"):
        assert result[name]["value"] == pytest.approx(result[name]["baseline"]), name
    assert set(result["notes"]) - set(perfect_notes)  # the scores do not depend on the clips
    assert result["hit_at_1"]["random"] == pytest.approx(5 / 16, abs=0.15)
    # one positive among four clips, at each rank as likely: (1 + 1/2 + 1/3 + 1/4) / 4
    rows = read_rows(Path("constant_evaluation/per_class.csv"))
    assert float(rows["eat"]["ap_random"]) == pytest.approx(25 / 48, abs=1e-5)


def test_columns_by_id_in_any_order_file_stems_and_logits_give_equal_results(annotations_dir: Path) -> None:
    first = evaluate.main([str(write_csv(Path("p.csv"), SCORES)), *FAST])
    order = [2, 0, 3, 1]
    logits = {v[:-4]: [np.log(row[c] / (1 - row[c])) for c in order] for v, row in reversed(SCORES.items())}
    path = write_csv(Path("ids.csv"), logits, [str(c) for c in order])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # the byte order mark of Excel
    second = evaluate.main([str(path), "--logits", *FAST])
    assert np.allclose(first.scores, second.scores)
    assert first.metrics["map_macro"]["ci95"] == pytest.approx(second.metrics["map_macro"]["ci95"])


def replace_rows(**rows: Any) -> dict[str, Sequence[Any]]:
    """SCORES with replaced or added rows; None removes a row."""
    unchanged = {v: r for v, r in SCORES.items() if v[:-4] not in rows}
    return unchanged | {f"{name}.mp4": row for name, row in rows.items() if row is not None}


WITH_A_COLUMN = {v: [*r, 0] for v, r in SCORES.items()}


@pytest.mark.parametrize(
    ("rows", "header", "words"),
    [
        (replace_rows(a=None, b=None), CLASSES, ["2 ", "a.mp4, b.mp4"]),
        (replace_rows(z=[0.1] * 4), CLASSES, ["1 ", "z.mp4"]),
        ({**SCORES, "a": [0.1] * 4}, CLASSES, ["1 ", "(a)"]),
        ({**SCORES, "b.mp4 ": [0] * 4}, CLASSES, ["1 ", "b.mp4"]),
        (replace_rows(a=["nan", 0.1, "", "x"]), CLASSES, ["3 ", "a.mp4, walk: nan"]),
        (replace_rows(a=[1.5, 0.1, -2, 0.1]), CLASSES, ["2 ", "a.mp4, walk: 1.5", "--logits"]),
        (replace_rows(a=[0.1] * 3), CLASSES, ["1 ", "line"]),
        (SCORES, ("walk", "run, fast", "fly", "7"), ["1 ", "eat"]),
        (WITH_A_COLUMN, (*CLASSES, "fly"), ["1 ", "fly"]),
        (SCORES, ("walk", "eat", "eat", "7"), ["1 ", "eat"]),
        (SCORES, ("0", "1", "2", "9"), ["1 ", "(3)"]),
        (WITH_A_COLUMN, ("0", "1", "01", "2", "3"), ["01"]),
        ({v: [0, *r] for v, r in SCORES.items()}, ("", *CLASSES), ["2 "]),
        ({}, CLASSES, []),
    ],
)
def test_invalid_predictions_are_counted_and_named(
    annotations_dir: Path, rows: Mapping[str, Sequence[Any]], header: Sequence[str], words: list[str]
) -> None:
    with pytest.raises(UserError) as error:
        evaluate.main([str(write_csv(Path("p.csv"), rows, header)), *FAST])
    assert error.value.path == "p.csv"
    for word in words:
        assert word in str(error.value), error.value
    assert not Path("p_evaluation").exists()


def test_an_error_is_one_line_with_exit_code_2(annotations_dir: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "evaluate.py"), "nothing.csv"]
    env = {"PYTHONPATH": str(REPOSITORY)}
    completed = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)
    assert completed.returncode == 2 and len(completed.stderr.splitlines()) == 1, completed.stderr


@pytest.mark.parametrize(
    ("argv", "path"),
    [
        (["nothing.csv"], "nothing.csv"),
        (["dataset/annotations"], "dataset/annotations"),
        (["p.csv", "--videos-dir", "nowhere"], "nowhere"),
        (["p.csv", "--flow-videos-dir", "nowhere"], "nowhere"),
    ],
)
def test_invalid_paths_are_named(annotations_dir: Path, argv: list[str], path: str) -> None:
    write_csv(Path("p.csv"), SCORES)
    with pytest.raises(UserError) as error:
        evaluate.main([*argv, *FAST])
    assert error.value.path == path


def test_output_is_deterministic_and_the_seed_changes_intervals_only(annotations_dir: Path) -> None:
    path = str(write_csv(Path("p.csv"), SCORES))
    evaluate.main([path, *FAST])
    first = {p.name: p.read_bytes() for p in Path("p_evaluation").iterdir()}
    evaluate.main([path, *FAST])
    assert {p.name: p.read_bytes() for p in Path("p_evaluation").iterdir()} == first
    other = evaluate.main([path, "--compare", path, *FAST, "--seed", "1"]).metrics
    assert other["comparison"]["map_macro"] == {"difference": 0, "ci95": [0, 0]} == other["comparison"]["map_micro"]
    assert other["comparison"]["gained"] == other["comparison"]["lost"] == []
    assert other["map_micro"]["ci95"] != json.loads(first["metrics.json"])["map_micro"]["ci95"]
    assert other["map_micro"]["value"] == json.loads(first["metrics.json"])["map_micro"]["value"]


def test_a_comparison_lists_the_classes_that_gained_and_lost(
    annotations_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worse = {v: [1 - r[0], r[1], r[2], r[3]] for v, r in SCORES.items()}  # inverted scores of walk
    first, second = write_csv(Path("p.csv"), SCORES), write_csv(Path("q.csv"), worse)
    result = evaluate.main([str(first), "--compare", str(second), *FAST]).metrics["comparison"]
    inverted_ap = average_precision_score([1, 1, 0, 0], [0.1, 0.3, 0.2, 0.9])
    assert [row["class"] for row in result["gained"]] == ["walk"] and not result["lost"]
    assert result["gained"][0]["difference"] == pytest.approx(5 / 6 - inverted_ap)
    assert result["map_macro"]["difference"] == pytest.approx((5 / 6 - inverted_ap) / 3)
    truth = [c in VAL[v] for v in VAL for c in range(4)]
    micro = [average_precision_score(truth, [x for v in VAL for x in table[v]]) for table in (SCORES, worse)]
    assert result["map_micro"]["difference"] == pytest.approx(micro[0] - micro[1]) and micro[0] != micro[1]
    assert result["gained"][0]["ci95"] is None  # of two clips
    assert (result["other"], result["other_protocol"], result["num_videos"]) == ("q.csv", None, 4)
    assert result["other_sha256"] == hashlib.sha256(second.read_bytes()).hexdigest()
    assert result["gained"][0]["positives"] == 2 and "walk (2 clips)" in capsys.readouterr().out
    reverse = evaluate.main([str(second), "--compare", str(first), *FAST]).metrics["comparison"]
    assert reverse["map_macro"]["ci95"] == pytest.approx([-x for x in reversed(result["map_macro"]["ci95"])])
    write_csv(second, replace_rows(a=None))
    with pytest.raises(UserError, match=r"\(a\.mp4\)") as error:
        evaluate.main([str(first), "--compare", str(second), *FAST])
    assert error.value.path == str(second)


def test_without_positives_values_and_differences_are_null(folder: Path) -> None:
    write_annotations(folder / "dataset" / "annotations", TRAIN, {video: [] for video in VAL})
    path = str(write_csv(Path("p.csv"), SCORES))
    result = evaluate.main([path, "--compare", path, *FAST]).metrics
    assert result["videos_with_a_label"] == 0
    assert result["map_macro"]["value"] is result["map_micro"]["value"] is None
    assert result["comparison"]["map_macro"] == {"difference": None, "ci95": None}


def make_run(folder: Path, annotations_dir: Path, **more: Any) -> Path:
    """Write the files of a finished TFAM run."""
    folder.mkdir(parents=True)
    write_csv(folder / "predictions.csv", SCORES)
    embeddings = annotations_dir.parent / "embeddings" / "zoo_val_clip_embeddings.h5"
    (folder / "config.yaml").write_text(f"data: {{rgb_val_h5: {embeddings}}}\n")
    run_metrics = {"map_macro": 0.5, "epoch_chosen_by": "map_micro on some clips", "protocol": "held_out", **more}
    (folder / "metrics.json").write_text(json.dumps(run_metrics))
    return folder


def test_a_run_folder_provides_its_protocol_and_annotations(folder: Path) -> None:
    annotations_dir = write_annotations(folder / "zoo" / "annotations", TRAIN, VAL, ["t1.mp4"])
    run = make_run(folder / "rgb" / "seed49", annotations_dir)
    before = (run / "metrics.json").read_bytes()
    result = evaluate.main([str(run), *FAST])
    assert (run / "metrics.json").read_bytes() == before
    assert (run / "evaluation" / "metrics.json").is_file() and result.title == "rgb/seed49"
    assert result.metrics["protocol"] == "held_out"
    assert result.metrics["epoch_chosen_on"] == "map_micro on some clips"
    # t1, of the model-selection split, was not trained on, so it doesn't count in the constant predictor's prevalences
    assert [row["train_positives"] for row in result.per_class] == [2, 0, 1, 0]
    with pytest.raises(UserError, match="--output-dir"):
        evaluate.main([str(run), "--output-dir", str(run)])
    published = make_run(folder / "rgb" / "seed50", annotations_dir, protocol="published")
    assert PROTOCOL_NOTES["published"] in evaluate.main([str(published), *FAST]).metrics["notes"]
    for other, is_noted in ((published, True), (run, False)):
        run_notes = evaluate.main([str(run), "--compare", str(other), *FAST]).metrics["notes"]
        assert names(run_notes, "held_out", "published") == is_noted
    with pytest.raises(UserError, match="--logits"):
        evaluate.main([str(run), "--logits", *FAST])
    # --logits applies to the CSV only: a run holds probabilities
    logits = write_csv(folder / "l.csv", {v: [np.log(x / (1 - x)) for x in row] for v, row in SCORES.items()})
    compared = evaluate.main([str(run), "--compare", str(logits), "--logits", *FAST]).metrics
    assert compared["f1_macro_at_0.5"] == result.metrics["f1_macro_at_0.5"]
    assert compared["comparison"]["map_macro"]["difference"] == pytest.approx(0)
    (run / "metrics.json").write_text("[]")
    with pytest.raises(UserError) as error:
        evaluate.main([str(run), *FAST])
    assert error.value.path == str(run / "metrics.json")
    (run / "metrics.json").unlink()  # not finished
    with pytest.raises(UserError, match=r"metrics\.json") as error:
        evaluate.main([str(run), *FAST])
    assert error.value.path == str(run)


def test_clips_that_a_run_left_out_are_named_in_a_note(folder: Path) -> None:
    annotations_dir = write_annotations(
        folder / "zoo" / "annotations", TRAIN, {**VAL, "e.mp4": [0], "f.mp4": [1]}, ["t1.mp4"]
    )
    run = make_run(folder / "rgb" / "seed49", annotations_dir, left_out_videos={"e.mp4": "has one frame, so no motion"})
    with pytest.raises(UserError, match=r"\(f\.mp4\)"):
        evaluate.main([str(run), *FAST])
    write_csv(run / "predictions.csv", {**SCORES, "f.mp4": [0.1] * 4})
    result = evaluate.main([str(run), *FAST]).metrics
    assert result["num_videos"] == 5
    assert names(result["notes"], "1 (e.mp4)")
    write_csv(run / "predictions.csv", SCORES)
    result = evaluate.main([str(run), "--allow-missing", *FAST, "--report", "report.json"]).metrics
    assert result["num_videos"] == 4
    counts = json.loads(Path("report.json").read_text())
    assert (counts["done"], counts["failed"], counts["unit"]) == (4, {}, "video")
    assert counts["skipped"].keys() == {"e.mp4", "f.mp4"}
    assert counts["skipped"]["e.mp4"] == "has one frame, so no motion"  # the run's reason
    assert [Path(path).name for path in counts["outputs"]] == ["metrics.json", "per_class.csv", "report.html"]
    assert all(Path(path).is_file() for path in counts["outputs"])
    assert names(result["notes"], "2 (e.mp4, f.mp4)")


def test_thresholds_are_fitted_on_the_model_selection_split_only(folder: Path) -> None:
    selection = {"s0.mp4": [0], "s1.mp4": [1], "s2.mp4": [2]}
    annotations_dir = write_annotations(folder / "zoo" / "annotations", {**TRAIN, **selection}, VAL, list(selection))
    run = make_run(folder / "rgb" / "seed49", annotations_dir)
    # walk: 0.35; on the val clips the best threshold is 0.7
    selection_scores = {"s0.mp4": [0.4, 0, 0, 0], "s1.mp4": [0.3, 0.5, 0, 0], "s2.mp4": [0.2, 0.1, 0.6, 0]}
    write_csv(run / "selection_predictions.csv", selection_scores)
    result = evaluate.main([str(run), *FAST])
    assert [row["threshold"] for row in result.per_class] == pytest.approx([0.35, 0.3, 0.3, 0.5])
    # predicted: walk a b c, run a b c, eat c d
    f1 = result.metrics["f1_macro_at_fitted_thresholds"]
    assert f1["value"] == pytest.approx((4 / 5 + 4 / 5 + 2 / 3) / 3)
    assert [row["f1_at_threshold"] for row in result.per_class] == pytest.approx([4 / 5, 4 / 5, 2 / 3, None])
    assert [row["f1_at_0.5"] for row in result.per_class] == pytest.approx([4 / 5, 1 / 2, 1, None])
    # the constant predictor's threshold is its one score, so that it predicts all three classes for each clip
    assert f1["baseline"] == pytest.approx((2 / 3 + 2 / 3 + 2 / 5) / 3)
    write_csv(folder / "other.csv", {**selection_scores, "s0.mp4": [0.2, 0, 0, 0], "s2.mp4": [0.1, 0.1, 0.6, 0]})
    other = evaluate.main([str(run), "--selection-predictions", "other.csv", *FAST])
    assert other.per_class[0]["threshold"] == pytest.approx(0.15)
    write_csv(folder / "other.csv", SCORES)
    with pytest.raises(UserError, match="4 "):
        evaluate.main([str(run), "--selection-predictions", "other.csv", *FAST])
    write_csv(folder / "bare.csv", SCORES)
    csv_arguments = ["bare.csv", "--annotations-dir", str(annotations_dir), "--selection-predictions"]
    bare = evaluate.main([*csv_arguments, str(run / "selection_predictions.csv"), *FAST])
    without = evaluate.main([*csv_arguments[:-1], *FAST])
    assert len(bare.metrics["notes"]) == len(without.metrics["notes"]) + 1  # it may have been trained on them
    write_csv(folder / "bare.csv", {video: [0.1] * 4 for video in (*TRAIN, *selection)})
    with pytest.raises(UserError, match="--split train"):
        evaluate.main([*csv_arguments, str(run / "selection_predictions.csv"), "--split", "train", *FAST])


def test_segments_and_animals(folder: Path) -> None:
    annotations_dir = write_annotations(folder / "dataset" / "annotations", TRAIN, VAL, segments=True)
    animals = {"a.mp4": "Mammal", "b.mp4": "Mammal;Bird", "c.mp4": "Bird", "d.mp4": "Mammal"}
    lines = [f"{video},x,{classes}\n" for video, classes in animals.items()]
    (annotations_dir / "animals.csv").write_text("video_id,animals,animal_classes\n" + "".join(lines))
    result = evaluate.main([str(write_csv(Path("p.csv"), SCORES)), *FAST]).metrics
    head, tail = (result["segments"]["segment"][name] for name in ("head", "tail"))
    assert head["classes"] == 2 and head["map_macro"]["value"] == pytest.approx(5 / 6)
    assert tail["classes"] == 2 and tail["map_macro"]["classes"] == 1 and tail["map_macro"]["value"] == 1
    truth = [c in VAL[v] for v in VAL for c in (0, 1)]
    scores = [score for v in VAL for score in SCORES[v][:2]]
    assert head["map_micro"]["value"] == pytest.approx(average_precision_score(truth, scores))
    bird = result["animal_classes"]["Bird"]
    assert bird["num_videos"] == 2  # b and c: walk b - after c, run b and c
    assert bird["map_macro"]["value"] == pytest.approx((1 / 2 + 1) / 2)
    assert result["animal_classes"]["Mammal"]["num_videos"] == 3
    assert names(result["notes"], "animals", " 1.")


def test_single_label_data_has_top1(folder: Path) -> None:
    val = {"a.mp4": [0], "b.mp4": [0], "c.mp4": [0], "d.mp4": [2]}
    write_annotations(folder / "dataset" / "annotations", TRAIN, val)
    result = evaluate.main([str(write_csv(Path("p.csv"), SCORES)), *FAST]).metrics
    # a is walk, b is confused with run, c is walk, d is eat
    assert result["top1"]["value"] == pytest.approx(3 / 4) == result["hit_at_1"]["value"]
    assert result["mean_per_class_top1"]["value"] == pytest.approx((2 / 3 + 1) / 2)
    assert result["mean_per_class_top1"]["baseline"] == pytest.approx((1 + 0) / 2)  # always walk


@pytest.mark.parametrize(
    ("run_metrics", "is_noted"),
    [
        ({"student_protocol": "published"}, True),
        ({"student_protocol": None}, True),
        ({"student_protocol": "held_out", "student_selection_agrees": False}, True),
        ({"student_protocol": "held_out", "student_selection_agrees": True}, False),
        ({"student_protocol": None, "fusion": "rgb"}, False),
    ],
)
def test_a_student_that_was_not_held_out_has_a_note(folder: Path, run_metrics: dict[str, Any], is_noted: bool) -> None:
    annotations_dir = write_annotations(folder / "zoo" / "annotations", TRAIN, VAL, ["t1.mp4"])
    run = make_run(folder / "fused" / "seed49", annotations_dir, **{"fusion": "cross_attention", **run_metrics})
    result = evaluate.main([str(run), *FAST]).metrics
    assert names(result["notes"], "student") == is_noted
    assert result["student_protocol"] == run_metrics["student_protocol"]


def test_classes_with_five_or_more_positives_have_an_interval(folder: Path) -> None:
    """With fewer it would be too narrow: a single positive at rank 1 has the same AP in every resample."""
    counts = [1, 4, 5, 12]
    val = {f"v{i}.mp4": [c for c in range(4) if i < counts[c]] for i in range(40)}
    write_annotations(folder / "dataset" / "annotations", TRAIN, val)
    rng = np.random.default_rng(0)
    rows = {video: (0.4 * np.isin(range(4), labels) + 0.6 * rng.random(4)).tolist() for video, labels in val.items()}
    path = str(write_csv(folder / "p.csv", rows))
    result = evaluate.main([path, "--compare", path, *FAST])
    assert [row["ap_low"] is not None for row in result.per_class] == [False, False, True, True]


def test_runs_that_left_out_different_clips_are_compared_on_common_clips(folder: Path) -> None:
    """RGB and motion differ in their clips if a clip has one frame."""
    annotations_dir = write_annotations(folder / "zoo" / "annotations", TRAIN, {**VAL, "e.mp4": [0]}, ["t1.mp4"])
    rgb, fused = (folder / name / "seed49" for name in ("rgb", "fused"))
    make_run(rgb, annotations_dir)
    write_csv(rgb / "predictions.csv", {**SCORES, "e.mp4": [0.5] * 4})
    make_run(fused, annotations_dir, left_out_videos={"e.mp4": "has one frame, so no motion"})
    write_csv(fused / "predictions.csv", {v: [1 - r[0], *r[1:]] for v, r in reversed(SCORES.items())})
    first, second = (
        evaluate.main([str(a), "--compare", str(b), *FAST]).metrics for a, b in ((rgb, fused), (fused, rgb))
    )
    assert (first["num_videos"], second["num_videos"]) == (5, 4)
    assert first["comparison"]["num_videos"] == second["comparison"]["num_videos"] == 4
    inverted_ap = average_precision_score([1, 1, 0, 0], [0.1, 0.3, 0.2, 0.9])
    assert first["comparison"]["map_macro"]["difference"] == pytest.approx((5 / 6 - inverted_ap) / 3)
    assert second["comparison"]["map_macro"]["difference"] == pytest.approx(-(5 / 6 - inverted_ap) / 3)


def test_probabilities_with_the_logits_flag_have_a_note(annotations_dir: Path) -> None:
    logits = {video: [x * 3 - 1 for x in row] for video, row in SCORES.items()}
    for scores, is_noted in ((SCORES, True), (logits, False)):
        result = evaluate.main([str(write_csv(Path("p.csv"), scores)), "--logits", *FAST]).metrics
        assert names(result["notes"], "--logits") == is_noted
