"""Import of Animal Kingdom's workbooks: annotations, invalid files, repeated runs."""

import csv
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import prepare_dataset
from tests.prepare.workbooks import (
    CLASS_NAMES,
    SHEET_HEADERS,
    animal_actions_cell,
    error_text,
    make_workbooks,
    prepare,
    set_cell,
    swap_ids,
)
from vimoclip import annotations
from vimoclip.errors import UserError


def test_annotations_are_in_the_order_of_the_sheet(tmp_path: Path) -> None:
    workbooks = make_workbooks()
    workbooks.clips.reverse()
    data = prepare(workbooks, tmp_path)
    assert data.classes == tuple(CLASS_NAMES)
    assert list(data.splits) == ["train", "val"]
    assert list(data.splits["train"]) == [f"{row[0]}.mp4" for row in workbooks.clips if row[1] == "train"]
    assert list(data.splits["val"]) == [f"{row[0]}.mp4" for row in workbooks.clips if row[1] == "test"]
    assert data.splits["train"]["PAIR.mp4"] == (1, 0)
    assert data.partitions["segment"] == ("head", "middle", "tail", "tail", "tail", "tail")
    assert data.partitions["segment_by_count"] == ("tail",) * 6
    first = (tmp_path / "annotations" / "train_multi.txt").read_text().splitlines()[0]
    assert first == "PAIR.mp4 1 0"


def test_duplicated_label_counts_once(tmp_path: Path) -> None:
    workbooks = make_workbooks()
    workbooks.clips[-1][2] = "1,0,1"
    assert prepare(workbooks, tmp_path).splits["train"]["PAIR.mp4"] == (1, 0)


def test_ids_may_be_text_or_numbers(tmp_path: Path) -> None:
    """Some programs save ids as text or float."""
    workbooks = make_workbooks()
    workbooks.clips[0][2], workbooks.clips[1][2] = 0, 0.0
    workbooks.listed[0][0], workbooks.counted[0][1] = "0", 0.0
    assert prepare(workbooks, tmp_path).splits["train"]["T000.mp4"] == (0,)


def test_formula_results_and_wrong_sheet_dimensions(tmp_path: Path) -> None:
    workbooks = make_workbooks()
    workbooks.counted[0][1] = "=1-1"
    flags = workbooks.write(tmp_path)
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
    report = prepare_dataset.main(["animal-kingdom", *flags, "--output-dir", str(tmp_path / "annotations")])
    assert annotations.load(report.outputs[0], "ak").classes == tuple(CLASS_NAMES)


def test_nested_lists_in_a_cell_are_read(tmp_path: Path) -> None:
    workbooks = make_workbooks()
    swap_ids(workbooks, 2, 3)
    for row in workbooks.clips:
        row[3] = repr([row[3]])
    assert prepare(workbooks, tmp_path, "--species").classes == tuple(CLASS_NAMES)
    assert annotations.read_animals(tmp_path / "annotations")["T000.mp4"] == (("Lion",), ("Mammal",))


@pytest.mark.parametrize("sheet", ["AR", "Action", "AR_count"])
def test_missing_sheet_is_an_error(sheet: str, tmp_path: Path) -> None:
    workbooks = make_workbooks()
    workbooks.omitted_sheet = sheet
    assert {sheet, "CARe"} <= set(re.findall(r"\w+", error_text(workbooks, tmp_path)))


@pytest.mark.parametrize(
    ("sheet", "column"),
    [
        *(("AR", column) for column in SHEET_HEADERS["AR"][1:]),
        *(("Action", column) for column in ("Label", "Action")),
        *(("AR_count", column) for column in ("action", "index", "segment")),
    ],
)
def test_missing_column_is_an_error(sheet: str, column: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        SHEET_HEADERS, sheet, tuple("other" if name == column else name for name in SHEET_HEADERS[sheet])
    )
    assert {sheet, column} <= set(re.findall(r"\w+", error_text(make_workbooks(), tmp_path)))


@pytest.mark.parametrize(
    ("modify", "words"),
    [
        (set_cell("clips", 1, 0, "T000"), ["AR, row 3", "T000"]),
        (set_cell("clips", 0, 0, "a/b"), ["AR, row 2", "'a/b.mp4'"]),
        (set_cell("clips", 0, 0, None), ["AR, row 2", "'.mp4'"]),
        (set_cell("clips", 0, 1, "valid"), ["AR, row 2", "'valid'", "T000"]),
        (set_cell("clips", 0, 2, "6"), ["AR, row 2", "'6'", "T000", "0..5"]),
        (set_cell("clips", 0, 2, "0,-1"), ["AR, row 2", "'-1'", "T000"]),
        (set_cell("clips", 0, 2, "0;1"), ["AR, row 2", "'0;1'", "T000"]),
        (set_cell("clips", 0, 2, "0,1.5"), ["AR, row 2", "'1.5'", "T000"]),
        (set_cell("clips", 0, 2, None), ["AR, row 2", "''", "T000"]),
        (set_cell("clips", 0, 3, "__import__('os').remove('x')"), ["AR, row 2", "list_animal_action"]),
        (set_cell("clips", 0, 3, "[('Lion', 'Sens"), ["AR, row 2", "list_animal_action"]),
        (set_cell("clips", 0, 3, "[('Lion', 3)]"), ["AR, row 2", "list_animal_action"]),
        (set_cell("clips", 0, 3, "[{[]: 3}]"), ["AR, row 2", "list_animal_action"]),
        (set_cell("clips", 0, 3, None), ["AR, row 2", "list_animal_action"]),
        (set_cell("listed", 0, 1, "Dancing"), ["Action", "Dancing"]),
        (set_cell("listed", 0, 1, None), ["Action, row 2"]),
        (set_cell("listed", 1, 1, "attacking"), ["Action, row 3", "attacking"]),
        (set_cell("counted", 1, 0, "ATTACKING"), ["AR_count, row 3", "ATTACKING"]),
        (set_cell("counted", 1, 1, 0), ["AR_count", "index 1"]),
        (set_cell("counted", 1, 1, 6), ["AR_count, row 3", "0..5"]),
        (set_cell("counted", 1, 1, "one"), ["AR_count, row 3", "0..5"]),
        (set_cell("counted", 1, 0, None), ["AR_count, row 3"]),
        (set_cell("counted", 1, 2, "body"), ["AR_count, row 3", "'body'"]),
        (lambda workbooks: workbooks.clips.clear(), ["sheet AR "]),
    ],
)
def test_invalid_row_is_reported_with_its_number(modify: Any, words: list[str], tmp_path: Path) -> None:
    workbooks = make_workbooks()
    modify(workbooks)
    text = error_text(workbooks, tmp_path)
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 no workbook", "cut"])
def test_file_that_is_no_workbook_is_an_error(content: bytes | str | None, tmp_path: Path) -> None:
    flags = make_workbooks().write(tmp_path)
    path = tmp_path / "AR_metadata.xlsx"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:900] if isinstance(content, str) else content)
    with pytest.raises(UserError) as caught:
        prepare_dataset.main(["animal-kingdom", *flags, "--output-dir", str(tmp_path / "annotations")])
    assert caught.value.path == str(path)
    assert not (tmp_path / "annotations").exists()


def file_contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_same_command_writes_the_same_bytes(tmp_path: Path) -> None:
    workbooks = make_workbooks(each=8)
    prepare(workbooks, tmp_path, "--species")
    before = file_contents(tmp_path / "annotations")
    assert before.keys() == {
        "ak_action.csv",
        "train_multi.txt",
        "val_multi.txt",
        "selection.txt",
        "animals.csv",
        "class_counts.html",
    }
    prepare(workbooks, tmp_path, "--species")
    assert file_contents(tmp_path / "annotations") == before


def test_sources_written_by_hand_stay_and_animals_are_written_before_a_failing_plot(tmp_path: Path) -> None:
    workbooks = make_workbooks(each=8)
    folder = tmp_path / "annotations"
    (folder / "class_counts.html").mkdir(parents=True)  # so that the plot can't be written
    (folder / "sources.csv").write_text("video_id,source,note\nAAAAAAAA.mp4,zoo,old camera\n")
    with pytest.raises(OSError):
        prepare(workbooks, tmp_path, "--species")
    assert (folder / "animals.csv").is_file()
    assert "old camera" in (folder / "sources.csv").read_text()


def test_existing_selection_is_kept(tmp_path: Path) -> None:
    workbooks = make_workbooks(each=8)
    prepare(workbooks, tmp_path)
    path = tmp_path / "annotations" / "selection.txt"
    path.write_text("T000.mp4\n")
    assert prepare(workbooks, tmp_path).selection == ("T000.mp4",)
    assert path.read_text() == "T000.mp4\n"
    path.unlink()
    assert prepare(workbooks, tmp_path).selection  # a missing one is drawn again


@pytest.mark.parametrize(
    ("modify", "expected_name"),
    [
        (
            lambda workbooks: workbooks.clips.append(["NEW", "train", "0", animal_actions_cell(CLASS_NAMES[0])]),
            "NEW.mp4",
        ),
        (set_cell("clips", 0, 2, "0,1"), "T000.mp4"),
        (set_cell("listed", 0, 1, "ATTACKING"), "ATTACKING"),
    ],
)
def test_other_existing_annotations_are_an_error_and_kept(modify: Any, expected_name: str, tmp_path: Path) -> None:
    workbooks = make_workbooks()
    prepare(workbooks, tmp_path)
    before = file_contents(tmp_path / "annotations")
    modify(workbooks)
    with pytest.raises(UserError, match=expected_name) as caught:
        prepare(workbooks, tmp_path)
    assert caught.value.path == str(tmp_path / "annotations")
    assert file_contents(tmp_path / "annotations") == before


def test_annotations_are_written_into_the_data_set_by_default(tmp_path: Path) -> None:
    flags = [*make_workbooks().write(tmp_path), "--dataset-dir", str(tmp_path / "d"), "--dataset-name", "zoo"]
    assert prepare_dataset.main(["animal-kingdom", *flags]).outputs == [tmp_path / "d" / "annotations"]
    assert (tmp_path / "d" / "annotations" / "zoo_action.csv").is_file()
    assert not (tmp_path / "d" / "annotations" / "animals.csv").exists()


def test_segments_by_count_use_training_labels(tmp_path: Path) -> None:
    workbooks = make_workbooks(each=1)
    for number, num_added in ((0, 499), (1, 500), (2, 99), (3, 100)):
        # the clip with two labels counts for both of the first two classes
        count = num_added - (number < 2)
        workbooks.clips += [[f"M{number}n{i}", "train", str(number), "[]"] for i in range(count)]
        workbooks.clips += [[f"X{number}n{i}", "test", str(number), "[]"] for i in range(40)]
    data = prepare(workbooks, tmp_path)
    counts = Counter(label for labels in data.splits["train"].values() for label in labels)
    assert [counts[i] for i in range(6)] == [500, 501, 100, 101, 1, 1]
    assert data.partitions["segment_by_count"] == ("middle", "head", "tail", "middle", "tail", "tail")


def test_animals_and_their_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workbooks = make_workbooks()
    workbooks.animals.append(["Tiger", "Mammal"])
    names = ("LION", "Crane", "Tiger", "Lion")
    workbooks.clips[0][3] = repr([(animal, "Attacking") for animal in names])
    workbooks.clips[1][3] = repr([("Unicorn", "Attacking"), ("Ant", "Attacking")])
    workbooks.clips[2][3] = "[]"
    prepare(workbooks, tmp_path, "--species")
    animals = annotations.read_animals(tmp_path / "annotations")
    assert list(animals) == [f"{row[0]}.mp4" for row in workbooks.clips]
    assert animals["T000.mp4"] == (("Lion", "Crane", "Tiger"), ("Mammal", "Bird"))
    assert animals["T001.mp4"] == (("Unicorn", "Ant"), ("Insect",))
    assert animals["T002.mp4"] == ((), ())
    with open(tmp_path / "annotations" / "animals.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[:2] == [["video_id", "animals", "animal_classes"], ["T000.mp4", "Lion;Crane;Tiger", "Mammal;Bird"]]
    output = capsys.readouterr().out
    for words in ("Mammal in 23, Bird in 1, Insect in 1", "Unicorn (in 1 clips)", "1 (T002.mp4)"):
        assert words in output


@pytest.mark.parametrize(
    ("modify", "words"),
    [
        (lambda workbooks: workbooks.animals.append(["Lion", "Bird"]), "Animal, row 5: Lion"),
        (set_cell("animals", 0, 1, None), "Animal, row 2"),
    ],
)
def test_invalid_sheet_of_animals_is_an_error_if_needed(modify: Any, words: str, tmp_path: Path) -> None:
    workbooks = make_workbooks()
    modify(workbooks)
    with pytest.raises(UserError, match=words):
        prepare(workbooks, tmp_path, "--species")
    assert not (tmp_path / "annotations").exists()
    prepare(workbooks, tmp_path)
