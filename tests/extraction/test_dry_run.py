"""--dry-run: pending videos and estimates, without any output."""

import json
import re
from pathlib import Path

import pytest

import extract_embeddings
import extract_flows
import inference
from tests.conftest import modification_times
from vimoclip import flow, video
from vimoclip.errors import UserError
from vimoclip.runtime import cost_estimate

ESTIMATE = r"(about .* at .*/s|too few to estimate the time); [\d.]+ \w+ of disk, [\d.]+ \w+ of memory"


def plan_lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the printed lines, without those that name the loaded model."""
    return [line for line in capsys.readouterr().out.splitlines() if not line.startswith(("encoder ", "student "))]


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
    lines = plan_lines(capsys)
    assert lines[0] == "train: 6 videos to process, 0 done or failed before"
    assert lines[2] == "val: 4 videos to process, 0 done or failed before"
    assert lines[4] == "10 videos to process, 0 done or failed before"
    assert all(re.search(ESTIMATE, line) for line in lines[1::2])
    assert "for 87 frames" in lines[1]  # 12 + 13 + ... + 17
    assert "for 131 pairs" in lines[5]
    extract_embeddings.main([*embeddings, "--limit", "2"])
    extract_flows.main([*flow, "--limit", "3"])
    capsys.readouterr()
    extract_embeddings.main([*embeddings, "--dry-run"])
    extract_flows.main([*flow, "--dry-run"])
    lines = plan_lines(capsys)
    assert lines[0] == "train: 4 videos to process, 2 done or failed before"
    assert lines[4] == "7 videos to process, 3 done or failed before"


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
    lines = plan_lines(capsys)
    assert lines[0].startswith("4 videos to process, 0 done")
    assert re.search(ESTIMATE, lines[1])


def test_the_report_holds_the_earlier_results_and_the_estimate_in_numbers(
    tiny_dataset: Path, tiny_clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_dataset.parent)
    monkeypatch.setattr(cost_estimate, "PROBE_SECONDS", 0.2)
    flags = ["--clip-model-name", tiny_clip, "--num-workers", "0", "--frame-batch-size", "8", "--report", "r.json"]
    (tiny_dataset / "videos" / "train0.mp4").write_bytes(b"no video")
    extract_embeddings.main([*flags, "--limit", "2"])
    report = json.loads(Path("r.json").read_text())
    assert (report["done"], report["already"], list(report["failed"])) == (3, 0, ["train0.mp4"])
    assert (report["pending"], report["estimate"]) == (None, None)
    code = extract_embeddings.main([*flags, "--dry-run"]).failed  # an earlier failure is no failure of the dry run
    report = json.loads(Path("r.json").read_text())
    assert (report["done"], report["already"], list(report["failed"]), code) == (0, 3, ["train0.mp4"], {})
    assert report["pending"] == 10 - 4
    estimate = report["estimate"]
    assert (estimate["unit"], estimate["units"]) == ("frame", 14 + 15 + 16 + 17 + 14 + 15)
    assert estimate["units"] / estimate["rate"] == pytest.approx(estimate["seconds"])
    assert estimate["disk_bytes"] == 2 * estimate["units"] * (32 * 4 + 16)
    extract_embeddings.main(flags)
    extract_embeddings.main([*flags, "--dry-run"])
    report = json.loads(Path("r.json").read_text())
    assert (report["pending"], report["estimate"]["units"], report["estimate"]["seconds"]) == (0, 0, 0)


def test_a_model_that_must_be_downloaded_first_has_no_estimate(
    tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_dataset.parent)
    extract_embeddings.main(["--dry-run", "--report", "r.json"])
    report = json.loads(Path("r.json").read_text())
    assert (report["pending"], report["estimate"]) == (10, None)


@pytest.mark.parametrize("stage", ["embeddings", "flows"])
def test_a_dry_run_counts_what_a_run_would_process(
    stage: str, tiny_dataset: Path, tiny_clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Videos that failed or were skipped are tried again with other settings only."""
    monkeypatch.chdir(tiny_dataset.parent)
    monkeypatch.setattr(cost_estimate, "PROBE_SECONDS", 0.2)
    (tiny_dataset / "videos" / "train0.mp4").write_bytes(b"no video")
    if stage == "embeddings":
        main, flags = extract_embeddings.main, ["--clip-model-name", tiny_clip, "--split", "train", "--limit", "1"]
    else:
        main, flags = extract_flows.main, ["--model", "dis"]
    flags += ["--num-workers", "0", "--report", "r.json"]
    first = main([*flags, "--max-frames", "1"])
    given_up = len(first.failed) + len(first.skipped)
    assert given_up == (1 if stage == "embeddings" else 10)
    main([*flags, "--max-frames", "1", "--dry-run"])
    assert json.loads(Path("r.json").read_text())["pending"] == 0
    main([*flags, "--dry-run"])
    assert json.loads(Path("r.json").read_text())["pending"] == given_up
    again = main(flags)
    assert again.done + len(again.failed) == given_up
    assert again.not_retried == 0


def test_a_dry_run_refuses_the_settings_that_a_run_refuses(
    tiny_dataset: Path, tiny_clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_dataset.parent)
    flags = ["--clip-model-name", tiny_clip, "--num-workers", "0", "--split", "train", "--limit", "1"]
    extract_embeddings.main(flags)
    with pytest.raises(UserError):
        extract_embeddings.main([*flags, "--stride", "2", "--dry-run"])


def test_kept_frames_are_counted(tiny_dataset: Path) -> None:
    paths = sorted((tiny_dataset / "videos").iterdir())  # 12 to 17 and 12 to 15 frames, 25 a second
    assert video.estimate_kept_frames(paths, video.EVERY_FRAME) == pytest.approx(87 + 54)
    assert video.estimate_kept_frames(paths, video.Sampling(stride=2)) == pytest.approx((87 + 54) / 2)
    assert video.estimate_kept_frames(paths, video.Sampling(fps=5)) == pytest.approx((87 + 54) / 5)
    assert video.estimate_kept_frames(paths, video.Sampling(max_frames=3)) == pytest.approx(30)
    assert video.estimate_kept_frames([tiny_dataset], video.EVERY_FRAME) == 0


def test_finished_output_needs_no_model(tiny_dataset: Path, tiny_clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a dry run nor --merge nor finished flow looks for weights or devices."""
    monkeypatch.chdir(tiny_dataset.parent)
    embeddings = ["--num-workers", "0", "--split", "train", "--limit", "2"]
    extract_embeddings.main([*embeddings, "--clip-model-name", tiny_clip])
    extract_flows.main(["--model", "dis", "--num-workers", "0", "--limit", "2"])
    gone = ["--clip-model-name", "local-dir:gone"]
    assert extract_embeddings.main([*embeddings, *gone, "--merge"]).already_done == 2
    assert extract_embeddings.main([*embeddings, *gone, "--dry-run", "--device", "cuda:7"]).failed == {}
    with monkeypatch.context() as patch:
        patch.setattr(flow, "missing_download", lambda *names: pytest.fail("looked for weights"))
        assert extract_flows.main(["--model", "dis", "--num-workers", "0", "--limit", "2"]).already_done == 2
        assert extract_flows.main(["--model", "dis", "--limit", "2", "--merge"]).already_done == 2
