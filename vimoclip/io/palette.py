"""Colours of actions, in pages and in BORIS."""

import colorsys
import itertools
from collections.abc import Iterator

# the colour-blind safe palette of Okabe and Ito: https://jfly.uni-koeln.de/color/
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
# Further hues, as fractions of a turn: each lies in the widest gap between those before. Of all first ones, this is far
# from COLORS: the first 24 colours are distinct.
FIRST_HUE, HUE_STEP = 0.775, 0.381966
LIGHTNESSES, SATURATION = (0.42, 0.62, 0.3), 0.6


def distinct_colors() -> Iterator[str]:
    """Yield hexadecimal colours without end: COLORS, then further hues of three lightnesses in turn."""
    yield from COLORS
    for number in itertools.count():
        hue, lightness = (FIRST_HUE + number * HUE_STEP) % 1, LIGHTNESSES[number % len(LIGHTNESSES)]
        red_green_blue = colorsys.hls_to_rgb(hue, lightness, SATURATION)
        yield "#" + "".join(f"{round(255 * part):02x}" for part in red_green_blue)
