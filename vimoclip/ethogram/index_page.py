"""Render the index of a folder as one HTML file: its videos with their bouts, time budget and transitions."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from vimoclip.ethogram.statistics import ActionSummary, count_transitions, summarize_actions
from vimoclip.io import html_page
from vimoclip.io.numbers import DECIMALS
from vimoclip.io.palette import distinct_colors
from vimoclip.timeline import Timeline
from vimoclip.timeline.page import format_clock, video_urls

PACKAGE = "vimoclip.ethogram"
TIMELINE_PACKAGE = "vimoclip.timeline"  # its page has the same style, and its lanes the same time axis
MILLISECONDS = 1000


def render_index(folder: Path, timelines: Sequence[Timeline], links: Mapping[str, str]) -> str:
    """Return the HTML for a file in `folder`, with links to `<stem>.html` of each video and to other files.

    `links`: title -> path relative to `folder`. Scores are not used."""
    summaries = [summarize_actions(timeline) for timeline in timelines]
    actions = _order_actions(summaries)
    numbers = {action: number for number, action in enumerate(actions)}
    class_sets = list(dict.fromkeys(timeline.classes for timeline in timelines))
    data = {
        "actions": actions,
        "colors": list(islice(distinct_colors(), len(actions))),
        "classes": [[numbers[action] for action in classes] for classes in class_sets],
        "videos": [
            {**_video_data(timeline, summary, numbers), "classes": class_sets.index(timeline.classes)}
            for timeline, summary in zip(timelines, summaries, strict=True)
        ],
    }
    content = {
        "title": folder.resolve().name,
        "videos": [_video_row(folder, timeline) for timeline in timelines],
        "files": [(title, video_urls(folder / name, folder)[0]) for title, name in links.items()],
        "data": data,
    }
    style = html_page.read_template(TIMELINE_PACKAGE, "style.css") + html_page.read_template(PACKAGE, "index.css")
    script = html_page.read_template(TIMELINE_PACKAGE, "canvas.js") + html_page.read_template(PACKAGE, "index.js")
    return html_page.render_page(PACKAGE, "index.html", style, {"script": script}, content)


def _order_actions(summaries: Iterable[Sequence[ActionSummary]]) -> list[str]:
    """Return all actions by total length of bouts, so that frequent ones differ most in colour."""
    totals: Counter[str] = Counter()
    for summary in summaries:
        totals.update({item.action: item.total_seconds for item in summary})  # type: ignore[arg-type]
    return sorted(totals, key=lambda action: -totals[action])


def _video_row(folder: Path, timeline: Timeline) -> dict[str, Any]:
    """Return what the table shows of a video before the script runs."""
    return {
        "name": timeline.video_name,
        "url": video_urls(folder / f"{timeline.stem}.html", folder)[0],
        "duration": format_clock(timeline.seconds),
        "bouts": len(timeline.bouts),
    }


def _video_data(timeline: Timeline, summary: Sequence[ActionSummary], numbers: Mapping[str, int]) -> dict[str, Any]:
    """Return what the script draws and sums up, as short lists of numbers: a folder may have 100,000s of bouts.

    `bouts`: action, milliseconds since the start of the bout before, and length, of each bout; `totals`: action, number
    of bouts, and seconds, of each action with a bout; `transitions`: action, next action, and count."""
    bouts, before = [], 0
    for bout in timeline.bouts:
        start, stop = round(bout.start * MILLISECONDS), round(bout.stop * MILLISECONDS)
        bouts += [numbers[bout.action], start - before, stop - start]
        before = start
    totals = [(numbers[s.action], s.bouts, round(s.total_seconds, DECIMALS)) for s in summary if s.bouts]
    transitions = [(numbers[a], numbers[b], count) for (a, b), count in count_transitions(timeline).items()]
    return {
        "seconds": round(timeline.seconds, DECIMALS),
        "observed_seconds": round(summary[0].observed_seconds, DECIMALS) if summary else 0,
        "observed": timeline.observed,
        "bouts": bouts,
        "totals": [number for item in totals for number in item],
        "transitions": [number for item in sorted(transitions) for number in item],
    }
