"""The design's rules on layout, as tests."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

SCRIPTS = ["extract_embeddings.py", "extract_flows.py", "train.py", "inference.py", "prepare_dataset.py"]
SCRIPTS += ["evaluate.py", "predict.py"]
DEMO = ["make_clips", "make_films", "make_teacher", "check_frames", "report", "strips"]
LEAVES = ["video", "store", "annotations", "clip", "flow", "losses", "metrics", "runs", "cli"]
LEAVES += ["boris", "files", "lock", "manifest", "strangers", "distributed", "estimate", "products", "pages"]
GROUND = {"files", "strangers"}  # what leaves may stand on: writing whole files, reading checkpoints
OWNERS = {"h5py": "store", "av": "video", "open_clip": "clip", "ptlflow": "flow", "cv2": "flow", "openpyxl": "prepare"}
OWNERS |= {"iterstrat": "prepare", "jinja2": "pages", "plotly": "report"}


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
    above = {Path(script).stem for script in SCRIPTS} | {"TFAM", "tests"}
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
    siblings = {path.stem for path in (REPOSITORY / "vimoclip").iterdir()} - {"__init__", "__pycache__"} - GROUND
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
    "command",
    [
        *SCRIPTS,
        "-m TFAM.train_and_eval",
        "-m TFAM.table",
        "-m TFAM.select_best",
        "-m TFAM.zero_shot",
        *(f"-m demo.{module}" for module in DEMO),
    ],
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
        "heavy = {'torch', 'av', 'h5py', 'cv2', 'open_clip', 'ptlflow', 'numpy', 'plotly', 'jinja2'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


# what runs code that a file holds, and the one place that may load such a file, checked by its SHA-256
UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "pandas"}
UNSAFE_CALLS = {"eval", "exec", "compile", "os.system", "torch.hub.load"}
UNSAFE_CALLS |= {"yaml.load", "yaml.full_load", "yaml.unsafe_load"}
UNSAFE_CALLS |= {
    "yaml.Loader",
    "yaml.FullLoader",
    "yaml.UnsafeLoader",
    "torch.hub.load",
    "torch.package.PackageImporter",
}
TORCHSCRIPT = "vimoclip/clip/pretrained.py"


def is_safe(call: ast.Call, where: str) -> bool:
    """Whether a call can't run code from a file."""
    name, given = ast.unparse(call.func), {k.arg: ast.unparse(k.value) for k in call.keywords}
    if name == "torch.load":
        return given.get("weights_only") == "True" and where == "vimoclip/io/checkpoint_loading.py"
    if name == "torch.jit.load":
        return where == TORCHSCRIPT
    return name not in UNSAFE_CALLS and given.get("allow_pickle", "False") == "False"


def test_no_code_runs_from_a_file() -> None:
    paths = [*sources("vimoclip", "TFAM", "demo"), *(REPOSITORY / script for script in SCRIPTS)]
    for path in paths:
        where = path.relative_to(REPOSITORY).as_posix()
        assert not {name.split(".")[0] for name in imports(path)} & UNSAFE_MODULES, path
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert [ast.unparse(call) for call in calls if not is_safe(call, where)] == [], path


@pytest.mark.parametrize(
    "call",
    [
        *("torch.load(path)", "torch.load(path, weights_only=False)", "torch.jit.load(path)", "yaml.load(text)"),
        *("np.load(path, allow_pickle=True)", "eval(text)", "yaml.UnsafeLoader(text)"),
    ],
)
def test_the_rule_against_code_sees_it(call: str) -> None:
    node = ast.parse(call, mode="eval").body
    assert isinstance(node, ast.Call)
    assert not is_safe(node, "vimoclip/io/checkpoint_loading.py")
