"""Colours of actions, in pages and in BORIS."""

import colorsys
import itertools
import math
from collections.abc import Iterator

# the colour-blind safe palette of Okabe and Ito: https://jfly.uni-koeln.de/color/
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
GOLDEN_RATIO = 0.618034
BRIGHTNESSES = (0.35, 0.55, 0.75)


def distinct_colors() -> Iterator[str]:
    """Yield hexadecimal colours without end: COLORS, then colours of another brightness, which all people see, and of
    another hue than the one before."""
    yield from COLORS
    for number in itertools.count():
        angle, brightness = 2 * math.pi * GOLDEN_RATIO * number, BRIGHTNESSES[number % len(BRIGHTNESSES)]
        red_green_blue = colorsys.yiq_to_rgb(brightness, -0.3 * math.cos(angle), 0.2 * math.sin(angle))
        yield "#" + "".join(f"{round(255 * part):02x}" for part in red_green_blue)
