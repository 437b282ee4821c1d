"""Parsing helpers for annotation files, and the rules for video ids."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from vimoclip.errors import UserError
from vimoclip.io.names import is_safe_name

_MAX_QUOTED = 300  # characters


def stem(video: str) -> str:
    """Return a video id without its last extension. Flow videos and motion embeddings are named after it."""
    return video.rpartition(".")[0]


def check_video_id(video: str) -> None:
    """Raise UserError if a file name can't be used as a video id in every file of the chain."""
    name = stem(video)
    if not name:
        raise UserError(f"{quote(video)} is not a file name with an extension", "rename the video and its line")
    if "." in name or video[0] in "=+@" or not is_safe_name(video):
        raise UserError(
            f"{quote(video)}: without its extension a name may hold no dot, slash or control character, not start "
            "with =, + or @ or a drive, and is 255 bytes long at most",
            "rename the video and its line",
        )


def invalid_video_ids(videos: Iterable[str]) -> dict[str, str]:
    """Return the names that can't be used as video ids, with the reason."""
    invalid = dict[str, str]()
    for video in videos:
        try:
            check_video_id(video)
        except UserError as error:
            invalid[video] = str(error)
    return invalid


def quote(text: str) -> str:
    """Return the repr of a text from a file, shortened for a message."""
    return repr(text if len(text) <= _MAX_QUOTED else text[: _MAX_QUOTED - 3] + "...")


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file as dictionaries keyed by its header. Raises UserError."""
    try:
        return list(csv.DictReader(io.StringIO(read_text(path))))
    except csv.Error as error:
        raise UserError(f"is no CSV file ({error})", "save it as one", path=path) from None


def read_text(path: Path) -> str:
    """Return a UTF-8 file, without byte order mark and with \\n line ends. Raises UserError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        hint = "name the data set with --dataset-dir, --dataset-name"
        raise UserError("there is no such file", hint, path=path) from None
    except OSError as error:
        raise UserError(f"can't be read ({error.strerror})", "make it a file that you may read", path=path) from None
    except UnicodeDecodeError as error:
        raise UserError(f"is not UTF-8 text (byte {error.start})", "save it as UTF-8", path=path) from None
    return text.replace("\r\n", "\n")
