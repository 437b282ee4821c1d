"""evaluate.py on few-shot runs: its counts are of the drawn clips, and its notes name a student of more labels."""

from pathlib import Path
from typing import Any

import pytest

import evaluate
from tests.tfam.helpers import read_csv
from tests.tfam.test_learning_curve import write_few_shot_run
from tests.tfam.test_table import noisy_scores, write_annotations_of_finished_runs


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_annotations_of_finished_runs()
    return tmp_path


def evaluate_run(**changes: Any) -> tuple[list[dict[str, str]], list[str]]:
    """Return (rows of per_class.csv, notes) of a few-shot run trained on T0, T3 and T1."""
    run = write_few_shot_run("motion", 1, 1, noisy_scores(1, 1.0), **changes)
    (run / "training_clips.txt").write_text("T0.mp4\nT1.mp4\nT3.mp4\n")
    flags = ["--annotations-dir", "dataset/annotations", "--resamples", "5"]
    result = evaluate.main([str(run), *flags])
    return read_csv(run / "evaluation" / "per_class.csv"), result.metrics["notes"]


def test_training_clips_are_those_drawn(workspace: Path) -> None:
    rows, _ = evaluate_run()
    assert [row["train_positives"] for row in rows] == ["2", "1", "0"]


@pytest.mark.parametrize("protocol", ["held_out", "three_splits"])
def test_student_of_more_labels_is_named(workspace: Path, protocol: str) -> None:
    _, notes = evaluate_run(student_has_more_labels=True, protocol=protocol, reported_split="val")
    assert len([note for note in notes if "student" in note]) == 1
