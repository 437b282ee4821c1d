"""What must be so before a stage begins; each raises UserError where it isn't."""

import argparse
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vimoclip.errors import UserError


def need_folder(path: Path, cure: str) -> Path:
    if not path.is_dir():
        raise UserError("there is no such folder", cure, path=path)
    return path


def need_file(path: Path, cure: str) -> Path:
    if not path.is_file():
        raise UserError("there is no such file", cure, path=path)
    return path


def need_place(path: Path, flag: str) -> Path:
    """Raise UserError where no folder can come to be at `path`, because a file is there or on the way."""
    for place in (path, *path.parents):
        if place.is_dir():
            break
        if place.exists():
            raise UserError("is a file, not a folder", f"name a folder with {flag}", path=place)
    return path


def check_sharing(args: argparse.Namespace) -> None:
    """Raise UserError for --overwrite of an output that several make."""
    if args.overwrite and (args.shard or args.merge):
        flag = "--shard" if args.shard else "--merge"
        raise UserError(
            f"--overwrite with {flag}: would remove what other shards did", "remove the old output by itself"
        )


def first_process() -> bool:
    """Whether this is the process that does what one does for all that torchrun started."""
    return int(os.environ.get("RANK", 0)) == 0


def usable_workers(requested: int) -> int:
    """The requested number of workers, cut to the processors that this process may use."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if requested > processors:
        print(f"--num-workers {requested}: this machine has {processors} processors, so {processors} are used")
    return min(requested, processors)


def check_same(ours: Mapping[str, Any], theirs: Mapping[str, Any], our_name: str, their_name: str, cure: str) -> None:
    """Raise UserError naming both where a setting that both sides know differs."""
    for key in (key for key in ours if key in theirs):  # in the order of ours, in which what matters most comes first
        if ours[key] != theirs[key]:
            raise UserError(f"{key} is {ours[key]} in {our_name} but {theirs[key]} in {their_name}", cure)


def check_reachable(download: Mapping[str, str], seconds: float = 5.0) -> None:
    """Raise UserError where a file (`url`, `what`, `cure`) can't be had, instead of after a minute of retries."""
    url = download["url"]
    problem: list[str] = ["no answer"]

    def ask() -> None:
        import urllib.error
        import urllib.request

        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds).close()
            problem.clear()
        except urllib.error.HTTPError as error:
            if error.code in (403, 405):  # there, but it doesn't answer HEAD
                problem.clear()
            else:
                problem[:] = [str(error)]
        except (OSError, ValueError) as error:
            problem[:] = [str(getattr(error, "reason", error))]

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if problem:
        raise UserError(
            f"{download['what']} can't be downloaded ({problem[0]}): get {url} on a machine with a network, "
            f"{download['cure']}"
        )
