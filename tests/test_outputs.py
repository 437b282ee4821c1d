"""What is under an output's name already: damaged, another's, made otherwise, a link, or written by another process."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests import stages
from tests.conftest import REPOSITORY, indexed_frames, locked_elsewhere, moving_frames, write_video
from tests.stages import H5, STAGES, command, content, driver, finished, whole
from vimoclip.errors import UserError
from vimoclip.extraction import manifest
from vimoclip.io import lock

few = pytest.fixture(scope="module")(stages.few)


def assert_refused(stage: str, few: Path, place: Path, flags: list[str], *words: str) -> None:
    """One line, and everything stays as it is."""
    before = content(place)
    ended = driver().run(command(few, stage, *flags), place)
    assert ended.code == 2, ended
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert all(word in ended.err for word in words), ended.err
    stages.assert_same(content(place), before)


# --- made with other settings


@pytest.fixture(scope="module")
def begun(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder a stage, in which it was killed when it had finished some videos; another CLIP of the same name, and
    a student of other weights."""
    folder = tmp_path_factory.mktemp("begun")
    shutil.copytree(few / "tinyclip", folder / "tinyclip")
    weights = load_file(few / "tinyclip" / "open_clip_model.safetensors")
    weights["visual.proj"] += 1
    save_file(weights, folder / "tinyclip" / "open_clip_model.safetensors")
    shutil.copy(stages.make_student(few, "other.pth", seed=2), folder)
    for stage in STAGES:
        place = folder / stage
        place.mkdir()
        driver().run(command(few, stage), place, last_change=30)
        for path in place.rglob("*.lock"):
            path.unlink()
        assert 0 < len(finished(place)) < 4
    return folder


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize(
    ("stage", "flags", "words"),
    [
        ("extract_embeddings", ["--resize", "pad"], ["resize=model", "resize=pad"]),
        ("extract_embeddings", ["--stride", "2"], ["'stride': 1", "'stride': 2"]),
        ("extract_embeddings", ["--fps", "5"], ["'fps': None", "'fps': 5.0"]),
        ("extract_embeddings", ["--max-frames", "9"], ["sampling=", "this run has sampling="]),
        ("extract_embeddings", ["--embedding-dtype", "float16"], ["dtype=float32", "dtype=float16"]),
        ("extract_embeddings", ["--clip-model-name", "local-dir:{begun}/tinyclip"], ["weights_sha256=", "has we"]),
        ("extract_flows", ["--flow-normalization", "linear"], ["normalization is linear in this run but log in"]),
        ("extract_flows", ["--flow-normalization", "frame"], ["normalization is frame in this run but log in"]),
        ("extract_flows", ["--flow-max", "0.1"], ["flow_max is 0.1 in this run but 0.05 in"]),
        ("extract_flows", ["--size", "48"], ["size is 48 in this run but None in"]),
        ("extract_flows", ["--model", "farneback"], ["method is farneback in this run but dis in"]),
        ("extract_flows", ["--model", "frame_diff"], ["method is frame_diff in this run but dis in"]),
        ("extract_flows", ["--stride", "2"], ["'stride': 2", "'stride': 1"]),
        ("inference", ["--checkpoint-dir", "{begun}/other.pth"], ["weights_sha256=", "this run has weights_sha256="]),
        ("inference", ["--embedding-dtype", "float16"], ["dtype=float32", "dtype=float16"]),
    ],
)
def test_going_on_with_other_settings_is_refused_naming_both(
    stage: str, flags: list[str], words: list[str], ended: bool, few: Path, begun: Path, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    shutil.copytree(few / f"whole-{stage}" if whole(few, stage) and ended else begun / stage, place)
    assert_refused(stage, few, place, [flag.format(begun=begun) for flag in flags], "out", "--overwrite", *words)


# --- damaged, or another's


@pytest.mark.parametrize("stage", H5)
def test_a_file_of_embeddings_that_is_damaged_or_anothers_is_kept(stage: str, few: Path, tmp_path: Path) -> None:
    good = whole(few, stage).content[H5[stage]]
    output = tmp_path / H5[stage]
    output.parent.mkdir()
    for data in (b"", b"text", good[:100], good[: len(good) // 2], good[:-1]):
        output.write_bytes(data)
        assert_refused(stage, few, tmp_path, [], f"error: {H5[stage]}: ")
    ended = driver().run(command(few, stage, "--overwrite"), tmp_path)
    assert (ended.code, ended.err) == (0, "")
    stages.assert_same(content(tmp_path), whole(few, stage).content)


def test_flow_videos_that_are_damaged_or_anothers_are_kept_and_the_others_done(few: Path, tmp_path: Path) -> None:
    expected, out = whole(few, "extract_flows").content, tmp_path / "out"
    damages: list[Callable[[bytes], bytes]] = [lambda data: data[:-1], lambda data: data[: len(data) // 2]]
    damages += [lambda data: b"text", lambda data: b"", lambda data: data[:100]]
    for number, damage in enumerate(damages):
        shutil.rmtree(out, ignore_errors=True)
        (tmp_path / "out.manifest.jsonl").unlink(missing_ok=True)
        out.mkdir()
        (out / "clip01.mp4").write_bytes(damage(expected["out/clip01.mp4"]))
        write_video(out / "clip02.mp4", indexed_frames(3))
        before = content(tmp_path)
        ended = driver().run(command(few, "extract_flows"), tmp_path)
        assert ended.code == 1, (number, ended)
        for name in ("clip01.mp4", "clip02.mp4"):
            assert f"failed: {name}: out/{name} is there already, but " in ended.out
            assert (out / name).read_bytes() == before[f"out/{name}"]
        assert ended.out.count("delete it or give --overwrite") == 2
        assert all((out / f"clip{i:02}.mp4").read_bytes() == expected[f"out/clip{i:02}.mp4"] for i in (0, 3))
    assert driver().run(command(few, "extract_flows", "--overwrite"), tmp_path).code == 0
    stages.assert_same(content(tmp_path), expected)


@pytest.mark.parametrize(
    "text", [b"notes", b"notes\n", b'{"id": 1}', b'{"id": "a"}\n', b"\x89PNG\r\n\x1a\n\0\0", b"[]"]
)
@pytest.mark.parametrize("stage", ["extract_flows", "inference"])
def test_another_file_under_the_manifests_name_is_kept(stage: str, text: bytes, few: Path, tmp_path: Path) -> None:
    path = manifest.manifest_path(tmp_path / H5.get(stage, "out"))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text)
    ended = driver().run(command(few, stage), tmp_path)
    assert ended.code == 2, ended
    assert "is no line of a manifest; move the file away" in ended.err
    assert path.read_bytes() == text


@pytest.mark.parametrize("cut", [1, 5, 8, 9, 40, 200])
def test_a_line_of_a_manifest_that_was_cut_short_is_dropped(cut: int, tmp_path: Path) -> None:
    entries = [manifest.Entry(name, "ok", frames_decoded=3) for name in ("Löwe.mp4", "b.mp4")]
    lines = manifest.Manifest(tmp_path / "out")
    for entry in entries:
        lines.add(entry)
    whole_text = lines.path.read_bytes()
    first = whole_text.index(b"\n") + 1
    lines.path.write_bytes(whole_text[: min(first + cut, len(whole_text) - 2)])
    again = manifest.Manifest(tmp_path / "out")
    assert list(again.entries.values()) == entries[:1]
    assert lines.path.read_bytes() == whole_text[:first]


def test_parts_of_unknown_settings_are_not_taken(few: Path, begun: Path, tmp_path: Path) -> None:
    """What is left where a run was killed while it removed them."""
    shutil.copytree(begun / "inference", tmp_path / "place")
    (tmp_path / "place" / "out" / "flow.h5.parts" / "settings.json").unlink()
    assert_refused("inference", few, tmp_path / "place", [], "out/flow.h5.parts/settings.json: ", "--overwrite")
    ended = driver().run(command(few, "inference", "--overwrite"), tmp_path / "place")
    assert ended.code == 0, ended
    stages.assert_same(content(tmp_path / "place"), whole(few, "inference").content)


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
    stage: str, links: list[str], target: str, few: Path, tmp_path: Path
) -> None:
    place, elsewhere = tmp_path / "place", tmp_path / "elsewhere"
    elsewhere.mkdir()
    if target == "a file":
        (elsewhere / "file").write_bytes(b"a stranger's")
    before = content(elsewhere)
    (place / "out").mkdir(parents=True)
    for name in links:
        (place / name).symlink_to(elsewhere / "file")
    for more in ([], ["--overwrite"]):
        ended = driver().run(command(few, stage, *more), place)
        assert content(elsewhere) == before
        if ended.code:
            assert links[0] in ended.err + ended.out
            assert "Traceback" not in ended.err
        else:
            stages.assert_same(content(place), whole(few, stage).content)
    assert (ended.code == 0) == (not links[0].endswith(".lock"))


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
@pytest.mark.parametrize("stage", H5)
def test_a_folder_of_parts_that_is_a_link_is_refused(
    stage: str, overwrite: list[str], few: Path, tmp_path: Path
) -> None:
    place, elsewhere = tmp_path / "place", tmp_path / "elsewhere"
    (place / "out").mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "clip00.mp4.part").write_bytes(b"a stranger's")
    (place / f"{H5[stage]}.parts").symlink_to(elsewhere)
    if overwrite:
        (place / H5[stage]).write_bytes(b"before")
    assert_refused(stage, few, place, overwrite, f"{H5[stage]}.parts: is a link")
    assert content(elsewhere) == {"clip00.mp4.part": b"a stranger's"}


# --- other processes


@pytest.mark.parametrize("stage", ["extract_flows", *(pytest.param(name, marks=pytest.mark.long) for name in H5)])
def test_a_second_process_is_refused_at_once_and_named_the_first(stage: str, few: Path, tmp_path: Path) -> None:
    pid = driver().start(command(few, stage), tmp_path)
    locked = tmp_path / f"{H5.get(stage, 'out')}.lock"
    while not (locked.exists() and locked.read_bytes()) and not driver().has_ended():
        time.sleep(0.0005)
    os.kill(pid, signal.SIGSTOP)
    second = [sys.executable, str(REPOSITORY / f"{stage}.py"), *command(few, stage)[1:]]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(second, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    os.kill(pid, signal.SIGCONT)
    assert driver().wait().code == 0
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert f"process {pid} on {os.uname().nodename}, since " in done.stderr
    assert f"({stage}.py --dataset-dir " in done.stderr
    stages.assert_same(content(tmp_path), whole(few, stage).content)


STRESS = """
import sys, time
from pathlib import Path
from vimoclip.errors import UserError
from vimoclip.io import lock
counter, done, refused = Path("counter"), 0, 0
while done < int(sys.argv[1]):
    try:
        with lock.only_process(Path("out")):
            number = int(counter.read_text())
            counter.write_text("")
            time.sleep(0.0002)
            counter.write_text(str(number + 1))
            done += 1
    except UserError as error:
        assert "on " in str(error) or "another process" in str(error)
        refused += 1
        time.sleep(0.0005)
print(refused)
"""


@pytest.mark.parametrize("times", [50, pytest.param(2000, marks=pytest.mark.long)])
def test_four_processes_that_take_and_give_the_lock_never_hold_it_together(times: int, tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("0")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    code = [sys.executable, "-c", STRESS, str(times)]
    running = [
        subprocess.Popen(code, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    refused = [process.communicate(timeout=600)[0] for process in running]
    assert [process.returncode for process in running] == [0] * 4
    assert (tmp_path / "counter").read_text() == str(4 * times)
    assert sum(map(int, refused)) > 0
    assert not (tmp_path / "out.lock").exists()


HELD = """
import os, sys, time
from pathlib import Path
from vimoclip.io import lock
with lock.only_process(Path("out")):
    if not os.fork():
        time.sleep(20)  # a worker that outlives its parent
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_of_a_dead_process_is_no_obstacle_though_its_worker_lives(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    output = tmp_path / "out"
    command = [sys.executable, "-c", HELD]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout and process.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=rf"out: process {process.pid} on .* writes it"), lock.only_process(output):
            pass
        process.kill()
        process.wait()
        assert lock.lock_path(output).exists()
        with lock.only_process(output):
            assert f'"process": {os.getpid()},' in lock.lock_path(output).read_text()
        assert not lock.lock_path(output).exists()
        os.killpg(process.pid, signal.SIGKILL)  # the worker


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_locks_is_said(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lockf(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with lock.only_process(tmp_path / "out"):
        pass
    assert "out.lock: this file system has no locks; start no second process on" in capsys.readouterr().out


def test_a_lock_that_fails_otherwise_is_not_taken_for_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lockf(*args: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with pytest.raises(OSError, match=r"Input/output error: .*out\.lock"), lock.only_process(tmp_path / "out"):
        pass


@pytest.mark.parametrize("path", ["linked", "real/inside/..", "real/."])
def test_two_paths_to_one_folder_have_one_lock(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real" / "inside").mkdir(parents=True)
    (tmp_path / "linked").symlink_to("real")
    elsewhere, refused = locked_elsewhere(tmp_path / "real"), pytest.raises(UserError, match=r"process \d+ on")
    with elsewhere, refused, lock.only_process(Path(path)):
        pass
    assert manifest.manifest_path(Path(path)).resolve() == tmp_path / "real.manifest.jsonl"


def test_a_video_that_may_not_be_read_is_a_line(tmp_path: Path) -> None:
    """By a user who has no rights to it; root has them all, so the script runs without its capabilities."""
    folder = tmp_path / "videos"
    for name in ("a.mp4", "b.mp4"):
        write_video(folder / name, moving_frames(4, (1, 0)))
    (folder / "a.mp4").chmod(0)
    code = "from tests import stages; import extract_flows; from vimoclip import cli; stages.give_up_power();"
    code += f"cli.run(lambda: extract_flows.main(['--model', 'dis', '--videos-dir', {str(folder)!r},"
    code += f" '--output-dir', {str(tmp_path / 'flows')!r}]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "failed: a.mp4: is not a video that can be read: Permission denied" in done.stdout
    assert (tmp_path / "flows" / "b.mp4").is_file()
