"""Commands in a shell: the published ones, wrong calls, and extractions that are interrupted."""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.chain.helpers import copy_repository, read_csv, shell
from tests.clip.test_pretrained import fill_hub_cache
from tests.conftest import REPOSITORY, indexed_frames, moving_frames, write_annotations, write_video
from vimoclip.errors import UserError

PUBLISHED_TRAIN = (
    "python train.py --train-hdf5-path dataset/embeddings/ak_train_clip_embeddings.h5 --val-hdf5-path "
    "dataset/embeddings/ak_val_clip_embeddings.h5 --flow-videos-dir dataset/flows --epochs 10 --batch-size 32 "
    "--num-workers 4 --learning-rate 1e-3 --grad-clip-norm None --distillation-loss-mode cosine --num-classes 140 "
    "--sequence-length 30 --residual-alpha 0.1 --class-positive-weight 9"
)
PUBLISHED_INFERENCE = (
    "python inference.py --flow_videos_dir dataset/flows --checkpoint_dir checkpoints/20250328-003544 --output-h5-path "
    "dataset/embeddings/flow_embeddings.h5 --clip-model-name ViT-B/32 --batch-size 1 --num-workers 20 "
    "--num-classes 140"
)


def write_weights(clone: Path, folder: Path) -> dict[str, str]:
    """Fill download caches with random weights: RAFT, and for ViT-B/32 a small network, which the clone's code gets
    to know by that name. Return the variables that name the caches."""
    import open_clip
    import ptlflow

    config: dict[str, Any] = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 224, "layers": 2, "width": 64, "patch_size": 32, "head_width": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    (clone / "ViT-B-32.json").write_text(json.dumps(config))
    with (clone / "vimoclip" / "clip" / "pretrained.py").open("a") as code:
        code.write(f"\nopen_clip.add_model_config({str(clone / 'ViT-B-32.json')!r})\n")
    torch.manual_seed(0)
    fill_hub_cache(folder / "hf", open_clip.CLIP(**config, quick_gelu=True).state_dict())
    checkpoints = folder / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    weights = ptlflow.get_model("raft").state_dict()
    torch.save({"state_dict": weights}, checkpoints / "raft-things-802bbcfd.ckpt")
    return {"HF_HOME": str(folder / "hf"), "TORCH_HOME": str(folder / "torch")}


def test_the_published_commands_work_as_they_stand(tmp_path: Path) -> None:
    clone = copy_repository(tmp_path / "ViMoCLIP")
    caches, dataset = write_weights(clone, tmp_path), clone / "dataset"
    for i, split in enumerate(("train", "val")):
        write_video(dataset / "videos" / f"{split}0.mp4", moving_frames(4, (1, i), seed=i), lossless=False)
    write_annotations(dataset / "annotations", {"train": {"train0.mp4": (0, 139)}, "val": {"val0.mp4": (5,)}})
    names = "".join(f"{i},action {i}\n" for i in range(140))
    (dataset / "annotations" / "ak_action.csv").write_text("id,name\n" + names)

    def run_command(command: str, **environment: str) -> None:
        done = shell(command, clone, **caches, **environment)
        assert done.returncode == 0, done.stdout + done.stderr

    run_command("python extract_embeddings.py")
    run_command("python extract_flows.py")
    run_command(PUBLISHED_TRAIN)
    (run,) = [path for path in (clone / "checkpoints").iterdir() if path.is_dir()]
    run.rename(clone / "checkpoints" / "20250328-003544")
    run_command(PUBLISHED_INFERENCE)
    run_command("cd TFAM\nbash run_experiments.sh", CONFIGS="rgb cross_attention", SEEDS="49")
    table_rows = read_csv(clone / "TFAM" / "results" / "table.csv")
    assert [row["config"] for row in table_rows] == ["rgb", "cross_attention"]


WRONG_CALLS = {  # (command, what its message names, what its hint names)
    "shell": [
        ("extract_embeddings.py --dataset-dir nowhere", "nowhere/annotations", "--dataset-dir"),
        ("extract_embeddings.py --clip-pretrained openai", "open_clip_model.safetensors", "--clip-pretrained"),
        ("train.py --seed 99999999999999999999", "--seed", "from 0 to 2^32 - 1"),
        ("inference.py --checkpoint-dir nowhere", "flows", "extract_flows.py"),
        ("-m TFAM.train_and_eval --config nowhere.yaml", "nowhere.yaml", ""),
    ],
    "main": [
        ("extract_embeddings.py --videos-dir nowhere", "nowhere", "--videos-dir"),
        ("extract_embeddings.py --split test", "test_multi.txt", "--dataset-name"),
        ("extract_embeddings.py --device cuda:9 --clip-model-name {clip}", "cuda:9", "auto or cpu"),
        ("extract_flows.py --videos-dir nowhere", "nowhere", "--videos-dir"),
        ("extract_flows.py --videos-dir empty", "empty", "--videos-dir"),
        ("extract_flows.py", "raft-things-802bbcfd.ckpt", "--ckpt-path"),
        ("extract_flows.py --size big", "--size", "--help"),
        ("extract_flows.py --model dis --output-dir text.h5", "text.h5", "--output-dir"),
        ("train.py", "ak_train_clip_embeddings.h5", "run extract_embeddings.py"),
        ("train.py --train-hdf5-path text.h5 --val-hdf5-path text.h5", "text.h5", "create it again"),
        ("train.py --sequence-length 1", "--sequence-length", "give 2 or more"),
        ("train.py --resume nowhere", "nowhere/args.yaml", "train.py"),
        ("inference.py --checkpoint-dir nowhere --flow-videos-dir dataset/videos", "nowhere", "train.py"),
        ("-m TFAM.train_and_eval --config empty", "empty", "name a YAML file"),
        ("-m TFAM.train_and_eval --evaluate nowhere.pth", "nowhere.pth", "train"),
    ],
}


@pytest.fixture
def in_empty_caches(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to the folder of the data set, with empty download caches and without a network; return it."""
    folder = tiny_dataset.parent
    monkeypatch.chdir(folder)
    Path("empty").mkdir()
    Path("text.h5").write_text("no embeddings")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    for name in ("HF_HOME", "TORCH_HOME", "HOME"):
        monkeypatch.setenv(name, str(folder / "caches"))
    return folder


@pytest.mark.parametrize(("command", "names", "hint"), WRONG_CALLS["shell"])
def test_a_wrong_call_prints_one_line_with_path_and_hint(
    command: str, names: str, hint: str, in_empty_caches: Path
) -> None:
    target = command if command.startswith("-m") else f"{REPOSITORY}/{command}"
    completed = shell(f"python {target}", in_empty_caches, PYTHONPATH=str(REPOSITORY))
    assert completed.returncode == 2, completed.stdout + completed.stderr
    (line,) = completed.stderr.strip().splitlines()
    assert "error: " in line and names in line and hint in line


@pytest.mark.parametrize(("command", "names", "hint"), WRONG_CALLS["main"])
def test_a_wrong_call_is_refused_with_path_and_hint(
    command: str, names: str, hint: str, in_empty_caches: Path, tiny_clip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As above in this process, since importing torch takes seconds."""
    module, *arguments = command.format(clip=tiny_clip).removeprefix("-m ").split()
    try:
        importlib.import_module(module.removesuffix(".py")).main(arguments)
    except UserError as error:
        code, message = error.exit_code, str(error)
    except SystemExit as stop:  # from argparse
        code, message = int(stop.code or 0), capsys.readouterr().err
    assert code == 2
    (line,) = message.strip().splitlines()
    assert names in line and hint in line


def test_ctrl_c_ends_an_extraction_at_once_and_the_same_command_resumes_it(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / "videos" / name, moving_frames(200, (0, 0), 240, 320), lossless=False)
    command = [sys.executable, str(REPOSITORY / "extract_flows.py"), "--model", "farneback"]
    command += ["--videos-dir", "videos", "--output-dir", "flows"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    # where the tests run in the background, SIGINT is ignored, which a child would inherit
    wake = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    popen = partial(subprocess.Popen, command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    with popen(preexec_fn=wake) as process:
        for _ in range(600):
            if (tmp_path / "flows" / ".a.mp4.encoding").exists():
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        try:
            _, output = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130, output
    assert "resume with: python" in output
    assert not list((tmp_path / "flows").iterdir())
    done = subprocess.run([*command, "--size", "32"], cwd=tmp_path, env=environment, timeout=120)
    assert done.returncode == 0
    assert {path.name for path in (tmp_path / "flows").iterdir()} == {"a.mp4", "b.mp4"}


def test_an_interrupted_embedding_leaves_no_thread_behind(
    tmp_path: Path, tiny_clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import extract_embeddings
    from vimoclip import clip

    for name in "abcd":
        write_video(tmp_path / "dataset" / "videos" / f"{name}.mp4", indexed_frames(300))
    write_annotations(tmp_path / "dataset" / "annotations", {"train": {f"{name}.mp4": (0,) for name in "abcd"}})

    def interrupted(encoder: clip.ImageEncoder, prepared: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt

    before = threading.active_count()
    monkeypatch.setattr(clip.ImageEncoder, "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract_embeddings.main(["--dataset-dir", str(tmp_path / "dataset"), "--clip-model-name", tiny_clip])
    assert threading.active_count() == before
