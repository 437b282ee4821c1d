"""Scores at the edges: probabilities off by rounding, infinite logits, and refusals with the digits that matter."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evaluate
from tests.evaluation.test_evaluate import FAST, SCORES, TRAIN, VAL, replace_rows, write_annotations, write_csv
from vimoclip.errors import UserError
from vimoclip.evaluation import Evaluation
from vimoclip.metrics import format_fraction

INF = float("inf")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with annotations of which t0 and t1 are the model-selection split."""
    monkeypatch.chdir(tmp_path)
    write_annotations(tmp_path / "dataset" / "annotations", TRAIN, VAL, ["t0.mp4", "t1.mp4"])
    return tmp_path


def run(rows: Mapping[str, Sequence[Any]], *flags: str) -> Evaluation:
    return evaluate.main([str(write_csv(Path("p.csv"), rows)), *flags, *FAST])


ONE_ULP = float(np.nextafter(np.float32(1), np.float32(2)))
HALF_ULP, BRAIN_ULP = 1 + 2.0**-10, 1 + 2.0**-7  # the numbers of float16 and bfloat16 above 1


@pytest.mark.parametrize(
    ("score", "expected"),
    [(ONE_ULP, 1), (HALF_ULP, 1), (BRAIN_ULP, 1), (-1e-9, 0), (-(2.0**-24), 0), (1 + 1e-15, 1), (-0.0, 0), (1, 1)],
)
def test_probability_off_by_rounding_is_taken(score: float, expected: int) -> None:
    result = run(replace_rows(a=[score, 0.6, 0.1, 0.2]))
    assert result.scores[0, 0] == expected
    notes = [note for note in result.metrics["notes"] if "a.mp4, walk" in note]
    assert len(notes) == (score not in (0, 1))
    assert all(f"{score:.9g}" in note for note in notes)
    same = run(replace_rows(a=[expected, 0.6, 0.1, 0.2]))
    assert result.metrics["map_macro"] == same.metrics["map_macro"]


@pytest.mark.parametrize(
    ("score", "shown"), [(1.008, "1.008"), (1.0079000002, "1.0079"), (-0.0079, "-0.0079"), (2, "2")]
)
def test_other_scores_are_refused_with_their_digits(score: float, shown: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"a.mp4, walk: {shown}")) as caught:
        run(replace_rows(a=[score, 0.6, 0.1, 0.2]))
    assert "--logits" in caught.value.hint


def test_notes_name_the_file_also_of_the_other_predictions() -> None:
    near = replace_rows(a=[ONE_ULP, 0.6, 0.1, 0.2])
    write_csv(Path("other.csv"), near)
    write_csv(Path("selection.csv"), {"t0.mp4": [ONE_ULP, 0, 0, 0], "t1.mp4": [1, 1, -1e-9, 0]})
    notes = run(SCORES, "--compare", "other.csv", "--selection-predictions", "selection.csv").metrics["notes"]
    assert [note.split(":")[0] for note in notes if "rounding" in note] == ["selection.csv", "other.csv"]
    write_csv(Path("selection.csv"), {"t0.mp4": [1.5, 0, 0, 0], "t1.mp4": [1, 1, 0, 0]})
    with pytest.raises(UserError, match=r"t0\.mp4, walk: 1\.5") as caught:
        run(SCORES, "--selection-predictions", "selection.csv")
    assert caught.value.path == "selection.csv"


def test_infinite_logits_are_certain() -> None:
    result = run(replace_rows(a=[INF, -INF, -750.0, "-Infinity"], b=["1e999", 0, 36, -36]), "--logits")
    assert result.scores[0].tolist() == [1, 0, 0, 0]
    assert result.scores[1] == pytest.approx([1, 0.5, 1 - np.exp(-36), np.exp(-36)], rel=1e-12)
    assert np.isfinite(result.metrics["map_macro"]["value"])


def test_order_of_negative_logits_is_kept_and_a_loss_of_order_is_noted() -> None:
    logits = {"a.mp4": [-701.0, 1, 1, -2], "b.mp4": [-702.0, 2, 2, -2], "c.mp4": [-703.0, 3, 3, -2]}
    result = run(logits | {"d.mp4": [-704.0, 4, 4, -2]}, "--logits")
    assert (np.diff(result.scores[:, 0]) < 0).all()
    assert not any("order" in note for note in result.metrics["notes"])
    result = run(logits | {"d.mp4": [50.0, 60, 4, -2]}, "--logits")
    assert any("1 different logits" in note for note in result.metrics["notes"])


def is_advice(*parts: str) -> Callable[[str], bool]:
    return lambda hint: all(part in hint for part in parts)


@pytest.mark.parametrize(
    ("cell", "flags", "is_right"),
    [
        ("nan", ["--logits"], is_advice("-inf")),
        ("", ["--logits"], is_advice("-inf")),
        ("nan", [], is_advice("write 0")),
        ("-inf", [], is_advice("--logits")),
        ("0,5", [], is_advice("decimal point")),
        ("0,5", ["--logits"], is_advice("decimal point")),
    ],
)
def test_advice_fits_the_scores(cell: str, flags: list[str], is_right: Callable[[str], bool]) -> None:
    with pytest.raises(UserError, match=r"a\.mp4, walk") as caught:
        run(replace_rows(a=[cell, 0.6, 0.1, 0.2]), *flags)
    assert is_right(caught.value.hint)
    assert not (flags and "--logits" in caught.value.hint)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1.0000"),
        (0.99996, ">0.9999"),
        (0.9999, "0.9999"),
        (0.99994, "0.9999"),
        (1 - 1e-15, "1.0000"),
        (0, "0.0000"),
        (0.00004, "<0.0001"),
        (0.00006, "0.0001"),
        (1e-17, "0.0000"),
        (0.5, "0.5000"),
    ],
)
def test_printed_values_are_not_rounded_to_certainty(value: float, text: str) -> None:
    assert format_fraction(value) == text
