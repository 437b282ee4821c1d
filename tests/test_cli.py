"""What the scripts' common command line makes of what happens: exit codes and one line."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

DRIVER = """
import sys
from vimoclip import cli
from vimoclip.errors import UserError
sys.argv = ["stage.py", "--name", "a b", "--overwrite"]
def main():
{body}
cli.run(main)
"""


def stage(body: str, *, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A process that does what a script does, with this for its main."""
    code = DRIVER.format(body="\n".join(f"    {line}" for line in body.splitlines()))
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("return cli.Report()", 0, ""),
        ("return cli.Report(failed={'a.mp4': 'is empty'})", 1, ""),
        ("return cli.Report(partial={'a.mp4': '2 of 9'}, skipped={'b.mp4': 'one frame'})", 0, ""),
        (
            "from vimoclip.errors import UserError; raise UserError('a.h5: is not there; name another')",
            2,
            "error: a.h5: is not there; name another",
        ),
        ("open('nowhere/a', 'w')", 1, "error: nowhere/a: No such file or directory; the same command goes on; "),
        ("open('/dev/full', 'w').write('x' * 99999)", 1, "error: a file: No space left on device; make room, and "),
        (
            "raise PermissionError(13, 'Permission denied', 'out')",
            1,
            "error: out: Permission denied; name a place where",
        ),
    ],
)
def test_what_happens_becomes_an_exit_code_and_one_line(body: str, code: int, said: str, tmp_path: Path) -> None:
    done = stage(body, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(said) and done.stderr.count("\n") == bool(said)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(("removed", "flag"), [("", " --overwrite"), ("cli.begun_afresh()\n", "")])
def test_a_signal_says_how_to_go_on_in_words_for_a_shell(
    removed: str, flag: str, number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """The flag is left out once the old output is gone, and not before: what is there would pass for new."""
    body = "import os, signal, time; signal.signal(2, signal.default_int_handler)\n"
    done = stage(f"{body}{removed}os.kill(os.getpid(), {int(number)})\ntime.sleep(60)", cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert done.stderr.splitlines()[-1].endswith(f"go on with: python stage.py --name 'a b'{flag}")


def test_a_worker_that_is_killed_is_one_line(tmp_path: Path) -> None:
    body = """
import os
from torch.utils.data import DataLoader
list(DataLoader([0], num_workers=1, collate_fn=lambda items: os.kill(os.getpid(), 9)))
"""
    done = stage(body, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: a worker that reads data was killed")


def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    done = stage("raise ValueError('a bug')", cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" in done.stderr
