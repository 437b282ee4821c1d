"""predict.py with several runs of TFAM: mean and standard deviation of their scores, and which runs fit together."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import CLASSES
from tests.prediction.helpers import RGB_RUN, copy_run, predict, predict_error, read_json, write_calibration
from TFAM.predictor import FusionPredictor
from vimoclip import timeline
from vimoclip.prediction import WindowFeatures

CLIP = "dataset/videos/clip3.mp4"
STUDENT = ["--student", "checkpoints/student"]
WINDOWS = ["--window", "0.3", "--stride-seconds", "0.1"]
RUN = "checkpoints/TFAM/{}/seed49"
CALIBRATIONS: dict[str, dict[str, Any]] = {
    "cross_attention": {"thresholds": (0.6, 0.3, 0.7), "positives": (12, 3, 10)},
    "rgb": {"slopes": (1, 4, 2), "intercepts": (-2, 1, 0), "thresholds": (0.3, 0.5, 0.7), "positives": (11, 30, 9)},
    "concat_time": {
        "slopes": (3, 1, 5),
        "intercepts": (0, 1, 2),
        "thresholds": (0.3, 0.1, 0.1),
        "positives": (40,) * 3,
    },
}


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("flags", [[], ["--raw"]])
def test_scores_are_means_over_the_runs(chain: Path, flags: list[str], tmp_path: Path) -> None:
    runs = [
        str(write_calibration(copy_run(chain, config, tmp_path / "runs" / config), **numbers))
        for config, numbers in CALIBRATIONS.items()
    ]
    for number, run in enumerate(runs):
        predict(chain, CLIP, "--tfam", run, *STUDENT, *WINDOWS, *flags, "-o", str(tmp_path / str(number)))
    report = predict(chain, "dataset/videos", "--tfam", *runs, *STUDENT, *WINDOWS, *flags, "-o", str(tmp_path / "all"))
    assert report.done == 8 and (tmp_path / "all" / "index.html").is_file()
    single = [timeline.read_timeline(tmp_path / str(number) / "clip3.json") for number in range(3)]
    found = timeline.read_timeline(tmp_path / "all" / "clip3.json")
    assert found.classes == CLASSES and found.score_sd is not None
    by_run = np.stack([result.scores for result in single])
    assert found.scores == pytest.approx(by_run.mean(0), abs=2e-6)
    assert found.score_sd == pytest.approx(by_run.std(0, ddof=1), abs=2e-6)
    assert found.score_sd.min() > 1e-4
    assert found.whole == pytest.approx(np.mean([result.whole for result in single], axis=0), abs=1e-12)
    assert found.thresholds == pytest.approx(np.mean([result.thresholds for result in single], axis=0), abs=1e-12)
    assert found.positives == ({} if flags else {"walking": 11, "running": 3, "eating": 9})
    assert found.provenance["tfam"] == [result.provenance["tfam"] for result in single]
    assert found.provenance["tfam_weights_sha256"] == [r.provenance["tfam_weights_sha256"] for r in single]
    assert found.provenance["calibration"] == (None if flags else ["platt"] * 3)
    assert ", ".join(found.provenance["tfam"]) in (tmp_path / "all" / "predictions.boris").read_text()
    rows = read_csv(tmp_path / "all" / "clip3_windows.csv")
    assert list(rows[0]) == ["video", "action", "start", "stop", "score", "score_sd"]
    numbers = np.array([[float(row["score"]), float(row["score_sd"])] for row in rows]).reshape(-1, 3, 2)
    assert np.array_equal(numbers, np.dstack([found.scores, found.score_sd]))
    one = (tmp_path / "0" / "clip3_windows.csv").read_text().partition("\n")[0]
    assert one == "video,action,start,stop,score" and "score_sd" not in read_json(tmp_path / "0" / "clip3.json")


def streams_of(chain: Path, folder: Path, *configs: str) -> list[tuple[str, float, float]]:
    runs = [RUN.format(config) for config in configs]
    predict(chain, CLIP, "--raw", "--tfam", *runs, *STUDENT, "-o", str(folder))
    return read_json(folder / "clip3.json")["disagreements"]


def test_disagreements_are_those_of_the_runs_with_two_streams(chain: Path, tmp_path: Path) -> None:
    one = streams_of(chain, tmp_path / "one", "cross_attention")
    assert streams_of(chain, tmp_path / "rgb", "rgb", "cross_attention") == one != []
    assert streams_of(chain, tmp_path / "none", "rgb", "motion") == []
    ((action, rgb, motion),) = streams_of(chain, tmp_path / "two", "cross_attention", "concat_time")
    assert action in CLASSES and rgb != motion
    assert (action, rgb, motion) != tuple(one[0])


def test_a_stream_is_computed_only_if_a_run_uses_it(chain: Path, tmp_path: Path) -> None:
    other = copy_run(chain, "rgb", tmp_path / "other", perturb)
    predict(chain, CLIP, "--tfam", RGB_RUN, str(other), "--raw", "-o", str(tmp_path / "out"))  # without student
    assert read_json(tmp_path / "out" / "clip3.json")["made_with"]["student_weights_sha256"] is None
    error = predict_error(chain, CLIP, "--raw", "--tfam", RGB_RUN, RUN.format("motion"))
    assert error.path and "motion" in error.path and "--student" in error.hint


def perturb(state: dict[str, Any]) -> None:
    state["state_dict"]["classifier.4.bias"] += 0.5


def test_a_run_ignores_a_stream_that_only_others_use(chain: Path, tmp_path: Path) -> None:
    def without_motion(state: dict[str, Any]) -> None:
        state["config"]["data"]["motion"] = "none"

    run = copy_run(chain, "cross_attention", tmp_path / "run", without_motion)
    predictor = FusionPredictor(run, torch.device("cpu"), "fp32")
    width = predictor.model_config["d_model"]
    window = WindowFeatures(0, 1, torch.randn(5, width), torch.randn(4, width), 5)
    assert np.array_equal(predictor([window]), predictor([window._replace(motion=None)]))


def test_classes_are_matched_by_name(chain: Path, tmp_path: Path) -> None:
    """The same model with its classes in another order: the mean is its score, and the standard deviation 0."""

    def reverse(state: dict[str, Any]) -> None:
        state["class_names"] = state["class_names"][::-1]
        for key in ("classifier.4.weight", "classifier.4.bias"):
            state["state_dict"][key] = state["state_dict"][key].flip(0)

    first = write_calibration(copy_run(chain, "rgb", tmp_path / "first"))
    second = write_calibration(copy_run(chain, "rgb", tmp_path / "second", reverse))
    predict(chain, CLIP, "--tfam", str(first), "-o", str(tmp_path / "one"))
    predict(chain, CLIP, "--tfam", str(first), str(second), "-o", str(tmp_path / "two"))
    one, two = (timeline.read_timeline(tmp_path / name / "clip3.json") for name in ("one", "two"))
    assert two.classes == CLASSES and two.score_sd == pytest.approx(0, abs=1e-6)
    assert two.scores == pytest.approx(one.scores, abs=2e-6) and np.allclose(two.thresholds, one.thresholds)
    assert two.positives == one.positives


def set_input(stream: str, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        perturb(state)
        state["config"]["inputs"][stream][key] = value

    return change


def rename_class(state: dict[str, Any]) -> None:
    perturb(state)
    state["class_names"][1] = "flying"


@pytest.mark.parametrize(
    ("configs", "change", "words"),
    [
        (("cross_attention", "rgb"), set_input("rgb", "weights_sha256", "0" * 64), ("weights_sha256", "rgb")),
        (("cross_attention", "motion"), set_input("motion", "weights_sha256", "1" * 64), ("weights_sha256", "motion")),
        (("rgb", "rgb"), set_input("rgb", "sampling", {"stride": 3}), ("sampling",)),
        (("rgb", "motion"), set_input("motion", "sampling", {"stride": 3}), ("sampling",)),
        (("rgb", "motion"), set_input("motion", "geometry", {"deinterlace": "auto"}), ("geometry",)),
        (("rgb", "cross_attention"), rename_class, ("flying", "running")),
    ],
)
def test_runs_that_do_not_fit_together_are_refused(
    chain: Path, tmp_path: Path, configs: tuple[str, str], change: Callable[[dict[str, Any]], None], words: tuple[str]
) -> None:
    first, second = RUN.format(configs[0]), copy_run(chain, configs[1], tmp_path / "second", change)
    error = predict_error(chain, CLIP, "--raw", "--tfam", first, str(second), *STUDENT)
    assert all(word in error.problem for word in (*words, first, str(second)))


def test_a_run_that_is_given_twice_is_refused(chain: Path, tmp_path: Path) -> None:
    copy = str(copy_run(chain, "rgb", tmp_path / "copy"))
    for runs in ((RGB_RUN, f"{RGB_RUN}/best_model.pth"), (RUN.format("motion"), RGB_RUN, copy)):
        error = predict_error(chain, CLIP, "--raw", "--tfam", *runs, *STUDENT)
        assert RGB_RUN in error.problem and error.path and error.path.startswith(runs[-1])


def test_runs_with_and_without_calibration_are_combined_only_by_their_raw_scores(chain: Path, tmp_path: Path) -> None:
    calibrated = str(write_calibration(copy_run(chain, "rgb", tmp_path / "first")))
    other = str(copy_run(chain, "rgb", tmp_path / "second", perturb))
    for runs in ((calibrated, other), (other, calibrated)):
        error = predict_error(chain, CLIP, "--tfam", *runs, "-o", str(tmp_path / "out"))
        assert calibrated in error.problem and error.path and error.path.startswith(other) and "--raw" in error.hint
    assert predict(chain, CLIP, "--tfam", calibrated, other, "--raw", "-o", str(tmp_path / "out")).done == 1
