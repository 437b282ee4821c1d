"""Names of the fusion configs, CSV reading, and commands in a shell, for the tests of the whole chain."""

import csv
import os
import subprocess
import sys
from pathlib import Path

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
