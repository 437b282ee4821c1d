"""Reading of UTF-8 text files, also those compressed with gzip."""

import gzip
import io
import zlib
from pathlib import Path
from typing import IO, cast

from vimoclip.errors import UserError

GZIP_MAGIC = b"\x1f\x8b"
# what a file is instead of UTF-8 text, and its first bytes
OTHER_CONTENT = {
    "a workbook or a zip archive": (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"),
    "UTF-16 text": (b"\xff\xfe", b"\xfe\xff"),
}


def read_text(path: Path, hint: str = "", limit: int = -1) -> str:
    """Return a text, or its first `limit` characters, without byte order mark and with \\n line ends.

    Raises UserError; `hint`: what to do if the file is missing, or a folder."""
    try:
        with open(path, "rb") as file:
            is_compressed = file.peek(2).startswith(GZIP_MAGIC)
            content = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if is_compressed else file
            with io.TextIOWrapper(content, "utf-8") as text:
                return text.read(limit).removeprefix("\ufeff")  # utf-8-sig takes part of a mark alone for an empty text
    except FileNotFoundError:
        raise UserError("there is no such file", hint, path=path) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"is not a complete gzip file ({error})", "copy or save it again", path=path) from None
    except OSError as error:
        hint = hint if path.is_dir() and hint else "make it a file that you may read"
        raise UserError(f"can't be read ({error.strerror})", hint, path=path) from None
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 text (byte {error.start})"
        for kind, signatures in OTHER_CONTENT.items():
            if error.object.startswith(signatures):
                problem = f"is {kind}, not UTF-8 text"
        raise UserError(problem, "save it as UTF-8 (in Excel: CSV UTF-8)", path=path) from None
