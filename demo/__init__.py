"""The demo: drawn animals, a small CLIP that knows them, what the chain makes of them. `bash demo.sh` runs it."""

import argparse
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from vimoclip import cli
from vimoclip.cli import progress


def add_dataset(parser: argparse.ArgumentParser) -> None:
    """The scripts' own flags, with the demo's folder and name as defaults."""
    cli.add_dataset(parser)
    parser.set_defaults(dataset_dir=Path("dataset/demo"), dataset_name="demo")


def spread(work: Callable[[Any], Any], items: Collection[Any], workers: int, unit: str) -> Iterator[Any]:
    """What `work` makes of each item, in their order, by so many processes; by this one for 0."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    if not workers:
        yield from progress(map(work, items), len(items), unit, "drawing")
        return
    # spawned, not forked: OpenCV's and PyTorch's threads don't survive a fork
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        yield from progress(pool.map(work, items, chunksize=8), len(items), unit, "drawing")
