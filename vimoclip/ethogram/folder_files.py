"""The files about all videos of a folder of timelines."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vimoclip import boris
from vimoclip.errors import UserError, escape_line
from vimoclip.ethogram import index_page, review_order, statistics
from vimoclip.io import atomic, predictions_csv
from vimoclip.io.names import list_some, relative_path
from vimoclip.io.written_files import RECORD_FILE, WrittenFiles
from vimoclip.timeline import Timeline

INDEX_FILE, PREDICTIONS_FILE, WHOLE_VIDEOS_FILE = "index.html", "predictions.boris", "whole_videos.csv"
ETHOGRAM_FILE, TRANSITIONS_FILE, TIME_BINS_FILE = "ethogram.csv", "transitions.csv", "time_bins.csv"
REVIEW_FILE = "review_order.csv"
TABLES = (ETHOGRAM_FILE, TRANSITIONS_FILE, TIME_BINS_FILE, REVIEW_FILE)
NAMES = (INDEX_FILE, PREDICTIONS_FILE, WHOLE_VIDEOS_FILE, *TABLES)


def check_names(folder: Path, written: WrittenFiles) -> None:
    """Raise UserError if a file of another program has the name of one that `write` writes."""
    boris.check_predictions(folder / PREDICTIONS_FILE)
    for name in (INDEX_FILE, *TABLES):
        path = folder / name
        if path.exists() and not written.is_recorded(path):
            raise UserError(
                f"exists, and {RECORD_FILE} of its folder does not say that predict.py wrote it",
                "rename it, or use another folder with -o",
                path=path,
            )


def write(
    folder: Path,
    timelines: Iterable[Timeline],
    evaluated_names: Mapping[str, str],
    time_bin: float | None,
    written: WrittenFiles,
) -> None:
    """Write BORIS' project, the tables and the page. Edited files are kept, and named.

    `evaluated_names`: stem -> name, of the videos in whole_videos.csv; without any, the table is not written.
    `time_bin`: length of the bins of time_bins.csv, in seconds; None: no such table. Raises OSError."""
    windows, summaries = list[review_order.WindowReview](), list[Timeline]()
    for item in timelines:  # the windows of one video at a time are in memory
        windows += review_order.choose_windows(item)
        summaries.append(replace(item, scores=np.empty((0, len(item.classes))), score_sd=None, disagreements=()))
    if not summaries:
        return
    by_stem = {item.stem: item for item in summaries}
    if whole := {name: by_stem[stem] for stem, name in evaluated_names.items() if stem in by_stem}:
        written.replace(folder / WHOLE_VIDEOS_FILE, partial(_write_whole_videos, results=whole))
    update = _write_predictions(folder, summaries)
    to_review = [window for window in windows if window.stem not in update.reviewed]
    files: dict[str, Callable[[Path], Path]] = {
        REVIEW_FILE: partial(review_order.write_review_order, windows=to_review),
        ETHOGRAM_FILE: partial(statistics.write_ethogram, timelines=summaries),
        TRANSITIONS_FILE: partial(statistics.write_transitions, timelines=summaries),
    }
    if time_bin:
        files[TIME_BINS_FILE] = partial(statistics.write_time_bins, timelines=summaries, bin_seconds=time_bin)
    elif (folder / TIME_BINS_FILE).exists():
        print(f"{folder / TIME_BINS_FILE} is of an earlier command; --time-bin writes it again", flush=True)
    for name, write_file in files.items():
        written.replace(folder / name, write_file)
    text = index_page.render_index(folder, summaries, {name: name for name in _existing(folder)})
    written.replace(folder / INDEX_FILE, partial(atomic.write_text, text=text))


def _write_whole_videos(path: Path, results: Mapping[str, Timeline]) -> Path:
    """Write the scores of whole videos as predictions for evaluate.py. `results`: by name; of the same classes."""
    scores = np.array([item.whole for item in results.values()])
    return predictions_csv.write(path, list(results), scores, next(iter(results.values())).classes)


def _model_name(provenance: Mapping[str, Any]) -> str:
    """Return the names of the runs of TFAM, which are a list if there are several, or the name of the CLIP."""
    names = provenance.get("tfam") or provenance.get("clip_model") or ""
    return ", ".join(names) if isinstance(names, list) else str(names)


def _existing(folder: Path) -> Iterator[str]:
    return (name for name in (PREDICTIONS_FILE, *TABLES, WHOLE_VIDEOS_FILE) if (folder / name).exists())


def _write_predictions(folder: Path, timelines: Sequence[Timeline]) -> boris.PredictionsUpdate:
    """Update BORIS' project, and print which observations somebody has corrected, which are kept."""
    observations = [
        boris.PredictedObservation(
            name=item.stem,
            media=relative_path(item.video, folder),
            seconds=item.seconds,
            fps=item.fps,
            bouts=item.bouts,
            note=_model_name(item.provenance),
        )
        for item in timelines
    ]
    path = folder / PREDICTIONS_FILE
    behaviors = list(dict.fromkeys(name for item in timelines for name in item.classes))
    update = boris.write_predictions(path, observations, behaviors)
    if update.kept:
        names = escape_line(list_some(update.kept))
        print(f"{path}: {len(update.kept)} observations were edited or reviewed, and are kept: {names}", flush=True)
    return update
