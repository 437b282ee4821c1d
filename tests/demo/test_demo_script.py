"""demo.sh from an empty checkout to the table."""

import importlib
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import report
from demo.scenes import ActionCue
from tests.chain.helpers import copy_repository, result_times, shell
from tests.conftest import REPOSITORY, moving_frames, write_video
from vimoclip import annotations
from vimoclip.cli import RunReport


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_the_usage_and_exit_code_0(flag: str) -> None:
    completed = shell(f"bash demo.sh {flag}")
    assert (completed.returncode, completed.stderr) == (0, "")
    for usage in ("--real", "--clips DIR", "--kabr", "--tiny"):
        assert f"bash demo.sh {usage}" in completed.stdout
    assert "set -euo" not in completed.stdout


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ("--huge", "--huge"),
        ("--tiny extra", "extra"),
        ("--clips nowhere", "--clips"),
        ("--clips", "--clips"),
        ("--kabr --real", "--kabr"),
    ],
)
def test_invalid_arguments_are_a_one_line_error_before_installing(flags: str, names: str, tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "demo", tmp_path / "demo", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "demo.sh", tmp_path)
    completed = shell(f"bash demo.sh {flags}", tmp_path, PATH="/usr/bin:/bin", VIRTUAL_ENV="")
    assert (completed.returncode, completed.stdout) == (2, "")
    (line,) = completed.stderr.splitlines()
    assert line.startswith("demo.sh: error: ")
    assert names in line
    assert {path.name for path in tmp_path.iterdir()} == {"demo", "demo.sh"}


@pytest.mark.parametrize(
    ("text", "is_satisfied"),
    [
        ("numpy>=1.20  # arrays\n\n# nothing else\nPyYAML\n", True),
        ("numpy>=99\n", False),
        ("numpy>=1.20,<99\n", True),
        ("numpy>=1.20,<1.21\n", False),
        ("numpy>=1.20\nno-such-package-here\n", False),
        ("opencv-python>=4\n", True),  # also if installed as opencv-python-headless
        ("-r other.txt\nnumpy\n", False),
        ("-r fine.txt\nnumpy\n", True),
        ("", True),
    ],
)
def test_an_environment_satisfies_requirements_if_every_bound_is_met(
    text: str, is_satisfied: bool, tmp_path: Path
) -> None:
    (tmp_path / "requirements.txt").write_text(text)
    (tmp_path / "other.txt").write_text("numpy>=99\n")
    (tmp_path / "fine.txt").write_text("pytest>=8\n")
    completed = shell(f"source demo/environment.sh && satisfies '{sys.executable}' '{tmp_path / 'requirements.txt'}'")
    assert (completed.returncode, completed.stdout, completed.stderr) == (0 if is_satisfied else 1, "", "")


def test_a_missing_python_does_not_satisfy(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("")
    assert (
        shell(f"source demo/environment.sh && satisfies nowhere/python '{tmp_path / 'requirements.txt'}'").returncode
        != 0
    )


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ([RunReport(failed={"a b.mp4": "is empty"})], True),
        ([RunReport(done=3, skipped={"a.mp4": "one frame"})], False),
        ([RunReport(failed={"a.mp4": "is empty"}), RunReport()], False),
        ([None], False),
        ([RunReport(failed={"a.mp4": "is empty"}), None], False),
    ],
)
def test_reports_of_runs_are_read_by_the_scripts(
    reports: list[RunReport | None], expected: bool, tmp_path: Path
) -> None:
    paths = [tmp_path / f"report {i}.json" for i in range(len(reports))]
    for path, run_report in zip(paths, reports, strict=True):
        if run_report:
            run_report.write(path)
    arguments = shlex.join(['report["failed"]', *map(str, paths)])
    completed = shell(f"source demo/environment.sh; python='{sys.executable}'; all_reports {arguments}")
    assert (completed.returncode == 0, completed.stdout, completed.stderr) == (expected, "", "")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = copy_repository(tmp_path_factory.mktemp("clone") / "ViMoCLIP")
    yield root
    shutil.rmtree(root, ignore_errors=True)


def parse_table(text: str) -> list[list[str]]:
    """Return the cells of the table in the output, the header first."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("| --")]


def parse_commands(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.startswith("   python ")]


FUSIONS = ["concat_time", "cross_attention", "cross_attention_shuffled", "rgb", "motion"]
PROBES = ["probe_attentive", "probe_both", "probe_motion", "probe_rgb"]
TITLES = [title for config, title in report.CONFIG_TITLES.items() if config in FUSIONS + PROBES]


def test_the_demo_runs_from_an_empty_checkout_to_a_table(clone: Path) -> None:
    completed = shell("bash demo.sh --tiny", clone)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    header, *rows = parse_table(completed.stdout)
    assert [row[0] for row in rows] == [*TITLES, "chance (200 permutations)"]
    assert header[2:] == [f"{mean} {name}" for mean in ("macro", "micro") for name in ("all", *ActionCue)]
    assert all(re.fullmatch(r"[01]\.\d\d", cell) for row in rows for cell in row[2:])
    commands = parse_commands(completed.stdout)
    assert len(commands) == sum(line.startswith("== ") for line in completed.stdout.splitlines()) == 18
    for _, *words in commands:
        script = words[1].replace(".", "/") + ".py" if words[0] == "-m" else words[0]
        assert (REPOSITORY / script).is_file(), words
    assert [word for words in commands for word in words if word.startswith("TFAM/configs/")] == [
        f"TFAM/configs/{config}.yaml" for config in FUSIONS + PROBES
    ]
    # the last epoch of both, so that nothing is selected on the evaluation clips
    students = [w for c in commands for w in c if "student_epoch" in w]
    assert students == ["checkpoints/demo-tiny/student_seed49/student_epoch_1.pth"]
    runs = sorted((clone / "checkpoints" / "demo-tiny" / "TFAM").glob("*/seed*/metrics.json"))
    runs_metrics = [json.loads(path.read_text()) for path in runs]
    assert {run["protocol"] for run in runs_metrics} == {"held_out"} and len(runs) == len(FUSIONS + PROBES)
    epochs = {run["config"]: run["epoch_chosen_by"] for run in runs_metrics}
    assert {epochs[config] for config in [*FUSIONS, "probe_attentive"]} == {"being the last"}
    assert {run["student_seed"] for run in runs_metrics if run["config"] not in ("rgb", "probe_rgb")} == {49}
    (report_path,) = (
        path.parent / "evaluation" / "report.html" for path in runs if (path.parent / "evaluation").exists()
    )
    assert report_path.is_file()
    assert (
        completed.stdout.count(str(report_path.relative_to(clone))) >= 2
    )  # printed by evaluate.py and at the end of the demo
    results = clone / "TFAM" / "results" / "demo-tiny"
    assert (results / "table.md").read_text() in completed.stdout
    check = (
        "demo.check_frames --clip-model-name local-dir:checkpoints/demo-tiny/teacher --dataset-dir dataset/demo-tiny"
    )
    checked = shell(f"python -m {check} --epochs 1 --frames 1 --output-dir '{results}'", clone)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert json.loads((results / "frames.json").read_text())["macro_ap"].keys() == {"all", *ActionCue}
    (results / "frames.json").unlink()
    data = annotations.load(clone / "dataset" / "demo-tiny" / "annotations", "demo", ["train", "val"])
    assert [len(videos) for videos in data.splits.values()] == [16, 8]
    assert len(data.selection) == 2
    pictures = [annotations.stem(name) for name in list(data.splits["val"])[:4]]
    assert sorted(path.stem for path in results.glob("*.png")) == pictures
    for config in FUSIONS + PROBES:
        assert (clone / "checkpoints" / "demo-tiny" / "TFAM" / config / "seed49" / "predictions.csv").is_file()

    first_times, first_output = result_times(clone), completed.stdout
    assert sum(name.startswith("dataset/") and name.endswith(".mp4") for name in first_times) == 24 * 2
    assert sum(name.endswith(".h5") for name in first_times) == 3
    repeated = shell("bash demo.sh --tiny", clone)
    assert repeated.returncode == 0, repeated.stdout + repeated.stderr
    assert result_times(clone) == first_times
    assert parse_table(repeated.stdout) == parse_table(first_output)
    assert parse_commands(repeated.stdout) == commands


def test_the_demo_runs_on_a_folder_of_clips(clone: Path, tmp_path: Path) -> None:
    for action, velocity, count in (("moving left", (-2, 0), 4), ("moving up", (0, -2), 3)):
        for i in range(count):
            frames = moving_frames(12 + i, velocity, seed=i)
            write_video(tmp_path / "my clips" / action / f"c{i}.mp4", frames, lossless=False)
    (tmp_path / "my clips" / "moving left" / "broken.mp4").write_text("not a video")
    completed = shell(f"cd '{tmp_path}' && bash '{clone}/demo.sh' --clips 'my clips' --tiny", clone)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    folder = clone / "dataset" / "clips-my clips-tiny" / "annotations"
    data = annotations.load(folder, "demo", ["train", "val"])
    assert data.classes == ("moving left", "moving up")
    assert [len(videos) for videos in data.splits.values()] == [5, 3]
    assert completed.stdout.count("moving left__broken.mp4: ") >= 2  # embeddings and flow
    header, *rows = parse_table(completed.stdout)
    assert header[2:] == ["macro all", "micro all"]
    assert [row[0] for row in rows] == [*TITLES, "chance (200 permutations)"]
    pictures = {path.stem for path in (clone / "TFAM" / "results" / "clips-my clips-tiny").glob("*.png")}
    assert pictures == {annotations.stem(name) for name in data.splits["val"]} - {"moving left__broken"}

    first, *others = (folder / "val_multi.txt").read_text().splitlines()
    (folder / "val_multi.txt").write_text("\n".join(others) + "\n")
    (folder / "train_multi.txt").write_text((folder / "train_multi.txt").read_text() + first + "\n")
    repeated = shell(f"bash demo.sh --clips '{tmp_path / 'my clips'}' --tiny", clone)
    assert repeated.returncode == 2
    assert "checkpoints/clips-my clips-tiny" in repeated.stderr


FAKE_PYTHON = """#!/bin/sh
# replaces Python, whose commands would download weights: only the printed commands are tested
[ "$1" = - ] && exit 0
[ "$1" = -c ] && echo 2 && exit 0
for name in demo-real clips-mine-real; do mkdir -p "dataset/$name/annotations"; : >"dataset/$name/annotations/x"; done
"""


@pytest.mark.parametrize("flags", ["--real", "--real --clips mine"])
def test_the_commands_of_the_demo_with_real_weights_parse(flags: str, clone: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(FAKE_PYTHON)
    (tmp_path / "bin" / "python").chmod(0o755)
    (clone / "mine").mkdir(exist_ok=True)
    completed = shell(f"bash demo.sh {flags}", clone, PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert completed.returncode == 0, completed.stdout + completed.stderr
    commands = parse_commands(completed.stdout)
    for _, *words in commands:
        module, arguments = (words[1], words[2:]) if words[0] == "-m" else (Path(words[0]).stem, words[1:])
        parsed = importlib.import_module(module).build_parser()
        parsed.parse_args(arguments)
    output = completed.stdout
    assert "--clip-model-name ViT-B/32 --clip-pretrained openai" in output and "--model raft" in output
    assert ("--resize squash" in output, "demo.make_clips" in output) == (
        (True, True) if flags == "--real" else (False, False)
    )
    assert "demo.make_teacher" not in output


FAILING_PYTHON = """#!/bin/sh
# replaces Python; the job runs until it is stopped, or fails, while a step beside it fails or works
case "$*" in
    "- "*) exit 0 ;;
    "-c "*) echo 2 ;;
    *demo.make_teacher*) echo $$ >job.pid; echo started; [ -z "$JOB_CODE" ] || exit "$JOB_CODE"; exec sleep 60 ;;
    *demo.make_clips*) mkdir -p dataset/demo/annotations; : >dataset/demo/annotations/x; sleep 1; exit "$STEP_CODE" ;;
esac
"""


@pytest.mark.parametrize(("step_code", "job_code"), [(2, None), (0, 3)])
def test_a_failure_ends_the_demo_and_its_jobs(step_code: int, job_code: int | None, tmp_path: Path) -> None:
    """A step fails while a job runs beside it, or a job fails beside steps that work."""
    shutil.copytree(REPOSITORY / "demo", tmp_path / "demo", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "demo.sh", tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(FAILING_PYTHON)
    (tmp_path / "bin" / "python").chmod(0o755)
    codes = {"STEP_CODE": str(step_code), "JOB_CODE": "" if job_code is None else str(job_code)}
    completed = shell("bash demo.sh", tmp_path, PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}", **codes)
    assert completed.returncode == (step_code or job_code)
    assert ("logs/demo/teacher.txt" in completed.stderr) == (job_code is not None)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "job.pid").read_text()), 0)
