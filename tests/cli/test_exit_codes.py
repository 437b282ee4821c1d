"""Exit codes and error lines of the scripts."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

SCRIPT = """
import sys
from vimoclip import cli
from vimoclip.errors import UserError
sys.argv = ["stage.py", "--name", "a b", "--overwrite"]
def main():
{body}
cli.run(main)
"""


def run_script(body: str, *, cwd: Path, first: str = "") -> subprocess.CompletedProcess[str]:
    """Run a process with `body` as the main function of a script, and with lines that come before it."""
    code = first + SCRIPT.format(body="\n".join(f"    {line}" for line in body.splitlines()))
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("body", "code", "stderr"),
    [
        ("return cli.RunReport()", 0, ""),
        ("return cli.RunReport(failed={'a.mp4': 'is empty'})", 1, ""),
        ("return cli.RunReport(partial={'a.mp4': '2 of 9'}, skipped={'b.mp4': 'one frame'})", 0, ""),
        (
            "from vimoclip.errors import UserError; raise UserError('is not there', 'name another', path='a.h5')",
            2,
            "error: a.h5: is not there; name another",
        ),
        (
            "open('nowhere/a', 'w')",
            1,
            "error: nowhere/a: No such file or directory; the same command resumes the run; ",
        ),
        ("open('/dev/full', 'w').write('x' * 99999)", 1, "error: a file: No space left on device; make room, and "),
        ("import torch; torch.empty(10**15)", 1, "error: there is too little free memory ("),
        (
            "raise PermissionError(13, 'Permission denied', 'out')",
            1,
            "error: out: Permission denied; name a folder with",
        ),
    ],
)
def test_results_and_errors_become_exit_codes_and_one_line(body: str, code: int, stderr: str, tmp_path: Path) -> None:
    result = run_script(body, cwd=tmp_path)
    assert result.returncode == code, result.stderr
    assert result.stderr.startswith(stderr) and result.stderr.count("\n") == bool(stderr)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(("before_signal", "flag"), [("", " --overwrite"), ("cli.mark_overwritten()\n", "")])
def test_a_signal_prints_the_shell_command_that_resumes(
    before_signal: str, flag: str, number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """--overwrite is left out only after the old output is deleted: before, old files would be kept as new."""
    body = "import os, signal, time; signal.signal(2, signal.default_int_handler)\n"
    result = run_script(f"{body}{before_signal}os.kill(os.getpid(), {int(number)})\ntime.sleep(60)", cwd=tmp_path)
    assert result.returncode == code, result.stderr
    assert result.stderr.splitlines()[-1].endswith(f"resume with: python stage.py --name 'a b'{flag}")


def test_a_child_that_is_terminated_while_it_is_forked_ends_alone(tmp_path: Path) -> None:
    """The first hook of a fork runs before the child has become independent of the process."""
    body = f"""
import os, signal, time
child = os.fork()
if not child:
    time.sleep(60)
time.sleep(1)  # longer than the process would live
assert os.waitpid(child, os.WNOHANG) == (child, {int(signal.SIGTERM)})
assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
os._exit(7)
"""
    first = "import os, signal\nfrom vimoclip.cli import exit_codes\nexit_codes._GRACE_SECONDS = 0.2\n"
    first += f"os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), {int(signal.SIGTERM)}))"
    result = run_script(body, cwd=tmp_path, first=first)
    assert result.returncode == 7, result.stderr


def test_a_killed_data_loader_worker_is_one_line(tmp_path: Path) -> None:
    body = """
import os
from torch.utils.data import DataLoader
list(DataLoader([0], num_workers=1, collate_fn=lambda items: os.kill(os.getpid(), 9)))
"""
    result = run_script(body, cwd=tmp_path)
    assert result.returncode == 1, result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: a data loading worker was killed")


def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    result = run_script("raise ValueError('a bug')", cwd=tmp_path)
    assert result.returncode == 1 and "Traceback" in result.stderr
