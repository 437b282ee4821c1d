"""The precision in which learned flow was computed is recorded, and flow of different precisions is not mixed."""

import shutil
from pathlib import Path

import pytest
import torch

import extract_flows
from tests.conftest import moving_frames, write_video
from vimoclip import video
from vimoclip.errors import UserError
from vimoclip.flow import flow_folder, ptlflow_model


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips, weights of RAFT, and flow of a version that did not record the precision in `old/`."""
    root = tmp_path_factory.mktemp("inputs")
    for name in ("a", "b"):
        write_video(root / "videos" / f"{name}.mp4", moving_frames(2, (1, 0), 32, 44), lossless=False)
    torch.manual_seed(0)
    model = ptlflow_model._import_ptlflow().get_model("raft")
    torch.save({"state_dict": model.state_dict()}, root / "raft.ckpt")
    extract(root, root / "new")
    (root / "old").mkdir()
    for path in (root / "new").glob("*.mp4"):
        probe = video.probe(path)
        comment = {key: value for key, value in (probe.comment or {}).items() if key != "precision"}
        with video.VideoWriter(root / "old" / path.name, probe.fps, comment) as writer:
            writer.write(video.RandomAccessReader(path).read(0, 1))
            writer.finalize()
    return root


def extract(inputs: Path, output: Path, *flags: str) -> None:
    weights = ["--model", "raft", "--ckpt-path", str(inputs / "raft.ckpt"), "--iters", "1", "--device", "cpu"]
    places = ["--videos-dir", str(inputs / "videos"), "--output-dir", str(output)]
    extract_flows.main([*weights, *places, *flags, "--num-workers", "0"])


def recorded_precisions(folder: Path) -> list[str | None]:
    return [(video.probe(path).comment or {}).get("precision") for path in sorted(folder.glob("*.mp4"))]


def test_learned_flow_records_its_precision_and_dis_has_none(inputs: Path, tmp_path: Path) -> None:
    assert recorded_precisions(inputs / "new") == ["fp32", "fp32"]
    extract(inputs, tmp_path / "bf16", "--precision", "bf16")
    assert recorded_precisions(tmp_path / "bf16") == ["bf16", "bf16"]
    places = ["--videos-dir", str(inputs / "videos"), "--output-dir", str(tmp_path / "dis")]
    extract_flows.main(["--model", "dis", *places, "--precision", "bf16"])
    assert recorded_precisions(tmp_path / "dis") == [None, None]


def test_a_run_does_not_add_flow_of_another_precision(inputs: Path, tmp_path: Path) -> None:
    extract(inputs, tmp_path / "flows", "--limit", "1")
    with pytest.raises(UserError, match=r"precision.*bf16.*fp32"):
        extract(inputs, tmp_path / "flows", "--precision", "bf16")
    extract(inputs, tmp_path / "flows", "--precision", "fp32")
    assert recorded_precisions(tmp_path / "flows") == ["fp32", "fp32"]


def test_flow_of_unknown_precision_is_accepted(inputs: Path, tmp_path: Path) -> None:
    output = tmp_path / "flows"
    output.mkdir()
    (output / "a.mp4").write_bytes((inputs / "old" / "a.mp4").read_bytes())
    extract(inputs, output, "--precision", "bf16")
    assert recorded_precisions(output) == [None, "bf16"]


def test_a_machine_without_the_gpu_may_check_and_merge_its_flow(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There, the automatic precision is another one. One video is broken, and one has a single frame."""
    shutil.copytree(inputs / "videos", tmp_path / "videos")
    (tmp_path / "videos" / "c.mp4").write_text("no video")
    write_video(tmp_path / "videos" / "d.mp4", moving_frames(1, (1, 0), 32, 44), lossless=False)
    shutil.copy(inputs / "raft.ckpt", tmp_path)
    output = tmp_path / "flows"
    for shard in ("1/2", "2/2"):
        extract(tmp_path, output, "--precision", "bf16", "--shard", shard)
    capsys.readouterr()
    extract(tmp_path, output, "--dry-run")
    assert capsys.readouterr().out.startswith("0 videos to process")
    extract(tmp_path, output, "--merge")
    assert recorded_precisions(output) == ["bf16", "bf16"]
    with pytest.raises(UserError, match="precision"):
        extract(tmp_path, output)


def test_shards_of_different_precision_are_not_merged(inputs: Path, tmp_path: Path) -> None:
    output = tmp_path / "flows"
    extract(inputs, output, "--precision", "bf16", "--shard", "1/2")
    with pytest.raises(UserError, match="precision"):
        extract(inputs, output, "--precision", "fp32", "--shard", "2/2")
    with pytest.raises(UserError, match="precision"):
        extract(inputs, output, "--merge")


def test_a_folder_of_two_precisions_is_refused_also_after_unknown_ones(inputs: Path, tmp_path: Path) -> None:
    extract(inputs, tmp_path / "bf16", "--precision", "bf16")
    old, new, half = inputs / "old" / "a.mp4", inputs / "new" / "a.mp4", tmp_path / "bf16" / "b.mp4"
    assert flow_folder.common_settings([old, half], {}, Path("student.pth"))["precision"] == "bf16"
    with pytest.raises(UserError, match="precision"):
        flow_folder.common_settings([old, new, half], {}, Path("student.pth"))
    with pytest.raises(UserError, match="precision"):
        flow_folder.common_settings([half], {"precision": "fp32"}, Path("student.pth"))
