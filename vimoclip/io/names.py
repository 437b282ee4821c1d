"""Names of videos, classes and data sets that come from files: checks, normal form, and lists for messages."""

import re
import unicodedata
from collections.abc import Iterable

from vimoclip.errors import CONTROL_CHARACTERS
from vimoclip.io.atomic import MAX_NAME_BYTES

_OUTSIDE_FOLDER = re.compile(r"[/\\]|^[A-Za-z]:|^\.{0,2}$")  # a separator, a drive letter, an empty name, . or ..

_REFUSED_BY_WINDOWS = re.compile(r'[<>:"|?*]|[. ]$')
_RESERVED_BY_WINDOWS = re.compile(r"(?:con|prn|aux|nul|(?:com|lpt)[0-9¹²³])", re.IGNORECASE)


def has_control_characters(text: str) -> bool:
    """Return whether a text has control characters, which break lines or change a terminal's state."""
    return CONTROL_CHARACTERS.search(text) is not None


def is_safe_name(name: str) -> bool:
    """Return whether a name is a file name of one folder: no separator, no control character, at most 255 bytes."""
    return not (has_control_characters(name) or _OUTSIDE_FOLDER.search(name)) and len(name.encode()) <= MAX_NAME_BYTES


def normalize_name(text: str) -> str:
    """Return a name in Unicode's form NFC, in which names that look the same are the same text.

    macOS writes é as e and an accent (NFD), Windows and Linux as one character (NFC)."""
    return unicodedata.normalize("NFC", text)


def portable_stem(stem: str) -> str:
    """Return a file name without extension in which `-` replaces what Windows refuses, and follows NUL and its like."""
    base, dot, rest = _REFUSED_BY_WINDOWS.sub("-", stem).partition(".")
    return base + "-" * bool(_RESERVED_BY_WINDOWS.fullmatch(base.rstrip())) + dot + rest


def list_some(names: Iterable[object], limit: int = 5) -> str:
    """Return the first names, separated by commas, and the number of the others."""
    texts = [str(name) for name in names]
    more = f" and {len(texts) - limit} more" if len(texts) > limit else ""
    return ", ".join(texts[:limit]) + more
