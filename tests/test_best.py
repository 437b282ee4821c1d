"""The best finished run: by the clips on which its epoch was chosen."""

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
    root: Path, name: str, scores: list[float], chosen: int, protocol: str | None = "held_out", motion: str = "real"
) -> Path:
    """A finished run whose epoch `chosen` is best_model.pth; `scores`: map_micro by epoch where it is judged."""
    folder = root / "TFAM" / name
    folder.mkdir(parents=True)
    prefix = "selection" if protocol == "held_out" else "val"
    rows = [[epoch, 1.0, score] for epoch, score in enumerate(scores, start=1)]
    csv.write_csv(folder / "metrics.csv", ["epoch", f"{prefix}_loss", f"{prefix}_map_micro"], rows)
    yaml_json.write_yaml(folder / "config.yaml", {"data": {"motion": motion}})
    about = {"protocol": protocol} if protocol else {}
    # what it scores on the reported clips must play no part: the worse on the selection, the better here
    (folder / "metrics.json").write_text(json.dumps({**about, "epoch": chosen, "map_micro": 1 - scores[chosen - 1]}))
    return folder


def test_the_best_is_that_of_the_highest_score_on_the_selection_at_the_epoch_it_chose(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, "rgb/seed49", [0.2, 0.99, 0.5], chosen=3)  # 0.99 is an epoch that it didn't keep
    wanted = write_run(tmp_path, "cross_attention/seed50", [0.3, 0.6], chosen=2)
    write_run(tmp_path, "cross_attention/seed49", [0.55, 0.1], chosen=1)
    write_run(tmp_path, "cross_attention_shuffled/seed49", [0.9], chosen=1, motion="shuffled")
    write_run(tmp_path, "cross_attention_none/seed49", [0.9], chosen=1, motion="none")
    (tmp_path / "TFAM" / "motion" / "seed49").mkdir(parents=True)  # begun, not finished
    assert select_best.main(["--checkpoints-dir", str(tmp_path)]) == wanted
    said = capsys.readouterr()
    assert said.out == f"{wanted}\n"
    assert said.err == f"best of 3 runs: {wanted}, map_micro 0.6000 on selection clips of the training split\n"


@pytest.mark.parametrize("protocol", ["published", None])
def test_runs_of_the_published_protocol_are_compared_where_they_chose(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], protocol: str | None
) -> None:
    wanted = write_run(tmp_path, "motion/seed49", [0.4], chosen=1, protocol=protocol)
    write_run(tmp_path, "rgb/seed49", [0.3], chosen=1, protocol=protocol)
    write_run(tmp_path, "zz/seed49", [0.4], chosen=1, protocol=protocol)  # of equals the first
    assert select_best.main(["--checkpoints-dir", str(tmp_path)]) == wanted
    assert "on the reported clips" in capsys.readouterr().err


@pytest.mark.parametrize(("protocol", "key"), [("held_out", "selection"), ("published", "rgb_val_h5")])
def test_runs_that_chose_on_other_clips_are_not_compared(tmp_path: Path, protocol: str, key: str) -> None:
    for name, clips in (("rgb/seed49", "a"), ("rgb/seed50", "a"), ("rgb/seed51", "b")):
        folder = write_run(tmp_path, name, [0.4], chosen=1, protocol=protocol)
        about = json.loads((folder / "metrics.json").read_text())
        (folder / "metrics.json").write_text(json.dumps(about | {"inputs_sha256": {key: clips, "motion_h5": name}}))
    with pytest.raises(UserError, match=r"seed49 and .*seed51 chose their epochs on other clips"):
        select_best.main(["--checkpoints-dir", str(tmp_path)])


def test_runs_of_two_protocols_are_not_compared(tmp_path: Path) -> None:
    write_run(tmp_path, "rgb/seed49", [0.2], chosen=1)
    write_run(tmp_path, "rgb/seed50", [0.3], chosen=1, protocol="published")
    with pytest.raises(UserError, match=r"rgb/seed49 is of the protocol held_out, .*rgb/seed50 of published"):
        select_best.main(["--checkpoints-dir", str(tmp_path)])


def test_without_a_finished_run_that_says_its_score_there_is_no_best(tmp_path: Path) -> None:
    write_run(tmp_path, "cross_attention_none/seed49", [0.9], chosen=1, motion="none")
    with pytest.raises(UserError, match="TFAM: holds no finished run"):
        select_best.main(["--checkpoints-dir", str(tmp_path)])
    folder = write_run(tmp_path, "rgb/seed49", [0.2, 0.3], chosen=2)
    lines = (folder / "metrics.csv").read_text().splitlines()
    (folder / "metrics.csv").write_text("\n".join(lines[:-1]) + "\n")
    command = [sys.executable, "-m", "TFAM.select_best", "--checkpoints-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "rgb/seed49/metrics.csv: has no selection_map_micro of epoch 2" in done.stderr
    assert len(done.stderr.splitlines()) == 1
