"""--dry-run: pending videos and estimates, without any output."""

import re
from pathlib import Path

import pytest

import extract_embeddings
import extract_flows
import inference
from tests.conftest import modification_times
from vimoclip import video
from vimoclip.extraction import dry_run
from vimoclip.runtime import cost_estimate

ESTIMATE = r"(about .* at .*/s|too few to tell how long they take); [\d.]+ \w+ of disk, [\d.]+ \w+ of memory"


def test_extractions_print_pending_videos_and_estimates(
    tiny_dataset: Path, tiny_clip: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tiny_dataset.parent)
    monkeypatch.setattr(cost_estimate, "PROBE_SECONDS", 0.2)
    embeddings = ["--clip-model-name", tiny_clip, "--num-workers", "0", "--frame-batch-size", "8"]
    flow = ["--model", "dis", "--num-workers", "0"]
    before = modification_times(tiny_dataset)
    extract_embeddings.main([*embeddings, "--dry-run"])
    extract_flows.main([*flow, "--dry-run"])
    assert modification_times(tiny_dataset) == before
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "train: 6 videos to do, 0 done or given up before"
    assert lines[2] == "val: 4 videos to do, 0 done or given up before"
    assert lines[4] == "10 videos to do, 0 done or given up before"
    assert all(re.search(ESTIMATE, line) for line in lines[1::2])
    assert "for 87 frames" in lines[1]  # 12 + 13 + ... + 17
    assert "for 131 pairs" in lines[5]
    extract_embeddings.main([*embeddings, "--limit", "2"])
    extract_flows.main([*flow, "--limit", "3"])
    capsys.readouterr()
    extract_embeddings.main([*embeddings, "--dry-run"])
    extract_flows.main([*flow, "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "train: 4 videos to do, 2 done or given up before"
    assert lines[4] == "7 videos to do, 3 done or given up before"


def test_inference_prints_pending_videos_and_an_estimate(
    tiny_dataset: Path, tiny_clip: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vimoclip import clip, moclip
    from vimoclip.training import checkpoint

    monkeypatch.chdir(tiny_dataset.parent)
    monkeypatch.setattr(cost_estimate, "PROBE_SECONDS", 0.2)
    encoder = clip.load_encoder(tiny_clip, None)
    student = moclip.MoCLIP(encoder.visual, 32, 3, 0.1)
    config = {"clip": encoder.config, "alpha": 0.1, "num_classes": 3, "teacher": {}, "flow": {}}
    path = checkpoint.save_checkpoint(Path("student.pth"), {"state_dict": student.state_dict(), "config": config})
    extract_flows.main(["--model", "frame_diff", "--limit", "4", "--num-workers", "0"])
    capsys.readouterr()
    inference.main(["--checkpoint-dir", str(path), "--dry-run", "--num-workers", "0"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("4 flow videos to do, 0 done or given up before, into dataset")
    assert re.search(ESTIMATE, lines[1])


def test_kept_frames_are_counted(tiny_dataset: Path) -> None:
    paths = sorted((tiny_dataset / "videos").iterdir())  # 12 to 17 and 12 to 15 frames, 25 a second
    assert dry_run.count_kept_frames(paths, video.EVERY_FRAME) == pytest.approx(87 + 54)
    assert dry_run.count_kept_frames(paths, video.Sampling(stride=2)) == pytest.approx((87 + 54) / 2)
    assert dry_run.count_kept_frames(paths, video.Sampling(fps=5)) == pytest.approx((87 + 54) / 5)
    assert dry_run.count_kept_frames(paths, video.Sampling(max_frames=3)) == pytest.approx(30)
    assert dry_run.count_kept_frames([tiny_dataset], video.EVERY_FRAME) == 0
