"""The videos that a command of predict.py names, and the names of their output files."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from vimoclip import cli, timeline, video
from vimoclip.errors import UserError
from vimoclip.ethogram import folder_files
from vimoclip.io.atomic import MAX_NAME_BYTES
from vimoclip.io.names import portable_stem
from vimoclip.io.text import read_text

SUFFIXES = (timeline.WINDOWS_SUFFIX, timeline.FRAMES_SUFFIX)
RESERVED_STEMS = {Path(name).stem: name for name in folder_files.NAMES}


def find_input_videos(
    inputs: Sequence[Path], output_dir: Path, limit: int | None, report: cli.RunReport
) -> dict[str, Path]:
    """Return name -> video for videos, folders of videos, and lists (.txt, one path per line, relative to the list).

    The name is the video's without extension; with folders if several videos share it. Folders are searched with all
    folders below, except `output_dir`. Videos whose output can't be named are added to `report.failed`. Raises
    UserError if there is none, or if two would write the same files."""
    hint, paths = "name a video, a folder of videos or a list of videos (.txt)", list[Path]()
    for path in inputs:
        if path.is_dir():
            folder = video.VideoFolder(path, exclude=[output_dir])
            paths += folder.videos
            if left_out := folder.describe_left_out():
                print(left_out, flush=True)
        elif path.suffix.lower() == ".txt":
            for number, line in enumerate(map(str.strip, read_text(path, hint).splitlines()), start=1):
                if line:
                    file = video.existing_spelling(path.parent / line)
                    paths.append(cli.require_file(file, f"correct line {number} of {path}"))
        else:
            paths.append(cli.require_file(path, hint))
    if not paths:
        raise UserError("has no videos", hint, path=inputs[0])
    videos: dict[str, Path] = {}
    for path, name in video.unique_stems({os.path.abspath(path): path for path in paths}.values()).items():
        if _is_writable(f"{portable_stem(name)}{timeline.LONGEST_ENDING}"):
            videos[name] = path
        else:
            report.failed[str(path)] = "its name is not UTF-8, or too long for those of its output files; rename it"
    _check_output_stems(videos, output_dir)
    return dict(list(videos.items())[:limit])


def _check_output_stems(videos: Mapping[str, Path], folder: Path) -> None:
    """Raise UserError for a video whose files would have the names of another's, or of those of the folder."""
    taken: dict[str, Path] = {}  # in lower case, as some systems do not distinguish it
    for name, path in videos.items():
        stem = portable_stem(name)
        if reserved := RESERVED_STEMS.get(stem.casefold()):
            raise UserError(f"would write {reserved}, a file about all videos", "rename the video", path=path)
        stems = {stem, *(f"{stem}{suffix}" for suffix in SUFFIXES), *(stem.removesuffix(suffix) for suffix in SUFFIXES)}
        for other_stem in sorted(stems):
            other: Path | None = taken.get(other_stem.casefold())
            if other is None and other_stem != stem and (result := folder / f"{other_stem}.json").exists():
                other = result
            if other:
                raise UserError(f"would write the same files as {other}", "use another folder for it: -o", path=path)
        taken[stem.casefold()] = path


def _is_writable(name: str) -> bool:
    """Return whether a file name can be written to disk, and into a text file."""
    try:
        return len(name.encode()) <= MAX_NAME_BYTES
    except UnicodeEncodeError:
        return False
