"""The published commands, wrong calls, and an extraction that is interrupted."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import preloaded
from tests.chain.helpers import copy_repository, read_csv, shell
from tests.clip.test_pretrained import fill_hub_cache
from tests.conftest import REPOSITORY, moving_frames, write_annotations, write_video

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
        write_video(dataset / "videos" / f"{split}0.mp4", moving_frames(3, (1, i), seed=i), lossless=False)
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
    run_command("cd TFAM\nbash run_experiments.sh", CONFIGS="cross_attention", SEEDS="49")
    table_rows = read_csv(clone / "TFAM" / "results" / "table.csv")
    assert [row["config"] for row in table_rows] == ["cross_attention"]


WRONG_CALLS = [  # command, what its one line on stderr names
    ("extract_embeddings.py --dataset-dir nowhere", "nowhere/annotations"),
    ("extract_embeddings.py --clip-pretrained openai", "open_clip_model.safetensors"),
    ("extract_embeddings.py --videos-dir nowhere", "--videos-dir"),
    ("extract_embeddings.py --split test", "test_multi.txt"),
    ("extract_embeddings.py --device cuda:9 --clip-model-name {clip}", "cuda:9"),
    ("extract_flows.py --videos-dir nowhere", "nowhere"),
    ("extract_flows.py --videos-dir empty", "empty"),
    ("extract_flows.py", "raft-things-802bbcfd.ckpt"),
    ("extract_flows.py --size big", "--size"),
    ("extract_flows.py --model dis --output-dir text.h5", "text.h5"),
    ("train.py", "ak_train_clip_embeddings.h5"),
    ("train.py --train-hdf5-path text.h5 --val-hdf5-path text.h5", "text.h5"),
    ("train.py --seed 99999999999999999999", "--seed"),
    ("train.py --sequence-length 1", "--sequence-length"),
    ("train.py --resume nowhere", "nowhere/args.yaml"),
    ("inference.py --checkpoint-dir nowhere", "extract_flows.py"),
    ("inference.py --checkpoint-dir nowhere --flow-videos-dir dataset/videos", "nowhere"),
    ("-m TFAM.train_and_eval --config nowhere.yaml", "nowhere.yaml"),
    ("-m TFAM.train_and_eval --config empty", "empty"),
    ("-m TFAM.train_and_eval --evaluate nowhere.pth", "nowhere.pth"),
]


@pytest.fixture(scope="module")
def with_empty_caches(shared_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set, an empty folder, and a text file that ends with .h5."""
    folder = tmp_path_factory.mktemp("calls")
    (folder / "dataset").symlink_to(shared_dataset)
    (folder / "empty").mkdir()
    (folder / "text.h5").write_text("no embeddings")
    return folder


@pytest.mark.parametrize(("command", "names"), WRONG_CALLS)
def test_a_wrong_call_is_exit_code_2_and_one_line(
    command: str, names: str, with_empty_caches: Path, tiny_clip: str
) -> None:
    words = command.format(clip=tiny_clip).split()
    if words[0] != "-m":
        words[0] = str(REPOSITORY / words[0])
    caches = dict.fromkeys(("HF_HOME", "TORCH_HOME", "HOME"), str(with_empty_caches / "caches"))
    offline = {"https_proxy": "http://127.0.0.1:9", "PYTHONPATH": str(REPOSITORY)}
    completed = preloaded.run(words, with_empty_caches, **caches, **offline)
    assert completed.returncode == 2, completed
    (line,) = completed.stderr.strip().splitlines()
    assert "error: " in line and names in line


def test_ctrl_c_ends_an_extraction_at_once_and_the_same_command_resumes_it(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / "videos" / name, moving_frames(100, (0, 0), 240, 320), lossless=False)
    command = [str(REPOSITORY / "extract_flows.py"), "--model", "farneback"]
    command += ["--videos-dir", "videos", "--output-dir", "flows"]
    process = preloaded.start(command, tmp_path, PYTHONPATH=str(REPOSITORY))
    while not (tmp_path / "flows" / ".a.mp4.encoding").exists() and not process.has_ended():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    result = process.wait(60)
    assert result.returncode == 130, result
    assert "extract_flows.py --model farneback" in result.stderr  # the command that resumes
    assert not list((tmp_path / "flows").iterdir())
    result = preloaded.run([*command, "--size", "32"], tmp_path, PYTHONPATH=str(REPOSITORY))
    assert result.returncode == 0, result
    assert {path.name for path in (tmp_path / "flows").iterdir()} == {"a.mp4", "b.mp4"}
