"""Output of the demo: the check of single frames, the table, the pictures."""

import argparse
import csv
import json
import re
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import average_precision_score

from demo import check_frames, report, strips
from demo.scenes import ACTIONS, ActionCue
from tests.conftest import CLASSES, write_annotations, write_video
from vimoclip import annotations, metrics, video
from vimoclip.errors import UserError

# check_frames


@pytest.fixture
def groups() -> dict[str, list[int]]:
    return {"all": [0, 1, 2, 3], "motion": [0, 1], "appearance": [2], "both": [3]}


def sparse_labels(count: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand((count, 4), generator=generator) < 0.2).float()
    targets[0] = 1
    return targets


def summarize(scores: torch.Tensor, targets: torch.Tensor, groups: dict[str, list[int]], rounds: int = 100) -> dict:
    return check_frames.summarize(scores, targets, groups, argparse.Namespace(rounds=rounds, seed=0))


def test_perfect_scores_are_1_in_each_group_and_far_above_chance(groups: dict[str, list[int]]) -> None:
    result = summarize(sparse_labels() + 0.5, sparse_labels(), groups)
    assert result["clips"] == 40
    assert result["macro_ap"].keys() == groups.keys()
    for value in result["macro_ap"].values():
        low, high = value["chance_95"]
        assert value["value"] == pytest.approx(1)
        assert low <= value["chance"] <= high < 0.7


def test_random_scores_are_mostly_within_chance(groups: dict[str, list[int]]) -> None:
    targets, is_within = sparse_labels(), []
    for seed in range(25):
        scores = torch.rand(targets.shape, generator=torch.Generator().manual_seed(seed))
        for value in summarize(scores, targets, groups)["macro_ap"].values():
            low, high = value["chance_95"]
            is_within.append(low <= value["value"] <= high)
    assert np.mean(is_within) > 0.85


def test_chance_is_above_prevalence_where_positives_are_few(groups: dict[str, list[int]]) -> None:
    targets = torch.zeros(30, 4)
    targets[:2] = 1
    scores = torch.rand(targets.shape, generator=torch.Generator().manual_seed(0))
    for value in summarize(scores, targets, groups, rounds=300)["macro_ap"].values():
        assert value["chance"] > 1.3 * 2 / 30


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_permutations_reorder_rows_and_follow_the_seed(count: int, width: int, seed: int) -> None:
    targets = torch.arange(count * width).reshape(count, width)
    permutations = list(metrics.permute_targets(targets, 5, seed))
    assert len(permutations) == 5
    for rows in permutations:
        assert sorted(rows.tolist()) == targets.tolist()
    repeated = list(metrics.permute_targets(targets, 5, seed))
    assert all(torch.equal(a, b) for a, b in zip(permutations, repeated, strict=True))


def test_permutations_differ_between_seeds_and_rounds() -> None:
    targets = torch.arange(50)[:, None]
    first, second = metrics.permute_targets(targets, 2, 0)
    (other,) = metrics.permute_targets(targets, 1, 1)
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)


# report


VAL = {f"v{i}.mp4": labels for i, labels in enumerate([(1, 6), (2,), (2, 7, 9), (0,), (1, 9, 12), (6, 0)])}


def write_data(folder: Path, classes: tuple[str, ...] = tuple(ACTIONS), name: str = "demo") -> Path:
    data = annotations.Annotations(classes, {"train": {"t.mp4": (0,)}, "val": VAL})
    annotations.write(folder / "annotations", name, data)
    return folder


def write_run(
    folder: Path, scores: np.ndarray, classes: tuple[str, ...] = tuple(ACTIONS), finished: bool = True
) -> None:
    folder.mkdir(parents=True)
    with open(folder / "predictions.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video_id", *classes])
        writer.writerows([name, *map(repr, row)] for name, row in zip(VAL, scores.tolist(), strict=True))
    if finished:
        config, seed = folder.parent.name, int(folder.name.removeprefix("seed"))
        content = {"config": config, "fusion": config, "seed": seed, "protocol": "held_out", "settings": {}}
        content |= {"epoch_chosen_by": "map_micro", "student_protocol": "held_out", "num_videos": len(scores)}
        content |= {f"map_{average}": map_of(scores) for average in ("macro", "micro")}
        (folder / "metrics.json").write_text(json.dumps(content))


def map_of(scores: np.ndarray) -> float:
    return float(metrics.map_macro(torch.from_numpy(scores), torch.from_numpy(truth(scores.shape[1]))))


def truth(classes: int = len(ACTIONS)) -> np.ndarray:
    return np.array([[int(c in labels) for c in range(classes)] for labels in VAL.values()])


def tabulate(dataset: Path, checkpoints: Path, output: Path) -> list[dict[str, str]]:
    path = report.main(
        [
            *("--dataset-dir", str(dataset), "--checkpoints-dir", str(checkpoints)),
            *("--output-dir", str(output), "--rounds", "20"),
        ]
    )
    assert path == output / "table.md"
    with open(output / "table.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_contains_sklearns_ap_of_each_group_and_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, runs = write_data(tmp_path / "data"), tmp_path / "checkpoints"
    rng = np.random.default_rng(0)
    scores = {
        (config, seed): rng.random((len(VAL), len(ACTIONS))) for config in ("rgb", "cross_attention") for seed in (3, 4)
    }
    scores["rgb", 3] = truth() * 0.5 + 0.2
    for (config, seed), values in scores.items():
        write_run(runs / "TFAM" / config / f"seed{seed}", values)
    write_run(runs / "TFAM" / "motion" / "seed3", scores["rgb", 4], finished=False)
    rows = tabulate(dataset, runs, tmp_path / "out")
    assert [(row["config"], row["seed"]) for row in rows] == [
        *(("cross_attention", "3"), ("cross_attention", "4"), ("rgb", "3"), ("rgb", "4"))
    ]
    groups: dict[str, list[int]] = {
        cue: [i for i, name in enumerate(ACTIONS) if ACTIONS[name] == cue] for cue in ActionCue
    }
    for row in rows:
        values = scores[row["config"], int(row["seed"])]
        for name, classes in {"all": list(range(len(ACTIONS))), **groups}.items():
            present = [c for c in classes if truth()[:, c].any()]
            per_class = [average_precision_score(truth()[:, c], values[:, c]) for c in present]
            pooled = average_precision_score(truth()[:, classes].ravel(), values[:, classes].ravel())
            assert float(row[f"map_macro_{name}"]) == pytest.approx(np.mean(per_class), abs=1e-6)
            assert float(row[f"map_micro_{name}"]) == pytest.approx(pooled, abs=1e-6)
            assert 0 < float(row[f"map_macro_{name}_chance"]) < 1
    text = (tmp_path / "out" / "table.md").read_text()
    assert capsys.readouterr().out == text
    assert "on 6 evaluation clips, protocol held_out, epoch chosen by map_micro" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        *("RGB alone", "cross-attention (TFAM)", "chance (20 permutations)")
    ]
    assert len({len(line) for line in lines}) == 1
    mean = np.mean([float(row["map_macro_motion"]) for row in rows if row["config"] == "rgb"])
    assert re.search(rf"RGB alone +\| 2 .*\| {mean:.2f} ± ", text)


def test_calibration_is_reported_before_and_after(tmp_path: Path) -> None:
    """Half of the pairs with a score of 0.9 are labels: a calibration to 0.5 has no error and a log loss of log 2."""
    dataset, runs = write_data(tmp_path / "data"), tmp_path / "checkpoints"
    is_label = truth().astype(bool)
    others = np.flatnonzero(~is_label)[: is_label.sum()]
    scores = np.where(is_label, 0.9, 1e-9)
    scores.flat[others] = 0.9
    write_run(runs / "TFAM" / "rgb" / "seed3", scores)
    write_run(runs / "TFAM" / "motion" / "seed3", scores)  # without calibration.json
    logit = float(np.log(9))
    row = {"scaling": "platt", "slope": 1.0, "intercept": -logit, "threshold": 0.5, "positives": 3}
    content = {"schema": 1, "method": "platt", "num_videos": 6, "cross_validated_log_loss": {}}
    content["classes"] = dict.fromkeys(ACTIONS, row)
    (runs / "TFAM" / "rgb" / "seed3" / "calibration.json").write_text(json.dumps(content))
    motion, rgb = tabulate(dataset, runs, tmp_path / "out")
    share = 2 * is_label.sum() / is_label.size
    assert float(rgb["ece_raw"]) == pytest.approx(0.4 * share, abs=1e-6)
    assert float(rgb["ece_calibrated"]) == pytest.approx(0, abs=1e-6)
    assert float(rgb["log_loss_calibrated"]) == pytest.approx(share * np.log(2), abs=1e-6)
    assert float(rgb["log_loss_raw"]) == pytest.approx(-share * (np.log(0.9) + np.log(0.1)) / 2, abs=1e-6)
    assert motion["ece_raw"] == ""
    assert "-> 0.000" in (tmp_path / "out" / "table.md").read_text()


def test_gains_over_rgb_are_listed_for_the_common_seeds(tmp_path: Path) -> None:
    dataset, runs = write_data(tmp_path / "data"), tmp_path / "checkpoints"
    right, wrong = truth() * 0.5 + 0.2, 0.7 - truth() * 0.5
    for config, scores_by_seed in {
        "rgb": {1: right, 2: wrong},
        "cross_attention": {1: wrong, 2: right, 5: right},
        "motion": {2: wrong},
    }.items():
        for seed, scores in scores_by_seed.items():
            write_run(runs / "TFAM" / config / f"seed{seed}", scores)
    rows = tabulate(dataset, runs, tmp_path / "out")
    value = {(row["config"], row["seed"]): float(row["map_macro_motion"]) for row in rows}
    assert value["rgb", "1"] == pytest.approx(1)
    gap = 1 - value["rgb", "2"]
    assert gap > 0.3
    lines = (tmp_path / "out" / "table.md").read_text().splitlines()
    index = next(
        i for i, line in enumerate(lines) if "motion" in line and line.endswith("over RGB alone, seed by seed:")
    )
    assert lines[index + 1 :] == [f"  cross-attention (TFAM): -{gap:.2f}, +{gap:.2f}", "  motion alone: +0.00"]


def test_what_is_not_better_than_the_best_probe_is_named(tmp_path: Path) -> None:
    dataset, noise = write_data(tmp_path / "data"), np.random.default_rng(0).random((len(VAL), len(ACTIONS)))
    for config, weight in {"rgb": 0.0, "cross_attention": 1.0, "probe_both": 0.4, "probe_rgb": 0.1}.items():
        write_run(tmp_path / "checkpoints" / "TFAM" / config / "seed1", weight * truth() + noise)
    tabulate(dataset, tmp_path / "checkpoints", tmp_path / "out")
    text = (tmp_path / "out" / "table.md").read_text().partition("over the best probe")[2]
    rgb, fusion = [line for line in text.splitlines() if line.startswith("  ")]
    assert report.CONFIG_TITLES["probe_both"] in rgb and "-0." in rgb and "+" not in rgb.partition("over")[0]
    assert report.CONFIG_TITLES["probe_both"] in fusion and fusion.partition("over")[0].count("+") >= 1


def test_predictions_of_other_classes_or_clips_are_refused_by_name(tmp_path: Path) -> None:
    dataset, path = write_data(tmp_path / "data"), tmp_path / "checkpoints" / "TFAM" / "rgb" / "seed1"
    write_run(path, truth() * 0.5, classes=("other", *tuple(ACTIONS)[1:]))
    with pytest.raises(UserError, match=r"seed1/predictions.csv"):
        tabulate(dataset, tmp_path / "checkpoints", tmp_path / "out")
    shutil.rmtree(path)
    write_run(path, truth() * 0.5)
    text = (path / "predictions.csv").read_text()
    (path / "predictions.csv").write_text(text.replace("v3.mp4", "t.mp4"))
    with pytest.raises(UserError, match=r"seed1/predictions.csv"):
        tabulate(dataset, tmp_path / "checkpoints", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_a_finished_run_there_is_no_table(tmp_path: Path) -> None:
    dataset = write_data(tmp_path / "data")
    write_run(tmp_path / "checkpoints" / "TFAM" / "rgb" / "seed1", truth() * 0.5, finished=False)
    with pytest.raises(UserError, match="TFAM"):
        tabulate(dataset, tmp_path / "checkpoints", tmp_path / "out")


def test_actions_that_are_not_the_demos_are_in_one_group(tmp_path: Path) -> None:
    class_names = tuple(f"action {i}" for i in range(13))
    dataset = write_data(tmp_path / "data", class_names)
    for config in ("rgb", "motion"):
        write_run(tmp_path / "checkpoints" / "TFAM" / config / "seed1", truth(13) * 0.5, class_names)
    rows = tabulate(dataset, tmp_path / "checkpoints", tmp_path / "out")
    assert set(rows[0]) == {
        *("config", "seed", "map_macro_all", "map_micro_all", "map_macro_all_chance", "map_micro_all_chance")
    }
    text = (tmp_path / "out" / "table.md").read_text()
    assert "macro AP, over RGB alone, seed by seed:\n  motion alone: +0.00\n" in text


def test_actions_with_some_of_the_demos_names_are_in_one_group(tmp_path: Path) -> None:
    data = annotations.Annotations(("running", "walking"), {"val": {name: (i % 2,) for i, name in enumerate(VAL)}})
    annotations.write(tmp_path / "data" / "annotations", "demo", data)
    write_run(tmp_path / "checkpoints" / "TFAM" / "rgb" / "seed1", truth(2) * 0.5, data.classes)
    (row,) = tabulate(tmp_path / "data", tmp_path / "checkpoints", tmp_path / "out")
    assert not [name for name, value in row.items() if value == "nan"]


# strips


@pytest.fixture
def strips_workspace(tmp_path: Path) -> Path:
    """A data set of two clips with the flow of one, and a run's predictions."""
    dataset = tmp_path / "data"
    for name in ("a", "b"):
        frames = np.repeat(np.arange(0, 240, 20, dtype=np.uint8), 48 * 64 * 3).reshape(12, 48, 64, 3)
        write_video(dataset / "videos" / f"{name}.mp4", frames)
    write_video(dataset / "flows" / "a.mp4", np.full((11, 24, 32, 3), (250, 20, 30), np.uint8))
    write_annotations(dataset / "annotations", {"train": {"t.mp4": (0,)}, "val": {"a.mp4": (2,), "b.mp4": (0,)}})
    run = tmp_path / "run"
    run.mkdir()
    header = ",".join(["video_id", *CLASSES])
    (run / "predictions.csv").write_text(f"{header}\na.mp4,0.25,0.5,1.0\nb.mp4,0.9,0.1,0.2\n")
    return tmp_path


def draw_strips(root: Path, *flags: str) -> list[Path]:
    return strips.main(
        [
            *("--run", str(root / "run"), "--dataset-dir", str(root / "data"), "--dataset-name", "ak"),
            *("--output-dir", str(root / "out"), *flags),
        ]
    )


def bars(sheet: np.ndarray, width: int, count: int) -> list[tuple[tuple[int, ...], int]]:
    """Return colour and length of each bar of a picture, whose strips are `width` pixels wide."""
    bars_found = []
    for i in range(count):
        row = sheet[int((i + 0.5) * sheet.shape[0] / count), width + 2 * strips.GAP + 140 :]
        color = tuple(int(c) for c in row[0])
        bars_found.append((color, int((row == row[0]).all(1).argmin())))
    return bars_found


def test_a_picture_shows_frames_flow_and_the_likeliest_actions(strips_workspace: Path) -> None:
    first, second = draw_strips(strips_workspace)
    assert [path.name for path in (first, second)] == ["a.png", "b.png"]
    strip_width = 6 * 160 + 5 * strips.GAP
    sheet = np.array(Image.open(first).convert("RGB"))
    assert sheet.shape == (2 * 120 + strips.GAP, strip_width + 2 * strips.GAP + strips.BARS_WIDTH, 3)
    for i, bright in enumerate(np.linspace(0, 11, 6).astype(int) * 20):  # the first frame, the last and evenly between
        frame = sheet[:120, i * 166 : i * 166 + 160].astype(int)
        assert np.abs(frame - bright).max() < 8
        assert np.abs(sheet[126:, i * 166 : i * 166 + 160].astype(int) - (250, 20, 30)).max() < 12
    max_bar = strips.BARS_WIDTH - 190
    colors, lengths = zip(*bars(sheet, strip_width, 3), strict=True)
    assert colors == (strips.LABEL_COLOR, strips.OTHER_COLOR, strips.OTHER_COLOR)  # it is labelled with the likeliest
    assert np.allclose(lengths, [max_bar, max_bar / 2, max_bar / 4], atol=2)
    without_flow = np.array(Image.open(second).convert("RGB"))
    assert without_flow.shape == (120, strip_width + 2 * strips.GAP + strips.BARS_WIDTH, 3)
    assert [color for color, _ in bars(without_flow, strip_width, 3)] == [
        strips.LABEL_COLOR,
        strips.OTHER_COLOR,
        strips.OTHER_COLOR,
    ]


def test_pictures_are_of_the_first_clips_or_of_those_named(strips_workspace: Path) -> None:
    assert [path.name for path in draw_strips(strips_workspace, "--count", "1")] == ["a.png"]
    assert [path.name for path in draw_strips(strips_workspace, "--clips", "b.mp4")] == ["b.png"]


def test_unknown_clips_and_runs_raise(strips_workspace: Path) -> None:
    with pytest.raises(UserError, match=r"t.mp4"):
        draw_strips(strips_workspace, "--clips", "t.mp4")
    with pytest.raises(UserError, match=r"nowhere/predictions.csv"):
        draw_strips(strips_workspace, "--run", str(strips_workspace / "nowhere"))


def test_a_run_on_clips_without_annotations_raises(strips_workspace: Path) -> None:
    (strips_workspace / "data" / "annotations" / "val_multi.txt").write_text("b.mp4 0\n")
    with pytest.raises(UserError, match=r"a\.mp4"):
        draw_strips(strips_workspace)


def test_a_picture_of_a_clip_without_length_in_its_header(strips_workspace: Path) -> None:
    path = strips_workspace / "data" / "videos" / "a.mp4"
    with av.open(str(path.with_suffix(".mkv")), "w") as target:
        stream = target.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in video.RandomAccessReader(path).read(0, 12):
            target.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        target.mux(stream.encode(None))
    path.with_suffix(".mkv").replace(path)
    assert video.probe(path).frames == 0
    draw_strips(strips_workspace)
