"""Flow videos that extract_flows.py writes: threads, presets, normalization."""

from pathlib import Path
from typing import Any

import pytest
import torch

import extract_flows
from tests.conftest import moving_frames, write_video
from vimoclip import cli, video
from vimoclip.errors import UserError
from vimoclip.flow import flow_folder


def extract_two_flow_videos(tmp_path: Path, name: str, *flags: str) -> list[bytes]:
    """The flow videos that a run makes of two clips."""
    if not (tmp_path / "videos").is_dir():
        for number in range(2):
            frames = moving_frames(40, (2, 1 - number), 64, 80, seed=number)
            write_video(tmp_path / "videos" / f"{number}.mp4", frames, lossless=False)
    places = ["--videos-dir", str(tmp_path / "videos"), "--output-dir", str(tmp_path / name)]
    extract_flows.main(["--model", "dis", *places, *flags])
    return [(tmp_path / name / f"{number}.mp4").read_bytes() for number in range(2)]


def test_threads_do_not_change_the_bytes(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        threaded = extract_two_flow_videos(tmp_path, "threads")
        torch.set_num_threads(1)
        assert extract_two_flow_videos(tmp_path, "serial", "--num-workers", "0") == threaded
    finally:
        torch.set_num_threads(before)


def test_flow_of_different_presets_is_not_mixed(tmp_path: Path) -> None:
    medium = extract_two_flow_videos(tmp_path, "flows")
    assert video.probe(tmp_path / "flows" / "0.mp4").comment["preset"] == "medium"  # type: ignore[index]
    with pytest.raises(UserError, match=r"preset.*fast.*medium"):
        extract_two_flow_videos(tmp_path, "flows", "--dis-preset", "fast")
    assert extract_two_flow_videos(tmp_path, "flows", "--dis-preset", "medium") == medium
    assert extract_two_flow_videos(tmp_path, "fast", "--dis-preset", "fast") != medium


def test_default_normalization_is_logarithmic(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "a.mp4", moving_frames(4, (1, 0)), lossless=False)
    for name, flags in (
        ("plain", []),
        ("asked", ["--flow-normalization", "log"]),
        ("frame", ["--flow-normalization", "frame"]),
    ):
        places = ["--videos-dir", str(tmp_path / "videos"), "--output-dir", str(tmp_path / name)]
        extract_flows.main(["--model", "dis", *places, *flags])
    plain, asked, frame = ((tmp_path / name / "a.mp4").read_bytes() for name in ("plain", "asked", "frame"))
    assert plain == asked != frame
    comment = video.probe(tmp_path / "plain" / "a.mp4").comment
    assert comment and (comment["normalization"], comment["flow_max"]) == ("log", 0.05)


@pytest.mark.parametrize(
    "flags",
    [
        "--model dis --size 35 --stride 2 --dis-preset fast",
        "--model dis --flow-normalization frame --fps 5 --max-frames 40",
        "--model frame_diff --flow-max 0.1",
        "--model raft --ckpt-path sintel --iters 12 --precision bf16 --flow-normalization linear --flow-max 0.1",
    ],
)
def test_flags_of_recorded_settings_give_these_settings(flags: str) -> None:
    def settings_of(text: str) -> dict[str, Any]:
        args = extract_flows.build_parser().parse_args(text.split())
        frames = {"geometry": video.Geometry(args.deinterlace).as_dict()}
        return (
            extract_flows.flow_settings(args, video.Sampling(args.stride, args.fps, args.max_frames).as_dict()) | frames
        )

    settings = settings_of(flags)
    assert settings_of(cli.extraction_flags(settings)) == settings
    assert settings_of("") != settings


@pytest.mark.parametrize(("normalization", "warns"), [("log", True), ("linear", True), ("frame", False)])
def test_published_student_warns_about_other_normalizations(
    normalization: str, warns: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.mp4"
    with video.VideoWriter(path, 25, {"method": "dis", "normalization": normalization}) as writer:
        writer.write(moving_frames(3, (1, 0)))
    flow_folder.common_settings([path], {}, tmp_path / "published.pth")
    output = capsys.readouterr().out
    assert ("warning: " in output and normalization in output) == warns
    flow_folder.common_settings([path], {"normalization": normalization}, tmp_path / "ours.pth")
    assert not capsys.readouterr().out
