"""Starting: `--help` of every script, beside Python alone."""

import subprocess
import sys
from collections.abc import Callable

from benchmarks.harness import Row, in_turn, row
from benchmarks.inputs import Inputs

SCRIPTS = ("prepare_dataset.py", "extract_embeddings.py", "extract_flows.py", "train.py", "inference.py")
MODULES = ("TFAM.train_and_eval", "TFAM.table", "benchmarks")
COMMANDS = {name: [name] for name in SCRIPTS} | {f"-m {name}": ["-m", name] for name in MODULES}


def run(inputs: Inputs, rounds: int) -> list[Row]:
    """Called in the repository's root, as the scripts are."""
    work = {"python": timed(["-c", "pass"])} | {name: timed([*call, "--help"]) for name, call in COMMANDS.items()}
    rates = in_turn(work, rounds)
    return [
        row(
            "start", f"{name} --help", "start", {"ours": rates[name]},
            bound=sorted(rates["python"])[len(rates["python"]) // 2], bound_name="python -c pass",
            goal="under 0.5 s", note=f"{1 / sorted(rates[name])[len(rates[name]) // 2]:.2f} s",
        )
        for name in COMMANDS
    ]  # fmt: skip


def timed(arguments: list[str]) -> Callable[[], float]:
    def start() -> float:
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        return 1

    return start
