"""The table of runs: grouping, differences to RGB alone and their intervals, caption."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sklearn.metrics import average_precision_score

from tests.conftest import REPOSITORY, write_annotations
from tests.tfam.helpers import (
    ANNOTATIONS_DIR,
    CLASSES,
    VARIANTS,
    read_csv,
    read_json,
    train_command,
    write_rgb,
)
from TFAM import config as tfam_config
from TFAM import run_differences, run_groups, table
from TFAM.packing import Fusion
from TFAM.train_and_eval import main
from vimoclip import annotations, metrics
from vimoclip.annotations.split_protocol import PROTOCOL_NOTES
from vimoclip.io import predictions_csv
from vimoclip.store import EmbeddingReader

LABELS = np.eye(3, dtype=bool)[[n % 3 for n in range(30)]]


def noisy_scores(seed: int, noise: float) -> np.ndarray:
    """(30, 3) scores: the labels with noise, through a sigmoid."""
    scores = LABELS + noise * np.random.default_rng(seed).normal(size=LABELS.shape)
    return 1 / (1 + np.exp(-scores))


def write_finished_run(config: str, seed: int, scores: np.ndarray, numbers: range = range(30), **changes: Any) -> Path:
    """Write the files of a finished run that the table reads; `changes`: of metrics.json."""
    folder = Path("checkpoints/TFAM", config, f"seed{seed}")
    folder.mkdir(parents=True)
    val = Path(f"val-{len(numbers)}.h5")
    if not val.exists():
        write_rgb(val, numbers)
    videos = [f"V{n:02}.mp4" for n in numbers]
    predictions_csv.write(folder / "predictions.csv", videos, scores, CLASSES)
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": {"rgb_val_h5": str(val)}}))
    rounded = predictions_csv.read(folder / "predictions.csv").scores
    per_class = [average_precision_score(LABELS[: len(numbers), c], rounded[:, c]) for c in range(3)]
    run_metrics = {
        "map_macro": float(np.mean(per_class)),
        "map_micro": float(average_precision_score(LABELS[: len(numbers)].ravel(), rounded.ravel())),
        "config": config,
        "fusion": config.split("_none")[0],
        "seed": seed,
        "settings": {"model.fusion": config} if config != "cross_attention" else {},
        "num_videos": len(numbers),
        "parameters": 1234567,
        "seconds": 10.0 * seed,
        "protocol": "held_out",
        "student_protocol": "held_out",
        "inputs_sha256": {"rgb_val_h5": EmbeddingReader(val).attributes["content_sha256"]},
    }
    (folder / "metrics.json").write_text(json.dumps(run_metrics | changes))
    return folder


def write_annotations_of_finished_runs() -> None:
    """Write annotations of the clips that `write_finished_run` evaluates, and of nine training clips."""
    splits = {"train": {f"T{n}.mp4": (n % 3,) for n in range(9)}, "val": {f"V{n:02}.mp4": (n % 3,) for n in range(30)}}
    write_annotations(Path("dataset/annotations"), splits)
    names = "".join(f"{number},{name}\n" for number, name in enumerate(CLASSES))
    Path("dataset/annotations/ak_action.csv").write_text(f"id,name\n{names}")


def make_table(*flags: str) -> tuple[dict[str, dict[str, str]], str]:
    """Return (rows of table.csv by config, text of table.md)."""
    path = table.main(["--output-dir", "results", *flags])
    return {row["config"]: row for row in read_csv(path)}, Path("results/table.md").read_text()


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sklearn_average_precisions(scores: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Return (macro, micro) by scikit-learn."""
    per_class = [average_precision_score(LABELS[:, c], scores[:, c], sample_weight=weight) for c in range(3)]
    return float(np.mean(per_class)), float(
        average_precision_score(LABELS.ravel(), scores.ravel(), sample_weight=np.repeat(weight, 3))
    )


def test_differences_and_intervals_match_scikit_learn(workspace: Path) -> None:
    """Differences are over the common seeds: 1 and 2, of 1, 2 and 3."""
    folders = {("rgb", s): write_finished_run("rgb", s, noisy_scores(s, 1.0)) for s in (1, 2, 3)}
    folders |= {
        ("cross_attention", s): write_finished_run("cross_attention", s, noisy_scores(10 + s, 0.7)) for s in (1, 2)
    }
    scores = {key: predictions_csv.read(folder / "predictions.csv").scores for key, folder in folders.items()}
    rows, text = make_table("--resamples", "40", "--report", "report.json")
    counts = json.loads(Path("report.json").read_text())
    assert (counts["done"], counts["unit"]) == (5, "run")
    assert counts["outputs"] == ["results/table.csv", "results/table.md"]
    row = rows["cross_attention"]
    drawn = metrics.bootstrap_weights(30, 40, 0)
    for column, metric in enumerate(("map_macro", "map_micro")):
        values = {key: sklearn_average_precisions(s, np.ones(30))[column] for key, s in scores.items()}
        rgb, ours = ([values[config, seed] for seed in (1, 2)] for config in ("rgb", "cross_attention"))
        assert float(row[f"{metric}_mean"]) == pytest.approx(np.mean(ours), abs=5e-5)
        assert float(row[f"{metric}_std"]) == pytest.approx(np.std(ours, ddof=1), abs=5e-5)
        assert float(row[f"{metric}_minus_rgb"]) == pytest.approx(np.mean(ours) - np.mean(rgb), abs=5e-5)
        # a resample draws clips and seeds with replacement
        seeds = 1 + np.random.default_rng([0, 1]).integers(0, 2, (40, 2))
        differences = [
            np.mean([sklearn_average_precisions(scores["cross_attention", s], w)[column] for s in drawn_seeds])
            - np.mean([sklearn_average_precisions(scores["rgb", s], w)[column] for s in drawn_seeds])
            for w, drawn_seeds in zip(drawn, seeds, strict=True)
        ]
        shift = np.mean(ours) - np.mean(rgb) - np.mean(differences)  # centres the interval on the difference
        expected = np.percentile(differences, [2.5, 97.5]) + shift
        interval = [float(row[f"{metric}_minus_rgb_{end}"]) for end in ("low", "high")]
        assert interval == pytest.approx(expected, abs=5e-5)
        assert f"[{interval[0]:+.4f}, {interval[1]:+.4f}]" in text
    assert rows["rgb"]["map_macro_minus_rgb"] == rows["rgb"]["map_macro_minus_rgb_low"] == ""
    assert (row["seeds"], row["seconds"], row["parameters"], row["num_videos"]) == ("2", "15.0", "1234567", "30")
    assert rows["rgb"]["seconds"] == "20.0" and row["protocol"] == "held_out"


def test_clip_order_does_not_matter_and_equal_scores_have_zero_difference(workspace: Path) -> None:
    write_finished_run("rgb", 1, noisy_scores(1, 1.0))
    folder = write_finished_run("motion", 1, noisy_scores(1, 1.0))
    lines = (folder / "predictions.csv").read_text().splitlines(keepends=True)
    (folder / "predictions.csv").write_text(lines[0] + "".join(reversed(lines[1:])))
    row = make_table("--resamples", "30")[0]["motion"]
    for metric in ("map_macro", "map_micro"):
        assert [float(row[f"{metric}_minus_rgb{end}"]) for end in ("", "_low", "_high")] == [0, 0, 0]


def test_caption_explains_the_numbers(workspace: Path) -> None:
    write_finished_run("rgb", 1, noisy_scores(1, 1.0))
    write_finished_run("cross_attention_none", 1, noisy_scores(1, 1.0), settings={"data.motion": "none"})
    rows, text = make_table("--resamples", "5")
    for expected in ("30 clips", "5 resamples", "macro AP", "micro AP", PROTOCOL_NOTES["held_out"]):
        assert expected in text
    assert "published" not in text
    assert [row["paper_map_micro"] for row in rows.values()] == ["0.7583", ""]
    header = (Path("results") / "table.csv").read_text().splitlines()[0]
    assert header.startswith(
        "config,seeds,map_macro_mean,map_macro_std,map_micro_mean,map_micro_std,paper_map_micro,protocol,"
    )
    table_lines = [line for line in text.partition("## ")[0].splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table_lines}) == 1 and len(table_lines) == 4


def test_protocols_have_rows_of_their_own_and_are_not_compared(workspace: Path) -> None:
    write_finished_run("rgb", 1, noisy_scores(1, 1.0))
    write_finished_run("rgb", 2, noisy_scores(2, 1.0), protocol="published")
    write_finished_run("motion", 2, noisy_scores(3, 1.0), protocol="published")
    write_finished_run("concat_time", 2, noisy_scores(3, 1.0))
    path = table.main(["--output-dir", "results", "--resamples", "5"])
    rows = read_csv(path)
    assert [(row["config"], row["protocol"], row["seeds"]) for row in rows] == [
        *(("rgb", "held_out", "1"), ("rgb", "published", "1"), ("motion", "published", "1")),
        ("concat_time", "held_out", "1"),
    ]
    assert rows[2]["map_micro_minus_rgb_low"]
    assert rows[3]["map_micro_minus_rgb"] == ""  # rgb's seed 2 is of the other protocol
    text = Path("results/table.md").read_text()
    assert "concat_time, held_out: no difference to rgb: " in text
    assert PROTOCOL_NOTES["published"] in text and PROTOCOL_NOTES["held_out"] in text


@pytest.mark.parametrize("difference", ["settings", "no rgb", "number of clips", "clips", *run_groups.COMPARED_INPUTS])
def test_runs_that_cannot_be_compared_have_a_reason(workspace: Path, difference: str) -> None:
    folders, num_clips = [], 27 if difference == "number of clips" else 30
    if difference != "no rgb":
        folders.append(write_finished_run("rgb", 1, noisy_scores(1, 1.0)[:num_clips], range(num_clips)))
    settings = {"model.fusion": "motion"} | ({"training.epochs": 2} if difference == "settings" else {})
    folders.append(write_finished_run("motion", 1, noisy_scores(2, 1.0), settings=settings))
    if difference == "clips":
        path = folders[-1] / "predictions.csv"
        path.write_text(path.read_text().replace("V07.mp4", "V99.mp4"))
    if difference in run_groups.COMPARED_INPUTS:
        for folder in folders:
            run_metrics = read_json(folder / "metrics.json")
            run_metrics["inputs_sha256"][difference] = folder.parent.name
            (folder / "metrics.json").write_text(json.dumps(run_metrics))
    rows, text = make_table("--resamples", "5")
    assert {rows["motion"][name] for name in rows["motion"] if "minus_rgb" in name} == {""}
    assert "motion, held_out: no difference to rgb: " in text


@pytest.mark.parametrize("change", ["removed", "other_labels", "not_named", "no_predictions"])
def test_missing_labels_give_a_difference_without_interval(workspace: Path, change: str) -> None:
    write_finished_run("rgb", 1, noisy_scores(1, 1.0))
    folder = write_finished_run("motion", 1, noisy_scores(2, 1.0))
    if change == "other_labels":
        write_rgb(Path("val-30.h5"), range(30), label_shift=1)
    elif change == "not_named":
        (folder / "config.yaml").write_text("data: {}\n")
    elif change == "no_predictions":
        (folder / "predictions.csv").unlink()
    if change == "removed":
        write_finished_run("concat_time", 1, noisy_scores(3, 1.0))
        Path("val-30.h5").unlink()
    rows, text = make_table("--resamples", "5")
    assert rows["motion"]["map_macro_minus_rgb"] and rows["motion"]["map_macro_minus_rgb_low"] == ""
    for config in rows.keys() - {"rgb"}:
        assert f"{config}, held_out: no interval: " in text
    file = "val-30.h5" if change in ("removed", "other_labels") else "config.yaml"
    assert ("predictions.csv" if change == "no_predictions" else file) in text


def test_without_resamples_there_is_no_interval(workspace: Path) -> None:
    write_finished_run("rgb", 1, noisy_scores(1, 1.0))
    write_finished_run("motion", 1, noisy_scores(2, 1.0))
    rows, text = make_table("--resamples", "0")
    assert rows["motion"]["map_macro_minus_rgb"] and rows["motion"]["map_macro_minus_rgb_low"] == ""
    assert "interval" not in text


def test_most_similar_rgb_row_is_the_baseline(workspace: Path) -> None:
    shared = {"model.positions": True}
    write_finished_run("rgb", 1, noisy_scores(1, 1.0))
    write_finished_run("rgb", 2, noisy_scores(1, 1.0), settings={"model.fusion": "rgb", **shared}, map_macro=0.25)
    write_finished_run("motion", 2, noisy_scores(2, 1.0), settings={"model.fusion": "motion", **shared}, map_macro=0.75)
    rows, _ = make_table("--resamples", "0")
    assert rows["motion"]["map_macro_minus_rgb"] == "+0.5000"


def test_shipped_configs_can_be_compared_with_rgb() -> None:
    changed = [tfam_config.changed_settings(tfam_config.load([Path(name)])) for name in VARIANTS]
    assert set().union(*changed) <= run_differences.CONFIG_SPECIFIC_KEYS


def test_experiments_are_five_fusions_two_controls_and_the_probes_with_three_seeds() -> None:
    script = (REPOSITORY / "TFAM" / "run_experiments.sh").read_text()
    configs, seeds = (re.search(rf'(?m)^{name}="\${{{name}:-([^"}}]*)}}"', script) for name in ("CONFIGS", "SEEDS"))
    assert configs and seeds
    names = configs[1].split()
    probes = {fusion for fusion in Fusion if fusion.is_probe}
    assert set(names) == {*run_groups.PAPER_MAP_MICRO, "cross_attention_none", "cross_attention_shuffled"} | probes
    assert set(VARIANTS) >= set(names) and len(seeds[1].split()) == 3


def test_trained_runs_appear_in_the_table(selection_dataset: Path) -> None:
    for config in ("rgb", "cross_attention"):
        main(train_command(config))
    shutil.rmtree(ANNOTATIONS_DIR)
    rows, text = make_table("--resamples", "10")
    row = rows["cross_attention"]
    assert (
        row["protocol"] == "held_out, student published" and float(row["seconds"]) >= 0 and int(row["parameters"]) > 0
    )
    assert float(row["map_micro_minus_rgb_low"]) <= float(row["map_micro_minus_rgb"]) + 0.5
    assert "6 clips" in text


@pytest.mark.parametrize(
    ("student", "label"),
    [
        ({"student_protocol": "published"}, "held_out, student published"),
        ({"student_protocol": None}, "held_out, student unknown"),
        (
            {"student_protocol": "held_out", "student_selection_agrees": False},
            "held_out, student of another selection",
        ),
        ({"student_protocol": "held_out", "student_selection_agrees": True}, "held_out"),
    ],
)
def test_table_names_students_that_were_not_held_out(workspace: Path, student: Any, label: str) -> None:
    write_finished_run("rgb", 1, noisy_scores(1, 1.0), student_protocol=None)  # uses no motion
    write_finished_run("cross_attention", 1, noisy_scores(2, 0.7), **student)
    rows, text = make_table("--resamples", "5")
    assert rows["rgb"]["protocol"] == "held_out"
    assert rows["cross_attention"]["protocol"] == label
    assert rows["cross_attention"]["map_macro_minus_rgb"]  # rgb alone is still the baseline
    assert ("too high" in text) == label.endswith("published")


def test_runs_with_other_inputs_have_rows_of_their_own(workspace: Path) -> None:
    folder = write_finished_run("rgb", 1, noisy_scores(1, 1.0))
    inputs = read_json(folder / "metrics.json")["inputs_sha256"]
    for seed, motion in ((1, "a"), (2, "a"), (3, "b")):
        write_finished_run(
            "cross_attention", seed, noisy_scores(seed, 0.7), inputs_sha256={**inputs, "motion_h5": motion}
        )
    make_table("--resamples", "0")
    rows = [row for row in read_csv(Path("results/table.csv")) if row["config"] == "cross_attention"]
    assert sorted(row["seeds"] for row in rows) == ["1", "2"]
    assert len({row["settings"] for row in rows}) == 2 and all("inputs=" in row["settings"] for row in rows)


def test_paper_number_is_not_given_for_controls_and_limited_runs(workspace: Path) -> None:
    write_finished_run("rgb", 1, noisy_scores(1, 1.0), settings={"model.fusion": "rgb", "model.dropout": 0.2})
    write_finished_run("cross_attention", 1, noisy_scores(2, 0.7), settings={"data.limit": 100})
    rows, _ = make_table("--resamples", "0")
    assert rows["rgb"]["paper_map_micro"] == "0.7583"
    assert rows["cross_attention"]["paper_map_micro"] == ""


def test_intervals_over_sources(workspace: Path) -> None:
    """30 clips of six sources of 2 to 8 clips; a clip without a source is one by itself."""
    sources = {f"V{n:02}.mp4": f"s{n * n // 150}" for n in range(29)}
    ANNOTATIONS_DIR.mkdir(parents=True)
    folders = [write_finished_run(name, 1, noisy_scores(s, 0.7)) for s, name in enumerate(("rgb", "cross_attention"))]
    text = make_table("--resamples", "40", "--resample", "sources")[1]
    assert "sources.csv" in text  # no interval without it
    (ANNOTATIONS_DIR / "sources.csv").write_text(annotations.format_sources(sources))
    rows, text = make_table("--resamples", "40", "--resample", "sources")
    assert "over sources, 40 resamples" in text
    # a clip without a source comes before the sources
    clips_of = [[29], *([n for n in range(29) if n * n // 150 == s] for s in range(6))]
    drawn = [np.bincount([n for s in row for n in clips_of[s]], minlength=30) for row in drawn_sources(7)]
    scores = [predictions_csv.read(folder / "predictions.csv").scores for folder in folders]
    for column, metric in enumerate(("map_macro", "map_micro")):
        rgb, ours = ([sklearn_average_precisions(s, w)[column] for w in (np.ones(30), *drawn)] for s in scores)
        value, *differences = np.subtract(ours, rgb)
        expected = np.percentile(differences, [2.5, 97.5]) + value - np.mean(differences)
        found = [float(rows["cross_attention"][f"{metric}_minus_rgb_{end}"]) for end in ("low", "high")]
        assert found == pytest.approx(expected, abs=5e-5)
    (ANNOTATIONS_DIR / "sources.csv").write_text(annotations.format_sources(dict.fromkeys(sources, "one")))
    rows, text = make_table("--resamples", "40", "--resample", "sources")
    assert rows["cross_attention"]["map_macro_minus_rgb_low"] == "" and "need at least 5 sources" in text


def drawn_sources(count: int) -> list[np.ndarray]:
    """Return 40 resamples of as many sources as there are, of the table's seed."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, count, count) for _ in range(40)]
