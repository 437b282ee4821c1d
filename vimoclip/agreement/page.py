"""Render two codings of the same films as one HTML file: lanes above each other, and how far the codings agree."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from math import floor
from operator import getitem
from pathlib import Path
from typing import Any, NamedTuple

from vimoclip.agreement.coding import CodingPair, FilmCoding, FilmPair
from vimoclip.io import html_page
from vimoclip.io.numbers import format_count
from vimoclip.timeline.bouts import Span
from vimoclip.timeline.page import format_clock, video_urls

PACKAGE = "vimoclip.agreement"
TIMELINE_PACKAGE = "vimoclip.timeline"  # its page has the same style, axis, and player
MILLISECONDS = 1000
DASH = "–"
# why an entry of agreement.json is null
NO_KAPPA = "not defined: both codings say the same at all times"
NO_TIME, NO_MATCH = "no time is compared", "no bouts match"
NO_CODED, NO_PREDICTED, NEITHER = "it is never coded", "it is never predicted", "it is neither coded nor predicted"
NO_INTERVAL = "no interval: too few films or blocks of time"
SIDES = ("coded", "predicted")
CONFUSION_ROWS = 12  # shown at first


class Column(NamedTuple):
    """A column of the table of actions. `keys`: of its entry in agreement.json; `missing`: why the entry is null."""

    group: str
    heading: str
    keys: tuple[str, ...]
    missing: str
    digits: int = 2


COLUMNS = (
    Column("", "Kappa", ("kappa",), NO_KAPPA),
    Column("", "Agreement, %", ("percent_agreement",), NO_TIME, digits=1),
    Column("By time", "Precision", ("by_time", "precision"), NO_PREDICTED),
    Column("By time", "Recall", ("by_time", "recall"), NO_CODED),
    Column("By time", "F1", ("by_time", "f1"), NEITHER),
    Column("By bouts", "Precision", ("by_bouts", "precision"), NO_PREDICTED),
    Column("By bouts", "Recall", ("by_bouts", "recall"), NO_CODED),
    Column("By bouts", "F1", ("by_bouts", "f1"), NEITHER),
    Column("Onset error, s", "Mean", ("onset_error_seconds", "mean"), NO_MATCH),
    Column("Onset error, s", "Absolute", ("onset_error_seconds", "mean_absolute"), NO_MATCH),
    Column("Offset error, s", "Mean", ("offset_error_seconds", "mean"), NO_MATCH),
    Column("Offset error, s", "Absolute", ("offset_error_seconds", "mean_absolute"), NO_MATCH),
)
COUNTS = ("Seconds", "Bouts")  # of either coding


def render_agreement(folder: Path, pair: CodingPair, document: Mapping[str, Any]) -> str:
    """Return the HTML for a file in `folder`, with links to videos relative to that folder.

    `document`: the content of agreement.json. Its actions and films are those of `pair`."""
    overall = document["overall"]
    headings = [(c.group, c.heading) for c in COLUMNS if c.group] + [(c, side) for c in COUNTS for side in SIDES]
    actions = [_action_row(action, document["actions"][action]) for action in pair.actions]
    lowest = _scale_start(action["cells"][0] for action in actions)
    content = {
        "document": document,
        "summary": [
            ("Kappa, all actions together", _cell(overall["kappa"], NO_TIME)),
            ("Mean kappa of the actions", _cell(overall["kappa_macro"], NO_KAPPA)),
            ("Agreement, %", _cell(overall["percent_agreement"], NO_TIME, 1)),
            ("F1 by bouts", _cell(overall["by_bouts"]["f1"], NEITHER)),
        ],
        "duration": format_clock(document["compared_seconds"]),
        "films": [_film_row(film) for film in document["films"]],
        "groups": Counter(group for group, _ in headings).items(),
        "headings": [heading for _, heading in headings],
        "starts": [i for i, (group, _) in enumerate(headings) if i == 0 or headings[i - 1][0] != group],
        "actions": actions,
        "all_actions": [_cell(_entry(overall, c.keys), c.missing, c.digits) for c in COLUMNS],
        "kappa_macro": _cell(overall["kappa_macro"], NO_KAPPA),
        "lowest": lowest,
        "lowest_text": _format(lowest, 1 if lowest else 0),
        "confusions": _confusion_rows(document),
        "rows": CONFUSION_ROWS,
        "dash": DASH,
        "data": {
            "actions": pair.actions,
            "step": document["step_seconds"],
            "films": [_film_data(folder, film, pair.actions) for film in pair.films],
        },
    }
    scripts = [html_page.read_template(TIMELINE_PACKAGE, name) for name in ("canvas.js", "player.js")]
    script = "".join([*scripts, html_page.read_template(PACKAGE, "agreement.js")])
    style = html_page.read_template(TIMELINE_PACKAGE, "style.css") + html_page.read_template(PACKAGE, "agreement.css")
    return html_page.render_page(PACKAGE, "agreement.html", style, {"script": script}, content)


def _entry(measures: Mapping[str, Any], keys: Sequence[str]) -> Mapping[str, Any]:
    return reduce(getitem, keys, measures)


def _cell(entry: Mapping[str, Any], missing: str, digits: int = 2) -> dict[str, Any]:
    """Return what the page shows of an entry of agreement.json; `title`: its interval, or why there is none."""
    interval = entry["ci95"]
    between = " to ".join(_format(bound, digits) for bound in interval) if interval else ""
    title = f"95 % interval: {between}" if interval else NO_INTERVAL
    return {**_number(entry["value"], missing, digits, title), "interval": interval, "range": between}


def _number(value: float | None, missing: str, digits: int, title: str = "") -> dict[str, Any]:
    if value is None:
        return {"value": None, "text": DASH, "title": missing}
    return {"value": value, "text": _format(value, digits), "title": title}


def _format(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # + 0.0: no negative zero


def _scale_start(kappas: Iterable[Mapping[str, Any]]) -> float:
    """Return where the scale of the kappas begins: at 0, or at the tenth below the lowest kappa or interval."""
    bounds = [kappa["interval"][0] if kappa["interval"] else kappa["value"] for kappa in kappas]
    return floor(10 * min([0.0, *(bound for bound in bounds if bound is not None)])) / 10


def _film_row(measured: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": measured["name"],
        "kappa": _number(measured["kappa"], NO_TIME, 2),
        "agreement": _number(measured["percent_agreement"], NO_TIME, 1),
        "seconds": measured["compared_seconds"],
        "duration": format_clock(measured["compared_seconds"]),
    }


def _action_row(action: str, measures: Mapping[str, Any]) -> dict[str, Any]:
    """Return name and cells of an action; `counts`: seconds, and bouts and point events, of both codings."""
    seconds = [measures[f"{side}_seconds"] for side in SIDES]
    bouts = [(measures["by_bouts"][side], measures[f"{side}_points"]) for side in SIDES]
    return {
        "name": action,
        "cells": [_cell(_entry(measures, c.keys), c.missing, c.digits) for c in COLUMNS],
        "counts": [
            *((value, f"{value:,.1f}") for value in seconds),
            *((number + points, _format_events(number, points)) for number, points in bouts),
        ],
    }


def _format_events(bouts: int, points: int) -> str:
    events = format_count(points, "point")
    return f"{bouts:,} + {events}" if bouts and points else events if points else f"{bouts:,}"


def _confusion_rows(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the pairs of which one coding says what the other does not, longest first."""
    differing = [pair for pair in document["confusions"] if pair["coded"] != pair["predicted"]]
    longest = max((pair["seconds"] for pair in differing), default=1.0)
    return [{**pair, "text": f"{pair['seconds']:,.1f}", "share": pair["seconds"] / longest} for pair in differing]


def _film_data(folder: Path, film: FilmPair, actions: Sequence[str]) -> dict[str, Any]:
    video = film.coded.video or film.predicted.video
    return {
        "seconds": film.seconds,
        "compared": film.compared,
        "sources": video_urls(video, folder) if video else [],
        "sides": [_side_data(side, actions, film.seconds) for side in (film.coded, film.predicted)],
    }


def _side_data(side: FilmCoding, actions: Sequence[str], seconds: float) -> dict[str, Any]:
    """Return what the script draws, as short lists of numbers: a page may have 100,000s of bouts.

    `bouts`, `unknown`: number of an action -> milliseconds since the start of the span before, and length, of each span
    within the film; `points`: number of an action -> times in milliseconds."""
    packed: dict[str, dict[int, list[int]]] = {"bouts": {}, "unknown": {}, "points": {}}
    for number, action in enumerate(actions):
        for key, found in (("bouts", side.bouts), ("unknown", side.unknown)):
            if found.get(action):
                packed[key][number] = _span_steps(found[action], seconds)
        if side.points.get(action):
            packed["points"][number] = [round(time * MILLISECONDS) for time in side.points[action]]
    return packed


def _span_steps(spans: Sequence[Span], seconds: float) -> list[int]:
    steps, before = [], 0
    for span in spans:
        start, stop = (round(min(time, seconds) * MILLISECONDS) for time in span)
        steps += [start - before, stop - start]
        before = start
    return steps
