"""Ethograms, transitions and time bins, compared with BORIS' own analyses and with examples computed by hand."""

import csv
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.boris import boris_program
from vimoclip.ethogram import statistics
from vimoclip.timeline import Bout, Span, Timeline, find_bouts, observed_spans

CLASSES = ("walking", "Eating", "being still", "drinking")  # BORIS sorts capitals first
BORIS_ROUNDING = 0.0005 + 1e-6
BIN_SECONDS = 10
GRID = 0.125  # seconds


def make_film(
    spans: list[tuple[str, float, float]],
    seconds: float,
    observed: tuple[Span, ...] | None = None,
    name: str = "a",
    classes: tuple[str, ...] = CLASSES,
) -> Timeline:
    """Return a timeline with bouts, and without windows. Default for `observed`: the whole film."""
    spans = sorted(spans, key=lambda span: (span[1], classes.index(span[0])))
    return Timeline(
        video=Path("videos") / f"{name}.mp4",
        seconds=seconds,
        fps=25.0,
        frames=round(seconds * 25),
        classes=classes,
        starts=np.empty(0),
        stops=np.empty(0),
        scores=np.empty((0, len(classes))),
        whole=np.zeros(len(classes)),
        whole_by="",
        thresholds=np.zeros(len(classes)),
        bouts=tuple(Bout(*span, 0.5) for span in spans),
        name=name,
        observed=((0.0, seconds),) if observed is None else observed,
    )


def draw_film(name: str, generator: random.Random, overlap: bool) -> Timeline:
    """Draw bouts that start and stop on a grid, some at the film's ends; none starts at the end of a bin.

    `overlap`: whether bouts of several actions do, as those of models with several labels; otherwise none touch."""
    length = generator.randint(8, 800)
    spans = []
    for group in [[action] for action in CLASSES] if overlap else [list(CLASSES)]:
        edges = sorted(generator.sample(range(1, length, 2), min(2 * generator.randint(0, 6), length // 2) // 2 * 2))
        if edges and generator.random() < 0.5:
            edges[0] = 0
        if edges and generator.random() < 0.5:
            edges[-1] = length
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            spans.append((generator.choice(group), start * GRID, stop * GRID))
    return make_film(spans, length * GRID, name=name)


def boris_project(films: list[Timeline]) -> dict[str, Any]:
    """Return a BORIS project with the bouts of films, its events sorted as BORIS sorts them."""
    content: dict[str, Any] = {}
    for film in films:
        times = [(time, bout.action) for bout in film.bouts for time in bout[1:3]]
        events = [[time, "", action, "", "", round(time * film.fps)] for time, action in sorted(times)]
        behaviors = dict.fromkeys(film.classes, "State event")
        project = boris_program.project(behaviors, {film.stem: events}, {film.video.name: film.seconds})
        content = content or project
        content["observations"] |= project["observations"]
    return content


@pytest.fixture(scope="module")
def films() -> list[Timeline]:
    generator = random.Random(22)
    drawn = [draw_film(f"film {number}", generator, overlap=number % 2 == 0) for number in range(80)]
    return [*drawn, make_film([], 12.5, name="empty"), make_film([("Eating", 0, 7.5)], 7.5, name="full")]


@pytest.fixture(scope="module")
def analyses(films: list[Timeline]) -> dict[str, Any]:
    found: dict[str, Any] = boris_program.run("analyse", project=boris_project(films), bin_seconds=BIN_SECONDS)
    return found


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def assert_equal_to_boris(cell: str, other: Any) -> None:
    """An empty cell of ours is NA in BORIS."""
    if cell:
        assert float(other) == pytest.approx(float(cell), abs=BORIS_ROUNDING)
    else:
        assert other == "NA"


def test_time_budgets_equal_those_of_boris(films: list[Timeline], analyses: dict[str, Any], tmp_path: Path) -> None:
    rows = read_table(statistics.write_ethogram(tmp_path / "ethogram.csv", films))
    assert [(row["video"], row["action"]) for row in rows] == [(f.stem + ".mp4", c) for f in films for c in CLASSES]
    for row in rows:
        analysis = analyses[row["video"].removesuffix(".mp4")]
        budget, pauses = analysis["budget"][row["action"]], analysis["pauses"][row["action"]]
        assert int(row["bouts"]) == budget["Number of occurrences"] == pauses["number"]
        assert_equal_to_boris(row["total_seconds"], budget["Total duration"])
        assert_equal_to_boris(row["share"], budget["Proportion of time"])
        assert_equal_to_boris(row["mean_seconds"], budget["Duration mean"])
        assert_equal_to_boris(row["sd_seconds"], budget["Duration std dev"])
        assert_equal_to_boris(row["mean_pause_seconds"], pauses["inter_duration_mean"])


def test_transitions_equal_those_of_boris_where_bouts_do_not_overlap(
    films: list[Timeline], analyses: dict[str, Any], tmp_path: Path
) -> None:
    names = {film.stem for film in films[1:80:2]}
    rows = read_table(statistics.write_transitions(tmp_path / "transitions.csv", films))
    assert len(names) == 40 and any(row["from"] == row["to"] for row in rows)
    for name in names:
        video_rows = [row for row in rows if row["video"] == f"{name}.mp4"]
        counts = {(row["from"], row["to"]): float(row["count"]) for row in video_rows}
        probabilities = {(row["from"], row["to"]): float(row["probability"]) for row in video_rows}
        assert counts == read_matrix(analyses[name]["matrices"]["number"])
        expected = read_matrix(analyses[name]["matrices"]["frequencies_after_behaviors"])
        assert probabilities == pytest.approx(expected, abs=1e-6)


def test_transitions_of_all_videos_equal_those_of_boris(tmp_path: Path) -> None:
    generator = random.Random(23)
    films = [draw_film(f"film {number}", generator, overlap=False) for number in range(30)]
    analysis = boris_program.run("analyse", project=boris_project(films), bin_seconds=BIN_SECONDS)[""]
    rows = read_table(statistics.write_transitions(tmp_path / "transitions.csv", films))
    over_all = [row for row in rows if not row["video"]]
    assert rows[-len(over_all) :] == over_all
    found = {(row["from"], row["to"]): float(row["count"]) for row in over_all}
    assert found == read_matrix(analysis["matrices"]["number"])
    found = {(row["from"], row["to"]): float(row["probability"]) for row in over_all}
    assert found == pytest.approx(read_matrix(analysis["matrices"]["frequencies_after_behaviors"]), abs=1e-6)


def read_matrix(text: str | bool) -> dict[tuple[str, str], float]:
    """Return (from, to) -> number of a matrix of BORIS, without zeros; it is False if all are zero."""
    (_, *names), *lines = [line.split("\t") for line in str(text or "").splitlines()] or [[""]]
    return {
        (first, name): float(number)
        for first, *numbers in lines
        for name, number in zip(names, numbers, strict=True)
        if float(number)
    }


def test_bouts_follow_each_other_in_the_order_of_boris(films: list[Timeline], analyses: dict[str, Any]) -> None:
    simultaneous = make_film([("walking", 1, 3), ("drinking", 1, 2), ("Eating", 1, 4), ("being still", 4, 5)], 6)
    found = boris_program.run("analyse", project=boris_project([simultaneous]), bin_seconds=BIN_SECONDS)
    for film in [*films, simultaneous]:
        started, before = list[str](), list[str]()
        for state in ({**analyses, **found})[film.stem]["states"]:
            actions = state.split("+")  # all that occur at a time; those that start or stop make the next state
            if not set(actions) < set(before):
                started += actions if actions == before else sorted(set(actions) - set(before))
            before = actions
        assert sorted(statistics.count_transitions(film).elements()) == sorted(pairwise(started))
    assert statistics.count_transitions(simultaneous) == {
        ("Eating", "drinking"): 1,
        ("drinking", "walking"): 1,
        ("walking", "being still"): 1,
    }


def test_bout_that_starts_when_another_one_ends_follows_it() -> None:
    films = [make_film([(first, 1, 3), (after, 3, 4)], 6, name=first) for first, after in (CLASSES[:2], CLASSES[1::-1])]
    found = boris_program.run("analyse", project=boris_project(films), bin_seconds=BIN_SECONDS)
    assert found["Eating"]["states"] == ["Eating", "walking"]
    assert found["walking"]["states"] == ["walking", "Eating+walking", "Eating"]  # BORIS: as if they overlapped
    for film in films:
        assert statistics.count_transitions(film) == {(film.bouts[0].action, film.bouts[1].action): 1}


def test_time_bins_equal_those_of_boris(films: list[Timeline], analyses: dict[str, Any], tmp_path: Path) -> None:
    rows = read_table(statistics.write_time_bins(tmp_path / "time_bins.csv", films, BIN_SECONDS))
    assert len(rows) == len(CLASSES) * sum(len(analysis["bins"]) for name, analysis in analyses.items() if name)
    for row in rows:
        interval = f"{float(row['start']):.3f}-{float(row['stop']):.3f}"
        cells = analyses[row["video"].removesuffix(".mp4")]["bins"][interval][row["action"]]
        assert float(row["observed_seconds"]) == float(row["stop"]) - float(row["start"])
        assert float(row["bouts"]) == float(cells["Number of occurrences"])
        assert_equal_to_boris(row["total_seconds"], cells["Total duration"])
        assert_equal_to_boris(row["share"], cells["Proportion of time"])
        assert_equal_to_boris(row["sd_seconds"], cells["Duration std dev"])
        if row["bouts"] == "0":  # BORIS: 0, or NA where the whole film has no bout of the action
            assert row["mean_seconds"] == "" and cells["Duration mean"] in ("0.000", "NA")
        else:
            assert_equal_to_boris(row["mean_seconds"], cells["Duration mean"])


def test_bout_that_starts_at_the_end_of_a_bin_is_not_in_it(tmp_path: Path) -> None:
    film = make_film([("walking", 4, 6), ("walking", 10, 13)], 20)
    found = boris_program.run("analyse", project=boris_project([film]), bin_seconds=10)
    cells = found["a"]["bins"]["0.000-10.000"]["walking"]  # BORIS counts a second bout of no length
    assert (float(cells["Number of occurrences"]), float(cells["Duration mean"])) == (2, 1)
    rows = read_table(statistics.write_time_bins(tmp_path / "bins.csv", [film], 10))
    first, second = [row for row in rows if row["action"] == "walking"]
    assert (first["bouts"], first["mean_seconds"], first["sd_seconds"]) == ("1", "2", "")
    assert (second["bouts"], second["mean_seconds"]) == ("1", "3")


# Films with time that was not observed; the answers are computed by hand.


def test_durations_are_observed_time() -> None:
    spans = [("walking", 10.0, 20.0), ("walking", 35.0, 65.0), ("Eating", 62.0, 70.0), ("Eating", 90.0, 96.0)]
    film = make_film([*spans, ("drinking", 25.0, 40.0), ("drinking", 60.0, 66.0)], 100, observed=((0, 40), (60, 100)))
    walking, eating, still, drinking = statistics.summarize_actions(film)
    assert walking == ("walking", 2, 20, 80, 0.25, 10, 10, 0, 10, 1.5, 15)
    assert eating == ("Eating", 2, 14, 80, 0.175, 7, 7, pytest.approx(2**0.5), 42, 1.5, 20)
    assert drinking[:3] == ("drinking", 2, 21)
    assert np.isnan(drinking.mean_pause_seconds)  # nothing was observed between its bouts
    assert still[:5] == ("being still", 0, 0, 80, 0) and still.bouts_per_minute == 0
    assert np.isnan([still.mean_seconds, still.median_seconds, still.sd_seconds, still.latency]).all()


def test_median_is_of_the_observed_lengths() -> None:
    film = make_film([("walking", 0, 1), ("walking", 2, 22), ("walking", 30, 33)], 40, observed=((0, 4), (20, 40)))
    walking = statistics.summarize_actions(film)[0]
    assert (walking.median_seconds, walking.mean_seconds) == (3, pytest.approx(8 / 3))


def test_bout_after_unobserved_time_is_not_known_to_be_the_next() -> None:
    spans = [("walking", 10.0, 20.0), ("drinking", 25.0, 40.0), ("Eating", 62.0, 70.0)]
    observed = ((0.0, 40.0), (60.0, 100.0))
    assert statistics.count_transitions(make_film(spans, 100, observed)) == {("walking", "drinking"): 1}
    covered = make_film([*spans, ("walking", 30.0, 61.0)], 100, observed)
    assert statistics.count_transitions(covered)["walking", "Eating"] == 1
    partly_covered = make_film([*spans, ("walking", 30.0, 59.0)], 100, observed)
    assert statistics.count_transitions(partly_covered) == {("walking", "drinking"): 1, ("drinking", "walking"): 1}


def test_video_that_was_not_observed_has_no_statistics(tmp_path: Path) -> None:
    films = [make_film([], 100, observed=())]
    for row in read_table(statistics.write_ethogram(tmp_path / "ethogram.csv", films)):
        assert [row[key] for key in ("bouts", "total_seconds", "observed_seconds", "share")] == ["0", "0", "0", ""]
    assert read_table(statistics.write_transitions(tmp_path / "transitions.csv", films)) == []
    rows = read_table(statistics.write_time_bins(tmp_path / "bins.csv", films, 60))
    assert {(row["bouts"], row["observed_seconds"], row["share"]) for row in rows} == {("0", "0", "")}


def pause_film(max_gap: float) -> Timeline:
    """Frames at 0 to 20 s and 50 to 70 s; windows of 2 s every second. Two classes, Eating before and after walking."""
    times = np.concatenate([np.arange(0, 20, 0.04), np.arange(50, 70, 0.04)])
    starts = np.arange(69.0)
    scores = np.zeros((69, 2))
    scores[10:20, 0] = scores[49:53, 0] = scores[5, 1] = scores[55, 1] = 1
    scores[20:49] = np.nan
    edges = np.array([0.0, *(starts[1:] + 0.5), 70.0])
    classes = ("walking", "Eating")
    bouts = find_bouts(starts, starts + 2, scores, np.array([0.5, 0.5]), classes, 70, max_gap=max_gap)
    return make_film([bout[:3] for bout in bouts], 70, observed_spans(times, edges, scores, 70), classes=classes)


def test_pause_of_the_recording_between_bouts() -> None:
    film = pause_film(max_gap=1)
    assert [bout[:3] for bout in film.bouts if bout.action == "walking"] == [
        ("walking", 10.5, 20.5),
        ("walking", 49.5, 53.5),
    ]
    walking, eating = statistics.summarize_actions(film)
    assert walking[:8] == pytest.approx(("walking", 2, 13, 40, 0.325, 6.5, 6.5, 18**0.5))
    assert walking.latency == 10.5 and np.isnan(walking.mean_pause_seconds)
    assert eating[1:3] == (2, 2) and eating.mean_pause_seconds == pytest.approx(40 - 6.5 - (70 - 55.5))
    assert statistics.count_transitions(film) == {("Eating", "walking"): 1, ("walking", "Eating"): 1}


def test_pause_of_the_recording_within_a_bout(tmp_path: Path) -> None:
    film = pause_film(max_gap=40)
    walking, _ = statistics.summarize_actions(film)
    assert walking[:6] == pytest.approx(("walking", 1, 13, 40, 0.325, 13))
    assert statistics.count_transitions(film) == {("Eating", "walking"): 1, ("walking", "Eating"): 1}
    columns = ("start", "stop", "bouts", "total_seconds", "observed_seconds", "share")
    rows = read_table(statistics.write_time_bins(tmp_path / "bins.csv", [film], 25))
    assert [[row[key] for key in columns] for row in rows if row["action"] == "walking"] == [
        ["0", "25", "1", "9.5", "20", "0.475"],
        ["25", "50", "0", "0", "0", ""],
        ["50", "70", "1", "3.5", "20", "0.175"],
    ]


# The tables


def test_tables_are_written_without_noise(tmp_path: Path) -> None:
    films = [make_film([("walking", 0.1, 0.4), ("walking", 0.6, 0.7)], 0.9, name="x-2")]
    (row, *_) = read_table(statistics.write_ethogram(tmp_path / "ethogram.csv", films))
    assert list(row.values())[:6] == ["x-2.mp4", "walking", "2", "0.4", "0.9", "0.444444"]
    assert list(row.values())[6:] == ["0.2", "0.2", "0.141421", "0.1", "133.333333", "0.2"]
    rows = read_table(statistics.write_time_bins(tmp_path / "bins.csv", films, 0.3))
    walking = [row for row in rows if row["action"] == "walking"]
    assert [(row["start"], row["stop"], row["bouts"], row["total_seconds"]) for row in walking] == [
        ("0", "0.3", "1", "0.2"),
        ("0.3", "0.6", "1", "0.1"),
        ("0.6", "0.9", "1", "0.1"),
    ]


@pytest.mark.parametrize(
    ("seconds", "bin_seconds", "last"), [(1.1, 0.1, "1"), (120.0000004, 60, "60"), (0.04, 60, "0")]
)
def test_last_bin_is_longer_than_rounding_errors(seconds: float, bin_seconds: float, last: str, tmp_path: Path) -> None:
    rows = read_table(statistics.write_time_bins(tmp_path / "bins.csv", [make_film([], seconds)], bin_seconds))
    assert rows[-1]["start"] == last and float(rows[-1]["stop"]) == round(seconds, 6)


def test_videos_with_other_classes_share_the_tables(tmp_path: Path) -> None:
    first = make_film([("walking", 0, 1), ("Eating", 2, 3), ("walking", 4, 5)], 6, name="a")
    second = make_film(
        [("flying", 0, 1), ("walking", 2, 3), ("Eating", 4, 5)], 6, name="b", classes=("flying", *CLASSES)
    )
    rows = read_table(statistics.write_transitions(tmp_path / "transitions.csv", [first, second]))
    assert [tuple(row.values()) for row in rows] == [
        ("a.mp4", "walking", "Eating", "1", "1"),
        ("a.mp4", "Eating", "walking", "1", "1"),
        ("b.mp4", "walking", "Eating", "1", "1"),
        ("b.mp4", "flying", "walking", "1", "1"),
        ("", "walking", "Eating", "2", "1"),
        ("", "Eating", "walking", "1", "1"),
        ("", "flying", "walking", "1", "1"),
    ]
    assert len(read_table(statistics.write_ethogram(tmp_path / "ethogram.csv", [first, second]))) == 4 + 5


def test_tables_of_no_videos_have_a_header(tmp_path: Path) -> None:
    for write in (statistics.write_ethogram, statistics.write_transitions):
        assert write(tmp_path / "table.csv", []).read_text().startswith("video,")
    assert statistics.write_time_bins(tmp_path / "table.csv", [], 60).read_text().startswith("video,")
