"""What other systems lack, played on this one."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tests.test_store import VIDEOS, make, values
from vimoclip import store
from vimoclip.io import atomic


def as_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pread, and no fsync of what is open to read only."""
    fcntl = pytest.importorskip("fcntl")
    fsync = os.fsync

    def refusing(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refusing)
    for name in ("pread", "preadv", "sched_getaffinity"):
        monkeypatch.delattr(os, name, raising=False)


def test_embeddings_are_the_same_where_windows_lacks_things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = make(tmp_path / "here.h5")
    as_on_windows(monkeypatch)
    there = make(tmp_path / "there.h5")
    assert there.read_bytes() == here.read_bytes()
    reader = store.Reader(there)
    for video in VIDEOS:
        assert np.array_equal(reader.embeddings(video), values(video)["embeddings"])
        assert np.array_equal(reader.labels(video), values(video)["labels"])


@pytest.mark.parametrize("said", ["EOPNOTSUPP", "ENOTSUP", "EINVAL"])  # Linux, macOS, Windows on a disk with exFAT
def test_a_disk_without_hard_links_gets_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    def refusing(source: Path, target: Path) -> None:
        raise OSError(getattr(errno, said), "no links", str(target))

    monkeypatch.setattr(os, "link", refusing)
    assert atomic.write_text_once(tmp_path / "note", "first")
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


def test_a_name_that_the_output_has_no_letters_for_ends_no_run() -> None:
    code = "from vimoclip import cli; cli.run(lambda: print('獅子: 3 clips'))"
    environment = os.environ | {"PYTHONIOENCODING": "cp1252"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=REPOSITORY, env=environment)
    assert (done.returncode, done.stdout.strip()) == (0, rb"\u7345\u5b50: 3 clips")
