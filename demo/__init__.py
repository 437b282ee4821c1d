"""Demo of the whole pipeline on clips of drawn animals, with a small CLIP trained on stills of them. See demo.sh."""

import argparse
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from vimoclip import cli
from vimoclip.cli import progress


def add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --dataset-dir and --dataset-name with the demo's defaults."""
    cli.add_dataset_arguments(parser)
    parser.set_defaults(dataset_dir=Path("dataset/demo"), dataset_name="demo")


def map_in_parallel(function: Callable[[Any], Any], items: Collection[Any], workers: int, unit: str) -> Iterator[Any]:
    """Yield `function(item)` in order, with a progress bar; with 0 workers, compute in this process."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    if not workers:
        yield from progress(map(function, items), len(items), unit, "drawing")
        return
    # spawn, since the threads of OpenCV and PyTorch do not survive a fork
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        yield from progress(pool.map(function, items, chunksize=8), len(items), unit, "drawing")
