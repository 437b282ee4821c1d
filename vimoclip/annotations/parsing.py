"""Rules for video ids, and quotes of texts from files."""

from collections.abc import Iterable

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
