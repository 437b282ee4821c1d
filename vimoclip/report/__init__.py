"""report.html: an evaluation as one page that needs no network, for a screen, a phone or a printer.

The one user of plotly's script, which is inlined: 4.8 MB of the file."""

from pathlib import Path
from typing import TYPE_CHECKING

from vimoclip import files

if TYPE_CHECKING:
    from vimoclip.report.subject import Evaluation


def write(path: Path, evaluation: "Evaluation", videos_dir: Path | None = None, flows_dir: Path | None = None) -> Path:
    """The report, whole or not at all. From the two folders come pictures of clips, as far as they are there.

    Raises OSError."""
    from vimoclip.report.page import render

    return files.write_text(path, render(evaluation, videos_dir, flows_dir))
