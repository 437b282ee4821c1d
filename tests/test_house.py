"""The design's rules on layout, as tests."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

SCRIPTS = ["extract_embeddings.py", "extract_flows.py", "train.py", "inference.py", "prepare_dataset.py"]
DEMO = ["make_clips", "make_teacher", "check_frames", "report", "strips"]
LEAVES = ["video", "store", "annotations", "clip", "flow", "losses", "metrics", "runs", "cli"]
OWNERS = {"h5py": "store", "av": "video", "open_clip": "clip", "ptlflow": "flow", "cv2": "flow"}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it; `from vimoclip import x` counts as vimoclip.x."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def sources(*places: str) -> list[Path]:
    return [path for place in places for path in sorted((REPOSITORY / place).rglob("*.py"))]


def test_vimoclip_imports_neither_scripts_nor_tfam() -> None:
    above = {Path(script).stem for script in SCRIPTS} | {"TFAM", "tests", "predict", "evaluate"}
    for path in sources("vimoclip"):
        assert not {name.split(".")[0] for name in imports(path)} & above, path


def test_nothing_imports_the_demo_and_the_demo_imports_no_script() -> None:
    scripts = {Path(script).stem for script in SCRIPTS}
    for path in [*sources("vimoclip", "TFAM"), *(REPOSITORY / script for script in SCRIPTS)]:
        assert "demo" not in {name.split(".")[0] for name in imports(path)}, path
    assert len(sources("demo")) > len(DEMO)
    for path in sources("demo"):
        assert not {name.split(".")[0] for name in imports(path)} & (scripts | {"tests"}), path


@pytest.mark.parametrize("leaf", LEAVES)
def test_leaves_import_no_sibling(leaf: str) -> None:
    siblings = {path.stem for path in (REPOSITORY / "vimoclip").iterdir()} - {"__init__", "__pycache__"}
    places = [REPOSITORY / "vimoclip" / f"{leaf}.py", *sources(f"vimoclip/{leaf}")]
    for path in filter(Path.exists, places):
        own = {f"vimoclip.{leaf}"}
        wrong = {name for name in imports(path) for s in siblings if name.startswith(f"vimoclip.{s}")}
        assert not {name for name in wrong if not any(name.startswith(o) for o in own)}, path


@pytest.mark.parametrize("package", OWNERS)
def test_each_format_has_one_owner(package: str) -> None:
    users = {
        path.relative_to(REPOSITORY).as_posix()
        for path in [*sources("vimoclip", "TFAM"), *(REPOSITORY / script for script in SCRIPTS)]
        if package in {name.split(".")[0] for name in imports(path)}
    }
    owner = f"vimoclip/{OWNERS[package]}"
    assert users, f"nobody uses {package}"
    assert all(user == f"{owner}.py" or user.startswith(f"{owner}/") for user in users)


@pytest.mark.parametrize("package", ["av", "h5py"])
def test_the_demo_leaves_files_to_their_owners(package: str) -> None:
    for path in sources("demo"):
        assert package not in {name.split(".")[0] for name in imports(path)}, path


@pytest.mark.parametrize(
    "command", [*SCRIPTS, "-m TFAM.train_and_eval", "-m TFAM.table", *(f"-m demo.{module}" for module in DEMO)]
)
def test_help_answers_without_heavy_imports(command: str) -> None:
    code = (
        "import runpy, sys\n"
        f"target = {command!r}\n"
        "sys.argv = [target.split()[-1], '--help']\n"
        "try:\n"
        "    runpy.run_module(target[3:], run_name='__main__') if target.startswith('-m') else "
        "runpy.run_path(target, run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    assert not stop.code, stop.code\n"
        "heavy = {'torch', 'av', 'h5py', 'cv2', 'open_clip', 'ptlflow', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


def test_torch_load_is_always_safe() -> None:
    for path in sources("vimoclip", "TFAM"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords), path
