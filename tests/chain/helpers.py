"""Commands in a shell and in this process, CSV reading, and names of the fusion configs."""

import csv
import importlib
import os
import shlex
import subprocess
import sys
from pathlib import Path


def run_in_process(command: str) -> None:
    """Run `python SCRIPT ...` or `python -m MODULE ...` in this process, since importing torch takes seconds."""
    words = shlex.split(command)
    module, arguments = (words[2], words[3:]) if words[1] == "-m" else (Path(words[1]).stem, words[2:])
    result = importlib.import_module(module).main(arguments)
    assert not getattr(result, "failed", None), command


FUSIONS = "rgb motion concat_embedding concat_time cross_attention"
CONTROLS = " cross_attention_none cross_attention_shuffled"


def shell(command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command, with the Python that runs the tests as `python`, and without a GPU."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "CUDA_VISIBLE_DEVICES": ""} | environment
    return subprocess.run(command, shell=True, cwd=cwd, env=env, capture_output=True, text=True, timeout=900)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
