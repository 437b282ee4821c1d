"""The page of a timeline: the video, over what is seen in it when. One file, but for the video."""

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from vimoclip.io import html_page
from vimoclip.timeline.bouts import DECIMALS, window_edges

if TYPE_CHECKING:
    from vimoclip.timeline import Timeline

PACKAGE = "vimoclip.timeline"
SCRIPTS = ("lanes.js", "timeline.js")
MIN_LANES = 12  # that are shown at once, where fewer classes have a bout
TOP_CLASSES = 8  # classes whose scores for the whole video are shown
SCORE_ONE, NO_SCORE = 65534, 65535  # a score of 1, and none, in 16 bits


def render_timeline(timeline: "Timeline", folder: Path) -> str:
    """The page, for a file in `folder`: from there it looks for the video."""
    order = _class_order(timeline)
    seen = {bout.action for bout in timeline.bouts}
    shown = [c for c in order if timeline.classes[c] in seen]
    shown += [c for c in order if timeline.classes[c] not in seen][: max(0, MIN_LANES - len(shown))]
    data = {
        "seconds": round(timeline.seconds, DECIMALS),
        "fps": timeline.fps,
        "classes": timeline.classes,
        "order": shown + [c for c in order if c not in set(shown)],
        "shown": len(shown),
        "edges": window_edges(timeline.starts, timeline.stops, timeline.seconds).tolist(),
        "scores": _pack_scores(timeline.scores),
        "thresholds": [_finite_or_none(threshold) for threshold in timeline.thresholds.tolist()],
        "bouts": _bout_tuples(timeline),
    }
    content = {
        "video": timeline.video.name,
        "sources": video_urls(timeline.video, folder),
        "timeline": timeline,
        "duration": _format_clock(timeline.seconds),
        "counts": _format_counts(timeline),
        "likeliest": _top_classes(timeline),
        "data": data,
    }
    script = "".join(html_page.read_template(PACKAGE, name) for name in SCRIPTS)
    return html_page.render_page(PACKAGE, "timeline.html", "style.css", {"script": script}, content)


def video_urls(video: Path, folder: Path) -> list[str]:
    """Where a page in `folder` finds the video: from there, by the way that both were named, else with links followed.

    On another drive there is only the whole address."""
    found = []
    for target, start in ((video.absolute(), folder.absolute()), (video.resolve(), folder.resolve())):
        try:
            way = quote(Path(os.path.relpath(target, start)).as_posix())
            # a step to here: a name with a colon would be taken for the scheme of an address
            found.append(way if way.startswith("../") else f"./{way}")
        except ValueError:
            found.append(target.as_uri())
    return list(dict.fromkeys(found))


def _format_clock(seconds: float) -> str:
    """h:mm:ss.s"""
    minutes, tenths = divmod(round(seconds * 10), 600)
    return f"{minutes // 60}:{minutes % 60:02}:{tenths / 10:04.1f}"


def _format_counts(timeline: "Timeline") -> list[str]:
    counts = {"frame": timeline.frames, "window": len(timeline.starts)}
    counts |= {"action": len(timeline.classes), "bout": len(timeline.bouts)}
    return [f"{count:,} {name}{'s' * (count != 1)}" for name, count in counts.items()]


def _class_order(timeline: "Timeline") -> list[int]:
    """Classes, those first that have the longest bouts in sum, then those with the highest scores."""
    lengths = dict.fromkeys(timeline.classes, 0.0)
    for bout in timeline.bouts:
        lengths[bout.action] += bout.stop - bout.start
    highest = np.nan_to_num(np.vstack([timeline.scores, timeline.whole]), nan=-1.0).max(axis=0)
    return sorted(range(len(timeline.classes)), key=lambda c: (-lengths[timeline.classes[c]], -highest[c], c))


def _top_classes(timeline: "Timeline") -> list[tuple[str, float]]:
    scores = np.nan_to_num(timeline.whole, nan=0.0)
    return [(timeline.classes[c], float(scores[c])) for c in np.argsort(-scores, kind="stable")[:TOP_CLASSES]]


def _bout_tuples(timeline: "Timeline") -> list[tuple[int, float, float, float]]:
    number = {name: c for c, name in enumerate(timeline.classes)}
    return [(number[b.action], b.start, b.stop, round(b.score, 4)) for b in timeline.bouts]


def _pack_scores(scores: np.ndarray) -> str:
    """(W, C) in 0..1 -> base64 of 16 bits each, little-endian, class by class."""
    known = np.isfinite(scores)
    packed = np.where(known, np.nan_to_num(scores).clip(0, 1) * SCORE_ONE, NO_SCORE).round().astype("<u2")
    return base64.b64encode(np.ascontiguousarray(packed.T).tobytes()).decode()


def _finite_or_none(number: float) -> Any:
    return number if np.isfinite(number) else None
