"""Names of videos, classes and data sets that come from files: checks, normal form, and lists for messages."""

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path, PureWindowsPath
from urllib.parse import unquote

from vimoclip.errors import CONTROL_CHARACTERS
from vimoclip.io.atomic import MAX_NAME_BYTES

_OUTSIDE_FOLDER = re.compile(r"[/\\]|^[A-Za-z]:|^\.{0,2}$")  # a separator, a drive letter, an empty name, . or ..
_LOOKALIKES: dict[int, str | None] = dict.fromkeys((0x00A0, 0x2007, 0x202F), " ")  # spaces that don't break
_LOOKALIKES |= dict.fromkeys((0x00AD, 0x200B, 0x2060, 0xFEFF))  # invisible
# what Windows refuses: these characters, a dot or space at the end, and the names of devices with any extension
_REFUSED_BY_WINDOWS = re.compile(r'[\x00-\x1f<>:"/\\|?*]|[. ]$')
_DEVICE_OF_WINDOWS = re.compile(r"((?:con|prn|aux|nul|(?:com|lpt)[0-9¹²³]|conin\$|conout\$) *)(?=\.|$)", re.IGNORECASE)


def has_control_characters(text: str) -> bool:
    """Return whether a text has control characters, which break lines or change a terminal's state."""
    return CONTROL_CHARACTERS.search(text) is not None


def is_safe_name(name: str) -> bool:
    """Return whether a name is a file name of one folder: no separator, no control character, at most 255 bytes."""
    return not (has_control_characters(name) or _OUTSIDE_FOLDER.search(name)) and len(name.encode()) <= MAX_NAME_BYTES


def normalize_name(text: str) -> str:
    """Return a name in a form in which names that look the same are the same text: Unicode's NFC, plain spaces, no
    invisible characters.

    macOS writes é as e and an accent (NFD), Windows and Linux as one character (NFC). Programs and web pages add spaces
    that don't break, byte order marks and spaces without width."""
    return unicodedata.normalize("NFC", text).translate(_LOOKALIKES)


def fold_name(text: str) -> str:
    """Return what names have in common that differ only in case, spaces or Unicode's form."""
    return normalize_name(" ".join(normalize_name(text).casefold().split()))


def is_windows_name(name: str) -> bool:
    """Return whether Windows takes a file name."""
    return not (_REFUSED_BY_WINDOWS.search(name) or _DEVICE_OF_WINDOWS.match(name))


def portable_stem(stem: str) -> str:
    """Return a file name without extension in which `-` replaces what Windows refuses, and follows NUL and its like."""
    stem = _REFUSED_BY_WINDOWS.sub("-", stem)
    device = _DEVICE_OF_WINDOWS.match(stem)
    return f"{device[1]}-{stem[device.end() :]}" if device else stem


def relative_paths(path: Path, folder: Path) -> list[str]:
    """Return a file's path relative to a folder, with /: of the given paths, then with symbolic links resolved.

    On another drive of Windows, the path is absolute."""
    found = list[str]()
    for target, start in ((path.absolute(), folder.absolute()), (path.resolve(), folder.resolve())):
        try:
            found.append(Path(os.path.relpath(target, start)).as_posix())
        except ValueError:
            found.append(target.as_posix())
    return list(dict.fromkeys(found))


def relative_path(path: Path, folder: Path) -> str:
    """Return the first of `relative_paths` that leads to the file: from a link, `..` may lead elsewhere."""
    found = relative_paths(path, folder)
    return next((text for text in found if (folder.absolute() / text).resolve() == path.resolve()), found[-1])


def plain_path(path: str) -> str:
    """Return a path without quotes around it, which file managers add, and that of a file:// URL."""
    text = path.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1]
    return "/" + unquote(text[len("file:") :]).lstrip("/") if text.lower().startswith("file:") else text


def path_parts(path: str) -> tuple[str, ...]:
    """Return the names in a path of any system, or a file:// URL, without quotes, drive, root and `..`."""
    pure = PureWindowsPath(normalize_name(plain_path(path)))  # separates at / and at \
    parts = list[str]()
    for part in pure.parts[bool(pure.anchor) :]:
        if part != "..":
            parts.append(part)
        elif parts:
            parts.pop()
    return tuple(parts)


def common_tail(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the number of last names that two paths have in common."""
    pairs = zip(reversed(first), reversed(second), strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))


def list_some(names: Iterable[object], limit: int = 5) -> str:
    """Return the first names, separated by commas, and the number of the others."""
    texts = [str(name) for name in names]
    more = f" and {len(texts) - limit} more" if len(texts) > limit else ""
    return ", ".join(texts[:limit]) + more
