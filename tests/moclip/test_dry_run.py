"""train.py --dry-run, and the report of a run and of a dry run."""

import json
from pathlib import Path

import pytest

import train
from tests.conftest import modification_times
from tests.moclip.helpers import TRAIN_FLAGS, break_flow
from vimoclip import clip
from vimoclip.runtime import cost_estimate


def test_dry_run_of_a_new_run_writes_only_the_report(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_estimate, "PROBE_SECONDS", 0.1)
    before = modification_times(workspace)
    settings = [*TRAIN_FLAGS, "--batch-size", "4", "--dry-run", "--cache-frames", "prepared"]
    train.main([*settings, "--report", "report.json"])
    report = json.loads(Path("report.json").read_text())
    assert (report["already"], report["pending"], report["estimate"]["units"]) == (0, 10, 230)  # 10 (19 + 12 / 3)
    assert modification_times(workspace).keys() - before.keys() == {"report.json"}


def test_report_counts_epochs_and_names_the_videos_that_are_left_out(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost_estimate, "PROBE_SECONDS", 0.1)
    (workspace / "dataset/flows/train2.mp4").unlink()
    break_flow("train1.mp4")
    report_path = workspace / "report.json"
    settings = [*TRAIN_FLAGS, "--batch-size", "4", "--run-name", "run", "--report", str(report_path)]
    train.main([*settings, "--epochs", "1"])
    report = json.loads(report_path.read_text())
    assert (report["unit"], report["done"], report["already"], report["failed"]) == ("epoch", 1, 0, {})
    assert report["outputs"] == ["checkpoints/run"]
    assert report["skipped"].keys() == {"train1.mp4", "train2.mp4"} and all(report["skipped"].values())
    before = modification_times(workspace / "checkpoints")
    train.main([*settings, "--epochs", "3", "--dry-run"])  # reads the video that is left out
    assert modification_times(workspace / "checkpoints") == before
    report = json.loads(report_path.read_text())
    assert (report["done"], report["already"], report["pending"]) == (0, 1, 2)
    assert report["skipped"].keys() == {"train2.mp4"}  # the flow of the other is not decoded
    estimate = report["estimate"]
    assert estimate["unit"] == "segment" and estimate["seconds"] == estimate["units"] / estimate["rate"] > 0
    assert estimate["disk_bytes"] > (workspace / "checkpoints/run/student_best.pth").stat().st_size
    train.main([*settings, "--epochs", "2"])
    report = json.loads(report_path.read_text())
    assert (report["done"], report["already"], report["pending"]) == (1, 1, None)
    assert report["skipped"].keys() == {"train1.mp4", "train2.mp4"}  # train1.mp4 was found in the first epoch


def test_dry_run_downloads_nothing(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip, "missing_download", lambda *names: {"url": "", "name": "the file", "hint": ""})
    train.main([*TRAIN_FLAGS, "--dry-run", "--report", "report.json"])
    report = json.loads(Path("report.json").read_text())
    assert report["pending"] == 10 and report["estimate"] is None


def test_a_run_that_stopped_early_has_nothing_pending(workspace: Path) -> None:
    settings = [*TRAIN_FLAGS, "--batch-size", "4", "--run-name", "run", "--report", "report.json"]
    settings += ["--learning-rate", "1e-30", "--early-stopping-patience", "1"]  # the loss stays the same
    train.main([*settings, "--epochs", "9"])
    done = json.loads(Path("report.json").read_text())["done"]
    assert done == 2
    train.main([*settings, "--epochs", "9", "--dry-run"])
    report = json.loads(Path("report.json").read_text())
    assert (report["already"], report["pending"]) == (done, 0)
