"""Names of videos, classes and data sets that come from files: checks, and lists for messages."""

import re
from collections.abc import Iterable

from vimoclip.errors import CONTROL_CHARACTERS
from vimoclip.io.atomic import MAX_NAME_BYTES

_OUTSIDE_FOLDER = re.compile(r"[/\\]|^[A-Za-z]:|^\.{0,2}$")  # a separator, a drive letter, an empty name, . or ..
# what Windows refuses: these characters, a dot or space at the end, and the names of devices with any extension
_NOT_ON_WINDOWS = re.compile(
    r'[\x00-\x1f<>:"/\\|?*]|[. ]$|^(con|prn|aux|nul|com[1-9¹²³]|lpt[1-9¹²³]|conin\$|conout\$) *(\.|$)', re.IGNORECASE
)


def has_control_characters(text: str) -> bool:
    """Return whether a text has control characters, which break lines or change a terminal's state."""
    return CONTROL_CHARACTERS.search(text) is not None


def is_safe_name(name: str) -> bool:
    """Return whether a name is a file name of one folder: no separator, no control character, at most 255 bytes."""
    return not (has_control_characters(name) or _OUTSIDE_FOLDER.search(name)) and len(name.encode()) <= MAX_NAME_BYTES


def is_windows_name(name: str) -> bool:
    """Return whether Windows takes a file name."""
    return _NOT_ON_WINDOWS.search(name) is None


def list_some(names: Iterable[object], limit: int = 5) -> str:
    """Return the first names, separated by commas, and the number of the others."""
    texts = [str(name) for name in names]
    more = f" and {len(texts) - limit} more" if len(texts) > limit else ""
    return ", ".join(texts[:limit]) + more
