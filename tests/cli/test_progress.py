"""Progress in a log: a line now and then, with the counts, the rate and the time left."""

import importlib
import time

import pytest

progress = importlib.import_module("vimoclip.cli.progress")  # the package has a function of that name


def process_four_videos() -> None:
    meter = progress.ProgressMeter(4, desc="embedding")
    for _ in range(4):
        time.sleep(0.05)
        meter.add(frames=10)
        meter.add(items=1)
    meter.close()


def test_a_log_has_the_rate_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    process_four_videos()
    assert list(progress.progress(range(3), 3, "step")) == [0, 1, 2]
    assert capsys.readouterr().err == ""  # a short run prints nothing
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.06)
    process_four_videos()
    lines = [line.strip() for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert 1 < len(lines) < 5
    assert all(line.startswith("embedding: ") and "/4 videos, " in line for line in lines)
    assert all(" left, " in line and line.endswith(" frames/s") for line in lines)
