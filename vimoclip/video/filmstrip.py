"""Show frames of a video side by side in one image."""

from pathlib import Path
from typing import Any

from vimoclip import video


def render_filmstrip(
    path: Path, frames: int, height: int, gap: int, gap_color: str = "white", max_width: int | None = None
) -> Any:
    """Return a PIL image of `frames` evenly spaced frames, each `height` and at most `max_width` pixels in size.

    `gap`: pixels between two frames. Raises VideoError, OSError."""
    from PIL import Image

    images = [Image.fromarray(frame) for frame in video.read_evenly_spaced(path, frames)]
    width = max(1, images[0].width * height // images[0].height)
    width = min(width, max_width) if max_width else width
    sheet = Image.new("RGB", (len(images) * (width + gap) - gap, height), gap_color)
    for i, image in enumerate(images):
        sheet.paste(image.resize((width, height)), (i * (width + gap), 0))
    return sheet
