"""Conflicts between the sheets of Animal Kingdom, and how the clips' descriptions resolve them."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.prepare.workbooks import (
    CLASS_NAMES,
    Workbooks,
    animal_actions_cell,
    error_text,
    make_workbooks,
    prepare,
    swap_ids,
)


def test_missing_label_and_swapped_names_are_resolved_and_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workbooks = make_workbooks()
    workbooks.counted[2][2], workbooks.counted[3][2] = "middle", "head"  # of the ears, of the tail
    swap_ids(workbooks, 2, 3)
    workbooks.listed[5][0] = "#N/A"
    data = prepare(workbooks, tmp_path)
    assert data.classes == tuple(CLASS_NAMES)
    assert data.partitions["segment"][2:4] == ("middle", "head")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  id ")]
    expected = [("Flapping its ears", "id 2", 3), ("Flapping tail", "id 3", 2), ("Yawning", "no id", 5)]
    for line, (name, listed, counted) in zip(lines, expected, strict=True):
        assert all(words in line for words in (name, f": {listed},", f"id {counted})", "4 of the 4")), line


def test_case_and_spaces_are_no_conflict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workbooks = make_workbooks()
    workbooks.counted[1][0] = "Being  Eaten "
    for row in workbooks.clips:
        row[3] = row[3].replace("Being eaten", "Being Eaten")
    assert prepare(workbooks, tmp_path).classes == tuple(CLASS_NAMES)
    assert "  id " not in capsys.readouterr().out


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(6)), st.permutations(range(6)), st.sets(st.integers(0, 5), max_size=6), st.randoms())
def test_any_permutation_of_names_is_resolved(
    tmp_path_factory: pytest.TempPathFactory,
    by_counts: list[int],
    by_list: list[int],
    without_id: set[int],
    random: Any,
) -> None:
    workbooks = make_workbooks()
    segments = [row[2] for row in workbooks.counted]
    for row, class_id in zip(workbooks.counted, by_counts, strict=True):
        row[1] = class_id
    for row, class_id in zip(workbooks.listed, by_list, strict=True):
        row[0] = None if class_id in without_id else class_id
    for rows in (workbooks.counted, workbooks.listed, workbooks.clips):
        random.shuffle(rows)
    data = prepare(workbooks, tmp_path_factory.mktemp("workbooks"))
    assert data.classes == tuple(CLASS_NAMES)
    assert list(data.partitions["segment"]) == segments


def remove_descriptions(workbooks: Workbooks, *names: str) -> None:
    """Empty the descriptions that contain one of these actions."""
    for row in workbooks.clips:
        if any(f"'{name}'" in row[3] for name in names):
            row[3] = "[]"


def both_sheets_are_wrong(workbooks: Workbooks) -> None:
    swap_ids(workbooks, 2, 3)
    workbooks.listed[2][0], workbooks.listed[3][0] = 3, 2


def descriptions_lack_some_labels(workbooks: Workbooks) -> None:
    """As in a tenth of the real clips. Only the actions in a description are evidence."""
    for row in workbooks.clips[2:20:3]:
        row[2] = f"{row[2]},4"
    swap_ids(workbooks, 2, 3)


def a_class_always_comes_with_another(workbooks: Workbooks) -> None:
    for row in workbooks.clips:
        if row[2] == "2":
            row[2], row[3] = "4,2", animal_actions_cell("Sensing", "Flapping its ears")
    swap_ids(workbooks, 2, 4)


def no_description_but_the_sheets_agree(workbooks: Workbooks) -> None:
    remove_descriptions(workbooks, "Yawning")


def two_classes_come_together_but_the_sheets_agree(workbooks: Workbooks) -> None:
    two_classes_that_always_come_together(workbooks)
    swap_ids(workbooks, 3, 2)


@pytest.mark.parametrize(
    "modify",
    [
        both_sheets_are_wrong,
        descriptions_lack_some_labels,
        a_class_always_comes_with_another,
        no_description_but_the_sheets_agree,
        two_classes_come_together_but_the_sheets_agree,
    ],
)
def test_conflict_is_resolved(modify: Any, tmp_path: Path) -> None:
    workbooks = make_workbooks()
    modify(workbooks)
    assert prepare(workbooks, tmp_path).classes == tuple(CLASS_NAMES)


def no_description_and_no_id(workbooks: Workbooks) -> None:
    remove_descriptions(workbooks, "Yawning")
    workbooks.listed[5][0] = None


def two_classes_that_always_come_together(workbooks: Workbooks) -> None:
    swap_ids(workbooks, 2, 3)
    for row in workbooks.clips:
        if row[2] in ("2", "3"):
            row[2], row[3] = "2,3", animal_actions_cell("Flapping its ears", "Flapping tail")


def half_of_the_clips_contradict(workbooks: Workbooks) -> None:
    """Half of the clips described with it have another id."""
    swap_ids(workbooks, 2, 3)
    for i, row in enumerate(workbooks.clips):
        if row[2] in ("2", "3"):
            row[3] = animal_actions_cell(CLASS_NAMES[2 + i % 2])


def described_in_other_classes_too(workbooks: Workbooks) -> None:
    """Three in seven of the clips described with it have another id."""
    swap_ids(workbooks, 2, 3)
    for row in workbooks.clips[16:19]:
        assert row[2] == "4"
        row[3] = animal_actions_cell("Sensing", "Flapping tail")


def described_in_another_class_only(workbooks: Workbooks) -> None:
    """Both sheets agree on a class that describes one clip only, of another class."""
    remove_descriptions(workbooks, "Yawning")
    workbooks.clips[0][3] = animal_actions_cell("Attacking", "Yawning")


def two_names_for_one_id(workbooks: Workbooks) -> None:
    """All clips described with one class have the id of another class, whose name describes no clip."""
    remove_descriptions(workbooks, "Flapping its ears")
    for row in workbooks.clips:
        if row[2] == "3":
            row[3] = animal_actions_cell("Flapping its ears")
    remove_descriptions(workbooks, "Flapping tail")
    workbooks.listed[3][0], workbooks.counted[2][1], workbooks.counted[3][1] = 3, 2, 3


@pytest.mark.parametrize(
    ("modify", "words"),
    [
        (no_description_and_no_id, ["'yawning'", "no id", "id 5"]),
        (two_classes_that_always_come_together, ["'flapping its ears'", "id 2", "id 3", "8 of the 8"]),
        (half_of_the_clips_contradict, ["'flapping", "id 2", "id 3", "2 of the 4"]),
        (described_in_other_classes_too, ["'flapping tail'", "id 3: 4 of the 7"]),
        (described_in_another_class_only, ["'yawning'", "id 5 in one sheet and id 5", "id 0: 1 of the 1"]),
        (two_names_for_one_id, ["'flapping its ears'", "'flapping tail'", "id 3"]),
    ],
)
def test_ambiguous_class_id_is_an_error(modify: Any, words: list[str], tmp_path: Path) -> None:
    workbooks = make_workbooks()
    modify(workbooks)
    text = error_text(workbooks, tmp_path)
    assert not [word for word in words if word not in text], text
