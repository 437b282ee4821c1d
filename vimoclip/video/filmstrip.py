"""A video as one picture: some of its frames side by side."""

from pathlib import Path
from typing import Any

from vimoclip import video


def strip(path: Path, frames: int, height: int, gap: int, between: str = "white", widest: int | None = None) -> Any:
    """A PIL image of so many frames, evenly spread over the video, each `height` and at most `widest` pixels.

    `between`: the colour of the `gap` pixels between two. Raises VideoError, OSError."""
    from PIL import Image

    images = [Image.fromarray(frame) for frame in video.read_evenly(path, frames)]
    width = max(1, images[0].width * height // images[0].height)
    width = min(width, widest) if widest else width
    sheet = Image.new("RGB", (len(images) * (width + gap) - gap, height), between)
    for i, image in enumerate(images):
        sheet.paste(image.resize((width, height)), (i * (width + gap), 0))
    return sheet
