"""Animal Kingdom's splits by animals and by source, of workbooks whose splits are known."""

import contextlib
import io
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import prepare_dataset
from tests.conftest import SHARED
from tests.prepare.workbooks import SHEET_HEADERS, Workbooks, animal_actions_cell, make_workbooks
from vimoclip import annotations, cli
from vimoclip.annotations import SPLITS
from vimoclip.errors import UserError
from vimoclip.prepare import grouped_split

RELEASE_DIR = SHARED / "animal_kingdom"
CLASSES = ("Walking", "Keeping still", "Sensing", "Swimming", "Attending", "Eating", "Moving")
SIX = ("Moving", "Eating", "Attending", "Swimming", "Sensing", "Keeping still")
LIZARDS = "Lizard / Gecko / Draco / Iguana / Chamelon"
ANIMALS = [
    *(["Robin", "Bird"], ["Common Quail Bird", "Bird"], ["Common Cuckoo Bird", "Bird"], ["Crane Fly", "Insect"]),
    *(["Carp", "Fish"], ["Green  gecko", "Reptile", LIZARDS], ["Duck", "Bird", "Water bird / Duck / Swan / Goose"]),
    *(["Deer", "Mammal"], ["Ghost", "Mammal", ""], ["Crane Bird", "Insect", "Bird"]),
]
# clip, type, labels, animals and actions; then its split and its class, or None
ROWS = [
    ("BIRDAAA", "train", "6", [("Robin", "Moving")], "train", "Moving"),
    ("BIRDTST", "test", "5", [("Robin", "Eating")], "train", "Eating"),  # the sheet's type does not matter
    ("FISHAAA", "train", "3", [("Carp", "Swimming"), ("Robin", "Swimming")], "train", "Swimming"),
    ("QUAIBBB", "train", "2", [("Common Quail", "Sensing")], "train", "Sensing"),
    ("CUCKOOB", "train", "1", [("Cuckoo Bird", "Keeping still")], "train", "Keeping still"),
    ("GECKBBB", "train", "4", [("Green Gecko", "attending")], "val", "Attending"),
    ("DUCKCCC", "test", "3", [("Duck", "Swimming")], "val", "Swimming"),
    ("TWICECC", "train", "6", ["[('Duck', 'Moving')]"], "val", "Moving"),
    ("TWICEDD", "train", "6", ["[('Deer', 'Moving')]", "[('Robin', 'Moving')]"], "train", "Moving"),
    ("SECOND1", "train", "2", [("Deer", "Sensing"), ("Duck", "Sensing")], "val", "Sensing"),
    ("EXTRA01", "train", "2", [("Robin", "Sensing"), ("Deer", "Sensing")], "train", "Sensing"),
    ("BOTH001", "train", "5", [("Duck", "Eating"), ("Carp", "Eating")], None, None),
    ("WORDS01", "train", "5", [("Robin", "Walking")], "train", "Eating"),  # the label decides
    ("WORDS02", "train", "0", [("Robin", "Eating")], None, None),
    ("TWOLABE", "train", "6,5", [("Robin", "Moving"), ("Robin", "Eating")], None, None),
    ("WALKING", "train", "0", [("Robin", "Walking")], None, None),
    ("NEITHER", "train", "6", [("Deer", "Moving")], None, None),
    ("CRANES1", "train", "6", [("Crane", "Moving")], None, None),  # which is no insect
    ("GHOST01", "train", "6", [("Ghost", "Moving")], None, None),
    ("EMPTY01", "train", "6", [], None, None),
]


def unseen_workbooks() -> Workbooks:
    workbooks = Workbooks(animals=[list(row) for row in ANIMALS])
    workbooks.clips = [[name, kind, labels, repr(pairs)] for name, kind, labels, pairs, *_ in ROWS]
    for label, name in enumerate(CLASSES):
        # enough clips that the few wrong descriptions do not matter
        cell = animal_actions_cell(name, animal="Deer")
        workbooks.clips += [[f"K{label}{i:03}", "train", str(label), cell] for i in range(20)]
        workbooks.listed.append([label, name])
        workbooks.counted.append([name, label, "tail", 0])
    return workbooks


def run(
    workbooks: Workbooks, folder: Path, protocol: str, *flags: str
) -> tuple[annotations.Annotations, cli.RunReport]:
    report = prepare_dataset.main(
        ["animal-kingdom", *workbooks.write(folder), "--protocol", protocol, "--dataset-dir", str(folder), *flags]
    )
    return annotations.load(folder / "annotations", "ak", ["train", "val"]), report


def test_unseen_animals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, report = run(unseen_workbooks(), tmp_path, "unseen-animals")
    assert data.classes == SIX and not data.partitions
    expected = {split: {f"{n}.mp4": (SIX.index(c),) for n, *_, s, c in ROWS if s == split and c} for split in SPLITS}
    assert data.splits == {split: expected[split] for split in ("train", "val")}
    assert set(data.selection) < set(data.splits["train"])
    animals = annotations.read_animals(tmp_path / "annotations")
    assert animals.keys() == expected["train"].keys() | expected["val"].keys()
    assert animals["QUAIBBB.mp4"] == (("Common Quail Bird",), ("Bird",))
    assert animals["TWICEDD.mp4"] == (("Deer", "Robin"), ("Mammal", "Bird"))
    sources = annotations.read_sources(tmp_path / "annotations")
    assert sources.keys() == animals.keys()
    assert sources["GECKBBB.mp4"] == sources["QUAIBBB.mp4"] == f"{annotations.INFERRED_SOURCE}BBB"
    assert list(report.skipped) == ["BOTH001.mp4"] and report.done == 12
    lines = capsys.readouterr().out.splitlines()
    text = "\n".join(lines)
    for words in (
        "Common Quail of the sheet AR (in 1 clips) is matched with Common Quail Bird",
        "Cuckoo Bird of the sheet AR (in 1 clips) is matched with Common Cuckoo Bird",
        "2 animals have no sub-class in the sheet Animal, or are not in it: Crane (in 1 clips), Ghost (in 1 clips)",
        "quoted twice, which are read like the others: 2, 2 of them with one label",
        "train: Bird: 8 clips",
        "train: Fish: 1 clips",
        f"val: {LIZARDS}: 1 clips",
        "1 sources are in train and in val, with 1 clips of val (inferred from name: BBB)",
        "BOTH001.mp4",
        "(WORDS01.mp4, EMPTY01.mp4)",
    ):
        assert words in text
    # the sums start with the clips that ActionDiff's loader reads without the rows that are quoted twice
    assert "give 7 clips of train and 3 clips of val without" in text and "7 and 4 with them" in text
    for split, theirs in (("train", 7), ("val", 3)):
        numbers = numbers_of_sum(text, split)
        assert numbers[0] == theirs and sum(numbers[:-1]) == numbers[-1] == len(data.splits[split])


def numbers_of_sum(text: str, split: str) -> list[int]:
    """Return the terms of a line such as `train: 7 + 1 (reason) - 2 (reason) = 6`, with their signs, and the total."""
    (line,) = re.findall(rf"^  {split}: (\d+ .*=.*)$", text, flags=re.M)
    return [int(sign + number) for sign, number in re.findall(r"([-+]?) ?\b(\d+)\b", line)]


def add_sub_class(workbooks: Workbooks) -> None:
    workbooks.animals.append(["robin", "Bird", "Penguin"])


def without_action(workbooks: Workbooks) -> None:
    workbooks.listed[5][1] = workbooks.counted[5][0] = "Feasting"


def without_reported_animals(workbooks: Workbooks) -> None:
    for row in workbooks.animals:
        del row[2:]


@pytest.mark.parametrize(
    ("modify", "words"),
    [
        (add_sub_class, ["Animal, row 12", "robin", "Sub-Class"]),
        (without_action, ["Eating"]),
        (without_reported_animals, [LIZARDS]),
    ],
)
def test_invalid_sheets_of_unseen_animals(modify: Any, words: list[str], tmp_path: Path) -> None:
    workbooks = unseen_workbooks()
    modify(workbooks)
    with pytest.raises(UserError) as caught:
        run(workbooks, tmp_path, "unseen-animals")
    assert all(word in str(caught.value) for word in words)
    assert caught.value.path == str(tmp_path / "AR_metadata.xlsx") and not (tmp_path / "annotations").exists()


def test_only_unseen_animals_needs_sub_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHEET_HEADERS, "Animal", ("Animal", "Parent Class", "Class", "other", "Young", "Generic name"))
    with pytest.raises(UserError, match="Sub-Class"):
        run(unseen_workbooks(), tmp_path, "unseen-animals")
    assert run(unseen_workbooks(), tmp_path, "published", "--species")[1].outputs == [tmp_path / "annotations"]


def source_workbooks(sources: int = 12) -> Workbooks:
    """Return clips of sources of 5 to 16 clips, each with clips in both published splits; a class has one source."""
    workbooks = make_workbooks(each=0)
    workbooks.clips = []
    for source in range(sources):
        for i in range(5 + source):
            label = 5 if source == 3 and i < 2 else (source + i) % 5
            kind = "test" if i % 4 == 0 else "train"
            name = workbooks.listed[label][1]
            workbooks.clips.append([f"C{i:02}S{source:02}", kind, str(label), animal_actions_cell(name)])
    return workbooks


def source_of(video: str) -> str:
    return video[3:6]


def test_by_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workbooks = source_workbooks()
    data, report = run(workbooks, tmp_path, "by-source")
    videos = [f"{row[0]}.mp4" for row in workbooks.clips]
    train, val = data.splits["train"], data.splits["val"]
    assert len(val) == sum(row[1] == "test" for row in workbooks.clips)
    assert [v for v in videos if v in train] == list(train) and [v for v in videos if v in val] == list(val)
    assert len(train) + len(val) == len(videos) == report.done
    assert {**train, **val} == {f"{name}.mp4": (int(label),) for name, _, label, _ in workbooks.clips}
    sides = [set(map(source_of, split)) for split in (train, val)]
    assert sides[0].isdisjoint(sides[1])
    selected = set(map(source_of, data.selection))
    assert selected and {v for v in train if source_of(v) in selected} == set(data.selection)
    assert {label for labels in val.values() for label in labels} == {0, 1, 2, 3, 4}  # 5 has one source
    sources = annotations.read_sources(tmp_path / "annotations")
    assert sources == {video: annotations.INFERRED_SOURCE + source_of(video) for video in videos}
    output = capsys.readouterr().out
    assert "inferred from the last 3 letters" in output and "warning: " not in output.replace("warning: 1 classes", "")
    before = {path.name: path.read_bytes() for path in (tmp_path / "annotations").iterdir()}
    run(workbooks, tmp_path, "by-source")
    assert {path.name: path.read_bytes() for path in (tmp_path / "annotations").iterdir()} == before
    with pytest.raises(UserError, match="other classes, clips or labels"):
        run(workbooks, tmp_path, "published")


def test_by_source_draws_again_for_the_published_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workbooks = source_workbooks(6)
    data, _ = run(workbooks, tmp_path, "by-source")
    labels = {f"{name}.mp4": (int(label),) for name, _, label, _ in workbooks.clips}
    sources = {video: source_of(video) for video in labels}
    size = sum(row[1] == "test" for row in workbooks.clips)
    first = grouped_split.split_videos(data.classes, labels, {"val": size / len(labels)}, 49, sources)
    assert len(first.splits["val"]) != size == len(data.splits["val"])
    assert "seed 49" not in capsys.readouterr().out


def test_by_source_names_a_difference_of_the_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workbooks = source_workbooks(3)
    for number, row in enumerate(workbooks.clips):
        row[1] = "test" if number < 3 else "train"
    data, _ = run(workbooks, tmp_path, "by-source")
    assert len(data.splits["val"]) == 5  # the smallest source
    assert "2 more than in the published split" in capsys.readouterr().out


def all_of_one_source(workbooks: Workbooks) -> None:
    for number, row in enumerate(workbooks.clips):
        row[0] = f"C{number:03}SSS"


def all_train(workbooks: Workbooks) -> None:
    for row in workbooks.clips:
        row[1] = "train"


@pytest.mark.parametrize(("modify", "words"), [(all_of_one_source, "one source"), (all_train, "test")])
def test_what_by_source_refuses(modify: Any, words: str, tmp_path: Path) -> None:
    workbooks = source_workbooks()
    modify(workbooks)
    with pytest.raises(UserError, match=words):
        run(workbooks, tmp_path, "by-source")
    assert not (tmp_path / "annotations").exists()


def test_sources_written_by_hand_are_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "annotations" / "sources.csv"
    path.parent.mkdir()
    path.write_text("video_id,source\nC00S00.mp4,zoo\n")
    with pytest.raises(UserError) as caught:
        run(source_workbooks(), tmp_path, "by-source")
    assert caught.value.path == str(path) and "zoo" in path.read_text()
    assert not (tmp_path / "annotations" / "ak_action.csv").exists()


# --- the released workbooks, if they are present


def run_release(folder: Path, protocol: str) -> tuple[annotations.Annotations, str]:
    if not RELEASE_DIR.is_dir():
        pytest.skip(f"{RELEASE_DIR} is missing")
    command = ["animal-kingdom", "--protocol", protocol, "--output-dir", str(folder)]
    command += ["--metadata", str(RELEASE_DIR / "AR_metadata.xlsx"), "--actions", str(RELEASE_DIR / "df_action.xlsx")]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        prepare_dataset.main(command)
    return annotations.load(folder, "ak", ["train", "val"]), output.getvalue()


def test_unseen_animals_of_the_release(tmp_path: Path) -> None:
    data, text = run_release(tmp_path, "unseen-animals")
    assert [len(videos) for videos in data.splits.values()] == [4760, 1040]
    counts = [Counter(labels[0] for labels in videos.values()) for videos in data.splits.values()]
    assert [[of[i] for i in range(6)] for of in counts] == [
        [621, 491, 459, 406, 1303, 1480],
        [189, 119, 117, 96, 188, 331],
    ]
    assert numbers_of_sum(text, "train") == [4527, 183, 51, -1, 4760]
    assert numbers_of_sum(text, "val") == [1028, 11, 5, -4, 1040]
    assert "34 sources are in train and in val, with 388 clips of val" in text
    sources = annotations.read_sources(tmp_path)
    selected = {sources[video] for video in data.selection}
    assert len(data.selection) == 476
    assert {video for video in data.splits["train"] if sources[video] in selected} == set(data.selection)


def test_by_source_of_the_release(tmp_path: Path) -> None:
    data, text = run_release(tmp_path, "by-source")
    assert [len(videos) for videos in data.splits.values()] == [24004, 6096]
    sources = annotations.read_sources(tmp_path)
    found = [{sources[video] for video in videos} for videos in data.splits.values()]
    assert [len(names) for names in found] == [264, 72] and found[0].isdisjoint(found[1])
    selected = {sources[video] for video in data.selection}
    assert {video for video in data.splits["train"] if sources[video] in selected} == set(data.selection)
    labels = [{label for labels in videos.values() for label in labels} for videos in data.splits.values()]
    assert [140 - len(names) for names in labels] == [0, 17]
    assert "without a clip in val: 17, in the published split 13; 17 classes" in text
