"""Errors for the user, with the problem, a hint and the file as separate fields; `__str__` composes the message."""

import json
import re
from os import PathLike
from typing import Any

# control characters, line separators, bidirectional formatting, lone surrogates
CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_NOTE_PREFIX = "vimoclip error fields: "  # of the note that carries the fields through a formatted traceback


class UserFacingError(Exception):
    """Base class. `problem`: what is wrong; `hint`: what to do (may be empty); `path`: the file (may be None).

    The fields survive pickling (process pools), as attributes of any exception do, and a DataLoader worker. For the
    latter, torch raises the same type again with the formatted traceback as its only argument, and the fields are read
    from the exception's note in it."""

    def __init__(self, problem: object = "", hint: str = "", *, path: str | PathLike[str] | None = None):
        fields = _fields_from_traceback(str(problem))
        fields = fields or [str(problem), hint, None if path is None else str(path)]
        self.problem: str = fields[0] or ""
        self.hint: str = fields[1] or ""
        self.path: str | None = fields[2]
        super().__init__(self.problem)
        self.add_note(_NOTE_PREFIX + json.dumps(fields))

    def __str__(self) -> str:
        """Return `path: problem; hint` on one line, with escaped control characters."""
        line = (f"{self.path}: " if self.path else "") + self.problem + (f"; {self.hint}" if self.hint else "")
        return escape_line(line)


def _fields_from_traceback(text: str) -> list[Any] | None:
    """Return the fields in the text of torch's ExceptionWrapper, None for any other text."""
    if not text.startswith("Caught "):
        return None
    _, note, rest = text.rpartition(f"\n{_NOTE_PREFIX}")
    try:
        return json.loads(rest.splitlines()[0]) if note else None
    except (ValueError, IndexError):
        return None


class UserError(UserFacingError):
    """Something the user can correct. Exit code 2.

    `is_duplicate`: whether another process of the same run prints this error; None if that is not known."""

    exit_code = 2
    is_duplicate: bool | None = None


class TrainingError(UserError):
    """Training cannot continue, and the command line is not the cause. Exit code 1."""

    exit_code = 1


class DeviceMemoryError(UserError):
    """Other programs use the memory of a device. Exit code 1."""

    exit_code = 1


class GoneError(UserError):
    """A file that existed when the run began disappeared during the run. Exit code 1."""

    exit_code = 1


class VideoError(UserFacingError):
    """One video cannot be used. It is recorded as failed, and the run continues."""


def escape_line(text: object) -> str:
    """Return a text that came from a file as one printable line, with escaped control characters."""
    return CONTROL_CHARACTERS.sub(lambda match: repr(match[0])[1:-1], str(text))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of PyTorch means that a device has too little free memory.

    By its text, since only CUDA has a type for it, and libraries on it raise others."""
    texts = "out of memory", "can't allocate memory", "ALLOC_FAILED"
    return isinstance(error, RuntimeError) and any(text in str(error) for text in texts)


def first_line(error: Exception) -> str:
    """Return the first line of an exception's text, or the name of its type if the text is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
