"""Protocols: which clips a run trains on, selects its epoch on and evaluates; warnings about the student."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml
from sklearn.metrics import average_precision_score

from tests.tfam.helpers import (
    ANNOTATIONS_DIR,
    CLASSES,
    KEEP_LAST_EPOCH,
    SAMPLING,
    SELECTION_NUMBERS,
    TEACHER,
    class_embeddings,
    have_same_weights,
    read_csv,
    read_json,
    train_command,
    write_h5,
    write_motion,
    write_rgb,
    write_selection,
)
from TFAM import evaluation
from TFAM.train_and_eval import main
from vimoclip.errors import TrainingError, UserError
from vimoclip.io import predictions_csv
from vimoclip.training import run_folder


def test_held_out_run_writes_its_files_and_metrics(selection_dataset: Path) -> None:
    folder = main(train_command())
    names = {"config.yaml", "best_model.pth", "last.pth", "metrics.csv", "metrics.json"}
    names |= {"predictions.csv", "selection_predictions.csv", "calibration.json"}
    assert {path.name for path in folder.iterdir()} == names
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["data"]["protocol"] == "held_out" and config["data"]["annotations_dir"] == str(ANNOTATIONS_DIR)
    rows, metrics = read_csv(folder / "metrics.csv"), read_json(folder / "metrics.json")
    columns = ["epoch", "lr", "train_loss", "selection_loss", "selection_map_macro", "selection_map_micro"]
    assert list(rows[0]) == columns and len(rows) == 3
    best = max(rows, key=lambda row: float(row["selection_map_micro"]))
    assert metrics["epoch"] == int(best["epoch"])
    assert metrics["protocol"] == "held_out" and metrics["epoch_chosen_by"] == "map_micro on the model-selection split"
    assert (metrics["train_num_videos"], metrics["selection_num_videos"], metrics["num_videos"]) == (6, 3, 6)
    assert metrics["selection"]["map_micro"] == float(best["selection_map_micro"])
    assert metrics["seconds"] >= 0 and "data.protocol" not in metrics["settings"]
    ids = {
        name: [row["video_id"] for row in read_csv(folder / name)]
        for name in ("predictions.csv", "selection_predictions.csv")
    }
    assert ids["predictions.csv"] == [f"V{n:02}.mp4" for n in range(9, 15)]
    assert ids["selection_predictions.csv"] == [f"V{n:02}.mp4" for n in SELECTION_NUMBERS]
    predictions = predictions_csv.read(folder / "selection_predictions.csv")
    targets = np.eye(3)[[n % 3 for n in SELECTION_NUMBERS]]
    micro = average_precision_score(targets.ravel(), predictions.scores.ravel())
    assert metrics["selection"]["map_micro"] == pytest.approx(micro)


def test_selection_clips_are_kept_out_of_training(selection_dataset: Path) -> None:
    """The weights are those of a run whose training file lacks the selection clips."""
    held_out = main([*train_command("cross_attention", "--checkpoints-dir", "held-out"), KEEP_LAST_EPOCH])
    write_rgb(selection_dataset / "ak_train_clip_embeddings.h5", [n for n in range(9) if n not in SELECTION_NUMBERS])
    without = main(
        [*train_command("cross_attention", "--checkpoints-dir", "without"), KEEP_LAST_EPOCH, "data.protocol=published"]
    )
    assert have_same_weights(held_out / "last.pth", without / "last.pth")
    losses = [[row["train_loss"] for row in read_csv(run / "metrics.csv")] for run in (held_out, without)]
    assert losses[0] == losses[1]
    again = main(
        [*train_command("cross_attention", "--checkpoints-dir", "again"), KEEP_LAST_EPOCH, "data.protocol=published"]
    )
    assert have_same_weights(again / "last.pth", without / "last.pth")


def test_val_labels_do_not_influence_a_held_out_run(selection_dataset: Path) -> None:
    folders = []
    for label_shift in (0, 1):
        write_rgb(selection_dataset / "ak_val_clip_embeddings.h5", range(9, 15), label_shift=label_shift)
        folders.append(main(train_command("cross_attention", "--checkpoints-dir", f"shift{label_shift}")))
    one, other = folders
    assert have_same_weights(one / "best_model.pth", other / "best_model.pth")
    for name in ("metrics.csv", "selection_predictions.csv", "predictions.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    assert read_json(one / "metrics.json")["map_micro"] != read_json(other / "metrics.json")["map_micro"]


def test_epoch_is_the_best_on_the_monitor_split(selection_dataset: Path) -> None:
    """Selection clips have wrong labels, so their metrics decrease as the model learns."""
    numbers = range(24)
    videos = {f"V{n:02}.mp4": class_embeddings(n, 4 + n % 5) for n in numbers}
    labels = np.eye(3, dtype=np.float32)[[(n + (n % 4 == 0)) % 3 for n in numbers]]
    attributes = {"kind": "rgb", "class_names": CLASSES, "num_classes": 3, "embed_dim": 8, "sampling": SAMPLING}
    (selection_dataset / "flow_embeddings.h5").unlink()
    write_h5(selection_dataset / "ak_train_clip_embeddings.h5", videos, labels, **attributes, **TEACHER)
    write_rgb(selection_dataset / "ak_val_clip_embeddings.h5", range(24, 48))
    write_selection([n for n in numbers if n % 4 == 0])
    epochs = {}
    for protocol, monitor_split in (("held_out", "selection"), ("published", "val")):
        folder = main(
            [*train_command("rgb", "--checkpoints-dir", protocol), f"data.protocol={protocol}", "training.epochs=6"]
        )
        scores = [float(row[f"{monitor_split}_map_micro"]) for row in read_csv(folder / "metrics.csv")]
        epochs[protocol] = read_json(folder / "metrics.json")["epoch"]
        assert len(set(scores)) > 1 and epochs[protocol] == 1 + scores.index(max(scores))
    assert epochs["held_out"] < epochs["published"]


@pytest.mark.parametrize("broken", ["missing", "malformed"])
def test_val_file_is_not_opened_before_the_last_epoch(
    selection_dataset: Path, broken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    uninterrupted = main(train_command("cross_attention", "--checkpoints-dir", "uninterrupted"))
    val = selection_dataset / "ak_val_clip_embeddings.h5"
    val.rename("kept.h5")
    if broken == "malformed":
        val.write_text("no embeddings")
    with pytest.raises(UserError) as error:
        main(train_command())
    assert error.value.path == str(val) and error.value.hint.endswith(evaluation.RERUN_HINT)
    assert len(str(error.value).splitlines()) == 1
    folder = Path("checkpoints/TFAM/cross_attention/seed49")
    assert len(read_csv(folder / "metrics.csv")) == 3 and not (folder / "metrics.json").exists()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    Path("kept.h5").replace(val)
    capsys.readouterr()
    main(train_command())
    assert "train_loss" not in capsys.readouterr().out
    assert all((folder / name).read_bytes() == content for name, content in before.items())
    for name in ("metrics.csv", "predictions.csv", "selection_predictions.csv"):
        assert (folder / name).read_bytes() == (uninterrupted / name).read_bytes()
    one, other = (read_json(run / "metrics.json") | {"seconds": None} for run in (folder, uninterrupted))
    assert one == other


def test_default_protocol_depends_on_selection_txt(
    dataset: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = main(train_command("rgb"))
    out = capsys.readouterr().out
    assert "warning" in out and "python prepare_dataset.py selection" in out
    metrics = read_json(folder / "metrics.json")
    assert metrics["protocol"] == "published" and "selection" not in metrics
    assert not (folder / "selection_predictions.csv").exists()
    with pytest.raises(UserError) as error:
        main([*train_command("rgb", "--checkpoints-dir", "explicit"), "data.protocol=held_out"])
    assert error.value.path == str(ANNOTATIONS_DIR / "selection.txt")
    write_selection(SELECTION_NUMBERS)
    capsys.readouterr()
    main(train_command("rgb"))  # an existing run keeps its protocol
    assert "finished already (protocol published" in capsys.readouterr().out
    with pytest.raises(UserError) as error:
        main([*train_command("rgb"), "data.protocol=held_out"])
    assert all(text in error.value.problem for text in ("data.protocol", "published", str(folder)))
    assert read_json(main(train_command("motion")) / "metrics.json")["protocol"] == "held_out"


def test_annotations_dir_may_move(selection_dataset: Path) -> None:
    ANNOTATIONS_DIR.rename("elsewhere")
    folder = main([*train_command("rgb"), "data.annotations_dir=elsewhere"])
    assert read_json(folder / "metrics.json")["selection_num_videos"] == 3
    Path("elsewhere").rename("moved")
    assert main([*train_command("rgb"), "data.annotations_dir=moved"]) == folder
    (folder / "metrics.json").unlink()
    assert main([*train_command("rgb"), "data.annotations_dir=moved"]) == folder
    assert (folder / "metrics.json").is_file()


def test_run_resumes_only_with_its_selection_clips(selection_dataset: Path) -> None:
    folder = main(train_command())
    write_selection([1, 4, 7])
    with pytest.raises(UserError) as error:
        main(train_command())
    assert str(folder) in error.value.problem and "selection.txt" in error.value.problem
    (folder / "metrics.json").unlink()
    with pytest.raises(UserError) as error:
        main(train_command())
    assert str(folder / "last.pth") in error.value.problem and "selection" in error.value.problem
    with pytest.raises(UserError) as error:
        main([*train_command(), "data.protocol=published"])
    assert "data.protocol" in error.value.problem and "held_out" in error.value.problem
    write_selection([8, 4, 1])  # another order
    assert main(train_command()) == folder


def test_limit_applies_to_each_split(selection_dataset: Path) -> None:
    metrics = read_json(main(train_command("rgb", "--limit", "2")) / "metrics.json")
    assert (metrics["train_num_videos"], metrics["selection_num_videos"], metrics["num_videos"]) == (2, 2, 2)
    main(train_command("motion", "--dry-run", "--report", "report.json"))
    assert read_json(Path("report.json"))["estimate"]["units"] == 3 * (6 + 3 / 3) + 3 / 3


def test_selection_clips_without_motion_are_counted_and_named(
    selection_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_motion(selection_dataset / "flow_embeddings.h5", [n for n in range(15) if n != 4])
    metrics = read_json(main(train_command()) / "metrics.json")
    assert metrics["selection_num_videos"] == 2 and list(metrics["selection_left_out_videos"]) == ["V04.mp4"]
    assert metrics["train_left_out"] == 0 and "2 selection videos, 1 excluded" in capsys.readouterr().out


SELECTION_DIGEST = run_folder.digest([f"V{n:02}.mp4" for n in SELECTION_NUMBERS])


@pytest.mark.parametrize(
    ("student", "protocol", "agrees"),
    [
        ({"protocol": "held_out"}, "held_out", None),
        ({"protocol": "held_out", "selection": SELECTION_DIGEST}, "held_out", True),
        ({"protocol": "held_out", "selection": run_folder.digest(["V01.mp4"])}, "held_out", False),
        # the encoder was frozen
        (
            {
                "protocol": "held_out",
                "selection": run_folder.digest(["V01.mp4"]),
                "clip": {"weights_sha256": "student"},
            },
            "held_out",
            None,
        ),
        ({"protocol": "published"}, "published", None),
        ({}, "published", None),
        (None, None, None),
    ],
)
def test_student_that_was_not_held_out_gives_a_warning(
    selection_dataset: Path,
    student: dict[str, Any] | None,
    protocol: str | None,
    agrees: bool | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = selection_dataset / "flow_embeddings.h5"
    write_motion(path, range(15), student={"teacher": TEACHER} | (student or {}))
    if student is None:
        with h5py.File(path, "a") as file:
            del file.attrs["student"]
    metrics = read_json(main(train_command()) / "metrics.json")
    assert (metrics["student_protocol"], metrics["student_selection_agrees"]) == (protocol, agrees)
    is_warned = protocol != "held_out" or agrees is False
    warning = f"warning: {path}"
    assert (warning in capsys.readouterr().out) == is_warned
    if is_warned:  # but not if the run reads no motion
        assert read_json(main(train_command("rgb")) / "metrics.json")["student_protocol"] is None
        main(train_command("cross_attention_none"))
        assert warning not in capsys.readouterr().out


def write_labels(path: Path, labels: np.ndarray) -> None:
    """Give the nine training videos these labels (9, 3)."""
    with h5py.File(path, "r+") as file:
        for number, row in enumerate(labels):
            file[f"V{number:02}.mp4"]["labels"][...] = row


@pytest.mark.parametrize("protocol", ["held_out", "published"])
def test_split_without_labels_is_refused_before_training(protocol: str, selection_dataset: Path) -> None:
    labels = np.eye(3, dtype=np.float32)[np.arange(9) % 3]
    labels[SELECTION_NUMBERS] = 0
    write_labels(selection_dataset / "ak_train_clip_embeddings.h5", labels)
    if protocol == "published":
        val_path = selection_dataset / "ak_val_clip_embeddings.h5"
        with h5py.File(val_path, "r+") as file:
            for name in file:
                file[name]["labels"][...] = 0
    command = [*train_command("rgb"), KEEP_LAST_EPOCH, f"data.protocol={protocol}"]
    for flags in ([], ["--dry-run"]):
        with pytest.raises(UserError, match="selection" if protocol == "held_out" else "val") as caught:
            main([*command, *flags])
        assert ("prepare_dataset.py selection" in caught.value.hint) == (protocol == "held_out")
    assert not Path("checkpoints").exists()


def test_unlabelled_evaluation_split_is_named_before_training(
    selection_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The annotations say it, as the embeddings are opened after the last epoch."""
    path = ANNOTATIONS_DIR / "val_multi.txt"
    for text, is_named in (("V09.mp4\n", True), ("V09.mp4 0\n", False)):
        path.write_text(text)
        main([*train_command("rgb"), "--dry-run"])
        assert (f"warning: {path}" in capsys.readouterr().out) == is_named
    with h5py.File(selection_dataset / "ak_val_clip_embeddings.h5", "r+") as file:
        for name in file:
            file[name]["labels"][...] = 0
    with pytest.raises(TrainingError) as caught:
        main(train_command("rgb"))
    assert caught.value.hint.endswith(evaluation.RERUN_HINT)


def test_classes_without_a_video_are_named_before_training(
    selection_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Class 0 has no training video, class 1 only videos of the model-selection split, which lacks class 0."""
    labels = np.eye(3, dtype=np.float32)[np.full(9, 2)]
    labels[SELECTION_NUMBERS] = [0, 1, 1]
    write_labels(selection_dataset / "ak_train_clip_embeddings.h5", labels)
    main([*train_command("rgb"), KEEP_LAST_EPOCH])
    train_line, selection_line = (line for line in capsys.readouterr().out.splitlines() if "classes have no" in line)
    assert "2 of 3" in train_line and f"({CLASSES[0]}, {CLASSES[1]})" in train_line
    assert "1 of 3" in selection_line and f"({CLASSES[0]})" in selection_line


def test_seconds_sum_over_sessions(selection_dataset: Path) -> None:
    folder = main(train_command("rgb"))
    state = torch.load(folder / "last.pth", weights_only=True)
    assert state["seconds"] == pytest.approx(read_json(folder / "metrics.json")["seconds"], abs=0.06)
    torch.save(state | {"seconds": 1000.04}, folder / "last.pth")
    (folder / "metrics.json").unlink()
    main(train_command("rgb"))  # nothing is left to train
    assert read_json(folder / "metrics.json")["seconds"] == 1000.0
