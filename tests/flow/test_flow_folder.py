"""Lookup of the flow video of a video."""

from pathlib import Path

import pytest

from tests.conftest import indexed_frames, write_video
from tests.moclip.helpers import write_flow
from vimoclip.errors import UserError
from vimoclip.flow import flow_folder


def test_ids_with_underscores_do_not_share_their_flow(tmp_path: Path) -> None:
    for name in ("cow_raft_things.mp4", "cow_left_1_raft_things.mp4", "sow_left_1.mp4"):
        write_video(tmp_path / name, indexed_frames(2))
    folder = flow_folder.FlowFolder(tmp_path, ["cow.mp4", "cow_left_1.mp4", "sow.mp4", "sow_left_1.mp4"])
    found = {name: folder.find(f"{name}.mp4") for name in ("cow", "cow_left", "cow_left_1", "sow", "sow_left_1")}
    assert {name: path.name if path else None for name, path in found.items()} == {
        "cow": "cow_raft_things.mp4",
        "cow_left": None,
        "cow_left_1": "cow_left_1_raft_things.mp4",
        "sow": None,
        "sow_left_1": "sow_left_1.mp4",
    }
    assert set(folder.by_stem()) == {"cow", "cow_left_1", "sow_left_1"}


def test_all_file_names_of_the_published_script_are_parsed() -> None:
    import ptlflow

    names = [
        (model, checkpoint)
        for model in ptlflow.get_model_names()
        for checkpoint in getattr(ptlflow.get_model_reference(model), "pretrained_checkpoints", None) or ["things"]
    ]
    wrong = [
        (stem, *name)
        for stem in ("AAACXZTV", "my_cat_1", "-x_y")
        for name in names
        if flow_folder._published_stems(f"{stem}_{name[0]}_{name[1]}") != [stem]
    ]
    assert not wrong


def test_flow_is_found_under_either_name_and_two_candidates_are_an_error(tmp_path: Path) -> None:
    for name in ("own.mp4", "theirs_raft_things.mp4", "my_cat_raft_small_things.mp4", "same.mp4"):
        write_video(tmp_path / name, indexed_frames(2))
    folder = flow_folder.FlowFolder(tmp_path)
    found = {v: folder.find(v) for v in ("own.avi", "theirs.mp4", "my_cat.mp4", "same.mp4", "none.mp4")}
    assert {v: path.name if path else None for v, path in found.items()} == {
        "own.avi": "own.mp4",
        "theirs.mp4": "theirs_raft_things.mp4",
        "my_cat.mp4": "my_cat_raft_small_things.mp4",
        "same.mp4": "same.mp4",
        "none.mp4": None,
    }
    assert set(folder.by_stem()) == {"own", "theirs", "my_cat", "same"}
    write_video(tmp_path / "theirs_raft_sintel.mp4", indexed_frames(2))
    with pytest.raises(UserError, match=r"theirs_raft_sintel.mp4, theirs_raft_things.mp4"):
        flow_folder.FlowFolder(tmp_path).find("theirs.mp4")


def test_flow_of_another_video_is_not_confused_with_a_published_name(tmp_path: Path) -> None:
    write_flow(tmp_path / "cat_dis_things.mp4", indexed_frames(2), kept=3, video="cat_dis_things")
    folder = flow_folder.FlowFolder(tmp_path)
    assert folder.find("cat.mp4") is None
    assert set(folder.by_stem()) == {"cat_dis_things"}
