"""Several processes on one output: ranks of torchrun, or independent shards."""

import json
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import extract_embeddings
import extract_flows
from tests.conftest import CLASSES, REPOSITORY, indexed_frames, write_annotations, write_video
from tests.preloaded import executable
from vimoclip import cli, store
from vimoclip.errors import UserError
from vimoclip.extraction import job, manifest
from vimoclip.extraction.sharding import IncompleteOutputError, WorkerContext
from vimoclip.io import lock
from vimoclip.runtime import cost_estimate
from vimoclip.runtime.distributed import ProcessGroup

MainFunction = Callable[[list[str]], cli.RunReport]
FRAME_COUNTS = {"a": 24, "b": 3, "c": 9, "d": 14, "e": 6, "f": 1}


@pytest.fixture(scope="module")
def videos(tiny_clip: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a tiny CLIP and a data set of six clips of different lengths and a broken file."""
    root = tmp_path_factory.mktemp("many")
    for number, (stem, count) in enumerate(FRAME_COUNTS.items()):
        write_video(root / "dataset" / "videos" / f"{stem}.mp4", indexed_frames(count, seed=number), lossless=False)
    (root / "dataset" / "videos" / "broken.mp4").write_bytes(b"no video at all")
    labels = {f"{stem}.mp4": (number % len(CLASSES),) for number, stem in enumerate([*FRAME_COUNTS, "broken"])}
    write_annotations(root / "dataset" / "annotations", {"train": labels})
    (root / "tinyclip").symlink_to(tiny_clip.removeprefix("local-dir:"))
    return root


EMBEDDINGS = ["extract_embeddings.py", "--clip-model-name", "local-dir:tinyclip", "--num-workers", "0"]
FLOWS = ["extract_flows.py", "--model", "dis", "--num-workers", "0"]


def run_torchrun(
    root: Path, command: Sequence[str], *flags: str, processes: int = 2
) -> subprocess.CompletedProcess[str]:
    """Run a script with torchrun on this machine."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    script = str(REPOSITORY / command[0])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    arguments = [str(executable()), *torchrun, script, *command[1:], *flags]
    return subprocess.run(arguments, cwd=root, env=environment, capture_output=True, text=True, timeout=120)


def run_alone(main: MainFunction, command: Sequence[str], *flags: str) -> int:
    """Run a script in this process; return the number of failed videos."""
    return len(main([*command[1:], *flags]).failed)


def read_outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(".jsonl")}


def read_statuses(output: Path) -> dict[str, str]:
    return {video: entry.status for video, entry in manifest.read_manifest(manifest.manifest_path(output)).items()}


@pytest.mark.parametrize(("main", "command"), [(extract_embeddings.main, EMBEDDINGS), (extract_flows.main, FLOWS)])
def test_two_torchrun_processes_write_the_files_of_one_process(
    main: MainFunction, command: list[str], videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(videos)
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert run_alone(main, command, "--output-dir", one) == 1
    result = run_torchrun(videos, command, "--output-dir", two)
    assert result.returncode == 1, result.stderr  # broken.mp4 fails
    assert result.stdout.count("failed: broken.mp4") == 1
    assert read_outputs(Path(one)) == read_outputs(Path(two))
    output = "ak_train_clip_embeddings.h5" if command is EMBEDDINGS else ""
    assert read_statuses(Path(one) / output) == read_statuses(Path(two) / output)
    done = "5 done" if command is FLOWS else "6 done"  # a clip of one frame has no flow
    assert f"{done}, 0 done already" in result.stdout
    file_names = {path.name for path in [*tmp_path.iterdir(), *Path(two).iterdir()]}
    assert not [name for name in file_names if "-of-" in name or name.endswith((".lock", ".parts"))]


def test_a_failing_rank_ends_the_job_with_its_error_and_finished_parts_stay(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        f"import os, sys; sys.path.insert(0, {str(REPOSITORY)!r}); import extract_embeddings\n"
        "from vimoclip import cli; from vimoclip.errors import UserError\n"
        "from vimoclip.extraction import video_status\n"
        "record = video_status.VideoTracker.record_success\n"
        "def record_success(self, video, *rest):\n"
        "    if video == 'b.mp4': raise UserError('the disk of b.mp4 is gone')\n"
        "    return record(self, video, *rest)\n"
        "video_status.VideoTracker.record_success = record_success\n"
        "cli.run(extract_embeddings.main)\n"
    )
    (tmp_path / "failing.py").write_text(script)
    result = run_torchrun(
        videos, [str(tmp_path / "failing.py"), *EMBEDDINGS[1:]], "--output-dir", str(tmp_path / "out")
    )
    assert result.returncode == 1
    assert " of 2: error: the disk of b.mp4 is gone" in result.stderr
    parts = {path.name for path in (tmp_path / "out").glob("*.parts/*.part")}
    assert "b.mp4.part" not in parts
    assert parts
    monkeypatch.chdir(videos)
    again = extract_embeddings.main([*EMBEDDINGS[1:], "--output-dir", str(tmp_path / "out")])
    assert (again.done, again.already_done) == (6 - len(parts), len(parts))
    assert len(store.EmbeddingReader(tmp_path / "out" / "ak_train_clip_embeddings.h5").keys) == 6


@pytest.mark.parametrize(("main", "command"), [(extract_embeddings.main, EMBEDDINGS), (extract_flows.main, FLOWS)])
def test_shards_write_the_files_of_one_run_and_the_last_shard_merges(
    main: MainFunction,
    command: list[str],
    videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(videos)
    one, many = str(tmp_path / "one"), str(tmp_path / "many")
    run_alone(main, command, "--output-dir", one)
    output = Path(many) / ("ak_train_clip_embeddings.h5" if command is EMBEDDINGS else "")
    capsys.readouterr()
    failed = [run_alone(main, command, "--output-dir", many, "--shard", f"{i}/3") for i in (2, 3)]
    assert "of 7 videos" in capsys.readouterr().out
    assert not output.is_file()
    with pytest.raises(IncompleteOutputError):
        run_alone(main, command, "--output-dir", many, "--merge")
    assert (
        run_alone(main, command, "--output-dir", many, "--shard", "1/3") == 1
    )  # reports the other shards' failures too
    assert sum(failed) <= 1
    assert read_outputs(Path(one)) == read_outputs(Path(many))
    expected = read_statuses(Path(one) / "ak_train_clip_embeddings.h5" if command is EMBEDDINGS else Path(one))
    assert read_statuses(output) == expected
    assert not list(tmp_path.rglob("*-of-*"))
    assert run_alone(main, command, "--output-dir", many, "--merge") == 1  # a second merge changes nothing
    assert read_outputs(Path(one)) == read_outputs(Path(many))


def test_merge_after_the_last_shard_was_killed(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(videos)
    out = ["--output-dir", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr(job, "_merge_shards", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        run_alone(extract_embeddings.main, EMBEDDINGS, *out, "--shard", "1/2")
        with pytest.raises(KeyboardInterrupt):
            run_alone(extract_embeddings.main, EMBEDDINGS, *out, "--shard", "2/2")
    assert not list((tmp_path / "out").glob("*.h5"))
    # without the encoder's flags: it isn't loaded
    extract_embeddings.main([*EMBEDDINGS[3:], *out, "--merge"])
    run_alone(extract_embeddings.main, EMBEDDINGS, "--output-dir", str(tmp_path / "one"))
    assert read_outputs(tmp_path / "one") == read_outputs(tmp_path / "out")


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=40), st.integers(1, 9))
def test_each_video_is_assigned_to_one_shard_and_shards_are_balanced(sizes: list[int], shards: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sources = {f"{i}.mp4": Path(folder, f"{i}.mp4") for i in range(len(sizes))}
        for path, size in zip(sources.values(), sizes, strict=True):
            path.touch()
            os.truncate(path, size)
        assignments = [WorkerContext(shard=(i, shards)).assigned_videos(sources) for i in range(1, shards + 1)]
    assert Counter(video for assigned in assignments for video in assigned) == Counter([*sources])
    size_of = dict(zip(sources, sizes, strict=True))
    loads = [sum(max(1, size_of[video]) for video in assigned) for assigned in assignments]
    assert max(loads) - min(loads) <= max(max(sizes), 1)


def test_worker_names_are_unique() -> None:
    names = [WorkerContext(ProcessGroup(rank, 4), (i, 3)).worker_name for rank in range(4) for i in (1, 2, 3)]
    assert len(set(names)) == 12
    assert [WorkerContext(ProcessGroup(rank, 2)).worker_name for rank in (0, 1)] == ["", "2-of-2"]


def test_videos_that_change_between_shards_are_refused(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(videos)
    out = ["--output-dir", str(tmp_path / "out")]
    run_alone(extract_flows.main, FLOWS, *out, "--shard", "1/2")
    with pytest.raises(UserError) as error:
        run_alone(extract_flows.main, FLOWS, *out, "--shard", "2/2", "--limit", "3")
    assert error.value.path == str(tmp_path / "out.shards")
    run_alone(extract_flows.main, FLOWS, *out, "--shard", "2/2")
    run_alone(extract_flows.main, FLOWS, *out)  # a run without --shard deletes the record
    assert not (tmp_path / "out.shards").exists()


def test_the_last_shard_leaves_the_merge_to_a_running_one(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(videos)
    monkeypatch.setattr(
        job, "_merge_shards", lambda *args: (_ for _ in ()).throw(lock.LockHeldError("process 7 writes it"))
    )
    out = ["--output-dir", str(tmp_path / "out")]
    for i in (1, 2):
        run_alone(extract_flows.main, FLOWS, *out, "--shard", f"{i}/2")
    assert "process 7 writes it" in capsys.readouterr().out


def test_a_dry_run_counts_the_videos_of_its_shard_and_writes_nothing(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(videos)
    monkeypatch.setattr(cost_estimate, "PROBE_SECONDS", 0.05)
    out = ["--output-dir", str(tmp_path / "out"), "--dry-run"]
    counts, report = [], tmp_path / "report.json"
    for flags in (["--shard", "1/3"], ["--shard", "2/3"], ["--shard", "3/3"], ["--merge"]):
        extract_embeddings.main([*EMBEDDINGS[1:], *out, *flags, "--report", str(report)])
        counts.append(json.loads(report.read_text())["pending"])
    assert sum(counts[:3]) == counts[3] == 7
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "-1/3"])
def test_an_invalid_shard_is_a_wrong_call(text: str) -> None:
    with pytest.raises(SystemExit) as stop:
        extract_flows.main(["--shard", text])
    assert stop.value.code == 2


@pytest.mark.parametrize("flag", [["--shard", "1/2"], ["--merge"]])
def test_overwrite_is_refused_with_shards(flag: list[str]) -> None:
    with pytest.raises(UserError) as error:
        extract_flows.main([*flag, "--overwrite"])
    assert f"--overwrite with {flag[0]}" in error.value.problem


def test_the_slurm_script_processes_its_shard(videos: Path, tmp_path: Path) -> None:
    environment = os.environ | {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "3", "PYTHON": str(executable())}
    script, stage = REPOSITORY / "docs" / "slurm" / "shards.sh", str(REPOSITORY / "extract_flows.py")
    command = ["bash", str(script), stage, "--model", "frame_diff", "--output-dir", str(tmp_path / "out")]
    result = subprocess.run(command, cwd=videos, env=environment, capture_output=True, text=True, timeout=60)
    assert " videos are pending" in result.stdout, result.stderr
    assert (tmp_path / "out.manifest.2-of-3.jsonl").exists()


def test_the_slurm_scripts_are_valid_bash() -> None:
    for script in (REPOSITORY / "docs" / "slurm").glob("*.sh"):
        assert subprocess.run(["bash", "-n", str(script)], timeout=10).returncode == 0, script
