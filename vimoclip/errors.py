"""Errors whose text is for the user: the problem, a hint and the file are separate fields, composed in one place."""

import json
import re
from collections.abc import Callable
from os import PathLike
from typing import Any, TypeVar

# control characters, line separators, characters that change the writing direction, and lone surrogates
CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_FIELDS = "vimoclip error fields: "  # begins the note that carries the fields through a formatted traceback

E = TypeVar("E", bound="UserFacingError")


class UserFacingError(Exception):
    """Base class: `problem` says what is wrong, `hint` what to do (may be empty), `path` the file (may be None).

    The fields survive pickling (process pools) and a DataLoader's worker. There, torch raises the same type again with
    the formatted traceback as its only argument; the fields are then read from the exception's note in that text."""

    def __init__(self, problem: object = "", hint: str = "", *, path: str | PathLike[str] | None = None):
        fields = [str(problem), hint, None if path is None else str(path)]
        _, note, rest = fields[0].rpartition(f"\n{_FIELDS}") if fields[0] else ("", "", "")
        if note:
            fields = json.loads(rest.splitlines()[0])
        self.problem: str = fields[0] or ""
        self.hint: str = fields[1] or ""
        self.path: str | None = fields[2]
        super().__init__(self.problem)
        self.add_note(_FIELDS + json.dumps(fields))

    def __str__(self) -> str:
        """`path: problem; hint` on one line; control characters that files brought in are escaped."""
        line = (f"{self.path}: " if self.path else "") + self.problem + (f"; {self.hint}" if self.hint else "")
        return CONTROL_CHARACTERS.sub(lambda found: repr(found[0])[1:-1], line)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _restore, (type(self), self.problem, self.hint, self.path)


def _restore(kind: type[E], problem: str, hint: str, path: str | None) -> E:
    return kind(problem, hint, path=path)


class UserError(UserFacingError):
    """Something the user can correct. Exit code 2."""

    exit_code = 2


class TrainingError(UserError):
    """Training cannot continue, and the command line is not the cause. Exit code 1."""

    exit_code = 1


class GoneError(UserError):
    """A file that existed when the run began disappeared during the run. Exit code 1."""

    exit_code = 1


class VideoError(UserFacingError):
    """One video cannot be used. It is recorded as failed, and the run continues."""
