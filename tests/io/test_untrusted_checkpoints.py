"""Checkpoints from untrusted sources: no code runs, and memory is bounded."""

import json
import os
import pickle
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch

import extract_embeddings
import extract_flows
import inference
import train
from tests.conftest import moving_frames, write_video
from tests.untrusted_files import (
    CPU,
    assert_read_or_refused,
    exit_code,
    is_one_line,
    refusal_message,
    write_malicious_checkpoint,
    write_zip_bomb,
)
from TFAM import train_and_eval
from vimoclip import clip, flow, moclip
from vimoclip.errors import UserError
from vimoclip.io.checkpoint_loading import force_weights_only, load_model
from vimoclip.training import checkpoint


@pytest.mark.parametrize("file_format", ["zip", "legacy", "pickle2"])
def test_the_malicious_files_run_a_command_if_unpickled(tmp_path: Path, command_marker: Path, file_format: str) -> None:
    path = write_malicious_checkpoint(tmp_path / "malicious_checkpoint.pth", file_format, command_marker)
    if file_format == "pickle2":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert command_marker.read_text() == "ran\n"


def test_checkpoint_with_a_command_is_refused_by_every_reader(
    malicious_checkpoint: Path, command_marker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, flows = tmp_path / "run", tmp_path / "flows"
    run.mkdir()
    flows.mkdir()
    (run / "student_best.pth").write_bytes(malicious_checkpoint.read_bytes())
    write_video(flows / "a.mp4", moving_frames(3, (1, 0)))
    message = refusal_message(lambda: checkpoint.load_checkpoint(malicious_checkpoint), malicious_checkpoint)
    assert ("is a tar file" in message) == tarfile.is_tarfile(malicious_checkpoint)
    refusal_message(lambda: clip.load_encoder("ViT-B-32", str(malicious_checkpoint)), malicious_checkpoint)
    refusal_message(lambda: flow.PTLFlowModel("raft", str(malicious_checkpoint), None, CPU), malicious_checkpoint)
    assert exit_code(train_and_eval.main, "--evaluate", malicious_checkpoint) == 2
    assert exit_code(inference.main, "--checkpoint-dir", run, "--flow-videos-dir", flows) == 2
    errors = capsys.readouterr().err.splitlines()
    assert [line.startswith("error: ") for line in errors] == [True, True]
    assert not command_marker.exists()


@pytest.mark.parametrize("file_format", ["zip", "legacy"])
def test_clip_folder_with_a_command_is_refused(
    tiny_clip: str, tmp_path: Path, command_marker: Path, file_format: str
) -> None:
    config = Path(tiny_clip.removeprefix("local-dir:")) / "open_clip_config.json"
    (tmp_path / config.name).write_text(config.read_text())
    for name in ("open_clip_pytorch_model.bin", "other.pth"):
        path = write_malicious_checkpoint(tmp_path / name, file_format, command_marker)
        assert "system" in refusal_message(lambda: clip.load_encoder(f"local-dir:{tmp_path}", None), path)
        path.unlink()
    script = tmp_path / "open_clip_pytorch_model.bin"
    torch.jit.script(torch.nn.Linear(2, 2)).save(script)
    assert "TorchScript" in refusal_message(lambda: clip.load_encoder(f"local-dir:{tmp_path}", None), script)
    assert not command_marker.exists()


@pytest.fixture
def in_dataset(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tiny_dataset.parent)
    return tiny_dataset


def test_scripts_refuse_a_command_with_exit_code_2(
    in_dataset: Path, tiny_clip: str, tmp_path: Path, command_marker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_malicious_checkpoint(tmp_path / "malicious_checkpoint.pth", "zip", command_marker)
    assert exit_code(extract_embeddings.main, "--clip-model-name", "ViT-B-32", "--clip-pretrained", path) == 2
    assert f"error: {path}: " in capsys.readouterr().err
    assert exit_code(extract_flows.main, "--ckpt-path", path) == 2
    assert f"error: {path}: " in capsys.readouterr().err
    extract_embeddings.main(["--clip-model-name", tiny_clip])
    extract_flows.main(["--model", "frame_diff"])
    short = ["--run-name", "s", "--epochs", "1", "--sequence-length", "6", "--num-workers", "0"]
    train.main([*short, "--clip-model-name", tiny_clip])
    last = Path("checkpoints/s/last.pth")
    write_malicious_checkpoint(last, "zip", command_marker)
    capsys.readouterr()
    assert exit_code(train.main, "--resume", "checkpoints/s", "--epochs", "2") == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    assert str(last) in lines[-1]
    assert not command_marker.exists()


def test_libraries_load_only_tensors_with_weights_only_false(
    tmp_path: Path, command_marker: Path, monkeypatch: pytest.MonkeyPatch, tiny_clip: str
) -> None:
    """ptlflow 0.4.0, and open_clip after a TypeError, load this way with torch before 2.6."""
    import open_clip
    import ptlflow

    def unsafe(path: str, *args: Any, **kwargs: Any) -> Any:
        return torch.load(path, weights_only=False)

    path = write_malicious_checkpoint(tmp_path / "malicious_checkpoint.pth", "zip", command_marker)
    monkeypatch.setattr("vimoclip.io.checkpoint_loading.load_tensors", lambda path: None)
    monkeypatch.setattr(ptlflow, "load_checkpoint", unsafe)
    monkeypatch.setattr(open_clip.factory, "load_state_dict", unsafe)
    refusal_message(lambda: flow.PTLFlowModel("raft", str(path), None, CPU), path)
    refusal_message(lambda: clip.load_encoder("ViT-B-32", str(path)), path)
    assert not command_marker.exists()


def test_a_checkpoint_in_the_download_cache_is_checked(
    tmp_path: Path, command_marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ptlflow

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    name = ptlflow.get_model_reference("raft").pretrained_checkpoints["things"].rpartition("/")[2]
    (tmp_path / "checkpoints").mkdir()
    path = write_malicious_checkpoint(tmp_path / "checkpoints" / name, "zip", command_marker)
    assert "system" in refusal_message(lambda: flow.PTLFlowModel("raft", "things", None, CPU), path)
    assert not command_marker.exists()


def test_force_weights_only_restores_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    before = dict(os.environ)
    with force_weights_only():
        assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "1"
    assert dict(os.environ) == before


INVALID_CONFIGS = {
    "deep": "[" * 100_000,
    "not JSON": "\0",
    "list": "[]",
    "no model": "{}",
    "numbers": '{"model_cfg": {"embed_dim": "x", "vision_cfg": 3, "text_cfg": {}}}',
    "preprocessing": None,
}


@pytest.mark.parametrize("name", INVALID_CONFIGS)
def test_clip_folder_with_an_invalid_config_is_refused(tiny_clip: str, tmp_path: Path, name: str) -> None:
    shutil.copytree(tiny_clip.removeprefix("local-dir:"), tmp_path / "clip")
    path = tmp_path / "clip" / "open_clip_config.json"
    invalid = json.dumps(json.loads(path.read_text()) | {"preprocess_cfg": {"mean": "x"}})
    path.write_text(INVALID_CONFIGS[name] or invalid)
    refusal_message(lambda: clip.load_encoder(f"local-dir:{path.parent}", None), path.parent)


@pytest.mark.parametrize(
    "change",
    [
        *({"clip": 5}, {"clip": {}}, {"alpha": "x"}, {"alpha": None}, {"num_classes": "x"}, {"num_classes": -5}),
        *({"flow": 5}, {"num_classes": 4}),
    ],
)
def test_student_with_an_invalid_config_is_refused(tiny_clip: str, tmp_path: Path, change: dict[str, Any]) -> None:
    encoder = clip.load_encoder(tiny_clip, None)
    config = {"clip": encoder.config, "alpha": 0.1, "num_classes": 3, "flow": {}}
    content = {"state_dict": moclip.MoCLIP(encoder.visual, 32, 3, 0.1).state_dict(), "config": config}
    path = checkpoint.save_checkpoint(tmp_path / "a.pth", content)
    assert moclip.load(path)[1] == config
    checkpoint.save_checkpoint(path, content | {"config": config | change})
    refusal_message(lambda: moclip.load(path), path)


def test_zip_bomb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = write_zip_bomb(tmp_path / "bomb.pth")
    assert path.stat().st_size < 200_000
    for load in (
        lambda: checkpoint.load_checkpoint(path),
        lambda: clip.load_encoder("ViT-B-32", str(path)),
        lambda: flow.PTLFlowModel("raft", str(path), None, CPU),
    ):
        assert "would unpack to 67" in refusal_message(load, path)


@pytest.mark.parametrize("values", [1, 1000, 300_000])
def test_checkpoints_of_any_size_load(tmp_path: Path, values: int) -> None:
    path = checkpoint.save_checkpoint(tmp_path / "a.pth", {"state_dict": {"a": torch.zeros(values)}})
    assert checkpoint.load_checkpoint(path)["state_dict"]["a"].shape == (values,)


@pytest.mark.parametrize("signature", [b"PK\1\2", b"PK\6\7"])
def test_damaged_zip_is_refused_by_every_reader(tmp_path: Path, signature: bytes) -> None:
    """The central directory is overwritten, or the archive claims to continue on another disk."""
    path = checkpoint.save_checkpoint(tmp_path / "a.pth", {"state_dict": {"a": torch.zeros(3)}})
    data = bytearray(path.read_bytes())
    offset = data.rindex(signature)
    data[offset : offset + 20] = b"PK\6\7" + b"\1" * 16 if signature == b"PK\6\7" else bytes(20)
    path.write_bytes(data)
    refusal_message(lambda: checkpoint.load_checkpoint(path), path)
    refusal_message(lambda: clip.load_encoder("ViT-B-32", str(path)), path)


def read_checkpoint(path: Path) -> str:
    try:
        content = checkpoint.load_checkpoint(path)
    except UserError as error:
        assert is_one_line(str(error))
        return "refused"
    for value in content["state_dict"].values():
        if isinstance(value, torch.Tensor):
            value.double().sum()  # touches every number
    return "read"


def test_a_model_that_reads_values_while_it_is_built_is_loaded() -> None:
    """As some versions of timm do, for which the check without memory is not possible."""

    def build() -> torch.nn.Linear:
        return torch.nn.Linear(int(torch.ones(3).sum().item()), 2)

    state = {"weight": torch.rand(2, 3), "bias": torch.rand(2)}
    model = load_model(build, state, Path("model.safetensors"))
    assert torch.equal(model.weight, state["weight"]) and model.weight.device == CPU
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load_model(build, state | {"weight": torch.rand(2, 4)}, Path("model.safetensors"))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_2000_damaged_checkpoints(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    content = {"state_dict": model.state_dict(), "config": {"clip": {"size": [32, 32]}, "alpha": 0.1}, "epoch": 1}
    originals = [tmp_path / "zip.pth", tmp_path / "legacy.pth"]
    for path in originals:
        torch.save(content, path, _use_new_zipfile_serialization=path.stem == "zip")
    assert_read_or_refused(read_checkpoint, originals, tmp_path)
