"""The videos that a command of predict.py names, and the names of their output files."""

import os
from collections.abc import Sequence
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
    named = list[tuple[str, Path]]()
    for path, name in video.unique_stems({os.path.abspath(path): path for path in paths}.values()).items():
        if _is_writable(f"{portable_stem(name)}{timeline.LONGEST_ENDING}"):
            named.append((name, path))
        else:
            report.failed[str(path)] = "its name is not UTF-8, or too long for those of its output files; rename it"
    _check_output_stems(named, output_dir)
    return dict(named[:limit])


def _check_output_stems(named: Sequence[tuple[str, Path]], folder: Path) -> None:
    """Raise UserError for a video whose files would have the names of another's, or of those about all videos.

    Names that differ in case only are one on some systems."""
    results = {path.stem.casefold(): path for path in folder.glob("*.json")}
    taken: dict[str, Path] = {}
    for name, path in named:
        stem = portable_stem(name).casefold()
        if reserved := RESERVED_STEMS.get(stem):
            raise UserError(f"would write {reserved}, a file about all videos", "rename the video", path=path)
        others = {f"{stem}{suffix}" for suffix in SUFFIXES} | {stem.removesuffix(suffix) for suffix in SUFFIXES}
        for other in sorted(others):
            if same := taken.get(other) or (results.get(other) if other != stem else None):
                raise UserError(f"would write the same files as {same}", "use another folder for it: -o", path=path)
        taken[stem] = path


def _is_writable(name: str) -> bool:
    """Return whether a file name can be written to disk, and into a text file."""
    try:
        return len(name.encode()) <= MAX_NAME_BYTES
    except UnicodeEncodeError:
        return False
