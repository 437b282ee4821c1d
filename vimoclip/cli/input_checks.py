"""Checks before a script starts its work; each raises UserError."""

import argparse
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vimoclip.errors import UserError


def require_folder(path: Path, hint: str) -> Path:
    if not path.is_dir():
        raise UserError("there is no such folder", hint, path=path)
    return path


def require_file(path: Path, hint: str) -> Path:
    if not path.is_file():
        raise UserError("there is no such file", hint, path=path)
    return path


def require_creatable_folder(path: Path, flag: str) -> Path:
    """Raise UserError where `path` or one of its parents is a file."""
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
            f"--overwrite with {flag}: would remove what other shards did", "remove the old output by itself"
        )


def is_main_process() -> bool:
    """Whether this process is rank 0 of torchrun, or the only one."""
    return int(os.environ.get("RANK", 0)) == 0


def limit_workers(requested: int) -> int:
    """The requested number of workers, at most the number of processors that this process may use."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if requested > processors:
        print(f"--num-workers {requested}: this machine has {processors} processors, so {processors} are used")
    return min(requested, processors)


def check_settings_match(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], our_name: str, their_name: str, hint: str
) -> None:
    """Raise UserError for the first setting of `ours` with another value in `theirs`."""
    for key in (key for key in ours if key in theirs):
        if ours[key] != theirs[key]:
            raise UserError(f"{key} is {ours[key]} in {our_name} but {theirs[key]} in {their_name}", hint)


def check_downloadable(download: Mapping[str, str], timeout: float = 5.0) -> None:
    """Raise UserError where a file (`url`, `what`, `hint`) is not reachable, instead of after a minute of retries."""
    url = download["url"]
    problem: list[str] = ["no answer"]

    def request() -> None:
        import urllib.error
        import urllib.request

        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout).close()
            problem.clear()
        except urllib.error.HTTPError as error:
            if error.code in (403, 405):  # the file exists, but the server refuses HEAD
                problem.clear()
            else:
                problem[:] = [str(error)]
        except (OSError, ValueError) as error:
            problem[:] = [str(getattr(error, "reason", error))]

    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(timeout)
    if problem:
        hint = f"get {url} on a machine with a network, {download['hint']}"
        raise UserError(f"{download['what']} can't be downloaded ({problem[0]})", hint)
