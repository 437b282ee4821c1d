"""Training runs: their files, resuming, selection of the checkpoint, several configs."""

from pathlib import Path

import pytest
import torch
import yaml

from tests.conftest import lock_in_subprocess, modification_times
from tests.tfam.helpers import (
    CLASSES,
    TEACHER,
    have_same_weights,
    read_csv,
    read_json,
    train_command,
    write_motion,
    write_rgb,
)
from TFAM import table
from TFAM.train_and_eval import main
from vimoclip.errors import UserError
from vimoclip.io import predictions_csv
from vimoclip.runtime import cost_estimate
from vimoclip.training.losses import MULTI_LABEL_LOSSES


@pytest.mark.parametrize("loss", MULTI_LABEL_LOSSES)
def test_run_uses_the_requested_loss(dataset: Path, loss: str) -> None:
    folder = main([*train_command("rgb"), f"training.loss={loss}"])
    predictions = predictions_csv.read(folder / "predictions.csv")
    logits = torch.logit(torch.tensor(predictions.scores))
    targets = torch.eye(3, dtype=torch.float64)[[n % 3 for n in range(9, 15)]]
    assert read_json(folder / "metrics.json")["loss"] == pytest.approx(
        float(MULTI_LABEL_LOSSES[loss](logits, targets)), rel=1e-4
    )
    losses = [float(row["train_loss"]) for row in read_csv(folder / "metrics.csv")]
    assert losses[-1] < losses[0]


def test_run_writes_its_files(dataset, capsys):
    folder = main(train_command())
    assert folder == Path("checkpoints/TFAM/cross_attention/seed49")
    names = {"config.yaml", "best_model.pth", "last.pth", "metrics.csv", "metrics.json", "predictions.csv"}
    assert {path.name for path in folder.iterdir()} == names
    assert list(Path("logs/TFAM/cross_attention/seed49").glob("events*"))
    metrics = read_json(folder / "metrics.json")
    rows = read_csv(folder / "metrics.csv")
    best = max(rows, key=lambda row: float(row["val_map_micro"]))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"] and metrics["epoch"] == int(best["epoch"])
    assert metrics["map_micro"] == float(best["val_map_micro"]) and metrics["num_videos"] == 6
    assert metrics["epoch_chosen_by"] == "map_micro on the evaluation split"
    assert metrics["config"] == metrics["fusion"] == "cross_attention" and metrics["seed"] == 49
    predictions = read_csv(folder / "predictions.csv")
    assert [row["video_id"] for row in predictions] == [f"V{n:02}.mp4" for n in range(9, 15)]
    assert list(predictions[0]) == ["video_id", *CLASSES]
    checkpoint = torch.load(folder / "best_model.pth", weights_only=True)
    assert set(checkpoint) == {"state_dict", "config", "class_names", "epoch", "metrics", "versions"}
    assert checkpoint["config"]["inputs"]["rgb"]["clip_model"] == "ViT-B/32"
    assert checkpoint["config"]["inputs"]["motion"]["student"] == {"teacher": TEACHER}
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["training"]["lr"] == 0.01 and config["model"]["num_layers"] == 1

    before = (folder / "metrics.json").stat().st_mtime_ns
    capsys.readouterr()
    main(train_command())
    assert "finished already" in capsys.readouterr().out
    assert (folder / "metrics.json").stat().st_mtime_ns == before
    with pytest.raises(UserError) as error:
        main([*train_command(), "training.epochs=2"])
    assert str(folder) in error.value.problem and "training.epochs" in error.value.problem
    main([*train_command("cross_attention", "--overwrite"), "training.epochs=2"])
    assert len((folder / "metrics.csv").read_text().splitlines()) == 3

    assert table.main([]) == Path("TFAM/results/table.csv")
    (row,) = read_csv(Path("TFAM/results/table.csv"))
    assert list(row)[:3] == ["config", "seeds", "map_macro_mean"]
    assert row["paper_map_micro"] == "0.7709" and row["seeds"] == "1" and row["map_micro_std"] == ""
    assert "training.epochs=2" in Path("TFAM/results/table.md").read_text()


@pytest.mark.parametrize("file", ["ak_train_clip_embeddings.h5", "ak_val_clip_embeddings.h5", "flow_embeddings.h5"])
def test_finished_run_is_refused_with_other_embeddings_of_the_same_names(dataset, file):
    folder = main(train_command())
    write = write_motion if file.startswith("flow") else write_rgb
    numbers = {"ak_train_clip_embeddings.h5": range(9), "ak_val_clip_embeddings.h5": range(9, 15)}.get(file, range(15))
    (dataset / file).rename(dataset / "before.h5")
    write(dataset / file, numbers)
    assert main(train_command()) == folder  # written again with the same content
    (dataset / file).unlink()
    changes = {"informative": False} if write is write_rgb else {"lengths": {0: 7}}
    write(dataset / file, numbers, **changes)
    with pytest.raises(UserError) as error:
        main(train_command())
    assert all(text in error.value.problem for text in ("SHA-256", str(folder), file))
    (dataset / file).unlink()
    assert main(train_command()) == folder  # a finished run does not need the files


def test_run_resumes_only_with_its_validation_videos(dataset):
    last = main(train_command()) / "last.pth"
    (last.parent / "metrics.json").unlink()
    write_rgb(dataset / "ak_val_clip_embeddings.h5", range(9, 15), informative=False)
    with pytest.raises(UserError) as error:
        main(train_command())
    assert str(last) in error.value.problem and "validated_on" in error.value.problem


def test_second_process_on_a_run_is_refused(dataset):
    folder = Path("checkpoints/TFAM/cross_attention/seed49")
    with lock_in_subprocess(folder) as pid, pytest.raises(UserError) as error:
        main(train_command())
    assert error.value.path == str(folder) and f"process {pid}" in error.value.problem
    assert main(train_command()) == folder


def test_checkpoint_last_keeps_the_last_epoch(dataset):
    # with wrong labels, metrics decrease as the model learns
    write_rgb(dataset / "ak_val_clip_embeddings.h5", range(9, 15), label_shift=1)
    metrics, rows = {}, {}
    for checkpoint in ("best", "last"):
        folder = main([*train_command("rgb", "--checkpoints-dir", checkpoint), f"training.checkpoint={checkpoint}"])
        metrics[checkpoint] = read_json(folder / "metrics.json")
        rows[checkpoint] = read_csv(folder / "metrics.csv")
        state = torch.load(folder / "best_model.pth", weights_only=True)
        assert state["epoch"] == metrics[checkpoint]["epoch"]
        row = rows[checkpoint][metrics[checkpoint]["epoch"] - 1]
        assert metrics[checkpoint]["map_micro"] == float(row["val_map_micro"])
        assert metrics[checkpoint]["map_macro"] == float(row["val_map_macro"])
        again = main(["--evaluate", str(folder / "last.pth"), "--device", "cpu", "--results-dir", checkpoint])
        last = Path(checkpoint, "evaluate", "rgb-seed49-last", "predictions.csv").read_text()
        assert ((folder / "predictions.csv").read_text() == last) == (checkpoint == "last")
        assert (again["map_micro"] == metrics[checkpoint]["map_micro"]) == (checkpoint == "last")
        same_weights = have_same_weights(folder / "best_model.pth", folder / "last.pth")
        assert same_weights == (checkpoint == "last")
    assert rows["best"] == rows["last"]
    assert metrics["best"]["epoch"] < metrics["last"]["epoch"] == 3
    assert metrics["best"]["map_micro"] > metrics["last"]["map_micro"]
    assert metrics["best"]["epoch_chosen_by"] == "map_micro on the evaluation split"
    assert metrics["last"]["epoch_chosen_by"] == "being the last"


def test_first_config_names_the_run_and_later_configs_win(dataset):
    Path("second.yaml").write_text("{training: {epochs: 1, lr: 1.0e-3, weight_decay: 0.2}, model: {num_layers: 2}}\n")
    Path("third.yaml").write_text(
        "{training: {epochs: 2}, model: {num_layers: 1, num_heads: 4, dim_feedforward: 16}}\n"
    )
    configs = ["--config", "rgb_positions", "second.yaml", "--config", "third.yaml"]
    more = ["--num-workers", "0", "--device", "cpu", "--set", "model.num_heads=2", "model.normalize_inputs=true"]
    folder = main([*configs, *more])
    assert folder == Path("checkpoints/TFAM/rgb_positions/seed49")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["fusion"] == "rgb" and config["model"]["positions"] is True  # of the first
    assert config["training"]["lr"] == 1e-3 and config["training"]["weight_decay"] == 0.2  # of the second
    assert config["training"]["epochs"] == 2 and config["model"]["num_layers"] == 1  # of the third
    assert config["model"]["num_heads"] == 2  # of --set
    metrics = read_json(folder / "metrics.json")
    assert metrics["config"] == "rgb_positions" and metrics["settings"]["model.normalize_inputs"] is True
    evaluated = main(["--evaluate", str(folder / "best_model.pth"), "--device", "cpu", "--num-workers", "0"])
    assert evaluated["map_micro"] == metrics["map_micro"]
    with pytest.raises(UserError) as error:
        main(["--config", "rgb_positions", "third.yaml", "second.yaml", *more])
    assert "model.num_layers" in error.value.problem and str(folder) in error.value.problem


def test_report_counts_epochs_and_names_the_videos_that_are_left_out(dataset, monkeypatch):
    monkeypatch.setattr(cost_estimate, "PROBE_SECONDS", 0.1)
    write_motion(dataset / "flow_embeddings.h5", [n for n in range(15) if n not in (2, 12)])
    command = [*train_command("motion"), "training.batch_size=2", "--report", "report.json"]
    left_out = {"V02.mp4", "V12.mp4"}

    def report(*more):
        main([*command, *more])
        content = read_json(Path("report.json"))
        assert content["unit"] == "epoch" and content["skipped"].keys() == left_out and content["failed"] == {}
        return content

    planned = report("--dry-run")
    assert not Path("checkpoints").exists()
    assert (planned["done"], planned["already"], planned["pending"]) == (0, 0, 3)
    assert planned["estimate"]["units"] == pytest.approx(3 * (8 + 5 / 3) + 5 / 3) and planned["estimate"]["rate"] > 0
    trained = report()
    assert (trained["done"], trained["already"]) == (3, 0)
    folder = Path("checkpoints/TFAM/motion/seed49")
    assert trained["outputs"] == [str(folder)]
    assert (report()["done"], report()["already"]) == (0, 3)  # finished
    assert (report("--dry-run")["pending"], report()["pending"]) == (0, None)
    (folder / "metrics.json").unlink()  # as if stopped before the final evaluation
    before = modification_times(folder)
    planned = report("--dry-run")
    assert (planned["already"], planned["pending"], planned["estimate"]) == (3, 0, None)
    assert modification_times(folder) == before
    assert (report()["done"], report()["already"]) == (0, 3)
    evaluation = ["--evaluate", str(folder / "best_model.pth"), "--num-workers", "0", "--report", "report.json"]
    for more, done, pending in (["--dry-run"], 0, 5), ([], 5, None):
        assert not Path("TFAM").exists()
        main([*evaluation, *more])
        content = read_json(Path("report.json"))
        assert (content["unit"], content["done"], content["pending"]) == ("video", done, pending)
        assert content["skipped"].keys() == {"V12.mp4"}


def test_dry_run_and_limit(dataset, capsys):
    folder = main(train_command("motion", "--dry-run", "--limit", "2"))
    assert "2 train videos" in capsys.readouterr().out and not folder.exists()
    with pytest.raises(UserError) as error:
        main([*train_command("motion", "--dry-run"), "model.num_heads=3"])
    assert "num_heads" in error.value.problem
