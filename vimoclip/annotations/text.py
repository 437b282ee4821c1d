"""Reading a file of annotations, and what may stand in it as the name of a video."""

import csv
import io
from pathlib import Path

from vimoclip.errors import UserError
from vimoclip.io.names import safe_name


def stem(video: str) -> str:
    """A video's id without its last extension: what flow videos and motion embeddings are named after."""
    return video.rpartition(".")[0]


def check_video_id(video: str) -> None:
    """Raise UserError where a file name can't be a video's id in every file of the chain."""
    name = stem(video)
    if not name:
        raise UserError(f"{quoted(video)} is not a file name with an extension", "rename the video and its line")
    if "." in name or video[0] in "=+@" or not safe_name(video):
        raise UserError(
            f"{quoted(video)}: without its extension a name may hold no dot, slash or control character, not start "
            "with =, + or @ or a drive, and is 255 bytes long at most",
            "rename the video and its line",
        )


def quoted(text: str) -> str:
    return repr(text if len(text) <= 300 else text[:297] + "...")


def read_rows(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV file, by the names in its header."""
    try:
        return list(csv.DictReader(io.StringIO(read_text(path))))
    except csv.Error as error:
        raise UserError(f"is no CSV file ({error})", "save it as one", path=path) from None


def read_text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(
            "there is no such file", "name the data set with --dataset-dir, --dataset-name", path=path
        ) from None
    except OSError as error:
        raise UserError(f"can't be read ({error.strerror})", "make it a file that you may read", path=path) from None
    except UnicodeDecodeError as error:
        raise UserError(f"is not UTF-8 text (byte {error.start})", "save it as UTF-8", path=path) from None
    return text.replace("\r\n", "\n")
