"""Commands in shells and in this process, copies of the repository, and what a page's commands are."""

import csv
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests import preloaded
from tests.conftest import REPOSITORY, modification_times


def run_in_process(command: str) -> None:
    """Run `python SCRIPT ...` or `python -m MODULE ...` in this process, since importing torch takes seconds."""
    words = shlex.split(command)
    module, arguments = (words[2], words[3:]) if words[1] == "-m" else (Path(words[1]).stem, words[2:])
    result = importlib.import_module(module).main(arguments)
    assert not getattr(result, "failed", None), command


def shell(command: str, cwd: Path = REPOSITORY, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in bash without a GPU. `python`, also that of the active environment, is a preloaded one."""
    env = os.environ | {
        "PATH": f"{preloaded.executable().parent}:{os.environ['PATH']}",
        "VIRTUAL_ENV": sys.prefix,
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",  # threads are slower for so little work
    }
    return subprocess.run(
        ["bash", "-c", command], cwd=cwd, env=env | environment, capture_output=True, text=True, timeout=900
    )


def copy_repository(root: Path) -> Path:
    """Copy the scripts and packages of the repository, with their compiled files."""
    root.mkdir()
    for name in ("vimoclip", "TFAM", "demo"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("results"))
    for path in [*REPOSITORY.glob("*.py"), *REPOSITORY.glob("*.sh"), *REPOSITORY.glob("requirements*.txt")]:
        shutil.copy(path, root)
    return root


def result_times(root: Path) -> Mapping[str, int]:
    """Return the modification times of files that take time to create."""
    suffixes, names = {".mp4", ".h5", ".pth", ".safetensors"}, {"predictions.csv", "metrics.csv", "metrics.json"}
    return {
        name: time
        for name, time in modification_times(root).items()
        if Path(name).suffix in suffixes
        or (Path(name).name in names and not name.startswith("TFAM/results") and "/evaluation/" not in name)
    }


def commands_in(text: str, inline: bool = False) -> list[str]:
    """Return the commands of a page's bash blocks; with `inline`, also those quoted in its text."""
    found = re.findall(r"```bash\n(.*?)```|`((?:python|bash) [^`]+)`", text, flags=re.DOTALL)
    lines = [line for block, quoted in found for line in (block.splitlines() if block else [quoted] if inline else [])]
    return [line.split("  #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
