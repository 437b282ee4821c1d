"""What the scripts' command lines share: groups of flags, one-line errors, exit codes, progress.

Light on purpose: nothing here imports torch, so that `--help` answers at once."""

from vimoclip.cli.ending import Report, Terminated, begun_afresh, go_on_with, run, same_command
from vimoclip.cli.flags import (
    Parser,
    add_clip,
    add_compute,
    add_dataset,
    add_embedding,
    add_outcomes,
    add_run_control,
    add_sampling,
    add_saving,
    add_sharing,
    count,
    non_negative_float,
    none_or,
    positive_float,
    positive_int,
    seed,
)
from vimoclip.cli.needs import (
    check_reachable,
    check_same,
    check_sharing,
    first_process,
    need_file,
    need_folder,
    need_place,
    usable_workers,
)
from vimoclip.cli.progress import Meter, progress

__all__ = [
    "Meter",
    "Parser",
    "Report",
    "Terminated",
    "add_clip",
    "add_compute",
    "add_dataset",
    "add_embedding",
    "add_outcomes",
    "add_run_control",
    "add_sampling",
    "add_saving",
    "add_sharing",
    "begun_afresh",
    "check_reachable",
    "check_same",
    "check_sharing",
    "count",
    "first_process",
    "go_on_with",
    "need_file",
    "need_folder",
    "need_place",
    "non_negative_float",
    "none_or",
    "positive_float",
    "positive_int",
    "progress",
    "run",
    "same_command",
    "seed",
    "usable_workers",
]
