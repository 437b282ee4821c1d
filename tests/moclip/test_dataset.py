"""Pairing of embeddings with flow, segments and their dataset."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import indexed_frames, read_index
from tests.moclip.helpers import write_embeddings, write_flow
from vimoclip.errors import UserError
from vimoclip.flow import flow_folder
from vimoclip.moclip.dataset import SegmentDataset, TrainingVideo, pair_with_flow, split_into_segments


@settings(max_examples=200)
@given(frames=st.lists(st.integers(2, 200), min_size=1, max_size=5), sequence_length=st.integers(2, 40))
def test_each_flow_frame_is_in_exactly_one_segment(frames: list[int], sequence_length: int) -> None:
    videos = [TrainingVideo(f"{i}.mp4", Path(f"{i}.mp4"), n) for i, n in enumerate(frames)]
    segments = split_into_segments(videos, sequence_length)
    flow_frames = [
        (segment.video.key, t) for segment in segments for t in range(segment.start, segment.start + segment.length)
    ]
    assert sorted(flow_frames) == sorted((v.key, t) for v in videos for t in range(v.num_frames - 1))
    assert all(1 <= segment.length <= sequence_length - 1 for segment in segments)


def test_flow_frames_and_embeddings_share_indices_and_padding_is_masked(tmp_path: Path) -> None:
    (tmp_path / "flows").mkdir()
    write_flow(tmp_path / "flows" / "a.mp4", indexed_frames(24), kept=25)
    reader = write_embeddings(tmp_path / "rgb.h5", {"a.mp4": 25})
    paired = pair_with_flow(reader, flow_folder.FlowFolder(tmp_path / "flows"))
    dataset = SegmentDataset(reader, paired.videos, 11, lambda frames: torch.from_numpy(frames).permute(0, 3, 1, 2))
    batch = dataset.collate([dataset[i] for i in range(len(dataset))])
    assert batch.flow.shape == (3, 10, 3, 48, 64)
    assert batch.mask.sum(1).tolist() == [10, 10, 4]
    for i, start in enumerate((0, 10, 20)):
        for t in range(int(batch.mask[i].sum())):
            frame_index = read_index(batch.flow[i, t].permute(1, 2, 0).numpy())
            assert frame_index == start + t == int(batch.z_image[i, t, 0])
    assert not batch.flow[2, 4:].any()


def test_unusable_videos_are_excluded_with_a_reason(tmp_path: Path) -> None:
    flows = tmp_path / "flows"
    flows.mkdir()
    write_flow(flows / "good.mp4", indexed_frames(9), kept=10)
    write_flow(flows / "short.mp4", indexed_frames(7), kept=8)
    write_flow(flows / "other.mp4", indexed_frames(9), kept=10, frame_indices={"start": 5, "step": 1})
    (flows / "broken.mp4").write_bytes(b"not a video")
    lengths = dict.fromkeys(("good.mp4", "short.mp4", "other.mp4", "broken.mp4", "absent.mp4"), 10) | {"still.mp4": 1}
    paired = pair_with_flow(write_embeddings(tmp_path / "rgb.h5", lengths), flow_folder.FlowFolder(flows))
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
        pair_with_flow(reader, flow_folder.FlowFolder(tmp_path / "flows"))
    assert "rgb.h5" in error.value.problem and "a.mp4" in error.value.problem


def test_flow_with_different_settings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "flows").mkdir()
    write_flow(tmp_path / "flows" / "a.mp4", indexed_frames(9), kept=10)
    write_flow(tmp_path / "flows" / "b.mp4", indexed_frames(9), kept=10, method="raft")
    with pytest.raises(UserError, match="method"):
        pair_with_flow(
            write_embeddings(tmp_path / "rgb.h5", {"a.mp4": 10, "b.mp4": 10}),
            flow_folder.FlowFolder(tmp_path / "flows"),
        )
