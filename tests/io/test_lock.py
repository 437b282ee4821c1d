"""Lock files: exclusion between processes and shards, dead holders, file systems without locks."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, lock_in_subprocess
from vimoclip.errors import UserError
from vimoclip.extraction import manifest
from vimoclip.io import lock


def test_a_shard_lock_excludes_the_same_shard_other_counts_and_the_whole_output(tmp_path: Path) -> None:
    output = tmp_path / "out"
    shard = (
        "import sys, time; from pathlib import Path; from vimoclip.io import lock\n"
        "with lock.shard_lock(Path(sys.argv[1]), 1, 3): print('held', flush=True); time.sleep(60)"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen([sys.executable, "-c", shard, str(output)], stdout=subprocess.PIPE, env=environment) as other:
        assert other.stdout and other.stdout.readline() == b"held\n"
        with lock.shard_lock(output, 2, 3):
            pass
        assert lock.lock_path(output).exists()  # the other shard still holds it
        for index, count in ((1, 3), (2, 4), (2, 2)):
            with pytest.raises(lock.LockHeldError), lock.shard_lock(output, index, count):
                pass
        with pytest.raises(lock.LockHeldError), lock.exclusive_lock(output):
            pass
        other.kill()
        other.wait()
        with lock.exclusive_lock(output):
            pass
    assert not lock.lock_path(output).exists()
    with lock_in_subprocess(output), pytest.raises(lock.LockHeldError), lock.shard_lock(output, 1, 3):
        pass


STRESS_SCRIPT = """
import sys, time
from pathlib import Path
from vimoclip.errors import UserError
from vimoclip.io import lock
counter, done, refused = Path("counter"), 0, 0
while done < int(sys.argv[1]):
    try:
        with lock.exclusive_lock(Path("out")):
            number = int(counter.read_text())
            counter.write_text("")
            time.sleep(0.0002)
            counter.write_text(str(number + 1))
            done += 1
    except UserError as error:
        assert "on " in str(error) or "another process" in str(error)
        refused += 1
        time.sleep(0.0005)
print(refused)
"""


@pytest.mark.parametrize("times", [50, pytest.param(2000, marks=pytest.mark.long)])
def test_four_processes_never_hold_the_lock_together(times: int, tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("0")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    code = [sys.executable, "-c", STRESS_SCRIPT, str(times)]
    running = [
        subprocess.Popen(code, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    refused = [process.communicate(timeout=600)[0] for process in running]
    assert [process.returncode for process in running] == [0] * 4
    assert (tmp_path / "counter").read_text() == str(4 * times)
    assert sum(map(int, refused)) > 0
    assert not (tmp_path / "out.lock").exists()


FORKING_SCRIPT = """
import os, sys, time
from pathlib import Path
from vimoclip.io import lock
with lock.exclusive_lock(Path("out")):
    if not os.fork():
        time.sleep(20)  # a worker that outlives its parent
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_of_a_dead_process_is_free_though_its_worker_lives(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    output = tmp_path / "out"
    command = [sys.executable, "-c", FORKING_SCRIPT]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout and process.stdout.readline() == b"held\n"
        with (
            pytest.raises(UserError, match=rf"out: process {process.pid} on .* writes it"),
            lock.exclusive_lock(output),
        ):
            pass
        process.kill()
        process.wait()
        assert lock.lock_path(output).exists()
        with lock.exclusive_lock(output):
            assert f'"process": {os.getpid()},' in lock.lock_path(output).read_text()
        assert not lock.lock_path(output).exists()
        os.killpg(process.pid, signal.SIGKILL)  # the worker


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_prints_a_warning(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lockf(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with lock.exclusive_lock(tmp_path / "out"):
        pass
    assert "out.lock: " in capsys.readouterr().out


def test_another_error_of_the_lock_is_not_taken_for_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lockf(*args: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with pytest.raises(OSError, match=r"Input/output error: .*out\.lock"), lock.exclusive_lock(tmp_path / "out"):
        pass


@pytest.mark.parametrize("path", ["linked", "real/inside/..", "real/."])
def test_two_paths_to_one_folder_have_one_lock(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real" / "inside").mkdir(parents=True)
    (tmp_path / "linked").symlink_to("real")
    elsewhere, refused = lock_in_subprocess(tmp_path / "real"), pytest.raises(UserError, match=r"process \d+ on")
    with elsewhere, refused, lock.exclusive_lock(Path(path)):
        pass
    assert manifest.manifest_path(Path(path)).resolve() == tmp_path / "real.manifest.jsonl"
