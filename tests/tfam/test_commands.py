"""Commands: run_experiments.sh, invalid command lines, imports of --help."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.preloaded import executable
from tests.tfam.helpers import TINY_RUN, read_csv, train_command
from TFAM.train_and_eval import main


def test_run_experiments_skips_finished_runs_and_writes_the_table(dataset):
    for name in ("TFAM", "vimoclip"):
        shutil.copytree(REPOSITORY / name, name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    Path("TFAM/configs/broken.yaml").write_text("model: {fusionn: rgb}\n")
    script = Path("TFAM/run_experiments.sh")
    script.write_text(re.sub(r'(?m)^CONFIGS="[^"]*"', 'CONFIGS="rgb broken motion"', script.read_text()))
    main(train_command("rgb"))
    result = subprocess.run(
        ["bash", "run_experiments.sh", "--num-workers", "0", "--device", "cpu", "--set", *TINY_RUN],
        cwd="TFAM",
        env={**os.environ, "PYTHON": str(executable()), "SEEDS": "49"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1, result.stderr
    assert "rgb/seed49: finished already" in result.stdout
    assert "failed: broken/seed49" in result.stderr and "Traceback" not in result.stderr
    assert "model.fusionn" in result.stderr
    assert result.stdout.index("== motion") < result.stdout.index("| config | seeds |")
    assert [row["config"] for row in read_csv(Path("TFAM/results/table.csv"))] == ["rgb", "motion"]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--nonsense"], "--nonsense"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_invalid_command_line_gives_one_line_and_exit_code_2(argv, expected):
    result = subprocess.run(
        [str(executable()), "-m", "TFAM.train_and_eval", *argv], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert expected in result.stderr and len(result.stderr.splitlines()) == 1


def test_help_does_not_import_torch():
    code = "import sys, TFAM.train_and_eval, TFAM.table; sys.exit('torch' in sys.modules or 'yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0


@pytest.mark.parametrize("argument", ["--checkpoints-dir", "--checkpoints_dir=x", "--seed", "--config"])
def test_run_experiments_refuses_flags_that_the_table_needs(tmp_path, argument):
    script = REPOSITORY / "TFAM" / "run_experiments.sh"
    result = subprocess.run(["bash", str(script), argument, "x"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2
    assert "CHECKPOINTS, SEEDS or CONFIGS" in result.stderr
