"""Errors of runs by torchrun: each is printed once, and none is lost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

SCRIPT = """
import contextlib, os, time
from vimoclip import cli
from vimoclip.errors import UserError
from vimoclip.runtime import distributed
def main():
    with {group}:
        if os.environ["RANK"] == "1":
            raise UserError("is not there", path="a.h5")
        time.sleep(60)
cli.run(main)
"""


def run_torchrun(*command: str, cwd: Path) -> str:
    """Run two processes, which must fail; return stderr."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(
        [*torchrun, *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=180
    )
    assert result.returncode == 1, result.stderr  # of torchrun; its summary has the exit code of the process
    assert "exitcode  : 2" in result.stderr
    assert "exit_codes.py" not in result.stderr  # no traceback but torchrun's
    return result.stderr


@pytest.mark.parametrize(
    ("flags", "location"),
    [
        (["--epochs", "many"], "train.py: error: argument --epochs"),  # before the processes join
        (["--resume", "nowhere"], "nowhere/args.yaml"),  # before the processes join
        (["--dataset-dir", "nowhere"], "nowhere/"),  # after that
    ],
)
def test_an_error_of_both_processes_is_printed_once(flags: list[str], location: str, tmp_path: Path) -> None:
    stderr = run_torchrun(str(REPOSITORY / "train.py"), "--device", "cpu", *flags, cwd=tmp_path)
    assert sum("error: " in line and location in line for line in stderr.splitlines()) == 1, stderr


@pytest.mark.parametrize("group", ["contextlib.nullcontext()", "distributed.init_process_group()"])
def test_an_error_of_the_second_process_alone_is_printed(group: str, tmp_path: Path) -> None:
    (tmp_path / "stage.py").write_text(SCRIPT.format(group=group))
    assert run_torchrun("stage.py", cwd=tmp_path).count("error: a.h5: is not there") == 1
