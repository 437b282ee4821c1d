"""Folds of a cross-validation as val splits: disjoint, together all clips, and as even as whole sources allow."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import prepare_dataset
from tests.boris import boris_program
from tests.boris.test_reader import BEHAVIORS
from tests.conftest import indexed_frames, write_video
from tests.prepare.test_boris import run_prepare
from tests.prepare.test_folder import create_files, numbered_names
from tests.prepare.test_grouped_split import CLASSES, labels_and_sources
from vimoclip import annotations
from vimoclip.annotations import Annotations
from vimoclip.annotations.split_checks import find_leaks
from vimoclip.errors import UserError
from vimoclip.prepare.grouped_split import Fold, draw_folds, split_videos


@settings(max_examples=30, deadline=None)
@given(labels_and_sources(), st.integers(0, 3), st.integers(2, 6))
def test_folds_are_disjoint_and_together_all_videos(
    drawn_data: tuple[dict[str, tuple[int, ...]], dict[str, str]], seed: int, count: int
) -> None:
    labels, sources = drawn_data
    if count > len({sources.get(video, video) for video in labels}):
        with pytest.raises(UserError):
            split_videos(CLASSES, labels, Fold(1, count), seed, sources)
        return
    folds = [split_videos(CLASSES, labels, Fold(k, count), seed, sources) for k in range(1, count + 1)]
    assert sorted(video for data in folds for video in data.splits["val"]) == sorted(labels)
    for data in folds:
        assert data.splits["train"] and data.splits["val"]
        assert {**data.splits["train"], **data.splits["val"]} == labels
        assert not find_leaks(data.splits, sources)
    reordered = dict(reversed(labels.items()))
    assert split_videos(CLASSES, reordered, Fold(2, count), seed, sources) == folds[1]


def test_clips_and_labels_are_spread_over_the_folds() -> None:
    """60 sources of two clips, of which 30, 15 and 5 have a label."""
    counts = np.zeros((60, 3), int)
    counts[:30, 0], counts[20:35, 1], counts[55:, 2] = 2, 1, 2
    for seed in range(3):
        folds = draw_folds(counts, np.full(60, 2), 5, seed)
        assert Counter(folds) == dict.fromkeys(range(5), 12)
        by_fold = np.stack([counts[folds == fold].sum(0) for fold in range(5)])
        assert by_fold.tolist() == [[12, 3, 2]] * 5
    assert (draw_folds(counts, np.full(60, 2), 5, 0) != draw_folds(counts, np.full(60, 2), 5, 1)).any()


def test_large_source_leaves_the_others_to_the_other_folds() -> None:
    sizes = np.array([*[1] * 8, 100])
    folds = draw_folds(np.zeros((9, 1), int), sizes, 5, 0)
    assert sorted(np.bincount(folds, sizes)) == [2, 2, 2, 2, 100]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """22 clips of 21 sources with one class; 9 are positive."""
    lines = ["video,labels,site"]
    for i in range(22):
        write_video(tmp_path / f"c{i:02d}.mp4", indexed_frames(2, 32, 32, seed=i))
        lines.append(f"c{i:02d}.mp4,{'fleeing' if i < 9 else ''},site{i % 21}")
    path = tmp_path / "clips.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def import_table(table: Path, fold: str, *flags: str) -> Annotations:
    dataset = table.parent / "dataset" / f"fold{fold[0]}"
    command = ["csv", str(table), "--group-by", "site", "--dataset-dir", str(dataset), "--fold", fold, *flags]
    return annotations.load(prepare_dataset.main(command).outputs[0], "ak")


def test_few_clips_with_one_class_have_positives_and_negatives_everywhere(table: Path) -> None:
    val: list[str] = []
    for k in range(1, 6):
        data = import_table(table, f"{k}/5")
        train, selection = data.splits["train"], set(data.selection)
        assert set(train).isdisjoint(data.splits["val"])
        assert len({"c00.mp4", "c21.mp4"} & set(data.splits["val"])) != 1  # of one site
        for videos in (
            data.splits["val"],
            {v: train[v] for v in selection},
            {v: train[v] for v in train.keys() - selection},
        ):
            assert set(videos.values()) == {(0,), ()}, (k, videos)
        assert len(data.splits["val"]) in (4, 5)
        val += data.splits["val"]
    assert sorted(val) == [f"c{i:02d}.mp4" for i in range(22)]


@pytest.mark.parametrize("flags", [["--val-share", "0.2"], ["--test-share", "0.2"]])
def test_fold_excludes_shares(table: Path, flags: list[str]) -> None:
    with pytest.raises(UserError):
        import_table(table, "1/5", *flags)
    assert not (table.parent / "dataset").exists()


@pytest.mark.parametrize("fold", ["0/5", "6/5", "1/1", "2", "1/22"])
def test_fold_out_of_range_is_an_error(table: Path, fold: str) -> None:
    with pytest.raises((UserError, SystemExit)) as caught:
        import_table(table, fold)
    assert getattr(caught.value, "code", 2) == 2
    assert not (table.parent / "dataset").exists()


def test_table_with_splits_has_no_folds(table: Path) -> None:
    lines = table.read_text().splitlines()
    splits = ["split", *["train", "val"] * 11]
    table.write_text("".join(f"{line},{split}\n" for line, split in zip(lines, splits, strict=True)))
    with pytest.raises(UserError) as caught:
        import_table(table, "1/5")
    assert caught.value.path == str(table)


def test_folders_of_actions_as_folds(tmp_path: Path) -> None:
    root = create_files(tmp_path / "pets", {"eating": numbered_names(6), "running": numbered_names(4)})
    datasets = []
    for k in (1, 2):
        command = ["folder", str(root), "--dataset-dir", str(tmp_path / f"fold{k}"), "--fold", f"{k}/2"]
        datasets.append(annotations.load(prepare_dataset.main(command).outputs[0], "ak"))
    assert [Counter(data.splits["val"].values()) for data in datasets] == [{(0,): 3, (1,): 2}] * 2
    assert datasets[0].splits["val"] == datasets[1].splits["train"]
    with pytest.raises(UserError) as caught:  # the folder holds fold 2
        prepare_dataset.main([*command[:-1], "1/2"])
    assert caught.value.path == str(tmp_path / "fold2" / "annotations")


def test_observations_of_boris_as_folds(tmp_path: Path) -> None:
    for i in range(4):
        write_video(tmp_path / f"f{i}.mp4", indexed_frames(50, 32, 32, seed=i))
    project = boris_program.project(BEHAVIORS, {}, {})
    for i in range(4):
        rows = [[0.0, "", "walk", "", "", 0], [2.0, "", "walk", "", "", 0]]
        project["observations"] |= boris_program.project(BEHAVIORS, {f"o{i}": rows}, {f"f{i}.mp4": 2.0})["observations"]
    boris_program.write(tmp_path / "p.boris", project)
    data = run_prepare(tmp_path, "--window", "1", "--stride-seconds", "1", "--fold", "2/4")
    assert len({video.partition("_")[0] for video in data.splits["val"]}) == 1
    assert len(data.splits["val"]) == 2 and len(data.splits["train"]) == 6
