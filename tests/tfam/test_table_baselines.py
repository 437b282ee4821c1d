"""Columns of the table beyond RGB alone: the best probe, top-1 accuracy, intervals, students of each seed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from tests.tfam.helpers import CLASSES, class_embeddings, write_h5
from tests.tfam.test_table import LABELS, make_table, noisy_scores, write_finished_run
from vimoclip import metrics
from vimoclip.io import predictions_csv
from vimoclip.store import EmbeddingReader


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def probe_run(name: str, scores: np.ndarray, **changes: Any) -> Path:
    return write_finished_run(name, 1, scores, fusion=name, **changes)


def row_text(config: str) -> str:
    lines = Path("results/table.md").read_text().splitlines()
    return next(line for line in lines if line.startswith(f"| {config} |"))


def test_a_fusion_that_does_not_beat_the_best_probe_says_so() -> None:
    write_finished_run("rgb", 1, noisy_scores(1, 3.0))
    write_finished_run("cross_attention", 1, noisy_scores(2, 0.6))
    write_finished_run("concat_time", 1, noisy_scores(3, 0.001))
    write_finished_run("cross_attention_none", 1, noisy_scores(4, 3.0), settings={"data.motion": "none"})
    probe_run("probe_rgb", noisy_scores(5, 3.0))
    probe_run("probe_both", noisy_scores(6, 0.6))
    probe_run("probe_motion", noisy_scores(7, 0.0), settings={"data.limit": 3})  # other data
    rows, _ = make_table("--resamples", "200")
    assert {config: (row["best_probe"], row["better_than_probe"]) for config, row in rows.items()} == {
        "rgb": ("probe_both", "no"),
        "cross_attention": ("probe_both", "unclear"),
        "concat_time": ("probe_both", "yes"),
        **dict.fromkeys(("cross_attention_none", "probe_rgb", "probe_both", "probe_motion"), ("", "")),
    }
    row = rows["concat_time"]
    gain = float(row["map_macro_mean"]) - float(rows["probe_both"]["map_macro_mean"])
    assert float(row["map_macro_minus_probe"]) == pytest.approx(gain, abs=2e-4)
    low, high = (float(row[f"map_macro_minus_probe_{end}"]) for end in ("low", "high"))
    assert 0 < low < gain < high
    assert "probe_both" in row_text("concat_time") and "not better" not in row_text("concat_time")
    assert "not clearly better" in row_text("cross_attention") and "not better" in row_text("rgb")


def test_without_intervals_there_is_no_verdict() -> None:
    write_finished_run("rgb", 1, noisy_scores(1, 3.0))
    probe_run("probe_rgb", noisy_scores(5, 0.0))
    rows, _ = make_table("--resamples", "0")
    assert rows["rgb"]["map_macro_minus_probe"].startswith("-") and rows["rgb"]["better_than_probe"] == ""
    assert rows["rgb"]["map_macro_low"] == "" and rows["rgb"]["top1_mean"] and rows["rgb"]["top1_low"] == ""


def test_probes_of_another_protocol_are_not_compared_with() -> None:
    write_finished_run("rgb", 1, noisy_scores(1, 3.0))
    probe_run("probe_rgb", noisy_scores(5, 0.0), protocol="published")
    rows, text = make_table("--resamples", "5")
    assert rows["rgb"]["best_probe"] == "" and "best probe" not in text


def test_zero_shot_runs_have_a_row_and_are_not_compared() -> None:
    write_finished_run("rgb", 1, noisy_scores(1, 1.0))
    probe_run("probe_rgb", noisy_scores(5, 0.0))
    write_finished_run("zero_shot", 0, noisy_scores(2, 1.0), protocol="zero_shot")
    rows, _ = make_table("--resamples", "5")
    assert (rows["zero_shot"]["protocol"], rows["zero_shot"]["best_probe"]) == ("zero_shot", "")
    assert rows["zero_shot"]["map_macro_low"] and rows["rgb"]["best_probe"] == "probe_rgb"


def test_top1_accuracy_of_single_label_clips_with_intervals() -> None:
    for seed in (1, 2):
        write_finished_run("rgb", seed, noisy_scores(seed, 1.0))
    rows, text = make_table("--resamples", "50")
    drawn = metrics.bootstrap_weights(30, 50, 0)
    seeds = np.random.default_rng([0, 1]).integers(0, 2, (50, 2))
    truth = LABELS.argmax(1)
    for metric, function in (("top1", accuracy_score), ("mean_per_class_top1", balanced_accuracy_score)):
        predicted = [
            predictions_csv.read(Path(f"checkpoints/TFAM/rgb/seed{seed}/predictions.csv")).scores.argmax(1)
            for seed in (1, 2)
        ]
        values = [function(truth, labels) for labels in predicted]
        assert float(rows["rgb"][f"{metric}_mean"]) == pytest.approx(np.mean(values), abs=5e-5)
        assert float(rows["rgb"][f"{metric}_std"]) == pytest.approx(np.std(values, ddof=1), abs=5e-5)
        resampled = [
            np.mean([function(truth, predicted[seed], sample_weight=weights) for seed in drawn_seeds])
            for weights, drawn_seeds in zip(drawn, seeds, strict=True)
        ]
        expected = np.percentile(resampled, [2.5, 97.5]) + np.mean(values) - np.mean(resampled)
        interval = [float(rows["rgb"][f"{metric}_{end}"]) for end in ("low", "high")]
        assert interval == pytest.approx(expected, abs=1e-4)
    assert rows["rgb"]["top1_mean"] in text.partition("## Top-1")[2]


def test_intervals_stay_within_0_and_1() -> None:
    right, wrong = LABELS * 0.5 + 0.1, np.roll(LABELS, 1, axis=1) * 0.5 + 0.1
    is_first = (np.arange(30) == 0)[:, None]
    write_finished_run("rgb", 1, np.where(is_first, right, wrong))
    write_finished_run("motion", 1, np.where(is_first, wrong, right))
    rows, _ = make_table("--resamples", "100")
    assert (rows["rgb"]["top1_mean"], rows["motion"]["top1_mean"]) == ("0.0333", "0.9667")
    assert (rows["rgb"]["top1_low"], rows["motion"]["top1_high"]) == ("0.0000", "1.0000")


def test_clips_with_several_labels_have_no_top1_accuracy() -> None:
    folder = write_finished_run("rgb", 1, noisy_scores(1, 1.0))
    val = Path("val-30.h5")
    videos = {f"V{n:02}.mp4": class_embeddings(n, 4 + n % 5, True, 8) for n in range(30)}
    labels = LABELS | np.roll(LABELS, 1, axis=0)
    write_h5(val, videos, labels.astype(np.float32), kind="rgb", class_names=CLASSES, num_classes=3, embed_dim=8)
    run_metrics = json.loads((folder / "metrics.json").read_text())
    run_metrics["inputs_sha256"]["rgb_val_h5"] = EmbeddingReader(val).attributes.get("content_sha256")
    (folder / "metrics.json").write_text(json.dumps(run_metrics))
    rows, text = make_table("--resamples", "5")
    assert rows["rgb"]["top1_mean"] == "" and "## Top-1" not in text
    low, high = (float(rows["rgb"][f"map_micro_{end}"]) for end in ("low", "high"))
    assert low < float(rows["rgb"]["map_micro_mean"]) < high


def test_runs_with_a_student_each_share_a_row_and_other_students_do_not() -> None:
    def write(config: str, seed: int, motion: str, **student: Any) -> None:
        write_finished_run(config, seed, noisy_scores(seed, 1.0))
        folder = Path("checkpoints/TFAM", config, f"seed{seed}")
        content = json.loads((folder / "metrics.json").read_text())
        content["inputs_sha256"]["motion_h5"] = motion
        (folder / "metrics.json").write_text(json.dumps(content | student))

    for seed in (1, 2):
        write("motion", seed, f"m{seed}", student_seed=seed, student_sha256="same")
        write("cross_attention", seed, f"m{seed}", student_seed=seed, student_sha256=f"settings {seed}")
        write("concat_time", seed, f"m{seed}", student_seed=7, student_sha256="same")
    path = Path("results/table.csv")
    rows, _ = make_table("--resamples", "0")
    with path.open() as file:
        counts = [line.split(",")[0] for line in file.read().splitlines()[1:]]
    assert {config: counts.count(config) for config in counts} == {"motion": 1, "cross_attention": 2, "concat_time": 2}
    assert (rows["motion"]["seeds"], rows["motion"]["students"]) == ("2", "2")
    assert "2 (2 students)" in row_text("motion")


def test_runs_of_one_student_share_a_row_also_if_it_has_the_seed_of_one_of_them() -> None:
    for seed in (49, 50, 51):
        folder = write_finished_run("motion", seed, noisy_scores(seed, 1.0), student_seed=49, student_sha256="settings")
        content = json.loads((folder / "metrics.json").read_text())
        content["inputs_sha256"]["motion_h5"] = "motion of seed 49"
        (folder / "metrics.json").write_text(json.dumps(content))
    rows, _ = make_table("--resamples", "0")
    assert (rows["motion"]["seeds"], rows["motion"]["students"], rows["motion"]["settings"]) == (
        "3",
        "1",
        "model.fusion=motion",
    )


def test_zero_shot_runs_have_a_row() -> None:
    write_finished_run("rgb", 1, noisy_scores(1, 1.0))
    write_finished_run("zero_shot", 0, noisy_scores(2, 1.0), fusion="zero_shot", protocol="zero_shot", settings={})
    rows, _ = make_table("--resamples", "5")
    row = rows["zero_shot"]
    assert row["map_macro_low"] < row["map_macro_mean"] < row["map_macro_high"] and row["map_macro_minus_rgb"] == ""


def test_probes_of_other_motion_or_of_a_student_that_saw_too_much_are_not_compared_with() -> None:
    def write(config: str, motion: str | None, noise: float, **student: Any) -> None:
        folder = write_finished_run(config, 1, noisy_scores(len(config), noise), fusion=config, **student)
        content = json.loads((folder / "metrics.json").read_text())
        content["inputs_sha256"]["motion_h5"] = motion
        (folder / "metrics.json").write_text(json.dumps(content))

    write("rgb", None, 1.0)
    write("cross_attention", "a", 1.0)
    write("concat_time", "b", 1.0, student_protocol="published")
    write("probe_rgb", None, 3.0)
    write("probe_motion", "a", 2.0)
    write("probe_both", "b", 0.0, student_protocol="published")  # the best
    rows, _ = make_table("--resamples", "5")
    best = {config: rows[config]["best_probe"] for config in ("rgb", "cross_attention", "concat_time")}
    assert best == {"rgb": "probe_motion", "cross_attention": "probe_motion", "concat_time": "probe_both"}


def test_a_probe_without_a_common_seed_gives_way_to_one_with() -> None:
    write_finished_run("rgb", 1, noisy_scores(1, 1.0))
    probe_run("probe_rgb", noisy_scores(5, 3.0))
    write_finished_run("probe_both", 2, noisy_scores(6, 0.0), fusion="probe_both")
    rows, _ = make_table("--resamples", "5")
    assert rows["rgb"]["best_probe"] == "probe_rgb"


def test_runs_of_different_clips_have_no_common_interval() -> None:
    """As of runs of one config before they recorded their inputs."""
    write_finished_run("rgb", 1, noisy_scores(1, 1.0), inputs_sha256={})
    write_finished_run("rgb", 2, noisy_scores(2, 1.0)[:27], range(27), inputs_sha256={})
    rows, text = make_table("--resamples", "5")
    assert rows["rgb"]["seeds"] == "2" and rows["rgb"]["map_macro_low"] == "" and "different clips" in text
