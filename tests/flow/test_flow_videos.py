"""Flow: its colours, its direction and size, odd sizes, and what is refused."""

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch

import extract_flows
from tests.conftest import moving_frames, write_video
from vimoclip import video
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


def test_threads_do_not_change_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    side_by_side = extract_two_flow_videos(tmp_path, "threads")

    class AtOnce:
        def __init__(self, *_: Any) -> None: ...

        def submit(self, work: Any, *args: Any) -> Any:
            done: Future[Any] = Future()
            done.set_result(work(*args))
            return done

        def shutdown(self, **_: Any) -> None: ...

    monkeypatch.setattr("vimoclip.flow.factory.ThreadPoolExecutor", AtOnce)
    monkeypatch.setattr("vimoclip.video.writer.ThreadPoolExecutor", AtOnce)
    assert extract_two_flow_videos(tmp_path, "serial", "--num-workers", "0") == side_by_side


def test_flow_of_different_presets_is_not_mixed(tmp_path: Path) -> None:
    medium = extract_two_flow_videos(tmp_path, "flows")
    assert video.probe(tmp_path / "flows" / "0.mp4").comment["preset"] == "medium"  # type: ignore[index]
    with pytest.raises(UserError, match="preset is fast in this run but medium in"):
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


@pytest.mark.parametrize(("normalization", "warns"), [("log", True), ("linear", True), ("frame", False)])
def test_published_student_warns_about_other_normalizations(
    normalization: str, warns: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.mp4"
    with video.VideoWriter(path, 25, {"method": "dis", "normalization": normalization}) as writer:
        writer.write(moving_frames(3, (1, 0)))
    flow_folder.common_settings([path], {}, tmp_path / "published.pth")
    output = capsys.readouterr().out
    assert ("warning: " in output and f"made with {normalization}" in output) == warns
    flow_folder.common_settings([path], {"normalization": normalization}, tmp_path / "ours.pth")
    assert not capsys.readouterr().out
