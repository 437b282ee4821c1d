"""The demo's lines about the best probe."""

from pathlib import Path

import pytest

from demo.report import format_probe_comparison
from tests.tfam.test_learning_curve import write_few_shot_run
from tests.tfam.test_table import noisy_scores, write_finished_run


def test_one_line_for_each_config_without_few_shot_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for config, noise in (("probe_rgb", 0.5), ("rgb", 3.0)):
        write_few_shot_run(config, 1, 1, noisy_scores(1, noise))
        write_finished_run(config, 1, noisy_scores(2, noise))
    _, *lines = format_probe_comparison(Path("checkpoints")).strip().splitlines()
    assert len(lines) == 1
    assert "not better" in lines[0]
