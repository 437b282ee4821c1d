"""Extraction that is killed or told to stop at any moment: the same command goes on, and the files are the same bytes.

The many kills: pytest -m long -s tests/test_kills.py (-s shows what was hit)"""

import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch

from tests import stages
from tests.conftest import REPOSITORY, write_annotations
from tests.stages import H5, STAGES, Whole, at_random, command, content, driver, during, finished, kill, whole
from vimoclip import clip, store


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stages.make_inputs(tmp_path_factory.mktemp("inputs"))


few = pytest.fixture(scope="module")(stages.few)


def fresh(command: list[str], folder: Path) -> "subprocess.Popen[str]":
    """A process of its own, as from a shell, where Ctrl-C is heard even if it isn't by these tests."""
    script = [sys.executable, str(REPOSITORY / command[0]), *command[1:]]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    wake = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    return subprocess.Popen(script, cwd=folder, env=environment, preexec_fn=wake, **pipes)


# --- SIGKILL


@pytest.mark.parametrize("stage", ["extract_flows", *(pytest.param(name, marks=pytest.mark.long) for name in H5)])
def test_a_process_of_its_own_makes_the_bytes_of_one_that_is_forked(stage: str, few: Path, tmp_path: Path) -> None:
    process = fresh(command(few, stage), tmp_path)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    stages.assert_same(content(tmp_path), whole(few, stage).content)


KINDS = ("any time", "any time", "while writing", "in the last step")


def moment(kind: str, run: Whole, luck: random.Random, left: float) -> Callable[[str, float], bool]:
    """A random moment of a run that has still this share of the videos to do."""
    if kind == "any time":
        return at_random(luck, run.seconds * (0.3 + 0.65 * left))  # to load a model takes its time too
    if kind == "while writing":
        return during("writing", luck, visits=max(1, round(20 * left)), length=0.002)
    return during("last step", luck, visits=1, length=0.8 * run.last_steps[0])


def finish(stage: str, inputs: Path, place: Path) -> None:
    """The same command once more: it goes on after the last finished video, and ends as a run that nobody stopped."""
    done = finished(place)
    ended = driver().run(command(inputs, stage), place)
    assert (ended.code, ended.err) == (0, "")
    assert sum(map(int, re.findall(r", (\d+) done or given up before$", ended.out, re.MULTILINE))) == len(done)
    stages.assert_same(content(place), whole(inputs, stage).content)
    shutil.rmtree(place)


def kill_at_random(stage: str, inputs: Path, folder: Path, kills: int) -> Counter[str]:
    """So many kills that hit, each run going on from what the one before it left; how many hit in which phase."""
    luck, hit, missed, place = random.Random(0), Counter[str](), 0, folder / "run"
    while hit.total() < kills:
        place.mkdir(exist_ok=True)
        before = finished(place)
        when = moment(KINDS[(hit.total() + missed) % len(KINDS)], whole(inputs, stage), luck, 1 - len(before) / 12)
        killed, ended = kill(command(inputs, stage), place, when)
        assert before <= finished(place)
        hit[killed.phase] += killed.hit
        missed += not killed.hit
        assert killed.hit or ended.code == 0, ended.err
        if len(before) == 12 or not killed.hit:  # from the beginning again, else most kills hit the start of a run
            finish(stage, inputs, place)
    if place.exists():
        finish(stage, inputs, place)
    assert missed <= kills
    print(f"\n{stage}: {hit.total()} kills hit {dict(+hit)}, {missed} came after the end", flush=True)
    return hit


@pytest.mark.parametrize("kills", [4, pytest.param(200, marks=pytest.mark.long)])
@pytest.mark.parametrize("stage", STAGES)
def test_runs_that_are_killed_at_random_moments_end_as_one_that_was_not(
    stage: str, kills: int, inputs: Path, tmp_path: Path
) -> None:
    hit = kill_at_random(stage, inputs, tmp_path, kills)
    if kills >= 200:
        assert set(hit) == set(stages.PHASES)


@pytest.mark.parametrize("every", [1 / 5, pytest.param(0, marks=pytest.mark.long)])
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_that_dies_at_one_of_its_changes_to_files_ends_as_one_that_did_not(
    stage: str, every: float, few: Path, tmp_path: Path
) -> None:
    """Each file that is opened, renamed or removed, and the middle of each write that isn't FFmpeg's."""
    (tmp_path / "counted").mkdir()
    said = driver().run(command(few, stage), tmp_path / "counted", last_change=0).out
    changes = int(re.findall(r"^(\d+) changes$", said, re.MULTILINE)[-1])
    assert changes > 40
    step = max(1, int(changes * every))
    for last in range(step // 2 + 1, changes + 1, step):
        (tmp_path / "run").mkdir()
        ended = driver().run(command(few, stage), tmp_path / "run", last_change=last)
        assert ended.code == -signal.SIGKILL, ended
        finish(stage, few, tmp_path / "run")
    print(
        f"\n{stage}: died at {len(range(step // 2 + 1, changes + 1, step))} of {changes} changes to files", flush=True
    )


# --- SIGINT and SIGTERM


@pytest.mark.parametrize(
    ("stage", "number", "code"),
    [("extract_embeddings", signal.SIGTERM, 143), ("inference", signal.SIGINT, 130)],
)
def test_a_signal_ends_a_run_at_once_with_the_command_that_goes_on(
    stage: str, number: signal.Signals, code: int, inputs: Path, tmp_path: Path
) -> None:
    process = fresh(command(inputs, stage, "--overwrite"), tmp_path)
    while process.poll() is None and not finished(tmp_path):
        time.sleep(0.001)
    process.send_signal(number)
    begun = time.monotonic()
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - begun < 20
    assert process.returncode == code, said
    last = said.splitlines()[-1]
    assert last.startswith("stopped; what was finished is whole; go on with: python ")
    _, script, *arguments = shlex.split(last.partition("go on with: ")[2])
    assert [Path(script).name, *arguments] == command(inputs, stage)
    assert 0 < len(finished(tmp_path)) < 12
    assert not [name for name in content(tmp_path) if name.endswith(".lock")]
    finish(stage, inputs, tmp_path)


DEEP = """
import hashlib, signal
from vimoclip import cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
def main():
    print("deep", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
cli.run(main)
"""


@pytest.mark.skipif(not shutil.which("timeout"), reason="needs the timeout of GNU's coreutils")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_heard_while_the_process_is_deep_in_c(number: signal.Signals) -> None:
    command = ["timeout", "--preserve-status", f"--signal={number.name}", "5", sys.executable, "-c", DEEP]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (128 + number, "deep\n"), done.stderr
    assert "go on with: python" in done.stderr.splitlines()[-1]


# --- what a frame's embedding depends on


@pytest.mark.parametrize(
    ("stage", "flags"),
    [
        ("extract_embeddings", ["--num-workers", "0"]),
        ("extract_embeddings", ["--num-workers", "1"]),
        ("extract_flows", ["--num-workers", "0", "--pair-batch-size", "3"]),
        ("extract_flows", ["--num-workers", "1", "--pair-batch-size", "64"]),
        ("inference", ["--num-workers", "0"]),
        ("inference", ["--num-workers", "1", "--batch-size", "7"]),
    ],
)
def test_who_reads_how_much_ahead_changes_no_byte(stage: str, flags: list[str], few: Path, tmp_path: Path) -> None:
    assert driver().run(command(few, stage, *flags), tmp_path).code == 0
    stages.assert_same(content(tmp_path), whole(few, stage).content)


def rows(folder: Path) -> dict[str, tuple[bytes, ...]]:
    """The bytes of each video's arrays, from every file of embeddings in a folder."""
    found: dict[str, tuple[bytes, ...]] = {}
    for path in (folder / "out").glob("*.h5"):
        with h5py.File(path) as file:
            found |= {key: tuple(video[name][:].tobytes() for name in sorted(video)) for key, video in file.items()}
    return found


def test_a_frame_is_embedded_the_same_whatever_is_embedded_beside_it(inputs: Path, tmp_path: Path) -> None:
    """Other orders of the annotations, fewer videos, in one file or two: other frames share its batch each time."""
    expected = rows(inputs / "whole-extract_embeddings") if whole(inputs, "extract_embeddings") else {}
    assert len(expected) == 12
    labels = {f"clip{i:02}.mp4": (i % 3,) for i in range(12)}
    names = list(labels)
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "videos").symlink_to(inputs / "dataset" / "videos")
    for number, chosen in enumerate((names[::-1], names[4:] + names[:4], names[1::2], names[7:8])):
        place = tmp_path / str(number)
        place.mkdir()
        write_annotations(tmp_path / "dataset" / "annotations", {"train": {name: labels[name] for name in chosen}})
        flags = ["--dataset-dir", str(tmp_path / "dataset"), *(["--limit", "5"] if number == 1 else [])]
        assert driver().run(command(inputs, "extract_embeddings", *flags), place).code == 0
        found = rows(place)
        assert sorted(found) == sorted(chosen[:5] if number == 1 else chosen)
        assert all(found[name] == expected[name] for name in found)
    # and what goes into the file goes there in one order
    assert list(store.Reader(tmp_path / "0" / "out" / "ak_train_clip_embeddings.h5").keys) == names


def embedded_at_every_place(encoder: clip.ImageEncoder, batch_size: int) -> set[bytes]:
    """What becomes of one frame that stands at each place of a batch, among others: one value, if all is well."""
    size = encoder.config["image_size"]
    others = torch.randint(0, 256, (batch_size * 2, 3, *size), dtype=torch.uint8)
    frame = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
    found = set()
    for place in range(0, batch_size, max(1, batch_size // 5)):
        items = [("before", others[:place]), ("frame", frame), ("behind", others[place:])]
        for tag, what in clip.encode_stream(items, encoder.encode, batch_size):
            if tag == "frame":
                found.add(what.numpy().tobytes())
    return found


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 7, 16])
def test_a_frame_is_embedded_the_same_at_every_place_of_a_batch(few: Path, batch_size: int) -> None:
    torch.manual_seed(0)
    assert len(embedded_at_every_place(clip.load(f"local-dir:{few / 'tinyclip'}", None), batch_size)) == 1


@pytest.mark.long
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch_size", [5, 16])
def test_vit_b_32_embeds_a_frame_the_same_at_every_place_of_a_batch(batch_size: int, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.manual_seed(0)
        encoder = clip.build(clip.describe("ViT-B/32"))
        encoder.visual.eval()
        assert len(embedded_at_every_place(encoder, batch_size)) == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("uneven", "taken"), [((), 4), ((4,), 5), ((4, 5, 6), 7), (range(99), 1)])
def test_a_batch_size_is_taken_in_which_all_places_give_the_same(
    uneven: Sequence[int], taken: int, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = []

    def encode(batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        found = batch.flatten(1).float()
        found[-1] += 1e-6 * (len(batch) in uneven and len(batch) > 1) * found[-1]  # as where blocks are cut
        return found

    frames = torch.randint(1, 256, (10, 2, 2), dtype=torch.uint8)
    found = torch.cat([rows for _, rows in clip.encode_stream([("a", frames)], encode, 4)])
    assert torch.equal(found, frames.flatten(1).float())
    assert sizes[-1] == taken
    assert ("--frame-batch-size 4" in capsys.readouterr().out) == (taken != 4)
