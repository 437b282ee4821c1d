"""Animal Kingdom's workbooks become annotations: conflicts among them are found, and settled by what clips show."""

import csv
import hashlib
import re
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import prepare_dataset
from tests.conftest import REPOSITORY, SHARED
from vimoclip import annotations
from vimoclip.errors import UserError

REAL = SHARED / "animal_kingdom"
NAMES = ["Attacking", "Being eaten", "Flapping its ears", "Flapping tail", "Sensing", "Yawning"]  # by id
SHEETS = {
    "AR": ("S/N", "video_id", "type", "labels", "list_animal_action"),
    "Action": ("Label", "Category", "Action", "Description"),
    "Animal": ("Animal", "Parent Class", "Class", "Sub-Class", "Young", "Generic name"),
    "AR_count": ("S/N", "action_category", "action", "index", "segment", "count"),
}


@dataclass
class Books:
    """The rows of each sheet, which a test may change before they are written."""

    clips: list[list[Any]] = field(default_factory=list)  # id, type, labels, said
    listed: list[list[Any]] = field(default_factory=list)  # label, name
    counted: list[list[Any]] = field(default_factory=list)  # name, index, segment, count
    animals: list[list[Any]] = field(default_factory=lambda: [["Lion", "Mammal"], ["Crane", "Bird"], ["Ant", "Insect"]])
    left_out: str = ""

    def write(self, folder: Path) -> list[str]:
        """Two workbooks; the flags that name them."""
        rows = {
            "AR": [(i, *row) for i, row in enumerate(self.clips, 1)],
            "Action": [(label, "General", name, "What it is") for label, name in self.listed],
            "Animal": [(animal, parent, parent, parent, None, None) for animal, parent in self.animals],
            "AR_count": [(i, "General", *row) for i, row in enumerate(self.counted, 1)],
        }
        flags = []
        for flag, file, sheets in (
            ("--metadata", "AR_metadata.xlsx", ("AR", "Action", "Animal")),
            ("--actions", "df_action.xlsx", ("AR_count",)),
        ):
            book = openpyxl.Workbook()
            book.remove(book.active)
            book.create_sheet("CARe").append(("something", "else"))
            for sheet in sheets:
                if sheet != self.left_out:
                    page = book.create_sheet(sheet)
                    for row in (SHEETS[sheet], *rows[sheet], (None, None)):
                        page.append([None if cell is None else cell for cell in row])
            book.save(folder / file)
            flags += [flag, str(folder / file)]
        return flags


def say(*names: str, animal: str = "Lion") -> str:
    return repr([(animal, name) for name in names])


def make(names: Sequence[str] = NAMES, each: int = 3) -> Books:
    """Books without a conflict: `each` clips a class to train on and one to report, and some with two labels."""
    books = Books()
    for number, name in enumerate(names):
        for i in range(each):
            books.clips.append([f"T{number:02d}{i}", "train", str(number), say(name)])
        books.clips.append([f"V{number:02d}", "test", str(number), say(name)])
        books.listed.append([number, name])
        books.counted.append([name, number, "tail", each])
    books.clips.append(["PAIR", "train", "1,0", say(names[1], names[0])])
    books.counted[0][2], books.counted[1][2] = "head", "middle"
    return books


def swap(books: Books, first: int, second: int) -> None:
    """The names at two ids of AR_count, with their segments and counts."""
    rows = {row[1]: row for row in books.counted}
    rows[first][1], rows[second][1] = second, first


def prepare(books: Books, tmp_path: Path, *flags: str) -> annotations.Annotations:
    notes = prepare_dataset.main(
        ["animal-kingdom", *books.write(tmp_path), "--output-dir", str(tmp_path / "notes"), *flags]
    )
    assert notes == tmp_path / "notes"
    return annotations.load(notes, "ak", ["train", "val"])


def refusal(books: Books, tmp_path: Path) -> str:
    """The line with which the books are refused; nothing is written then."""
    with pytest.raises(UserError) as caught:
        prepare(books, tmp_path)
    assert not (tmp_path / "notes").exists()
    text = str(caught.value)
    assert "\n" not in text
    assert ".xlsx" in text
    assert "; " in text
    return text


def test_books_become_annotations_in_the_order_of_the_sheet(tmp_path: Path) -> None:
    books = make()
    books.clips.reverse()
    data = prepare(books, tmp_path)
    assert data.classes == tuple(NAMES)
    assert list(data.splits) == ["train", "val"]
    assert list(data.splits["train"]) == [f"{row[0]}.mp4" for row in books.clips if row[1] == "train"]
    assert list(data.splits["val"]) == [f"{row[0]}.mp4" for row in books.clips if row[1] == "test"]
    assert data.splits["train"]["PAIR.mp4"] == (1, 0)
    assert data.partitions["segment"] == ("head", "middle", "tail", "tail", "tail", "tail")
    assert data.partitions["segment_by_count"] == ("tail",) * 6
    first = (tmp_path / "notes" / "train_multi.txt").read_text().splitlines()[0]
    assert first == "PAIR.mp4 1 0"


def test_a_label_that_stands_twice_in_a_clip_counts_once(tmp_path: Path) -> None:
    books = make()
    books.clips[-1][2] = "1,0,1"
    assert prepare(books, tmp_path).splits["train"]["PAIR.mp4"] == (1, 0)


def test_ids_may_be_text_or_numbers(tmp_path: Path) -> None:
    """As programs save them that know no better."""
    books = make()
    books.clips[0][2], books.clips[1][2] = 0, 0.0
    books.listed[0][0], books.counted[0][1] = "0", 0.0
    assert prepare(books, tmp_path).splits["train"]["T000.mp4"] == (0,)


def test_what_a_formula_came_to_counts_and_all_rows_whatever_the_sheet_says_of_its_size(tmp_path: Path) -> None:
    books = make()
    books.counted[0][1] = "=1-1"
    flags = books.write(tmp_path)
    path = tmp_path / "df_action.xlsx"
    with zipfile.ZipFile(path) as book:
        parts = {name: book.read(name).decode() for name in book.namelist()}
    (sheet,) = (name for name, part in parts.items() if "1-1" in part)
    changed = re.sub(
        r"<v ?/>|<v></v>", "<v>0</v>", re.sub(r'dimension ref="\w+:\w+"', 'dimension ref="A1:F2"', parts[sheet])
    )
    assert changed.count("A1:F2") == changed.count("<f>1-1</f><v>0</v>") == 1
    with zipfile.ZipFile(path, "w") as book:
        for name, part in (parts | {sheet: changed}).items():
            book.writestr(name, part)
    notes = prepare_dataset.main(["animal-kingdom", *flags, "--output-dir", str(tmp_path / "notes")])
    assert annotations.load(notes, "ak").classes == tuple(NAMES)


def test_a_missing_label_and_swapped_names_are_settled_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    books = make()
    books.counted[2][2], books.counted[3][2] = "middle", "head"  # of the ears, of the tail
    swap(books, 2, 3)
    books.listed[5][0] = "#N/A"
    data = prepare(books, tmp_path)
    assert data.classes == tuple(NAMES)
    assert data.partitions["segment"][2:4] == ("middle", "head")
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  id ")]
    assert len(said) == 3
    assert "id 2 is Flapping its ears (in the sheet Action at 2, in AR_count at 3): 4 of the 4" in said[0]
    assert "id 3 is Flapping tail (in the sheet Action at 3, in AR_count at 2): 4 of the 4" in said[1]
    assert "id 5 is Yawning (in the sheet Action without an id, in AR_count at 5): 4 of the 4" in said[2]


def test_clips_overrule_both_sheets_where_all_of_them_say_otherwise(tmp_path: Path) -> None:
    books = make()
    swap(books, 2, 3)
    books.listed[2][0], books.listed[3][0] = 3, 2
    assert prepare(books, tmp_path).classes == tuple(NAMES)


def test_capitals_and_spaces_are_no_conflict_and_the_list_spells_the_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    books = make()
    books.counted[1][0] = "Being  Eaten "
    for row in books.clips:
        row[3] = row[3].replace("Being eaten", "Being Eaten")
    assert prepare(books, tmp_path).classes == tuple(NAMES)
    assert "sheets and clips agree on the ids of all 6 classes" in capsys.readouterr().out


def test_words_may_lack_some_of_the_labels(tmp_path: Path) -> None:
    """As they do in a tenth of the real clips: what is said counts, what isn't said doesn't."""
    books = make()
    for row in books.clips[2:20:3]:
        row[2], row[3] = f"{row[2]},4", row[3]
    swap(books, 2, 3)
    assert prepare(books, tmp_path).classes == tuple(NAMES)


def test_a_class_that_never_stands_alone_is_settled(tmp_path: Path) -> None:
    books = make()
    for row in books.clips:
        if row[2] == "2":
            row[2], row[3] = "4,2", say("Sensing", "Flapping its ears")
    swap(books, 2, 4)
    assert prepare(books, tmp_path).classes == tuple(NAMES)


def test_words_within_words_are_read(tmp_path: Path) -> None:
    books = make()
    swap(books, 2, 3)
    for row in books.clips:
        row[3] = repr([row[3]])
    assert prepare(books, tmp_path, "--species").classes == tuple(NAMES)
    assert annotations.read_animals(tmp_path / "notes")["T000.mp4"] == (("Lion",), ("Mammal",))


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(6)), st.permutations(range(6)), st.sets(st.integers(0, 5), max_size=6), st.randoms())
def test_any_permutation_of_names_is_found_and_settled(
    tmp_path_factory: pytest.TempPathFactory, by_counts: list[int], by_list: list[int], lost: set[int], random: Any
) -> None:
    books = make()
    wanted = [row[2] for row in books.counted]
    for row, there in zip(books.counted, by_counts, strict=True):
        row[1] = there
    for row, there in zip(books.listed, by_list, strict=True):
        row[0] = None if there in lost else there
    for rows in (books.counted, books.listed, books.clips):
        random.shuffle(rows)
    data = prepare(books, tmp_path_factory.mktemp("books"))
    assert data.classes == tuple(NAMES)
    assert list(data.partitions["segment"]) == wanted


def silence(books: Books, *names: str) -> None:
    """Nothing is said of these actions any more."""
    for row in books.clips:
        if any(f"'{name}'" in row[3] for name in names):
            row[3] = "[]"


def test_a_class_of_which_nothing_is_said_is_where_both_sheets_put_it(tmp_path: Path) -> None:
    books = make()
    silence(books, "Yawning")
    assert prepare(books, tmp_path).classes == tuple(NAMES)


def test_two_classes_that_always_stand_together_are_where_both_sheets_put_them(tmp_path: Path) -> None:
    books = make()
    for row in books.clips:
        if row[2] in ("2", "3"):
            row[2], row[3] = "2,3", say("Flapping its ears", "Flapping tail")
    assert prepare(books, tmp_path).classes == tuple(NAMES)


def unsettled_silence(books: Books) -> None:
    silence(books, "Yawning")
    books.listed[5][0] = None


def unsettled_tie(books: Books) -> None:
    swap(books, 2, 3)
    for row in books.clips:
        if row[2] in ("2", "3"):
            row[2], row[3] = "2,3", say("Flapping its ears", "Flapping tail")


def contradicting(books: Books) -> None:
    """Half of the clips that are said to show it have another id."""
    swap(books, 2, 3)
    for i, row in enumerate(books.clips):
        if row[2] in ("2", "3"):
            row[3] = say(NAMES[2 + i % 2])


def said_of_others_too(books: Books) -> None:
    """Three in seven of the clips that are said to show it have another id."""
    swap(books, 2, 3)
    for row in books.clips[16:19]:
        assert row[2] == "4"
        row[3] = say("Sensing", "Flapping tail")


def said_of_another_only(books: Books) -> None:
    """Both sheets agree on a class, which is said of one clip, of another class."""
    silence(books, "Yawning")
    books.clips[0][3] = say("Attacking", "Yawning")


def two_names_for_one_id(books: Books) -> None:
    """All that is said of one class is said of clips of another; nothing is said of that one's own."""
    silence(books, "Flapping its ears")
    for row in books.clips:
        if row[2] == "3":
            row[3] = say("Flapping its ears")
    silence(books, "Flapping tail")
    books.listed[3][0], books.counted[2][1], books.counted[3][1] = 3, 2, 3


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (unsettled_silence, ["'yawning'", "no id", "id 5", "none is said to show it"]),
        (unsettled_tie, ["'flapping its ears'", "id 2", "id 3", "8 of the 8"]),
        (contradicting, ["'flapping", "id 2", "id 3", "2 of the 4"]),
        (said_of_others_too, ["'flapping tail'", "id 3: 4 of the 7"]),
        (said_of_another_only, ["'yawning'", "id 5 in one sheet and at id 5", "id 0: 1 of the 1"]),
        (two_names_for_one_id, ["'flapping its ears'", "'flapping tail'", "id 3"]),
    ],
)
def test_what_the_clips_do_not_settle_is_refused(spoil: Any, words: list[str], tmp_path: Path) -> None:
    books = make()
    spoil(books)
    text = refusal(books, tmp_path)
    assert not [word for word in words if word not in text], text


@pytest.mark.parametrize("sheet", ["AR", "Action", "AR_count"])
def test_a_missing_sheet_is_refused(sheet: str, tmp_path: Path) -> None:
    books = make()
    books.left_out = sheet
    assert f"has no sheet {sheet}, but CARe" in refusal(books, tmp_path)


@pytest.mark.parametrize(
    ("sheet", "column"),
    [
        *(("AR", column) for column in SHEETS["AR"][1:]),
        *(("Action", column) for column in ("Label", "Action")),
        *(("AR_count", column) for column in ("action", "index", "segment", "count")),
    ],
)
def test_a_missing_column_is_refused(sheet: str, column: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHEETS, sheet, tuple("other" if name == column else name for name in SHEETS[sheet]))
    assert f"its sheet {sheet} has no column {column}" in refusal(make(), tmp_path)


def change(rows: str, row: int, cell: int, value: Any) -> Any:
    def spoil(books: Books) -> None:
        getattr(books, rows)[row][cell] = value

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (change("clips", 1, 0, "T000"), "row 3: T000 stands twice"),
        (change("clips", 0, 0, "a/b"), "row 2: 'a/b.mp4'"),
        (change("clips", 0, 0, None), "row 2: '.mp4'"),
        (change("clips", 0, 1, "valid"), "row 2: type 'valid' of T000"),
        (change("clips", 0, 2, "6"), "row 2: label '6' of T000 is not in 0..5"),
        (change("clips", 0, 2, "0,-1"), "row 2: label '-1' of T000"),
        (change("clips", 0, 2, "0;1"), "row 2: label '0;1' of T000"),
        (change("clips", 0, 2, "0,1.5"), "row 2: label '1.5' of T000"),
        (change("clips", 0, 2, None), "row 2: label '' of T000"),
        (change("clips", 0, 3, "__import__('os').remove('x')"), "row 2: list_animal_action"),
        (change("clips", 0, 3, "[('Lion', 'Sens"), "row 2: list_animal_action"),
        (change("clips", 0, 3, "[('Lion', 3)]"), "row 2: list_animal_action"),
        (change("clips", 0, 3, "[{[]: 3}]"), "row 2: list_animal_action"),
        (change("clips", 0, 3, None), "row 2: list_animal_action"),
        (change("listed", 0, 1, "Dancing"), "sheet Action names Dancing, which"),
        (change("listed", 0, 1, None), "sheet Action, row 2 has no action"),
        (change("listed", 1, 1, "attacking"), "sheet Action, row 3: attacking stands twice"),
        (change("counted", 1, 0, "ATTACKING"), "row 3: ATTACKING stands twice"),
        (change("counted", 1, 1, 0), "no action has index 1"),
        (change("counted", 1, 1, 6), "row 3 needs an action, and an index in 0..5"),
        (change("counted", 1, 1, "one"), "row 3 needs an action, and an index in 0..5"),
        (change("counted", 1, 0, None), "row 3 needs an action, and an index in 0..5"),
        (change("counted", 1, 2, "body"), "row 3: segment 'body' is none of head, middle, tail"),
        (lambda books: books.clips.clear(), "sheet AR is empty"),
    ],
)
def test_a_row_that_is_wrong_is_refused_by_its_number(spoil: Any, words: str, tmp_path: Path) -> None:
    books = make()
    spoil(books)
    assert words in refusal(books, tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 no workbook", "cut"])
def test_a_file_that_is_no_workbook_is_refused(content: bytes | str | None, tmp_path: Path) -> None:
    flags = make().write(tmp_path)
    path = tmp_path / "AR_metadata.xlsx"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:900] if isinstance(content, str) else content)
    with pytest.raises(UserError, match=r"AR_metadata.xlsx: (is no Excel workbook|there is no such file)"):
        prepare_dataset.main(["animal-kingdom", *flags, "--output-dir", str(tmp_path / "notes")])
    assert not (tmp_path / "notes").exists()


def test_a_refusal_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    books = make()
    books.clips[0][2] = "99"
    command = [sys.executable, str(REPOSITORY / "prepare_dataset.py"), "animal-kingdom", *books.write(tmp_path)]
    done = subprocess.run([*command, "--dataset-dir", str(tmp_path / "d")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "label '99' of T000" in done.stderr
    assert done.stdout == ""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_command_again_writes_the_same_bytes(tmp_path: Path) -> None:
    books = make(each=8)
    prepare(books, tmp_path, "--species")
    before = contents(tmp_path / "notes")
    assert before.keys() == {
        "ak_action.csv",
        "train_multi.txt",
        "val_multi.txt",
        "selection.txt",
        "animals.csv",
        "class_counts.html",
    }
    prepare(books, tmp_path, "--species")
    assert contents(tmp_path / "notes") == before


def test_a_selection_that_is_there_stays(tmp_path: Path) -> None:
    books = make(each=8)
    prepare(books, tmp_path)
    path = tmp_path / "notes" / "selection.txt"
    path.write_text("T000.mp4\n")
    assert prepare(books, tmp_path).selection == ("T000.mp4",)
    assert path.read_text() == "T000.mp4\n"
    path.unlink()
    assert prepare(books, tmp_path).selection  # one that is gone is drawn again


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda books: books.clips.append(["NEW", "train", "0", say(NAMES[0])]), "NEW.mp4"),
        (change("clips", 0, 2, "0,1"), "T000.mp4"),
        (change("listed", 0, 1, "ATTACKING"), "ATTACKING"),
    ],
)
def test_other_annotations_that_are_there_are_refused_and_stay(spoil: Any, named: str, tmp_path: Path) -> None:
    books = make()
    prepare(books, tmp_path)
    before = contents(tmp_path / "notes")
    spoil(books)
    with pytest.raises(UserError, match=r"holds \d other classes, clips or labels") as caught:
        prepare(books, tmp_path)
    assert named in str(caught.value)
    assert contents(tmp_path / "notes") == before


def test_annotations_are_written_into_the_data_set_by_default(tmp_path: Path) -> None:
    flags = [*make().write(tmp_path), "--dataset-dir", str(tmp_path / "d"), "--dataset-name", "zoo"]
    assert prepare_dataset.main(["animal-kingdom", *flags]) == tmp_path / "d" / "annotations"
    assert (tmp_path / "d" / "annotations" / "zoo_action.csv").is_file()
    assert not (tmp_path / "d" / "annotations" / "animals.csv").exists()


def test_segments_by_count_are_of_training_labels(tmp_path: Path) -> None:
    books = make(each=1)
    for number, more in ((0, 499), (1, 500), (2, 99), (3, 100)):
        # the pair of labels stands for one more of each of the first two
        count = more - (number < 2)
        books.clips += [[f"M{number}n{i}", "train", str(number), "[]"] for i in range(count)]
        books.clips += [[f"X{number}n{i}", "test", str(number), "[]"] for i in range(40)]
    data = prepare(books, tmp_path)
    counts = Counter(label for labels in data.splits["train"].values() for label in labels)
    assert [counts[i] for i in range(6)] == [500, 501, 100, 101, 1, 1]
    assert data.partitions["segment_by_count"] == ("middle", "head", "tail", "middle", "tail", "tail")


def test_counts_that_differ_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    books = make()
    books.counted[4][3], books.counted[5][3] = 4, 7
    prepare(books, tmp_path)
    said = capsys.readouterr().out
    assert "1 of 6 are those of all clips in AR, 2 of its training clips" in said  # Sensing; two of three each
    assert "Yawning 7 (AR: 3 to train on, 4 in all)" in said


def test_animals_and_their_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    books = make()
    books.animals.append(["Tiger", "Mammal"])
    shown = ("LION", "Crane", "Tiger", "Lion")
    books.clips[0][3] = repr([(animal, "Attacking") for animal in shown])
    books.clips[1][3] = repr([("Unicorn", "Attacking"), ("Ant", "Attacking")])
    books.clips[2][3] = "[]"
    prepare(books, tmp_path, "--species")
    animals = annotations.read_animals(tmp_path / "notes")
    assert list(animals) == [f"{row[0]}.mp4" for row in books.clips]
    assert animals["T000.mp4"] == (("Lion", "Crane", "Tiger"), ("Mammal", "Bird"))
    assert animals["T001.mp4"] == (("Unicorn", "Ant"), ("Insect",))
    assert animals["T002.mp4"] == ((), ())
    with open(tmp_path / "notes" / "animals.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[:2] == [["video_id", "animals", "animal_classes"], ["T000.mp4", "Lion;Crane;Tiger", "Mammal;Bird"]]
    said = capsys.readouterr().out
    assert "animals in 25 clips: Mammal in 23, Bird in 1, Insect in 1" in said
    assert "1 animals are spelled otherwise" in said
    assert "1 animals are not in the sheet Animal, so of no class: Unicorn (in 1 clips)" in said
    assert "clips without an animal: 1 (T002.mp4)" in said


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda books: books.animals.append(["Lion", "Bird"]), "row 5: Lion is of two classes"),
        (change("animals", 0, 1, None), "row 2 lacks the animal or its Parent Class"),
    ],
)
def test_a_wrong_sheet_of_animals_is_refused_where_it_is_needed(spoil: Any, words: str, tmp_path: Path) -> None:
    books = make()
    spoil(books)
    with pytest.raises(UserError, match=words):
        prepare(books, tmp_path, "--species")
    assert not (tmp_path / "notes").exists()
    prepare(books, tmp_path)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[annotations.Annotations, Path, str]:
    """What the authors' own workbooks become, where, and what is said."""
    if not REAL.is_dir():
        pytest.skip(f"{REAL} is missing")
    notes = tmp_path_factory.mktemp("real")
    command = [sys.executable, str(REPOSITORY / "prepare_dataset.py"), "animal-kingdom", "--species"]
    command += ["--metadata", str(REAL / "AR_metadata.xlsx"), "--actions", str(REAL / "df_action.xlsx")]
    done = subprocess.run([*command, "--output-dir", str(notes)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return annotations.load(notes, "ak", ["train", "val"]), notes, done.stdout


def test_the_real_workbooks_give_the_published_splits(real: tuple[annotations.Annotations, Path, str]) -> None:
    data, notes, _ = real
    assert [len(videos) for videos in data.splits.values()] == [24004, 6096]
    assert len(data.classes) == 140
    sizes = {name: Counter(segments) for name, segments in data.partitions.items()}
    assert sizes["segment"] == {"head": 17, "middle": 29, "tail": 94}
    assert sizes["segment_by_count"] == {"head": 18, "middle": 32, "tail": 90}
    shown = {label for labels in data.splits["val"].values() for label in labels}
    assert 140 - len(shown) == 13
    assert (notes / "train_multi.txt").read_text().startswith("AAACXZTV.mp4 2 40\nAABCQPTK.mp4 2 15\n")


def test_the_conflicts_of_the_real_workbooks(real: tuple[annotations.Annotations, Path, str]) -> None:
    data, _, said = real
    settled = {
        49: ("Flapping tail", "middle"),
        50: ("Flapping its ears", "tail"),
        70: ("Lying on its side", "tail"),  # both sheets have this and the next the other way round, the clips don't
        74: ("Lying down", "tail"),
        81: ("Performing sexual display", "tail"),
        82: ("Performing allo-grooming", "tail"),
        83: ("Performing allo-preening", "tail"),
        84: ("Performing copulatory mounting", "tail"),
        139: ("Yawning", "tail"),  # the sheet Action has no label for it
    }
    assert {i: (data.classes[i], data.partitions["segment"][i]) for i in settled} == settled
    lines = [line.split() for line in said.splitlines() if line.startswith("  id ")]
    assert [int(line[1]) for line in lines] == list(settled)
    assert "290 of the 290 clips said to show it have the id, which 388 have" in said
    assert "86 of the 86 clips said to show it have the id, which 97 have" in said


def test_the_real_selection_is_a_tenth_of_each_class(real: tuple[annotations.Annotations, Path, str]) -> None:
    data, notes, _ = real
    train, chosen = data.splits["train"], set(data.selection)
    assert abs(len(chosen) / len(train) - 0.1) < 0.002
    counts = Counter(label for labels in train.values() for label in labels)
    drawn = Counter(label for video in chosen for label in train[video])
    assert all(abs(drawn[i] / counts[i] - 0.1) < 0.01 for i in counts if counts[i] > 100)
    assert all(drawn[i] < counts[i] for i in counts)
    assert list(data.selection) == [video for video in train if video in chosen]
    # drawn once, for every version of this project and of what it stands on
    assert hashlib.sha256((notes / "selection.txt").read_bytes()).hexdigest()[:16] == "7a8bb4c1192af2c6"


def test_the_real_animals(real: tuple[annotations.Annotations, Path, str]) -> None:
    data, notes, said = real
    animals = annotations.read_animals(notes)
    assert list(animals.keys() - {video for videos in data.splits.values() for video in videos}) == []
    assert len(animals) == 30100
    clips = Counter(parent for one in animals.values() for parent in one.classes)
    assert set(clips) == {"Bird", "Mammal", "Reptile", "Insect", "Amphibian", "Fish", "Sea animal"}
    assert "Common Quail (in 392 clips), Cuckoo Bird (in 139 clips)" in said
    assert [video for video, one in animals.items() if not one.animals] == ["KDIANBXG.mp4"]
