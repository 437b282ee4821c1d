"""Run one chain of small commands with two checkouts and compare all that they write.

    python -m tests.golden OLD_CHECKOUT NEW_CHECKOUT [--keep DIR] [--only NAME ...]

Exit code 0 if the outputs are equal, 1 if they differ, 2 for a wrong call. Both sides use this Python and the same
inputs, and run at the same time with one thread each. Files and exit codes are compared, but not what is printed;
`IGNORED` in compare.py lists what else is not compared, and why."""

import argparse
import fnmatch
import os
import shlex
import shutil
import string
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from subprocess import TimeoutExpired
from typing import NamedTuple

from tests import preloaded
from tests.golden.compare import compare_folders

SIDES = ("old", "new")
TIMEOUT = 240  # seconds for one step
NOT_COPIED = (".*", "*.egg-info", "tests", "docs", "benchmarks")  # at the top of a checkout
OWN_DATA = ("dataset", "checkpoints", "logs", "predictions", "my_*", "animal_kingdom")  # the same, a user's own files
Outcome = tuple[int | None, bool, float]  # exit code, None if killed; whether stderr has text; seconds


class Step(NamedTuple):
    """One entry of steps.toml."""

    name: str
    command: str
    shell: bool = False
    needs: tuple[str, ...] = ()
    code: int = 0
    stdout: str = ""


def main() -> int:
    """Run both sides, print a line for each step and each difference, and return the exit code."""
    args = build_parser().parse_args()
    steps = select(read_steps(), args.only)
    work = Path(args.keep or tempfile.mkdtemp(prefix="golden-")).resolve()
    try:
        prepare_environment(work)
        prepare_folders(work, [args.old_checkout.resolve(), args.new_checkout.resolve()])
        outcomes = run_sides(work, steps)
        lines = compare_outcomes(steps, outcomes)
        lines += compare_folders(work / "old", work / "new", source_files(work))
    finally:
        if not args.keep:
            shutil.rmtree(work, ignore_errors=True)
    print("\n".join(lines) if lines else f"equal: {len(steps)} steps", flush=True)
    if lines:
        print(f"{len(lines)} differences; --keep DIR keeps the outputs and what was printed", flush=True)
    return 1 if lines else 0


def build_parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m tests.golden", description=__doc__, formatter_class=raw)
    parser.add_argument("old_checkout", type=_checkout)
    parser.add_argument("new_checkout", type=_checkout)
    parser.add_argument("--keep", metavar="DIR", type=Path, help="work here and keep all files; the folder is emptied")
    parser.add_argument("--only", metavar="NAME", nargs="+", default=["*"], help="steps, or patterns like 'embed*'")
    return parser


def _checkout(text: str) -> Path:
    path = Path(text)
    if not (path / "extract_embeddings.py").is_file():
        raise argparse.ArgumentTypeError(f"{text} holds no extract_embeddings.py")
    return path


# --- steps


def read_steps() -> list[Step]:
    """Return the steps of steps.toml, with its variables filled in."""
    content = tomllib.loads(Path(__file__).with_name("steps.toml").read_text())
    variables = content["variables"]

    def filled(text: str) -> str:
        return string.Template(text.strip()).safe_substitute(variables)

    steps = []
    for name, entry in content["steps"].items():
        command = filled(entry.get("shell") or entry["command"])
        needs = tuple(entry.get("needs", "").split())
        steps.append(Step(name, command, "shell" in entry, needs, entry.get("code", 0), entry.get("stdout", "")))
    wrong = [Step(f"wrong-{i:02d}", filled(text), code=2) for i, text in enumerate(content["wrong"]["commands"])]
    return steps + wrong


def select(steps: Sequence[Step], patterns: Sequence[str]) -> list[Step]:
    """Return the named steps and those that they need, in order. Exits with code 2 for an unknown name."""
    by_name = {step.name: step for step in steps}
    wanted: set[str] = set()
    todo = [name for pattern in patterns for name in _matching(by_name, pattern)]
    while todo:
        name = todo.pop()
        if name not in wanted:
            wanted.add(name)
            todo += by_name[name].needs
    return [step for step in steps if step.name in wanted]


def _matching(names: dict[str, Step], pattern: str) -> list[str]:
    found = fnmatch.filter(names, pattern)
    if not found:
        build_parser().error(f"--only {pattern}: there is no such step; the steps are {', '.join(names)}")
    return found


# --- the two work folders


def prepare_environment(work: Path) -> None:
    """Set what both sides share: one thread, no GPU, no network, empty caches, and a Python that starts quickly."""
    os.environ.pop("PYTHONPATH", None)
    os.environ.update(
        {
            "OMP_NUM_THREADS": "1",
            "PYTHONHASHSEED": "0",
            "CUDA_VISIBLE_DEVICES": "",
            "https_proxy": "http://127.0.0.1:9",
            "HF_HOME": str(work / "caches"),
            "TORCH_HOME": str(work / "caches"),
            "TQDM_DISABLE": "1",
            "VIRTUAL_ENV": sys.prefix,
        }
    )
    os.environ["PATH"] = f"{preloaded.executable().parent}{os.pathsep}{os.environ.get('PATH', '')}"


def prepare_folders(work: Path, checkouts: Sequence[Path]) -> None:
    """Write the inputs once, and copy a checkout and the inputs to each of work/old and work/new."""
    for name in (*SIDES, "inputs", "printed", "caches"):
        shutil.rmtree(work / name, ignore_errors=True)
    started = time.monotonic()
    code = "import sys, pathlib; from tests.golden import inputs; inputs.write_inputs(pathlib.Path(sys.argv[1]))"
    subprocess.run(["python", "-c", code, str(work / "inputs")], cwd=preloaded.REPOSITORY, check=True)
    (work / "printed").mkdir()
    for side, checkout in zip(SIDES, checkouts, strict=True):
        shutil.copytree(checkout, work / side, symlinks=True, ignore=_not_copied(checkout))
        shutil.copytree(work / "inputs", work / side, dirs_exist_ok=True)
        (work / side / "out").mkdir()
    print(f"inputs: {time.monotonic() - started:.0f} s", flush=True)
    (work / "sources").write_text("\n".join(_sources(work)))


def _not_copied(checkout: Path) -> Callable[[str, list[str]], set[str]]:
    """Return the function that shutil.copytree asks which names of a folder it leaves out."""
    patterns = {checkout: (*NOT_COPIED, *OWN_DATA), checkout / "TFAM": ("results",)}

    def ignore(folder: str, names: list[str]) -> set[str]:
        wanted = ("__pycache__", *patterns.get(Path(folder), ()))
        return {name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in wanted)}

    return ignore


def _sources(work: Path) -> set[str]:
    """Return the names of the copied files of both checkouts, less the inputs."""
    folders = [work / side for side in SIDES]
    names = {path.relative_to(folder).as_posix() for folder in folders for path in folder.rglob("*") if path.is_file()}
    return names - {path.relative_to(work / "inputs").as_posix() for path in (work / "inputs").rglob("*")}


def source_files(work: Path) -> frozenset[str]:
    """Return the names that `prepare_folders` noted: no outputs."""
    return frozenset((work / "sources").read_text().splitlines())


# --- running


def run_sides(work: Path, steps: Sequence[Step]) -> dict[str, dict[str, Outcome]]:
    """Run all steps of both sides at once; return side -> step -> outcome."""
    outcomes: dict[str, dict[str, Outcome]] = {side: {} for side in SIDES}

    def run_side(side: str) -> None:
        for step in steps:
            outcomes[side][step.name] = run_step(step, work / side, work / "printed" / f"{step.name}.{side}")
            if all(step.name in found for found in outcomes.values()):
                codes = " ".join("{} ({:.1f} s)".format(*outcomes[of][step.name][::2]) for of in SIDES)
                print(f"[{len(outcomes[side])}/{len(steps)}] {step.name}: {codes}", flush=True)

    with ThreadPoolExecutor(len(SIDES)) as pool:
        list(pool.map(run_side, SIDES))
    return outcomes


def run_step(step: Step, root: Path, printed: Path) -> Outcome:
    """Run one step in the folder of its side; what it prints goes to <printed>.out and <printed>.err."""
    words = ["bash", "-c", step.command] if step.shell else ["python", *shlex.split(step.command)]
    started = time.monotonic()
    code: int | None = None
    with open(f"{printed}.out", "wb") as out, open(f"{printed}.err", "wb") as err, suppress(TimeoutExpired):
        code = subprocess.run(
            words, cwd=root, timeout=TIMEOUT, stdin=subprocess.DEVNULL, stdout=out, stderr=err
        ).returncode
    if step.stdout:
        shutil.copy(f"{printed}.out", root / step.stdout)
    return code, os.stat(f"{printed}.err").st_size > 0, time.monotonic() - started


# --- comparing


def compare_outcomes(steps: Sequence[Step], outcomes: dict[str, dict[str, Outcome]]) -> list[str]:
    """Return one line for each step whose exit codes differ from each other or from the one expected."""
    lines = []
    for step in steps:
        old, new = (outcomes[side][step.name] for side in SIDES)
        if old[0] != new[0]:
            lines.append(f"{step.name}: exit code {old[0]}, now {new[0]}: {step.command}")
        elif old[0] != step.code:
            lines.append(f"{step.name}: exit code {old[0]} on both sides, {step.code} expected: {step.command}")
        elif step.code == 2 and not (old[1] and new[1]):
            lines.append(f"{step.name}: exit code 2 without a message on stderr: {step.command}")
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
