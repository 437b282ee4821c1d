"""The commands of README.md and docs/: all parse as they stand, and those that need no download run in their order."""

import importlib
import json
import shlex
import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.chain.helpers import commands_in, copy_repository, read_csv, run_in_process, shell
from tests.conftest import REPOSITORY, make_tiny_clip, moving_frames, write_video
from vimoclip import annotations, boris

PAGES = sorted((REPOSITORY / "docs").glob("*.md"), key=lambda page: (page.name != "stages.md", page.name))
OWN_DATA, LOOP = (REPOSITORY / "docs" / name for name in ("your-own-data.md", "correction-loop.md"))
# those two start from nothing, each in a separate folder
CHAIN = [REPOSITORY / "README.md", *(page for page in PAGES if page not in (OWN_DATA, LOOP))]
NOT_RUN = {  # pattern of a command -> why it isn't run here
    "bash demo.sh*": "demo/test_demo_script.py runs it",
    "bash test.sh*": "runs this",
    "*bash reproduce_animal_kingdom.sh*": "chain/test_reproduce.py runs it",
    "python -m demo.strips*": "demo/test_demo_script.py runs it",
    "python -m demo.check_frames*": "the same",
    "python -m benchmarks*": "takes an hour; benchmarks/test_benchmarks.py runs it in small",
    "python extract_flows.py": "chain/test_commands.py runs it, with random weights",
    "python train.py --train-hdf5-path *": "chain/test_commands.py runs it, with 140 classes",
    "python prepare_dataset.py [acm]*": "needs files; the tests of prepare/ have some, and so has your-own-data.md",
    "python prepare_dataset.py boris *": "the same",
    "python agreement.py *": "needs codings; correction-loop.md has some",
    "python predict.py *seed51*": "prediction/test_several_runs.py combines three runs; here is one seed",
    "python export_model.py RUN *": "stages.md runs it, after the run has been trained",
    "python predict.py my_films/unseen.mp4 --model my_model": "the same",
    "*their_model*": "prediction/test_new_training.py runs these commands with an exported model",
    "*/mine/fold*": "needs the stages of each fold; demo/test_kabr.py runs them",
    "*dataset/unseen*": "needs Animal Kingdom's clips; tfam/test_unseen_animals.py has made-up embeddings",
    "tensorboard *": "serves until it is stopped",
    "torchrun *": "the tests of extraction/, moclip/ and tfam/ run two processes",
    "sbatch *": "needs Slurm",
    "pip *": "downloads",
    ".venv/bin/pip *": "the same",
    "python3 -m venv *": "the same",
}
FUSION = "--num-workers 0 --set training.epochs=1 model.num_heads=4 model.num_layers=1 model.dim_feedforward=32"
TINY_CLIP = " --clip-model-name local-dir:tinyclip"
SMALLER = {  # pattern of a command -> flags that make it quick
    "*demo.make_films*--first *": "--films 2 --scenes 3 --num-workers 0",
    "*demo.make_films*": "--films 4 --scenes 3 --num-workers 0",
    "*demo.correct_predictions*": "--films film09",
    "*demo.make_teacher*": "--stills 60 --held-out 20 --steps 2 --num-workers 0",
    "*extract_*--fps 12.5*": "--num-workers 0 --fps 6.25",
    "*extract_*": "--num-workers 0",
    "*train.py*": "--epochs 1 --num-workers 0",
    "*TFAM.train_and_eval*--evaluate*": "--num-workers 0",
    "*TFAM.train_and_eval*": FUSION,
    "*TFAM.probe*": FUSION,
    "*run_experiments.sh*": FUSION,
    "*evaluate.py*": "--resamples 20",
    "*agreement.py*": "--resamples 20",
    "*predict.py*": "--num-workers 0 --overwrite",
}


def commands(*pages: Path) -> list[str]:
    """Return the commands of the bash blocks, and those quoted in the README's text."""
    return [c for page in pages for c in commands_in(page.read_text(encoding="utf-8"), page.name == "README.md")]


@pytest.mark.parametrize("command", dict.fromkeys(commands(*CHAIN, OWN_DATA, LOOP)))
def test_a_command_parses(command: str) -> None:
    words = shlex.split(command)
    while "=" in words[0]:  # a variable
        words = words[1:]
    if words[0] == "torchrun":
        words = ["python", *words[3:]]  # behind --nproc-per-node 4
    if words[0] == "python":
        module, arguments = (words[2], words[3:]) if words[1] == "-m" else (Path(words[1]).stem, words[2:])
        module = f"{module}.__main__" if (REPOSITORY / module).is_dir() else module
        importlib.import_module(module).build_parser().parse_args(arguments)
    elif words[0] in ("bash", "cd"):
        assert (REPOSITORY / words[1]).exists() or (REPOSITORY / "TFAM" / words[1]).exists()
    else:
        assert any(fnmatch(command, pattern) for pattern in NOT_RUN)


def test_the_pages_have_commands_of_every_stage() -> None:
    stages = ["demo.sh", "prepare_dataset.py", "extract_embeddings.py", "extract_flows.py", "train.py", "inference.py"]
    stages += [
        "evaluate.py",
        "predict.py",
        "agreement.py",
        "export_model.py",
        "reproduce_animal_kingdom.sh",
        "run_experiments.sh",
        "TFAM.train_and_eval",
        "TFAM.probe",
    ]
    for stage in stages:
        assert any(stage in command for command in commands(*CHAIN)), stage


def run(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command in small."""
    command += " " + next((flags for pattern, flags in SMALLER.items() if fnmatch(command, pattern)), "")
    if command.startswith("python "):
        monkeypatch.chdir(folder)
        run_in_process(command)
    else:
        completed = shell(command, folder, CONFIGS="rgb cross_attention", SEEDS="49")
        assert completed.returncode == 0, f"{command}\n{completed.stdout}{completed.stderr}"


def test_the_commands_of_the_chain_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run them in a copy of the repository, with clips of three actions and a tiny CLIP."""
    clone = folder = copy_repository(tmp_path / "clone")
    make_tiny_clip(clone / "tinyclip", vocabulary=49408)
    for i, action in enumerate(("walking", "running", "eating")):
        for k in range(3):
            frames = moving_frames(10, (i, k), seed=10 * i + k)
            write_video(clone / "my_videos" / action / f"{k}.mp4", frames, lossless=False)
    write_video(clone / "my_films" / "unseen.mp4", moving_frames(30, (1, 0)), lossless=False)
    ran = []
    for command in commands(*CHAIN):
        if command.startswith("cd "):
            folder = (folder / command[3:]).resolve()
        elif not any(fnmatch(command, pattern) for pattern in NOT_RUN):
            if any(name in command for name in ("extract_embeddings.py", "predict.py", "zero_shot")) and (
                "--model my_model" not in command
            ):
                command += TINY_CLIP
            if command.startswith("python evaluate.py predictions.csv"):
                shutil.copy(clone / "checkpoints" / "TFAM" / "cross_attention" / "seed49" / "predictions.csv", clone)
            run(command, folder, monkeypatch)
            ran.append(command)
    for stage in ("folder", "extract_emb", "extract_fl", "train.py", "inference", "run_exp", "evaluate", "predict"):
        assert any(stage in command for command in ran), stage
    assert "cross_attention" in (clone / "TFAM" / "results" / "table.md").read_text()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that has only the configs."""
    for name in ("TFAM/configs", "demo"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    return tmp_path


def test_the_commands_for_own_data_run_in_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in commands(OWN_DATA):
        run(command, folder, monkeypatch)
    for name in ("unseen.json", "unseen.csv", "unseen_windows.csv", "unseen.html", "unseen.boris.tsv"):
        assert Path("predictions", name).exists(), name
        assert Path("predictions_by_words", name).exists(), name
    assert Path("my_data/annotations/class_counts.html").exists()
    assert Path("checkpoints/TFAM/cross_attention/seed49/evaluation/report.html").exists()


def test_the_commands_of_the_correction_loop_run_in_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The corrected film is added to the training clips with its true labels; the other splits stay as they are."""
    for command in commands(LOOP):
        if command.startswith("python prepare_dataset.py boris predictions"):
            before = annotations.load(Path("loop_data/annotations"), "loop")
        run(command, folder, monkeypatch)
    after = annotations.load(Path("loop_data/annotations"), "loop")
    assert (after.classes, after.splits["val"], after.selection) == (
        before.classes,
        before.splits["val"],
        before.selection,
    )
    scenes = {
        row["start"]: row["labels"] for row in read_csv(Path("new_films/table.csv")) if row["video"] == "film09.mp4"
    }
    added = {clip: labels for clip, labels in after.splits["train"].items() if clip not in before.splits["train"]}
    assert len(added) == 5  # windows of 2 s every second in 6 s
    for start in ("0", "2", "4"):
        labels = added[f"film09_{int(start) * 1000}-{int(start) * 1000 + 2000}ms.mp4"]
        assert sorted(after.classes[label] for label in labels) == scenes[start].split(";")
    agreement = json.loads(Path("agreement/agreement.json").read_text())  # before the correction
    assert [film["name"] for film in agreement["films"]] == ["film09.mp4", "film10.mp4"]
    assert set(agreement["actions"]) == set(before.classes) and agreement["compared_seconds"] == pytest.approx(
        12, abs=0.2
    )
    events = boris.read_events(Path("predictions/predictions.boris"))  # also after the second prediction
    assert sorted(events.unreviewed) == ["film10", "unseen"]
