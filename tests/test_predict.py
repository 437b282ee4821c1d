"""predict.py: the same numbers as the chain by its files, windows, what it writes, and what it refuses."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import CLASSES, indexed_frames, make_clip, moving_frames, write_annotations, write_video
from tests.making import corrupt
from vimoclip import timeline, video
from vimoclip.errors import UserError
from vimoclip.io import predictions_csv
from vimoclip.prediction import Eye, Eyes, Part, Seen, Windows, watch, window_scores

SMALL = ["--set", "training.epochs=1", "model.num_heads=4", "model.num_layers=1", "model.dim_feedforward=16"]
RUNS = {
    "cross_attention": ["data.protocol=held_out"],
    "rgb": ["data.protocol=published"],
    "motion": ["data.protocol=published"],
    "concat_time": ["data.protocol=published"],
}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole chain by its files: clips of odd size and 14 to 21 frames, every second of which is looked at."""
    import extract_embeddings
    import extract_flows
    import inference
    import train
    from TFAM import train_and_eval

    root = tmp_path_factory.mktemp("chain")
    splits: dict[str, dict[str, tuple[int, ...]]] = {"train": {}, "val": {}}
    for i in range(8):
        split = "val" if i % 4 == 3 else "train"
        name, label = f"clip{i}.mp4", i % 3
        splits[split][name] = (label,)
        frames = moving_frames(14 + i, ((2, 0), (0, 3), (0, 0))[label], height=51, width=67, seed=i)
        write_video(root / "dataset" / "videos" / name, frames, lossless=False)
    write_annotations(root / "dataset" / "annotations", splits)
    (root / "dataset" / "annotations" / "selection.txt").write_text("clip1.mp4\nclip2.mp4\n")
    make_clip(root / "tinyclip")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        extract_embeddings.main(["--clip-model-name", "local-dir:tinyclip", "--stride", "2"])
        extract_flows.main(["--model", "dis", "--stride", "2", "--size", "35", "--lossless", "--num-workers", "0"])
        student = ["--clip-model-name", "local-dir:tinyclip", "--epochs", "1", "--sequence-length", "4"]
        train.main([*student, "--run-name", "student", "--num-workers", "0"])
        inference.main(["--checkpoint-dir", "checkpoints/student"])
        for config, extra in RUNS.items():
            command = ["--config", str(TFAM / f"{config}.yaml"), "--num-workers", "0", *SMALL, *extra]
            train_and_eval.main(command)
    return root


TFAM = Path(__file__).resolve().parents[1] / "TFAM" / "configs"


def predict(root: Path, *command: str) -> None:
    import predict as script

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        report = script.main([*command, "--clip-model-name", "local-dir:tinyclip", "--num-workers", "0"])
    assert not report.failed


def whole(path: Path) -> dict[str, float]:
    return json.loads(path.read_text())["whole"]


@pytest.mark.parametrize("config", RUNS)
def test_a_clip_gets_the_numbers_of_the_chain_by_its_files(chain: Path, config: str, tmp_path: Path) -> None:
    run = f"checkpoints/TFAM/{config}/seed49"
    student = [] if config == "rgb" else ["--student", "checkpoints/student"]
    few = ["--frame-batch-size", "4"]  # the clips have 7 to 11 frames that are looked at
    predict(chain, "dataset/videos", "--tfam", run, *student, *few, "-o", str(tmp_path))
    by_files = predictions_csv.read(chain / run / "predictions.csv")
    assert by_files.videos == ["clip3.mp4", "clip7.mp4"]
    for name, row in zip(by_files.videos, by_files.scores, strict=True):
        ours = whole(tmp_path / f"{Path(name).stem}.json")
        assert [ours[label] for label in CLASSES] == pytest.approx(row, abs=1e-5)
    table = predictions_csv.read(tmp_path / "whole_videos.csv")
    assert len(table.videos) == 8
    row = table.scores[table.videos.index("clip7.mp4")]
    assert row == pytest.approx(by_files.scores[1], abs=1e-5)


def test_thresholds_are_those_of_the_selection_clips(chain: Path, tmp_path: Path) -> None:
    run = "checkpoints/TFAM/cross_attention/seed49"
    fitted = json.loads((chain / run / "metrics.json").read_text())["thresholds"]
    scores = predictions_csv.read(chain / run / "selection_predictions.csv").scores
    # clips 1 and 2 alone show classes 1 and 2: the threshold at which F1 is highest lies between the two, or at a clip
    assert min(scores[:, 1]) <= fitted["running"] <= max(scores[:, 1])
    assert fitted["walking"] == 0.5  # which no selection clip shows
    command = ["dataset/videos/clip3.mp4", "--tfam", run, "--student", "checkpoints/student"]
    predict(chain, *command, "-o", str(tmp_path / "own"))
    predict(chain, *command, "-o", str(tmp_path / "given"), "--threshold", "0.25")
    assert read(tmp_path / "own" / "clip3.json")["thresholds"] == pytest.approx(fitted)
    assert set(read(tmp_path / "given" / "clip3.json")["thresholds"].values()) == {0.25}


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def seen_of(times: np.ndarray, first: int) -> Seen:
    """Frames that hold their own index, and motions that hold that of the frame where they start."""
    rgb = torch.arange(first, first + len(times)).float()[:, None]
    start = max(0, first - 1)
    return Seen(times, rgb, torch.arange(start, first + len(times) - 1).float()[:, None])


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 120),
    fps=st.sampled_from([5.0, 12.5, 29.97, 30.0]),
    length=st.sampled_from([0.5, 1.0, 2.4, 6.0]),
    stride=st.sampled_from([0.1, 0.7, 1.0, 2.5]),
    batch=st.integers(1, 40),
    origin=st.sampled_from([0.0, 1.25]),
)
def test_windows_hold_the_frames_of_their_seconds_and_reach_the_end(
    count: int, fps: float, length: float, stride: float, batch: int, origin: float
) -> None:
    times = origin + np.arange(count) / fps
    windows, parts, kept = Windows(length, stride), [], 0
    for first in range(0, count, batch):
        parts += list(windows.add(seen_of(times[first : first + batch], first)))
        kept = max(kept, len(windows._kept.times))
    seconds = count / fps
    parts += list(windows.finish(seconds, 1 / fps))
    for part in parts:
        inside = [i for i in range(count) if part.start - 1e-6 <= i / fps < part.stop - 1e-6]
        assert part.frames == len(inside)
        assert part.rgb is not None and part.motion is not None
        assert part.rgb.flatten().tolist() == inside
        assert part.motion.flatten().tolist() == inside[:-1]
        assert part.stop <= seconds + 1e-6
    starts = [part.start for part in parts]
    assert starts[0] == 0 and sorted(set(starts)) == starts
    assert parts[-1].stop == pytest.approx(seconds, abs=0.5 / fps + 1e-6)
    if seconds >= length:
        assert all(part.stop - part.start == pytest.approx(length, abs=1e-5) for part in parts)
        assert starts[:-1] == pytest.approx([i * stride for i in range(len(starts) - 1)])
    assert kept <= (length + stride) * fps + batch + 2


FUSED = ["--tfam", "checkpoints/TFAM/cross_attention/seed49", "--student", "checkpoints/student"]


def refused(chain: Path, *command: str, clip: str = "local-dir:tinyclip") -> str:
    import predict as script

    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError) as error:
        patch.chdir(chain)
        script.main([*command, *(["--clip-model-name", clip] if clip else [])])
    return str(error.value)


def test_another_student_than_the_fusion_learnt_from_is_refused(chain: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    state = torch.load(chain / "checkpoints" / "student" / "student_best.pth", weights_only=True)
    key = next(key for key in state["state_dict"] if key.startswith("visual_encoder."))
    state["state_dict"][key] = state["state_dict"][key] + 1
    torch.save(state, other)
    said = refused(chain, "dataset/videos/clip3.mp4", *FUSED[:2], "--student", str(other))
    assert "weights_sha256" in said and str(other) in said and "seed49" in said


def test_another_teacher_is_refused(chain: Path, tmp_path: Path) -> None:
    name = make_clip(tmp_path / "tinyclip", width=96)
    assert "weights_sha256" in refused(chain, "dataset/videos/clip3.mp4", *FUSED, clip=name)


def test_what_is_missing_is_said_with_what_to_do(chain: Path, tmp_path: Path) -> None:
    clip = "dataset/videos/clip3.mp4"
    assert "--student" in refused(chain, clip, *FUSED[:2])
    assert "--tfam" in refused(chain, clip)
    assert "--labels" in refused(chain, clip, *FUSED, "--labels", "running")
    assert "--labels" in refused(chain, clip, *FUSED, "--fps", "2")
    assert "no such run" in refused(chain, clip, "--tfam", "nowhere")
    assert "nowhere.mp4" in refused(chain, "nowhere.mp4", *FUSED)
    state = torch.load(chain / FUSED[1] / "best_model.pth", weights_only=True)["state_dict"]
    torch.save(state, tmp_path / "published.pth")
    assert "published" in refused(chain, clip, "--tfam", str(tmp_path / "published.pth"))
    # the folder that its weights came from can't be known from a checkpoint, which holds no paths
    said = refused(tmp_path, str(chain / clip), "--tfam", str(chain / RGB), clip="")
    assert "--clip-model-name local-dir:" in said


RGB = "checkpoints/TFAM/rgb/seed49"


def test_videos_of_a_folder_and_of_a_list_are_taken_and_bad_ones_are_named(chain: Path, tmp_path: Path) -> None:
    import predict as script

    (tmp_path / "bad.mp4").write_bytes(b"no video")
    write_video(tmp_path / "one frame.mp4", indexed_frames(1))
    (tmp_path / "list.txt").write_text(f"bad.mp4\n\none frame.mp4\n{chain}/dataset/videos/clip3.mp4\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(chain)
        command = [str(tmp_path / "list.txt"), *FUSED, "--clip-model-name", "local-dir:tinyclip"]
        report = script.main([*command, "-o", str(tmp_path / "out")])
        assert set(report.failed) == {"bad.mp4", "one frame.mp4"}
        assert "motion" in report.failed["one frame.mp4"]
        assert report.done == 1
        before = (tmp_path / "out" / "clip3.json").stat().st_mtime_ns
        assert script.main([*command, "-o", str(tmp_path / "out")]).already == 1
        assert (tmp_path / "out" / "clip3.json").stat().st_mtime_ns == before
    said = refused(chain, *command[:5], "-o", str(tmp_path / "out"), "--window", "3")
    assert "window" in said and "--overwrite" in said
    (tmp_path / "twins").mkdir()
    for name in ("a.mp4", "a.avi"):
        (tmp_path / "twins" / name).write_bytes(b"")
    assert "same files" in refused(chain, str(tmp_path / "twins"), *FUSED)


def test_a_control_without_motion_needs_no_student(chain: Path, tmp_path: Path) -> None:
    from TFAM import train_and_eval

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(chain)
        extra = ["data.protocol=published", "data.motion=none"]
        command = ["--config", str(TFAM / "cross_attention_none.yaml"), "--num-workers", "0", *SMALL, *extra]
        train_and_eval.main(command)
    run = "checkpoints/TFAM/cross_attention_none/seed49"
    predict(chain, "dataset/videos/clip3.mp4", "--tfam", run, "-o", str(tmp_path))
    row = predictions_csv.read(chain / run / "predictions.csv").scores[0]
    assert list(whole(tmp_path / "clip3.json").values()) == pytest.approx(row, abs=1e-5)


def resident() -> int:
    """Bytes of memory that this process has now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_memory_holds_a_window_and_not_the_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1,500 frames with embeddings of 64 KB, 98 MB would be kept, were more than a window kept."""
    monkeypatch.setattr(window_scores, "WHOLE_FRAMES", 100)
    monkeypatch.setattr(window_scores, "AT_ONCE", 2)
    path = write_video(tmp_path / "long.mp4", np.zeros((1500, 16, 16, 3), np.uint8), fps=50)
    eye = Eye(torch.from_numpy, lambda frames: torch.ones(len(frames), 16_384))
    held: list[int] = []
    before = resident()

    def score(parts: Sequence[Part]) -> np.ndarray:
        assert {part.frames for part in parts} == {50}
        held.append(resident() - before)
        return np.zeros((len(parts), 2))

    seen = watch(path, Eyes(video.EVERY_FRAME, eye), score, 1.0, 1.0)
    assert len(seen.scores) == 30
    assert "30 windows" in seen.whole_by
    assert max(held) < 60 * 1e6


def test_another_file_under_the_name_is_done_again_and_a_damaged_one_is_told(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import predict as script

    film, out = tmp_path / "a.mp4", str(tmp_path / "out")
    command = [str(film), *FUSED, "--clip-model-name", "local-dir:tinyclip", "--num-workers", "0", "-o", out]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(chain)
        write_video(film, moving_frames(20, (2, 0)))
        assert script.main(command).done == 1
        first = read(tmp_path / "out" / "a.json")
        film.unlink()
        write_video(film, moving_frames(40, (0, 2)))
        assert script.main(command).done == 1
        assert "is another file" in capsys.readouterr().out
        second = read(tmp_path / "out" / "a.json")
        assert second["frames"] == 2 * first["frames"]
        assert script.main(command).already == 1
        corrupt(film, 20)
        report = script.main([*command, "--overwrite"])
    assert "can't be decoded" in report.partial["a.mp4"]
    assert "can't be decoded" in read(tmp_path / "out" / "a.json")["made_with"]["problem"]


def test_in_a_pause_of_the_recording_nothing_is_seen() -> None:
    """Frames in the first and the last two of ten seconds, as a camera with a motion trigger leaves them."""
    times = np.concatenate([np.arange(0, 2, 0.1), np.arange(8, 10, 0.1)])
    windows, scored = Windows(1.0, 1.0), window_scores._Scored(lambda parts: np.ones((len(parts), 1)), 2)
    for part in windows.add(seen_of(times, 0)):
        scored.add(part)
    for part in windows.finish(10.0, 0.1):
        scored.add(part)
    scored.flush()
    starts, stops = np.array(scored.spans).T
    assert scored.unscored == 6
    bouts = timeline.find_bouts(starts, stops, scored.all(), np.array([0.5]), ("a",), 10.0)
    assert [(bout.start, bout.stop, bout.score) for bout in bouts] == [(0.0, 2.0, 1.0), (8.0, 10.0, 1.0)]


def test_what_is_not_its_own_is_not_overwritten_and_a_dead_link_is_a_line(chain: Path, tmp_path: Path) -> None:
    import predict as script

    films = tmp_path / "films"
    films.mkdir()
    (films / "clip3.mp4").symlink_to(chain / "dataset" / "videos" / "clip3.mp4")
    (films / "gone.mp4").symlink_to(tmp_path / "nowhere")
    command = [str(films), *FUSED, "--clip-model-name", "local-dir:tinyclip", "--num-workers", "0"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(chain)
        report = script.main([*command, "-o", str(tmp_path / "out")])
        assert (report.done, set(report.failed)) == (1, {"gone.mp4"})
        assert predictions_csv.read(tmp_path / "out" / "whole_videos.csv").videos == ["clip3.mp4"]
        (films / "clip3.csv").write_text("time,who\n1,ann\n")
        with pytest.raises(UserError, match=r"clip3\.csv: is there already"):
            script.main([*command, "-o", str(films)])
    assert (films / "clip3.csv").read_text() == "time,who\n1,ann\n"
