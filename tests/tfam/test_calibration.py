"""calibration.json: fitted on the model-selection split after the last epoch, with thresholds of calibrated scores."""

from pathlib import Path

import numpy as np
import pytest

from tests.tfam.helpers import (
    CLASSES,
    KEEP_LAST_EPOCH,
    read_json,
    train_command,
    write_motion,
    write_rgb,
    write_selection,
)
from TFAM.train_and_eval import main
from vimoclip.evaluation import calibration_file
from vimoclip.io import predictions_csv
from vimoclip.metrics import fit_thresholds
from vimoclip.metrics.score_calibration import log_losses

SELECTION = range(60, 96)
SETTINGS = [KEEP_LAST_EPOCH, "training.epochs=6", "training.lr=3e-2"]
HELD_OUT = [*train_command("rgb"), *SETTINGS]


@pytest.fixture
def noisy_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """60 training clips and 36 selection clips, of which every fourth has a wrong label: the model is overconfident."""
    monkeypatch.chdir(tmp_path)
    folder = Path("dataset/embeddings")
    write_rgb(folder / "ak_train_clip_embeddings.h5", range(96), wrong_labels=SELECTION[::4])
    write_rgb(folder / "ak_val_clip_embeddings.h5", range(96, 102))
    write_motion(folder / "flow_embeddings.h5", range(102))
    write_selection(SELECTION)
    return Path("dataset")


def selection_scores(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return raw scores and labels of the selection clips."""
    table = predictions_csv.read(folder / "selection_predictions.csv")
    numbers = np.array([int(video[1:-4]) for video in table.videos])
    labels = (numbers + (numbers % 4 == 0)) % 3
    return table.scores, labels[:, None] == np.arange(3)


def test_overconfident_scores_are_calibrated_and_predictions_stay_raw(noisy_dataset: Path) -> None:
    folder = main(HELD_OUT)
    scores, targets = selection_scores(folder)
    document, metrics = read_json(folder / "calibration.json"), read_json(folder / "metrics.json")
    calibration = calibration_file.read(folder, CLASSES)
    assert calibration is not None
    calibrated = calibration.scores(scores)
    assert document["temperature"] > 1.2 and document["num_videos"] == 36 and document["folds"] == 5
    losses = document["cross_validated_log_loss"]
    assert document["method"] == min(losses, key=losses.__getitem__) != "none"
    assert losses["none"] == pytest.approx(log_losses(scores, targets).mean(), abs=1e-6)
    assert log_losses(calibrated, targets).mean() < losses["none"] - 0.05
    assert calibration.positives.tolist() == targets.sum(0).tolist()
    np.testing.assert_allclose(calibration.thresholds, fit_thresholds(calibrated, targets), atol=1e-6)
    raw = [metrics["thresholds"][name] for name in CLASSES]
    np.testing.assert_allclose(raw, fit_thresholds(scores, targets), atol=1e-6)
    assert ((calibrated >= calibration.thresholds) == (scores >= raw)).all()


def test_clips_of_one_source_are_in_one_fold(noisy_dataset: Path) -> None:
    """A clip that sources.csv does not name is a source by itself."""
    random_folds = read_json(main(HELD_OUT) / "calibration.json")
    lines = [f"V{number:02}.mp4,film{number // 12}" for number in range(95)]
    (noisy_dataset / "annotations" / "sources.csv").write_text("\n".join(["video_id,source", *lines]) + "\n")
    by_sources = read_json(
        main([*train_command("rgb", "--checkpoints-dir", "sources"), *SETTINGS]) / "calibration.json"
    )
    assert (random_folds["by_sources"], random_folds["folds"]) == (False, 5)
    assert (by_sources["by_sources"], by_sources["folds"]) == (True, 4)
    assert by_sources["temperature"] == random_folds["temperature"]  # fitted on all clips


def test_nothing_is_fitted_under_published(noisy_dataset: Path) -> None:
    folder = main([*HELD_OUT, "data.protocol=published"])
    assert not (folder / "calibration.json").exists() and read_json(folder / "metrics.json")["thresholds"] is None


def test_three_splits_are_calibrated_on_val(noisy_dataset: Path) -> None:
    write_rgb(noisy_dataset / "embeddings" / "ak_test_clip_embeddings.h5", range(96, 102))
    write_rgb(noisy_dataset / "embeddings" / "ak_val_clip_embeddings.h5", SELECTION, wrong_labels=SELECTION[::4])
    write_rgb(noisy_dataset / "embeddings" / "ak_train_clip_embeddings.h5", range(60))
    (noisy_dataset / "annotations" / "selection.txt").unlink()
    (noisy_dataset / "annotations" / "test_multi.txt").write_text("V96.mp4\t0\n")
    document = read_json(main([*HELD_OUT, "data.protocol=three_splits"]) / "calibration.json")
    assert document["num_videos"] == 36 and document["temperature"] > 1.2


def test_a_run_that_is_overwritten_loses_its_calibration(noisy_dataset: Path) -> None:
    folder = main(HELD_OUT)
    main([*train_command("rgb", "--overwrite"), *SETTINGS, "data.protocol=published"])
    assert not (folder / "calibration.json").exists()
