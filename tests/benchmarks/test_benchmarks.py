"""The benchmarks: rates, ratios, peak memory, inputs, and the written results."""

import json
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import benchmarks.__main__ as benchmarks
from benchmarks import agreement_intervals, embedding, harness, models, scale, source_intervals
from benchmarks import reading as benchmark_reading
from benchmarks.inputs import MAX_FRAMES, MEAN_LENGTH, BenchmarkInputs, clip_frames, clip_length, video_lengths
from tests.conftest import make_tiny_clip, moving_frames, write_video
from vimoclip import store
from vimoclip.errors import UserError
from vimoclip.store.reader import verify


def test_an_implementation_twice_as_fast_has_the_ratio_two() -> None:
    calls: list[str] = []

    def work(name: str, seconds: float) -> float:
        calls.append(name)
        time.sleep(seconds)
        return 10.0

    rates = harness.measure_rates({"plain": lambda: work("plain", 0.4), "ours": lambda: work("ours", 0.2)}, rounds=1)
    row = harness.make_row("stage", "what", "frames", rates, bound=100.0, bound_name="a bound")
    assert row.ratio == pytest.approx(2, rel=0.3)
    assert row.spread and row.ratio and row.spread[0] <= row.ratio <= row.spread[1]
    assert row.ours == pytest.approx(50, rel=0.3)
    assert row.bound_fraction == pytest.approx(0.5, rel=0.3)
    assert len(calls) == 2 * (1 + 1)  # one warm-up round
    assert calls[:4] in (["plain", "ours", "ours", "plain"], ["ours", "plain", "plain", "ours"])  # the order alternates


def test_the_operations_of_a_backbone_include_those_of_attention_between_tokens() -> None:
    tokens, width = torch.zeros(1, 2, 50, 8), 8
    projection = torch.nn.Linear(width, width)
    flop = models.count_flop(
        lambda: torch.nn.functional.scaled_dot_product_attention(projection(tokens), tokens, tokens)
    )
    assert flop == 2 * 2 * 50 * width * width + 2 * (2 * 2 * 50 * 50 * width)  # projection; two products, two heads


def test_peak_memory_excludes_the_memory_of_the_parent_process() -> None:
    ballast = np.ones(2**25)  # 256 MiB of the parent process
    peak = harness.measure_peak_memory(np.ones, 2**23)  # 64 MiB
    assert 0.9 * 2**26 < peak < 2 * 2**26
    assert len(ballast)


def test_lengths_have_a_long_tail_and_the_documented_mean() -> None:
    lengths = video_lengths(400)
    assert np.mean(lengths) == pytest.approx(MEAN_LENGTH, rel=0.05)
    assert max(lengths) == MAX_FRAMES
    assert np.median(lengths) < 0.75 * MEAN_LENGTH
    assert 120 <= clip_length(3) <= 180


def test_inputs_are_deterministic_and_readable(tmp_path: Path) -> None:
    first, second = (next(clip_frames(5)) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.shape == (360, 640, 3)
    assert first.std() > 20
    paths = BenchmarkInputs(tmp_path, num_videos=10).embeddings()
    readers = {role: store.EmbeddingReader(path) for role, path in paths.items()}
    assert len(readers["rgb_train"].keys) + len(readers["rgb_val"].keys) == len(readers["motion"].keys) == 10
    key = readers["rgb_val"].keys[0]
    assert readers["motion"].length(key.removesuffix(".mp4")) == readers["rgb_val"].length(key) - 1


def test_a_stage_prints_a_table_and_writes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stage:
        @staticmethod
        def run(inputs: BenchmarkInputs, rounds: int) -> list[harness.BenchmarkRow]:
            rates = {"plain": [10.0] * rounds, "ours": [40.0] * rounds}
            return [harness.make_row("start", "a stage", "frames", rates, memory=(3_000_000, 1_000_000), goal="3x")]

    monkeypatch.setattr("importlib.import_module", lambda name: Stage)
    command = ["--json", str(tmp_path / "results.json"), "--inputs-dir", str(tmp_path), "--rounds", "2"]
    benchmarks.main(["start", *command])
    output = capsys.readouterr().out
    assert "| start | a stage | 10 frames/s | 40 frames/s | 4.00 (4.00 to 4.00) |  |  | 3 MB, 1 MB | 3x |" in output
    benchmarks.main(["start", *command])  # replaces the previous rows of the stage
    (written,) = json.loads((tmp_path / "results.json").read_text())["results"]
    assert [row["ratio"] for row in written["rows"]] == [4.0]
    assert "torch" in written["machine"]["versions"]
    assert written["machine"]["processor"] == output.splitlines()[0]
    with pytest.raises(UserError, match="start, reading"):
        benchmarks.main(["nonsense"])


def test_a_run_replaces_only_its_stages_on_its_processor() -> None:
    rows = {name: [{"stage": stage, "of": name} for stage in ("start", "flow")] for name in ("first", "second")}
    results = list[dict[str, Any]]()
    for name, stage_rows in rows.items():
        results = benchmarks.merge_results(results, {"processor": name}, stage_rows)
    assert [entry["rows"] for entry in results] == list(rows.values())
    again = {"stage": "flow", "of": "first, again"}
    results = benchmarks.merge_results(results, {"processor": "first"}, [again])
    by_processor = {entry["machine"]["processor"]: entry["rows"] for entry in results}
    assert by_processor == {"second": rows["second"], "first": [rows["first"][0], again]}


class TinyInputs(BenchmarkInputs):
    """Clips of a few frames, which also stand for flow videos, and a tiny encoder."""

    def clips(self) -> list[Path]:
        return sorted((self.folder / "videos").glob("*.mp4"))

    def flows(self, size: int | None) -> Path:
        return self.folder / "videos"

    def clip_model(self) -> str:
        return f"local-dir:{self.folder / 'clip'}"


def test_both_scripts_are_compared_with_plain_and_with_the_encoder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "measured_precisions", lambda: ["fp32", "bf16"])
    monkeypatch.setattr(harness, "PRODUCT_SHAPE", (16, 16, 16))
    make_tiny_clip(tmp_path / "clip")
    write_video(tmp_path / "videos" / "clip.mp4", moving_frames(70, (1, 0)))
    rows = embedding.encoder_rows(TinyInputs(tmp_path), rounds=1)
    assert {row.what.split(",")[0] for row in rows} == {"extract_embeddings.py", "inference.py", "encoder alone"}
    assert len(rows) == 5
    assert all(row.plain and row.ours and row.bound and row.goal for row in rows)


def test_the_scale_benchmark_reads_and_trains(tmp_path: Path) -> None:
    inputs = BenchmarkInputs(tmp_path, num_videos=5)
    path = inputs.embeddings()["rgb_train"]
    benchmark_reading.write_published(path, tmp_path / "published.h5")
    benchmark_reading.check_same_rows(path, tmp_path / "published.h5")
    with h5py.File(tmp_path / "published.h5", "r+") as file:
        file["v00001.mp4/embeddings"][0, 0] += 1
    with pytest.raises(ValueError, match=r"v00001\.mp4 is read differently"):
        benchmark_reading.check_same_rows(path, tmp_path / "published.h5")
    frames = scale.write_embedding_files(tmp_path, [12, 13, 14, 20, 30, 40])
    assert frames == 129
    scale.read_all_metadata(tmp_path)
    scale.train_epoch(tmp_path)
    assert {len(pairs) for pairs in scale.open_pairs(tmp_path).values()} == {2, 4}
    assert verify(tmp_path / scale.FILE_NAMES[0]) == []
    steps = scale.bookkeeping_rows(tmp_path, 6)
    assert [row.what for row in steps] == [f"6 videos: {step}" for step in ("manifest", "resume scan", "finished file")]


def test_simulated_intervals_of_many_films_contain_the_true_value_more_often_than_not() -> None:
    rows = agreement_intervals.main(["--repetitions", "4", "--true-films", "20"])
    assert "1 film of 10 min, blocks of 60 s" in rows and rows["20 films of 20 min"].keys() == {
        *("all", "mean", "short", "middle", "long", "rare")
    }
    assert np.mean([share for row in rows.values() for share in row.values()]) > 0.5


def test_simulated_intervals_over_sources_contain_the_true_value_more_often_than_those_over_clips(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(source_intervals, "SETTINGS", [(20, 10, 1.0)])
    (row,) = source_intervals.main(["--repetitions", "10", "--true-sources", "200"]).values()
    assert row.keys() == {f"{metric} over {over}" for metric in ("macro AP", "top-1") for over in ("clips", "sources")}
    assert all(row[f"{metric} over sources"] > row[f"{metric} over clips"] for metric in ("macro AP", "top-1"))
