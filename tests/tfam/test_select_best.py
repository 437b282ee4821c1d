"""Selection of the best finished run by its score on the monitor split."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from TFAM import select_best
from vimoclip.errors import UserError
from vimoclip.io import csv, yaml_json


def write_run(
    root: Path,
    name: str,
    scores: list[float],
    selected: int,
    protocol: str = "held_out",
    motion: str = "real",
    fusion: str = "rgb",
) -> Path:
    """Write a finished run; best_model.pth is of epoch `selected`; `scores`: map_micro by epoch."""
    folder = root / "TFAM" / name
    folder.mkdir(parents=True)
    prefix = "selection" if protocol == "held_out" else "val"
    rows = [[epoch, 1.0, score] for epoch, score in enumerate(scores, start=1)]
    csv.write_csv(folder / "metrics.csv", ["epoch", f"{prefix}_loss", f"{prefix}_map_micro"], rows)
    yaml_json.write_yaml(folder / "config.yaml", {"data": {"motion": motion}, "model": {"fusion": fusion}})
    metrics = {"protocol": protocol} if protocol else {}
    # scores on the evaluation split must not matter: they have the opposite order
    (folder / "metrics.json").write_text(
        json.dumps({**metrics, "epoch": selected, "map_micro": 1 - scores[selected - 1]})
    )
    return folder


def test_best_run_has_the_highest_score_at_its_selected_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, "rgb/seed49", [0.2, 0.99, 0.5], selected=3)  # 0.99 is not the selected epoch
    best = write_run(tmp_path, "cross_attention/seed50", [0.3, 0.6], selected=2)
    write_run(tmp_path, "cross_attention/seed49", [0.55, 0.1], selected=1)
    write_run(tmp_path, "cross_attention_shuffled/seed49", [0.9], selected=1, motion="shuffled")
    write_run(tmp_path, "cross_attention_none/seed49", [0.9], selected=1, motion="none")
    write_run(tmp_path, "probe_attentive/seed49", [0.9], selected=1, fusion="probe_attentive")
    (tmp_path / "TFAM" / "motion" / "seed49").mkdir(parents=True)  # not finished
    report = tmp_path / "report.json"
    assert select_best.main(["--checkpoints-dir", str(tmp_path), "--report", str(report)]) == best
    counts = json.loads(report.read_text())
    assert (counts["done"], counts["unit"], counts["outputs"]) == (3, "run", [str(best)])
    others = ("cross_attention_none", "cross_attention_shuffled", "probe_attentive")
    assert set(counts["skipped"]) == {str(tmp_path / "TFAM" / name / "seed49") for name in others}
    captured = capsys.readouterr()
    assert captured.out == f"{best}\n"
    assert str(best) in captured.err and "0.6000" in captured.err and len(captured.err.splitlines()) == 1


def test_published_runs_are_compared_on_val(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    protocol = "published"
    best = write_run(tmp_path, "motion/seed49", [0.4], selected=1, protocol=protocol)
    write_run(tmp_path, "rgb/seed49", [0.3], selected=1, protocol=protocol)
    write_run(tmp_path, "zz/seed49", [0.4], selected=1, protocol=protocol)  # the first of equals wins
    assert select_best.main(["--checkpoints-dir", str(tmp_path)]) == best
    assert "0.4000" in capsys.readouterr().err


@pytest.mark.parametrize(("protocol", "key"), [("held_out", "selection"), ("published", "rgb_val_h5")])
def test_runs_with_other_monitor_clips_are_not_compared(tmp_path: Path, protocol: str, key: str) -> None:
    for name, clips in (("rgb/seed49", "a"), ("rgb/seed50", "a"), ("rgb/seed51", "b")):
        folder = write_run(tmp_path, name, [0.4], selected=1, protocol=protocol)
        metrics = json.loads((folder / "metrics.json").read_text())
        (folder / "metrics.json").write_text(json.dumps(metrics | {"inputs_sha256": {key: clips, "motion_h5": name}}))
    with pytest.raises(UserError) as error:
        select_best.main(["--checkpoints-dir", str(tmp_path)])
    assert "seed49" in error.value.problem and "seed51" in error.value.problem


def test_runs_of_two_protocols_are_not_compared(tmp_path: Path) -> None:
    write_run(tmp_path, "rgb/seed49", [0.2], selected=1)
    write_run(tmp_path, "rgb/seed50", [0.3], selected=1, protocol="published")
    with pytest.raises(UserError) as error:
        select_best.main(["--checkpoints-dir", str(tmp_path)])
    assert all(text in error.value.problem for text in ("rgb/seed49", "held_out", "rgb/seed50", "published"))


def test_without_a_scored_run_there_is_no_best(tmp_path: Path) -> None:
    write_run(tmp_path, "cross_attention_none/seed49", [0.9], selected=1, motion="none")
    with pytest.raises(UserError) as error:
        select_best.main(["--checkpoints-dir", str(tmp_path)])
    assert error.value.path == str(tmp_path / "TFAM")
    folder = write_run(tmp_path, "rgb/seed49", [0.2, 0.3], selected=2)
    lines = (folder / "metrics.csv").read_text().splitlines()
    (folder / "metrics.csv").write_text("\n".join(lines[:-1]) + "\n")
    command = [sys.executable, "-m", "TFAM.select_best", "--checkpoints-dir", str(tmp_path)]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (2, "")
    assert "rgb/seed49/metrics.csv: has no selection_map_micro of epoch 2" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_baselines_alone_are_not_called_unfinished(tmp_path: Path) -> None:
    write_run(tmp_path, "probe_rgb/seed1", [0.5], 1, fusion="probe_rgb")
    with pytest.raises(UserError) as error:
        select_best.main(["--checkpoints-dir", str(tmp_path)])
    assert "baselines" in error.value.problem
