"""Atomic files."""

from pathlib import Path

from vimoclip.io import atomic


def test_write_text_exclusive_creates_a_file_once(tmp_path: Path) -> None:
    assert atomic.write_text_exclusive(tmp_path / "settings", "first")
    assert not atomic.write_text_exclusive(tmp_path / "settings", "second")
    assert (tmp_path / "settings").read_text() == "first"
    assert len(list(tmp_path.iterdir())) == 1
