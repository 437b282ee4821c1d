"""Existing files under an output's name: damaged, foreign, with other settings, links, or locked by another process."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests import preloaded, stage_driver
from tests.conftest import REPOSITORY, copy_with_other_preprocessing, indexed_frames, moving_frames, write_video
from tests.stage_driver import (
    H5_OUTPUTS,
    STAGES,
    driver,
    finished_videos,
    folder_content,
    stage_command,
    uninterrupted_run,
)
from vimoclip.extraction import manifest


def assert_refused(stage: str, small_inputs: Path, work_dir: Path, flags: list[str], *words: str) -> None:
    """Check for exit code 2, one line of error, and no changed file."""
    before = folder_content(work_dir)
    result = driver().run(stage_command(small_inputs, stage, *flags), work_dir)
    assert result.returncode == 2, result
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert all(word in result.stderr for word in words), result.stderr
    stage_driver.assert_same_files(folder_content(work_dir), before)


# --- other settings


@pytest.fixture(scope="module")
def interrupted(small_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the output of a killed run of each stage, two other CLIPs with the same name, and another student."""
    folder = tmp_path_factory.mktemp("interrupted")
    shutil.copytree(small_inputs / "tinyclip", folder / "tinyclip")
    weights = load_file(small_inputs / "tinyclip" / "open_clip_model.safetensors")
    weights["visual.proj"] += 1
    save_file(weights, folder / "tinyclip" / "open_clip_model.safetensors")
    (folder / "normalized").mkdir()
    copy_with_other_preprocessing(small_inputs / "tinyclip", folder / "normalized" / "tinyclip")
    shutil.copy(stage_driver.make_student(small_inputs, "other.pth", seed=2), folder)
    for stage in STAGES:
        work_dir = folder / stage
        work_dir.mkdir()
        driver().run(stage_command(small_inputs, stage), work_dir, kill_at_change=30)
        for path in work_dir.rglob("*.lock"):
            path.unlink()
        assert 0 < len(finished_videos(work_dir)) < 4
    return folder


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("stage", "flags", "words"),
    [
        ("extract_embeddings", ["--resize", "pad"], ["resize=model", "resize=pad"]),
        ("extract_embeddings", ["--stride", "2"], ["'stride': 1", "'stride': 2"]),
        ("extract_embeddings", ["--deinterlace", "auto"], ["'deinterlace': 'off'", "'deinterlace': 'auto'"]),
        ("extract_embeddings", ["--fps", "5"], ["'fps': None", "'fps': 5.0"]),
        ("extract_embeddings", ["--max-frames", "9"], ["sampling=", "this run has sampling="]),
        ("extract_embeddings", ["--embedding-dtype", "float16"], ["dtype=float32", "dtype=float16"]),
        (
            "extract_embeddings",
            ["--clip-model-name", "local-dir:{interrupted}/tinyclip"],
            ["weights_sha256=", "has we"],
        ),
        (
            "extract_embeddings",
            ["--clip-model-name", "local-dir:{interrupted}/normalized/tinyclip"],
            ["mean=[0.48, 0.45, 0.4]", "mean=[0.5, 0.5, 0.5]"],
        ),
        ("extract_flows", ["--flow-normalization", "linear"], ["normalization is linear in this run but log in"]),
        ("extract_flows", ["--flow-normalization", "frame"], ["normalization is frame in this run but log in"]),
        ("extract_flows", ["--flow-max", "0.1"], ["flow_max is 0.1 in this run but 0.05 in"]),
        ("extract_flows", ["--size", "48"], ["size is 48 in this run but None in"]),
        ("extract_flows", ["--model", "farneback"], ["method is farneback in this run but dis in"]),
        ("extract_flows", ["--model", "frame_diff"], ["method is frame_diff in this run but dis in"]),
        ("extract_flows", ["--stride", "2"], ["sampling.stride is 2", "but 1"]),
        ("extract_flows", ["--deinterlace", "auto"], ["geometry.deinterlace is auto", "but off"]),
        (
            "inference",
            ["--checkpoint-dir", "{interrupted}/other.pth"],
            ["weights_sha256=", "this run has weights_sha256="],
        ),
        ("inference", ["--embedding-dtype", "float16"], ["dtype=float32", "dtype=float16"]),
    ],
)
def test_resuming_with_other_settings_is_refused_and_both_are_named(
    stage: str,
    flags: list[str],
    words: list[str],
    finished: bool,
    small_inputs: Path,
    interrupted: Path,
    tmp_path: Path,
) -> None:
    uninterrupted_run(small_inputs, stage)
    work_dir = tmp_path / "work"
    shutil.copytree(small_inputs / f"uninterrupted-{stage}" if finished else interrupted / stage, work_dir)
    assert_refused(
        stage,
        small_inputs,
        work_dir,
        [flag.format(interrupted=interrupted) for flag in flags],
        "out",
        "--overwrite",
        *words,
    )


# --- damaged or foreign files


@pytest.mark.parametrize("stage", H5_OUTPUTS)
def test_a_damaged_or_foreign_embeddings_file_is_kept(stage: str, small_inputs: Path, tmp_path: Path) -> None:
    good = uninterrupted_run(small_inputs, stage).content[H5_OUTPUTS[stage]]
    output = tmp_path / H5_OUTPUTS[stage]
    output.parent.mkdir()
    for data in (b"", b"text", good[:100], good[: len(good) // 2], good[:-1]):
        output.write_bytes(data)
        assert_refused(stage, small_inputs, tmp_path, [], f"error: {H5_OUTPUTS[stage]}: ")
    result = driver().run(stage_command(small_inputs, stage, "--overwrite"), tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    stage_driver.assert_same_files(folder_content(tmp_path), uninterrupted_run(small_inputs, stage).content)


def test_damaged_or_foreign_flow_videos_are_kept_and_the_others_written(small_inputs: Path, tmp_path: Path) -> None:
    expected, out = uninterrupted_run(small_inputs, "extract_flows").content, tmp_path / "out"
    damages: list[Callable[[bytes], bytes]] = [lambda data: data[:-1], lambda data: data[: len(data) // 2]]
    damages += [lambda data: b"text", lambda data: b"", lambda data: data[:100]]
    for number, damage in enumerate(damages):
        shutil.rmtree(out, ignore_errors=True)
        (tmp_path / "out.manifest.jsonl").unlink(missing_ok=True)
        out.mkdir()
        (out / "clip01.mp4").write_bytes(damage(expected["out/clip01.mp4"]))
        write_video(out / "clip02.mp4", indexed_frames(3))
        before = folder_content(tmp_path)
        result = driver().run(stage_command(small_inputs, "extract_flows"), tmp_path)
        assert result.returncode == 1, (number, result)
        for name in ("clip01.mp4", "clip02.mp4"):
            assert f"failed: {name}: out/{name} " in result.stdout
            assert (out / name).read_bytes() == before[f"out/{name}"]
        assert result.stdout.count("delete it or give --overwrite") == 2
        assert all((out / f"clip{i:02}.mp4").read_bytes() == expected[f"out/clip{i:02}.mp4"] for i in (0, 3))
    assert driver().run(stage_command(small_inputs, "extract_flows", "--overwrite"), tmp_path).returncode == 0
    stage_driver.assert_same_files(folder_content(tmp_path), expected)


@pytest.mark.parametrize(
    "text", [b"notes", b"notes\n", b'{"id": 1}', b'{"id": "a"}\n', b"\x89PNG\r\n\x1a\n\0\0", b"[]"]
)
@pytest.mark.parametrize("stage", ["extract_flows", "inference"])
def test_a_foreign_file_under_the_manifests_name_is_kept(
    stage: str, text: bytes, small_inputs: Path, tmp_path: Path
) -> None:
    path = manifest.manifest_path(tmp_path / H5_OUTPUTS.get(stage, "out"))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text)
    result = driver().run(stage_command(small_inputs, stage), tmp_path)
    assert result.returncode == 2, result
    assert str(manifest.manifest_path(Path(H5_OUTPUTS.get(stage, "out")))) in result.stderr
    assert path.read_bytes() == text


def test_parts_without_settings_are_refused(small_inputs: Path, interrupted: Path, tmp_path: Path) -> None:
    """As after a kill during the removal of the parts."""
    shutil.copytree(interrupted / "inference", tmp_path / "work")
    (tmp_path / "work" / "out" / "flow.h5.parts" / "settings.json").unlink()
    assert_refused("inference", small_inputs, tmp_path / "work", [], "out/flow.h5.parts/settings.json: ", "--overwrite")
    result = driver().run(stage_command(small_inputs, "inference", "--overwrite"), tmp_path / "work")
    assert result.returncode == 0, result
    stage_driver.assert_same_files(
        folder_content(tmp_path / "work"), uninterrupted_run(small_inputs, "inference").content
    )


# --- links


@pytest.mark.parametrize("target", ["a file", "nothing"])
@pytest.mark.parametrize(
    ("stage", "links"),
    [
        *(("extract_flows", [name]) for name in ("out.lock", "out.manifest.jsonl", "out/clip00.mp4")),
        *(("inference", [f"out/flow.h5{end}"]) for end in ("", ".lock", ".manifest.jsonl")),
        ("extract_flows", [".out.manifest.jsonl.partial", "out/.clip00.mp4.encoding", "out/.clip00.mp4.partial"]),
        ("inference", ["out/.flow.h5.manifest.jsonl.partial", "out/.flow.h5.partial"]),
    ],
)
def test_nothing_is_written_through_a_link(
    stage: str, links: list[str], target: str, small_inputs: Path, tmp_path: Path
) -> None:
    work_dir, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    elsewhere.mkdir()
    if target == "a file":
        (elsewhere / "file").write_bytes(b"foreign")
    before = folder_content(elsewhere)
    (work_dir / "out").mkdir(parents=True)
    for name in links:
        (work_dir / name).symlink_to(elsewhere / "file")
    for flags in ([], ["--overwrite"]):
        result = driver().run(stage_command(small_inputs, stage, *flags), work_dir)
        assert folder_content(elsewhere) == before
        if result.returncode:
            assert links[0] in result.stderr + result.stdout
            assert "Traceback" not in result.stderr
        else:
            stage_driver.assert_same_files(folder_content(work_dir), uninterrupted_run(small_inputs, stage).content)
    assert (result.returncode == 0) == (not links[0].endswith(".lock"))


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
@pytest.mark.parametrize("stage", H5_OUTPUTS)
def test_a_parts_folder_that_is_a_link_is_refused(
    stage: str, overwrite: list[str], small_inputs: Path, tmp_path: Path
) -> None:
    work_dir, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    (work_dir / "out").mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "clip00.mp4.part").write_bytes(b"foreign")
    (work_dir / f"{H5_OUTPUTS[stage]}.parts").symlink_to(elsewhere)
    if overwrite:
        (work_dir / H5_OUTPUTS[stage]).write_bytes(b"before")
    assert_refused(stage, small_inputs, work_dir, overwrite, f"{H5_OUTPUTS[stage]}.parts: is a ")
    assert folder_content(elsewhere) == {"clip00.mp4.part": b"foreign"}


# --- other processes


@pytest.mark.parametrize(
    "stage", ["extract_flows", *(pytest.param(name, marks=pytest.mark.long) for name in H5_OUTPUTS)]
)
def test_a_second_process_is_refused_and_the_first_is_named(stage: str, small_inputs: Path, tmp_path: Path) -> None:
    pid = driver().start(stage_command(small_inputs, stage), tmp_path)
    locked = tmp_path / f"{H5_OUTPUTS.get(stage, 'out')}.lock"
    while not (locked.exists() and locked.read_bytes()) and not driver().has_ended():
        time.sleep(0.0005)
    os.kill(pid, signal.SIGSTOP)
    second = [str(REPOSITORY / f"{stage}.py"), *stage_command(small_inputs, stage)[1:]]
    result = preloaded.run(second, tmp_path, PYTHONPATH=str(REPOSITORY))
    os.kill(pid, signal.SIGCONT)
    assert driver().wait().returncode == 0
    assert result.returncode == 2, result.stderr
    assert result.stderr.count("\n") == 1
    assert f"process {pid} on {os.uname().nodename}, since " in result.stderr
    assert f"({stage}.py --dataset-dir " in result.stderr
    stage_driver.assert_same_files(folder_content(tmp_path), uninterrupted_run(small_inputs, stage).content)


def test_a_video_without_read_permission_is_recorded_as_failed(tmp_path: Path) -> None:
    """Without capabilities, as permissions do not hold for root."""
    folder = tmp_path / "videos"
    for name in ("a.mp4", "b.mp4"):
        write_video(folder / name, moving_frames(4, (1, 0)))
    (folder / "a.mp4").chmod(0)
    code = "from tests import stage_driver; import extract_flows; from vimoclip import cli;"
    code += "stage_driver.drop_capabilities();"
    code += f"cli.run(lambda: extract_flows.main(['--model', 'dis', '--videos-dir', {str(folder)!r},"
    code += f" '--output-dir', {str(tmp_path / 'flows')!r}]))"
    result = preloaded.run(["-c", code], tmp_path, PYTHONPATH=str(REPOSITORY))
    assert result.returncode == 1, result.stderr
    assert "failed: a.mp4: is not a video that can be read: Permission denied" in result.stdout
    assert (tmp_path / "flows" / "b.mp4").is_file()
