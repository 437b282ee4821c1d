"""Workbooks in the format of Animal Kingdom's, for tests of the importer."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openpyxl
import pytest

import prepare_dataset
from tests.untrusted_files import is_one_line
from vimoclip import annotations
from vimoclip.errors import UserError

CLASS_NAMES = ["Attacking", "Being eaten", "Flapping its ears", "Flapping tail", "Sensing", "Yawning"]  # by id
SHEET_HEADERS = {
    "AR": ("S/N", "video_id", "type", "labels", "list_animal_action"),
    "Action": ("Label", "Category", "Action", "Description"),
    "Animal": ("Animal", "Parent Class", "Class", "Sub-Class", "Young", "Generic name"),
    "AR_count": ("S/N", "action_category", "action", "index", "segment", "count"),
}


@dataclass
class Workbooks:
    """Rows of each sheet, which a test may change before they are written."""

    clips: list[list[Any]] = field(default_factory=list)  # id, type, labels, description
    listed: list[list[Any]] = field(default_factory=list)  # label, name
    counted: list[list[Any]] = field(default_factory=list)  # name, index, segment, count
    # animal, parent class, and its sub-class if it has another name
    animals: list[list[Any]] = field(default_factory=lambda: [["Lion", "Mammal"], ["Crane", "Bird"], ["Ant", "Insect"]])
    omitted_sheet: str = ""

    def write(self, folder: Path) -> list[str]:
        """Write two workbooks and return the flags that name them."""
        rows = {
            "AR": [(i, *row) for i, row in enumerate(self.clips, 1)],
            "Action": [(label, "General", name, "What it is") for label, name in self.listed],
            "Animal": [
                (animal, parent, parent, (*sub, parent)[0], None, None) for animal, parent, *sub in self.animals
            ],
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
                if sheet != self.omitted_sheet:
                    page = book.create_sheet(sheet)
                    for row in (SHEET_HEADERS[sheet], *rows[sheet], (None, None)):
                        page.append([None if cell is None else cell for cell in row])
            book.save(folder / file)
            flags += [flag, str(folder / file)]
        return flags


def animal_actions_cell(*names: str, animal: str = "Lion") -> str:
    return repr([(animal, name) for name in names])


def make_workbooks(names: Sequence[str] = CLASS_NAMES, each: int = 3) -> Workbooks:
    """Return workbooks without conflicts: per class `each` clips in train and one in test; one clip has two labels."""
    workbooks = Workbooks()
    for number, name in enumerate(names):
        for i in range(each):
            workbooks.clips.append([f"T{number:02d}{i}", "train", str(number), animal_actions_cell(name)])
        workbooks.clips.append([f"V{number:02d}", "test", str(number), animal_actions_cell(name)])
        workbooks.listed.append([number, name])
        workbooks.counted.append([name, number, "tail", each])
    workbooks.clips.append(["PAIR", "train", "1,0", animal_actions_cell(names[1], names[0])])
    workbooks.counted[0][2], workbooks.counted[1][2] = "head", "middle"
    return workbooks


def swap_ids(workbooks: Workbooks, first: int, second: int) -> None:
    """Swap the ids of two classes in AR_count."""
    rows = {row[1]: row for row in workbooks.counted}
    rows[first][1], rows[second][1] = second, first


def prepare(workbooks: Workbooks, tmp_path: Path, *flags: str) -> annotations.Annotations:
    annotations_dir = tmp_path / "annotations"
    report = prepare_dataset.main(
        ["animal-kingdom", *workbooks.write(tmp_path), "--output-dir", str(annotations_dir), *flags]
    )
    data = annotations.load(annotations_dir, "ak", ["train", "val"])
    assert (report.outputs, report.done, report.skipped) == ([annotations_dir], len(workbooks.clips), {})
    return data


def error_text(workbooks: Workbooks, tmp_path: Path) -> str:
    """Return the error's text; nothing may be written."""
    with pytest.raises(UserError) as caught:
        prepare(workbooks, tmp_path)
    assert not (tmp_path / "annotations").exists()
    text = str(caught.value)
    assert is_one_line(text) and ".xlsx" in text and caught.value.hint
    return text


def set_cell(rows: str, row: int, cell: int, value: Any) -> Any:
    def modify(workbooks: Workbooks) -> None:
        getattr(workbooks, rows)[row][cell] = value

    return modify
