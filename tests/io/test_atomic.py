"""Atomic files."""

import os
from pathlib import Path
from typing import Any

import pytest

from vimoclip.io import atomic


def test_write_text_exclusive_creates_a_file_once(tmp_path: Path) -> None:
    assert atomic.write_text_exclusive(tmp_path / "settings", "first")
    assert not atomic.write_text_exclusive(tmp_path / "settings", "second")
    assert (tmp_path / "settings").read_text() == "first"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("write", [atomic.write_text, atomic.write_text_exclusive])
def test_a_file_is_flushed_to_disk(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: dict[int, int] = {}  # by inode, at the time of the fsync
    fsync = os.fsync

    def record_fsync(descriptor: int) -> None:
        sizes[os.fstat(descriptor).st_ino] = os.fstat(descriptor).st_size
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record_fsync)
    write(tmp_path / "settings", "content")
    assert sizes[(tmp_path / "settings").stat().st_ino] == len("content")
