"""Each command in the READMEs parses as it stands."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", (REPOSITORY / "README.md").read_text(), flags=re.DOTALL)
    inline = re.findall(r"`((?:python|bash) [^`]+)`", (REPOSITORY / "README.md").read_text())
    return [line for block in blocks for line in block.splitlines()] + inline


@pytest.mark.parametrize("command", commands())
def test_a_command_in_the_readme_parses(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "python":
        module, arguments = (words[2], words[3:]) if words[1] == "-m" else (Path(words[1]).stem, words[2:])
        importlib.import_module(module).build_parser().parse_args(arguments)
    elif words[0] == "bash":
        assert (REPOSITORY / words[1]).exists() or (REPOSITORY / "TFAM" / words[1]).exists()
    elif words[0] == "cd":
        assert (REPOSITORY / words[1]).is_dir()
    else:
        assert words[0] in ("pip", "tensorboard")


def test_the_readme_has_commands_of_every_stage() -> None:
    text = "\n".join(commands())
    for stage in (
        "extract_embeddings.py",
        "extract_flows.py",
        "train.py",
        "inference.py",
        "run_experiments.sh",
        "test.sh",
    ):
        assert stage in text
