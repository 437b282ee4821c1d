"""Probes: what each can separate, scores, the choice of C, and their run folders in the commands that read runs."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import evaluate
from tests.conftest import modification_times
from tests.tfam.helpers import (
    ANNOTATIONS_DIR,
    CPU,
    SAMPLING,
    TEACHER,
    have_same_weights,
    read_csv,
    read_json,
    train_command,
    write_h5,
    write_motion,
    write_rgb,
)
from TFAM import probe, probe_fit, table, train_and_eval
from TFAM.predictor import FusionPredictor
from vimoclip import annotations
from vimoclip.errors import UserError
from vimoclip.evaluation.sources import student_caveat
from vimoclip.io import predictions_csv
from vimoclip.metrics import average_precision_per_class, map_micro
from vimoclip.prediction import WindowFeatures

NAMES = ["by_rgb", "by_motion", "by_one_frame"]
PROBES = {  # which of the actions each can recognise
    "probe_rgb": {"by_rgb"},
    "probe_motion": {"by_motion"},
    "probe_both": {"by_rgb", "by_motion"},
    "probe_attentive": set(NAMES),
}
LINEAR = list(PROBES)[:3]
FOLDER = Path("dataset/embeddings")
SPLITS = {"train": range(200), "val": range(200, 280)}
SELECTION = range(0, 200, 4)
WIDTH = 8


def labels_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 2, 3).astype(np.float32)


def embeddings_of(number: int, stream: str) -> np.ndarray:
    """Noise, and in column 0 of RGB, or 1 of motion, an action that changes the mean of a video. In column 2 of RGB all
    videos have the same mean: from one frame if the third action is shown, else from all. Motion has another scale."""
    length, labels = 8 + number % 5 - (stream == "motion"), labels_of(number)
    rows = np.random.default_rng([number, len(stream)]).normal(0, 0.5, (length, WIDTH)).astype(np.float32)
    if stream == "motion":
        rows[:, 1] += 2 * labels[1]
        return 50 * rows
    rows[:, 0] += 2 * labels[0]
    rows[:, 2] = 0 if labels[2] else 1
    rows[number % length, 2] += length * labels[2]
    return rows


def write_split(split: str) -> None:
    numbers = SPLITS[split]
    attributes: dict[str, Any] = {
        "kind": "rgb",
        "class_names": NAMES,
        "num_classes": 3,
        "embed_dim": WIDTH,
        "sampling": SAMPLING,
    }
    videos = {f"V{n:03}.mp4": embeddings_of(n, "rgb") for n in numbers}
    labels = np.stack([labels_of(n) for n in numbers])
    write_h5(FOLDER / f"ak_{split}_clip_embeddings.h5", videos, labels, **attributes | TEACHER)


def relabel(split: str, labels: np.ndarray) -> None:
    with h5py.File(FOLDER / f"ak_{split}_clip_embeddings.h5", "r+") as file:
        for number, row in zip(SPLITS[split], labels, strict=True):
            file[f"V{number:03}.mp4/labels"][:] = row


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set."""
    root = tmp_path_factory.mktemp("probes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for split in SPLITS:
            write_split(split)
        student = {"teacher": TEACHER, "protocol": "held_out"}
        attributes: dict[str, Any] = {"kind": "motion", "embed_dim": WIDTH, "sampling": SAMPLING, "student": student}
        motion = {f"V{n:03}": embeddings_of(n, "motion") for numbers in SPLITS.values() for n in numbers}
        write_h5(FOLDER / "flow_embeddings.h5", motion, **attributes | TEACHER | {"weights_sha256": "student"})
        ANNOTATIONS_DIR.mkdir(parents=True)
        (ANNOTATIONS_DIR / annotations.SELECTION_FILE).write_text("".join(f"V{n:03}.mp4\n" for n in SELECTION))
        names = "".join(f"{i},{name}\n" for i, name in enumerate(NAMES))
        (ANNOTATIONS_DIR / "ak_action.csv").write_text(f"id,name\n{names}")
        for split, numbers in SPLITS.items():
            lines = [" ".join([f"V{n:03}.mp4", *map(str, np.flatnonzero(labels_of(n)))]) for n in numbers]
            (ANNOTATIONS_DIR / f"{split}_multi.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def run(config: str, *more: str) -> Path:
    """Train a probe in the current folder; padding would be part of a mean if a mean included it."""
    settings = ["model.num_heads=2", "training.epochs=20", "training.lr=1e-2", "model.pooling=padded_mean"]
    return probe.main(["--config", config, "--num-workers", "0", "--device", "cpu", "--set", *settings, *more])


def probabilities(path: Path) -> torch.Tensor:
    return torch.tensor(predictions_csv.read(path).scores)


def targets(numbers: range) -> torch.Tensor:
    return torch.tensor(np.stack([labels_of(n) for n in numbers]))


def mean_embeddings(streams: list[str], numbers: list[int]) -> np.ndarray:
    return np.stack([np.concatenate([embeddings_of(n, stream).mean(0) for stream in streams]) for n in numbers])


@pytest.mark.parametrize("config", PROBES)
def test_a_probe_recognises_what_its_input_shows(in_folder: Path, config: str) -> None:
    scores = probabilities(run(config) / "predictions.csv")
    aps = dict(zip(NAMES, average_precision_per_class(scores, targets(SPLITS["val"])), strict=True))
    assert {name for name, ap in aps.items() if ap > 0.95} == PROBES[config], aps
    assert all(ap < 0.75 for name, ap in aps.items() if name not in PROBES[config]), aps


@pytest.mark.parametrize("config", LINEAR)
def test_scores_are_those_of_scikit_learn_on_the_mean_embeddings(in_folder: Path, config: str) -> None:
    """Means are of a video's own frames, standardised by the training videos; all regressions have one C."""
    folder = run(config)
    metrics = read_json(folder / "metrics.json")
    streams = {"probe_rgb": ["rgb"], "probe_motion": ["motion"], "probe_both": ["rgb", "motion"]}[config]
    train = [n for n in SPLITS["train"] if n not in SELECTION]
    x, labels = mean_embeddings(streams, train), targets(SPLITS["train"]).numpy()[train]
    for file, numbers in ("predictions.csv", SPLITS["val"]), ("selection_predictions.csv", SELECTION):
        scores = probabilities(folder / file).numpy()
        for column in range(3):
            reference = make_pipeline(StandardScaler(), LogisticRegression(C=metrics["regularisation"]["C"]))
            reference.fit(x, labels[:, column])
            expected = reference.predict_proba(mean_embeddings(streams, list(numbers)))[:, 1]
            assert scores[:, column] == pytest.approx(expected, abs=2e-3)


def test_c_is_the_best_on_the_selection_clips_and_blind_to_the_evaluation_clips(in_folder: Path) -> None:
    folder = run("probe_both")
    metrics = read_json(folder / "metrics.json")
    chosen = metrics["regularisation"]
    by_c = {float(c): value for c, value in chosen["map_micro"].items()}
    assert by_c[chosen["C"]] == max(by_c.values()) and len(by_c) >= 8
    of_selection = map_micro(probabilities(folder / "selection_predictions.csv"), targets(SELECTION))
    assert by_c[chosen["C"]] == pytest.approx(of_selection, abs=1e-3)
    assert metrics["epoch"] is None and "model-selection split" in metrics["epoch_chosen_by"]
    relabel("val", 1 - targets(SPLITS["val"]).numpy())
    flipped = run("probe_both", "--checkpoints-dir", "flipped")
    relabel("train", targets(SPLITS["train"]).numpy()[::-1])
    other = run("probe_both", "--checkpoints-dir", "other", "--set", "training.checkpoint=last")
    for split, numbers in SPLITS.items():
        relabel(split, targets(numbers).numpy())
    assert read_json(flipped / "metrics.json")["regularisation"] == chosen
    assert read_json(flipped / "metrics.json")["map_micro"] < 0.5 < metrics["map_micro"]
    assert have_same_weights(flipped / "best_model.pth", folder / "best_model.pth")
    assert read_json(other / "metrics.json")["regularisation"]["map_micro"].keys() >= {"1e-05"}
    assert read_json(other / "metrics.json")["regularisation"] != chosen


def test_of_equal_precision_the_lower_log_loss_decides(in_folder: Path) -> None:
    """Labels that embeddings determine: all C rank the clips perfectly, and scores of the smallest hardly differ."""
    separable = np.repeat(targets(SPLITS["train"]).numpy()[:, :1], 3, axis=1)
    relabel("train", separable)
    folder = run("probe_both", "--checkpoints-dir", "separable")
    relabel("train", targets(SPLITS["train"]).numpy())
    chosen = read_json(folder / "metrics.json")["regularisation"]
    losses = {float(c): loss for c, loss in chosen["log_loss"].items()}
    assert set(chosen["map_micro"].values()) == {1.0} and set(losses) == set(probe_fit.GRID)
    assert chosen["C"] == min(losses, key=losses.__getitem__) > probe_fit.GRID[0]
    scores = probabilities(folder / "selection_predictions.csv").numpy()
    assert scores.max() - scores.min() > 0.5


def test_the_search_ends_after_three_falls_in_a_row(in_folder: Path) -> None:
    """Labels that embeddings do not determine: the weaker the penalty, the worse."""
    noise = np.random.default_rng(0).integers(0, 2, (200, 3)).astype(np.float32)
    relabel("train", noise)
    chosen = read_json(run("probe_both", "--checkpoints-dir", "noise") / "metrics.json")["regularisation"]
    relabel("train", targets(SPLITS["train"]).numpy())
    values = [chosen["map_micro"][f"{c:g}"] for c in probe_fit.GRID if f"{c:g}" in chosen["map_micro"]]
    assert len(values) == len(chosen["map_micro"]) < len(probe_fit.GRID)
    assert values[-4] > values[-3] > values[-2] > values[-1]


def test_a_class_without_positives_or_without_negatives_has_one_score(dataset: Path) -> None:
    path = dataset / "ak_train_clip_embeddings.h5"
    with h5py.File(path, "r+") as file:
        for group in file.values():
            group["labels"][:2] = [1, 0]  # all eat, none runs
    folder = probe.main(train_command("probe_rgb"))
    scores = probabilities(folder / "predictions.csv")
    assert (scores[:, :2] == scores[0, :2]).all() and len(scores[:, 2].unique()) == 6
    assert scores[0, 0] == pytest.approx(10 / 11) and scores[0, 1] == pytest.approx(1 / 11)


def test_one_training_video_gives_constant_scores(dataset: Path) -> None:
    folder = probe.main(train_command("probe_both", "--limit", "1"))
    scores = probabilities(folder / "predictions.csv")
    assert scores.isfinite().all() and read_json(folder / "metrics.json")["train_num_videos"] == 1


def test_a_finished_run_is_skipped_other_settings_are_refused_and_a_stopped_run_starts_again(in_folder: Path) -> None:
    command = ["--checkpoints-dir", "again", "--report", "report.json"]
    assert run("probe_rgb", *command, "--dry-run") == Path("again/TFAM/probe_rgb/seed49")
    assert not Path("again").exists()
    planned = read_json(Path("report.json"))
    assert (planned["pending"], planned["unit"]) == (1, "run") and planned["estimate"]["seconds"] > 0
    folder = run("probe_rgb", *command)
    assert read_json(Path("report.json"))["done"] == 1
    before, first = modification_times(folder), read_json(folder / "metrics.json")
    assert run("probe_rgb", *command) == folder and modification_times(folder) == before
    report = read_json(Path("report.json"))
    assert (report["done"], report["already"], report["unit"]) == (0, 1, "run")
    with pytest.raises(UserError, match=r"training\.epochs"):
        run("probe_rgb", *command, "--set", "training.epochs=21")
    (folder / "metrics.json").unlink()
    (folder / "predictions.csv").unlink()
    assert train_and_eval.main(["--resume", str(folder), "--device", "cpu", "--num-workers", "2"]) == folder
    assert read_json(folder / "metrics.json") | {"seconds": None} == first | {"seconds": None}


def test_another_model_is_refused(dataset: Path) -> None:
    with pytest.raises(UserError) as error:
        probe.main(train_command("cross_attention"))
    assert "cross_attention" in error.value.problem and "TFAM.train_and_eval" in error.value.hint
    with pytest.raises(UserError) as error:
        probe.main([])
    assert "probe_" in error.value.hint
    with pytest.raises(UserError, match="probe_rgb sees no motion"):
        probe.main([*train_command("probe_rgb"), "data.motion=none"])
    with pytest.raises(UserError, match="num_heads"):
        probe.main([*train_command("probe_attentive"), "model.num_heads=3"])


@pytest.mark.parametrize("config", PROBES)
def test_a_run_is_read_by_the_table_and_by_evaluation(in_folder: Path, config: str) -> None:
    folder = run(config)
    metrics = read_json(folder / "metrics.json")
    assert metrics["fusion"] == metrics["config"] == config and metrics["settings"]["training.epochs"] == 20
    rows = {row["config"]: row for row in read_csv(table.main(["--resamples", "0"]))}
    assert float(rows[config]["map_macro_mean"]) == pytest.approx(metrics["map_macro"], abs=1e-4)
    evaluate.main([str(folder), "--resamples", "5"])
    evaluated = read_json(folder / "evaluation" / "metrics.json")
    assert evaluated["map_macro"]["value"] == pytest.approx(metrics["map_macro"], abs=1e-6)
    assert student_caveat(metrics, "held_out") is None  # the student was held out too, and probe_rgb has none
    again = train_and_eval.main(["--evaluate", str(folder / "best_model.pth"), "--device", "cpu"])
    assert again["map_micro"] == metrics["map_micro"] and again["fusion"] == config


@pytest.mark.parametrize("config", PROBES)
def test_windows_get_the_scores_of_the_evaluation(in_folder: Path, config: str) -> None:
    folder = run(config)
    predictor = FusionPredictor(folder, CPU, "fp32", raw=True)
    streams = [
        (torch.from_numpy(embeddings_of(n, "rgb")), torch.from_numpy(embeddings_of(n, "motion"))) for n in SPLITS["val"]
    ]
    windows = [WindowFeatures(0.0, 1.0, rgb, motion, len(rgb)) for rgb, motion in streams]
    expected = probabilities(folder / "predictions.csv").numpy()
    assert predictor(windows) == pytest.approx(expected, abs=1e-5)
    assert predictor.has_two_streams == (config in ("probe_both", "probe_attentive"))


def test_a_linear_probe_takes_a_missing_stream_for_an_average_one(in_folder: Path) -> None:
    """A stream of zeros would be far from the mean, and shift the scores of all windows."""
    predictor = FusionPredictor(run("probe_both"), CPU, "fp32", raw=True)
    train = [n for n in SPLITS["train"] if n not in SELECTION]
    mean = torch.from_numpy(mean_embeddings(["rgb", "motion"], train).mean(0)).float()
    rgb, motion = torch.from_numpy(embeddings_of(0, "rgb")), torch.from_numpy(embeddings_of(0, "motion"))
    window = WindowFeatures(0.0, 1.0, rgb, motion, len(rgb))
    filled = [
        window._replace(motion=mean[WIDTH:].expand(len(motion), -1)),
        window._replace(rgb=mean[:WIDTH].expand(len(rgb), -1)),
    ]
    assert predictor.score_streams([window])[:, 0] == pytest.approx(predictor(filled), abs=1e-5)


def test_controls_of_motion_reach_a_probe(motion_only_dataset: Path) -> None:
    """RGB is noise there: without motion, or with that of another video, the probe is at chance level."""
    scores = {}
    for mode in ("real", "none", "shuffled"):
        command = [*train_command("probe_both", "--checkpoints-dir", mode), f"data.motion={mode}"]
        scores[mode] = read_json(probe.main(command) / "metrics.json")["map_macro"]
    assert scores["real"] > 0.9 and max(scores["none"], scores["shuffled"]) < 0.6, scores


def test_embeddings_that_are_not_finite_are_named(dataset: Path) -> None:
    write_rgb(dataset / "ak_train_clip_embeddings.h5", range(9))
    write_motion(dataset / "flow_embeddings.h5", range(15))
    with h5py.File(dataset / "ak_train_clip_embeddings.h5", "r+") as file:
        file["V03.mp4/embeddings"][0, 0] = np.nan
    with pytest.raises(UserError, match=r"V03\.mp4"):
        probe.main(train_command("probe_rgb"))
