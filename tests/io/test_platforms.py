"""Missing features of other systems, emulated on this one."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tests.store.helpers import VIDEOS, video_arrays, write_file
from vimoclip import store
from vimoclip.io import atomic


def emulate_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove sched_getaffinity, and refuse fsync for read-only files."""
    fcntl = pytest.importorskip("fcntl")
    fsync = os.fsync

    def refuse_read_only(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_read_only)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)


def test_embeddings_are_the_same_without_posix_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = write_file(tmp_path / "expected.h5")
    emulate_windows(monkeypatch)
    emulated = write_file(tmp_path / "emulated.h5")
    assert emulated.read_bytes() == expected.read_bytes()
    reader = store.EmbeddingReader(emulated)
    for video in VIDEOS:
        assert np.array_equal(reader.embeddings(video), video_arrays(video)["embeddings"])
        assert np.array_equal(reader.labels(video), video_arrays(video)["labels"])


@pytest.mark.parametrize("name", ["EOPNOTSUPP", "ENOTSUP", "EINVAL"])  # Linux, macOS, Windows on a disk with exFAT
def test_files_are_written_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(getattr(errno, name), "no links", str(target))

    monkeypatch.setattr(os, "link", refuse)
    assert atomic.write_text_exclusive(tmp_path / "note", "first")
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


def test_a_name_that_stdout_cannot_encode_ends_no_run() -> None:
    code = "from vimoclip import cli; cli.run(lambda: print('獅子: 3 clips'))"
    environment = os.environ | {"PYTHONIOENCODING": "cp1252"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=REPOSITORY, env=environment)
    assert (result.returncode, result.stdout.strip()) == (0, rb"\u7345\u5b50: 3 clips")
