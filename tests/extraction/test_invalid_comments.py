"""Comments of flow videos that other programs wrote, or that are malformed, are ignored."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.extraction.test_bad_videos import encode_indexed
from vimoclip import video
from vimoclip.flow.flow_folder import FlowFolder

INVALID_COMMENTS: list[Any] = [
    {"kept_frames": 10**12, "frame_indices": {"start": 0, "step": 1}, "timestamps": {"start": 0.0}},
    {"kept_frames": 2**28, "frame_indices": {"start": 0, "step": 1}},
    {"kept_frames": 3, "frame_indices": {"start": 10**400, "step": 1}},
    {"kept_frames": 3, "frame_indices": {"start": 0}},
    {"kept_frames": [3], "frame_indices": {"start": 0, "step": 1}},
    {"kept_frames": 3, "frame_indices": [[0, 1, 2]]},
    {"kept_frames": 3, "frame_indices": ["a", None, {}]},
    {"kept_frames": 3, "frame_indices": "012"},
    {"kept_frames": 1e400, "frame_indices": [0]},
    {"kept_frames": -3, "frame_indices": []},
    {"kept_frames": None, "frame_indices": None, "timestamps": None, "method": [], "video": {}, "sampling": 5},
    "[" * 100_000,
    '{"a":' * 100_000,
    '{"kept_frames": ' + "9" * 10_000 + "}",
    "[1, 2, 3]",
    "null",
    "text by hand",
    "",
    {},
    {"method": "raft"},
]


@pytest.mark.parametrize("stored_name", [["a"], {"a": 1}, 5, True, "../../x", "a/b", "a\nb", "", "..", "x" * 300])
def test_without_a_valid_name_in_the_comment_the_file_name_is_used(tmp_path: Path, stored_name: Any) -> None:
    path = encode_indexed(
        tmp_path / "cow_raft_things.mp4", count=2, metadata={"comment": json.dumps({"video": stored_name})}
    )
    assert FlowFolder(tmp_path).by_stem() == {"cow": path}
    assert FlowFolder(tmp_path).find("cow.mp4") == path


@pytest.mark.parametrize("comment", INVALID_COMMENTS, ids=range(len(INVALID_COMMENTS)))
def test_invalid_comments_are_ignored(tmp_path: Path, comment: Any) -> None:
    text = comment if isinstance(comment, str) else json.dumps(comment)
    info = video.probe(encode_indexed(tmp_path / "a.mp4", count=2, metadata={"comment": text}))
    assert info.comment is None or info.comment == comment
    assert video.frame_indices_from_comment(info.comment) is None
    assert video.timestamps_from_comment(info.comment, 25.0) is None


@pytest.mark.parametrize("timestamps", [None, "x", {}, {"start": "x"}, [0.0], [[0.0], [1.0]], ["a", "b"], 5])
def test_invalid_timestamps_are_ignored(timestamps: Any) -> None:
    comment = {"kept_frames": 2, "frame_indices": [0, 1], "timestamps": timestamps}
    assert video.timestamps_from_comment(comment, 25.0) is None
