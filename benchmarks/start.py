"""Start-up: `--help` of every script, against Python alone."""

import subprocess
import sys
from collections.abc import Callable
from statistics import median

from benchmarks.harness import BenchmarkRow, make_row, measure_rates
from benchmarks.inputs import BenchmarkInputs

SCRIPTS = ("prepare_dataset.py", "extract_embeddings.py", "extract_flows.py", "train.py", "inference.py")
MODULES = ("TFAM.train_and_eval", "TFAM.table", "benchmarks")
COMMANDS = {name: [name] for name in SCRIPTS} | {f"-m {name}": ["-m", name] for name in MODULES}


def run(inputs: BenchmarkInputs, rounds: int) -> list[BenchmarkRow]:
    """Measure every command. The working directory must be the root of the repository."""
    work = {"python": start_work(["-c", "pass"])} | {
        name: start_work([*command, "--help"]) for name, command in COMMANDS.items()
    }
    rates = measure_rates(work, rounds)
    return [
        make_row(
            "start", f"{name} --help", "start", {"ours": rates[name]},
            bound=median(rates["python"]), bound_name="python -c pass",
            goal="under 0.5 s", note=f"{1 / median(rates[name]):.2f} s",
        )
        for name in COMMANDS
    ]  # fmt: skip


def start_work(arguments: list[str]) -> Callable[[], float]:
    """Return a callable for `measure_rates` that runs Python once with the arguments."""

    def start() -> float:
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        return 1

    return start
