"""--dry-run: pending videos and estimates, without any output."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import extract_embeddings
import extract_flows
import inference
from tests.conftest import modification_times
from vimoclip import cli, flow, video
from vimoclip.errors import UserError
from vimoclip.runtime import cost_estimate

MainFunction = Callable[[list[str]], cli.RunReport]


@pytest.fixture(autouse=True)
def workspace(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_dataset.parent)
    monkeypatch.setattr(cost_estimate, "PROBE_SECONDS", 0.2)


def dry_run(main: MainFunction, flags: list[str]) -> dict[str, Any]:
    """Return the content of --report; no other file may change."""
    Path("r.json").write_text("")
    before = modification_times(Path())
    assert main([*flags, "--dry-run", "--report", "r.json"]).failed == {}  # an earlier failure is no failure of it
    after = modification_times(Path())
    assert after.keys() == before.keys() and {name for name in after if after[name] != before[name]} == {"r.json"}
    return json.loads(Path("r.json").read_text())


def test_dry_runs_count_and_estimate_the_pending_videos(tiny_dataset: Path, tiny_clip: str) -> None:
    flags = ["--clip-model-name", tiny_clip, "--num-workers", "0", "--frame-batch-size", "8"]
    (tiny_dataset / "videos" / "train0.mp4").write_bytes(b"no video")
    extract_embeddings.main([*flags, "--limit", "2"])
    report = dry_run(extract_embeddings.main, flags)
    assert (report["done"], report["already"], list(report["failed"])) == (0, 3, ["train0.mp4"])
    assert report["pending"] == 10 - 4
    estimate = report["estimate"]
    assert (estimate["unit"], estimate["units"]) == ("frame", 14 + 15 + 16 + 17 + 14 + 15)
    assert estimate["units"] / estimate["rate"] == pytest.approx(estimate["seconds"])
    assert estimate["disk_bytes"] == 2 * estimate["units"] * (32 * 4 + 16)
    extract_embeddings.main(flags)
    report = dry_run(extract_embeddings.main, flags)
    assert (report["pending"], report["estimate"]["units"], report["estimate"]["seconds"]) == (0, 0, 0)


def test_dry_runs_of_flow_and_inference(tiny_dataset: Path, tiny_clip: str) -> None:
    from vimoclip import clip, moclip
    from vimoclip.training import checkpoint

    flags = ["--model", "dis", "--num-workers", "0"]
    report = dry_run(extract_flows.main, flags)
    assert (report["pending"], report["estimate"]["unit"], report["estimate"]["units"]) == (10, "pair", 131)
    assert report["estimate"]["rate"] > 0 and report["estimate"]["disk_bytes"] > 0
    extract_flows.main([*flags, "--limit", "4"])
    assert dry_run(extract_flows.main, flags)["pending"] == 6
    encoder = clip.load_encoder(tiny_clip, None)
    student = moclip.MoCLIP(encoder.visual, 32, 3, 0.1)
    config = {"clip": encoder.config, "alpha": 0.1, "num_classes": 3, "teacher": {}, "flow": {}}
    path = checkpoint.save_checkpoint(Path("student.pth"), {"state_dict": student.state_dict(), "config": config})
    report = dry_run(inference.main, ["--checkpoint-dir", str(path), "--num-workers", "0"])
    assert (report["pending"], report["estimate"]["unit"]) == (4, "frame")


def test_a_model_that_must_be_downloaded_first_has_no_estimate() -> None:
    report = dry_run(extract_embeddings.main, [])
    assert (report["pending"], report["estimate"]) == (10, None)


@pytest.mark.parametrize("stage", ["embeddings", "flows"])
def test_a_dry_run_counts_what_a_run_would_process(stage: str, tiny_dataset: Path, tiny_clip: str) -> None:
    """Videos that failed or were skipped are tried again with other settings only."""
    main: MainFunction
    (tiny_dataset / "videos" / "train0.mp4").write_bytes(b"no video")
    if stage == "embeddings":
        main, flags = extract_embeddings.main, ["--clip-model-name", tiny_clip, "--split", "train", "--limit", "1"]
    else:
        main, flags = extract_flows.main, ["--model", "dis"]
    flags += ["--num-workers", "0"]
    first = main([*flags, "--max-frames", "1"])
    given_up = len(first.failed) + len(first.skipped)
    assert given_up == (1 if stage == "embeddings" else 10)
    assert dry_run(main, [*flags, "--max-frames", "1"])["pending"] == 0
    assert dry_run(main, flags)["pending"] == given_up
    again = main(flags)
    assert again.done + len(again.failed) == given_up
    assert again.not_retried == 0


def test_a_dry_run_refuses_the_settings_that_a_run_refuses(tiny_clip: str) -> None:
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


def test_finished_output_needs_no_model(tiny_clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a dry run nor --merge nor finished flow looks for weights or devices."""
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
