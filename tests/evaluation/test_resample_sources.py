"""evaluate.py --resample sources: intervals from resamples of whole sources."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

import evaluate
from vimoclip import annotations
from vimoclip.annotations import Annotations
from vimoclip.errors import UserError
from vimoclip.io import csv as csv_files

CLASSES = ("walk", "eat", "rest")
RESAMPLES = 60


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_dataset(targets: np.ndarray, sources: Sequence[str], names: Sequence[str] = ()) -> list[str]:
    """Write annotations of N clips, and their sources unless these are empty; return the clips."""
    clips = list(names) or [f"v{i:03}.mp4" for i in range(len(targets))]
    val = {clip: tuple(np.flatnonzero(row).tolist()) for clip, row in zip(clips, targets, strict=True)}
    train = {f"t{i}.mp4": (i % 3,) for i in range(6)}
    folder = Path("dataset/annotations")
    annotations.write(folder, "zoo", Annotations(CLASSES, {"train": train, "val": val}))
    known = {clip: source for clip, source in zip(clips, sources, strict=True) if source}
    (folder / "sources.csv").write_text(annotations.format_sources(known))
    return clips


def write_scores(name: str, clips: Sequence[str], scores: np.ndarray) -> str:
    rows = [[clip, *row] for clip, row in zip(clips, scores.tolist(), strict=True)]
    csv_files.write_csv(Path(name), ["video_id", *CLASSES], rows)
    return name


def run(*arguments: str) -> dict[str, Any]:
    return evaluate.main([*arguments, "--resamples", str(RESAMPLES)]).metrics


def example(seed: int = 0, sources: int = 8) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return targets with one label each, scores and sources of 4 to 4 + sources clips."""
    rng = np.random.default_rng(seed)
    names = [f"s{s}" for s in range(sources) for _ in range(4 + s)]
    labels = rng.integers(0, 3, len(names))
    targets = np.eye(3, dtype=bool)[labels]
    return targets, np.clip(0.3 * targets + 0.7 * rng.random(targets.shape), 0, 1), names


def drawn_clips(sources: Sequence[str]) -> list[list[int]]:
    """Return the clips of each resample: as many sources as there are, drawn by name, with all their clips."""
    names = sorted(set(sources))
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(names), len(names)) for _ in range(RESAMPLES)]
    return [[i for s in draw for i, source in enumerate(sources) if source == names[s]] for draw in draws]


def shifted_percentiles(values: Sequence[float], value: float) -> list[float]:
    return (np.nanpercentile(values, [2.5, 97.5]) + value - np.nanmean(values)).tolist()


def test_intervals_are_those_of_resampled_sources() -> None:
    targets, scores, sources = example()
    sources = [f"s{7 - int(source[1:])}" for source in sources]  # the order of the names, not of the clips, counts
    clips = write_dataset(targets, sources)
    by_clip = run(write_scores("p.csv", clips, scores))
    result = run("p.csv", "--resample", "sources")
    assert (by_clip["bootstrap"]["over"], by_clip["bootstrap"]["units"]) == ("clips", len(clips))
    assert (result["bootstrap"]["over"], result["bootstrap"]["units"]) == ("sources", 8)
    correct = scores.argmax(1) == targets.argmax(1)
    top1, macro, per_class = [], [], []
    for rows in drawn_clips(sources):
        top1.append(correct[rows].mean())
        per_class.append([np.mean(correct[rows][targets[rows, c]]) for c in range(3)])
        macro.append(np.mean([average_precision_score(targets[rows, c], scores[rows, c]) for c in range(3)]))
    for name, values in (("top1", top1), ("map_macro", macro), ("mean_per_class_top1", np.mean(per_class, 1))):
        assert result[name]["value"] == by_clip[name]["value"]
        assert result[name]["ci95"] == pytest.approx(shifted_percentiles(values, result[name]["value"]))
        assert result[name]["ci95"] != pytest.approx(by_clip[name]["ci95"], abs=1e-3)
    page = Path("p_evaluation/report.html").read_text(encoding="utf-8")
    assert "8 sources" in page


def test_the_order_of_the_clips_does_not_matter() -> None:
    targets, scores, sources = example()
    clips = write_dataset(targets, sources)
    write_scores("p.csv", clips, scores)
    order = np.random.default_rng(1).permutation(len(clips))
    write_scores("q.csv", [clips[i] for i in order], scores[order])
    first, second = (run(name, "--resample", "sources")["map_macro"]["ci95"] for name in ("p.csv", "q.csv"))
    assert first == pytest.approx(second)


def test_sources_that_are_all_right_or_all_wrong_give_a_wider_interval() -> None:
    """20 sources of 10 clips, half of them right: as uncertain as 20 clips, not 200."""
    labels = np.arange(200) % 3
    right = np.repeat(np.arange(20) % 2 == 0, 10)
    targets = np.eye(3, dtype=bool)[labels]
    scores = np.eye(3)[np.where(right, labels, (labels + 1) % 3)]
    clips = write_dataset(targets, [f"s{i // 10:02}" for i in range(200)])
    write_scores("p.csv", clips, scores)
    widths = {}
    for over in ("clips", "sources"):
        low, high = evaluate.main(["p.csv", "--resample", over, "--resamples", "1000"]).metrics["top1"]["ci95"]
        widths[over] = high - low
    # 2 * 1.96 * sqrt(0.25 / n), of n clips and of n sources
    assert widths["clips"] == pytest.approx(3.92 * (0.25 / 200) ** 0.5, rel=0.1)
    assert widths["sources"] == pytest.approx(3.92 * (0.25 / 20) ** 0.5, rel=0.15)


def test_a_clip_without_a_source_is_one_by_itself() -> None:
    targets, scores, sources = example()
    named = [source if int(source[1:]) < 5 else "" for source in sources]
    clips = write_dataset(targets, named)
    result = run(write_scores("p.csv", clips, scores), "--resample", "sources")
    alone = named.count("")
    assert result["bootstrap"]["units"] == 5 + alone
    assert any(str(alone) in note and clips[named.index("")] in note for note in result["notes"])


def test_classes_need_five_sources_and_so_do_all_intervals() -> None:
    targets, scores, sources = example()
    targets[:] = False
    targets[:, 0] = True
    rows = [i for i, source in enumerate(sources) if source in ("s4", "s5", "s6", "s7")]  # 38 clips of four sources
    targets[rows] = [False, True, False]
    clips = write_dataset(targets, sources)
    write_scores("p.csv", clips, scores)

    def intervals(*flags: str) -> dict[str, bool]:
        run("p.csv", *flags)
        with open("p_evaluation/per_class.csv", newline="") as file:
            return {row["class"]: bool(row["ap_low"]) for row in csv.DictReader(file)}

    assert intervals() == {"walk": True, "eat": True, "rest": False}
    assert intervals("--resample", "sources") == {"walk": False, "eat": False, "rest": False}
    write_scores("q.csv", clips, 1 - scores)
    compared = run("p.csv", "--compare", "q.csv", "--resample", "sources")["comparison"]
    assert [row["ci95"] for row in compared["gained"] + compared["lost"]] == [None, None]
    targets[0] = [True, True, False]  # a clip of a fifth source
    write_dataset(targets, sources)
    assert intervals("--resample", "sources") == {"walk": False, "eat": True, "rest": False}
    few = [source if source < "s4" else "s3" for source in sources]
    write_dataset(targets, few)
    assert intervals("--resample", "sources") == dict.fromkeys(CLASSES, False)
    result = json.loads(Path("p_evaluation/metrics.json").read_text())
    assert result["bootstrap"]["units"] == 4 and result["map_macro"]["ci95"] is result["hit_at_1"]["ci95"] is None
    assert result["map_macro"]["value"] is not None and any("5 sources" in note for note in result["notes"])


def test_groups_of_animals_need_five_sources() -> None:
    targets, scores, sources = example()
    clips = write_dataset(targets, sources)
    animals = {
        clip: annotations.VideoAnimals((), ("Bird",) if s < "s4" else ("Fish",))
        for clip, s in zip(clips, sources, strict=True)
    }
    Path("dataset/annotations/animals.csv").write_text(annotations.format_animals(animals))
    write_scores("p.csv", clips, scores)
    assert all(entry["map_macro"]["ci95"] for entry in run("p.csv")["animal_classes"].values())
    result = run("p.csv", "--resample", "sources")
    assert [entry["map_macro"]["ci95"] for entry in result["animal_classes"].values()] == [None, None]
    assert result["map_macro"]["ci95"]


def test_a_comparison_is_paired() -> None:
    targets, scores, sources = example()
    clips = write_dataset(targets, sources)
    other = np.clip(scores - 0.2 * targets, 0, 1)
    write_scores("p.csv", clips, scores)
    write_scores("q.csv", clips, other)
    result = run("p.csv", "--compare", "q.csv", "--resample", "sources")["comparison"]["map_macro"]
    differences = [
        np.mean(
            [
                np.subtract(*(average_precision_score(targets[rows, c], s[rows, c]) for s in (scores, other)))
                for c in range(3)
            ]
        )
        for rows in drawn_clips(sources)
    ]
    assert result["ci95"] == pytest.approx(shifted_percentiles(differences, result["difference"]))


def test_inferred_sources_are_named_as_such() -> None:
    targets, scores, sources = example()
    notes = {}
    for prefix in ("", annotations.INFERRED_SOURCE):
        clips = write_dataset(targets, [prefix + source for source in sources])
        notes[prefix] = run(write_scores("p.csv", clips, scores), "--resample", "sources")["notes"]
    assert sum("inferred" in note for note in notes[""]) == 0
    assert sum("inferred" in note for note in notes[annotations.INFERRED_SOURCE]) == 1


def test_without_sources_it_is_an_error() -> None:
    targets, scores, sources = example()
    clips = write_dataset(targets, sources)
    Path("dataset/annotations/sources.csv").unlink()
    write_scores("p.csv", clips, scores)
    with pytest.raises(UserError, match=r"sources\.csv") as caught:
        run("p.csv", "--resample", "sources")
    assert caught.value.path == "dataset/annotations" and not Path("p_evaluation").exists()
