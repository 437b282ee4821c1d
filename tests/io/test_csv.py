"""CSV files of users and spreadsheets: encodings, line ends, delimiters, damage; and a round trip."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.untrusted_files import file_contents, is_one_line, quick_settings, refusal_message
from vimoclip.errors import UserError
from vimoclip.io import csv

LINES = [(1, ["video", "name"]), (3, ["a.mp4", "fast, slow"]), (5, ["b.mp4", 'the "7"'])]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_delimiters_line_ends_and_byte_order_marks(tmp_path: Path, mark: str, delimiter: str, line_end: str) -> None:
    path = tmp_path / "a.csv"
    rows = ["video|name", "|", 'a.mp4|"fast, slow"', " ", 'b.mp4 |"the ""7"""', ""]
    path.write_bytes((mark + line_end.join(row.replace("|", delimiter) for row in rows)).encode())
    assert csv.read_lines(path, delimiters=",;\t") == LINES


def test_the_header_decides_about_the_delimiter(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("program, version, 8\n\nCode\tStart, s\n1\t2\n")
    assert csv.read_lines(path, delimiters="\t,", header_cell="Code")[1:] == [
        (3, ["Code", "Start, s"]),
        (4, ["1", "2"]),
    ]


def test_a_table_has_a_cell_per_column(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,name\n0,walk,,\n\n1\n")
    assert csv.read_table(path) == (["id", "name"], [(2, {"id": "0", "name": "walk"}), (4, {"id": "1"})])
    path.write_text('id,name\n0,"two\nlines"\n1,run,fast\n')
    assert refusal_message(lambda: csv.read_table(path), path).startswith(f"{path}:4: ")


@pytest.mark.parametrize(
    ("first", "delimiter"),
    [
        ("sep=;", ";"),
        ("sep=,", ","),
        ("sep=\t", "\t"),
        ("sep=\\t", "\t"),
        ('"sep=;"', ";"),
        ("SEP=|", "|"),
        ("sep=; ", ";"),
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_first_line_names_the_delimiter(first: str, delimiter: str, mark: str, line_end: str, tmp_path: Path) -> None:
    lines = [first, "a:b".replace(":", delimiter), "1.5:x y".replace(":", delimiter), "1:2:3".replace(":", delimiter)]
    path = tmp_path / "a.csv"
    path.write_bytes((mark + line_end.join(lines[:3]) + line_end).encode())
    assert csv.read_table(path) == (["a", "b"], [(3, {"a": "1.5", "b": "x y"})])
    path.write_bytes((mark + line_end.join(lines)).encode())
    assert refusal_message(lambda: csv.read_table(path), path).startswith(f"{path}:4: ")


@pytest.mark.parametrize("text", ["sep=;", "sep=;\n", "sep=x\n", "sep=,;\na,b\n", 'sep="\na\n'])
def test_other_first_lines_are_rows(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    if text.startswith("sep=;"):
        refusal_message(lambda: csv.read_lines(path), path)
    elif '"' not in text:
        assert csv.read_lines(path)[0].cells[0].startswith("sep=")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" \n,\n",
        b"id,name\n0,\xff\n",
        "id,name\n".encode("utf-16"),
        b"id,name\n0,a\0b\n",
        b'id,name\n0,"a\n1,b\n',
        b'id,name\n0,"a"b\n',
        b"id,name\n0," + b"x" * 200_000,
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    assert len(refusal_message(lambda: csv.read_lines(path), path)) < 1000


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no.csv"):
        refusal_message(lambda path=path: csv.read_lines(path), path)  # type: ignore[misc]


@quick_settings
@given(file_contents)
def test_arbitrary_files_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes(content)
    try:
        lines = csv.read_lines(path, delimiters=",;\t")
    except UserError as error:
        assert str(path) in str(error)
        assert is_one_line(str(error))
        return
    assert all(any(cells) for _, cells in lines)


cells = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=9).map(str.strip)


@quick_settings
@given(st.lists(st.lists(cells, min_size=2, max_size=2).filter(any), min_size=1, max_size=5))
def test_written_files_are_read_again(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]) -> None:
    path = csv.write_csv(tmp_path_factory.mktemp("csv") / "a.csv", ["a", "b"], rows)
    assert [line.cells for line in csv.read_lines(path)] == [["a", "b"], *rows]


def test_long_files_are_written_in_blocks(tmp_path: Path) -> None:
    count = 2 * csv.ROWS_PER_WRITE + 1
    path = csv.write_csv(tmp_path / "a.csv", ["number"], ([number] for number in range(count)))
    assert path.read_text() == "number\n" + "".join(f"{number}\n" for number in range(count))
