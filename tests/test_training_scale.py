"""Training at scale: micro-batches, prepared frames on disk, several processes, and what --dry-run says of a run."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import train
from tests.conftest import REPOSITORY, indexed_frames, make_embedded, times
from tests.test_moclip import Brightness, make_student, write_flow, write_rgb
from vimoclip import clip, moclip
from vimoclip.errors import UserError
from vimoclip.flow import flow_lookup
from vimoclip.moclip import data_parallel, dataset, flow_pairing, frame_cache, loops
from vimoclip.moclip.dataset import span_reader
from vimoclip.runtime import cost_estimate, distributed
from vimoclip.training import checkpoint

SETTINGS = ["--sequence-length", "6", "--num-workers", "0", "--device", "cpu"]


# --- micro-batches


def gradients(name: str, batch: dataset.Batch, micro_batch_size: int | None) -> tuple[dict[str, torch.Tensor], Any]:
    encoder = clip.load(name, None)
    torch.manual_seed(3)
    model = make_student(encoder)[0].train()
    torch.nn.init.normal_(model.residual_mlp.fc2.weight)
    scaler, compute = torch.amp.GradScaler("cpu", enabled=False), loops.make_losses("cosine", 9)
    copies = data_parallel.Replicas(model)
    found = loops.add_gradients(
        copies, batch, len(batch.keys), micro_batch_size, scaler, compute, encoder.preprocess, nullcontext
    )
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}, found


def uneven_batch(lengths: list[int]) -> dataset.Batch:
    generator = torch.Generator().manual_seed(1)
    shape = len(lengths), max(lengths)
    flow = torch.randint(0, 256, (*shape, 3, 32, 32), generator=generator, dtype=torch.uint8)
    mask = torch.arange(shape[1])[None] < torch.tensor(lengths)[:, None]
    labels = torch.eye(3)[torch.arange(len(lengths)) % 3]
    return dataset.Batch(flow, torch.randn(*shape, 32, generator=generator), mask, labels, [*map(str, lengths)], [])


@pytest.mark.parametrize("size", [1, 2, 4])
def test_micro_batches_add_up_to_the_gradient_and_the_loss_of_the_whole_batch(tiny_clip: str, size: int) -> None:
    batch = uneven_batch([7, 2, 5, 1, 6])
    whole, loss = gradients(tiny_clip, batch, None)
    small, sums = gradients(tiny_clip, batch, size)
    assert whole.keys() == small.keys()
    assert sums == pytest.approx(loss, rel=1e-6)
    for name, gradient in whole.items():
        assert torch.allclose(gradient, small[name], rtol=1e-4, atol=1e-6 * float(gradient.abs().max())), name


def test_a_batch_is_not_cut_where_the_encoder_normalises_over_it() -> None:
    model = moclip.MoCLIP(Brightness(), 4, 2, 0.1).train()
    assert data_parallel.micro_batch_size(2, model, 8, flows=5) == 8
    model.visual_encoder.eval()  # as a frozen one is
    assert data_parallel.micro_batch_size(2, model, 8, flows=5) == 2
    assert data_parallel.micro_batch_size(None, model, 99, flows=5) == data_parallel.MICRO_FRAMES // 5


# --- shares of several processes


@given(st.integers(0, 50), st.integers(1, 6), st.integers(1, 5))
def test_all_processes_together_take_each_batch_of_one_with_all_of_it(length: int, each: int, size: int) -> None:
    order = list(range(length))
    shares = [distributed.share_of(order, each, rank, size) for rank in range(size)]
    together = [list(chain(*parts)) for parts in zip(*shares, strict=True)]
    assert together == distributed.share_of(order, each * size, 0, 1)
    assert list(chain(*together)) == order


# --- frames kept on disk


class Kept(NamedTuple):
    """Flow videos as data with a cache and without, and the cache."""

    clips: list[flow_pairing.Clip]
    plain: dataset.SegmentDataset
    cached: dataset.SegmentDataset
    cache: frame_cache.FrameCache

    def fill(self) -> None:
        self.cache.fill(self.cache.missing(self.clips), self.cached.preprocess, workers=0)

    def decoded(self) -> int:
        """How many videos are opened where all segments are read, which must be what they are without the cache."""
        expected = [self.plain[number] for number in range(len(self.plain))]
        span_reader.cache_clear()
        found = [self.cached[number] for number in range(len(self.cached))]
        for ours, theirs in zip(found, expected, strict=True):
            assert isinstance(ours, dataset.Batch) and isinstance(theirs, dataset.Batch)
            assert all(torch.equal(a, b) for a, b in zip(ours[:4], theirs[:4], strict=True))
        return span_reader.cache_info().misses


@pytest.fixture
def kept(tmp_path: Path, tiny_clip: str) -> Kept:
    (tmp_path / "flows").mkdir()
    for name, frames in (("a", 40), ("b", 9)):
        write_flow(tmp_path / "flows" / f"{name}.mp4", indexed_frames(frames, 48, 80), kept=frames + 1)
    reader = write_rgb(tmp_path / "rgb.h5", {"a.mp4": 41, "b.mp4": 10})
    clips = flow_pairing.pair(reader, flow_lookup.FlowFolder(tmp_path / "flows")).clips
    encoder = clip.load(tiny_clip, None)
    cache = frame_cache.FrameCache(tmp_path / "prepared", encoder.config)
    plain, cached = (dataset.SegmentDataset(reader, clips, 11, encoder.preprocess, c) for c in (None, cache))
    return Kept(clips, plain, cached, cache)


def test_prepared_frames_are_read_instead_of_decoded_and_are_the_same(kept: Kept) -> None:
    assert kept.decoded() == 2
    kept.fill()
    assert kept.decoded() == 0
    assert sum(path.stat().st_size for path in kept.cache.folder.iterdir()) <= kept.cache.size(kept.clips)
    before = times(kept.cache.folder)
    kept.fill()
    assert times(kept.cache.folder) == before


def test_frames_of_another_flow_video_or_another_preparation_are_not_used_and_made_anew(kept: Kept) -> None:
    kept.fill()
    write_flow(kept.clips[0].flow, indexed_frames(40, 48, 80, seed=7), kept=41)
    assert kept.decoded() == 1
    kept.fill()
    assert kept.decoded() == 0
    other = frame_cache.FrameCache(kept.cache.folder.parent, dict(clip_config(kept), resize="squash"))
    assert len(other.missing(kept.clips)) == 2


def clip_config(kept: Kept) -> dict[str, Any]:
    size = list(kept.cache.shape[1:])
    return {
        "image_size": size,
        "resize": "model",
        "resize_mode": "shortest",
        "interpolation": "bicubic",
        "fill_color": 0,
    }


@pytest.mark.parametrize("place", [0, 200, 5000, -1])
def test_damaged_frames_are_not_used_and_made_anew(kept: Kept, place: int) -> None:
    kept.fill()
    entry = kept.cache.path(kept.clips[0].flow)
    content = bytearray(entry.read_bytes())
    content[place] ^= 255
    entry.write_bytes(content)
    assert kept.decoded() == 1
    assert kept.cache.missing(kept.clips) == kept.clips[:1]
    kept.fill()
    assert kept.decoded() == 0
    entry.write_bytes(content[: len(content) // 2])
    assert kept.cache.missing(kept.clips) == kept.clips[:1]


def test_a_flow_video_that_breaks_has_no_frames_on_disk(kept: Kept) -> None:
    longer = kept.clips[0]._replace(frames=60)
    assert not kept.cache.write(longer, kept.plain.preprocess)
    assert not any(kept.cache.folder.iterdir())


def test_a_disk_without_room_is_refused_with_what_is_needed(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_cache, "free", lambda folder: 1000)
    with pytest.raises(UserError, match=r"has room for 1.0 KB, but the prepared frames take .*--cache-frames"):
        kept.cache.check_room(kept.clips)


# --- runs: in one process and in two


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_embedded(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def place(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the test is in, with a copy of the inputs."""
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start_two(*more: str) -> subprocess.Popen[str]:
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = [sys.executable, *torchrun, str(REPOSITORY / "train.py"), *SETTINGS, *more]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **pipes)


def rows(name: str) -> list[dict[str, float]]:
    with open(f"checkpoints/{name}/metrics.csv", newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def first_gradients(name: str) -> list[torch.Tensor]:
    """Adam's first moment after one step is a tenth of the gradient."""
    moments = checkpoint.load_checkpoint(Path("checkpoints", name, "last.pth"))["optimizer"]["state"]
    return [state["exp_avg"] for state in moments.values()]


def break_flow(name: str) -> None:
    """Leave a flow video its header, and nothing of its frames that can be decoded."""
    path = Path("dataset/flows", name)
    content = bytearray(path.read_bytes())
    begin = content.index(b"mdat") + 4
    content[begin:] = bytes(len(content) - begin)
    path.write_bytes(content)


def test_two_processes_learn_what_one_does_with_twice_the_batch(place: Path) -> None:
    """One step: rank 0 has 12 segments of it, rank 1 the rest, in which one can't be read."""
    break_flow("train1.mp4")
    break_flow("val2.mp4")
    two = start_two("--batch-size", "12", "--epochs", "1", "--run-name", "two", "--cache-frames", "prepared")
    said, error = two.communicate(timeout=120)
    assert two.returncode == 0, error
    train.main([*SETTINGS, "--batch-size", "24", "--epochs", "1", "--run-name", "one"])
    assert said.count("finished after epoch 1") == 1  # rank 0 alone speaks
    for ours, theirs in zip(rows("two"), rows("one"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    for a, b in zip(first_gradients("two"), first_gradients("one"), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))
    left_out, others = (set(Path("checkpoints", n, "left_out.csv").read_text().splitlines()) for n in ("two", "one"))
    assert left_out == others
    assert len(left_out) == 3
    assert len(list(Path("prepared").rglob("*.frames"))) == 8
    assert not list(Path("checkpoints").glob("*.lock"))


def test_a_killed_process_ends_both_and_one_goes_on_with_what_they_saved(place: Path) -> None:
    """The first step is rank 0's alone: rank 1 has nothing of it. Then rank 1 is killed."""
    two = start_two("--batch-size", "40", "--epochs", "500", "--run-name", "two", "--freeze-encoder")
    last = Path("checkpoints/two/last.pth")
    while not last.exists():
        assert two.poll() is None, two.communicate()[1]
        time.sleep(0.02)
    children = Path(f"/proc/{two.pid}/task/{two.pid}/children").read_text().split()
    second = next(c for c in children if b"\0RANK=1\0" in Path(f"/proc/{c}/environ").read_bytes())
    os.kill(int(second), signal.SIGKILL)
    _, error = two.communicate(timeout=60)
    assert two.returncode != 0
    assert re.search(r"rank\s*: 1 .*\n.*-9", error), error
    done = checkpoint.load_checkpoint(last)["progress"]["epoch"]
    train.main(["--resume", "checkpoints/two", "--epochs", str(done + 1)])
    assert [row["epoch"] for row in rows("two")] == list(range(1, done + 2))
    train.main([*SETTINGS, "--batch-size", "40", "--epochs", "1", "--run-name", "one", "--freeze-encoder"])
    assert rows("two")[0] == pytest.approx(rows("one")[0], rel=1e-5)


def test_a_checkpoint_that_counted_steps_goes_on_at_its_segment(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = [*SETTINGS, "--batch-size", "4", "--epochs", "1"]
    train.main([*settings, "--run-name", "whole"])
    save, saved = checkpoint.save_checkpoint, []

    def stop_at_the_second(path: Path, content: dict[str, Any]) -> Path:
        saved.append(save(path, content))
        if len(saved) == 2:
            raise KeyboardInterrupt
        return path

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_checkpoint", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            train.main([*settings, "--run-name", "old", "--save-every-minutes", "0"])
    last = Path("checkpoints/old/last.pth")
    content = checkpoint.load_checkpoint(last)
    assert content["progress"].pop("seen") == 8
    checkpoint.save_checkpoint(last, content)
    train.main(["--resume", "checkpoints/old"])
    assert rows("old") == rows("whole")


# --- --dry-run


def test_dry_run_says_what_is_left_and_what_it_takes_and_writes_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cost_estimate, "PROBE_SECONDS", 0.1)
    settings = [*SETTINGS, "--batch-size", "4", "--run-name", "run"]
    train.main([*settings, "--dry-run", "--cache-frames", "prepared"])
    said = capsys.readouterr().out
    assert "a new run of 10 epochs; an epoch has 19 segments to train on and 12 to validate" in said
    assert re.search(r"about .* for 230 segments at .* segments/s; [\d.]+ MB of disk, [\d.]+ [MG]B of memory", said)
    assert not Path("checkpoints").exists() and not Path("prepared").exists() and not Path("logs").exists()
    train.main([*settings, "--epochs", "1"])
    capsys.readouterr()
    before = times(place)
    train.main([*settings, "--epochs", "3", "--dry-run"])
    said = capsys.readouterr().out
    assert "1 of 3 epochs are done" in said
    assert "for 46 segments at" in said
    assert times(place) == before


def test_dry_run_downloads_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(clip, "missing_download", lambda *names: {"url": "", "what": "the file", "cure": ""})
    train.main([*SETTINGS, "--dry-run"])
    assert "can be told once the file is here: it would be downloaded" in capsys.readouterr().out
