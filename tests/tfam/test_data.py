"""Opening and pairing of embedding files."""

import h5py
import numpy as np
import pytest

from tests.tfam.helpers import open_train_val, train_command, write_motion, write_rgb
from TFAM.train_and_eval import main
from vimoclip.errors import UserError


def test_mismatched_videos_are_counted_and_named(dataset, capsys):
    write_motion(dataset / "flow_embeddings.h5", [*range(1, 15), 77], {2: 2})
    splits, _ = open_train_val(dataset)
    assert len(splits["train"]) == 7 and len(splits["val"]) == 6
    out = capsys.readouterr().out
    assert "7 train videos, 2 excluded" in out and "V00.mp4: is not in" in out
    assert "V02.mp4: 6 RGB frames need 5 motions, but there are 2" in out
    assert "V77: in neither RGB file" in out
    rgb_splits, motion = open_train_val(dataset, "rgb")
    assert rgb_splits["train"].keys == splits["train"].keys and motion is None  # all variants use the same videos
    assert rgb_splits["train"][0].motion is None


def test_rgb_needs_no_motion_file(dataset, capsys):
    (dataset / "flow_embeddings.h5").unlink()
    assert len(open_train_val(dataset, "rgb")[0]["train"]) == 9
    assert "no such file, so all RGB videos are used" in capsys.readouterr().out
    with pytest.raises(UserError) as error:
        open_train_val(dataset)
    assert error.value.path == str(dataset / "flow_embeddings.h5")


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"student": {"teacher": {"clip_model": "ViT-B/16"}}}, ["ViT-B/32", "ViT-B/16"]),
        ({"student": {"teacher": {"weights_sha256": "bb"}}}, ["aa", "bb"]),
        ({"sampling": {"stride": 2, "fps": None, "max_frames": None}}, ["sampling.stride is 1", "but 2"]),
    ],
)
def test_motion_of_another_backbone_or_sampling_is_refused(dataset, changes, values):
    write_motion(dataset / "flow_embeddings.h5", range(15), **changes)
    with pytest.raises(UserError) as error:
        open_train_val(dataset)
    expected = [*values, "ak_train_clip_embeddings.h5", "flow_embeddings.h5"]
    assert all(text in error.value.problem for text in expected)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"clip_model": "ViT-B/16"}, ["clip_model", "ViT-B/32", "ViT-B/16"]),
        ({"class_names": ["eating", "flying", "resting"]}, ["class 1", "running", "flying"]),
        ({"sampling": {"stride": 2}}, ["sampling"]),
    ],
)
def test_rgb_files_must_agree(dataset, changes, expected):
    write_rgb(dataset / "ak_val_clip_embeddings.h5", range(9, 15), **changes)
    with pytest.raises(UserError) as error:
        open_train_val(dataset)
    assert all(text in error.value.problem for text in expected)


def test_video_in_both_splits_is_refused(dataset):
    write_rgb(dataset / "ak_val_clip_embeddings.h5", range(8, 15))
    with pytest.raises(UserError) as error:
        open_train_val(dataset)
    assert "V08" in error.value.problem


def rewrite_as_published(source, target):
    """Copy a file in the layout of the published code: no schema, no frame indices, a data set that is no video."""
    with h5py.File(source) as ours, h5py.File(target, "w") as theirs:
        for key in ours:
            for name in {"embeddings", "labels"} & set(ours[key]):
                theirs.create_dataset(f"{key}/{name}", data=ours[key][name][:], compression="gzip")
        theirs["video_ids"] = np.array([1])
    target.replace(source)


def test_published_files_train_with_a_note(dataset, capsys):
    for path in list(dataset.glob("*.h5")):
        rewrite_as_published(path, dataset / "other")
    folder = main(train_command())
    out = capsys.readouterr().out
    assert out.count("has no metadata") == 3
    header = (folder / "predictions.csv").read_text().splitlines()[0]
    assert header == "video_id,class_0,class_1,class_2"
