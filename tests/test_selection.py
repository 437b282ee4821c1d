"""Selection clips: a share of every label, a clip of each class left to train on, drawn once; and what check says."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import prepare_dataset
from tests.conftest import CLASSES, write_annotations
from vimoclip import annotations
from vimoclip.annotations import Annotations
from vimoclip.errors import UserError
from vimoclip.prepare import grouped_split

Labels = list[tuple[int, ...]]


def make(labels: Sequence[tuple[int, ...]], num_classes: int = 3) -> Annotations:
    train = {f"t{i:04d}.mp4": of for i, of in enumerate(labels)}
    return Annotations(tuple(f"c{i}" for i in range(num_classes)), {"train": train, "val": {"v.mp4": (0,)}})


def counts(data: Annotations, videos: Iterable[str]) -> Counter[int]:
    return Counter(label for video in videos for label in data.splits["train"][video])


def test_every_label_has_its_share() -> None:
    """Three labels of which one is rare and one stands in half of the clips with another."""
    labels: Labels = [(0, 1) if i % 2 else (0,) for i in range(300)] + [(2,)] * 20 + [()] * 100
    data = make(labels)
    drawn = grouped_split.draw(data)
    assert len(drawn) == 42
    assert counts(data, drawn) == {0: 30, 1: 15, 2: 2}
    assert sum(not data.splits["train"][video] for video in drawn) == 10
    assert list(drawn) == [video for video in data.splits["train"] if video in set(drawn)]
    assert counts(data, grouped_split.draw(data, share=0.5))[2] == 10


def test_a_seed_is_a_selection_and_another_seed_another() -> None:
    data = make([(i % 3,) for i in range(90)])
    assert grouped_split.draw(data) == grouped_split.draw(data, 0.1, 49)
    assert grouped_split.draw(data) != grouped_split.draw(data, 0.1, 50)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sets(st.integers(0, 3), max_size=3).map(tuple), max_size=25),
    st.floats(0.01, 0.99),
    st.integers(0, 2**32 - 1),
)
def test_no_class_loses_all_of_its_clips_where_it_can_be_helped(labels: Labels, share: float, seed: int) -> None:
    data = make(labels, 4)
    drawn = grouped_split.draw(data, share, seed)
    if len(labels) < 2:
        assert drawn == ()
        return
    left = [video for video in data.splits["train"] if video not in drawn]
    assert drawn
    assert left
    assert len(set(drawn)) == len(drawn)
    there = counts(data, data.splits["train"])
    lost = there.keys() - counts(data, left).keys()
    # a clip can be spared where each of its labels has another clip
    if any(all(there[label] > 1 for label in of) for of in labels):
        assert not lost
    else:
        assert len(drawn) == 1


def test_one_class_is_enough() -> None:
    assert len(grouped_split.draw(make([(0,) if i % 2 else () for i in range(40)], 1))) == 4


def test_a_tenth_is_drawn_where_every_class_is_small() -> None:
    data = make([(i % 30,) for i in range(120)], 30)
    drawn = grouped_split.draw(data)
    assert len(drawn) == 12
    assert set(counts(data, drawn).values()) == {1}


def test_a_class_with_one_training_clip_keeps_it() -> None:
    data = make([(0,) for _ in range(20)] + [(1,)])
    for seed in range(10):
        assert "t0020.mp4" not in grouped_split.draw(data, 0.5, seed)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """12 training videos, 4 of each class."""
    folder = tmp_path / "dataset" / "annotations"
    train = {f"t{i:02d}.mp4": (i % 3,) for i in range(12)}
    write_annotations(folder, {"train": train, "val": {"v.mp4": (0,)}})
    return folder


def draw(notes: Path, *flags: str) -> Path:
    return prepare_dataset.main(["selection", "--dataset-dir", str(notes.parent), *flags])


def test_the_command_draws_for_annotations_that_are_there(notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert draw(notes, "--share", "0.25") == notes / "selection.txt"
    data = annotations.load(notes, "ak")
    assert sorted(data.splits["train"][video] for video in data.selection) == [(0,), (1,), (2,)]
    assert capsys.readouterr().out.splitlines() == [
        "selection.txt: 3 of 12 training clips are kept out of training, to choose epochs and thresholds on"
    ]


def test_what_has_no_clip_among_them_is_counted_and_named(notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(notes)
    (chosen,) = annotations.load(notes, "ak").selection
    lacking = [name for i, name in enumerate(CLASSES) if i != int(chosen[1:3]) % 3]
    assert f"  2 classes have no clip among them: {', '.join(lacking)}" in capsys.readouterr().out


def test_what_has_no_clip_left_to_train_on_is_named(notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_annotations(notes, {"train": {"a.mp4": (0,), "b.mp4": (1,)}})
    draw(notes)
    said = capsys.readouterr().out
    assert "1 of 2 training clips" in said
    assert "1 classes have no clip left to train on: " in said


def test_another_selection_is_only_overwritten_where_that_is_asked(notes: Path) -> None:
    draw(notes)
    before = (notes / "selection.txt").read_bytes()
    draw(notes)  # the same
    with pytest.raises(UserError, match=r"selection.txt: is there already, with other clips; .* --overwrite"):
        draw(notes, "--share", "0.5")
    assert (notes / "selection.txt").read_bytes() == before
    draw(notes, "--share", "0.5", "--overwrite")
    assert len(annotations.load(notes, "ak").selection) == 6


def test_a_broken_selection_is_overwritten_where_that_is_asked(notes: Path) -> None:
    (notes / "selection.txt").write_text("nobody.mp4\n")
    draw(notes, "--overwrite")
    assert annotations.load(notes, "ak").selection


@pytest.mark.parametrize("train", [{}, {"a.mp4": (0,)}])
def test_fewer_than_two_training_videos_are_refused(train: dict[str, tuple[int, ...]], notes: Path) -> None:
    write_annotations(notes, {"train": train})
    with pytest.raises(UserError, match=r"train_multi.txt: names fewer than two videos"):
        draw(notes)
    assert not (notes / "selection.txt").exists()


@pytest.mark.parametrize("flags", [["--share", "0"], ["--share", "1"], ["--seed", "-1"]])
def test_a_wrong_share_or_seed_is_a_wrong_call(flags: list[str], notes: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        draw(notes, *flags)
    assert stopped.value.code == 2


def test_flags_reach_the_draw(notes: Path) -> None:
    found = set()
    for seed in range(6):
        draw(notes, "--seed", str(seed), "--overwrite")
        found.add((notes / "selection.txt").read_text())
    assert len(found) > 1
    (notes / "ak_action.csv").rename(notes / "zoo_action.csv")
    assert draw(notes, "--overwrite", "--dataset-name", "zoo")


def check(notes: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What a check says of the annotations."""
    (notes.parent / "videos").mkdir(exist_ok=True)
    with pytest.raises(UserError):  # the videos are missing
        prepare_dataset.main(["check", "--dataset-dir", str(notes.parent), "--num-workers", "0"])
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("annotations: ")]


def test_check_says_nothing_of_a_good_selection_and_good_animals(
    notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(notes)
    (notes / "animals.csv").write_text("video_id,animals,animal_classes\nt00.mp4,Lion,Mammal\nv.mp4,,\n")
    assert check(notes, capsys) == []


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("selection.txt", "t00.mp4\nv.mp4\n", "names 1 that are no training videos (v.mp4)"),
        ("selection.txt", "t00.mp4\nt00.mp4\n", "t00.mp4 stands twice"),
        (
            "animals.csv",
            "video_id,animals,animal_classes\nx.mp4,Lion,Mammal\n",
            "names 1 videos that no split names (x",
        ),
        ("animals.csv", "video_id,animals\nt00.mp4,Lion\n", "needs the header"),
    ],
)
def test_check_tells_of_a_broken_selection_and_of_strange_animals(
    file: str, text: str, words: str, notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (notes / file).write_text(text)
    (line,) = check(notes, capsys)
    assert words in line
    assert file in line
    assert not line.rstrip().endswith(";")
