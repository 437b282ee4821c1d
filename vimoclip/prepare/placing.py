"""Videos of elsewhere into the data set's own folder, under names that every file of the chain takes."""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from vimoclip import UserError, files


def clean(name: str) -> str:
    """A name that every file of the chain takes: DESIGN's rule for stems."""
    return re.sub(r"^[=+@]", "-", re.sub(r"[\x00-\x1f\x7f/\\.]", "-", name))


def place_videos(paths: Mapping[str, Path], folder: Path) -> None:
    """Link or copy each video under its new name; those that are there stay. Raises UserError before it places any."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = {folder / name: path for name, path in paths.items() if not (folder / name).exists()}
    for name, path in paths.items():
        if folder / name not in missing and (folder / name).stat().st_size != path.stat().st_size:
            raise UserError(f"{folder / name}: is another video than {path}; name another --dataset-dir, or delete it")
    for target, path in missing.items():
        try:
            os.link(path.resolve(), target)
        except OSError:
            with files.new_file(target) as copy, open(path, "rb") as source:
                shutil.copyfileobj(source, copy)
