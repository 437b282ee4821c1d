"""Render a timeline as one HTML file: the video above the bouts and scores of each class."""

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np

from vimoclip.io import html_page
from vimoclip.io.names import relative_paths
from vimoclip.io.numbers import DECIMALS, format_count
from vimoclip.metrics import descending_order
from vimoclip.metrics.score_calibration import MIN_POSITIVES
from vimoclip.timeline.bouts import CSV_COLUMNS, Span, observed_spans, window_edges

if TYPE_CHECKING:
    from vimoclip.timeline import Timeline

PACKAGE = "vimoclip.timeline"
SCRIPTS = ("canvas.js", "player.js", "bouts.js", "lanes.js", "timeline.js")
MIN_LANES = 12  # rows visible at first, if fewer classes have a bout
TOP_CLASSES = 8  # classes in the table of scores for the whole video
# 16-bit codes of the score 1 and of NaN. The sliders' thresholds are whole thousandths: multiples of 65 codes.
SCORE_ONE, NO_SCORE = 65000, 65535
CSV_SUFFIX = "_adjusted_thresholds.csv"  # of the file that the page saves


def render_timeline(timeline: "Timeline", folder: Path, index: str = "") -> str:
    """Return the HTML for a file in `folder`; its link to the video is relative to that folder.

    `index`: address of a page about all videos, relative to `folder`; without one there is no link to it."""
    order = _class_order(timeline)  # classes with bouts first
    num_with_bouts = len({bout.action for bout in timeline.bouts})
    edges = window_edges(timeline.starts, timeline.stops, timeline.seconds)
    data = {
        "video": timeline.video.name,
        "csv_name": timeline.stem + CSV_SUFFIX,
        "csv_columns": CSV_COLUMNS,
        "seconds": round(timeline.seconds, DECIMALS),
        "fps": timeline.fps,
        "classes": timeline.classes,
        "order": order,
        "shown": min(max(MIN_LANES, num_with_bouts), len(order)),
        "edges": edges.tolist(),
        "scores": _pack_scores(timeline.scores),
        "score_sd": "" if timeline.score_sd is None else _pack_scores(timeline.score_sd),
        "thresholds": [t if np.isfinite(t) else None for t in timeline.thresholds.tolist()],
        "bouts": [
            (timeline.classes.index(b.action), b.start, b.stop, round(b.score, DECIMALS)) for b in timeline.bouts
        ],
        "min_length": timeline.min_length,
        "max_gap": timeline.max_gap,
        "unobserved": _unobserved_spans(timeline, edges),
        "positives": [timeline.positives.get(name) for name in timeline.classes],
        "min_positives": MIN_POSITIVES,
    }
    whole = np.nan_to_num(timeline.whole, nan=0.0)
    content = {
        "video": timeline.video.name,
        "sources": video_urls(timeline.video, folder),
        "timeline": timeline,
        "duration": format_clock(timeline.seconds),
        "counts": [
            format_count(timeline.frames, "frame"),
            format_count(len(timeline.starts), "window"),
            format_count(len(timeline.classes), "action"),
        ],
        "bout_count": format_count(len(timeline.bouts), "bout"),
        "top_classes": [(timeline.classes[c], float(whole[c])) for c in descending_order(whole)[:TOP_CLASSES]],
        "data": data,
        "has_few": any(count < MIN_POSITIVES for count in timeline.positives.values()),
        "index": index,
    }
    script = "".join(html_page.read_template(PACKAGE, name) for name in SCRIPTS)
    style = html_page.read_template(PACKAGE, "style.css")
    return html_page.render_page(PACKAGE, "timeline.html", style, {"script": script}, content)


def video_urls(video: Path, folder: Path) -> list[str]:
    """Return URLs of the video relative to `folder`: of the given paths, then with symbolic links resolved.

    The URL of a video on another drive (Windows) is absolute."""
    return [_url(relative) for relative in relative_paths(video, folder)]


def _url(path: str) -> str:
    if Path(path).is_absolute():
        return Path(path).as_uri()
    # "./" keeps a browser from reading the part before a colon in a file name as a URL scheme
    return ("" if path.startswith("../") else "./") + quote(os.fsencode(path))


def format_clock(seconds: float) -> str:
    """Format seconds as h:mm:ss.s."""
    minutes, tenths = divmod(round(seconds * 10), 600)
    return f"{minutes // 60}:{minutes % 60:02}:{tenths / 10:04.1f}"


def _unobserved_spans(timeline: "Timeline", edges: np.ndarray) -> list[Span]:
    """Return the spans between the observed ones. A timeline without `observed` was observed where it has scores."""
    observed = timeline.observed or observed_spans(np.empty(0), edges, timeline.scores, timeline.seconds)
    ends = [0.0, *(stop for _, stop in observed)]
    beginnings = [*(start for start, _ in observed), timeline.seconds]
    return [(end, start) for end, start in zip(ends, beginnings, strict=True) if start > end]


def _class_order(timeline: "Timeline") -> list[int]:
    """Return class indices sorted by total length of bouts, then by highest score."""
    lengths = dict.fromkeys(timeline.classes, 0.0)
    for bout in timeline.bouts:
        lengths[bout.action] += bout.stop - bout.start
    highest = np.nan_to_num(np.vstack([timeline.scores, timeline.whole]), nan=-1.0).max(axis=0)
    return sorted(range(len(timeline.classes)), key=lambda c: (-lengths[timeline.classes[c]], -highest[c], c))


def _pack_scores(scores: np.ndarray) -> str:
    """Encode (W, C) scores in 0..1 as base64 of little-endian 16-bit integers, class by class.

    The code is the highest c for which c / SCORE_ONE is at most the score, so that for each threshold t in whole
    thousandths, code >= t * SCORE_ONE is exactly score >= t."""
    levels = np.arange(SCORE_ONE + 1) / SCORE_ONE
    codes = np.searchsorted(levels, scores.T.astype(float), side="right") - 1
    packed = np.where(np.isfinite(scores.T), codes.clip(0), NO_SCORE).astype("<u2")
    return base64.b64encode(np.ascontiguousarray(packed).tobytes()).decode()
