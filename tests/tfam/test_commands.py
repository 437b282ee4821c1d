"""run_experiments.sh."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, modification_times
from tests.preloaded import executable
from tests.tfam.helpers import TINY_RUN, read_csv, train_command
from TFAM.train_and_eval import main


def test_run_experiments_skips_finished_runs_and_writes_the_table(dataset):
    for name in ("TFAM", "vimoclip"):
        shutil.copytree(REPOSITORY / name, name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    Path("TFAM/configs/broken.yaml").write_text("model: {fusionn: rgb}\n")
    script = Path("TFAM/run_experiments.sh")
    script.write_text(re.sub(r'(?m)^CONFIGS="[^"]*"', 'CONFIGS="broken rgb"', script.read_text()))
    folder = main(train_command("rgb"))
    before = modification_times(folder)
    result = subprocess.run(
        ["bash", "run_experiments.sh", "--num-workers", "0", "--device", "cpu", "--set", *TINY_RUN],
        cwd="TFAM",
        env={**os.environ, "PYTHON": str(executable()), "SEEDS": "49"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1, result.stderr
    assert modification_times(folder) == before  # the script continues with rgb, which is finished
    assert "failed: broken/seed49" in result.stderr and "Traceback" not in result.stderr
    assert "model.fusionn" in result.stderr
    assert [row["config"] for row in read_csv(Path("TFAM/results/table.csv"))] == ["rgb"]


@pytest.mark.parametrize("argument", ["--checkpoints-dir", "--checkpoints_dir=x", "--seed", "--config"])
def test_run_experiments_refuses_flags_that_the_table_needs(tmp_path, argument):
    script = REPOSITORY / "TFAM" / "run_experiments.sh"
    result = subprocess.run(["bash", str(script), argument, "x"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2
    assert argument in result.stderr
