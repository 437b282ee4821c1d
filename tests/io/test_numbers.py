"""Numbers, times and timecodes in text."""

import math
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vimoclip.errors import UserError
from vimoclip.io.names import fold_name, normalize_name
from vimoclip.io.numbers import check_decimal_mark, parse_number, parse_seconds, parse_timecode

NTSC = Fraction(30000, 1001)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12", 12.0), ("12.5", 12.5), ("12,5", 12.5), (" 12,5 ", 12.5), (".5", 0.5), ("+1", 1.0), ("-1,25", -1.25),
        ("1e2", 100.0), ("1,5E-1", 0.15), ("90:00", 5400.0), ("1:02:03,5", 3723.5), ("26:00:00", 93600.0),
        ("-0:00:01.5", -1.5), ("", None), ("NA", None), (None, None), (3, 3.0), (2.5, 2.5),
    ],
)  # fmt: skip
def test_times_are_read(text: object, seconds: float | None) -> None:
    assert parse_seconds(text) == seconds
    if ":" not in str(text):
        assert parse_number(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "nan", "inf", "-inf", "1e999", "1_000", "1.234,5", "1,234,567", "1 000", "soon", "n/a", "none", "1:60",
        "1:60:00", "0:99:00", "1.5:30", "1::2", ":5", "1:2:3:4:5", "00:00:02:05", "00:00:02;05", "00;00;02;05", "1:-5",
        "--1", "\u0663", "5 s", "0x10", f"{10**400}:00", f"0:{10**400}", math.nan, math.inf, True, False, [], {},
    ],
)  # fmt: skip
def test_other_texts_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is "):
        parse_seconds(text)


@given(st.floats(-1e9, 1e9))
def test_numbers_are_exact_with_either_decimal_mark(number: float) -> None:
    assert parse_number(number) == parse_number(repr(number)) == parse_number(repr(number).replace(".", ",")) == number


@pytest.mark.parametrize(("rate", "dropped"), [(NTSC, 2), (2 * NTSC, 4)])
def test_drop_frame_timecodes_count_every_frame(rate: Fraction, dropped: int) -> None:
    """The timecodes of 21 minutes, in order, are those of frames 0, 1, 2, ..."""
    nominal, number = round(rate), 0
    for second in range(21 * 60):
        for frame in range(nominal):
            timecode = parse_timecode(f"00:{second // 60:02}:{second % 60:02};{frame:02}")
            assert timecode
            if second % 60 == 0 and second % 600 and frame < dropped:
                with pytest.raises(ValueError, match="does not exist"):
                    timecode.at_rate(rate)
            else:
                assert 0 <= number / rate - Fraction(str(timecode.at_rate(rate))) < Fraction(1, 1000)
                number += 1


@pytest.mark.parametrize(
    ("text", "rate", "seconds"),
    [
        ("00:00:02:05", Fraction(25), 2.2),
        ("01:00:00:00", Fraction(25), 3600.0),
        ("00:00:10:12", Fraction(24000, 1001), 252 * 1001 / 24000),
        ("01:00:00:00", NTSC, 3603.6),
        ("01:00:00;00", NTSC, 3599.9964),
        ("00;00;05;10", NTSC, 160 * 1001 / 30000),
        ("00:00:01:119", Fraction(120), 1 + 119 / 120),
    ],
)
def test_timecodes_follow_the_frame_rate(text: str, rate: Fraction, seconds: float) -> None:
    timecode = parse_timecode(text)
    assert timecode and timecode.at_rate(rate) == math.floor(1000 * seconds + 1e-6) / 1000
    assert str(timecode) == (text[:-3].replace(";", ":") + text[-3:] if ";" in text else text)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("00:00:02:25", 25), ("00:00:02:30", NTSC), ("00:00:02;05", 25), ("00:00:02;05", 30), ("00:00:02;05", 24)],
)
def test_timecodes_that_a_film_does_not_have_are_refused(text: str, rate: Fraction) -> None:
    timecode = parse_timecode(text)
    assert timecode
    with pytest.raises(ValueError, match="timecode"):
        timecode.at_rate(Fraction(rate))


@pytest.mark.parametrize("text", ["2.5", "0:00:02", "00:60:00:00", "00:00:60:00", "00:00:02.05", "00:00:02:5", "soon"])
def test_other_times_are_no_timecodes(text: str) -> None:
    assert parse_timecode("") is None
    with pytest.raises(ValueError, match="timecode"):
        parse_timecode(text)


def test_two_decimal_marks_in_one_table_are_refused(tmp_path: Path) -> None:
    check_decimal_mark(tmp_path, [(2, "1"), (3, "1,5"), (5, "0:01:02,5"), (6, "")])
    with pytest.raises(UserError) as caught:
        check_decimal_mark(tmp_path, [(2, "1"), (3, "1,5"), (5, "1.250")])
    assert caught.value.path == f"{tmp_path}:5"
    with pytest.raises(UserError) as caught:
        check_decimal_mark(tmp_path, [(2, "1"), (3, "1.004,5"), (5, "1.250")])
    assert caught.value.path == f"{tmp_path}:3" and "line" not in caught.value.problem


def test_names_with_invisible_characters_are_one() -> None:
    written = ["walk fast", "walk\u00a0fast", "walk\u202ffast", "\ufeffwalk fast", "walk\u200b fast", "wa\u00adlk fast"]
    assert set(map(normalize_name, written)) == {"walk fast"}


def test_names_that_are_one() -> None:
    composed, decomposed = "G\u00e4hnen", "Ga\u0308hnen"
    assert normalize_name(decomposed) == composed == normalize_name(composed)
    assert fold_name("  Ga\u0308HNEN \u00a0 laut") == fold_name("g\u00e4hnen laut")
    assert len({fold_name(name) for name in ("walk", "walks", "wal k")}) == 3
