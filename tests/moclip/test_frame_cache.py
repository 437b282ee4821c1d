"""Cache of preprocessed flow frames."""

import copy
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from tests.conftest import indexed_frames, modification_times
from tests.moclip.helpers import write_embeddings, write_flow
from vimoclip import clip
from vimoclip.errors import UserError
from vimoclip.flow import flow_folder
from vimoclip.moclip import dataset, frame_cache
from vimoclip.moclip.dataset import cached_video_reader
from vimoclip.runtime.distributed import ProcessGroup


class CachedVideos(NamedTuple):
    """Flow videos, their datasets without and with a cache, the cache, and the config of the encoder."""

    videos: list[dataset.TrainingVideo]
    plain: dataset.SegmentDataset
    cached: dataset.SegmentDataset
    cache: frame_cache.FrameCache
    config: dict[str, Any]

    def fill(self) -> None:
        self.cache.fill(self.cache.uncached_videos(self.videos), self.cached.preprocess, workers=0)

    def count_decoded(self) -> int:
        """Read all segments, check that they are the same as without the cache, and count opened videos."""
        plain_segments = [self.plain[index] for index in range(len(self.plain))]
        cached_video_reader.cache_clear()
        cached_segments = [self.cached[index] for index in range(len(self.cached))]
        for plain, cached in zip(plain_segments, cached_segments, strict=True):
            assert isinstance(plain, dataset.SegmentBatch) and isinstance(cached, dataset.SegmentBatch)
            assert all(torch.equal(a, b) for a, b in zip(plain[:4], cached[:4], strict=True))
        return cached_video_reader.cache_info().misses


@pytest.fixture
def cached_videos(tmp_path: Path, tiny_clip: str) -> CachedVideos:
    (tmp_path / "flows").mkdir()
    for name, frames in (("a", 40), ("b", 9)):
        write_flow(tmp_path / "flows" / f"{name}.mp4", indexed_frames(frames, 48, 80), kept=frames + 1)
    reader = write_embeddings(tmp_path / "rgb.h5", {"a.mp4": 41, "b.mp4": 10})
    videos = dataset.pair_with_flow(reader, flow_folder.FlowFolder(tmp_path / "flows")).videos
    encoder = clip.load_encoder(tiny_clip, None)
    cache = frame_cache.FrameCache(tmp_path / "prepared", encoder.config)
    plain, cached = (dataset.SegmentDataset(reader, videos, 11, encoder.preprocess, c) for c in (None, cache))
    return CachedVideos(videos, plain, cached, cache, encoder.config)


def test_cached_frames_replace_decoding_and_are_identical(cached_videos: CachedVideos) -> None:
    assert cached_videos.count_decoded() == 2
    cached_videos.fill()
    assert cached_videos.count_decoded() == 0
    sizes = [path.stat().st_size for path in cached_videos.cache.folder.rglob("*.npy")]
    assert sum(sizes) == cached_videos.cache.required_bytes(cached_videos.videos)
    frames = np.load(cached_videos.cache.entry_path(cached_videos.videos[1].flow_path), mmap_mode="r")
    assert frames.shape == (9, 3, 32, 32) and frames.dtype == np.uint8
    before = modification_times(cached_videos.cache.folder)
    cached_videos.fill()
    assert modification_times(cached_videos.cache.folder) == before


def test_entries_of_another_flow_video_or_preprocessing_are_replaced(cached_videos: CachedVideos) -> None:
    cached_videos.fill()
    write_flow(cached_videos.videos[0].flow_path, indexed_frames(40, 48, 80, seed=7), kept=41)
    assert cached_videos.count_decoded() == 1
    cached_videos.fill()
    assert cached_videos.count_decoded() == 0
    other = frame_cache.FrameCache(cached_videos.cache.folder.parent, cached_videos.config | {"resize": "squash"})
    assert len(other.uncached_videos(cached_videos.videos)) == 2


@pytest.mark.parametrize("num_bytes", [0, 10, 200, 5000, -1])
def test_truncated_entries_are_replaced(cached_videos: CachedVideos, num_bytes: int) -> None:
    cached_videos.fill()
    entry = cached_videos.cache.entry_path(cached_videos.videos[0].flow_path)
    entry.write_bytes(entry.read_bytes()[:num_bytes])
    assert cached_videos.count_decoded() == 1
    assert cached_videos.cache.uncached_videos(cached_videos.videos) == cached_videos.videos[:1]
    cached_videos.fill()
    assert cached_videos.count_decoded() == 0


def test_entries_of_two_flow_folders_are_kept(cached_videos: CachedVideos, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    videos = []
    for video in cached_videos.videos:
        path = tmp_path / "other" / video.flow_path.name
        write_flow(path, indexed_frames(video.num_frames - 1, 48, 80, seed=7), kept=video.num_frames)
        videos.append(video._replace(flow_path=path))
    plain, cached = copy.copy(cached_videos.plain), copy.copy(cached_videos.cached)
    plain.segments = cached.segments = dataset.split_into_segments(videos, 11)
    others = cached_videos._replace(videos=videos, plain=plain, cached=cached)
    cached_videos.fill()
    others.fill()
    assert cached_videos.count_decoded() == others.count_decoded() == 0


def test_entries_in_the_format_of_earlier_versions_are_replaced(cached_videos: CachedVideos) -> None:
    cache, flow_path = cached_videos.cache, cached_videos.videos[0].flow_path
    old = cache.folder / "a.mp4.frames"
    old.parent.mkdir(parents=True)
    header = {"flow_bytes": flow_path.stat().st_size, "flow_changed_ns": flow_path.stat().st_mtime_ns, "frames": 40}
    old.write_bytes(json.dumps(header).encode() + b"\n" + bytes(40 * (4 + cache.frame_bytes)))
    assert cached_videos.count_decoded() == 2
    cache.fill_distributed(cached_videos.videos, cached_videos.cached.preprocess, 0, ProcessGroup())
    assert not old.exists() and cached_videos.count_decoded() == 0


def test_an_unreadable_flow_video_gets_no_entry(cached_videos: CachedVideos) -> None:
    longer = cached_videos.videos[0]._replace(num_frames=60)
    assert not cached_videos.cache.write_entry(longer, cached_videos.plain.preprocess)
    assert not any(path.is_file() for path in cached_videos.cache.folder.rglob("*"))


def test_a_full_disk_is_refused_with_the_bytes_needed(
    cached_videos: CachedVideos, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_cache, "free_bytes", lambda folder: 1000)
    with pytest.raises(UserError, match=r"1\.0 KB") as error:
        cached_videos.cache.check_disk_space(cached_videos.videos)
    assert error.value.path == str(cached_videos.cache.folder)
    assert "--cache-frames" in error.value.hint
