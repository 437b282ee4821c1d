"""--dry-run: what there is to do, how long it takes here and what it needs; and nothing is left behind."""

import re
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import extract_embeddings
import extract_flows
import inference
from tests.conftest import times
from vimoclip import video
from vimoclip.extraction import dry_run
from vimoclip.runtime import cost_estimate

NEEDS = r"(about .* at .*/s|too few to tell how long they take); [\d.]+ \w+ of disk, [\d.]+ \w+ of memory"


def test_each_extraction_says_what_is_left_and_what_it_takes(
    tiny_dataset: Path, tiny_clip: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tiny_dataset.parent)
    monkeypatch.setattr(cost_estimate, "PROBE_SECONDS", 0.2)
    embeddings = ["--clip-model-name", tiny_clip, "--num-workers", "0", "--frame-batch-size", "8"]
    flow = ["--model", "dis", "--num-workers", "0"]
    before = times(tiny_dataset)
    extract_embeddings.main([*embeddings, "--dry-run"])
    extract_flows.main([*flow, "--dry-run"])
    assert times(tiny_dataset) == before
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "train: 6 videos to do, 0 done or given up before"
    assert said[2] == "val: 4 videos to do, 0 done or given up before"
    assert said[4] == "10 videos to do, 0 done or given up before"
    assert all(re.search(NEEDS, line) for line in said[1::2])
    assert "for 87 frames" in said[1]  # 12 + 13 + ... + 17
    assert "for 131 pairs" in said[5]
    extract_embeddings.main([*embeddings, "--limit", "2"])
    extract_flows.main([*flow, "--limit", "3"])
    capsys.readouterr()
    extract_embeddings.main([*embeddings, "--dry-run"])
    extract_flows.main([*flow, "--dry-run"])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "train: 4 videos to do, 2 done or given up before"
    assert said[4] == "7 videos to do, 3 done or given up before"


def test_an_export_says_so_too(
    tiny_dataset: Path, tiny_clip: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vimoclip import clip, moclip
    from vimoclip.training import checkpoint

    monkeypatch.chdir(tiny_dataset.parent)
    monkeypatch.setattr(cost_estimate, "PROBE_SECONDS", 0.2)
    encoder = clip.load(tiny_clip, None)
    student = moclip.MoCLIP(encoder.visual, 32, 3, 0.1)
    config = {"clip": encoder.config, "alpha": 0.1, "num_classes": 3, "teacher": {}, "flow": {}}
    path = checkpoint.save_checkpoint(Path("student.pth"), {"state_dict": student.state_dict(), "config": config})
    extract_flows.main(["--model", "frame_diff", "--limit", "4", "--num-workers", "0"])
    capsys.readouterr()
    inference.main(["--checkpoint-dir", str(path), "--dry-run", "--num-workers", "0"])
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("4 flow videos to do, 0 done or given up before, into dataset")
    assert re.search(NEEDS, said[1])


def test_frames_are_counted_as_they_are_kept(tiny_dataset: Path) -> None:
    paths = sorted((tiny_dataset / "videos").iterdir())  # 12 to 17 and 12 to 15 frames, 25 a second
    assert dry_run.frames_to_do(paths, video.EVERY_FRAME) == pytest.approx(87 + 54)
    assert dry_run.frames_to_do(paths, video.Sampling(stride=2)) == pytest.approx((87 + 54) / 2)
    assert dry_run.frames_to_do(paths, video.Sampling(fps=5)) == pytest.approx((87 + 54) / 5)
    assert dry_run.frames_to_do(paths, video.Sampling(max_frames=3)) == pytest.approx(30)
    assert dry_run.frames_to_do([tiny_dataset], video.EVERY_FRAME) == 0


def test_a_rate_counts_what_is_done_in_its_time_and_closes_the_work() -> None:
    closed = []

    def work(count: int) -> Iterator[float]:
        try:
            yield from chain([1000.0], repeat(1.0, count))
        finally:
            closed.append(count)

    assert cost_estimate.rate(work(0)) is None
    assert (cost_estimate.rate(work(10**9), seconds=0.05) or 0) > 100
    assert closed == [0, 10**9]


@given(st.floats(0, 1e9))
def test_times_and_sizes_are_said_in_words_of_about_their_value(value: float) -> None:
    units = {"s": 1, "min": 60, "h": 3600, "days": 86400}
    words = cost_estimate.duration(value).split()
    said = sum(float(n) * units[unit] for n, unit in zip(words[::2], words[1::2], strict=True))
    assert said == pytest.approx(value, rel=0.21, abs=1)  # 149 s are 2 min
    number, unit = cost_estimate.size(value).split()
    scale = {"bytes": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9}[unit]
    assert float(number) * scale == pytest.approx(value, rel=0.06, abs=0.51)
