"""predict.py with the calibration of a run: scores, thresholds, numbers of positives, results of earlier commands."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import CLASSES
from tests.prediction.helpers import copy_run, predict, predict_error, read_json, write_calibration
from TFAM.data import ClipFeatures, collate
from TFAM.loops import score_batch
from TFAM.predictor import FusionPredictor
from vimoclip import timeline
from vimoclip.evaluation import calibration_file
from vimoclip.prediction import WindowFeatures

CLIP = "dataset/videos/clip3.mp4"
STUDENT = ["--student", "checkpoints/student"]
CPU = torch.device("cpu")


@pytest.fixture
def run(chain: Path, tmp_path: Path) -> Path:
    return write_calibration(copy_run(chain, "cross_attention", tmp_path / "runs" / "run"))


def random_windows(predictor: FusionPredictor, count: int = 4) -> list[WindowFeatures]:
    width = predictor.model_config["d_model"]
    torch.manual_seed(0)
    return [WindowFeatures(0, 1, torch.randn(5, width), torch.randn(4, width), 5) for _ in range(count)]


def sigmoid_of_logits(predictor: FusionPredictor, windows: Sequence[WindowFeatures]) -> np.ndarray:
    """Return the scores as they were computed before there was a calibration."""
    zeros = torch.zeros(5, predictor.model_config["d_model"])
    clips = [
        ClipFeatures("", zeros if rgb is None else rgb, zeros[1:] if motion is None else motion, torch.empty(0))
        for _, _, rgb, motion, _ in windows
    ]
    with torch.inference_mode():
        return score_batch(predictor.model, collate(clips), CPU, "fp32").sigmoid().double().numpy()


def test_scores_are_the_calibration_of_the_models_probabilities(run: Path) -> None:
    calibrated, raw = FusionPredictor(run, CPU, "fp32"), FusionPredictor(run, CPU, "fp32", raw=True)
    calibration = calibration_file.read(run, CLASSES)
    assert calibration is not None
    windows = random_windows(raw)
    by_rgb = [window._replace(motion=None) for window in windows]
    by_motion = [window._replace(rgb=None) for window in windows]
    expected = sigmoid_of_logits(raw, windows)
    streams = np.stack([sigmoid_of_logits(raw, by_rgb), sigmoid_of_logits(raw, by_motion)])
    assert np.array_equal(raw(windows), expected) and np.array_equal(raw.score_streams(windows), streams)
    assert np.array_equal(calibrated(windows), calibration.scores(expected))
    assert np.array_equal(calibrated.score_streams(windows), calibration.scores(streams))
    assert not np.isclose(calibrated(windows), expected).any()


def test_all_results_of_a_video_are_calibrated(chain: Path, run: Path, tmp_path: Path) -> None:
    windows = ["--window", "0.3", "--stride-seconds", "0.1"]
    for name, flags in (("calibrated", []), ("raw", ["--raw"])):
        predict(chain, CLIP, "--tfam", str(run), *STUDENT, *windows, *flags, "-o", str(tmp_path / name))
    results = [timeline.read_timeline(tmp_path / name / "clip3.json") for name in ("calibrated", "raw")]
    calibration = calibration_file.read(run, CLASSES)
    assert calibration is not None
    found, raw = results
    assert np.array_equal(found.whole, calibration.scores(raw.whole))
    assert found.scores == pytest.approx(calibration.scores(raw.scores), abs=5e-6)  # of rounded scores
    assert found.thresholds.tolist() == [0.6, 0.3, 0.7]
    fitted = json.loads((run / "metrics.json").read_text())["thresholds"]
    assert raw.thresholds.tolist() == [fitted[name] for name in CLASSES]
    assert (found.provenance["calibration"], raw.provenance["calibration"]) == ("platt", None)


def test_raw_results_are_those_of_a_run_without_calibration(chain: Path, run: Path, tmp_path: Path) -> None:
    predict(chain, CLIP, "--tfam", str(run), *STUDENT, "--raw", "-o", str(tmp_path / "raw"))
    (run / "calibration.json").write_text("{}")  # is not read
    predict(chain, CLIP, "--tfam", str(run), *STUDENT, "--raw", "-o", str(tmp_path / "damaged"))
    assert "calibration.json" in str(predict_error(chain, CLIP, "--tfam", str(run), *STUDENT, "-o", str(tmp_path)))
    (run / "calibration.json").unlink()
    predict(chain, CLIP, "--tfam", str(run), *STUDENT, "-o", str(tmp_path / "without"))
    files = [path.name for path in (tmp_path / "raw").glob("clip3*")]
    assert len(files) == 5
    for name in files:
        expected = (tmp_path / "without" / name).read_bytes()
        assert (tmp_path / "raw" / name).read_bytes() == expected == (tmp_path / "damaged" / name).read_bytes()


def test_another_checkpoint_of_the_run_is_not_calibrated(run: Path) -> None:
    other = run / "other.pth"
    (run / "best_model.pth").rename(other)
    assert FusionPredictor(other, CPU, "fp32").calibration is None


def test_raw_and_calibrated_results_are_not_mixed(chain: Path, run: Path, tmp_path: Path) -> None:
    """With one threshold, so that only the calibration differs."""
    command = [CLIP, "--tfam", str(run), *STUDENT, "--threshold", "0.3", "-o"]
    path = tmp_path / "raw" / "clip3.json"
    predict(chain, *command, str(path.parent), "--raw")
    document = read_json(path)
    del document["made_with"]["calibration"]  # as earlier versions wrote it
    path.write_text(json.dumps(document))
    error = predict_error(chain, *command, str(path.parent))
    assert str(path) in error.problem and "platt" in error.problem and "--raw" in error.hint
    assert predict(chain, *command, str(path.parent), "--raw").already_done == 1
    predict(chain, *command, str(tmp_path / "calibrated"))
    assert "calibration" in predict_error(chain, *command, str(tmp_path / "calibrated"), "--raw").problem
    (run / "calibration.json").unlink()
    assert predict(chain, *command, str(path.parent)).already_done == 1


def test_results_are_continued_with_a_calibration_that_changes_nothing(chain: Path, run: Path, tmp_path: Path) -> None:
    command = [CLIP, "--tfam", str(run), *STUDENT, "-o", str(tmp_path / "out")]
    predict(chain, *command, "--raw")
    fitted = json.loads((run / "metrics.json").read_text())["thresholds"]
    write_calibration(run, (1, 1, 1), (0, 0, 0), [fitted[name] for name in CLASSES], method="none")
    assert predict(chain, *command).already_done == 1


def test_positives_are_printed_and_recorded(
    chain: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, flags in (("fitted", []), ("given", ["--threshold", "0.3"]), ("raw", ["--raw"])):
        capsys.readouterr()
        predict(chain, CLIP, "--tfam", str(run), *STUDENT, *flags, "-o", str(tmp_path / name))
        printed = capsys.readouterr().out
        assert ("running 3*, eating 10, walking 12\n" in printed) == (name != "raw")
        assert ("threshold of each" in printed) == (name == "fitted")
    expected = {"walking": 12, "running": 3, "eating": 10}
    assert read_json(tmp_path / "fitted" / "clip3.json")["positives"] == expected
    assert timeline.read_timeline(tmp_path / "given" / "clip3.json").positives == expected
    assert "positives" not in read_json(tmp_path / "raw" / "clip3.json")
    (run / "calibration.json").unlink()
    predict(chain, CLIP, "--tfam", str(run), *STUDENT, "-o", str(tmp_path / "without"))
    assert "positives" not in read_json(tmp_path / "without" / "clip3.json")


def test_the_list_of_140_actions_is_short() -> None:
    from predict import describe_positives

    positives = {f"action number {i}": i for i in reversed(range(140))}
    first, *lines = describe_positives(positives, True).split("\n")
    assert len(lines) <= 30 and all(len(line) <= 120 for line in (first, *lines))
    items = [item.strip() for line in lines for item in line.rstrip(",").split(", ")]  # none is broken
    assert items == [f"action number {i} {i}{'*' * (i < 10)}" for i in range(140)]
