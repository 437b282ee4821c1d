"""The rules of docs/architecture.md as tests: layers, owners of formats, package interfaces, words, safe loading."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

SCRIPTS = ["extract_embeddings.py", "extract_flows.py", "train.py", "inference.py", "prepare_dataset.py"]
SCRIPTS += ["evaluate.py", "predict.py", "agreement.py", "export_model.py"]
DEMO = ["make_clips", "make_encoder", "make_films", "make_teacher", "correct_predictions", "check_frames"]
DEMO += ["report", "strips"]
# a package imports only packages that stand before it
LAYERS = ["errors", "io", "cli", "runtime", "annotations", "video", "store", "model_folder", "clip", "flow", "metrics"]
LAYERS += ["boris", "timeline", "extraction", "training", "check", "moclip", "evaluation", "report", "ethogram"]
LAYERS += ["agreement", "prepare", "prediction"]
# third-party package -> the only module or package that may import it
OWNERS = {"h5py": "store", "av": "video", "open_clip": "clip", "ptlflow": "flow", "cv2": "flow"}
OWNERS |= {"safetensors": "model_folder"}
OWNERS |= {"openpyxl": "prepare/animal_kingdom", "iterstrat": "prepare/grouped_split", "jinja2": "io/html_page"}
OWNERS |= {"plotly": "report", "sklearn": "metrics", "threadpoolctl": "metrics", "scipy": "annotations/split_checks"}
PROBE_FIT = "TFAM/probe_fit"  # also imports scikit-learn, whose regression is the model there
EMPTY_INIT = ["io", "runtime", "extraction", "training"]  # imported by --help, which must not import torch
FORBIDDEN_WORDS = ["strangers?", "crew", "eyes", "anew", "afresh", "hears", "wary", "stead", "told"]
MAX_TEST_LINES = 600


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> frozenset[str]:
    """Every module that a file imports, anywhere in it; `from vimoclip import x` counts as vimoclip.x."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def imported_packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def sources(*places: str) -> list[Path]:
    return [path for place in places for path in sorted((REPOSITORY / place).rglob("*.py"))]


def package_of(path: Path) -> str:
    """The package of a file below vimoclip/, or the module's own name for a file directly in it."""
    return path.relative_to(REPOSITORY / "vimoclip").parts[0].removesuffix(".py")


PRODUCT = [*sources("vimoclip", "TFAM"), *(REPOSITORY / script for script in SCRIPTS)]
SCRIPT_MODULES = {Path(script).stem for script in SCRIPTS}


def test_only_the_right_parts_import_scripts_tfam_tests_and_the_demo() -> None:
    for path in sources("vimoclip"):
        assert not imported_packages(path) & (SCRIPT_MODULES | {"TFAM", "tests"}), path
    for path in PRODUCT:
        assert "demo" not in imported_packages(path), path
    for path in sources("demo"):
        assert not imported_packages(path) & (SCRIPT_MODULES | {"tests", "av", "h5py"}), path


def test_each_package_has_a_layer_and_imports_only_lower_ones() -> None:
    assert {package_of(path) for path in sources("vimoclip")} == {*LAYERS, "__init__"}
    for path in sources("vimoclip"):
        if path.parent != REPOSITORY / "vimoclip" or path.stem in LAYERS:
            lower = {*LAYERS[: LAYERS.index(package_of(path)) + 1], "__version__"}
            used = {name.split(".")[1] for name in imports(path) if name.startswith("vimoclip.")}
            assert not used - lower, path


@pytest.mark.parametrize("package", OWNERS)
def test_each_format_has_one_owner(package: str) -> None:
    users = {path.relative_to(REPOSITORY).as_posix() for path in PRODUCT if package in imported_packages(path)}
    owners = [f"vimoclip/{OWNERS[package]}", *([PROBE_FIT] if package in ("sklearn", "threadpoolctl") else [])]
    assert users, f"nothing imports {package}"
    for user in users:
        assert any(user == f"{owner}.py" or user.startswith(f"{owner}/") for owner in owners), user


def test_package_init_files_only_export() -> None:
    for path in sources("vimoclip", "TFAM"):
        if path.name != "__init__.py":
            continue
        statements = tree(path).body
        allowed = [ast.unparse(node).startswith(("from ", "import ", "__all__", "__version__")) for node in statements]
        docstrings = [isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in statements]
        assert all(a or d for a, d in zip(allowed, docstrings, strict=True)), path
        if path.parent.name in EMPTY_INIT:
            assert all(docstrings), path


def test_private_names_stay_in_their_module() -> None:
    for path in [*PRODUCT, *sources("demo", "benchmarks")]:
        for name in imports(path):
            own = name.split(".")[0] in ("vimoclip", "TFAM", "demo", "benchmarks")
            assert not (own and re.fullmatch(r"_[a-z]\w*", name.rpartition(".")[2])), f"{path}: {name}"


def test_forbidden_words_do_not_come_back() -> None:
    pattern = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(FORBIDDEN_WORDS)})(?![A-Za-z])", re.IGNORECASE)
    found = [
        f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()}"
        for path in [*PRODUCT, *sources("demo", "benchmarks", "tests")]
        if path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)


def test_class_names_are_unique() -> None:
    places: dict[str, list[str]] = {}
    for path in PRODUCT:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(path.relative_to(REPOSITORY).as_posix())
    assert not {name: where for name, where in places.items() if len(where) > 1}


def test_test_files_are_short() -> None:
    lengths = {path.relative_to(REPOSITORY): len(path.read_text().splitlines()) for path in sources("tests")}
    assert not {path: length for path, length in lengths.items() if length > MAX_TEST_LINES}


@pytest.mark.parametrize(
    "command",
    [
        *SCRIPTS,
        "-m TFAM.train_and_eval",
        "-m TFAM.table",
        "-m TFAM.select_best",
        "-m TFAM.zero_shot",
        "-m TFAM.probe",
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


# modules and calls that run code from a file; TORCHSCRIPT may load one whose SHA-256 is known
UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "pandas"}
UNSAFE_CALLS = {"eval", "exec", "compile", "os.system", "torch.hub.load"}
UNSAFE_CALLS |= {"yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.Loader", "yaml.FullLoader"}
UNSAFE_CALLS |= {"yaml.UnsafeLoader", "torch.package.PackageImporter"}
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
    for path in [*PRODUCT, *sources("demo")]:
        where = path.relative_to(REPOSITORY).as_posix()
        assert not imported_packages(path) & UNSAFE_MODULES, path
        calls = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
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


def test_the_layout_in_the_docs_lists_every_module() -> None:
    rows = re.findall(r"^\| `(\w+)`<br>[^|]*\| ([^|]*) \|$", (REPOSITORY / "docs/architecture.md").read_text(), re.M)
    documented = {(package, module) for package, cell in rows for module in re.findall(r"`(\w+)`(?=[:,])", cell)}
    modules = {(path.parent.name, path.stem) for path in sources("vimoclip", "TFAM") if path.stem != "__init__"}
    in_one_module = {("vimoclip", "errors"), ("vimoclip", "model_folder")}
    assert documented - {("errors", "UserError")} == modules - in_one_module


def test_trainings_of_tfam_start_without_other_packages() -> None:
    """A table has dozens of short runs, and these take seconds to import."""
    modules = "train_and_eval", "initial_weights", "trainer", "evaluation", "students"
    code = f"import sys; from TFAM import {', '.join(modules)}; print(*{{name.split('.')[0] for name in sys.modules}})"
    completed = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert not {"open_clip", "timm", "torchvision", "sklearn", "ptlflow"} & set(completed.stdout.split())
