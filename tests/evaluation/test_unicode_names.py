"""Predictions and annotations whose names were typed on two systems: composed (NFC) and decomposed (NFD) characters."""

import unicodedata
from pathlib import Path

import pytest

from vimoclip.annotations import Annotations
from vimoclip.check.compatibility import check_classes
from vimoclip.errors import UserError
from vimoclip.evaluation.sources import read_scores
from vimoclip.io import csv

CLASSES, VIDEOS = ("g\u00e4hnen", "caf\u00e9"), ("b\u00e4r.mp4", "z\u00e9bu.mp4")
DATA = Annotations(CLASSES, {"val": {VIDEOS[0]: (0,), VIDEOS[1]: (1,)}})


def decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@pytest.mark.parametrize("remove_extension", [False, True])
def test_predictions_match_in_either_form(remove_extension: bool, tmp_path: Path) -> None:
    videos = [decomposed(video.removesuffix(".mp4") if remove_extension else video) for video in VIDEOS]
    header = ["video_id", *map(decomposed, reversed(CLASSES))]
    path = csv.write_csv(tmp_path / "p.csv", header, [[videos[1], 0.1, 0.2], [videos[0], 0.3, 0.4]])
    rows, scores, _ = read_scores(path, DATA, VIDEOS, False, (), False)
    assert (rows, scores.tolist()) == (list(VIDEOS), [[0.4, 0.3], [0.2, 0.1]])


def test_video_ids_that_are_exact_come_first(tmp_path: Path) -> None:
    """Annotations of earlier versions may have two videos whose names look the same."""
    videos = ("b\u00e4r.mp4", decomposed("b\u00e4r.mp4"))
    data = Annotations(("walk",), {"val": dict.fromkeys(videos, (0,))})
    path = csv.write_csv(tmp_path / "p.csv", ["video_id", "walk"], [[videos[1], 0.1], [videos[0], 0.3]])
    assert read_scores(path, data, videos, False, (), False)[1].tolist() == [[0.3], [0.1]]


def test_two_columns_of_one_class_are_an_error(tmp_path: Path) -> None:
    header = ["video_id", CLASSES[0], decomposed(CLASSES[0])]
    path = csv.write_csv(tmp_path / "p.csv", header, [[video, 0.1, 0.2] for video in VIDEOS])
    with pytest.raises(UserError):
        read_scores(path, DATA, VIDEOS, False, (), False)


def test_files_with_classes_in_either_form_fit_together() -> None:
    check_classes(CLASSES, [decomposed(name) for name in CLASSES], "a.h5", "b.h5")
    with pytest.raises(UserError):
        check_classes(CLASSES, ["gahnen", "caf\u00e9"], "a.h5", "b.h5")
