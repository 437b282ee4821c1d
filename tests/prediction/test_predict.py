"""predict.py: the same numbers as the chain by its files, windows, what it writes, and what it refuses."""

import json
from pathlib import Path

import pytest
import torch

from tests.conftest import (
    CLASSES,
    REPOSITORY,
    indexed_frames,
    make_tiny_clip,
    moving_frames,
    write_annotations,
    write_video,
)
from tests.video_files import corrupt_packet
from vimoclip.errors import UserError
from vimoclip.io import predictions_csv

SMALL_FUSION = ["--set", "training.epochs=1", "model.num_heads=4", "model.num_layers=1", "model.dim_feedforward=16"]
RUNS = {
    "cross_attention": ["data.protocol=held_out"],
    "rgb": ["data.protocol=published"],
    "motion": ["data.protocol=published"],
    "concat_time": ["data.protocol=published"],
}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset after all scripts of the chain: clips of odd size and 14 to 21 frames, sampled with stride 2."""
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
    make_tiny_clip(root / "tinyclip")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        extract_embeddings.main(["--clip-model-name", "local-dir:tinyclip", "--stride", "2"])
        extract_flows.main(["--model", "dis", "--stride", "2", "--size", "35", "--lossless", "--num-workers", "0"])
        student = ["--clip-model-name", "local-dir:tinyclip", "--epochs", "1", "--sequence-length", "4"]
        train.main([*student, "--run-name", "student", "--num-workers", "0"])
        inference.main(["--checkpoint-dir", "checkpoints/student"])
        for config, extra in RUNS.items():
            command = ["--config", str(CONFIGS / f"{config}.yaml"), "--num-workers", "0", *SMALL_FUSION, *extra]
            train_and_eval.main(command)
    return root


CONFIGS = REPOSITORY / "TFAM" / "configs"


def run_predict(root: Path, *command: str) -> None:
    import predict as script

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        report = script.main([*command, "--clip-model-name", "local-dir:tinyclip", "--num-workers", "0"])
    assert not report.failed


def read_whole_scores(path: Path) -> dict[str, float]:
    return json.loads(path.read_text())["whole"]


@pytest.mark.parametrize("config", RUNS)
def test_scores_equal_those_of_the_chain_through_files(chain: Path, config: str, tmp_path: Path) -> None:
    run = f"checkpoints/TFAM/{config}/seed49"
    student = [] if config == "rgb" else ["--student", "checkpoints/student"]
    few = ["--frame-batch-size", "4"]  # the clips have 7 to 11 kept frames
    run_predict(chain, "dataset/videos", "--tfam", run, *student, *few, "-o", str(tmp_path))
    by_files = predictions_csv.read(chain / run / "predictions.csv")
    assert by_files.videos == ["clip3.mp4", "clip7.mp4"]
    for name, row in zip(by_files.videos, by_files.scores, strict=True):
        ours = read_whole_scores(tmp_path / f"{Path(name).stem}.json")
        assert [ours[label] for label in CLASSES] == pytest.approx(row, abs=1e-5)
    table = predictions_csv.read(tmp_path / "whole_videos.csv")
    assert len(table.videos) == 8
    row = table.scores[table.videos.index("clip7.mp4")]
    assert row == pytest.approx(by_files.scores[1], abs=1e-5)


def test_thresholds_are_those_fitted_on_the_selection_split(chain: Path, tmp_path: Path) -> None:
    run = "checkpoints/TFAM/cross_attention/seed49"
    fitted = json.loads((chain / run / "metrics.json").read_text())["thresholds"]
    scores = predictions_csv.read(chain / run / "selection_predictions.csv").scores
    # clips 1 and 2 alone show classes 1 and 2: the threshold at which F1 is highest lies between the two, or at a clip
    assert min(scores[:, 1]) - 1e-8 <= fitted["running"] <= max(scores[:, 1]) + 1e-8
    assert fitted["walking"] == 0.5  # which no selection clip shows
    command = ["dataset/videos/clip3.mp4", "--tfam", run, "--student", "checkpoints/student"]
    run_predict(chain, *command, "-o", str(tmp_path / "own"))
    run_predict(chain, *command, "-o", str(tmp_path / "given"), "--threshold", "0.25")
    assert read_json(tmp_path / "own" / "clip3.json")["thresholds"] == pytest.approx(fitted)
    assert set(read_json(tmp_path / "given" / "clip3.json")["thresholds"].values()) == {0.25}


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


FUSION_ARGS = ["--tfam", "checkpoints/TFAM/cross_attention/seed49", "--student", "checkpoints/student"]


def predict_error(chain: Path, *command: str, clip: str = "local-dir:tinyclip") -> str:
    import predict as script

    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError) as error:
        patch.chdir(chain)
        script.main([*command, *(["--clip-model-name", clip] if clip else [])])
    return str(error.value)


def test_other_student_is_refused(chain: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    state = torch.load(chain / "checkpoints" / "student" / "student_best.pth", weights_only=True)
    key = next(key for key in state["state_dict"] if key.startswith("visual_encoder."))
    state["state_dict"][key] = state["state_dict"][key] + 1
    torch.save(state, other)
    message = predict_error(chain, "dataset/videos/clip3.mp4", *FUSION_ARGS[:2], "--student", str(other))
    assert "weights_sha256" in message and str(other) in message and "seed49" in message


def test_other_teacher_is_refused(chain: Path, tmp_path: Path) -> None:
    name = make_tiny_clip(tmp_path / "tinyclip", width=96)
    assert "weights_sha256" in predict_error(chain, "dataset/videos/clip3.mp4", *FUSION_ARGS, clip=name)


def test_missing_or_conflicting_arguments_are_refused(chain: Path, tmp_path: Path) -> None:
    clip = "dataset/videos/clip3.mp4"
    assert "--student" in predict_error(chain, clip, *FUSION_ARGS[:2])
    assert "--tfam" in predict_error(chain, clip)
    assert "--labels" in predict_error(chain, clip, *FUSION_ARGS, "--labels", "running")
    assert "--labels" in predict_error(chain, clip, *FUSION_ARGS, "--fps", "2")
    assert "no such run" in predict_error(chain, clip, "--tfam", "nowhere")
    assert "nowhere.mp4" in predict_error(chain, "nowhere.mp4", *FUSION_ARGS)
    state = torch.load(chain / FUSION_ARGS[1] / "best_model.pth", weights_only=True)["state_dict"]
    torch.save(state, tmp_path / "published.pth")
    assert "published" in predict_error(chain, clip, "--tfam", str(tmp_path / "published.pth"))
    # a checkpoint holds no paths, so the folder of the weights is unknown
    message = predict_error(tmp_path, str(chain / clip), "--tfam", str(chain / RGB_RUN), clip="")
    assert "--clip-model-name local-dir:" in message


RGB_RUN = "checkpoints/TFAM/rgb/seed49"


def test_lists_are_read_and_bad_videos_are_reported(chain: Path, tmp_path: Path) -> None:
    import predict as script

    (tmp_path / "bad.mp4").write_bytes(b"no video")
    write_video(tmp_path / "one frame.mp4", indexed_frames(1))
    (tmp_path / "list.txt").write_text(f"bad.mp4\n\none frame.mp4\n{chain}/dataset/videos/clip3.mp4\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(chain)
        command = [str(tmp_path / "list.txt"), *FUSION_ARGS, "--clip-model-name", "local-dir:tinyclip"]
        saved = ["-o", str(tmp_path / "out"), "--report", str(tmp_path / "report.json")]
        script.main([*command, *saved, "--dry-run"])
        planned = read_json(tmp_path / "report.json")
        assert (planned["pending"], planned["done"], planned["estimate"]) == (3, 0, None)
        report = script.main([*command, *saved])
        counts = read_json(tmp_path / "report.json")
        assert (counts["done"], counts["already"], counts["pending"]) == (1, 0, None)
        assert counts["failed"] == report.failed
        assert counts["outputs"] == [str(tmp_path / "out")]
        assert set(report.failed) == {"bad.mp4", "one frame.mp4"}
        assert "motion" in report.failed["one frame.mp4"]
        assert report.done == 1
        before = (tmp_path / "out" / "clip3.json").stat().st_mtime_ns
        assert script.main([*command, *saved]).already_done == 1
        assert read_json(tmp_path / "report.json")["already"] == 1
        assert (tmp_path / "out" / "clip3.json").stat().st_mtime_ns == before
    message = predict_error(chain, *command[:5], "-o", str(tmp_path / "out"), "--window", "3")
    assert "window" in message and "--overwrite" in message
    (tmp_path / "twins").mkdir()
    for name in ("a.mp4", "a.avi"):
        (tmp_path / "twins" / name).write_bytes(b"")
    assert "same files" in predict_error(chain, str(tmp_path / "twins"), *FUSION_ARGS)


def test_control_without_motion_needs_no_student(chain: Path, tmp_path: Path) -> None:
    from TFAM import train_and_eval

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(chain)
        extra = ["data.protocol=published", "data.motion=none"]
        command = ["--config", str(CONFIGS / "cross_attention_none.yaml"), "--num-workers", "0", *SMALL_FUSION, *extra]
        train_and_eval.main(command)
    run = "checkpoints/TFAM/cross_attention_none/seed49"
    run_predict(chain, "dataset/videos/clip3.mp4", "--tfam", run, "-o", str(tmp_path))
    row = predictions_csv.read(chain / run / "predictions.csv").scores[0]
    assert list(read_whole_scores(tmp_path / "clip3.json").values()) == pytest.approx(row, abs=1e-5)


def test_replaced_video_is_predicted_again_and_damage_is_reported(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import predict as script

    film, out = tmp_path / "a.mp4", str(tmp_path / "out")
    command = [str(film), *FUSION_ARGS, "--clip-model-name", "local-dir:tinyclip", "--num-workers", "0", "-o", out]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(chain)
        write_video(film, moving_frames(20, (2, 0)))
        assert script.main(command).done == 1
        first = read_json(tmp_path / "out" / "a.json")
        film.unlink()
        write_video(film, moving_frames(40, (0, 2)))
        assert script.main(command).done == 1
        assert "a.mp4: differs" in capsys.readouterr().out
        second = read_json(tmp_path / "out" / "a.json")
        assert second["frames"] == 2 * first["frames"]
        assert script.main(command).already_done == 1
        corrupt_packet(film, 20)
        report = script.main([*command, "--overwrite"])
    assert "can't be decoded" in report.partial["a.mp4"]
    assert "can't be decoded" in read_json(tmp_path / "out" / "a.json")["made_with"]["problem"]


def test_foreign_files_are_not_overwritten_and_dead_links_are_reported(chain: Path, tmp_path: Path) -> None:
    import predict as script

    films = tmp_path / "films"
    films.mkdir()
    (films / "clip3.mp4").symlink_to(chain / "dataset" / "videos" / "clip3.mp4")
    (films / "gone.mp4").symlink_to(tmp_path / "nowhere")
    command = [str(films), *FUSION_ARGS, "--clip-model-name", "local-dir:tinyclip", "--num-workers", "0"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(chain)
        report = script.main([*command, "-o", str(tmp_path / "out")])
        assert (report.done, set(report.failed)) == (1, {"gone.mp4"})
        assert predictions_csv.read(tmp_path / "out" / "whole_videos.csv").videos == ["clip3.mp4"]
        (films / "clip3.csv").write_text("time,who\n1,ann\n")
        with pytest.raises(UserError) as error:
            script.main([*command, "-o", str(films)])
    assert error.value.path == str(films / "clip3.csv")
    assert (films / "clip3.csv").read_text() == "time,who\n1,ann\n"
