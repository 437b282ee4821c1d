"""Runs of both stages in a real TensorBoard, queried over HTTP."""

import csv
import io
import json
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

import extract_embeddings
import extract_flows
import inference
import train
from tests.conftest import make_dataset
from TFAM import train_and_eval
from vimoclip import video

SMALL = ["model.num_layers=1", "model.num_heads=4", "model.dim_feedforward=32", "training.epochs=2"]
TRAIN = ["--epochs", "2", "--batch-size", "4", "--sequence-length", "6", "--num-workers", "0", "--run-name", "student"]


class TensorBoardClient(NamedTuple):
    """URL of a TensorBoard server, and the folder that holds the data set, the checkpoints and the logs."""

    url: str
    root: Path

    def request(self, path: str, body: Any = None, **query: str) -> Any:
        """Return the response as parsed JSON, or as bytes if it is not JSON."""
        url = f"{self.url}/data/plugin/{path}?{urllib.parse.urlencode(query)}"
        data = None if body is None else json.dumps(body).encode()
        http_request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(http_request, timeout=60) as response:
            content = response.read()
            return json.loads(content) if "json" in response.headers["Content-Type"] else content


def session_groups(board: TensorBoardClient, metrics: Sequence[Any] = ()) -> list[Any]:
    """Return the rows of the HParams tab, with the columns of the given metrics."""
    statuses = [f"STATUS_{status}" for status in ("UNKNOWN", "SUCCESS", "FAILURE", "RUNNING")]
    body = {"experimentName": "", "allowedStatuses": statuses, "startIndex": 0, "sliceSize": 100}
    response = board.request("hparams/session_groups", body | {"colParams": [{"metric": name} for name in metrics]})
    return list(response.get("sessionGroups", []))


@pytest.fixture(scope="module")
def board(tiny_clip: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TensorBoardClient]:
    root = tmp_path_factory.mktemp("board")
    dataset = make_dataset(root / "dataset")
    (dataset / "annotations" / "ak_action.csv").write_text(
        "id,name,segment\n0,walking,head\n1,running,middle\n2,eating,tail\n"
    )
    (dataset / "annotations" / "selection.txt").write_text("train3.mp4\ntrain4.mp4\ntrain5.mp4\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        extract_embeddings.main(["--clip-model-name", tiny_clip])
        extract_flows.main(["--model", "dis", "--num-workers", "0"])
        train.main([*TRAIN, "--clip-model-name", tiny_clip])
        inference.main(["--checkpoint-dir", "checkpoints/student"])
        train_and_eval.main(["--config", "cross_attention", "--set", *SMALL])
        # a resumed run has one row too
        train.main([*TRAIN[2:], "--epochs", "3", "--clip-model-name", tiny_clip])
    with serve_tensorboard(root / "logs") as url:
        yield TensorBoardClient(url, root)


@contextmanager
def serve_tensorboard(logs: Path) -> Iterator[str]:
    """Serve a folder on the loopback interface, and yield the URL once all runs are read up to their last record."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--load_fast", "false"]
    command += ["--host", "127.0.0.1", "--port", "0"]
    log = logs.with_name("tensorboard.txt")
    with log.open("w") as log_file:
        process = subprocess.Popen(command, stdout=log_file, stderr=log_file)
    try:
        for _ in range(600):
            if match := re.search(r"http://127\.0\.0\.1:\d+", log.read_text()):
                sessions = [group["sessions"][0] for group in session_groups(TensorBoardClient(match[0], Path()))]
                # the last record of a run marks its HParams row as successful
                if [session["status"] for session in sessions] == ["STATUS_SUCCESS"] * 2:
                    yield match[0]
                    return
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        raise AssertionError(log.read_text())
    finally:
        process.kill()
        process.wait()


STUDENT_METRICS = ("loss", "distillation_loss", "head_map_macro", "head_map_micro")
STUDENT, FUSION = "student", "TFAM/cross_attention/seed49"


def last_row(path: Path) -> dict[str, str]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))[-1]


def test_scalar_tags_name_the_split_and_the_average(board: TensorBoardClient) -> None:
    tags = board.request("scalars/tags")
    assert {"selection/map_macro", "selection/map_micro", "selection/loss", "train/lr"} <= set(tags[FUSION])
    assert {"selection/head_map_macro", "selection/head_map_micro", "step/loss"} <= set(tags[STUDENT])
    # the evaluation split is not read during training
    assert not [tag for run_tags in tags.values() for tag in run_tags if tag.startswith("val/")]
    values = board.request("scalars/scalars", run=FUSION, tag="selection/map_micro")
    assert [step for _, step, _ in values] == [0, 1]  # the last step of each epoch, counted from 0
    expected = float(last_row(board.root / "checkpoints" / FUSION / "metrics.csv")["selection_map_micro"])
    assert values[-1][2] == pytest.approx(expected, abs=1e-6)
    assert [step for _, step, _ in board.request("scalars/scalars", run=STUDENT, tag="selection/loss")] == [3, 6, 9]


def test_precision_recall_curves_of_class_groups(board: TensorBoardClient) -> None:
    tags = board.request("pr_curves/tags")
    for run in (STUDENT, FUSION):
        assert set(tags[run]) == {f"selection/precision_recall_{g}" for g in ("all", "head", "middle", "tail")}
    curves = board.request("pr_curves/pr_curves", tag="selection/precision_recall_tail", run=FUSION)[FUSION]
    assert [curve["step"] for curve in curves] == [0, 1]
    # one of the three clips has the tail class
    first = curves[0]
    assert max(first["true_positives"]) == 1 and max(first["false_positives"]) == 2
    assert first["recall"][0] == 1 and first["precision"][0] == pytest.approx(1 / 3)


def test_the_panel_has_rgb_and_flow_strips_beside_labels(board: TensorBoardClient) -> None:
    for run in (STUDENT, FUSION):
        (tag,) = board.request("images/tags")[run]
        assert tag == "selection/rgb_flow_labels"
        images = board.request("images/images", run=run, tag=tag, sample="0")
        assert [image["step"] for image in images] == ([3, 6, 9] if run == STUDENT else [0, 1])
        query = dict(urllib.parse.parse_qsl(images[-1]["query"]))
        panel = np.asarray(Image.open(io.BytesIO(board.request("images/individualImage", **query))).convert("RGB"))
        from vimoclip.training.tensorboard import GAP, STRIP_FRAMES, STRIP_HEIGHT, read_strip

        for row, name in enumerate(["train3", "train4", "train5"]):
            strip = read_strip(board.root / "dataset" / "videos" / f"{name}.mp4")
            flow = read_strip(board.root / "dataset" / "flows" / f"{name}.mp4")
            assert strip and flow and strip.width > STRIP_FRAMES * STRIP_HEIGHT
            top = row * (2 * STRIP_HEIGHT + GAP + 3 * GAP)
            assert np.array_equal(panel[top : top + STRIP_HEIGHT, : strip.width], np.asarray(strip))
            assert np.array_equal(
                panel[top + STRIP_HEIGHT + GAP : top + 2 * STRIP_HEIGHT + GAP, : flow.width], np.asarray(flow)
            )
            assert (panel[top : top + STRIP_HEIGHT, strip.width + GAP :] < 128).any()  # text


def test_many_labels_add_lines_and_no_width() -> None:
    from vimoclip.training.tensorboard import CORRECT_COLOR, PanelClip, draw_panel

    names = [f"a name of some length {number}" for number in range(12)]
    strips, scores = Image.new("RGB", (400, 186)), {"clip.mp4": torch.linspace(0, 1, 12)}
    few, many = (
        draw_panel([PanelClip("clip.mp4", frozenset(labels), strips)], scores, names) for labels in ([0], range(12))
    )
    assert few is not None and many is not None
    assert many.shape[0] > few.shape[0] and many.shape[1] == few.shape[1]
    # of the top five classes none is correct, then all are
    correct = np.array(ImageColor.getrgb(CORRECT_COLOR))
    assert not (few == correct).all(-1).any() and (many == correct).all(-1).any()


def test_frames_without_motion_differ_from_gaps(tmp_path: Path) -> None:
    from vimoclip.training.tensorboard import GAP, STRIP_FRAMES, STRIP_HEIGHT, read_strip

    with video.VideoWriter(tmp_path / "still.mp4", 10, {}) as writer:
        writer.write(np.full((8, 64, 64, 3), 255, np.uint8))
    strip = read_strip(tmp_path / "still.mp4")
    assert strip is not None
    is_white = np.asarray(strip)[STRIP_HEIGHT // 2, :, 0] > 240
    assert is_white.sum() == STRIP_FRAMES * STRIP_HEIGHT and (~is_white).sum() == (STRIP_FRAMES - 1) * GAP


def test_settings_are_logged_as_text_by_each_process(board: TensorBoardClient) -> None:
    for run, count, words in ((FUSION, 1, ["protocol: held_out", "epochs: 2"]), (STUDENT, 2, ["epochs: 3"])):
        (tag,) = board.request("text/tags")[run]
        texts = board.request("text/text", run=run, tag=tag)
        assert len(texts) == count
        for word in words:
            assert word in texts[-1]["text"]


def test_hparams_has_one_row_per_run_with_final_metrics_only(board: TensorBoardClient) -> None:
    experiment = board.request("hparams/experiment", {"experimentName": "", "hparamsLimit": 0})
    metrics = [info["name"] for info in experiment["metricInfos"]]
    fusion_metrics = {f"final/{clips}_map_{mean}" for clips in ("reported", "selection") for mean in ("macro", "micro")}
    student_metrics = {f"final/selection_{name}" for name in STUDENT_METRICS}
    assert {name["tag"] for name in metrics} == fusion_metrics | student_metrics
    assert len(metrics) == len(fusion_metrics) + len(student_metrics)
    groups = {group["name"]: group for group in session_groups(board, metrics)}
    assert set(groups) == {f"{run}/hparams" for run in (STUDENT, FUSION)}
    group = groups[f"{FUSION}/hparams"]
    values = {value["name"]["tag"]: value["value"] for value in group["metricValues"]}
    run_metrics = json.loads((board.root / "checkpoints" / FUSION / "metrics.json").read_text())
    for name in ("map_macro", "map_micro"):
        assert values[f"final/reported_{name}"] == pytest.approx(run_metrics[name], abs=1e-6)
        assert values[f"final/selection_{name}"] == pytest.approx(run_metrics["selection"][name], abs=1e-6)
    assert group["hparams"]["training.seed"] == 49 and group["hparams"]["data.protocol"] == "held_out"
    group = groups[f"{STUDENT}/hparams"]
    values = {value["name"]["tag"]: value["value"] for value in group["metricValues"]}
    with open(board.root / "checkpoints" / STUDENT / "metrics.csv", newline="") as file:
        best = min(csv.DictReader(file), key=lambda row: float(row["selection_loss"]))
    for name in STUDENT_METRICS:
        assert values[f"final/selection_{name}"] == pytest.approx(float(best[f"selection_{name}"]), abs=1e-6)
    assert group["hparams"]["epochs"] == 3
