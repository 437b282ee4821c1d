"""Pairing of embeddings with flow."""

from pathlib import Path

import pytest

from tests.conftest import indexed_frames
from tests.moclip.helpers import write_embeddings, write_flow
from vimoclip.errors import UserError
from vimoclip.flow import flow_folder
from vimoclip.moclip import flow_pairing


def test_unusable_videos_are_excluded_with_a_reason(tmp_path: Path) -> None:
    flows = tmp_path / "flows"
    flows.mkdir()
    write_flow(flows / "good.mp4", indexed_frames(9), kept=10)
    write_flow(flows / "short.mp4", indexed_frames(7), kept=8)
    write_flow(flows / "other.mp4", indexed_frames(9), kept=10, frame_indices={"start": 5, "step": 1})
    (flows / "broken.mp4").write_bytes(b"not a video")
    lengths = dict.fromkeys(("good.mp4", "short.mp4", "other.mp4", "broken.mp4", "absent.mp4"), 10) | {"still.mp4": 1}
    paired = flow_pairing.pair_with_flow(write_embeddings(tmp_path / "rgb.h5", lengths), flow_folder.FlowFolder(flows))
    assert [video.key for video in paired.videos] == ["good.mp4"]
    assert "10 RGB frames but 7 flow frames" in paired.excluded["short.mp4"]
    assert "other frames" in paired.excluded["other.mp4"]
    assert "is not a video" in paired.excluded["broken.mp4"]
    assert "has no flow video" in paired.excluded["absent.mp4"]
    assert "one frame" in paired.excluded["still.mp4"]


def test_flow_and_embeddings_with_different_samplings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "flows").mkdir()
    write_flow(tmp_path / "flows" / "a.mp4", indexed_frames(9), kept=10)
    reader = write_embeddings(tmp_path / "rgb.h5", {"a.mp4": 10}, sampling={"stride": 2})
    with pytest.raises(UserError, match="sampling") as error:
        flow_pairing.pair_with_flow(reader, flow_folder.FlowFolder(tmp_path / "flows"))
    assert "rgb.h5" in error.value.problem and "a.mp4" in error.value.problem


def test_flow_with_different_settings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "flows").mkdir()
    write_flow(tmp_path / "flows" / "a.mp4", indexed_frames(9), kept=10)
    write_flow(tmp_path / "flows" / "b.mp4", indexed_frames(9), kept=10, method="raft")
    with pytest.raises(UserError, match="method"):
        flow_pairing.pair_with_flow(
            write_embeddings(tmp_path / "rgb.h5", {"a.mp4": 10, "b.mp4": 10}),
            flow_folder.FlowFolder(tmp_path / "flows"),
        )
