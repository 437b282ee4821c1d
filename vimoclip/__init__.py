"""What two or more of ViMoCLIP's scripts need: one idea a module, flat. Here only what every module may use."""

import re

__version__ = "0.1.0"

# control characters, separators of lines, what turns the direction of writing, and halves of characters
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_ELSEWHERE = re.compile(r"[/\\]|^[A-Za-z]:|^\.{0,2}$")  # a folder, a drive, nothing or a step up
_LONGEST_NAME = 255  # bytes: what file systems take


class _Told(Exception):
    """An error whose text is for the user: it is the same where a DataLoader's worker raised it."""

    def __init__(self, text: object = ""):
        # torch raises what a worker raised anew, of the same type, with that traceback before the text
        before = f"\n{type(self).__module__}.{type(self).__qualname__}: "
        super().__init__(str(text).rpartition(before)[2].removesuffix("\n"))

    def __str__(self) -> str:
        """One line, whatever files brought into it: control characters are spelled out."""
        return _CONTROL.sub(lambda found: repr(found[0])[1:-1], super().__str__())


class UserError(_Told):
    """What the user can mend: one line that names the file, what is wrong and what to do. Exit code 2."""

    exit_code = 2


class TrainingError(UserError):
    """Training can't go on, through no fault of the command line: exit code 1."""

    exit_code = 1


class GoneError(UserError):
    """What was there when the run began is gone in its middle: exit code 1."""

    exit_code = 1


class VideoError(_Told):
    """This one video can't be used; the text is the reason in words. A line in the summary, never the end of a run."""


def has_control(text: str) -> bool:
    """Whether a text from a file would break a line or do something to a terminal."""
    return _CONTROL.search(text) is not None


def safe_name(name: str) -> bool:
    """Whether a name from a file stays in its folder, on one line and within what a file may be called."""
    return not (has_control(name) or _ELSEWHERE.search(name)) and len(name.encode()) <= _LONGEST_NAME
