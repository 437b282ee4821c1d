"""Import of a folder with a folder of videos per action."""

import json
import os
import shutil
from pathlib import Path

import pytest

import prepare_dataset
from tests.stage_driver import driver
from vimoclip import annotations
from vimoclip.annotations import Annotations
from vimoclip.errors import UserError


def create_files(root: Path, actions: dict[str, list[str]]) -> Path:
    """Create files whose content is their path; the importer reads no video."""
    for action, names in actions.items():
        (root / action).mkdir(parents=True)
        for name in names:
            (root / action / name).write_bytes(os.fsencode(f"{action}/{name}"))
    return root


def prepare(root: Path, dataset: Path, *flags: str) -> Annotations:
    report = prepare_dataset.main(["folder", str(root), "--dataset-dir", str(dataset), *flags])
    return annotations.load(report.outputs[0], "ak", ["train", "val"])


def file_states(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return (content, modification time) by path of every file."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def numbered_names(count: int, suffix: str = ".mp4") -> list[str]:
    return [f"c{i:02d}{suffix}" for i in range(count)]


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return create_files(
        tmp_path / "pets",
        {"eating": numbered_names(6), "lying down": numbered_names(9, ".MOV"), "running": numbered_names(2)},
    )


def test_killed_import_is_completed_by_the_next_one(pets: Path, tmp_path: Path) -> None:
    words = ["prepare_dataset.py", "folder", str(pets), "--dataset-dir", str(tmp_path / "dataset")]
    counted = driver().run(words, tmp_path, kill_at_change=0)
    assert counted.returncode == 0, counted
    expected = files_of_annotations(tmp_path / "dataset")
    num_changes = int(counted.stdout.splitlines()[-1].split()[0])
    for change in range(num_changes - 8, num_changes, 2):  # while the annotations are written, and after it
        shutil.rmtree(tmp_path / "dataset")
        assert driver().run(words, tmp_path, kill_at_change=change).returncode == -9
        prepare(pets, tmp_path / "dataset")
        assert files_of_annotations(tmp_path / "dataset") == expected, change


def files_of_annotations(dataset: Path) -> dict[str, bytes]:
    return {name: content for name, (content, _) in file_states(dataset / "annotations").items()}


def test_videos_are_named_after_their_action_with_the_same_bytes(pets: Path, tmp_path: Path) -> None:
    data = prepare(pets, tmp_path / "dataset")
    assert data.classes == ("eating", "lying down", "running")
    videos = {path.name: path for path in (tmp_path / "dataset" / "videos").iterdir()}
    expected = {f"{path.parent.name}__{path.name}": path for path in pets.rglob("*") if path.is_file()}
    assert videos.keys() == expected.keys()
    assert all(videos[name].read_bytes() == path.read_bytes() for name, path in expected.items())
    split = {video: labels for videos in data.splits.values() for video, labels in videos.items()}
    assert split == {name: (data.classes.index(name.split("__")[0]),) for name in expected}
    counts = {name: [list(videos.values()).count((i,)) for i in range(3)] for name, videos in data.splits.items()}
    assert counts == {"train": [4, 6, 1], "val": [2, 3, 1]}
    assert all(list(videos) == sorted(videos) for videos in data.splits.values())


def test_val_share_is_of_each_action_and_no_split_is_empty(tmp_path: Path) -> None:
    root = create_files(tmp_path / "pets", {"a": numbered_names(2), "b": numbered_names(10)})
    for share, num_val in (("0.01", [1, 1]), ("0.5", [1, 5]), ("0.7", [1, 7]), ("0.99", [1, 9])):
        data = prepare(root, tmp_path / share, "--val-share", share)
        val_counts = [sum(labels == (i,) for labels in data.splits["val"].values()) for i in range(2)]
        assert min(sum(labels == (i,) for labels in data.splits["train"].values()) for i in range(2)) >= 1, share
        assert val_counts == num_val, share


def test_split_depends_on_the_seed_only(tmp_path: Path) -> None:
    root = create_files(tmp_path / "pets", {"a": numbered_names(20), "b": numbered_names(20)})
    first, same, other = (prepare(root, tmp_path / f"d{i}", "--seed", seed) for i, seed in enumerate("778"))
    assert first == same
    assert first.splits["val"].keys() != other.splits["val"].keys()
    assert len(first.splits["val"]) == len(other.splits["val"])


def test_single_clip_is_in_train_with_a_remark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = create_files(tmp_path / "pets", {"eating": ["one.mp4"], "running": numbered_names(2)})
    data = prepare(root, tmp_path / "dataset")
    assert data.splits["train"]["eating__one.mp4"] == (0,)
    assert list(data.splits["val"].values()) == [(1,)]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].strip() for line in lines if "too few" in line] == ["eating"]


def test_invalid_characters_are_replaced_in_video_ids(tmp_path: Path) -> None:
    root = create_files(tmp_path / "pets", {"=sitting": ["v1.2.mp4"], "a.b": ["x.y.z.avi"]})
    data = prepare(root, tmp_path / "dataset")
    assert data.classes == ("=sitting", "a.b")
    assert {*data.splits["train"]} == {"-sitting__v1-2.mp4", "a-b__x-y-z.avi"}
    assert (tmp_path / "dataset" / "videos" / "-sitting__v1-2.mp4").read_text() == "=sitting/v1.2.mp4"


def test_files_that_are_no_videos_are_named_and_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = create_files(
        tmp_path / "pets", {"eating": ["a.mp4", "notes.txt", ".hidden.mp4"], ".cache": ["b.mp4"], "empty": []}
    )
    (root / "on top.mp4").write_text("not in a folder")
    report = tmp_path / "report.json"
    assert prepare(root, tmp_path / "dataset", "--report", str(report)).classes == ("eating",)
    counts = json.loads(report.read_text())
    assert (counts["done"], counts["already"], counts["unit"]) == (1, 0, "video")
    assert set(counts["skipped"]) == {str(root / "eating" / "notes.txt"), str(root / "on top.mp4")}
    assert counts["outputs"] == [str(tmp_path / "dataset" / "annotations")]
    assert [path.name for path in (tmp_path / "dataset" / "videos").iterdir()] == ["eating__a.mp4"]
    skipped = [line for line in capsys.readouterr().out.splitlines() if "skipped" in line]
    assert len(skipped) == 2 and str(root / "eating" / "notes.txt") in skipped[0]


def test_second_call_changes_nothing_and_restores_missing_videos(pets: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    first = prepare(pets, dataset)
    before = file_states(dataset)
    assert prepare(pets, dataset, "--report", str(tmp_path / "report.json")) == first
    counts = json.loads((tmp_path / "report.json").read_text())
    assert (counts["done"], counts["already"]) == (0, 17)
    after = file_states(dataset)
    assert {name: content for name, (content, _) in after.items()} == {n: content for n, (content, _) in before.items()}
    videos = [name for name in before if name.startswith("videos/")]
    assert len(videos) == 17
    assert all(before[name] == after[name] for name in videos)
    missing = dataset / "videos" / "eating__c03.mp4"
    missing.unlink()
    prepare(pets, dataset)
    assert missing.read_text() == "eating/c03.mp4"


@pytest.mark.parametrize("change", ["another clip", "another action", "another data set"])
def test_other_content_is_an_error_before_anything_is_written(change: str, pets: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    prepare(pets, dataset)
    before, root, flags = file_states(dataset), pets, []
    if change == "another clip":
        (pets / "eating" / "new.mp4").write_text("new")
    elif change == "another action":
        create_files(pets, {"zooming": ["new.mp4"]})
    else:
        root, flags = create_files(tmp_path / "others", {"zooming": ["new.mp4"]}), ["--dataset-name", "others"]
    with pytest.raises(UserError) as caught:
        prepare(root, dataset, *flags)
    assert (caught.value.path or "").startswith(str(dataset / "annotations"))
    assert file_states(dataset) == before


def test_selection_is_drawn_once_and_kept(pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = tmp_path / "dataset"
    data = prepare(pets, dataset)
    assert len(data.selection) == 1
    assert "selection.txt: 1 of 11 training clips" in capsys.readouterr().out
    path = dataset / "annotations" / "selection.txt"
    other = next(video for video in data.splits["train"] if video not in data.selection)
    path.write_text(f"{other}\n")
    assert prepare(pets, dataset, "--seed", "7").selection == (other,)
    path.unlink()  # a data set without a model-selection split
    assert prepare(pets, dataset).selection == ()
    assert not path.exists()


def test_edited_split_is_kept(pets: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    prepare(pets, dataset)
    train, val = (dataset / "annotations" / f"{split}_multi.txt" for split in ("train", "val"))
    selected = (dataset / "annotations" / "selection.txt").read_text().split("\n")
    first, *others = sorted(train.read_text().splitlines(), key=lambda line: line.rsplit(" ", 1)[0] in selected)
    train.write_text("\n".join(others) + "\n")
    val.write_text(val.read_text() + f"{first} 1\n")  # moved to the other split, with a second label
    before = file_states(dataset)
    data = prepare(pets, dataset, "--seed", "7")
    counts = "annotations/class_counts.html"  # shows the current splits
    assert before.pop(counts)[0] != (now := file_states(dataset)).pop(counts)[0]
    assert now == before
    assert len(data.splits["val"][first.split()[0]]) == 2


def test_one_video_in_two_actions_gives_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = create_files(tmp_path / "pets", {"a": numbered_names(3), "b": numbered_names(3)})
    (root / "b" / "c00.mp4").write_bytes((root / "a" / "c00.mp4").read_bytes())
    prepare(root, tmp_path / "dataset")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"warning: {root}")]
    assert f"{root}/b/c00.mp4 and {root}/a/c00.mp4" in line


@pytest.mark.parametrize("files", [None, [], ["a.mp4"], ["notes.txt"]])
def test_missing_folder_or_one_without_folders_of_videos_is_an_error(files: list[str] | None, tmp_path: Path) -> None:
    root = create_files(tmp_path, {} if files is None else {"pets": files})
    with pytest.raises(UserError) as caught:
        prepare(root / "pets", tmp_path / "dataset")
    assert caught.value.path == str(root / "pets")
    assert not (tmp_path / "dataset").exists()


@pytest.mark.parametrize(
    "actions",
    [
        {"eating": ["a.mp4", "a.avi"]},
        {"eating": ["a.b.mp4", "a-b.mp4"]},
        {"a": ["b__c.mp4"], "a__b": ["c.mp4"]},
    ],
)
def test_two_files_with_one_name_are_an_error_that_names_both(actions: dict[str, list[str]], tmp_path: Path) -> None:
    root = create_files(tmp_path / "pets", actions)
    with pytest.raises(UserError) as caught:
        prepare(root, tmp_path / "dataset")
    assert all(str(path) in str(caught.value) for path in root.rglob("*") if path.is_file())
    assert not (tmp_path / "dataset").exists()


@pytest.mark.parametrize("share", ["0", "1", "-0.2", "1.5", "nan", "half"])
def test_invalid_share_is_a_usage_error(share: str, pets: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        prepare(pets, tmp_path / "dataset", f"--val-share={share}")
    assert stopped.value.code == 2
    assert not (tmp_path / "dataset").exists()


def test_folder_name_that_starts_with_a_space_can_be_imported_twice(tmp_path: Path) -> None:
    root = create_files(tmp_path / "pets", {" eating": numbered_names(3), "running": numbered_names(3)})
    assert prepare(root, tmp_path / "dataset") == prepare(root, tmp_path / "dataset")


def test_name_of_another_video_is_an_error_before_any_is_linked(pets: Path, tmp_path: Path) -> None:
    existing = tmp_path / "dataset" / "videos" / "running__c00.mp4"
    existing.parent.mkdir(parents=True)
    existing.write_text("quite another video")
    with pytest.raises(UserError) as caught:
        prepare(pets, tmp_path / "dataset")
    assert caught.value.path == str(existing)
    assert [path.name for path in existing.parent.iterdir()] == [existing.name]
    existing.unlink()
    prepare(pets, tmp_path / "dataset")
    (pets / "eating" / "c01.mp4").unlink()  # a hard link: writing to it would change the data set
    (pets / "eating" / "c01.mp4").write_text("quite another video")
    with pytest.raises(UserError) as caught:
        prepare(pets, tmp_path / "dataset")
    assert caught.value.path == str(tmp_path / "dataset" / "videos" / "eating__c01.mp4")
    assert (tmp_path / "dataset" / "videos" / "eating__c01.mp4").read_text() == "eating/c01.mp4"


def test_group_by_pattern_keeps_sources_in_one_split(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    for action in ("eating", "running"):
        (root / action).mkdir(parents=True)
        for i in range(8):
            (root / action / f"cow{i // 2}_{i}.mp4").write_text(f"{action} {i}")
    flags = ["--group-by", "/([^_]+)_", "--test-share", "0.25", "--val-share", "0.25"]
    data = prepare(root, tmp_path / "dataset", *flags)
    sources_by_split = [
        {name.partition("__")[2].partition("_")[0] for name in videos} for videos in data.splits.values()
    ]
    assert list(data.splits) == ["train", "val", "test"]
    assert [len(split_sources) for split_sources in sources_by_split] == [2, 1, 1]
    assert len(set.union(*sources_by_split)) == 4


def test_videos_in_folders_below_an_action_are_found_and_named_after_the_folders(tmp_path: Path) -> None:
    folders = {
        "walk": ["a.mp4"],
        "walk/cam2": ["a.mp4", "b.mp4"],
        "eat/site 1/day2": ["a.mp4"],
        "eat/__MACOSX": ["b.mp4"],
    }
    root = create_files(tmp_path / "pets", folders)
    (root / "walk" / "cam2" / "back to the top").symlink_to(root)
    data = prepare(root, tmp_path / "dataset", "--group-by", "cam|site")
    assert data.classes == ("eat", "walk")
    split = {video: labels for videos in data.splits.values() for video, labels in videos.items()}
    assert split == {
        "eat__site 1__day2__a.mp4": (0,),
        "walk__a.mp4": (1,),
        "walk__cam2__a.mp4": (1,),
        "walk__cam2__b.mp4": (1,),
    }
    assert (tmp_path / "dataset" / "videos" / "walk__cam2__a.mp4").read_text() == "walk/cam2/a.mp4"


@pytest.mark.parametrize("dataset", ["dataset", "."])
def test_data_set_below_the_imported_folder_is_not_imported_again(tmp_path: Path, dataset: str) -> None:
    root = create_files(tmp_path / "pets", {"eating": numbered_names(4), "running": numbered_names(4)})
    first = prepare(root, root / dataset)
    assert first.classes == ("eating", "running")
    assert prepare(root, root / dataset) == first


def test_broken_links_are_left_out(pets: Path, tmp_path: Path) -> None:
    (pets / "eating" / "broken.mp4").symlink_to(tmp_path / "gone.mp4")
    (pets / "eating" / "loop.mp4").symlink_to("loop.mp4")
    flags = ["--dataset-dir", str(tmp_path / "dataset"), "--report", str(tmp_path / "report.json")]
    for _ in range(2):
        report = prepare_dataset.main(["folder", str(pets), *flags])
        assert set(report.skipped) == {str(pets / "eating" / name) for name in ("broken.mp4", "loop.mp4")}


def test_action_folders_in_other_spellings_are_one_action(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nfc, nfd = "G\u00e4hnen", "Ga\u0308hnen"
    root = create_files(tmp_path / "a", {nfc: ["a.mp4"], nfd: ["b.mp4", "Ba\u0308r.mp4"]})
    data = prepare(root, tmp_path / "dataset")
    names = {video for videos in data.splits.values() for video in videos}
    assert (data.classes, names) == ((nfc,), {f"{nfc}__{stem}.mp4" for stem in ("a", "b", "B\u00e4r")})
    assert {path.name for path in (tmp_path / "dataset" / "videos").iterdir()} == names
    assert "warning" not in capsys.readouterr().out
    root = create_files(tmp_path / "b", {"Walk": ["a.mp4"], "walk ": ["b.mp4"], "rest": ["c.mp4"]})
    assert prepare(root, tmp_path / "dataset2").classes == ("Walk", "rest")
    assert "warning" in capsys.readouterr().out


def test_names_that_windows_refuses_are_replaced(tmp_path: Path) -> None:
    root = create_files(tmp_path / "pets", {"who?": ['10:30 <a>|"*.mp4'], "NUL": ["con.mp4"]})
    data = prepare(root, tmp_path / "dataset")
    assert {video for videos in data.splits.values() for video in videos} == {
        "who-__10-30 -a----.mp4",
        "NUL__con.mp4",
    }


def test_names_that_are_too_long_or_not_utf8_are_skipped(tmp_path: Path) -> None:
    root = create_files(tmp_path / "pets", {"eating": ["a.mp4", "b.mp4", "x" * 248 + ".mp4", "B\udce4r.mp4"]})
    command = ["folder", str(root), "--dataset-dir", str(tmp_path / "dataset")]
    report = prepare_dataset.main([*command, "--report", str(tmp_path / "report.json")])
    assert (report.done, len(report.skipped)) == (2, 2)
    assert len(json.loads((tmp_path / "report.json").read_text())["skipped"]) == 2
