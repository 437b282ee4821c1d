"""Errors of runs by torchrun: each is printed once, and none is lost."""

import pytest

from tests import preloaded
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
TRAIN = [str(REPOSITORY / "train.py"), "--device", "cpu"]
# name of a case -> arguments of torchrun, and what the line with the error contains
CASES = {
    "both, while flags are parsed": ([*TRAIN, "--epochs", "many"], "train.py: error: argument --epochs"),
    "both, before they join": ([*TRAIN, "--resume", "nowhere"], "nowhere/args.yaml"),
    "both, after they have joined": ([*TRAIN, "--dataset-dir", "nowhere"], "nowhere/"),
    "the second, before they join": (["contextlib.nullcontext().py"], "error: a.h5: is not there"),
    "the second, after they have joined": (["distributed.init_process_group().py"], "error: a.h5: is not there"),
}


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, preloaded.Process]:
    """Run all cases at once, with two processes each: they spend most of the time waiting for each other."""
    folder = tmp_path_factory.mktemp("torchrun")
    for group in ("contextlib.nullcontext()", "distributed.init_process_group()"):
        (folder / f"{group}.py").write_text(SCRIPT.format(group=group))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return {
        case: preloaded.start([*torchrun, *command], folder, OMP_NUM_THREADS="1", PYTHONPATH=str(REPOSITORY))
        for case, (command, _) in CASES.items()
    }


@pytest.mark.parametrize("case", CASES)
def test_an_error_of_a_process_is_printed_once(case: str, processes: dict[str, preloaded.Process]) -> None:
    result = processes[case].wait(180)
    assert result.returncode == 1, result.stderr  # of torchrun; its summary has the exit code of the process
    assert "exitcode  : 2" in result.stderr
    assert "exit_codes.py" not in result.stderr  # no traceback but torchrun's
    lines = [line for line in result.stderr.splitlines() if "error: " in line and CASES[case][1] in line]
    assert len(lines) == 1, result.stderr
