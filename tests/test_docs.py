"""The pages in docs/: their commands parse and run, their messages are the code's, their links lead somewhere."""

import ast
import re
import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.test_chain import shell
from tests.test_readme import check_command, commands_in

PAGES = sorted((REPOSITORY / "docs").glob("*.md"))
OWN_DATA = "your-own-data.md"
SMALLER = {  # what makes the worked example quick: sizes only
    "demo.make_films": "--films 5 --scenes 4 --num-workers 0",
    "demo.make_teacher": "--stills 60 --held-out 20 --steps 2 --num-workers 0",
    "train.py": "--epochs 1 --num-workers 0",
    "TFAM.train_and_eval": "--set training.epochs=2 --num-workers 0",
    "evaluate.py": "--resamples 20",
}


def commands(page: str) -> list[str]:
    return commands_in((REPOSITORY / "docs" / page).read_text(encoding="utf-8"))


def messages() -> list[str]:
    """What troubleshooting.md quotes."""
    text = (REPOSITORY / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(r"^> (.+)$", text, flags=re.MULTILINE)


def said_by_the_code() -> set[str]:
    """Every text in the code, with … for what is filled in; spaces as in a line."""
    found = set()
    code = [path for folder in ("vimoclip", "TFAM") for path in (REPOSITORY / folder).rglob("*.py")]
    for path in [*code, *REPOSITORY.glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                found.add("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return {re.sub("…+", "…", " ".join(text.split())) for text in found}


SAID = said_by_the_code()


@pytest.mark.parametrize("message", messages())
def test_a_message_in_troubleshooting_is_one_that_the_code_prints(message: str) -> None:
    assert any(message in text for text in SAID), message


def test_there_are_messages_of_every_stage() -> None:
    assert len(messages()) > 25


@pytest.mark.parametrize("page", [page.name for page in PAGES if page.name != "performance.md"])  # sbatch, variables
def test_commands_of_a_page_parse(page: str) -> None:
    for command in commands(page):
        check_command(command)


@pytest.mark.parametrize("page", [*(f"docs/{page.name}" for page in PAGES), "README.md", "dataset/README.md"])
def test_links_lead_to_files_and_headings_that_are_there(page: str) -> None:
    place = REPOSITORY / page
    for target in re.findall(r"\]\(([^)\s]+)\)", place.read_text(encoding="utf-8")):
        if target.startswith(("http:", "https:")):
            continue
        path, _, heading = target.partition("#")
        there = (place.parent / path).resolve() if path else place
        assert there.exists(), f"{page}: {target}"
        if heading:
            assert heading in headings(there), f"{page}: {target}"


def headings(path: Path) -> set[str]:
    """The anchors that a forge gives a page's headings."""
    lines = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


def test_your_own_data_runs_as_it_is_written(tmp_path: Path) -> None:
    """Command by command in a clone, smaller; its last ones give a timeline and a zero-shot one."""
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("vimoclip", "TFAM", "demo"):
        shutil.copytree(REPOSITORY / name, clone / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    for script in REPOSITORY.glob("*.py"):
        shutil.copy(script, clone)
    ran = []
    for command in commands(OWN_DATA):
        smaller = next((more for what, more in SMALLER.items() if fnmatch(command, f"*{what}*")), "")
        done = shell(f"{command} {smaller}", clone)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        ran.append(command)
    assert len(ran) == 12
    for name in ("unseen.json", "unseen.csv", "unseen_windows.csv", "unseen.html", "unseen.boris.tsv"):
        assert (clone / "predictions" / name).exists(), name
        assert (clone / "predictions_by_words" / name).exists(), name
    assert (clone / "my_data" / "annotations" / "class_counts.html").exists()
    assert (clone / "checkpoints" / "TFAM" / "cross_attention" / "seed49" / "evaluation" / "report.html").exists()
