"""Many processes on one output: started by torchrun, or as shards that know nothing of each other."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import extract_embeddings
import extract_flows
from tests.conftest import CLASSES, REPOSITORY, indexed_frames, locked_elsewhere, write_annotations, write_video
from vimoclip import cli, store
from vimoclip.errors import UserError
from vimoclip.extraction import manifest
from vimoclip.extraction.sharding import Crew
from vimoclip.io import atomic, lock
from vimoclip.runtime import cost_estimate

Main = Callable[[list[str]], cli.Report]
FRAMES = {"a": 24, "b": 3, "c": 9, "d": 14, "e": 6, "f": 1}


@pytest.fixture(scope="module")
def videos(tiny_clip: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set of six clips of very different lengths, one of them no video, and a CLIP."""
    root = tmp_path_factory.mktemp("many")
    for number, (stem, count) in enumerate(FRAMES.items()):
        write_video(root / "dataset" / "videos" / f"{stem}.mp4", indexed_frames(count, seed=number), lossless=False)
    (root / "dataset" / "videos" / "broken.mp4").write_bytes(b"no video at all")
    labels = {f"{stem}.mp4": (number % len(CLASSES),) for number, stem in enumerate([*FRAMES, "broken"])}
    write_annotations(root / "dataset" / "annotations", {"train": labels})
    (root / "tinyclip").symlink_to(tiny_clip.removeprefix("local-dir:"))
    return root


EMBEDDINGS = ["extract_embeddings.py", "--clip-model-name", "local-dir:tinyclip", "--num-workers", "0"]
FLOWS = ["extract_flows.py", "--model", "dis", "--num-workers", "0"]


def together(root: Path, command: Sequence[str], *more: str, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """Start by torchrun, on this machine."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    script = str(REPOSITORY / command[0])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    arguments = [sys.executable, *torchrun, script, *command[1:], *more]
    return subprocess.run(arguments, cwd=root, env=environment, capture_output=True, text=True, timeout=120)


def alone(main: Main, command: Sequence[str], *more: str) -> int:
    """A whole run in this process; how many videos failed."""
    return len(main([*command[1:], *more]).failed)


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(".jsonl")}


def what_became(output: Path) -> dict[str, str]:
    return {video: entry.status for video, entry in manifest.read(manifest.manifest_path(output)).items()}


@pytest.mark.parametrize(("main", "command"), [(extract_embeddings.main, EMBEDDINGS), (extract_flows.main, FLOWS)])
def test_two_processes_of_torchrun_write_what_one_writes(
    main: Main, command: list[str], videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(videos)
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert alone(main, command, "--output-dir", one) == 1
    ended = together(videos, command, "--output-dir", two)
    assert ended.returncode == 1, ended.stderr  # one video is none
    assert ended.stdout.count("failed: broken.mp4") == 1
    assert outputs(Path(one)) == outputs(Path(two))
    output = "ak_train_clip_embeddings.h5" if command is EMBEDDINGS else ""
    assert what_became(Path(one) / output) == what_became(Path(two) / output)
    done = "5 done" if command is FLOWS else "6 done"  # a clip of one frame has no flow
    assert f"{done}, 0 done already" in ended.stdout
    left = {path.name for path in [*tmp_path.iterdir(), *Path(two).iterdir()]}
    assert not [name for name in left if "-of-" in name or name.endswith((".lock", ".parts"))]


def test_a_process_that_dies_ends_the_job_with_its_reason_and_the_rest_is_not_lost(
    videos: Path, tmp_path: Path
) -> None:
    broken = (
        f"import os, sys; sys.path.insert(0, {str(REPOSITORY)!r}); import extract_embeddings\n"
        "from vimoclip import cli; from vimoclip.errors import UserError\n"
        "from vimoclip.extraction import video_status as outcomes\n"
        "told = outcomes.Outcomes.came_out\n"
        "def came_out(self, video, *rest):\n"
        "    if video == 'b.mp4': raise UserError('the disk of b.mp4 is gone')\n"
        "    return told(self, video, *rest)\n"
        "outcomes.Outcomes.came_out = came_out\n"
        "cli.run(extract_embeddings.main)\n"
    )
    (tmp_path / "dying.py").write_text(broken)
    ended = together(videos, [str(tmp_path / "dying.py"), *EMBEDDINGS[1:]], "--output-dir", str(tmp_path / "out"))
    assert ended.returncode == 1
    assert " of 2: error: the disk of b.mp4 is gone" in ended.stderr
    parts = {path.name for path in (tmp_path / "out").glob("*.parts/*.part")}
    assert "b.mp4.part" not in parts
    assert parts
    assert extract_embeddings  # the same command, now without the fault:
    again = together(videos, EMBEDDINGS, "--output-dir", str(tmp_path / "out"))
    assert f"{6 - len(parts)} done, {len(parts)} done already" in again.stdout
    assert len(store.Reader(tmp_path / "out" / "ak_train_clip_embeddings.h5").keys) == 6


@pytest.mark.parametrize(("main", "command"), [(extract_embeddings.main, EMBEDDINGS), (extract_flows.main, FLOWS)])
def test_shards_write_what_one_run_writes_and_the_last_puts_it_together(
    main: Main,
    command: list[str],
    videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(videos)
    one, many = str(tmp_path / "one"), str(tmp_path / "many")
    alone(main, command, "--output-dir", one)
    output = Path(many) / ("ak_train_clip_embeddings.h5" if command is EMBEDDINGS else "")
    capsys.readouterr()
    failed = [alone(main, command, "--output-dir", many, "--shard", f"{i}/3") for i in (2, 3)]
    assert "of 7 videos are left to other shards" in capsys.readouterr().out
    assert not output.is_file()
    with pytest.raises(UserError, match=r"videos are not done, like .*; run the shards that are missing"):
        alone(main, command, "--output-dir", many, "--merge")
    assert alone(main, command, "--output-dir", many, "--shard", "1/3") == 1  # it tells of the others' failures too
    assert sum(failed) <= 1
    assert outputs(Path(one)) == outputs(Path(many))
    expected = what_became(Path(one) / "ak_train_clip_embeddings.h5" if command is EMBEDDINGS else Path(one))
    assert what_became(output) == expected
    assert not list(tmp_path.rglob("*-of-*"))
    assert alone(main, command, "--output-dir", many, "--merge") == 1  # once more does no harm
    assert outputs(Path(one)) == outputs(Path(many))


def test_merge_puts_together_what_shards_left_behind(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the last shard was killed between its last video and the file."""
    monkeypatch.chdir(videos)
    out = ["--output-dir", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr(extract_embeddings, "merge", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        alone(extract_embeddings.main, EMBEDDINGS, *out, "--shard", "1/2")
        with pytest.raises(KeyboardInterrupt):
            alone(extract_embeddings.main, EMBEDDINGS, *out, "--shard", "2/2")
    assert not list((tmp_path / "out").glob("*.h5"))
    # the encoder is not needed, nor loaded
    extract_embeddings.main([*EMBEDDINGS[3:], *out, "--merge"])
    alone(extract_embeddings.main, EMBEDDINGS, "--output-dir", str(tmp_path / "one"))
    assert outputs(tmp_path / "one") == outputs(tmp_path / "out")


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=40), st.integers(1, 9))
def test_each_video_is_in_one_share_and_shares_are_alike(sizes: list[int], shards: int) -> None:
    sources = {f"{i}.mp4": Path(f"{i}.mp4") for i in range(len(sizes))}
    known = {f"{i}.mp4": {"size": size, "mtime": 0.0} for i, size in enumerate(sizes)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vimoclip.extraction.manifest.source_state", lambda path: known[path.name])
        shares = [Crew(shard=(i, shards)).share(sources) for i in range(1, shards + 1)]
    assert Counter(video for share in shares for video in share) == Counter([*sources])
    weights = [sum(max(1, known[video]["size"] or 0) for video in share) for share in shares]
    assert max(weights) - min(weights) <= max(max(sizes), 1)


def test_names_of_many_never_meet() -> None:
    from vimoclip.runtime.distributed import Group

    names = [Crew(Group(rank, 4), (i, 3)).worker for rank in range(4) for i in (1, 2, 3)]
    assert len(set(names)) == 12
    assert [Crew(Group(rank, 2)).worker for rank in (0, 1)] == ["", "2-of-2"]


def test_shards_work_beside_each_other_but_not_twice_nor_beside_a_whole_run(tmp_path: Path) -> None:
    output = tmp_path / "out"
    shard = (
        "import sys, time; from pathlib import Path; from vimoclip.io import lock\n"
        "with lock.only_shard(Path(sys.argv[1]), 1, 3): print('held', flush=True); time.sleep(60)"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen([sys.executable, "-c", shard, str(output)], stdout=subprocess.PIPE, env=environment) as other:
        assert other.stdout and other.stdout.readline() == b"held\n"
        with lock.only_shard(output, 2, 3):
            pass
        assert lock.lock_path(output).exists()  # the other one's still
        for wrong in ((1, 3), (2, 4), (2, 2)):
            with pytest.raises(UserError, match="writes it; wait for that"), lock.only_shard(output, *wrong):
                pass
        with pytest.raises(UserError, match="writes it; wait for that"), lock.only_process(output):
            pass
        other.kill()
        other.wait()
        with lock.only_process(output):
            pass
    assert not lock.lock_path(output).exists()
    with locked_elsewhere(output), pytest.raises(UserError, match="writes it"), lock.only_shard(output, 1, 3):
        pass


def test_videos_that_change_while_shards_work_are_refused(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shares follow from sizes: of other videos they would overlap."""
    monkeypatch.chdir(videos)
    out = ["--output-dir", str(tmp_path / "out")]
    alone(extract_flows.main, FLOWS, *out, "--shard", "1/2")
    with pytest.raises(UserError, match=r"out\.shards: the videos, or --limit, have changed since the shards began"):
        alone(extract_flows.main, FLOWS, *out, "--shard", "2/2", "--limit", "3")
    alone(extract_flows.main, FLOWS, *out, "--shard", "2/2")
    alone(extract_flows.main, FLOWS, *out)  # a whole run ends what shards began
    assert not (tmp_path / "out.shards").exists()


def test_a_last_shard_leaves_the_rest_to_one_that_is_still_at_work(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(videos)
    monkeypatch.setattr(extract_flows, "merge", lambda *args: (_ for _ in ()).throw(lock.Held("process 7 writes it")))
    out = ["--output-dir", str(tmp_path / "out")]
    for i in (1, 2):
        alone(extract_flows.main, FLOWS, *out, "--shard", f"{i}/2")
    assert "left to a shard that is still at work: process 7 writes it" in capsys.readouterr().out


def test_a_dry_run_of_a_shard_speaks_of_its_share_and_merges_nothing(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(videos)
    monkeypatch.setattr(cost_estimate, "PROBE_SECONDS", 0.05)
    out = ["--output-dir", str(tmp_path / "out"), "--dry-run"]
    said = []
    for more in (["--shard", "1/3"], ["--shard", "2/3"], ["--shard", "3/3"], ["--merge"]):
        extract_embeddings.main([*EMBEDDINGS[1:], *out, *more])
        said.append(int(capsys.readouterr().out.split()[1]))
    assert sum(said[:3]) == said[3] == 7
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "-1/3"])
def test_what_is_no_shard_is_a_wrong_call(text: str) -> None:
    with pytest.raises(SystemExit) as stop:
        extract_flows.main(["--shard", text])
    assert stop.value.code == 2


@pytest.mark.parametrize("flag", [["--shard", "1/2"], ["--merge"]])
def test_overwrite_would_undo_the_others_work(flag: list[str]) -> None:
    with pytest.raises(UserError, match=f"--overwrite with {flag[0]}: would remove what other shards did"):
        extract_flows.main([*flag, "--overwrite"])


def test_who_writes_once_is_the_first(tmp_path: Path) -> None:
    assert atomic.write_text_once(tmp_path / "settings", "mine")
    assert not atomic.write_text_once(tmp_path / "settings", "theirs")
    assert (tmp_path / "settings").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_slurm_script_does_its_shard(videos: Path, tmp_path: Path) -> None:
    environment = os.environ | {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "3", "PYTHON": sys.executable}
    script, stage = REPOSITORY / "docs" / "slurm" / "shards.sh", str(REPOSITORY / "extract_flows.py")
    command = ["bash", str(script), stage, "--model", "frame_diff", "--output-dir", str(tmp_path / "out")]
    ended = subprocess.run(command, cwd=videos, env=environment, capture_output=True, text=True, timeout=60)
    assert "videos are left to other shards" in ended.stdout, ended.stderr
    assert (tmp_path / "out.manifest.2-of-3.jsonl").exists()


def test_the_slurm_scripts_are_bash() -> None:
    for script in (REPOSITORY / "docs" / "slurm").glob("*.sh"):
        assert subprocess.run(["bash", "-n", str(script)], timeout=10).returncode == 0, script
