"""Checks of a script's arguments and files, which raise UserError."""

import argparse
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vimoclip.errors import UserError


def require_folder(path: Path, hint: str) -> Path:
    """Return `path`. Raises UserError if it is not a folder."""
    if not os.path.isdir(path):  # Path.is_dir raises for a name that is too long
        raise UserError("there is no such folder", hint, path=path)
    return path


def require_file(path: Path, hint: str) -> Path:
    """Return `path`. Raises UserError if it is not a file."""
    if not os.path.isfile(path):
        raise UserError("there is no such file", hint, path=path)
    return path


def require_creatable_folder(path: Path, flag: str) -> Path:
    """Return `path`. Raises UserError if it or one of its parents is a file; `flag` names the folder."""
    for ancestor in (path, *path.parents):
        if ancestor.is_dir():
            break
        if ancestor.exists():
            raise UserError("is a file, not a folder", f"name a folder with {flag}", path=ancestor)
    return path


def check_sharding_arguments(args: argparse.Namespace) -> None:
    """Raise UserError for --overwrite of an output that several processes write."""
    if args.overwrite and (args.shard or args.merge):
        flag = "--shard" if args.shard else "--merge"
        raise UserError(
            f"--overwrite with {flag}: would delete the output of other shards", "delete the old output first"
        )


def is_main_process() -> bool:
    """Return whether this process is rank 0 of torchrun, or the only one."""
    return int(os.environ.get("RANK", 0)) == 0


def num_processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_workers(requested: int) -> int:
    """Return the requested number of workers, at most the number of processors that this process may use."""
    processors = num_processors()
    if requested > processors:
        print(f"--num-workers {requested}: this machine has {processors} processors, so {processors} are used")
    return min(requested, processors)


def check_settings_match(
    first: Mapping[str, Any], second: Mapping[str, Any], first_name: str, second_name: str, hint: str
) -> None:
    """Raise UserError if a setting in both has different values; the names say whose settings they are."""
    for key in (key for key in first if key in second):
        if first[key] != second[key]:
            if isinstance(first[key], Mapping) and isinstance(second[key], Mapping):  # name the setting in them
                one, other = ({f"{key}.{name}": value for name, value in s[key].items()} for s in (first, second))
                check_settings_match(one, other, first_name, second_name, hint)
                continue  # they differ in keys that one of them lacks
            first_value, second_value = (str(settings[key])[:80] for settings in (first, second))
            raise UserError(f"{key} is {first_value} in {first_name} but {second_value} in {second_name}", hint)


def check_downloadable(download: Mapping[str, str] | None, timeout: float = 5.0) -> None:
    """Raise UserError if a download (`url`, `name`, `hint`) is not reachable, without a minute of retries.

    None: there is nothing to download."""
    if download is None:
        return
    url = download["url"]
    problems: list[str] = ["no answer"]

    def request() -> None:
        import urllib.error
        import urllib.request

        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout).close()
            problems.clear()
        except urllib.error.HTTPError as error:
            if error.code in (403, 405):  # the file exists, but the server refuses HEAD
                problems.clear()
            else:
                problems[:] = [str(error)]
        except (OSError, ValueError) as error:
            problems[:] = [str(getattr(error, "reason", error))]

    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(timeout)
    if problems:
        hint = f"get {url} on a machine with a network, {download['hint']}"
        raise UserError(f"{download['name']} can't be downloaded ({problems[0]})", hint)
