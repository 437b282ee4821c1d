"""Colours of actions differ, also to the eye if there are not too many."""

import math
from itertools import combinations, islice

from vimoclip.io.palette import COLORS, distinct_colors


def to_lab(color: str) -> tuple[float, float, float]:
    """Return a colour in CIELAB, in which distances are those that people see; about 2.3 is just noticeable."""
    values = [byte / 255 for byte in bytes.fromhex(color[1:])]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values)
    parts = (
        (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505,
        0.2126 * red + 0.7152 * green + 0.0722 * blue,
        (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089,
    )
    x, y, z = (part ** (1 / 3) if part > 0.008856 else 7.787 * part + 16 / 116 for part in parts)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def test_colors_are_distinct() -> None:
    colors = list(islice(distinct_colors(), 150))
    assert tuple(colors[: len(COLORS)]) == COLORS and len(set(colors)) == 150
    assert min(math.dist(to_lab(a), to_lab(b)) for a, b in combinations(colors[:24], 2)) > 14
