"""Files that a program writes again and again, unless somebody has edited them."""

import errno
from functools import partial
from pathlib import Path

import pytest

from vimoclip.io import atomic
from vimoclip.io.written_files import RECORD_FILE, WrittenFiles


def replace(folder: Path, text: str, name: str = "a.csv") -> WrittenFiles:
    """Write a file as a new process does."""
    record = WrittenFiles(folder)
    record.replace(folder / name, partial(atomic.write_text, text=text))
    return record


def test_a_file_is_written_again_until_it_is_edited(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for text in ("one", "two", "one"):
        assert not replace(tmp_path, text).kept
        assert path.read_text() == text
    path.write_text("two and a half")
    assert replace(tmp_path, "three").kept == [path]
    assert path.read_text() == "two and a half"
    path.unlink()
    assert not replace(tmp_path, "four").kept
    assert path.read_text() == "four"
    assert {file.name for file in tmp_path.iterdir()} == {"a.csv", RECORD_FILE}


def test_a_file_of_a_program_that_was_killed_does_not_count_as_edited(tmp_path: Path) -> None:
    replace(tmp_path, "one")
    replace(tmp_path, "two")
    (tmp_path / "a.csv").write_text("one")  # as if "two" had been recorded only
    with (tmp_path / RECORD_FILE).open("a") as file:
        file.write('{"file": "b.csv", "sha')  # a line that was cut off
    assert not replace(tmp_path, "three").kept
    assert not replace(tmp_path, "three", "b.csv").kept
    (tmp_path / "a.csv").write_text("edited")
    assert replace(tmp_path, "four").kept == [tmp_path / "a.csv"]


def test_a_file_without_a_record_is_replaced(tmp_path: Path) -> None:
    """As one of an earlier version."""
    (tmp_path / "a.csv").write_text("of an earlier version")
    assert not WrittenFiles(tmp_path).is_recorded(tmp_path / "a.csv")
    assert not replace(tmp_path, "one").kept
    assert (tmp_path / "a.csv").read_text() == "one"


def test_what_another_process_has_written_since_is_not_taken_for_edited(tmp_path: Path) -> None:
    replace(tmp_path, "one")
    record = WrittenFiles(tmp_path)
    replace(tmp_path, "two")
    assert record.replace(tmp_path / "a.csv", partial(atomic.write_text, text="three")).read_text() == "three"
    assert not record.kept


def test_only_own_unedited_files_are_removed(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        replace(tmp_path, "one", name)
    for name in ("b.csv", "foreign.csv"):
        (tmp_path / name).write_text("edited")
    record = WrittenFiles(tmp_path)
    for name in ("a.csv", "b.csv", "foreign.csv", "missing.csv"):
        record.remove(tmp_path / name)
    assert record.kept == [tmp_path / "b.csv", tmp_path / "foreign.csv"]
    assert {path.name for path in tmp_path.iterdir()} == {"b.csv", "foreign.csv", RECORD_FILE}


def test_errors_name_the_file(tmp_path: Path) -> None:
    def write(path: Path) -> Path:
        raise OSError(errno.ENOSPC, "no space", str(path))

    with pytest.raises(OSError) as caught:
        WrittenFiles(tmp_path).replace(tmp_path / "a.csv", write)
    assert caught.value.filename == str(tmp_path / "a.csv")
