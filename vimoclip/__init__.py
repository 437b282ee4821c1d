"""What two or more of ViMoCLIP's scripts need: one idea a module, flat. Here only what every module may use."""

import os
from pathlib import Path

__version__ = "0.1.0"


class UserError(Exception):
    """What the user can mend: one line that names the file, what is wrong and what to do. Exit code 2."""

    exit_code = 2


class TrainingError(UserError):
    """Training can't go on, through no fault of the command line: exit code 1."""

    exit_code = 1


class VideoError(Exception):
    """This one video can't be used; the text is the reason in words. A line in the summary, never the end of a run."""


def publish(temporary: Path, path: Path) -> None:
    """Give a file that is whole its name, so that a name never stands for half a file, after a power cut neither."""
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
