"""train.py --dry-run, and the report of a run and of a dry run."""

import json
import re
from pathlib import Path

import pytest

import train
from tests.conftest import modification_times
from tests.moclip.helpers import TRAIN_FLAGS, break_flow
from vimoclip import clip
from vimoclip.runtime import cost_estimate


def test_dry_run_reports_remaining_work_and_writes_nothing(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cost_estimate, "PROBE_SECONDS", 0.1)
    settings = [*TRAIN_FLAGS, "--batch-size", "4", "--run-name", "run"]
    train.main([*settings, "--dry-run", "--cache-frames", "prepared"])
    output = capsys.readouterr().out
    assert "a new run of 10 epochs; an epoch has 19 segments to train on and 12 to validate" in output
    assert re.search(r"about .* for 230 segments at .* segments/s; [\d.]+ MB of disk, [\d.]+ [MG]B of memory", output)
    assert not Path("checkpoints").exists() and not Path("prepared").exists() and not Path("logs").exists()
    train.main([*settings, "--epochs", "1"])
    capsys.readouterr()
    before = modification_times(workspace)
    train.main([*settings, "--epochs", "3", "--dry-run"])
    output = capsys.readouterr().out
    assert "1 of 3 epochs are done" in output
    assert "for 46 segments at" in output
    assert modification_times(workspace) == before


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


def test_dry_run_downloads_nothing(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(clip, "missing_download", lambda *names: {"url": "", "name": "the file", "hint": ""})
    train.main([*TRAIN_FLAGS, "--dry-run"])
    assert "can be estimated once the file is here: it would be downloaded" in capsys.readouterr().out


def test_a_run_that_stopped_early_has_nothing_pending(workspace: Path) -> None:
    settings = [*TRAIN_FLAGS, "--batch-size", "4", "--run-name", "run", "--report", "report.json"]
    settings += ["--learning-rate", "1e-30", "--early-stopping-patience", "1"]  # the loss stays the same
    train.main([*settings, "--epochs", "9"])
    done = json.loads(Path("report.json").read_text())["done"]
    assert done == 2
    train.main([*settings, "--epochs", "9", "--dry-run"])
    report = json.loads(Path("report.json").read_text())
    assert (report["already"], report["pending"]) == (done, 0)
