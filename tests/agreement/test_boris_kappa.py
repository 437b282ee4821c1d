"""The overall kappa against that of BORIS' own code, which it gives with three decimals."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.agreement.test_measures import coded_film, film_pair, measured
from tests.boris import boris_program
from vimoclip.agreement.coding import FilmCoding
from vimoclip.timeline.bouts import Span

STATES, POINTS = ("walk", "rest", "groom"), ("bite", "call")
BEHAVIORS = {**dict.fromkeys(STATES, "State event"), **dict.fromkeys(POINTS, "Point event")}


class Case(NamedTuple):
    """Two codings of a film, compared every `step` milliseconds from the first event to the last."""

    coded: FilmCoding
    predicted: FilmCoding
    step: int

    @property
    def span(self) -> Span:
        times = [row[0] for row in events(self.coded) + events(self.predicted)]
        return min(times), max(times)

    @property
    def has_ties(self) -> bool:
        """Whether the last event lies at a sample, or a point event half a step from one."""
        first, last = (round(1000 * time) for time in self.span)
        codings = (self.coded, self.predicted)
        points = [round(1000 * time) - first for c in codings for times in c.points.values() for time in times]
        return (last - first) % self.step == 0 or any(2 * time % (2 * self.step) == self.step for time in points)


def events(coding: FilmCoding) -> list[list[Any]]:
    """The events of a coding as BORIS saves them."""
    spans = [(action, time) for action, bouts in coding.bouts.items() for bout in bouts for time in bout]
    points = [(action, time) for action, times in coding.points.items() for time in times]
    return [[time, "", action, "", "", 0] for action, time in sorted([*spans, *points], key=lambda event: event[1])]


def boris_kappas(cases: Sequence[Case]) -> list[float]:
    """The kappas that BORIS gives for pairs of codings, in one project."""
    codings = {f"{name} {i}": getattr(case, name) for i, case in enumerate(cases) for name in ("coded", "predicted")}
    observations = {name: events(coding) for name, coding in codings.items()}
    project = boris_program.project(BEHAVIORS, observations, {"film.mp4": 60.0})
    pairs = [(f"coded {i}", f"predicted {i}", str(case.step / 1000)) for i, case in enumerate(cases)]
    kappas: list[float] = boris_program.run("kappa", project=project, pairs=pairs)
    return kappas


def our_kappa(case: Case) -> float:
    film = film_pair(case.coded, case.predicted, case.span)
    kappa: float = measured(film, actions=tuple(BEHAVIORS), step=case.step / 1000)["overall"]["kappa"]["value"]
    return kappa


def random_coding(rng: np.random.Generator, step: int, unit: int) -> FilmCoding:
    """Bouts and point events of 12 s, in multiples of `unit` milliseconds.

    No sample lies in two of the same action, as BORIS would count the action twice (see below)."""
    bouts, points = {}, {}
    for action in STATES:
        cuts = np.unique(rng.integers(0, 12_000 // unit, 2 * rng.integers(1, 4))) * unit / 1000
        bouts[action] = list(zip(cuts[0:-1:2].tolist(), cuts[1::2].tolist(), strict=True))
    for action in POINTS:
        times = np.unique(rng.integers(0, 12_000 // unit, rng.integers(0, 6))) * unit
        points[action] = (times[np.diff(times, prepend=-step - 1) > step] / 1000).tolist()
    return coded_film(bouts, points)


def second_coding(rng: np.random.Generator, coding: FilmCoding, unit: int) -> FilmCoding:
    """As a second person codes it: some bouts and points are missing, bouts stop up to a second earlier."""

    def shorten(start: float, stop: float) -> Span:
        return start, max(start + unit / 1000, stop - int(rng.integers(0, 1000 // unit + 1)) * unit / 1000)

    bouts = {a: [shorten(*bout) for bout in spans if rng.random() < 0.8] for a, spans in coding.bouts.items()}
    points = {a: [time for time in times if rng.random() < 0.7] for a, times in coding.points.items()}
    return coded_film(bouts, points)


def random_cases(step: int, unit: int, count: int) -> list[Case]:
    rng, cases = np.random.default_rng(step), list[Case]()
    while len(cases) < count:
        coded = random_coding(rng, step, unit)
        predicted = second_coding(rng, coded, unit) if len(cases) % 3 else random_coding(rng, step, unit)
        case = Case(coded, predicted, step)
        if events(predicted) and (unit > 1 or not case.has_ties):
            cases.append(case)
    return cases


def test_overall_kappa_equals_that_of_boris() -> None:
    """Multiples of 1/8 s have exact floats: starts, stops and half steps lie exactly at samples.

    Times in milliseconds have no ties, which BORIS decides by the rounding of floats (see below)."""
    exact = random_cases(250, 125, 10) + random_cases(500, 250, 10) + random_cases(1000, 500, 10)
    cases = exact + random_cases(300, 1, 10) + random_cases(100, 1, 10)
    kappas = boris_kappas(cases)
    assert sum(case.has_ties for case in exact) > 25
    assert [our_kappa(case) for case in cases] == pytest.approx(kappas, abs=0.000501)
    assert len(set(kappas)) > 40


def test_where_boris_differs() -> None:
    """BORIS counts an action twice where two of its bouts touch, so that walk, walk is another state than walk.

    Its last sample is missing if the float of the last event is a little less than the decimal, as that of 0.3 is. A
    point event half a step from a sample belongs to it or not, as floats round: 1.05 - 1 is more than 0.05, 0.45 - 0.4
    is less."""
    whole, walks = {"walk": [(0.0, 4.0)]}, {"walk": [(0.0, 2.01)]}
    cases = [
        Case(coded_film({"walk": [(0.0, 2.0), (2.0, 4.0)]}), coded_film(whole), 1000),
        Case(coded_film({"walk": [(0.0, 0.3)]}), coded_film({"walk": [(0.0, 0.2)]}), 100),
        Case(coded_film(walks, {"bite": [1.05]}), coded_film(walks), 100),
        Case(coded_film(walks, {"bite": [0.45]}), coded_film(walks), 100),
    ]
    assert boris_kappas(cases) == [0.0, 1.0, 1.0, 0.0]
    assert [our_kappa(case) for case in cases] == [1.0, 0.0, 0.0, 0.0]
