"""A folder of videos per action becomes a data set, and annotations are read back as they were written."""

import string
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import prepare_dataset
from vimoclip import annotations
from vimoclip.annotations import Annotations
from vimoclip.errors import UserError


def fill(root: Path, actions: dict[str, list[str]]) -> Path:
    """Files whose content is their own path: nothing here reads a video."""
    for action, names in actions.items():
        (root / action).mkdir(parents=True)
        for name in names:
            (root / action / name).write_text(f"{action}/{name}")
    return root


def prepare(root: Path, dataset: Path, *flags: str) -> Annotations:
    notes = prepare_dataset.main(["folder", str(root), "--dataset-dir", str(dataset), *flags])
    return annotations.load(notes, "ak", ["train", "val"])


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Path -> content and time of the last change of every file, also of hidden ones."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def numbered(count: int, suffix: str = ".mp4") -> list[str]:
    return [f"c{i:02d}{suffix}" for i in range(count)]


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return fill(tmp_path / "pets", {"eating": numbered(6), "lying down": numbered(9, ".MOV"), "running": numbered(2)})


def test_videos_are_named_after_their_action_and_are_the_same_bytes(pets: Path, tmp_path: Path) -> None:
    data = prepare(pets, tmp_path / "dataset")
    assert data.classes == ("eating", "lying down", "running")
    videos = {path.name: path for path in (tmp_path / "dataset" / "videos").iterdir()}
    expected = {f"{path.parent.name}__{path.name}": path for path in pets.rglob("*") if path.is_file()}
    assert videos.keys() == expected.keys()
    assert all(videos[name].read_bytes() == path.read_bytes() for name, path in expected.items())
    split = {video: labels for videos in data.splits.values() for video, labels in videos.items()}
    assert split == {name: (data.classes.index(name.split("__")[0]),) for name in expected}


def test_a_third_of_each_action_is_to_validate_with_and_none_is_in_both(pets: Path, tmp_path: Path) -> None:
    data = prepare(pets, tmp_path / "dataset")
    counts = {split: [0, 0, 0] for split in data.splits}
    for split, videos in data.splits.items():
        for (label,) in videos.values():
            counts[split][label] += 1
        assert list(videos) == sorted(videos)
    assert counts == {"train": [4, 6, 1], "val": [2, 3, 1]}
    assert not data.splits["train"].keys() & data.splits["val"].keys()


def test_the_share_is_of_each_action_and_leaves_both_splits_something(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets", {"a": numbered(2), "b": numbered(10)})
    for share, held in (("0.01", [1, 1]), ("0.5", [1, 5]), ("0.7", [1, 7])):
        data = prepare(root, tmp_path / share, "--val-share", share)
        found = [sum(labels == (i,) for labels in data.splits["val"].values()) for i in range(2)]
        assert min(sum(labels == (i,) for labels in data.splits["train"].values()) for i in range(2)) >= 1, share
        assert found == held, share


@pytest.mark.parametrize("share", ["0.8", "0.99"])
def test_two_clips_are_enough_to_be_in_both_splits_whatever_the_share(share: str, tmp_path: Path) -> None:
    data = prepare(fill(tmp_path / "pets", {"a": numbered(2)}), tmp_path / "dataset", "--val-share", share)
    assert [len(videos) for videos in data.splits.values()] == [1, 1]


def test_a_seed_is_a_split_and_another_seed_another(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets", {"a": numbered(20), "b": numbered(20)})
    first, same, other = (prepare(root, tmp_path / f"d{i}", "--seed", seed) for i, seed in enumerate("778"))
    assert first == same
    assert first.splits["val"].keys() != other.splits["val"].keys()
    assert len(first.splits["val"]) == len(other.splits["val"])


def test_a_single_clip_is_only_trained_on_and_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = fill(tmp_path / "pets", {"eating": ["one.mp4"], "running": numbered(2)})
    data = prepare(root, tmp_path / "dataset")
    assert data.splits["train"]["eating__one.mp4"] == (0,)
    assert list(data.splits["val"].values()) == [(1,)]
    said = capsys.readouterr().out.splitlines()
    (line,) = [line for line in said if "eating:" in line]
    assert "1 to train on, 0 to validate with" in line
    assert "too few clips to be in both" in line
    assert not [line for line in said if "running:" in line and "too few" in line]


def test_dots_and_first_letters_that_no_file_of_the_chain_takes_are_cleaned(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets", {"=sitting": ["v1.2.mp4"], "a.b": ["x.y.z.avi"]})
    data = prepare(root, tmp_path / "dataset")
    assert data.classes == ("=sitting", "a.b")
    assert {*data.splits["train"]} == {"-sitting__v1-2.mp4", "a-b__x-y-z.avi"}
    assert (tmp_path / "dataset" / "videos" / "-sitting__v1-2.mp4").read_text() == "=sitting/v1.2.mp4"


def test_what_is_no_video_is_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = fill(tmp_path / "pets", {"eating": ["a.mp4", "notes.txt", ".hidden.mp4"], ".cache": ["b.mp4"], "empty": []})
    (root / "on top.mp4").write_text("not in a folder")
    assert prepare(root, tmp_path / "dataset").classes == ("eating",)
    assert [path.name for path in (tmp_path / "dataset" / "videos").iterdir()] == ["eating__a.mp4"]
    left_out = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert len(left_out) == 1
    assert str(root / "eating" / "notes.txt") in left_out[0]


def test_a_second_call_changes_no_content_and_says_so(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = tmp_path / "dataset"
    first = prepare(pets, dataset)
    before = state(dataset)
    assert "is there already" not in capsys.readouterr().out
    assert prepare(pets, dataset) == first
    assert f"{dataset / 'annotations'}: is there already" in capsys.readouterr().out
    after = state(dataset)
    assert {name: content for name, (content, _) in after.items()} == {n: content for n, (content, _) in before.items()}
    videos = [name for name in before if name.startswith("videos/")]
    assert len(videos) == 17
    assert all(before[name] == after[name] for name in videos)


def test_a_video_that_was_lost_is_put_back_by_the_same_call(pets: Path, tmp_path: Path) -> None:
    prepare(pets, tmp_path / "dataset")
    lost = tmp_path / "dataset" / "videos" / "eating__c03.mp4"
    lost.unlink()
    prepare(pets, tmp_path / "dataset")
    assert lost.read_text() == "eating/c03.mp4"


@pytest.mark.parametrize("change", ["another clip", "another action"])
def test_other_content_over_the_same_folder_is_refused_before_anything_is_written(
    change: str, pets: Path, tmp_path: Path
) -> None:
    dataset = tmp_path / "dataset"
    prepare(pets, dataset)
    before = state(dataset)
    if change == "another clip":
        (pets / "eating" / "new.mp4").write_text("new")
    else:
        fill(pets, {"zooming": ["new.mp4"]})
    with pytest.raises(UserError, match=r"holds other clips or actions \(.*new.mp4") as caught:
        prepare(pets, dataset)
    assert str(dataset / "annotations") in str(caught.value)
    assert state(dataset) == before


def test_a_folder_has_selection_clips_and_keeps_those_that_are_there(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = tmp_path / "dataset"
    data = prepare(pets, dataset)
    assert len(data.selection) == 1
    assert "selection.txt: 1 of 11 training clips are kept out of training" in capsys.readouterr().out
    path = dataset / "annotations" / "selection.txt"
    other = next(video for video in data.splits["train"] if video not in data.selection)
    path.write_text(f"{other}\n")
    assert prepare(pets, dataset, "--seed", "7").selection == (other,)
    path.unlink()  # as in a data set that was made before there were any
    assert prepare(pets, dataset).selection == ()
    assert not path.exists()


def test_a_split_that_its_user_edited_stays(pets: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    prepare(pets, dataset)
    train, val = (dataset / "annotations" / f"{split}_multi.txt" for split in ("train", "val"))
    chosen = (dataset / "annotations" / "selection.txt").read_text().split("\n")
    first, *others = sorted(train.read_text().splitlines(), key=lambda line: line.rsplit(" ", 1)[0] in chosen)
    train.write_text("\n".join(others) + "\n")
    val.write_text(val.read_text() + f"{first} 1\n")  # to the other side, with a second label
    before = state(dataset)
    data = prepare(pets, dataset, "--seed", "7")
    counts = "annotations/class_counts.html"  # is of the splits as they are now
    assert before.pop(counts)[0] != (now := state(dataset)).pop(counts)[0]
    assert now == before
    assert len(data.splits["val"][first.split()[0]]) == 2


def test_one_video_in_two_actions_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = fill(tmp_path / "pets", {"a": numbered(3), "b": numbered(3)})
    (root / "b" / "c00.mp4").write_bytes((root / "a" / "c00.mp4").read_bytes())
    prepare(root, tmp_path / "dataset")
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert said == [
        f"warning: {root}/b/c00.mp4 and {root}/a/c00.mp4 are the same video; keep one, and give its line both labels"
    ]


def test_another_video_under_the_same_name_is_refused_by_name(pets: Path, tmp_path: Path) -> None:
    prepare(pets, tmp_path / "dataset")
    (pets / "eating" / "c01.mp4").unlink()  # a link: writing to it would write to the data set
    (pets / "eating" / "c01.mp4").write_text("quite another video")
    with pytest.raises(UserError, match=r"videos/eating__c01.mp4: is another video than"):
        prepare(pets, tmp_path / "dataset")
    assert (tmp_path / "dataset" / "videos" / "eating__c01.mp4").read_text() == "eating/c01.mp4"


@pytest.mark.parametrize("files", [[], ["a.mp4"], ["notes.txt"]])
def test_a_folder_without_folders_of_videos_is_refused(files: list[str], tmp_path: Path) -> None:
    root = fill(tmp_path, {"pets": files})
    with pytest.raises(UserError, match=r"holds no folders with videos; lay them out as .*/<action>/<name>.mp4"):
        prepare(root / "pets", tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: there is no such folder"):
        prepare(tmp_path / "nowhere", tmp_path / "dataset")


@pytest.mark.parametrize(
    "actions",
    [
        {"eating": ["a.mp4", "a.avi"]},
        {"eating": ["a.b.mp4", "a-b.mp4"]},
        {"a": ["b__c.mp4"], "a__b": ["c.mp4"]},
    ],
)
def test_two_files_that_would_share_a_name_are_refused_with_both(actions: dict[str, list[str]], tmp_path: Path) -> None:
    root = fill(tmp_path / "pets", actions)
    with pytest.raises(UserError, match=r"would share the name .*; rename one of them") as caught:
        prepare(root, tmp_path / "dataset")
    assert all(str(path) in str(caught.value) for path in root.rglob("*") if path.is_file())
    assert not (tmp_path / "dataset").exists()


@pytest.mark.parametrize("share", ["0", "1", "-0.2", "1.5", "nan", "half"])
def test_a_share_that_is_none_is_a_wrong_call(
    share: str, pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        prepare(pets, tmp_path / "dataset", f"--val-share={share}")
    assert stopped.value.code == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert "--val-share" in error[0]
    assert not (tmp_path / "dataset").exists()


WORDS = string.ascii_letters + string.digits + " ,;'\"()_-éß獅"
stems = st.text(WORDS, min_size=1, max_size=12).filter(lambda name: name == name.strip())
class_names = st.lists(stems, min_size=1, max_size=5, unique=True).map(tuple)


@st.composite
def data_sets(draw: st.DrawFn) -> Annotations:
    classes = draw(class_names)
    videos = [f"{name}.mp4" for name in draw(st.lists(stems, max_size=8, unique=True))]
    labels = st.lists(st.integers(0, len(classes) - 1), max_size=3, unique=True).map(tuple)
    splits: dict[str, dict[str, tuple[int, ...]]] = {"train": {}, "val": {}, "test": {}}
    for video in videos:
        splits[draw(st.sampled_from(list(splits)))][video] = draw(labels)
    columns = draw(st.sets(st.sampled_from(annotations.PARTITIONS)))
    segment = st.sampled_from(annotations.SEGMENTS)
    segments = st.lists(segment, min_size=len(classes), max_size=len(classes)).map(tuple)
    partitions = {column: draw(segments) for column in annotations.PARTITIONS if column in columns}
    train = list(splits["train"])
    selection = tuple(draw(st.lists(st.sampled_from(train), unique=True))) if train else ()
    return Annotations(classes, splits, partitions, selection)


@settings(max_examples=150, deadline=None)
@given(data_sets())
def test_annotations_are_read_back_as_they_were_written(data: Annotations) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "selection.txt").write_text("of another data set.mp4")
        annotations.write(Path(folder), "x", data)
        assert annotations.load(Path(folder), "x") == data
        expected = {"x_action.csv", "train_multi.txt", "val_multi.txt", "test_multi.txt"}
        assert {path.name for path in Path(folder).iterdir()} == expected | (
            {"selection.txt"} if data.selection else set()
        )


@pytest.mark.parametrize(
    "splits",
    [
        {"train": {"a.mp4": (0,), "b.c.mp4": (0,)}},
        {"train": {"a": (0,)}},
        {"train": {"=a.mp4": (0,)}},
        {"train": {"a\n.mp4": (0,)}},
        {"train": {"a/b.mp4": (0,)}},
        {"train": {"a.mp4": (0,)}, "val": {"a.mp4": (0,)}},
        {"train": {"a.mp4": (0,), "a.avi": (0,)}},
    ],
)
def test_what_would_not_be_read_is_not_written(splits: dict[str, dict[str, tuple[int, ...]]], tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        annotations.write(tmp_path / "notes", "x", Annotations(("eating",), splits))
    assert str(tmp_path / "notes") in str(caught.value)
    assert not (tmp_path / "notes").exists()


@pytest.mark.parametrize(
    ("classes", "videos"),
    [
        (("eating", "eating"), {"a.mp4": (0,)}),
        (("eating", ""), {"a.mp4": (0,)}),
        ((" eating",), {"a.mp4": (0,)}),
        (("eating\nup",), {"a.mp4": (0,)}),
        (("eating",), {"a.mp4": (1,)}),
        (("eating",), {" a.mp4": (0,)}),
        (("eating",), {"a.mp4 0": ()}),
    ],
    ids=["two alike", "no name", "a space first", "a line break", "a label out of range", "a spaced video", "a number"],
)
def test_what_would_be_read_otherwise_is_not_written(
    classes: tuple[str, ...], videos: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    with pytest.raises(UserError):
        annotations.write(tmp_path / "notes", "x", Annotations(classes, {"train": videos}))
    assert not (tmp_path / "notes").exists()


def test_a_folder_whose_name_starts_with_a_space_can_be_prepared_twice(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets", {" eating": numbered(3), "running": numbered(3)})
    assert prepare(root, tmp_path / "dataset") == prepare(root, tmp_path / "dataset")


def test_another_data_set_in_the_same_folder_is_refused(pets: Path, tmp_path: Path) -> None:
    prepare(pets, tmp_path / "dataset")
    before = state(tmp_path / "dataset")
    others = fill(tmp_path / "others", {"sleeping": numbered(3)})
    with pytest.raises(UserError):
        prepare_dataset.main(
            ["folder", str(others), "--dataset-dir", str(tmp_path / "dataset"), "--dataset-name", "others"]
        )
    assert state(tmp_path / "dataset") == before


def test_a_name_that_another_video_has_is_refused_before_any_is_placed(pets: Path, tmp_path: Path) -> None:
    taken = tmp_path / "dataset" / "videos" / "running__c00.mp4"
    taken.parent.mkdir(parents=True)
    taken.write_text("quite another video")
    with pytest.raises(UserError, match="is another video than"):
        prepare(pets, tmp_path / "dataset")
    assert [path.name for path in taken.parent.iterdir()] == [taken.name]
