"""Find videos in a folder and in the folders below it, also by names in another Unicode form."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from vimoclip.errors import VideoError
from vimoclip.io.names import list_some, normalize_name
from vimoclip.video.container import VIDEO_EXTENSIONS
from vimoclip.video.raw_stream import RAW_EXTENSIONS, describe_raw_stream

# made by macOS, Synology and Windows; they hold copies, thumbnails and deleted files
SYSTEM_FOLDERS = frozenset({"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information"})
MANIFEST_INFIX = ".manifest."  # in the names of the files that extract_flows.py writes beside its folder of flow videos
NO_VIDEO = "has no extension of a video"


class VideoFolder:
    """The files of a folder and of the folders below it; hidden files and SYSTEM_FOLDERS are ignored.

    `videos`: sorted by folder and name. `left_out`: path below the folder -> why it is not among the videos. Links to
    folders are followed, and each folder is read once. Folders of flow videos are left out unless `with_flow`, and so
    are those of `exclude`. Raises OSError if the folder can't be read."""

    def __init__(self, folder: Path, exclude: Iterable[Path] = (), with_flow: bool = False):
        self.folder, self.left_out = folder, dict[str, str]()
        files = list_files(folder, self.left_out, exclude, with_flow)
        self.videos = [path for path in files if path.suffix.lower() in VIDEO_EXTENSIONS]
        for path in (path for path in files if path.suffix.lower() not in VIDEO_EXTENSIONS):
            is_raw = path.suffix.lower() in RAW_EXTENSIONS
            reason = (describe_raw_stream(path) if is_raw else None) or NO_VIDEO
            self.left_out[path.relative_to(folder).as_posix()] = reason
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for path in files:
            self._by_name[normalize_name(path.name)].append(path)

    def matches(self, name: str) -> list[Path]:
        """Return the files of this name: the one that is directly in the folder, else all in the folders below it."""
        paths = self._by_name.get(normalize_name(name), [])
        if len(paths) < 2:
            return paths
        direct = [path for path in paths if path.parent == self.folder]
        return [path for path in direct if path.name == name] or direct or paths

    def locate(self, video_id: str) -> Path:
        """Return the file of a video id; if there is none, its path directly in the folder.

        Raises VideoError if several folders hold it."""
        paths = self.matches(video_id)
        if len(paths) > 1:
            names = list_some(path.relative_to(self.folder).as_posix() for path in paths)
            raise VideoError(f"{len(paths)} files have this name: {names}", "keep or rename one of them")
        return paths[0] if paths else self.folder / video_id

    def describe_left_out(self) -> str:
        """Return a line that counts what is left out and names the first; empty if there is nothing."""
        if not self.left_out:
            return ""
        names = list_some(f"{name!r} {reason}" for name, reason in self.left_out.items())
        return f"{self.folder}: {len(self.left_out)} files or folders are left out: {names}"


def list_files(
    folder: Path, left_out: dict[str, str], exclude: Iterable[Path] = (), with_flow: bool = False
) -> list[Path]:
    """Return the files as VideoFolder describes. Folders that are left out are added to `left_out`."""
    files = list[Path]()
    # a link to a folder above this one would add the files beside this one
    seen = {os.path.realpath(path) for path in (*folder.resolve().parents, *exclude)} - {os.path.realpath(folder)}
    folders, links = [folder], list[Path]()  # links come last, so that files have the paths without a link
    while folders or links:
        current = folders.pop() if folders else links.pop(0)
        identity = os.path.realpath(current)
        if identity in seen:
            if current.is_symlink():
                left_out[current.relative_to(folder).as_posix()] = "links to a folder that is left out or read before"
            continue
        seen.add(identity)
        try:
            with os.scandir(current) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            if current == folder:
                raise
            left_out[current.relative_to(folder).as_posix()] = f"can't be read ({error.strerror})"
            continue
        flow_folders = {entry.name.partition(MANIFEST_INFIX)[0] for entry in entries if MANIFEST_INFIX in entry.name}
        below = list[Path]()
        for entry in entries:
            if entry.name.startswith(".") or entry.name in SYSTEM_FOLDERS:
                continue
            path = Path(entry.path)
            if not _is_folder(entry):
                files.append(path)
            elif not with_flow and entry.name in flow_folders:
                left_out[path.relative_to(folder).as_posix()] = "holds flow videos"
            else:
                (links if entry.is_symlink() else below).append(path)
        folders += reversed(below)
    return files


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def existing_spelling(path: Path) -> Path:
    """Return the file of this name in NFC or NFD, in the same folder; `path` itself if there is none."""
    spellings = (path.with_name(unicodedata.normalize(form, path.name)) for form in ("NFC", "NFD"))
    return next((other for other in (path, *spellings) if os.path.exists(other)), path)


def unique_stems(paths: Iterable[Path]) -> dict[Path, str]:
    """Return the name without extension of each file, by path.

    If several share it, but for case: in NFC, after as many folders, from the right, as make them differ, such as
    day1__GOPR0001."""
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for path in dict.fromkeys(paths):
        by_stem[_fold(path.stem.strip())].append(path)
    names = dict[Path, str]()
    for same in by_stem.values():
        folders = [normalize_name(path.absolute().parent.as_posix()).strip("/").split("/") for path in same]
        deepest = max(map(len, folders)) if len(same) > 1 else 0
        num_names = [len({_fold("/".join(_last(parts, depth))) for parts in folders}) for depth in range(deepest + 1)]
        depth = num_names.index(max(num_names))
        for path, parts in zip(same, folders, strict=True):
            stem = normalize_name(path.stem.strip()) if depth else path.stem
            names[path] = "__".join([*_last(parts, depth), stem])
    return names


def _fold(name: str) -> str:
    """Return what names have in common that are one name on some system."""
    return normalize_name(name).casefold()


def _last(parts: list[str], count: int) -> list[str]:
    return parts[max(0, len(parts) - count) :]
