"""predict.py: the same numbers as the chain by its files, windows, what it writes, and what it refuses."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import train
from tests.conftest import (
    CLASSES,
    copy_with_other_preprocessing,
    indexed_frames,
    make_tiny_clip,
    moving_frames,
    write_video,
)
from tests.prediction.helpers import (
    CONFIGS,
    FUSION_ARGS,
    RGB_RUN,
    RUNS,
    SMALL_FUSION,
    predict,
    predict_error,
    read_json,
)
from tests.video_files import corrupt_packet
from vimoclip.errors import UserError
from vimoclip.flow import factory, ptlflow_model
from vimoclip.io import predictions_csv
from vimoclip.prediction import WindowFeatures


@pytest.mark.parametrize("config", RUNS)
def test_scores_equal_those_of_the_chain_through_files(chain: Path, config: str, tmp_path: Path) -> None:
    run = f"checkpoints/TFAM/{config}/seed49"
    student = [] if config == "rgb" else ["--student", "checkpoints/student"]
    few = ["--frame-batch-size", "4", "--pair-batch-size", "3"]  # the clips have 7 to 11 kept frames
    assert not predict(chain, "dataset/videos", "--tfam", run, "--raw", *student, *few, "-o", str(tmp_path)).failed
    by_files = predictions_csv.read(chain / run / "predictions.csv")
    assert by_files.videos == ["clip3.mp4", "clip7.mp4"]
    for name, row in zip(by_files.videos, by_files.scores, strict=True):
        ours = read_json(tmp_path / f"{Path(name).stem}.json")["whole"]
        assert [ours[label] for label in CLASSES] == pytest.approx(row, abs=1e-5)
    table = predictions_csv.read(tmp_path / "whole_videos.csv")
    assert len(table.videos) == 8
    row = table.scores[table.videos.index("clip7.mp4")]
    assert row == pytest.approx(by_files.scores[1], abs=1e-5)


@pytest.mark.parametrize(("flags", "largest"), [([], 6), (["--pair-batch-size", "2"], 2)])
def test_flow_is_computed_in_batches_of_pairs(
    flags: list[str], largest: int, chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """clip3 has 9 kept frames, which are read in batches of 6."""
    pairs: list[int] = []
    load_renderer = factory.load_renderer

    def load_recording_renderer(*args: Any) -> Any:
        render = load_renderer(*args)

        def recording_launch(frames: np.ndarray) -> Any:
            pairs.append(len(frames) - 1)
            return render.launch(frames)

        return factory.FlowRenderer(recording_launch)

    monkeypatch.setattr("vimoclip.flow.load_renderer", load_recording_renderer)
    command = ["dataset/videos/clip3.mp4", *FUSION_ARGS, "--frame-batch-size", "6", *flags, "-o", str(tmp_path)]
    assert not predict(chain, *command).failed
    assert sum(pairs) == 8 and max(pairs) <= largest


@pytest.mark.parametrize(
    ("flags", "precision"), [([], "fp32"), (["--precision", "bf16"], "bf16"), (["--precision", "int8"], "fp32")]
)
def test_learned_flow_of_a_gpu_is_computed_in_fp32_on_a_cpu_unless_it_is_requested(
    flags: list[str], precision: str, chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bf16, a CPU without instructions for it takes five times as long."""
    torch.manual_seed(0)
    weights = {"state_dict": ptlflow_model._import_ptlflow().get_model("raft").state_dict()}
    torch.save(weights, tmp_path / "raft.ckpt")
    student = torch.load(chain / "checkpoints" / "student" / "student_best.pth", weights_only=True)
    recorded = {"method": "raft", "checkpoint": "raft.ckpt", "iters": 1, "precision": "bf16", "preset": None}
    student["config"]["flow"] |= recorded
    torch.save(student, tmp_path / "student.pth")
    computed: set[str] = set()
    autocast = factory.autocast

    def recording_autocast(device: torch.device, name: str) -> Any:
        computed.add(name)
        return autocast(device, name)

    monkeypatch.setattr(factory, "autocast", recording_autocast)
    paths = ["--student", str(tmp_path / "student.pth"), "--ckpt-path", str(tmp_path / "raft.ckpt")]
    predict(chain, "dataset/videos/clip0.mp4", *FUSION_ARGS[:2], *paths, *flags, "-o", str(tmp_path))
    assert read_json(tmp_path / "clip0.json")["made_with"]["flow_precision"] == precision
    assert computed == {precision}


def test_thresholds_are_those_fitted_on_the_selection_split(chain: Path, tmp_path: Path) -> None:
    run = "checkpoints/TFAM/cross_attention/seed49"
    fitted = json.loads((chain / run / "metrics.json").read_text())["thresholds"]
    scores = predictions_csv.read(chain / run / "selection_predictions.csv").scores
    # one clip each shows classes 1 and 2, so the threshold of the highest F1 is between their scores
    assert min(scores[:, 1]) - 1e-8 <= fitted["running"] <= max(scores[:, 1]) + 1e-8
    assert fitted["walking"] == 0.5  # which no selection clip shows
    command = ["dataset/videos/clip3.mp4", "--tfam", run, "--raw", "--student", "checkpoints/student"]
    predict(chain, *command, "-o", str(tmp_path / "own"))
    predict(chain, *command, "-o", str(tmp_path / "given"), "--threshold", "0.25")
    assert read_json(tmp_path / "own" / "clip3.json")["thresholds"] == pytest.approx(fitted)
    assert set(read_json(tmp_path / "given" / "clip3.json")["thresholds"].values()) == {0.25}


def test_other_student_is_refused(chain: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    state = torch.load(chain / "checkpoints" / "student" / "student_best.pth", weights_only=True)
    key = next(key for key in state["state_dict"] if key.startswith("visual_encoder."))
    state["state_dict"][key] = state["state_dict"][key] + 1
    torch.save(state, other)
    message = str(predict_error(chain, "dataset/videos/clip3.mp4", *FUSION_ARGS[:2], "--student", str(other)))
    assert all(word in message for word in ("weights_sha256", str(other), "seed49"))


def test_other_teacher_is_refused(chain: Path, tmp_path: Path) -> None:
    name = make_tiny_clip(tmp_path / "tinyclip", width=96)
    assert "weights_sha256" in str(predict_error(chain, "dataset/videos/clip3.mp4", *FUSION_ARGS, clip=name))


def test_other_preprocessing_is_refused(chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the teacher, whose file its owner can edit, and of the student."""
    monkeypatch.chdir(chain)
    name = copy_with_other_preprocessing(chain / "tinyclip", tmp_path / "tinyclip")
    with pytest.raises(UserError, match=r"mean is \[0.5"):
        train.main(["--clip-model-name", name, "--checkpoints-dir", str(tmp_path / "new"), "--run-name", "new"])
    assert "mean" in str(predict_error(chain, "dataset/videos/clip3.mp4", *FUSION_ARGS, clip=name))
    state = torch.load(chain / "checkpoints" / "student" / "student_best.pth", weights_only=True)
    state["config"]["clip"]["interpolation"] = "bilinear"
    torch.save(state, tmp_path / "other.pth")
    command = ["dataset/videos/clip3.mp4", *FUSION_ARGS[:2], "--student", str(tmp_path / "other.pth")]
    assert "interpolation" in str(predict_error(chain, *command))


def test_missing_or_conflicting_arguments_are_refused(chain: Path, tmp_path: Path) -> None:
    clip = "dataset/videos/clip3.mp4"
    state = torch.load(chain / FUSION_ARGS[1] / "best_model.pth", weights_only=True)["state_dict"]
    torch.save(state, tmp_path / "published.pth")
    for command, words in (
        ([clip, *FUSION_ARGS[:2]], "--student"),
        ([clip], "--tfam"),
        ([clip, *FUSION_ARGS, "--labels", "running"], "--labels"),
        ([clip, *FUSION_ARGS, "--fps", "2"], "--labels"),
        ([clip, *FUSION_ARGS, "--deinterlace", "auto"], "--labels"),
        ([clip, "--labels", "running", "--student", "x"], "--tfam"),
        ([clip, "--labels", "running", "--raw"], "--tfam"),
        ([clip, "--tfam", "nowhere"], "nowhere"),
        (["nowhere.mp4", *FUSION_ARGS], "nowhere.mp4"),
        ([clip, "--tfam", str(tmp_path / "published.pth")], "published.pth"),
    ):
        assert words in str(predict_error(chain, *command))
    # a checkpoint holds no paths, so the folder of the weights is unknown
    error = predict_error(tmp_path, str(chain / clip), "--tfam", str(chain / RGB_RUN), clip="")
    assert "--clip-model-name local-dir:" in error.hint


def test_lists_are_read_and_bad_videos_are_reported(chain: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    write_video(tmp_path / "one frame.mp4", indexed_frames(1))
    (tmp_path / "list.txt").write_text(f"bad.mp4\n\none frame.mp4\n{chain}/dataset/videos/clip3.mp4\n")
    command = [str(tmp_path / "list.txt"), *FUSION_ARGS, "-o", str(tmp_path / "out")]
    saved = [*command, "--report", str(tmp_path / "report.json")]
    predict(chain, *saved, "--dry-run")
    planned = read_json(tmp_path / "report.json")
    assert (planned["pending"], planned["done"], planned["estimate"]) == (3, 0, None)
    report = predict(chain, *saved)
    counts = read_json(tmp_path / "report.json")
    assert (counts["done"], counts["already"], counts["pending"]) == (1, 0, None)
    assert counts["failed"] == report.failed
    assert counts["outputs"] == [str(tmp_path / "out")]
    assert set(report.failed) == {"bad.mp4", "one frame.mp4"}
    before = (tmp_path / "out" / "clip3.json").stat().st_mtime_ns
    assert predict(chain, *saved).already_done == 1
    assert read_json(tmp_path / "report.json")["already"] == 1
    assert (tmp_path / "out" / "clip3.json").stat().st_mtime_ns == before
    error = predict_error(chain, *command, "--window", "3")
    assert "window" in error.problem and "--overwrite" in error.hint
    (tmp_path / "twins").mkdir()
    for name in ("a.mp4", "a.avi"):
        (tmp_path / "twins" / name).write_bytes(b"")
    assert "a.avi" in str(predict_error(chain, str(tmp_path / "twins"), *FUSION_ARGS))


def test_control_without_motion_needs_no_student(chain: Path, tmp_path: Path) -> None:
    from TFAM import train_and_eval

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(chain)
        extra = ["data.protocol=published", "data.motion=none"]
        command = ["--config", str(CONFIGS / "cross_attention_none.yaml"), "--num-workers", "0", *SMALL_FUSION, *extra]
        train_and_eval.main(command)
    run = "checkpoints/TFAM/cross_attention_none/seed49"
    predict(chain, "dataset/videos/clip3.mp4", "--tfam", run, "-o", str(tmp_path))
    row = predictions_csv.read(chain / run / "predictions.csv").scores[0]
    assert list(read_json(tmp_path / "clip3.json")["whole"].values()) == pytest.approx(row, abs=1e-5)


def test_replaced_video_is_predicted_again_and_damage_is_reported(chain: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    command = [str(path), *FUSION_ARGS, "-o", str(tmp_path / "out")]
    write_video(path, moving_frames(20, (2, 0)))
    assert predict(chain, *command).done == 1
    first = read_json(tmp_path / "out" / "a.json")
    path.unlink()
    write_video(path, moving_frames(40, (0, 2)))
    assert predict(chain, *command).done == 1
    assert read_json(tmp_path / "out" / "a.json")["frames"] == 2 * first["frames"]
    assert predict(chain, *command).already_done == 1
    corrupt_packet(path, 20)
    report = predict(chain, *command, "--overwrite")
    assert report.partial["a.mp4"] == read_json(tmp_path / "out" / "a.json")["made_with"]["problem"]


def test_foreign_files_are_not_overwritten_and_dead_links_are_reported(chain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "clip3.mp4").symlink_to(chain / "dataset" / "videos" / "clip3.mp4")
    (folder / "gone.mp4").symlink_to(tmp_path / "nowhere")
    report = predict(chain, str(folder), *FUSION_ARGS, "-o", str(tmp_path / "out"))
    assert (report.done, set(report.failed)) == (1, {"gone.mp4"})
    assert predictions_csv.read(tmp_path / "out" / "whole_videos.csv").videos == ["clip3.mp4"]
    (folder / "clip3.csv").write_text("time,who\n1,ann\n")
    assert predict_error(chain, str(folder), *FUSION_ARGS, "-o", str(folder)).path == str(folder / "clip3.csv")
    assert (folder / "clip3.csv").read_text() == "time,who\n1,ann\n"


def test_nested_videos_of_one_name_and_unusual_names(chain: Path, tmp_path: Path) -> None:
    clip = (chain / "dataset" / "videos" / "clip0.mp4").read_bytes()
    latin1 = os.fsdecode(b"B\xe4r")
    for name in ("day1/x.mp4", "day2/x.mp4", "10:30?.mp4", "aux.mp4", f"{latin1}/b.mp4", f"{latin1}.mp4"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(clip)
    out = tmp_path / "in" / "out"
    command = [str(tmp_path / "in"), "--tfam", "checkpoints/TFAM/rgb/seed49", "-o", str(out)]
    report = predict(chain, *command, "--report", str(tmp_path / "report.json"))
    assert (report.done, len(report.failed)) == (5, 1)
    assert {path.stem for path in out.glob("*.json")} == {"day1__x", "day2__x", "10-30-", "aux-", "b"}
    table = predictions_csv.read(out / "whole_videos.csv")
    assert sorted(table.videos) == ["10:30?.mp4", "aux.mp4", "b.mp4", "day1__x.mp4", "day2__x.mp4"]
    assert predict(chain, *command).already_done == 5


def test_disagreements_of_the_streams_are_recorded_for_models_of_two(chain: Path, tmp_path: Path) -> None:
    for config, student in (("cross_attention", FUSION_ARGS[2:]), ("probe_both", FUSION_ARGS[2:]), ("rgb", [])):
        run = f"checkpoints/TFAM/{config}/seed49"
        predict(chain, "dataset/videos/clip3.mp4", "--tfam", run, *student, "-o", str(tmp_path / config))
    for config in ("cross_attention", "probe_both"):
        found = read_json(tmp_path / config / "clip3.json")
        assert len(found["disagreements"]) == len(found["starts"])
        for action, rgb, motion in found["disagreements"]:
            assert action in CLASSES and 0 <= rgb <= 1 and 0 <= motion <= 1 and rgb != motion
    assert read_json(tmp_path / "rgb" / "clip3.json")["disagreements"] == []


def test_scores_by_one_stream_do_not_depend_on_the_other(chain: Path) -> None:
    from TFAM.predictor import FusionPredictor

    predictor = FusionPredictor(chain / FUSION_ARGS[1], torch.device("cpu"), "fp32")
    width = predictor.model_config["d_model"]
    rgb, motion = torch.randn(2, 5, width), torch.randn(2, 4, width)
    pairs = ((0, 0), (1, 0), (0, 1))
    windows = [WindowFeatures(0.0, 1.0, rgb[first], motion[second], 5) for first, second in pairs]
    by_rgb, by_motion = predictor.score_streams(windows)
    assert by_rgb[0] == pytest.approx(by_rgb[2]) and by_rgb[0] != pytest.approx(by_rgb[1])
    assert by_motion[0] == pytest.approx(by_motion[1]) and by_motion[0] != pytest.approx(by_motion[2])


def test_measures_of_the_review_order_are_compared(chain: Path) -> None:
    from benchmarks import review_order

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(chain)
        found = review_order.main([FUSION_ARGS[1], RGB_RUN])
    assert list(found[FUSION_ARGS[1]]) == ["uncertainty", "disagreement of the streams"]
    assert list(found[RGB_RUN]) == ["uncertainty"]
    wrong = np.array([[True, True], [False, True], [False, False], [False, False], [False, False]])
    values = np.array([[0.9, 0.2], [0.1, 0.8], [0.1, 0.1], [0.2, 0.1], [0, 0]])
    assert review_order.evaluate(values, wrong) == (pytest.approx(2 / 0.6), 1.0)
    assert review_order.evaluate(1 - values, wrong) == (0.0, 0.0)
