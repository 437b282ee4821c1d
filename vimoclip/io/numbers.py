"""Numbers and times as people and programs write them: decimal point or comma, seconds, h:mm:ss, timecodes."""

import math
import re
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from vimoclip.errors import UserError

MISSING = ("", "NA")  # NA: as BORIS and R write it
DECIMALS = 6  # of seconds and scores in our files
TIME_TOLERANCE = 1e-6  # seconds, larger than the rounding errors of summed floats
TIME_HINT = "write seconds, such as 12.5, or h:mm:ss"
_DIGITS = r"(?:\d+[.,]?\d*|[.,]\d+)"
_NUMBER = re.compile(rf"[+-]?{_DIGITS}(?:[eE][+-]?\d+)?", re.ASCII)
_CLOCK_TIME = re.compile(rf"(-?)(?:(\d{{1,6}}):)?(\d{{1,9}}):({_DIGITS})", re.ASCII)
_TIMECODE = re.compile(r"(\d{1,6})[:;](\d\d)[:;](\d\d)([:;])(\d\d\d?)", re.ASCII)


class Timecode(NamedTuple):
    """hh:mm:ss:ff as SMPTE defines it. `seconds`: those of hh:mm:ss; `frame`: ff; `drop_frame`: written with a ;."""

    seconds: int
    frame: int
    drop_frame: bool

    def __str__(self) -> str:
        minutes = self.seconds // 60
        mark = ";" if self.drop_frame else ":"
        return f"{minutes // 60:02}:{minutes % 60:02}:{self.seconds % 60:02}{mark}{self.frame:02}"

    def at_rate(self, rate: Fraction) -> float:
        """Return the seconds since 00:00:00:00 in a film of `rate` frames/s. Raises ValueError if no frame has it.

        Timecodes count the frames as if the rate were integer. Those with drop frame leave out the first two numbers of
        each minute but each tenth (four at 59.94 frames/s). The seconds are rounded down to milliseconds, so that the
        frame does not begin before them in a container that stores milliseconds (Matroska)."""
        nominal = round(rate)
        if self.frame >= nominal:
            raise ValueError(f"timecode {self} has no frame {self.frame} at {float(rate):g} frames/s")
        number = self.seconds * nominal + self.frame
        if self.drop_frame:
            if nominal % 30 or abs(rate * 1001 / 1000 - nominal) > 0.01:
                raise ValueError(f"drop-frame timecode {self} needs 29.97 or 59.94 frames/s, not {float(rate):g}")
            minutes, dropped = self.seconds // 60, nominal // 15
            if minutes % 10 and self.seconds % 60 == 0 and self.frame < dropped:
                raise ValueError(f"drop-frame timecode {self} does not exist")
            number -= dropped * (minutes - minutes // 10)
        return math.floor(number * 1000 / rate) / 1000


def format_count(count: int, name: str) -> str:
    """Format a number of things with their name in the singular or the plural."""
    return f"{count:,} {name}{'s' * (count != 1)}"


def format_number(number: float) -> str:
    """Format seconds, a score or a count as a cell of a table; NaN and infinity are an empty cell."""
    if not math.isfinite(number):
        return ""
    return f"{round(number, DECIMALS) + 0.0:.{DECIMALS}f}".rstrip("0").rstrip(".")  # + 0.0: no negative zero


def parse_number(value: object) -> float | None:
    """Return a number, also from a text with a decimal comma; None if it is missing. Raises ValueError."""
    text = "" if value is None else str(value).strip()
    if text in MISSING:
        return None
    number = float(text.replace(",", ".")) if _NUMBER.fullmatch(text) else math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError(f"{text!r} is not a number")
    return number


def parse_seconds(value: object) -> float | None:
    """Return seconds, from a number or (h:)mm:ss, which may be negative; None if it is missing. Raises ValueError."""
    text = str(value).strip()
    if match := _CLOCK_TIME.fullmatch(text):
        sign, hours, minutes, seconds = match[1], int(match[2] or 0), int(match[3]), float(match[4].replace(",", "."))
        if seconds >= 60 or (match[2] and minutes >= 60):
            raise ValueError(f"{text!r} is not a time, as minutes and seconds are less than 60")
        return (-1 if sign else 1) * (hours * 3600 + minutes * 60 + seconds)
    if _TIMECODE.fullmatch(text):
        raise ValueError(f"{text!r} is a timecode with frames, not a time in seconds")
    try:
        return parse_number(value)
    except ValueError:
        raise ValueError(f"{text!r} is not a time") from None


def parse_timecode(text: str) -> Timecode | None:
    """Return the timecode hh:mm:ss:ff, or hh:mm:ss;ff with drop frame; None if it is missing. Raises ValueError."""
    if text in MISSING:
        return None
    match = _TIMECODE.fullmatch(text)
    if not match or int(match[2]) >= 60 or int(match[3]) >= 60:
        raise ValueError(f"{text!r} is not a timecode hh:mm:ss:ff")
    return Timecode(int(match[1]) * 3600 + int(match[2]) * 60 + int(match[3]), int(match[5]), match[4] == ";")


def check_decimal_mark(path: Path, cells: Iterable[tuple[int, str]]) -> None:
    """Raise UserError if (line, number) of a table have decimal commas and decimal points: one may mark thousands."""
    lines: dict[str, int] = {}
    for line, cell in cells:
        for mark in {".", ","} & set(cell):
            lines.setdefault(mark, line)
    if len(lines) == 2:
        first, second = sorted(lines.values())
        problem = "its numbers have decimal points and decimal commas"
        if first != second:
            problem = f"its numbers have decimal points and decimal commas, here and in line {first}"
        raise UserError(problem, "write all of them with a decimal point", path=f"{path}:{second}")
