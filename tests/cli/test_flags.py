"""Each flag of each script changes its files, stdout, batch sizes or seed, or is refused."""

import argparse
import hashlib
import importlib
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
import yaml

import extract_embeddings
import extract_flows
import inference
import predict
import train
from tests.conftest import REPOSITORY, moving_frames, write_annotations, write_video
from TFAM import train_and_eval
from vimoclip import clip, video
from vimoclip.errors import UserError
from vimoclip.extraction import embeddings
from vimoclip.training import checkpoint

MainFunction = Callable[[list[str]], Any]
TRAIN = ["--epochs", "2", "--batch-size", "4", "--sequence-length", "6", "--num-workers", "0", "--run-name", "run"]
FLOW = ["--model", "dis", "--num-workers", "0"]


@pytest.fixture(scope="module")
def chain(tiny_clip: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the outputs of all scripts; each test works on a copy. `trained`: a copy
    of a run; `elsewhere`: the data set without t0.mp4."""
    root = tmp_path_factory.mktemp("chain")
    splits = {"train": {f"t{i}.mp4": (i % 3,) for i in range(4)}, "val": {f"v{i}.mp4": (i,) for i in range(3)}}
    for videos in splits.values():
        for i, name in enumerate(videos):
            frames = moving_frames(9 + i, (i + 1, 1 - i), 32, 44, seed=i)
            write_video(root / "dataset" / "videos" / name, frames, lossless=False)
    write_annotations(root / "dataset" / "annotations", splits)
    (root / "tinyclip").symlink_to(tiny_clip.removeprefix("local-dir:"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        extract_embeddings.main(["--clip-model-name", "local-dir:tinyclip"])
        extract_flows.main(FLOW)
        train.main(TRAIN)
        inference.main(["--checkpoint-dir", "checkpoints/run"])
        train_and_eval.main([*CONFIG, "--set", *SMALL])
        train_and_eval.main([*CONFIG, "--seed", "50", "--set", *SMALL])
        predict.main(PREDICT)
    shutil.copytree(root / RUN, root / "trained")
    shutil.copytree(root / "dataset", root / "elsewhere", ignore=shutil.ignore_patterns("t0.mp4", "embeddings"))
    return root


def folder_contents(root: Path, start: float) -> dict[str, str]:
    """Return the content or hash of every file that was written since `start`, "" for the older ones, by path.

    Versions and TensorBoard events are left out."""
    contents = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file() and "tfevents" not in p.name):
        name = path.relative_to(root).as_posix()
        if path.stat().st_mtime < start:
            contents[name] = ""
        elif path.suffix == ".h5":
            with h5py.File(path) as file:
                parts = [f"{k}={v}" for k, v in sorted(file.attrs.items()) if k != "versions"]
                file.visititems(
                    lambda n, o, p=parts: p.append(f"{n} {o[()].tobytes()!r}" if hasattr(o, "dtype") else n)
                )
            contents[name] = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        elif path.suffix == ".pth":
            state = torch.load(path, weights_only=True)["state_dict"]
            contents[name] = hashlib.sha256(b"".join(t.numpy().tobytes() for t in state.values())).hexdigest()
        elif path.suffix in (".json", ".jsonl"):  # hold durations, and every flag
            contents[name] = re.sub(r'"seconds": [\d.]+|"command": "[^"]*"', "", path.read_text(encoding="utf-8"))
        elif path.name == "report.html":  # holds every flag
            contents[name] = re.sub("Made by <code>.*?</code>", "", path.read_text(encoding="utf-8"))
        elif path.name != "args.yaml":  # holds every flag
            contents[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    logs = [path.parent.relative_to(root).as_posix() for path in root.rglob("*tfevents*")]
    return contents | {"logs": " ".join(sorted(set(logs)))}


def observe(
    main: MainFunction, argv: list[str], root: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> dict[str, Any]:
    batches: list[Any] = []

    def record_calls(module: Any, name: str, describe: Callable[..., Any]) -> None:
        real = getattr(module, name)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            batches.append(describe(*args, **kwargs))
            return real(*args, **kwargs)

        patch.setattr(module, name, wrapper)

    record_calls(clip, "BatchEncoder", lambda encode, size, **_: ("frames", size))
    record_calls(
        video,
        "prefetch_videos",
        lambda readers, convert, workers, ahead=2, depth=4: ("workers", workers, "videos", ahead),
    )
    record_calls(video, "VideoReader", lambda path, size, *a, **k: ("decoded", size))
    record_calls(checkpoint, "save_checkpoint", lambda path, content: ("saved", path.name))
    patch.setattr(embeddings, "CHUNK_FRAMES", 8)
    patch.chdir(root)
    patch.setenv("https_proxy", "http://127.0.0.1:9")  # no downloads
    torch.manual_seed(1)
    start = time.time()
    try:
        main(argv)
        stdout = capsys.readouterr().out
    except (UserError, SystemExit) as error:
        stdout = f"refused: {error}"
    return {
        "stdout": re.sub(r"\b\d+ s\b", "", stdout),
        "files": folder_contents(root, start),
        "batches": sorted(map(str, batches)),
        "seed": torch.initial_seed(),
    }


# flag -> its value, or a list of the value and arguments of both command lines
EMBEDDINGS: dict[str, Any] = {
    "--split": "val",
    "--videos-dir": "elsewhere/videos",
    "--output-dir": "out",
    "--resize": "squash",
    "--frame-batch-size": "3",
    "--backend": None,  # clip/test_encoder.py
    "--embedding-dtype": "float16",
    "--clip-model-name": "ViT-B/33",
    "--clip-pretrained": ["nonsense", "--clip-model-name", "ViT-B/32"],
    "--stride": "2",
    "--fps": "5",
    "--max-frames": "3",
    "--deinterlace": "auto",
    "--dataset-dir": "elsewhere",
    "--dataset-name": "zoo",
    "--device": "cuda:7",
    "--precision": "bf16",
    "--num-workers": "1",
    "--seed": "7",
    "--retry-failed": None,  # of videos that fail: extraction/test_video_status.py
    "--strict": None,
    "--shard": "1/2",
    "--merge": [],
    "--limit": "2",
    "--overwrite": [],
    "--dry-run": [],
    "--report": "report.json",
}
FLOWS: dict[str, Any] = {
    "--videos-dir": "elsewhere/videos",
    "--output-dir": "out",
    "--model": "farneback",
    "--ckpt-path": ["nonsense", "--model", "raft"],
    "--size": "16",
    "--iters": "3",
    "--dis-preset": "fast",
    "--flow-normalization": "linear",
    "--flow-max": ["0.01", "--flow-normalization", "linear"],
    "--lossless": [],
    "--pair-batch-size": "3",
    "--stride": "2",
    "--fps": "5",
    "--max-frames": "3",
    "--deinterlace": "auto",
    "--dataset-dir": "elsewhere",
    "--device": "cuda:7",
    "--precision": None,  # of a learned model: the test below
    "--num-workers": "1",
    "--seed": "7",
    "--retry-failed": None,  # of videos that fail: extraction/test_video_status.py
    "--strict": None,
    "--shard": "1/2",
    "--merge": [],
    "--limit": "2",
    "--overwrite": [],
    "--dry-run": [],
    "--report": "report.json",
}
TRAINING: dict[str, Any] = {
    "--train-hdf5-path": "dataset/embeddings/ak_val_clip_embeddings.h5",
    "--val-hdf5-path": "dataset/embeddings/ak_train_clip_embeddings.h5",
    "--protocol": "held_out",
    "--shots": "1",
    "--flow-videos-dir": "dataset/videos",
    "--videos-dir": None,  # only TensorBoard's panel: chain/test_training.py tests it
    "--num-classes": "140",
    "--sequence-length": "4",
    "--cache-frames": "dataset/prepared",
    "--distillation-loss-mode": "mse",
    "--distillation-weight": "0.5",
    "--residual-alpha": "0.5",
    "--class-positive-weight": "2",
    "--freeze-encoder": [],
    "--epochs": "2",
    "--batch-size": "2",
    "--micro-batch-size": "1",
    "--compile": [],
    "--learning-rate": "1e-4",
    "--encoder-learning-rate": "1e-5",
    "--warmup-steps": "9",
    "--weight-decay": "0.1",
    "--grad-clip-norm": "0.01",
    "--early-stopping-patience": ["1", "--learning-rate", "0.5", "--epochs", "5"],
    "--checkpoints-dir": "out",
    "--logs-dir": "out",
    "--run-name": "another",
    "--resume": "checkpoints/run",
    "--save-every-minutes": "0",
    "--clip-model-name": "ViT-B/33",
    "--clip-pretrained": ["nonsense", "--clip-model-name", "ViT-B/32"],
    "--dataset-dir": "elsewhere",
    "--dataset-name": "zoo",
    "--device": "cuda:7",
    "--precision": "bf16",
    "--num-workers": "1000",
    "--seed": "7",
    "--limit": "2",
    "--overwrite": [],
    "--dry-run": [],
    "--report": "report.json",
}
EXPORT: dict[str, Any] = {
    "--checkpoint-dir": "checkpoints/run/student_epoch_1.pth",
    "--flow-videos-dir": "elsewhere/flows",
    "--output-h5-path": "out/motion.h5",
    "--clip-model-name": "ViT-B/16",
    "--num-classes": "140",
    "--batch-size": "4",
    "--frame-batch-size": "3",
    "--backend": None,  # clip/test_encoder.py
    "--embedding-dtype": "float16",
    "--dataset-dir": "elsewhere",
    "--dataset-name": "zoo",
    "--device": "cuda:7",
    "--precision": "bf16",
    "--num-workers": "1",
    "--seed": "7",
    "--retry-failed": None,  # of videos that fail: extraction/test_video_status.py
    "--strict": None,
    "--shard": "1/2",
    "--merge": [],
    "--limit": "2",
    "--overwrite": [],
    "--dry-run": [],
    "--report": "report.json",
}
FUSED = "checkpoints/TFAM/cross_attention/seed49/best_model.pth"
SMALL = ["training.epochs=1", "model.num_heads=4", "model.num_layers=1", "model.dim_feedforward=64"]
FUSION: dict[str, Any] = {
    "--config": str(REPOSITORY / "TFAM" / "configs" / "rgb.yaml"),
    "--set": "model.dropout=0.3",
    "--evaluate": FUSED,
    "--resume": "checkpoints/TFAM/cross_attention/seed50",
    "--init": "trained",
    "--shots": "1",
    "--checkpoints-dir": "out",
    "--logs-dir": "out",
    "--results-dir": ["out", "--evaluate", FUSED],
    "--save-every-minutes": ["0", "--set", *SMALL, "training.batch_size=2"],  # several steps per epoch
    "--dataset-dir": "elsewhere",
    "--dataset-name": "zoo",
    "--device": "cuda:7",
    "--precision": "bf16",
    "--num-workers": "1000",
    "--seed": "7",
    "--limit": "2",
    "--overwrite": [],
    "--dry-run": [],
    "--report": "report.json",
}
RUN = "checkpoints/TFAM/cross_attention/seed49"
EVALUATION: dict[str, Any] = {
    "--annotations-dir": "elsewhere",
    "--dataset-name": "zoo",
    "--split": "train",
    "--logits": [],
    "--selection-predictions": f"{RUN}/predictions.csv",
    "--raw": [],
    "--allow-missing": None,  # of predictions that miss clips: evaluation/evaluation/test_evaluate.py
    "--compare": "checkpoints/TFAM/cross_attention/seed50",
    "--output-dir": "out",
    "--videos-dir": "dataset/flows",
    "--flow-videos-dir": "dataset/videos",
    "--resamples": "30",
    "--resample": "sources",
    "--seed": "7",
    "--report": "report.json",
}
PREDICTION: dict[str, Any] = {
    "--tfam": "checkpoints/TFAM/cross_attention/seed50",
    "--student": "nowhere",
    "--model": "nowhere",  # refused beside --tfam; prediction/test_model_folder.py
    "--raw": [],
    "--output-dir": "out",
    "-o": "out",
    "--deinterlace": "auto",  # refused beside --tfam; prediction tests
    "--labels": "running",  # refused beside --tfam; prediction tests
    "--template": "a {}",
    "--fps": "2",
    "--window": "0.2",
    "--stride-seconds": ["0.04", "--window", "0.2"],
    "--threshold": "0.1",
    "--min-length": ["0.2", "--threshold", "0"],
    "--max-gap": None,  # of bouts near each other: timeline tests
    "--time-bin": "0.1",
    "--frames": [],
    "--clip-model-name": "ViT-B/16",
    "--clip-pretrained": "nonsense",
    "--ckpt-path": "nonsense",
    "--frame-batch-size": None,  # prediction/test_predict.py
    "--pair-batch-size": None,  # prediction/test_predict.py
    "--device": "cuda:7",
    "--precision": "bf16",
    "--num-workers": "1000",
    "--seed": "7",
    "--limit": "2",
    "--overwrite": [],
    "--dry-run": [],
    "--report": "report.json",
}
PREDICT = ["dataset/videos", "--tfam", RUN, "--student", "checkpoints/run", "--clip-model-name", "local-dir:tinyclip"]
CONFIG = ["--config", str(REPOSITORY / "TFAM" / "configs" / "cross_attention.yaml"), "--num-workers", "0"]
BASE = {
    "extract_embeddings": (["--clip-model-name", "local-dir:tinyclip", "--num-workers", "2"], EMBEDDINGS),
    "extract_flows": (FLOW, FLOWS),
    "train": ([*TRAIN, "--epochs", "1"], TRAINING),
    "inference": (["--checkpoint-dir", "checkpoints/run", "--num-workers", "2"], EXPORT),
    "TFAM.train_and_eval": ([*CONFIG, "--set", *SMALL], FUSION),
    "evaluate": ([RUN, "--resamples", "20"], EVALUATION),
    "predict": (PREDICT, PREDICTION),
}
OUTPUTS = {
    "extract_embeddings": ["dataset/embeddings"],
    "extract_flows": ["dataset/flows"],
    "train": ["checkpoints", "logs"],
    "inference": ["dataset/embeddings/flow_embeddings.h5"],
    "TFAM.train_and_eval": ["checkpoints/TFAM", "logs/TFAM"],
    "evaluate": [f"{RUN}/evaluation"],
    "predict": ["predictions"],
}
RESULTS_WITHOUT_FLAG: dict[tuple[str, ...], dict[str, Any]] = {}  # by script and command line
NEEDS_OUTPUT = {"--overwrite", "--resume", "--evaluate", "--results-dir"}
CASES = [(script, flag) for script, (_, flags) in BASE.items() for flag in flags if flags[flag] is not None]


@pytest.mark.parametrize(("script", "flag"), CASES)
def test_each_flag_changes_something(
    script: str, flag: str, chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, flags = BASE[script]
    value, *base_flags = [flags[flag]] if isinstance(flags[flag], str) else flags[flag] or [None]
    base = [*base, *base_flags]
    if flag == "--resume":
        base = [arg for arg in base if arg not in ("--run-name", "run")]

    def run_copy(name: str, argv: list[str]) -> dict[str, Any]:
        root = tmp_path / name
        shutil.copytree(chain, root, symlinks=True)
        for output in OUTPUTS[script] if flag not in NEEDS_OUTPUT else ():
            path = root / output
            path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)
        main = importlib.import_module(script).main
        with pytest.MonkeyPatch.context() as patch:
            return observe(main, argv, root, patch, capsys)

    key = (script, "with output" if flag in NEEDS_OUTPUT else "without output", *base)
    if key not in RESULTS_WITHOUT_FLAG:
        RESULTS_WITHOUT_FLAG[key] = run_copy("without", base)
        if not base_flags and flag not in NEEDS_OUTPUT:  # else a difference would mean nothing
            assert run_copy("again", base) == RESULTS_WITHOUT_FLAG[key]
    assert base_flags or "refused" not in RESULTS_WITHOUT_FLAG[key]["stdout"]
    assert run_copy("with", [*base, flag, *([value] if value else [])]) != RESULTS_WITHOUT_FLAG[key]


@pytest.mark.parametrize("script", BASE)
def test_every_flag_is_listed(script: str) -> None:
    parser: argparse.ArgumentParser = importlib.import_module(script).build_parser()
    flags = {option for action in parser._actions for option in action.option_strings} - {"-h", "--help"}
    unused = {"--dataset-name"} if script == "extract_flows" else set()  # flow is of all videos in the folder
    assert flags - unused == set(BASE[script][1])


@pytest.mark.parametrize(
    "script", [script for script in BASE if script not in ("evaluate", "predict")]
)  # no such flags
def test_underscores_are_accepted_and_abbreviations_refused(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = importlib.import_module(script).build_parser()
    required = ["--checkpoint_dir", "x"] if script == "inference" else []
    assert parser.parse_args([*required, "--dataset_dir", "some_where"]).dataset_dir == Path("some_where")
    assert parser.parse_args([*required, "--num_workers=3"]).num_workers == 3
    with pytest.raises(SystemExit) as stop:
        parser.parse_args([*required, "--num-work", "3"])
    assert stop.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_args_yaml_holds_every_setting(chain: Path) -> None:
    saved = yaml.safe_load((chain / "checkpoints" / "run" / "args.yaml").read_text())
    assert set(saved) == {action.dest for action in train.build_parser()._actions} - {"help"}
    assert saved["learning_rate"] == 1e-3


def test_precision_and_iterations_change_learned_flow(chain: Path, tmp_path: Path) -> None:
    from vimoclip.flow import ptlflow_model

    torch.manual_seed(0)
    model = ptlflow_model._import_ptlflow().get_model("raft")
    torch.save({"state_dict": model.state_dict()}, tmp_path / "raft.ckpt")
    command = ["--model", "raft", "--ckpt-path", str(tmp_path / "raft.ckpt"), "--limit", "1"]
    files: list[bytes] = []
    for extra in (["--iters", "2"], ["--iters", "2", "--precision", "bf16"], ["--iters", "3"]):
        output = tmp_path / str(len(files))
        videos = str(chain / "dataset" / "videos")
        extract_flows.main([*command, *extra, "--videos-dir", videos, "--output-dir", str(output)])
        files.append(video.RandomAccessReader(output / "t0.mp4").read(0, 8).tobytes())
    assert len(set(files)) == 3
