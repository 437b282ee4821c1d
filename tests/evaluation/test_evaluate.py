"""evaluate.py from the outside: files, exit codes, and numbers that are known."""

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
from vimoclip import metrics
from vimoclip.errors import UserError

CLASSES = ("walk", "run, fast", "eat", "7")
FAST = ["--resamples", "50"]
Labels = Mapping[str, Sequence[int]]


def write_notes(
    folder: Path, train: Labels, val: Labels, selection: Sequence[str] = (), segments: bool = False
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "zoo_action.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "name", *(["segment"] if segments else [])])
        for i, name in enumerate(CLASSES):
            writer.writerow([i, name, *([("head", "head", "tail", "tail")[i]] if segments else [])])
    for split, videos in (("train", train), ("val", val)):
        lines = [" ".join([video, *map(str, labels)]) for video, labels in videos.items()]
        (folder / f"{split}_multi.txt").write_text("\n".join(lines) + "\n")
    if selection:
        (folder / "selection.txt").write_text("".join(f"{video}\n" for video in selection))
    return folder


def write_csv(path: Path, rows: Mapping[str, Sequence[Any]], header: Sequence[str] = CLASSES) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["video_id", *header], *([video, *row] for video, row in rows.items())])
    return path


TRAIN = {"t0.mp4": [0], "t1.mp4": [0, 1], "t2.mp4": [2], "t3.mp4": [0]}
VAL = {"a.mp4": [0], "b.mp4": [0, 1], "c.mp4": [1], "d.mp4": [2]}
SCORES = {
    "a.mp4": [0.9, 0.6, 0.1, 0.2],
    "b.mp4": [0.7, 0.8, 0.2, 0.2],
    "c.mp4": [0.8, 0.4, 0.3, 0.2],
    "d.mp4": [0.1, 0.2, 0.9, 0.2],
}


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_notes(tmp_path / "dataset" / "annotations", TRAIN, VAL)


def read_rows(path: Path) -> dict[str, dict[str, str]]:
    with open(path, newline="") as file:
        return {row["class"]: row for row in csv.DictReader(file)}


def test_every_number_of_a_small_case_by_hand(notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate.main([str(write_csv(Path("p.csv"), SCORES)), *FAST])
    found = json.loads(Path("p_evaluation/metrics.json").read_text())
    # walk: a +, c -, b +: 1/1 and 2/3; run: b +, a -, c +: 1 and 2/3; eat: d first
    macro = ((1 + 2 / 3) / 2 + (1 + 2 / 3) / 2 + 1) / 3
    assert found["map_macro"]["value"] == pytest.approx(macro)
    assert found["map_macro"]["classes"] == 3 and found["num_classes"] == 4
    # pooled: .9 .9 ++, .8 .8 +-, .7 +, .6 -, .4 + ...
    assert found["map_micro"]["value"] == pytest.approx((2 * 1 + 3 / 4 + 4 / 5 + 5 / 7) / 5)
    assert found["torchmetrics_macro"]["value"] == pytest.approx(macro * 3 / 4)
    # constant: an AP is the share of positives among the clips; pooled by training prevalences 3/4, 1/4, 1/4, 0
    assert found["map_macro"]["baseline"] == pytest.approx((2 / 4 + 2 / 4 + 1 / 4) / 3)
    assert found["map_micro"]["baseline"] == pytest.approx((2 * 2 / 4 + 3 * 5 / 12) / 5)
    # at 0.5: walk says a b c, run a b, eat d
    assert found["f1_macro_at_0.5"]["value"] == pytest.approx((4 / 5 + 1 / 2 + 1) / 3)
    assert found["f1_micro_at_0.5"]["value"] == pytest.approx(2 * 4 / (6 + 5))
    assert found["hit_at_1"]["value"] == pytest.approx(3 / 4)
    assert found["precision_at_3"]["value"] == pytest.approx((1 + 2 + 1 + 1) / 12)
    assert found["top1"] is None  # b has two labels
    assert found["precision_at_5"]["value"] is found["precision_at_5"]["ci95"] is None  # of four classes
    assert found["f1_macro_at_fitted_thresholds"] is None
    assert found["protocol"] is None and found["comparison"] is None
    for name in ("map_macro", "map_micro", "hit_at_1", "f1_micro_at_0.5"):
        low, high = found[name]["ci95"]
        assert 0 <= low <= found[name]["value"] <= high <= 1
    rows = read_rows(Path("p_evaluation/per_class.csv"))
    assert list(rows) == list(CLASSES)
    assert rows["run, fast"]["positives"] == "2" and float(rows["run, fast"]["train_prevalence"]) == 0.25
    assert rows["7"]["ap"] == "" and rows["7"]["positives"] == "0"
    assert float(rows["walk"]["ap"]) == pytest.approx(5 / 6, abs=1e-5)
    said = capsys.readouterr().out
    assert f"{macro:.4f}" in said and "torchmetrics" in said and "report.html" in said
    page = Path("p_evaluation/report.html").read_text(encoding="utf-8")
    assert "run, fast" in page


def check_intervals(scores: np.ndarray, targets: np.ndarray, found: Mapping[str, Any]) -> None:
    """They are the percentiles of scikit-learn's values on the resamples, moved to the value of all clips."""

    def averages(weights: np.ndarray) -> list[float]:
        there = [c for c in range(4) if weights[targets[:, c]].any()]  # classes that have a positive in the resample
        of_class = [average_precision_score(targets[:, c], scores[:, c], sample_weight=weights) for c in there]
        pooled = average_precision_score(targets.ravel(), scores.ravel(), sample_weight=weights.repeat(4))
        return [float(np.mean(of_class)), float(pooled)]

    drawn = np.array([averages(weights) for weights in metrics.bootstrap_weights(len(scores), 50, 0)])
    for values, name in zip(drawn.T, ("map_macro", "map_micro"), strict=True):
        plain = np.percentile(values, [2.5, 97.5])
        assert found[name]["ci95"] == pytest.approx((plain + found[name]["value"] - values.mean()).tolist())
        assert found[name]["ci95"] != pytest.approx(plain.tolist(), abs=1e-4)


def test_against_scikit_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    targets = rng.random((60, 4)) < [0.5, 0.3, 0.1, 0.1]
    scores = np.round(np.clip(0.4 * targets + rng.random((60, 4)) * 0.6, 0, 1), 1)  # ties
    names = [f"v{i}.mp4" for i in range(60)]
    val = {name: np.flatnonzero(row).tolist() for name, row in zip(names, targets, strict=True)}
    write_notes(tmp_path / "notes", TRAIN, val)
    found = evaluate.main(
        [str(write_csv(tmp_path / "p.csv", dict(zip(names, scores, strict=True)))), "--annotations-dir", "notes", *FAST]
    ).metrics
    per_class = [average_precision_score(targets[:, c], scores[:, c]) for c in range(4)]
    assert found["map_macro"]["value"] == pytest.approx(np.mean(per_class))
    assert found["map_micro"]["value"] == pytest.approx(average_precision_score(targets.ravel(), scores.ravel()))
    check_intervals(scores, targets, found)
    error = BinaryCalibrationError(n_bins=15)(torch.tensor(scores.ravel()), torch.tensor(targets.ravel()).int())
    assert found["calibration"]["ece"]["value"] == pytest.approx(float(error), abs=1e-6)
    assert len(found["calibration"]["bins"]) == 15
    for average in ("macro", "micro"):
        expected = f1_score(targets, scores >= 0.5, average=average)
        assert found[f"f1_{average}_at_0.5"]["value"] == pytest.approx(expected)


def test_a_perfect_a_constant_and_a_random_predictor(notes: Path) -> None:
    perfect = {video: [float(c in labels) for c in range(4)] for video, labels in VAL.items()}
    found = evaluate.main([str(write_csv(Path("perfect.csv"), perfect)), *FAST]).metrics
    assert found["map_macro"]["value"] == found["map_micro"]["value"] == 1
    assert found["map_macro"]["ci95"] == [1, 1]
    assert found["calibration"]["ece"]["value"] == 0
    assert any("exactly 1" in note for note in found["notes"])
    constant = {video: [0.75, 0.25, 0.25, 0.0] for video in VAL}  # the training prevalences
    found = evaluate.main([str(write_csv(Path("constant.csv"), constant)), *FAST]).metrics
    for name in ("map_macro", "map_micro", "hit_at_1", "f1_micro_at_0.5", "precision_at_3"):
        assert found[name]["value"] == pytest.approx(found[name]["baseline"]), name
    assert any("same scores" in note for note in found["notes"])
    assert found["hit_at_1"]["random"] == pytest.approx(5 / 16, abs=0.15)
    # one positive among four clips, at each rank as likely: (1 + 1/2 + 1/3 + 1/4) / 4
    rows = read_rows(Path("constant_evaluation/per_class.csv"))
    assert float(rows["eat"]["ap_random"]) == pytest.approx(25 / 48, abs=1e-5)


def test_columns_by_id_in_any_order_stems_and_logits_give_the_same(notes: Path) -> None:
    first = evaluate.main([str(write_csv(Path("p.csv"), SCORES)), *FAST])
    order = [2, 0, 3, 1]
    logits = {v[:-4]: [np.log(row[c] / (1 - row[c])) for c in order] for v, row in reversed(SCORES.items())}
    path = write_csv(Path("ids.csv"), logits, [str(c) for c in order])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as Excel begins a file
    second = evaluate.main([str(path), "--logits", *FAST])
    assert np.allclose(first.scores, second.scores)
    assert first.metrics["map_macro"]["ci95"] == pytest.approx(second.metrics["map_macro"]["ci95"])


def changed(**rows: Any) -> dict[str, Sequence[Any]]:
    """SCORES with some rows others, or, where None, none."""
    kept = {v: r for v, r in SCORES.items() if v[:-4] not in rows}
    return kept | {f"{name}.mp4": row for name, row in rows.items() if row is not None}


@pytest.mark.parametrize(
    ("rows", "header", "words"),
    [
        (changed(a=None, b=None), CLASSES, ["2 have no predictions", "a.mp4, b.mp4"]),
        (changed(z=[0.1] * 4), CLASSES, ["1 are not among", "z.mp4"]),
        ({**SCORES, "a": [0.1] * 4}, CLASSES, ["1 are duplicated", "(a)"]),
        (changed(a=["nan", 0.1, "", "x"]), CLASSES, ["3 scores are not finite", "a.mp4, walk: nan", "empty"]),
        (changed(a=[1.5, 0.1, -2, 0.1]), CLASSES, ["2 scores are no probabilities", "a.mp4, walk: 1.5", "--logits"]),
        (changed(a=[0.1] * 3), CLASSES, ["1 lines", "line"]),
        (SCORES, ("walk", "run, fast", "fly", "7"), ["1 classes have no column", "eat"]),
        ({v: [*r, 0] for v, r in SCORES.items()}, (*CLASSES, "fly"), ["1 columns are no class", "fly"]),
        (SCORES, ("walk", "eat", "eat", "7"), ["1 columns are duplicated", "eat"]),
        (SCORES, ("0", "1", "2", "9"), ["1 classes have no column", "(3)"]),
        (
            {v: [*r, 0] for v, r in SCORES.items()},
            ("0", "1", "01", "2", "3"),
            ["two columns are of one class id", "01"],
        ),
        ({v: [0, *r] for v, r in SCORES.items()}, ("", *CLASSES), ["column 2 has no name", "index=False"]),
        ({}, CLASSES, ["no predictions"]),
    ],
)
def test_what_is_wrong_with_predictions_is_counted_and_named(
    notes: Path, rows: Mapping[str, Sequence[Any]], header: Sequence[str], words: list[str]
) -> None:
    with pytest.raises(UserError) as error:
        evaluate.main([str(write_csv(Path("p.csv"), rows, header)), *FAST])
    for word in ["p.csv", *words]:
        assert word in str(error.value), error.value
    assert not Path("p_evaluation").exists()


def test_a_video_that_stands_twice_is_named(notes: Path) -> None:
    path = write_csv(Path("p.csv"), SCORES)
    path.write_text(path.read_text() + "b.mp4,0,0,0,0\n")
    with pytest.raises(UserError, match=r"1 videos are duplicated \(b.mp4\)"):
        evaluate.main([str(path), *FAST])


def test_exit_codes(notes: Path) -> None:
    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(REPOSITORY / "evaluate.py"), *argv]
        return subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(REPOSITORY)}, timeout=120)

    good = run(str(write_csv(Path("p.csv"), SCORES)), *FAST)
    assert good.returncode == 0, good.stderr
    for argv in (["nothing.csv"], ["p.csv", "--annotations-dir", "nowhere"], [str(notes)]):
        bad = run(*argv)
        assert bad.returncode == 2 and "Traceback" not in bad.stderr and len(bad.stderr.splitlines()) == 1, bad.stderr


def test_the_same_command_gives_the_same_bytes_and_another_seed_other_intervals(notes: Path) -> None:
    path = str(write_csv(Path("p.csv"), SCORES))
    evaluate.main([path, *FAST])
    first = {p.name: p.read_bytes() for p in Path("p_evaluation").iterdir()}
    evaluate.main([path, *FAST])
    assert {p.name: p.read_bytes() for p in Path("p_evaluation").iterdir()} == first
    other = evaluate.main([path, *FAST, "--seed", "1"]).metrics
    assert other["map_micro"]["ci95"] != json.loads(first["metrics.json"])["map_micro"]["ci95"]
    assert other["map_micro"]["value"] == json.loads(first["metrics.json"])["map_micro"]["value"]


def test_compared_with_itself_the_difference_is_nothing(notes: Path) -> None:
    path = str(write_csv(Path("p.csv"), SCORES))
    found = evaluate.main([path, "--compare", path, *FAST]).metrics["comparison"]
    assert found["map_macro"] == {"difference": 0, "ci95": [0, 0]} == found["map_micro"]
    assert found["gained"] == found["lost"] == []


def test_compared_with_others_it_says_which_classes_gained_and_lost(
    notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worse = {v: [1 - r[0], r[1], r[2], r[3]] for v, r in SCORES.items()}  # walk turned round
    ours, theirs = write_csv(Path("p.csv"), SCORES), write_csv(Path("q.csv"), worse)
    found = evaluate.main([str(ours), "--compare", str(theirs), *FAST]).metrics["comparison"]
    turned = average_precision_score([1, 1, 0, 0], [0.1, 0.3, 0.2, 0.9])
    assert [row["class"] for row in found["gained"]] == ["walk"] and not found["lost"]
    assert found["gained"][0]["difference"] == pytest.approx(5 / 6 - turned)
    assert found["map_macro"]["difference"] == pytest.approx((5 / 6 - turned) / 3)
    truth = [c in VAL[v] for v in VAL for c in range(4)]
    micro = [average_precision_score(truth, [x for v in VAL for x in of[v]]) for of in (SCORES, worse)]
    assert found["map_micro"]["difference"] == pytest.approx(micro[0] - micro[1]) and micro[0] != micro[1]
    assert found["gained"][0]["ci95"] is None  # of two clips
    assert (found["other"], found["other_protocol"], found["num_videos"]) == ("q.csv", None, 4)
    assert found["other_sha256"] == hashlib.sha256(theirs.read_bytes()).hexdigest()
    assert found["gained"][0]["positives"] == 2 and "gained walk (2 clips)" in capsys.readouterr().out
    back = evaluate.main([str(theirs), "--compare", str(ours), *FAST]).metrics["comparison"]
    assert back["map_macro"]["ci95"] == pytest.approx([-x for x in reversed(found["map_macro"]["ci95"])])
    write_csv(theirs, changed(a=None))
    with pytest.raises(UserError, match=r"q\.csv.*1 have no predictions \(a\.mp4\)"):
        evaluate.main([str(ours), "--compare", str(theirs), *FAST])


def test_where_no_class_has_a_positive_there_is_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_notes(tmp_path / "dataset" / "annotations", TRAIN, {video: [] for video in VAL})
    path = str(write_csv(Path("p.csv"), SCORES))
    found = evaluate.main([path, "--compare", path, *FAST]).metrics
    assert found["map_macro"]["value"] is found["map_micro"]["value"] is None
    assert found["comparison"]["map_macro"] == {"difference": None, "ci95": None}
    assert "no class has a positive" in capsys.readouterr().out


def test_a_folder_of_videos_that_is_not_there_is_no_report_without_pictures(notes: Path) -> None:
    path = str(write_csv(Path("p.csv"), SCORES))
    for flag in ("--videos-dir", "--flow-videos-dir"):
        with pytest.raises(UserError, match="nowhere: there is no such folder"):
            evaluate.main([path, flag, "nowhere", *FAST])


def test_intervals_hold_the_value_where_classes_are_rare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single positive, drawn twice, ranks higher: the plain percentiles would all lie above."""
    monkeypatch.chdir(tmp_path)
    val = {f"v{i}.mp4": [i % 4] if i < 4 else [] for i in range(200)}
    rng = np.random.default_rng(0)
    write_notes(tmp_path / "dataset" / "annotations", TRAIN, val)
    path = write_csv(tmp_path / "p.csv", {video: rng.random(4).round(4).tolist() for video in val})
    found = evaluate.main([str(path), "--resamples", "200"]).metrics
    low, high = found["map_macro"]["ci95"]
    assert low <= found["map_macro"]["value"] <= high
    assert found["videos_with_a_label"] == 4


def make_run(folder: Path, notes: Path, **more: Any) -> Path:
    """What TFAM leaves of a finished run."""
    folder.mkdir(parents=True)
    write_csv(folder / "predictions.csv", SCORES)
    embeddings = notes.parent / "embeddings" / "zoo_val_clip_embeddings.h5"
    (folder / "config.yaml").write_text(f"data: {{rgb_val_h5: {embeddings}}}\n")
    about = {"map_macro": 0.5, "epoch_chosen_by": "map_micro on the selection clips", "protocol": "held_out", **more}
    (folder / "metrics.json").write_text(json.dumps(about))
    return folder


def test_a_run_folder_says_its_protocol_and_its_annotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    notes = write_notes(tmp_path / "zoo" / "annotations", TRAIN, VAL, ["t1.mp4"])
    run = make_run(tmp_path / "rgb" / "seed49", notes)
    before = (run / "metrics.json").read_bytes()
    found = evaluate.main([str(run), *FAST])
    assert (run / "metrics.json").read_bytes() == before
    assert (run / "evaluation" / "metrics.json").is_file() and found.title == "rgb/seed49"
    assert found.metrics["protocol"] == "held_out"
    assert found.metrics["epoch_chosen_on"] == "map_micro on the selection clips"
    # the selection clip was not trained on, so it doesn't count in the constant predictor's prevalences
    assert [row["train_positives"] for row in found.per_class] == [2, 0, 1, 0]
    with pytest.raises(UserError, match="--output-dir"):
        evaluate.main([str(run), "--output-dir", str(run)])
    published = make_run(tmp_path / "rgb" / "seed50", notes, protocol="published")
    assert any("too high" in note for note in evaluate.main([str(published), *FAST]).metrics["notes"])
    for other, is_noted in ((published, True), (run, False)):
        said = evaluate.main([str(run), "--compare", str(other), *FAST]).metrics["notes"]
        assert any("here held_out, there published" in note for note in said) == is_noted
    with pytest.raises(UserError, match="holds probabilities; leave --logits out"):
        evaluate.main([str(run), "--logits", *FAST])
    # a run's scores are probabilities, whatever those of a CSV beside it are
    logits = write_csv(tmp_path / "l.csv", {v: [np.log(x / (1 - x)) for x in row] for v, row in SCORES.items()})
    beside = evaluate.main([str(run), "--compare", str(logits), "--logits", *FAST]).metrics
    assert beside["f1_macro_at_0.5"] == found.metrics["f1_macro_at_0.5"]
    assert beside["comparison"]["map_macro"]["difference"] == pytest.approx(0)
    (run / "metrics.json").write_text("[]")
    with pytest.raises(UserError, match="is no JSON object"):
        evaluate.main([str(run), *FAST])
    (run / "metrics.json").unlink()
    with pytest.raises(UserError, match="no finished run"):
        evaluate.main([str(run), *FAST])


def test_clips_that_a_run_could_not_use_are_named_not_dropped_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    notes = write_notes(tmp_path / "zoo" / "annotations", TRAIN, {**VAL, "e.mp4": [0], "f.mp4": [1]}, ["t1.mp4"])
    run = make_run(tmp_path / "rgb" / "seed49", notes, left_out_videos={"e.mp4": "has one frame, so no motion"})
    with pytest.raises(UserError, match=r"1 have no predictions \(f\.mp4\)"):
        evaluate.main([str(run), *FAST])
    write_csv(run / "predictions.csv", {**SCORES, "f.mp4": [0.1] * 4})
    found = evaluate.main([str(run), *FAST]).metrics
    assert found["num_videos"] == 5
    assert any("left out" in note and "the others: 1 (e.mp4)" in note for note in found["notes"])
    write_csv(run / "predictions.csv", SCORES)
    found = evaluate.main([str(run), "--allow-missing", *FAST]).metrics
    assert found["num_videos"] == 4
    assert any("left out" in note and "the others: 2 (e.mp4, f.mp4)" in note for note in found["notes"])


def test_thresholds_are_fitted_on_selection_clips_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    selection = {"s0.mp4": [0], "s1.mp4": [1], "s2.mp4": [2]}
    notes = write_notes(tmp_path / "zoo" / "annotations", {**TRAIN, **selection}, VAL, list(selection))
    run = make_run(tmp_path / "rgb" / "seed49", notes)
    # walk: said from 0.35 on; on the val clips the best threshold is 0.7
    chosen = {"s0.mp4": [0.4, 0, 0, 0], "s1.mp4": [0.3, 0.5, 0, 0], "s2.mp4": [0.2, 0.1, 0.6, 0]}
    write_csv(run / "selection_predictions.csv", chosen)
    found = evaluate.main([str(run), *FAST])
    assert [row["threshold"] for row in found.per_class] == pytest.approx([0.35, 0.3, 0.3, 0.5])
    # walk says a b c, run a b c, eat c d
    f1 = found.metrics["f1_macro_at_fitted_thresholds"]
    assert f1["value"] == pytest.approx((4 / 5 + 4 / 5 + 2 / 3) / 3)
    assert [row["f1_at_threshold"] for row in found.per_class] == pytest.approx([4 / 5, 4 / 5, 2 / 3, None])
    assert [row["f1_at_0.5"] for row in found.per_class] == pytest.approx([4 / 5, 1 / 2, 1, None])
    # a constant's threshold is its one score, so that it says all three of each clip
    assert f1["baseline"] == pytest.approx((2 / 3 + 2 / 3 + 2 / 5) / 3)
    assert not any("may have been trained on" in note for note in found.metrics["notes"])
    write_csv(tmp_path / "other.csv", {**chosen, "s0.mp4": [0.2, 0, 0, 0], "s2.mp4": [0.1, 0.1, 0.6, 0]})
    other = evaluate.main([str(run), "--selection-predictions", "other.csv", *FAST])
    assert other.per_class[0]["threshold"] == pytest.approx(0.15)
    write_csv(tmp_path / "other.csv", SCORES)
    with pytest.raises(UserError, match="4 are not among"):
        evaluate.main([str(run), "--selection-predictions", "other.csv", *FAST])
    write_csv(tmp_path / "bare.csv", SCORES)
    of_a_csv = ["bare.csv", "--annotations-dir", str(notes), "--selection-predictions"]
    bare = evaluate.main([*of_a_csv, str(run / "selection_predictions.csv"), *FAST])
    assert any("may have been trained on" in note for note in bare.metrics["notes"])
    write_csv(tmp_path / "bare.csv", {video: [0.1] * 4 for video in (*TRAIN, *selection)})
    with pytest.raises(UserError, match="fitted on clips that --split train reports"):
        evaluate.main([*of_a_csv, str(run / "selection_predictions.csv"), "--split", "train", *FAST])


def test_segments_and_animals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    notes = write_notes(tmp_path / "dataset" / "annotations", TRAIN, VAL, segments=True)
    animals = {"a.mp4": "Mammal", "b.mp4": "Mammal;Bird", "c.mp4": "Bird", "d.mp4": "Mammal"}
    lines = [f"{video},x,{classes}\n" for video, classes in animals.items()]
    (notes / "animals.csv").write_text("video_id,animals,animal_classes\n" + "".join(lines))
    found = evaluate.main([str(write_csv(Path("p.csv"), SCORES)), *FAST]).metrics
    head, tail = (found["segments"]["segment"][name] for name in ("head", "tail"))
    assert head["classes"] == 2 and head["map_macro"]["value"] == pytest.approx(5 / 6)
    assert tail["classes"] == 2 and tail["map_macro"]["classes"] == 1 and tail["map_macro"]["value"] == 1
    truth, said = (
        [x for v in VAL for x in of(v)] for of in (lambda v: [c in VAL[v] for c in (0, 1)], lambda v: SCORES[v][:2])
    )
    assert head["map_micro"]["value"] == pytest.approx(average_precision_score(truth, said))
    bird = found["animal_classes"]["Bird"]
    assert bird["num_videos"] == 2  # b and c: walk b - after c, run b and c
    assert bird["map_macro"]["value"] == pytest.approx((1 / 2 + 1) / 2)
    assert found["animal_classes"]["Mammal"]["num_videos"] == 3
    assert any("several classes of animals count in each: 1." in note for note in found["notes"])


def test_single_label_data_has_top1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_notes(tmp_path / "dataset" / "annotations", TRAIN, {"a.mp4": [0], "b.mp4": [0], "c.mp4": [0], "d.mp4": [2]})
    found = evaluate.main([str(write_csv(Path("p.csv"), SCORES)), *FAST]).metrics
    # a is walk, b is taken for run, c is walk, d is eat
    assert found["top1"]["value"] == pytest.approx(3 / 4) == found["hit_at_1"]["value"]
    assert found["mean_per_class_top1"]["value"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["mean_per_class_top1"]["baseline"] == pytest.approx((1 + 0) / 2)  # always walk


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"student_protocol": "published"}, "too high"),
        ({"student_protocol": None}, "not known on which clips the student"),
        ({"student_protocol": "held_out", "student_selection_agrees": False}, "may have learnt"),
        ({"student_protocol": "held_out", "student_selection_agrees": True}, None),
        ({"student_protocol": None, "fusion": "rgb"}, None),
    ],
)
def test_a_student_that_was_not_held_out_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: dict[str, Any], words: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    notes = write_notes(tmp_path / "zoo" / "annotations", TRAIN, VAL, ["t1.mp4"])
    run = make_run(tmp_path / "fused" / "seed49", notes, **{"fusion": "cross_attention", **said})
    found = evaluate.main([str(run), *FAST]).metrics
    notes_of_it = [note for note in found["notes"] if "student" in note]
    assert len(notes_of_it) == (words is not None) and all(str(words) in note for note in notes_of_it)
    assert found["student_protocol"] == said["student_protocol"]


def test_a_class_has_an_interval_of_its_own_from_five_positives_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of fewer it would be far too narrow: a single positive that stands first has the same AP in every resample."""
    monkeypatch.chdir(tmp_path)
    counts = [1, 4, 5, 12]
    val = {f"v{i}.mp4": [c for c in range(4) if i < counts[c]] for i in range(40)}
    write_notes(tmp_path / "dataset" / "annotations", TRAIN, val)
    rng = np.random.default_rng(0)
    rows = {video: (0.4 * np.isin(range(4), labels) + 0.6 * rng.random(4)).tolist() for video, labels in val.items()}
    path = str(write_csv(tmp_path / "p.csv", rows))
    found = evaluate.main([path, "--compare", path, *FAST])
    assert [row["ap_low"] is not None for row in found.per_class] == [False, False, True, True]
    assert any("below 5 none is given" in note for note in found.metrics["notes"])


def test_runs_that_left_out_other_clips_are_compared_on_those_that_both_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As RGB alone and motion are, where a clip has one frame."""
    monkeypatch.chdir(tmp_path)
    notes = write_notes(tmp_path / "zoo" / "annotations", TRAIN, {**VAL, "e.mp4": [0]}, ["t1.mp4"])
    rgb, fused = (tmp_path / name / "seed49" for name in ("rgb", "fused"))
    make_run(rgb, notes)
    write_csv(rgb / "predictions.csv", {**SCORES, "e.mp4": [0.5] * 4})
    make_run(fused, notes, left_out_videos={"e.mp4": "has one frame, so no motion"})
    write_csv(fused / "predictions.csv", {v: [1 - r[0], *r[1:]] for v, r in reversed(SCORES.items())})
    one, other = (evaluate.main([str(a), "--compare", str(b), *FAST]).metrics for a, b in ((rgb, fused), (fused, rgb)))
    assert (one["num_videos"], other["num_videos"]) == (5, 4)
    assert one["comparison"]["num_videos"] == other["comparison"]["num_videos"] == 4
    turned = average_precision_score([1, 1, 0, 0], [0.1, 0.3, 0.2, 0.9])
    assert one["comparison"]["map_macro"]["difference"] == pytest.approx((5 / 6 - turned) / 3)
    assert other["comparison"]["map_macro"]["difference"] == pytest.approx(-(5 / 6 - turned) / 3)
    assert "on the same 4 clips" in capsys.readouterr().out


def test_probabilities_that_are_said_to_be_logits_are_told_of(notes: Path) -> None:
    path = str(write_csv(Path("p.csv"), SCORES))
    assert any("like probabilities" in note for note in evaluate.main([path, "--logits", *FAST]).metrics["notes"])
    logits = {video: [x * 3 - 1 for x in row] for video, row in SCORES.items()}
    path = str(write_csv(Path("l.csv"), logits))
    assert not any("like probabilities" in note for note in evaluate.main([path, "--logits", *FAST]).metrics["notes"])
