"""Cross-validation: out-of-fold predictions pooled, the table's numbers, and runs that do not belong together."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sklearn.metrics import average_precision_score

import evaluate
from tests.tfam.helpers import CLASSES, class_embeddings, read_csv, read_json, write_h5
from TFAM import cross_validation
from vimoclip import metrics
from vimoclip.errors import UserError
from vimoclip.io import predictions_csv
from vimoclip.store import EmbeddingReader

NUM_CLIPS, NUM_FOLDS = 30, 3
SINGLE = np.array([n % 5 < 2 for n in range(NUM_CLIPS)])[:, None]
THREE = np.eye(3, dtype=bool)[[n % 3 for n in range(NUM_CLIPS)]]
FOLDS = [[n for n in range(NUM_CLIPS) if n // 2 % NUM_FOLDS == fold] for fold in range(NUM_FOLDS)]  # in pairs
FOLDERS = [f"checkpoints/fold{fold}" for fold in range(1, NUM_FOLDS + 1)]


@pytest.fixture(scope="module")
def single_datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data sets of the folds, with one class."""
    folder = tmp_path_factory.mktemp("single")
    write_datasets(SINGLE, folder=folder)
    return folder


@pytest.fixture(autouse=True)
def workspace(single_datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(single_datasets, "dataset")


def clip(number: int) -> str:
    return f"V{number:02}.mp4"


def write_datasets(labels: np.ndarray, folds: Sequence[Sequence[int]] = FOLDS, folder: Path = Path("dataset")) -> None:
    """Write the embeddings and sources (two clips each) of each fold's data set."""
    for fold, val in enumerate(folds, start=1):
        dataset = folder / f"fold{fold}"
        for split, numbers in (("val", val), ("train", sorted(set(range(NUM_CLIPS)) - set(val)))):
            videos = {clip(n): class_embeddings(n, 2) for n in numbers}
            names = CLASSES[: labels.shape[1]]
            attributes: dict[str, Any] = {"kind": "rgb", "class_names": names, "num_classes": len(names)}
            write_h5(dataset / f"{split}.h5", videos, labels[numbers].astype(np.float32), embed_dim=8, **attributes)
        (dataset / "annotations").mkdir(exist_ok=True)
        rows = "".join(f"{clip(n)},animal{n // 2:02}\n" for n in range(NUM_CLIPS))
        (dataset / "annotations" / "sources.csv").write_text(f"video_id,source\n{rows}")


def scores_of(labels: np.ndarray, seed: int, noise: float = 1.0) -> np.ndarray:
    return 1 / (1 + np.exp(-1.0 * labels - noise * np.random.default_rng(seed).normal(size=labels.shape)))


def write_runs(config: str, seed: int, labels: np.ndarray, scores: np.ndarray, **changes: Any) -> list[Path]:
    """Write the finished run of each fold with its part of the scores; `changes`: of metrics.json."""
    folders = []
    for fold, root in enumerate(FOLDERS, start=1):
        folder = Path(root, "TFAM", config, f"seed{seed}")
        folder.mkdir(parents=True)
        dataset = Path(f"dataset/fold{fold}")
        reader = EmbeddingReader(dataset / "val.h5")
        numbers = [int(name[1:3]) for name in reader.keys]
        predictions_csv.write(folder / "predictions.csv", reader.keys, scores[numbers], CLASSES[: labels.shape[1]])
        data = {f"rgb_{split}_h5": str(dataset / f"{split}.h5") for split in ("train", "val")}
        data["annotations_dir"] = str(dataset / "annotations")
        (folder / "config.yaml").write_text(yaml.safe_dump({"data": data}))
        run_metrics = {
            "map_macro": average_precision(labels[numbers], scores[numbers]),
            "map_micro": average_precision(labels[numbers], scores[numbers], "micro"),
            "config": config,
            "fusion": config,
            "seed": seed,
            "settings": {"model.fusion": config},
            "num_videos": len(numbers),
            "protocol": "held_out",
            "student_protocol": "held_out",
            "inputs_sha256": {"rgb_val_h5": reader.attributes["content_sha256"]},
        }
        (folder / "metrics.json").write_text(json.dumps(run_metrics | changes))
        folders.append(folder)
    return folders


def average_precision(labels: np.ndarray, scores: np.ndarray, average: str = "macro", **arguments: Any) -> float:
    return float(average_precision_score(labels, scores, average=average, **arguments))


def make_table(*flags: str) -> tuple[dict[str, dict[str, str]], str]:
    """Return (rows of table.csv by config, text of table.md)."""
    path = cross_validation.main(["--checkpoints-dirs", *FOLDERS, "-o", "results", *flags])
    return {row["config"]: row for row in read_csv(path)}, Path("results/table.md").read_text()


def pooled_scores(config: str, seed: int) -> np.ndarray:
    """Return the scores in a pooled file, in the order of the clips' numbers."""
    table = predictions_csv.read(Path(f"results/{config}/seed{seed}/predictions.csv"))
    assert sorted(table.videos) == [clip(n) for n in range(NUM_CLIPS)]
    return table.scores[np.argsort(np.array(table.videos))]


@pytest.mark.parametrize("over", ["clips", "sources"])
def test_table_of_one_class_matches_scikit_learn(over: str) -> None:
    for config, noise in (("rgb", 2.0), ("cross_attention", 0.7)):
        for seed in (1, 2):
            write_runs(config, seed, SINGLE, scores_of(SINGLE, seed, noise))
    rows, text = make_table("--resample", over, "--resamples", "40", "--report", "report.json")
    report = read_json(Path("report.json"))
    assert (report["done"], report["unit"], report["skipped"]) == (4, "run", {})
    sources = np.arange(NUM_CLIPS) // 2
    draw = metrics.bootstrap_weights(NUM_CLIPS, 40, 0)
    weights = draw if over == "clips" else metrics.cluster_bootstrap_weights(sources, 40, 0)
    drawn_seeds = np.random.default_rng([0, 1]).integers(0, 2, (40, 2))
    values, resampled = {}, {}
    for config in rows:
        scores = [pooled_scores(config, seed) for seed in (1, 2)]
        assert scores[0] == pytest.approx(scores_of(SINGLE, 1, 2.0 if config == "rgb" else 0.7), abs=1e-8)
        values[config] = [average_precision(SINGLE, found) for found in scores]
        aps = [[average_precision(SINGLE, found, sample_weight=w) for w in weights] for found in scores]
        resampled[config] = np.array(aps)[drawn_seeds.T, np.arange(40)].mean(0)
    for config, row in rows.items():
        for metric in ("map_macro", "map_micro"):
            assert float(row[f"{metric}_mean"]) == pytest.approx(np.mean(values[config]), abs=5e-5)
            assert float(row[f"{metric}_std"]) == pytest.approx(np.std(values[config], ddof=1), abs=5e-5)
            shift = np.mean(values[config]) - resampled[config].mean()
            expected = np.clip(np.percentile(resampled[config], [2.5, 97.5]) + shift, 0, 1)
            assert [float(row[f"{metric}_{end}"]) for end in ("low", "high")] == pytest.approx(expected, abs=1e-4)
        of_folds = [
            read_json(Path(folder, "TFAM", config, f"seed{seed}", "metrics.json"))["map_macro"]
            for folder in FOLDERS
            for seed in (1, 2)
        ]
        assert float(row["map_macro_mean_of_folds"]) == pytest.approx(np.mean(of_folds), abs=5e-5)
        chances = [metrics.expected_random_ap(int(SINGLE[fold].sum()), len(fold)) for fold in FOLDS]
        assert float(row["map_macro_mean_of_folds_chance"]) == pytest.approx(np.mean(chances), abs=5e-5)
        assert (row["seeds"], row["folds"], row["num_videos"], row["share_of_positives"]) == ("2", "3", "30", "0.4000")
        for metric in ("map_macro", "map_micro"):
            assert float(row[f"{metric}_chance"]) == pytest.approx(metrics.expected_random_ap(12, 30), abs=5e-5)
    differences = resampled["cross_attention"] - resampled["rgb"]
    difference = np.mean(values["cross_attention"]) - np.mean(values["rgb"])
    row = rows["cross_attention"]
    assert float(row["map_macro_minus_baseline"]) == pytest.approx(difference, abs=1e-4)
    expected = np.percentile(differences, [2.5, 97.5]) + difference - differences.mean()
    bounds = [float(row[f"map_macro_minus_baseline_{end}"]) for end in ("low", "high")]
    assert bounds == pytest.approx(expected, abs=1e-4)
    assert rows["rgb"]["map_macro_minus_baseline"] == ""
    assert f"AP of {CLASSES[0]}" in text.splitlines()[0] and "macro" not in text.splitlines()[0]


def test_several_classes_have_macro_and_micro_ap_and_another_baseline() -> None:
    write_datasets(THREE)
    write_runs("rgb", 1, THREE, scores_of(THREE, 1))
    write_runs("motion", 1, THREE, scores_of(THREE, 2))
    rows, text = make_table("--baseline", "motion", "--resamples", "0")
    for config, row in rows.items():
        scores = pooled_scores(config, 1)
        assert float(row["map_macro_mean"]) == pytest.approx(average_precision(THREE, scores), abs=5e-5)
        assert float(row["map_micro_mean"]) == pytest.approx(average_precision(THREE, scores, "micro"), abs=5e-5)
    difference = float(rows["rgb"]["map_macro_mean"]) - float(rows["motion"]["map_macro_mean"])
    assert float(rows["rgb"]["map_macro_minus_baseline"]) == pytest.approx(difference, abs=1.1e-4)
    assert rows["motion"]["map_macro_minus_baseline"] == "" and rows["rgb"]["baseline"] == "motion"
    assert "over motion" in text.splitlines()[0] and "micro AP" in text.splitlines()[0]


def test_scores_that_follow_only_the_frequency_of_the_classes_are_at_chance() -> None:
    """Of three classes with 24, 12 and 3 of 30 clips; micro AP is far above that of random scores all the same."""
    labels = np.stack([np.arange(NUM_CLIPS) % 10 < count for count in (8, 4, 1)], axis=1)
    write_datasets(labels, [list(range(first, first + 10)) for first in (0, 10, 20)])
    for seed in (1, 2, 3):
        noise = np.random.default_rng(seed).uniform(0, 0.01, labels.shape)
        write_runs("rgb", seed, labels, labels.mean(0) + noise)
    rows, _ = make_table("--resamples", "0")
    row = {name: float(value) for name, value in rows["rgb"].items() if name.startswith("map_") and value}
    assert row["map_micro_mean"] == pytest.approx(row["map_micro_chance"], abs=0.05)
    assert row["map_micro_mean_of_folds"] == pytest.approx(row["map_micro_mean_of_folds_chance"], abs=0.05)
    assert row["map_micro_mean_of_folds_chance"] > metrics.expected_random_ap(13, 30) + 0.15
    expected = np.mean([metrics.expected_random_ap(count, 30) for count in (24, 12, 3)])
    assert row["map_macro_chance"] == pytest.approx(expected, abs=5e-5)


def test_interval_without_width_of_a_perfect_ranking_is_explained() -> None:
    write_runs("rgb", 1, SINGLE, scores_of(SINGLE, 1))
    _, text = make_table("--resamples", "20")
    assert cross_validation.PERFECT_NOTE not in text
    write_runs("motion", 1, SINGLE, 0.1 + 0.8 * SINGLE)
    rows, text = make_table("--resamples", "20")
    assert (rows["motion"]["map_macro_low"], rows["motion"]["map_macro_high"]) == ("1.0000", "1.0000")
    assert cross_validation.PERFECT_NOTE in text


def test_pooled_predictions_can_be_evaluated() -> None:
    write_runs("rgb", 1, SINGLE, scores_of(SINGLE, 1))
    rows, _ = make_table("--resamples", "20")
    command = [
        "results/rgb/seed1/predictions.csv",
        "--annotations-dir",
        "results/annotations",
        "--output-dir",
        "report",
    ]
    evaluate.main([*command, "--resample", "sources", "--resamples", "20"])
    found = read_json(Path("report/metrics.json"))["map_macro"]
    assert found["value"] == pytest.approx(float(rows["rgb"]["map_macro_mean"]), abs=5e-5)
    assert found["ci95"]


def test_fold_without_a_positive_clip_has_no_mean_of_folds() -> None:
    """The pooled clips have an average precision all the same."""
    labels = np.zeros_like(SINGLE)
    labels[FOLDS[0][:3]] = labels[FOLDS[1][:3]] = True
    write_datasets(labels)
    write_runs("rgb", 1, labels, scores_of(labels, 1), map_macro=0.0, map_micro=0.0)
    rows, _ = make_table("--resamples", "0")
    assert rows["rgb"]["map_macro_mean_of_folds"] == ""
    expected = average_precision(labels, pooled_scores("rgb", 1))
    assert float(rows["rgb"]["map_macro_mean"]) == pytest.approx(expected, abs=5e-5)


def test_unfinished_run_is_named_and_the_others_have_rows(capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (1, 2):
        write_runs("rgb", seed, SINGLE, scores_of(SINGLE, seed))
    missing = Path(FOLDERS[1], "TFAM/rgb/seed2/metrics.json")
    missing.unlink()
    rows, text = make_table("--resamples", "0", "--report", "report.json")
    assert rows["rgb"]["seeds"] == "1"
    assert str(missing) in text and str(missing) in capsys.readouterr().out
    assert list(read_json(Path("report.json"))["skipped"]) == [str(missing)]
    Path(FOLDERS[0], "TFAM/rgb/seed1/metrics.json").unlink()
    with pytest.raises(UserError):
        make_table("--resamples", "0")


def test_missing_fold_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    write_runs("rgb", 1, SINGLE, scores_of(SINGLE, 1))
    make_table("--resamples", "0")
    assert "warning" not in capsys.readouterr().out
    cross_validation.main(["--checkpoints-dirs", *FOLDERS[:2], "-o", "results", "--resamples", "0"])
    assert clip(FOLDS[2][0]) in capsys.readouterr().out
    with pytest.raises(UserError):
        cross_validation.main(["--checkpoints-dirs", FOLDERS[0], "-o", "results"])


def test_folds_with_a_common_clip_are_an_error() -> None:
    write_datasets(SINGLE, [[*FOLDS[0], FOLDS[1][0]], *FOLDS[1:]])
    write_runs("rgb", 1, SINGLE, scores_of(SINGLE, 1))
    with pytest.raises(UserError) as caught:
        make_table()
    assert clip(FOLDS[1][0]) in str(caught.value) and str(caught.value.path).startswith(FOLDERS[1])
    assert not Path("results/rgb").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"model.fusion": "rgb", "training.epochs": 5}},
        {"protocol": "published"},
        {"fusion": "motion", "student_protocol": "published"},
        {"seed": 3},
    ],
)
def test_runs_with_other_settings_in_one_fold_are_an_error(change: dict[str, Any]) -> None:
    folders = write_runs("rgb", 1, SINGLE, scores_of(SINGLE, 1))
    content = read_json(folders[2] / "metrics.json")
    (folders[2] / "metrics.json").write_text(json.dumps(content | change))
    with pytest.raises(UserError) as caught:
        make_table()
    assert str(folders[2]) in str(caught.value)


def test_other_classes_in_one_fold_are_an_error() -> None:
    folders = write_runs("rgb", 1, SINGLE, scores_of(SINGLE, 1))
    text = (folders[1] / "predictions.csv").read_text()
    (folders[1] / "predictions.csv").write_text(text.replace(CLASSES[0], CLASSES[1], 1))
    with pytest.raises(UserError) as caught:
        make_table()
    assert str(folders[1]) in str(caught.value)


def test_changed_labels_and_missing_sources_are_errors() -> None:
    write_runs("rgb", 1, SINGLE, scores_of(SINGLE, 1))
    Path("dataset/fold2/annotations/sources.csv").unlink()
    with pytest.raises(UserError) as caught:
        make_table("--resample", "sources")
    assert caught.value.path == "dataset/fold2/annotations"
    write_datasets(~SINGLE)
    with pytest.raises(UserError) as caught:
        make_table()
    assert caught.value.path == "dataset/fold1/val.h5"


@pytest.mark.parametrize(
    ("folds", "expected"),
    [
        ([(4, 2), (4, 2), (4, 1), (5, 2), (5, 2)], 0.40),  # the folds of demo.sh --kabr
        ([(1, 1)] * 9 + [(1, 0)] * 13, 0.26),
    ],
)
def test_scores_that_follow_the_training_share_are_below_chance(folds: list[tuple[int, int]], expected: float) -> None:
    """The figures of docs/numbers.md: (clips, positives) of each fold, 22 and 9 in all; ties are broken at random."""
    scores = np.concatenate([np.full(clips, (9 - positives) / (22 - clips)) for clips, positives in folds])
    labels = np.concatenate([np.arange(clips) < positives for clips, positives in folds])
    rng, weights = np.random.default_rng(0), np.ones((1, 22), np.uint8)
    values = [
        metrics.bootstrap_ap_per_class((scores + rng.uniform(0, 1e-6, 22))[:, None], labels[:, None], weights)[0, 0]
        for _ in range(1000)
    ]
    assert np.mean(values) == pytest.approx(expected, abs=0.01)
    assert metrics.expected_random_ap(9, 22) == pytest.approx(0.485, abs=5e-4)


def test_only_a_linear_probe_is_compared_with_rgb_of_other_training_settings() -> None:
    """An attentive probe is trained by gradient descent, so that these settings change it too."""
    write_runs("rgb", 1, SINGLE, scores_of(SINGLE, 1), settings={"model.fusion": "rgb", "training.epochs": 5})
    write_runs("probe_rgb", 1, SINGLE, scores_of(SINGLE, 2))
    write_runs("my_probe", 1, SINGLE, scores_of(SINGLE, 3), fusion="probe_rgb")
    write_runs("probe_attentive", 1, SINGLE, scores_of(SINGLE, 4))
    rows, _ = make_table("--resamples", "0")
    difference = float(rows["probe_rgb"]["map_macro_mean"]) - float(rows["rgb"]["map_macro_mean"])
    assert float(rows["probe_rgb"]["map_macro_minus_baseline"]) == pytest.approx(difference, abs=1.1e-4)
    assert rows["probe_attentive"]["map_macro_minus_baseline"] == ""
    rows, _ = make_table("--resamples", "0", "--baseline", "my_probe")
    difference = float(rows["rgb"]["map_macro_mean"]) - float(rows["my_probe"]["map_macro_mean"])
    assert float(rows["rgb"]["map_macro_minus_baseline"]) == pytest.approx(difference, abs=1.1e-4)
