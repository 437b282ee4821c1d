"""Runs that start from the weights of a trained model (--init)."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.tfam.helpers import (
    CLASSES,
    SAMPLING,
    assert_same_run,
    load_weights,
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
from vimoclip.training.trainer import Trainer

NEW_CLASSES = ["Running", "flying", "eating"]
NO_STEPS = ["training.lr=1e-30", "training.min_lr=0", "training.epochs=1"]
FLOW = {"method": "dis", "size": 35, "sampling": SAMPLING}
STUDENT: dict[str, Any] = {"teacher": {"clip_model": "ViT-B/32", "weights_sha256": "aa"}, "flow": FLOW}
REFUSED = {
    "--set model.num_layers=2": "model.num_layers",
    "--set model.num_heads=4": "model.num_heads",
    "--set model.positions=true": "model.positions",
    "--config rgb": "model.fusion",
    "--config probe_rgb": "probe_rgb",
    "--config probe_attentive": "model.fusion",
    "--evaluate pretrained/TFAM/cross_attention/seed49/best_model.pth": "--evaluate",
    "--set training.init=sha256:0123456789ab": "training.init",
    "--checkpoints-dir pretrained --overwrite": "--overwrite",
    "--checkpoints-dir pretrained": "training.init",
}


@pytest.fixture
def pretrained(dataset: Path) -> Path:
    """A run of cross_attention on the classes of the fixture `dataset`."""
    return main(train_command("cross_attention", "--checkpoints-dir", "pretrained"))


def init_command(source: Path | str, variant: str = "cross_attention", *more: str) -> list[str]:
    return [*train_command(variant, "--init", str(source)), *more]


def write_other_classes(folder: Path, **changes: Any) -> None:
    """Write other RGB embeddings, of NEW_CLASSES, two of which are those of the fixture `dataset`."""
    for split, numbers in (("train", range(9)), ("val", range(9, 15))):
        write_rgb(folder / f"ak_{split}_clip_embeddings.h5", numbers, **{"class_names": NEW_CLASSES} | changes)


def error_of(command: list[str]) -> UserError:
    with pytest.raises(UserError) as caught:
        main(command)
    return caught.value


@pytest.mark.parametrize("variant", ["cross_attention", "motion", "probe_attentive"])
def test_run_without_steps_predicts_what_its_model_does(dataset: Path, variant: str) -> None:
    source = main(train_command(variant, "--checkpoints-dir", "pretrained"))
    folder = main(init_command(source, variant, *NO_STEPS))
    expected, scores = (predictions_csv.read(run / "predictions.csv").scores for run in (source, folder))
    assert scores == pytest.approx(expected, abs=1e-6)
    other = main([*train_command(variant, "--checkpoints-dir", "fresh"), *NO_STEPS])
    assert predictions_csv.read(other / "predictions.csv").scores != pytest.approx(expected, abs=1e-3)
    metrics = read_json(folder / "metrics.json")
    assert metrics["init"]["shared_classes"] == CLASSES and metrics["init"]["new_classes"] == []
    assert "init" not in read_json(source / "metrics.json")


@pytest.mark.parametrize(
    ("variant", "last"), [("cross_attention", "classifier.4"), ("probe_attentive", "classifier.1")]
)
def test_rows_of_new_classes_start_from_random_weights(
    dataset: Path, variant: str, last: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = main(train_command(variant, "--checkpoints-dir", "pretrained"))
    write_other_classes(dataset)
    folder = main(init_command(source, variant, *NO_STEPS))
    fresh = main([*train_command(variant, "--checkpoints-dir", "fresh"), *NO_STEPS])
    weights, own, random = (load_weights(run / "best_model.pth") for run in (folder, source, fresh))
    for name in weights:
        if not name.startswith(last):
            assert torch.equal(weights[name], own[name]), name
            continue
        assert torch.equal(weights[name][0], own[name][CLASSES.index("running")])
        assert torch.equal(weights[name][2], own[name][CLASSES.index("eating")])
        assert torch.equal(weights[name][1], random[name][1])
        assert not torch.equal(weights[name][0], random[name][0])
    init = read_json(folder / "metrics.json")["init"]
    assert init["shared_classes"] == ["Running", "eating"] and init["new_classes"] == ["flying"]
    output = capsys.readouterr().out
    assert "flying" in output and "resting" in output  # a new class, and one of the model that the data lacks


def test_classes_without_names_are_not_taken_over(dataset: Path) -> None:
    for split in ("train", "val"):  # as in published files, whose classes have numbers
        numbers = range(9) if split == "train" else range(9, 15)
        write_rgb(dataset / f"ak_{split}_clip_embeddings.h5", numbers, class_names=[])
    source = main(train_command("rgb", "--checkpoints-dir", "pretrained"))
    folder = main(init_command(source, "rgb", *NO_STEPS))
    assert read_json(folder / "metrics.json")["init"]["shared_classes"] == []


def test_model_settings_are_those_of_the_weights(pretrained: Path) -> None:
    command = ["--config", "cross_attention", "--init", str(pretrained), "--num-workers", "0", "--device", "cpu"]
    folder = main([*command, "--set", "training.epochs=1", "model.dropout=0.3"])
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["num_layers"] == 1 and config["model"]["dim_feedforward"] == 16  # of TINY_RUN
    assert config["model"]["dropout"] == 0.3  # no weights depend on it
    evaluated = main(["--evaluate", str(folder / "best_model.pth"), "--device", "cpu", "--num-workers", "0"])
    assert evaluated["map_micro"] == read_json(folder / "metrics.json")["map_micro"]


def test_what_contradicts_the_model_is_refused(pretrained: Path) -> None:
    for change, name in REFUSED.items():
        assert name in error_of([*init_command(pretrained), *change.split()]).problem, change
    assert (pretrained / "metrics.json").is_file() and not Path("checkpoints").exists()


def test_missing_model_is_refused(dataset: Path) -> None:
    assert "missing" in str(error_of(init_command("missing")).path)


def test_linear_probe_is_no_initial_model(dataset: Path) -> None:
    probe = main(train_command("probe_rgb", "--checkpoints-dir", "pretrained"))
    assert "probe_rgb" in error_of(init_command(probe, "probe_rgb")).problem
    assert "model.fusion" in error_of(init_command(probe, "rgb")).problem


def test_embeddings_of_another_encoder_or_student_are_refused(dataset: Path) -> None:
    def write(rgb: dict[str, Any], motion: dict[str, Any]) -> None:
        write_other_classes(dataset, **{"resize": "model"} | rgb)
        teacher = STUDENT["teacher"] | {key: value for key, value in rgb.items() if key != "resize"}
        same = {"resize": rgb.get("resize", "model"), "student": STUDENT | {"teacher": teacher}}
        write_motion(dataset / "flow_embeddings.h5", range(15), **same | motion)

    write({}, {})
    source = main(train_command("cross_attention", "--checkpoints-dir", "pretrained"))
    changes: dict[str, Any]
    for changes in ({"clip_model": "ViT-B/16"}, {"weights_sha256": "bb"}, {"resize": "pad"}):
        write(changes, {})
        error = error_of(init_command(source))
        assert next(iter(changes)) in error.problem and "the rgb embeddings of" in error.problem
        assert "extract_embeddings.py" in error.hint
    other_flow = {"student": STUDENT | {"flow": FLOW | {"method": "farneback"}}}
    for name, changes in (("weights_sha256", {"weights_sha256": "another student"}), ("flow.method", other_flow)):
        write({}, changes)
        error = error_of(init_command(source))
        assert name in error.problem and "the motion embeddings of" in error.problem
        assert "extract_flows.py --model dis --size 35" in error.hint and "inference.py" in error.hint
    write({}, {})
    main(init_command(source))


def test_missing_embeddings_are_named_with_the_commands_that_compute_them(pretrained: Path, dataset: Path) -> None:
    (dataset / "flow_embeddings.h5").unlink()
    error = error_of(init_command(pretrained))
    assert str(error.path).endswith("flow_embeddings.h5") and "inference.py" in error.hint
    (dataset / "ak_train_clip_embeddings.h5").unlink()
    error = error_of(init_command(pretrained))
    assert "extract_embeddings.py --clip-model-name ViT-B/32 --stride 1" in error.hint


def test_other_sampling_is_trained_on_with_a_warning(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = main(train_command("rgb", "--checkpoints-dir", "pretrained"))
    main(init_command(source, "rgb"))
    assert "sampling" not in capsys.readouterr().out
    sampling = SAMPLING | {"stride": 4}
    write_other_classes(dataset, sampling=sampling)
    write_motion(dataset / "flow_embeddings.h5", range(15), sampling=sampling)
    main(init_command(source, "rgb", "--overwrite"))
    assert "sampling.stride" in capsys.readouterr().out


def test_run_resumes_from_its_last_epoch(pretrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = main(init_command(pretrained, "cross_attention", "--checkpoints-dir", "whole"))

    class StoppedError(Exception):
        pass

    def stop_after_save(trainer: Trainer) -> None:
        save(trainer)
        raise StoppedError

    save = Trainer.save
    for command, source in (
        (init_command(pretrained), None),
        (["--resume", "checkpoints/TFAM/cross_attention/seed49"], pretrained),
    ):
        with monkeypatch.context() as patch, pytest.raises(StoppedError):
            patch.setattr(Trainer, "save", stop_after_save)
            main(init_command(pretrained, "cross_attention", "--overwrite"))
        if source:  # no longer needed
            source.rename("elsewhere")
        resumed = main([*command, "--num-workers", "0", "--device", "cpu"])
        assert_same_run(resumed, expected)
    other = main(train_command("cross_attention", "--checkpoints-dir", "other", "--seed", "50"))
    (resumed / "metrics.json").unlink()
    for command in (
        init_command(other),
        train_command(),
        ["--resume", str(resumed), "--init", str(other), "--num-workers", "0"],
    ):
        assert "training.init" in error_of(command).problem
    (resumed / "last.pth").unlink()
    assert "training.init" in error_of(["--resume", str(resumed), "--num-workers", "0"]).problem


def test_seeds_and_shots_start_from_the_same_weights(pretrained: Path, dataset: Path) -> None:
    write_other_classes(dataset)
    command = [*init_command(pretrained, "cross_attention", *NO_STEPS), "--seed", "1", "2", "--shots", "1", "2"]
    assert main([*command, "--dry-run"]) == Path("checkpoints/TFAM/cross_attention/seed2_shots2")
    assert not Path("checkpoints").exists()
    main(command)
    weights = {
        run.name: load_weights(run / "best_model.pth") for run in Path("checkpoints/TFAM/cross_attention").iterdir()
    }
    assert set(weights) == {"seed1_shots1", "seed1_shots2", "seed2_shots1", "seed2_shots2"}
    first, second = weights["seed1_shots1"], weights["seed2_shots2"]
    assert {name for name in first if not torch.equal(first[name], second[name])} == {
        "classifier.4.weight",
        "classifier.4.bias",
    }
    assert torch.equal(first["classifier.4.weight"][0], second["classifier.4.weight"][0])  # running


def test_table_has_a_row_for_runs_from_each_model(pretrained: Path) -> None:
    main(train_command())
    for seed in ("1", "2"):
        main(init_command(pretrained, "cross_attention", "--seed", seed))
    other = main(train_command("cross_attention", "--checkpoints-dir", "other", "--seed", "50"))
    main(init_command(other, "cross_attention", "--seed", "3"))
    rows = read_csv(table.main(["--resamples", "0"]))
    seeds = {row["settings"].partition("training.init=")[2].split(" ")[0]: row["seeds"] for row in rows}
    assert sorted(seeds.values()) == ["1", "1", "2"] and seeds[""] == "1"
    assert all(bool(row["paper_map_micro"]) == ("training.init" not in row["settings"]) for row in rows)
    text = Path("TFAM/results/table.md").read_text()
    assert "cross_attention/seed49" in text and "cross_attention/seed50" in text
