"""Measures of agreement: worked by hand, against scikit-learn on the same samples, and their bootstrap intervals."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score, precision_recall_fscore_support

from vimoclip import metrics
from vimoclip.agreement.coding import CodingPair, FilmCoding, FilmPair
from vimoclip.agreement.measures import BLOCK_SECONDS, MIN_UNITS, MeasureSettings, measure
from vimoclip.errors import UserError
from vimoclip.timeline.bouts import Span

ACTIONS = ("walk", "rest", "bite")
Bouts = Mapping[str, Sequence[Span]]
Points = Mapping[str, Sequence[float]]
NAMES = ("precision", "recall", "f1")


def coded_film(bouts: Bouts, points: Points | None = None, unknown: Bouts | None = None) -> FilmCoding:
    return FilmCoding(
        "film.mp4",
        None,
        {action: tuple(spans) for action, spans in bouts.items()},
        {action: tuple(times) for action, times in (points or {}).items()},
        {action: tuple(spans) for action, spans in (unknown or {}).items()},
    )


def film_pair(coded: FilmCoding, predicted: FilmCoding, *compared: Span, name: str = "film.mp4") -> FilmPair:
    return FilmPair(name, coded, predicted, compared[-1][1] if compared else 0.0, compared)


def measured(*films: FilmPair, actions: Sequence[str] = ACTIONS, **options: Any) -> dict[str, Any]:
    """Measure films, every second and with few resamples unless `options` say otherwise. The result is valid JSON."""
    chosen = MeasureSettings(**{"step": 1.0, "resamples": 20, **options})
    document = measure(CodingPair(tuple(actions), films, ()), chosen)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    return document


def values(entries: Mapping[str, Any], *names: str) -> list[float | None]:
    return [entries[name]["value"] for name in names or NAMES]


def intervals(document: Any) -> list[list[float] | None]:
    """All intervals in a document."""
    if not isinstance(document, dict):
        return []
    own = [document["ci95"]] if "ci95" in document else []
    return own + [interval for part in document.values() for interval in intervals(part)]


# --- worked by hand


def test_a_film_of_ten_seconds() -> None:
    """Samples at 0, 1, ..., 10. walk: coded at 2 to 6, predicted at 3 to 8, so 4 in both, 1 and 2 in one, 4 in none.

    bite is a point event, which takes one sample; rest is predicted at 9 and 10 only."""
    coded = coded_film({"walk": [(2.0, 6.0)]}, {"bite": [8.4]})
    predicted = coded_film({"walk": [(2.5, 8.0)], "rest": [(8.5, 10.0)]}, {"bite": [0.6, 8.0]})
    document = measured(film_pair(coded, predicted, (0.0, 10.0)))
    walk, rest, bite = (document["actions"][action] for action in ACTIONS)
    assert document["samples"] == 11
    assert document["compared_seconds"] == 10.0
    assert [walk["coded_seconds"], walk["predicted_seconds"]] == [4.0, 5.5]
    assert walk["percent_agreement"]["value"] == pytest.approx(100 * 8 / 11)
    # by chance (5 x 6 + 6 x 5) / 11**2
    assert walk["kappa"]["value"] == pytest.approx((8 / 11 - 60 / 121) / (1 - 60 / 121))
    assert values(walk["by_time"]) == pytest.approx([4 / 6, 4 / 5, 8 / 11])
    # 3.5 s of 6 s in both: the bouts match
    assert walk["by_bouts"] | dict.fromkeys(NAMES) == {
        "matched": 1, "coded": 1, "predicted": 1, "precision": None, "recall": None, "f1": None,
    }  # fmt: skip
    assert values(walk["onset_error_seconds"], "mean", "mean_absolute") == [0.5, 0.5]
    assert values(walk["offset_error_seconds"], "mean", "mean_absolute") == [2.0, 2.0]
    assert values(rest["by_time"]) == [0.0, None, 0.0]
    assert values(rest["by_bouts"]) == [0.0, None, 0.0]
    assert values(rest["onset_error_seconds"], "mean", "mean_absolute") == [None, None]
    assert [bite["coded_points"], bite["predicted_points"], bite["by_bouts"]["coded"]] == [1, 2, 0]
    assert values(bite["by_time"]) == [0.5, 1.0, 2 / 3]
    found = {(row["coded"], row["predicted"]): row["seconds"] for row in document["confusions"]}
    assert found == {
        ("walk", "walk"): 4, ("walk", None): 1, (None, "walk"): 2, (None, "rest"): 2, ("bite", "bite"): 1,
        (None, "bite"): 1, (None, None): 1,
    }  # fmt: skip
    assert [row["seconds"] for row in document["confusions"]] == sorted(found.values(), reverse=True)


def test_errors_have_the_sign_of_predicted_minus_coded() -> None:
    coded = coded_film({"walk": [(10.0, 20.0), (30.0, 40.0)]})
    predicted = coded_film({"walk": [(9.0, 18.0), (33.0, 41.5)]})
    walk = measured(film_pair(coded, predicted, (0.0, 60.0)))["actions"]["walk"]
    assert values(walk["onset_error_seconds"], "mean", "mean_absolute") == [1.0, 2.0]
    assert values(walk["offset_error_seconds"], "mean", "mean_absolute") == [-0.25, 1.75]


def test_one_action_taken_for_another_is_a_confusion() -> None:
    """Two missed ones beside one wrong one are two confusions at once."""
    coded = coded_film({"walk": [(0.0, 4.0)], "rest": [(3.0, 4.0)]})
    predicted = coded_film({"bite": [(2.0, 4.0)]})
    rows = measured(film_pair(coded, predicted, (0.0, 4.0)))["confusions"]
    assert rows == [
        {"coded": "walk", "predicted": "bite", "seconds": 3.0},
        {"coded": "walk", "predicted": None, "seconds": 2.0},
        {"coded": "rest", "predicted": "bite", "seconds": 2.0},
    ]


def test_samples_lie_on_both_ends_of_bouts_and_spans() -> None:
    """0.1 s has no exact float: 0.3 is a sample of a bout from 0.3 on, and 0.7 of one until 0.7."""
    coded, predicted = coded_film({"walk": [(0.3, 0.7)]}), coded_film({"walk": [(0.30001, 0.69999)]})
    document = measured(film_pair(coded, predicted, (0.0, 1.0)), step=0.1)
    assert document["samples"] == 11
    assert values(document["actions"]["walk"]["by_time"]) == [1.0, 3 / 5, 3 / 4]


def test_a_point_event_belongs_to_the_samples_within_half_a_step() -> None:
    """3.5 s is half a step from two samples."""
    coded, predicted = coded_film({}, {"bite": [3.5]}), coded_film({}, {"bite": [2.6, 3.49]})
    bite = measured(film_pair(coded, predicted, (0.0, 9.0)))["actions"]["bite"]
    assert values(bite["by_time"]) == [1.0, 0.5, 2 / 3]


def test_only_the_compared_spans_count() -> None:
    """Samples lie on the grid of the first span: 2.5 to 4.5, and 10.5 to 11.5. Bouts are clipped, one in two."""
    coded = coded_film({"walk": [(0.0, 2.5), (4.0, 11.0)]}, {"bite": [1.0, 2.5]})
    predicted = coded_film({"walk": [(3.0, 30.0)]}, {"bite": [11.8, 12.0, 12.1]})
    document = measured(film_pair(coded, predicted, (2.5, 5.0), (10.0, 12.0)))
    assert document["samples"] == 5
    assert document["films"] == [
        {"name": "film.mp4", "seconds": 12.0, "compared_seconds": 4.5, "samples": 5,
         "kappa": document["overall"]["kappa"]["value"],
         "percent_agreement": document["overall"]["percent_agreement"]["value"]}
    ]  # fmt: skip
    walk, bite = document["actions"]["walk"], document["actions"]["bite"]
    assert [walk["coded_seconds"], walk["predicted_seconds"]] == [2.0, 4.0]
    assert [walk["by_bouts"][name] for name in ("matched", "coded", "predicted")] == [2, 2, 2]
    assert values(walk["by_time"]) == [0.5, 2 / 3, 4 / 7]
    assert [bite["coded_points"], bite["predicted_points"]] == [1, 2]


def test_unknown_time_of_an_action_is_left_out_of_it_and_of_the_overall_table() -> None:
    """The stop of walk is missing: nobody knows whether the animal walks from 2.5 s on."""
    coded = coded_film({"walk": [(0.0, 2.0)], "rest": [(1.0, 8.0)]}, unknown={"walk": [(2.5, 9.0)]})
    predicted = coded_film({"walk": [(0.0, 2.0), (5.0, 9.0)], "rest": [(1.0, 6.0)]})
    document = measured(film_pair(coded, predicted, (0.0, 9.0)), actions=("walk", "rest"))
    walk, rest = document["actions"]["walk"], document["actions"]["rest"]
    assert document["samples"] == 10
    assert [walk["kappa"]["value"], walk["by_bouts"]["predicted"], walk["predicted_seconds"]] == [None, 1, 2.0]
    assert rest["percent_agreement"]["value"] == 80.0
    assert document["overall"]["percent_agreement"]["value"] == 100.0
    assert sum(row["seconds"] for row in document["confusions"] if row["coded"] == "walk") == 3
    assert any("walk" in note and "rest" not in note and "70 %" in note for note in document["notes"])


def test_time_that_is_unknown_throughout_gives_no_numbers() -> None:
    coded = coded_film({}, unknown={"walk": [(0.0, math.inf)]})
    document = measured(film_pair(coded, coded, (0.0, 600.0)), actions=("walk",))
    assert document["overall"]["kappa"] == {"value": None, "ci95": None}
    assert document["films"][0]["kappa"] is None
    assert document["confusions"] == []


def test_kappa_of_constant_codings() -> None:
    """Per action it is not defined, as in scikit-learn; that of one joint state is 1, as in BORIS."""
    films = [film_pair(coded_film({"walk": [(0.0, 9.0)]}), coded_film({"walk": [(0.0, 9.0)]}), (0.0, 9.0))] * MIN_UNITS
    document = measured(*films)
    assert document["overall"]["kappa"] == {"value": 1.0, "ci95": None}
    assert document["overall"]["states"] == 1
    assert document["overall"]["actions_with_kappa"] == 0
    assert document["overall"]["kappa_macro"] == {"value": None, "ci95": None}
    assert [document["actions"][action]["kappa"]["value"] for action in ACTIONS] == [None] * 3
    assert document["actions"]["walk"]["percent_agreement"] == {"value": 100.0, "ci95": [100.0, 100.0]}
    assert [film["kappa"] for film in document["films"]] == [1.0] * MIN_UNITS
    changing = film_pair(coded_film({"walk": [(0.0, 5.0)]}), coded_film({"walk": [(0.0, 5.0)]}), (0.0, 9.0))
    added = set(document["notes"]) - set(measured(*films, changing)["notes"])
    assert len(added) == 1 and "kappa" in added.pop()


def test_a_day_in_steps_of_a_millisecond() -> None:
    """No array has the length of the film: 86 million samples would take seconds."""
    coded, predicted = coded_film({"walk": [(0.0, 43_200.0)]}), coded_film({"walk": [(21_600.0, 64_800.0)]})
    document = measured(film_pair(coded, predicted, (0.0, 86_400.0)), step=0.001)
    assert document["samples"] == 86_400_001
    assert document["actions"]["walk"]["kappa"]["value"] == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("step", [1e-7, 0.0009, 9.5])
def test_steps_that_give_no_samples_are_refused(step: float) -> None:
    coded, predicted = coded_film({"walk": [(0.0, 5.0)]}), coded_film({})
    films = film_pair(coded, predicted, (0.0, 9.0)), film_pair(coded, predicted, (0.0, 2.0))
    with pytest.raises(UserError):
        measured(*films, step=step)
    assert [film["samples"] for film in measured(*films, step=9.0)["films"]] == [2, 1]


# --- against scikit-learn


def millisecond_spans(cuts: list[int]) -> list[Span]:
    ordered = sorted(set(cuts))
    return [(start / 1000, stop / 1000) for start, stop in zip(ordered[::2], ordered[1::2], strict=False)]


# multiples of 50 ms hit samples and half steps exactly, the others do not
TIMES = st.one_of(st.integers(0, 200).map(lambda n: n * 50), st.integers(0, 10_000))
SPANS = st.lists(TIMES, max_size=16).map(millisecond_spans)
CODED = st.builds(
    coded_film,
    st.fixed_dictionaries(dict.fromkeys(ACTIONS, SPANS)),
    st.fixed_dictionaries({}, optional={"bite": st.lists(TIMES.map(lambda time: time / 1000), max_size=4)}),
    st.fixed_dictionaries({}, optional={"walk": st.lists(TIMES, max_size=4).map(millisecond_spans)}),
)
COMPARED = st.lists(TIMES, min_size=2, max_size=6, unique=True).map(
    lambda cuts: millisecond_spans(cuts[: len(cuts) // 2 * 2])
)
FILMS = st.lists(
    st.builds(lambda coded, predicted, spans: film_pair(coded, predicted, *spans), CODED, CODED, COMPARED),
    min_size=1,
    max_size=3,
)


def milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def samples_of(film: FilmPair, step: float) -> list[dict[str, tuple[bool, bool, bool]]]:
    """The samples of a film one by one: action -> (in the coded one, in the predicted one, known)."""
    spans = [(milliseconds(start), milliseconds(stop)) for start, stop in film.compared]
    rows, time = [], spans[0][0]
    while time <= spans[-1][1]:
        if any(start <= time <= stop for start, stop in spans):
            rows.append({action: sample_of(film, action, time, milliseconds(step)) for action in ACTIONS})
        time += milliseconds(step)
    return rows


def sample_of(film: FilmPair, action: str, time: int, step: int) -> tuple[bool, bool, bool]:
    def lies_in(spans: Sequence[Span]) -> bool:
        return any(milliseconds(start) <= time <= milliseconds(stop) for start, stop in spans)

    def is_present(coding: FilmCoding) -> bool:
        points = coding.points.get(action, ())
        return lies_in(coding.bouts.get(action, ())) or any(2 * abs(time - milliseconds(p)) <= step for p in points)

    unknown = [*film.coded.unknown.get(action, ()), *film.predicted.unknown.get(action, ())]
    return is_present(film.coded), is_present(film.predicted), not lies_in(unknown)


def sklearn_kappa(coded: Sequence[Any], predicted: Sequence[Any], constant: float = math.nan) -> float:
    """scikit-learn's kappa, or `constant` where it is not defined, since all samples are of one category."""
    if not coded:
        return math.nan
    return constant if len({*coded, *predicted}) == 1 else float(cohen_kappa_score(coded, predicted))


def compare(found: float | None, expected: float) -> None:
    assert (math.nan if found is None else found) == pytest.approx(expected, abs=1e-9, nan_ok=True)


@settings(max_examples=30, deadline=None)
@given(FILMS, st.sampled_from([0.1, 0.05, 0.25, 1.0, 0.333]))
def test_measures_by_time_equal_sklearn_on_the_same_samples(films: list[FilmPair], step: float) -> None:
    assume(any(sum(stop - start for start, stop in film.compared) >= step for film in films))
    document = measured(*films, step=step, resamples=1)
    rows = [samples_of(film, step) for film in films]
    every = [row for film_rows in rows for row in film_rows]
    assert document["samples"] == len(every)
    assert [film["samples"] for film in document["films"]] == [len(film_rows) for film_rows in rows]
    pooled: list[tuple[bool, bool]] = []
    for action in ACTIONS:
        pairs = [row[action][:2] for row in every if row[action][2]]
        pooled += pairs
        compare_action(document["actions"][action], pairs)
    compare_action(document["overall"] | {"kappa": None, "percent_agreement": None}, pooled)
    for entry, film_rows in [
        *zip(document["films"], rows, strict=True),
        ({name: document["overall"][name]["value"] for name in ("kappa", "percent_agreement")}, every),
    ]:
        states = [list(zip(*row.values(), strict=True)) for row in film_rows]
        known = [(str(coded), str(predicted)) for coded, predicted, known in states if all(known)]
        compare(entry["kappa"], sklearn_kappa([a for a, _ in known], [b for _, b in known], constant=1.0))
        compare(entry["percent_agreement"], 100 * sum(a == b for a, b in known) / len(known) if known else math.nan)
    kappas = [document["actions"][action]["kappa"]["value"] for action in ACTIONS]
    defined = [kappa for kappa in kappas if kappa is not None]
    compare(document["overall"]["kappa_macro"]["value"], float(np.mean(defined)) if defined else math.nan)
    assert document["overall"]["actions_with_kappa"] == len(defined)
    assert confusions_of(every, step) == {
        (row["coded"], row["predicted"]): pytest.approx(row["seconds"]) for row in document["confusions"]
    }


def compare_action(entry: Mapping[str, Any], pairs: Sequence[tuple[bool, bool]]) -> None:
    """Compare kappa, percent agreement, precision, recall and F1 with scikit-learn's; kappa and percent if given."""
    coded, predicted = [a for a, _ in pairs], [b for _, b in pairs]
    if entry["kappa"]:
        compare(entry["kappa"]["value"], sklearn_kappa(coded, predicted))
        percent = 100 * accuracy_score(coded, predicted) if pairs else math.nan
        compare(entry["percent_agreement"]["value"], percent)
    scores = [math.nan] * 3
    if pairs:
        scores = precision_recall_fscore_support(coded, predicted, average="binary", zero_division=math.nan)[:3]
    for found, expected in zip(values(entry["by_time"]), scores, strict=True):
        compare(found, expected)


def confusions_of(rows: list[dict[str, tuple[bool, bool, bool]]], step: float) -> dict[tuple[Any, Any], float]:
    found: dict[tuple[Any, Any], float] = {}
    for row in rows:
        if not all(known for _, _, known in row.values()):
            continue
        both: list[tuple[str | None, str | None]] = [(action, action) for action, (a, b, _) in row.items() if a and b]
        missed: list[str | None] = [action for action, (a, b, _) in row.items() if a and not b]
        wrong: list[str | None] = [action for action, (a, b, _) in row.items() if b and not a]
        mistaken = [(a, b) for a in missed or [None] for b in wrong or [None] if missed or wrong]
        for cell in [*both, *mistaken] or [(None, None)]:
            found[cell] = found.get(cell, 0.0) + step
    return found


# --- intervals


def random_spans(rng: np.random.Generator, seconds: float) -> list[Span]:
    return millisecond_spans((rng.random(6) * seconds * 1000).astype(int).tolist())


def random_films(count: int, seconds: float = 20.0) -> list[FilmPair]:
    rng = np.random.default_rng(count)
    codings = [coded_film({a: random_spans(rng, seconds) for a in ACTIONS}) for _ in range(2 * count)]
    return [film_pair(a, b, (0.0, seconds)) for a, b in zip(codings[::2], codings[1::2], strict=True)]


def test_intervals_are_those_of_resampled_films() -> None:
    films, resamples = random_films(MIN_UNITS), 30
    document = measured(*films, resamples=resamples, seed=3)
    weights = metrics.bootstrap_weights(len(films), resamples, 3)
    drawn = [measured(*(films[i] for i in np.arange(len(films)).repeat(row)), resamples=1) for row in weights]
    checked = 0

    def check(entry: Any, others: list[Any], low: float, high: float) -> None:
        nonlocal checked
        if isinstance(entry, dict) and "ci95" in entry:
            resampled = np.array([other["value"] for other in others], float)
            bounds = metrics.confidence_interval(resampled, entry["value"])
            assert entry["ci95"] == pytest.approx([max(low, bounds[0]), min(high, bounds[1])])
            checked += 1
        elif isinstance(entry, dict):
            for name in entry:
                lowest = -1 if "kappa" in name else -math.inf if "error" in name else low
                highest = math.inf if "error" in name else 100 if "percent" in name else high
                check(entry[name], [other[name] for other in others], lowest, highest)

    check(document["overall"], [other["overall"] for other in drawn], 0, 1)
    check(document["actions"], [other["actions"] for other in drawn], 0, 1)
    assert checked == 13 + len(ACTIONS) * 12
    assert document["bootstrap"] | {"method": ""} == {
        "resamples": resamples, "seed": 3, "level": 0.95, "over": "films", "units": len(films), "method": "",
    }  # fmt: skip


def test_a_single_film_is_resampled_by_blocks_of_time() -> None:
    """The intervals are those of as many films, each of which is one block. Each bout lies in one block."""
    rng = np.random.default_rng(0)
    starts = [5.0 + BLOCK_SECONDS * k for k in range(6)]
    coded, predicted = (
        coded_film({action: [(s, s + 20.0) for s in starts + rng.integers(0, 300, 6) / 10] for action in ACTIONS})
        for _ in range(2)
    )
    stop = starts[-1] + BLOCK_SECONDS
    blocks = [film_pair(coded, predicted, (start, start + BLOCK_SECONDS - 0.1)) for start in starts[:-1]]
    several = measured(*blocks, film_pair(coded, predicted, (starts[-1], stop)), step=0.1, resamples=100)
    one = measured(film_pair(coded, predicted, (starts[0], stop)), step=0.1, resamples=100)
    assert one["bootstrap"]["over"] == f"blocks of {BLOCK_SECONDS} s"
    assert one["bootstrap"]["units"] == several["bootstrap"]["units"] == 6
    assert all(one[key] == several[key] for key in ("overall", "actions", "confusions"))
    assert None not in intervals(one["overall"])


def test_a_matched_bout_counts_in_the_block_of_the_coded_one() -> None:
    """Each predicted bout starts in the next block. If it counted there, resamples would have other precisions."""
    starts = [BLOCK_SECONDS * k - 1.0 for k in (1, 2, 3, 4, 6, 9)]
    coded, predicted = (coded_film({"walk": [(s + d, s + 20.0) for s in starts]}) for d in (0.0, 2.0))
    document = measured(film_pair(coded, predicted, (0.0, 10.0 * BLOCK_SECONDS)))
    assert document["actions"]["walk"]["by_bouts"]["precision"] == {"value": 1.0, "ci95": [1.0, 1.0]}


def test_the_last_block_takes_the_rest_and_blocks_without_samples_do_not_count() -> None:
    film = film_pair(coded_film({}), coded_film({}), (0.0, 2.4 * BLOCK_SECONDS))
    assert measured(film)["bootstrap"]["units"] == 2
    gaps = film_pair(coded_film({}), coded_film({}), (0.0, 9.0), (50.0 * BLOCK_SECONDS, 51.0 * BLOCK_SECONDS))
    assert measured(gaps)["bootstrap"]["units"] == 2


def test_intervals_end_where_the_measure_does() -> None:
    """Shifted percentiles would reach beyond."""
    span = (0.0, 20.0)
    same = film_pair(coded_film({"walk": [(0.0, 10.0)]}), coded_film({"walk": [(0.0, 10.0)]}), span)
    other = film_pair(coded_film({"walk": [(0.0, 1.0)]}), coded_film({"walk": [(2.0, 20.0)]}), span)
    good, bad = (measured(*films, resamples=100) for films in ([same] * 4 + [other], [same] + [other] * 4))
    walk = good["actions"]["walk"]
    entries = [walk["kappa"], *(walk["by_time"][name] for name in NAMES)]
    assert [entry["ci95"][1] for entry in entries] == [1.0] * 4
    assert walk["percent_agreement"]["ci95"][1] == 100.0
    assert bad["actions"]["walk"]["by_time"]["precision"]["ci95"][0] == 0.0


def test_few_films_and_rare_actions_have_no_interval() -> None:
    films = random_films(MIN_UNITS)
    document = measured(*films[1:])
    assert set(map(str, intervals(document))) == {"None"}
    assert len(document["notes"]) == 1
    rare = coded_film({**films[0].coded.bouts, "rest": ()}), coded_film({**films[0].predicted.bouts, "rest": ()})
    document = measured(film_pair(*rare, (0.0, 20.0)), *films[1:])
    assert set(map(str, intervals(document["actions"]["rest"]))) == {"None"}
    assert None not in intervals(document["actions"]["walk"]) + intervals(document["overall"])
    assert len(document["notes"]) == 1
    assert "rest" in document["notes"][0]
    assert measured(*films)["notes"] == []


def test_the_seed_decides_the_resamples() -> None:
    films = random_films(8)
    assert measured(*films, seed=1) == measured(*films, seed=1)
    assert measured(*films, seed=1)["overall"]["kappa"] != measured(*films, seed=2)["overall"]["kappa"]
