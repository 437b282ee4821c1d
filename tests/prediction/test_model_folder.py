"""Models of export_model.py: complete in themselves, with the numbers of their run, and refused if they don't fit."""

import contextlib
import errno
import json
import math
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.conftest import CLASSES, REPOSITORY
from tests.prediction.helpers import FUSION_ARGS, copy_run, predict, predict_error, read_json, write_calibration
from vimoclip import model_folder
from vimoclip.errors import UserError
from vimoclip.io import atomic

RUN, STUDENT = "checkpoints/TFAM/cross_attention/seed49", ["--student", "checkpoints/student"]
VIDEO = "dataset/videos/clip3.mp4"
WINDOWS = ["--window", "0.3", "--stride-seconds", "0.1"]
FILES = ["clip3.csv", "clip3_windows.csv", "clip3.boris.tsv", "ethogram.csv"]


def export(root: Path, run: str | Path, output: Path, *flags: str, clip: str = "local-dir:tinyclip") -> Path:
    import export_model

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        export_model.main([str(run), "-o", str(output), *(["--clip-model-name", clip] if clip else []), *flags])
    return output


@pytest.fixture(scope="module")
def model(chain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a calibration of Platt, and windows that fit the short clips."""
    folder = tmp_path_factory.mktemp("exported")
    run = write_calibration(copy_run(chain, "cross_attention", folder / "TFAM" / "cross_attention" / "seed49"))
    return export(chain, run, folder / "model", *STUDENT, *WINDOWS)


@pytest.fixture
def copied(model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(model, tmp_path / "copied")


def change_config(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    config = read_json(folder / "config.json")
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def results(folder: Path) -> dict[str, Any]:
    """Return the content of the files of a prediction, but for the path of the video."""
    texts = {name: (folder / name).read_text() for name in FILES}
    return texts | {"json": read_json(folder / "clip3.json") | {"path": None}}


@pytest.mark.parametrize("flags", [[], ["--raw"]])
def test_a_model_gives_the_numbers_of_its_run(chain: Path, model: Path, flags: list[str], tmp_path: Path) -> None:
    """In a folder with nothing but the video, where the encoder of the run can't be found."""
    run = model.parent / "TFAM" / "cross_attention" / "seed49"
    command = ["--tfam", str(run), *STUDENT, *WINDOWS, *flags]
    predict(chain, VIDEO, *command, "-o", str(tmp_path / "of_run"))
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(chain / VIDEO, empty)
    predict(empty, "clip3.mp4", "--model", str(model), *flags, "-o", "predictions", clip="")
    found = results(empty / "predictions")
    assert found == results(tmp_path / "of_run")
    assert found["json"]["made_with"]["tfam"] == "cross_attention/seed49/best_model.pth"
    assert (found["json"]["made_with"]["calibration"] == "platt") == (flags == [])
    assert len(found["json"]["scores"]) > 3  # windows of 0.3 s, as exported


@pytest.mark.parametrize("config", ["rgb", "motion", "concat_time", "probe_both"])
def test_models_of_all_kinds(chain: Path, config: str, tmp_path: Path) -> None:
    student = [] if config == "rgb" else STUDENT
    run = f"checkpoints/TFAM/{config}/seed49"
    folder = export(chain, run, tmp_path / "model", *student)
    predict(chain, VIDEO, "--tfam", run, *student, "-o", str(tmp_path / "of_run"))
    (tmp_path / "empty").mkdir()
    predict(tmp_path / "empty", str(chain / VIDEO), "--model", str(folder), "-o", "predictions", clip="")
    assert results(tmp_path / "empty" / "predictions") == results(tmp_path / "of_run")
    parts = {name.partition(".")[0] for name in load_file(folder / "model.safetensors")}
    expected = {"rgb": {"fusion", "encoder"}, "motion": {"fusion", "student"}}
    assert parts == expected.get(config, {"fusion", "student", "encoder"})


def test_config_json_describes_the_model(chain: Path, model: Path) -> None:
    config = read_json(model / "config.json")
    run = model.parent / "TFAM" / "cross_attention" / "seed49"
    assert (config["format"], config["schema"], config["classes"]) == ("vimoclip", 1, list(CLASSES))
    assert config["thresholds"] == {"walking": 0.6, "running": 0.3, "eating": 0.7}
    assert config["raw_thresholds"] == read_json(run / "metrics.json")["thresholds"]
    assert config["calibration"] == read_json(run / "calibration.json")
    assert config["sampling"] == {"stride": 2, "fps": None, "max_frames": None}
    assert config["flow"]["method"] == "dis" and config["flow"]["size"] == 35
    assert config["window"] == {"seconds": 0.3, "stride_seconds": 0.1}
    assert config["backbone"]["clip_model"] == "local-dir:tinyclip" and len(config["backbone"]["weights_sha256"]) == 64
    assert config["versions"]["training"]["torch"] == config["versions"]["export"]["torch"] == version("torch")
    for text in map(Path.read_bytes, (path for path in model.rglob("*") if path.is_file())):
        assert not any(str(place).encode() in text for place in (chain, model.parent, Path.home()))


def test_the_name_of_a_run_elsewhere_has_no_folder_of_its_owner(chain: Path, tmp_path: Path) -> None:
    run = copy_run(chain, "rgb", tmp_path / "anna" / "run1")
    config = read_json(export(chain, run, tmp_path / "model") / "config.json")
    assert config["fusion"]["name"] == "run1/best_model.pth"


def test_a_model_from_the_cache_of_the_hub_needs_no_network(chain: Path, model: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--anna--zebras"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123abc")
    shutil.copytree(model, repository / "snapshots" / "0123abc")
    (tmp_path / "empty").mkdir()
    command = [str(chain / VIDEO), "--model", "hf-hub:anna/zebras", "-o", "predictions", "--num-workers", "0"]
    completed = subprocess.run(
        [sys.executable, REPOSITORY / "predict.py", *command],
        cwd=tmp_path / "empty",
        env=os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert completed.returncode == 0, completed.stderr
    predict(tmp_path, str(chain / VIDEO), "--model", str(model), "-o", "of_folder", clip="")
    assert results(tmp_path / "empty" / "predictions") == results(tmp_path / "of_folder")


def test_a_frozen_student_is_stored_once(chain: Path, tmp_path: Path) -> None:
    """Its image tower is the encoder's."""
    with pytest.MonkeyPatch.context() as patch:
        import inference
        import train
        from TFAM import train_and_eval

        shutil.copytree(chain / "dataset", tmp_path / "dataset", symlinks=True)
        shutil.copytree(chain / "tinyclip", tmp_path / "tinyclip")
        patch.chdir(tmp_path)
        student = ["--clip-model-name", "local-dir:tinyclip", "--epochs", "1", "--freeze-encoder", "--run-name", "s"]
        train.main([*student, "--num-workers", "0"])
        inference.main(["--checkpoint-dir", "checkpoints/s", "--overwrite"])
        small = ["model.num_heads=4", "model.num_layers=1", "model.dim_feedforward=16", "training.epochs=1"]
        train_and_eval.main(["--config", "cross_attention", "--num-workers", "0", "--set", *small])
    command = ["--student", "checkpoints/s", *WINDOWS]
    folder = export(tmp_path, RUN, tmp_path / "model", *command)
    tensors = load_file(folder / "model.safetensors")
    assert any(name.startswith("student.residual_mlp.") for name in tensors)
    assert not any(name.startswith("student.visual_encoder.") for name in tensors)
    predict(tmp_path, VIDEO, "--tfam", RUN, *command, "-o", str(tmp_path / "of_run"))
    predict(tmp_path, VIDEO, "--model", str(folder), "-o", str(tmp_path / "of_model"), clip="")
    assert results(tmp_path / "of_model") == results(tmp_path / "of_run")
    with pytest.raises(UserError, match="--without-encoder"):
        export(tmp_path, RUN, tmp_path / "other", *command, "--without-encoder")


def test_a_model_without_its_encoder_needs_it_by_name(chain: Path, model: Path, tmp_path: Path) -> None:
    run = model.parent / "TFAM" / "cross_attention" / "seed49"
    folder = export(chain, run, tmp_path / "model", *STUDENT, *WINDOWS, "--without-encoder")
    size = (folder / "model.safetensors").stat().st_size
    assert size < (model / "model.safetensors").stat().st_size
    (tmp_path / "empty").mkdir()
    error = predict_error(tmp_path / "empty", str(chain / VIDEO), "--model", str(folder), clip="")
    assert "--clip-model-name" in error.hint
    predict(chain, VIDEO, "--model", str(folder), "-o", str(tmp_path / "without"))
    predict(chain, VIDEO, "--model", str(model), "-o", str(tmp_path / "with"), clip="")
    assert results(tmp_path / "without") == results(tmp_path / "with")


def test_a_result_is_continued_by_the_exported_model(chain: Path, model: Path, tmp_path: Path) -> None:
    run = model.parent / "TFAM" / "cross_attention" / "seed49"
    predict(chain, VIDEO, "--tfam", str(run), *STUDENT, *WINDOWS, "-o", str(tmp_path))
    report = predict(chain, VIDEO, "--model", str(model), "-o", str(tmp_path), clip="")
    assert (report.done, report.already_done) == (0, 1)


def remove_window(config: dict[str, Any]) -> None:
    del config["window"]


def rgb_inputs(config: dict[str, Any]) -> dict[str, Any]:
    return config["fusion"]["config"]["inputs"]["rgb"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda config: config.update(schema=2), "schema"),
        (lambda config: config.update(format="another"), "config.json"),
        (remove_window, "window"),
        (lambda config: config["window"].update(seconds=-1), "window"),
        (lambda config: config["window"].update(seconds="Infinity"), "window"),
        (lambda config: config.update(fusion=None), "config.json"),
        (lambda config: config["fusion"]["config"].pop("inputs"), "config.json"),
        (lambda config: config["fusion"].update(weights_sha256="0" * 64), "weights"),
        (lambda config: config.update(classes=["walking"]), "classes"),
        (lambda config: config["backbone"].update(architecture=None), "config"),
        (lambda config: config["backbone"].update(image_size=[10**6, 10**6]), "image_size"),
        (lambda config: config["backbone"]["architecture"]["vision_cfg"].update(layers=1), "tensors"),
        (lambda config: config["backbone"].update(mean=[0.5, 0.5, 0.5]), "mean"),
        (lambda config: config["backbone"].update(interpolation="bilinear"), "interpolation"),
        (lambda config: config["backbone"]["architecture"].update(quick_gelu=True), "quick_gelu"),
        (lambda config: config["student"]["clip"].update(std=[0.5, 0.5, 0.5]), "std"),
        (lambda config: config["student"]["clip"]["architecture"].update(quick_gelu=True), "quick_gelu"),
        (lambda config: config.update(student=None), "student"),
        (lambda config: config.update(calibration={"schema": 1}), "calibration"),
        (lambda config: config.update(raw_thresholds=[0.5]), "raw_thresholds"),
        (lambda config: config["raw_thresholds"].update(walking="x"), "config.json"),
        (lambda config: config["calibration"].update(num_videos=math.inf), "calibration"),
        (lambda config: rgb_inputs(config).update(sampling={"stride": 0}), "stride"),
        (lambda config: rgb_inputs(config).update(geometry="x"), "config"),
        (lambda config: rgb_inputs(config).update(clip_model=None), "config"),
        (lambda config: config["fusion"]["config"]["inputs"]["motion"].update(student=None), "student"),
        (lambda config: config["fusion"]["config"]["model"].update(fusion="x"), "config"),
        (lambda config: config["fusion"]["config"]["model"].update(num_heads=0), "config"),
        (lambda config: config["student"]["flow"].update(flow_max="x"), "flow_max"),
        (lambda config: config["student"]["flow"].pop("iters"), "iters"),
    ],
)
def test_changed_models_are_refused(
    chain: Path, copied: Path, change: Callable[[dict[str, Any]], None], named: str, tmp_path: Path
) -> None:
    change_config(copied, change)
    error = predict_error(tmp_path, str(chain / VIDEO), "--model", str(copied), clip="")
    assert named in str(error) and str(copied) in str(error)


@pytest.mark.parametrize(
    ("place", "key"),
    [
        (("fusion", "config", "model"), "num_layers"),
        (("fusion", "config", "model"), "dim_feedforward"),
        (("backbone", "architecture", "vision_cfg"), "layers"),
        (("backbone", "architecture", "vision_cfg"), "width"),
        (("student", "clip", "architecture", "vision_cfg"), "layers"),
        (("student", "clip", "architecture", "vision_cfg"), "image_size"),
    ],
)
def test_a_config_that_asks_for_much_memory_is_refused_before_it_is_used(
    chain: Path, copied: Path, place: tuple[str, ...], key: str, tmp_path: Path
) -> None:
    def enlarge(config: dict[str, Any]) -> None:
        for name in place:
            config = config[name]
        config[key] = 4 * 10**6

    change_config(copied, enlarge)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    predict_error(tmp_path, str(chain / VIDEO), "--model", str(copied), clip="")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert used < 2**18, f"{used} KiB"  # Linux


def leaves(config: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each mapping or list in a document with each of its keys."""
    for key in list(config) if isinstance(config, dict) else range(len(config)):
        yield config, key
        if isinstance(config[key], dict | list):
            yield from leaves(config[key])


def test_any_damaged_value_is_refused_or_does_no_harm(chain: Path, model: Path, copied: Path) -> None:
    """No value of config.json gives another error than UserError: 60 of them, replaced by one of another type."""
    import predict as script

    rng = random.Random(0)
    names = ("classes", "raw_thresholds", "calibration", "window", "backbone", "student", "fusion")
    text = (model / "config.json").read_text()
    for _ in range(60):
        config = json.loads(text)
        parts = {name: config[name] for name in names}
        parent, key = rng.choice(list(leaves(parts)))
        parent[key] = rng.choice([None, "x", -1, 0, 10**9, math.inf, math.nan, [], {}])
        (copied / "config.json").write_text(json.dumps(config | parts))
        args = script.parse_arguments([str(chain / VIDEO), "--model", str(copied), "--device", "cpu"])
        with contextlib.suppress(UserError):
            script.use_model_folder(args)
            script.load_model(args, script.resolve_compute_options(args))


def test_a_newer_schema_is_refused_by_name(chain: Path, copied: Path, tmp_path: Path) -> None:
    change_config(copied, lambda config: config.update(schema=7))
    error = predict_error(tmp_path, str(chain / VIDEO), "--model", str(copied), clip="")
    assert "7" in error.problem and str(model_folder.SCHEMA) in error.problem


@pytest.mark.parametrize("part", ["fusion", "student", "encoder"])
def test_other_weights_than_those_of_the_training_are_refused(
    chain: Path, copied: Path, part: str, tmp_path: Path
) -> None:
    tensors = load_file(copied / "model.safetensors")
    name = next(name for name in tensors if name.startswith(f"{part}.") and "head" not in name and "mlp" not in name)
    save_file(tensors | {name: tensors[name] + 1}, copied / "model.safetensors")
    error = predict_error(tmp_path, str(chain / VIDEO), "--model", str(copied), clip="")
    assert "weights" in error.problem


def test_damaged_and_missing_weights_are_refused(chain: Path, copied: Path, tmp_path: Path) -> None:
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert str(weights) in str(predict_error(tmp_path, str(chain / VIDEO), "--model", str(copied), clip=""))
    weights.unlink()
    assert str(weights) in str(predict_error(tmp_path, str(chain / VIDEO), "--model", str(copied), clip=""))


@pytest.mark.parametrize("name", ["hf-hub:anna", "hf-hub:", "hf-hub:a/b/c", "nowhere", RUN, "dataset"])
def test_names_that_are_no_model(chain: Path, name: str) -> None:
    assert predict_error(chain, VIDEO, "--model", name, clip="").hint


@pytest.mark.parametrize(
    "flags",
    [FUSION_ARGS, ["--student", "checkpoints/student"], ["--labels", "running"], ["--fps", "3"]],
)
def test_flags_that_a_model_excludes(chain: Path, model: Path, flags: list[str]) -> None:
    predict_error(chain, VIDEO, "--model", str(model), *flags, clip="")
    predict_error(chain, VIDEO, "--model", str(model))  # with another encoder


def test_what_can_not_be_exported(chain: Path, tmp_path: Path) -> None:
    def error(run: Path | str, *flags: str, output: Path = tmp_path / "model") -> UserError:
        with pytest.raises(UserError) as caught:
            export(chain, run, output, *flags)
        assert not (output / "config.json").exists() or output.name == "existing"
        return caught.value

    assert "--student" in error(RUN).hint
    assert "best_model.pth" in error("checkpoints/student").problem
    unfinished = copy_run(chain, "cross_attention", tmp_path / "unfinished")
    (unfinished / "metrics.json").unlink()
    assert "metrics.json" in error(unfinished, *STUDENT).problem
    shuffled = copy_run(
        chain, "cross_attention", tmp_path / "s", lambda s: s["config"]["data"].update(motion="shuffled")
    )
    assert "shuffled" in error(shuffled, *STUDENT).problem
    assert "nowhere" in str(error(RUN, "--student", "nowhere"))
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "notes.txt").write_text("mine")
    assert str(occupied) in str(error(RUN, *STUDENT, output=occupied))
    assert [path.name for path in occupied.iterdir()] == ["notes.txt"]
    existing = export(chain, RUN, tmp_path / "existing", *STUDENT)
    before = (existing / "config.json").read_text()
    assert "--overwrite" in error(RUN, *STUDENT, *WINDOWS, output=existing).hint
    assert (existing / "config.json").read_text() == before
    export(chain, RUN, existing, *STUDENT, *WINDOWS, "--overwrite")
    assert read_json(existing / "config.json")["window"]["seconds"] == 0.3


@pytest.mark.parametrize("fails", ["model.safetensors", "README.md", "config.json"])
def test_an_interrupted_export_keeps_the_earlier_model_or_can_be_repeated(
    chain: Path, copied: Path, fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earlier model remains as it was until the new weights are complete on the disk."""
    before = {path.name: path.read_bytes() for path in copied.iterdir()}
    with monkeypatch.context() as patch:
        write, error = atomic.AtomicFile.write, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        patch.setattr(
            atomic.AtomicFile,
            "write",
            lambda file, data: write(file, data) if file.path.name != fails else setattr(file, "_error", error),
        )
        with pytest.raises(OSError, match=fails):
            export(chain, "checkpoints/TFAM/rgb/seed49", copied, "--overwrite")
    if fails == "model.safetensors":
        assert {path.name: path.read_bytes() for path in copied.iterdir()} == before
    else:
        assert not (copied / "config.json").exists()
        with pytest.raises(UserError) as caught:
            export(chain, "checkpoints/TFAM/rgb/seed49", copied)
        assert "--overwrite" in caught.value.hint
    export(chain, "checkpoints/TFAM/rgb/seed49", copied, "--overwrite")
    assert read_json(copied / "config.json")["fusion"]["name"] == "rgb/seed49/best_model.pth"


def test_a_first_export_that_was_killed_can_be_repeated(chain: Path, tmp_path: Path) -> None:
    (tmp_path / ".model.safetensors.partial").write_bytes(b"half")
    export(chain, "checkpoints/TFAM/rgb/seed49", tmp_path, "--overwrite")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("LICENSE-ViMoCLIP.txt", "README.md", "config.json", "model.safetensors")
    ]
