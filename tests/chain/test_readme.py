"""Each command in the README parses as it stands, and those that need no download run, in the README's order."""

import importlib
import re
import shlex
import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.chain.helpers import run_in_process, shell
from tests.conftest import REPOSITORY, make_tiny_clip, moving_frames, write_video

README = (REPOSITORY / "README.md").read_text()
NOT_RUN = {  # pattern of a command -> why it isn't run here
    "bash demo.sh*": "takes minutes or downloads; test_demo.py runs it in its tiny size",
    "bash test.sh*": "runs this",
    "python -m demo.strips*": "needs the demo's clips; demo/test_demo_script.py runs it",
    "python extract_flows.py": "downloads RAFT; chain/test_commands.py runs it with random weights",
    "python train.py --train-hdf5-path *": "needs 140 classes; chain/test_commands.py runs it",
    "python prepare_dataset.py animal-kingdom *": "needs the workbooks; prepare/test_animal_kingdom.py has some",
    "python prepare_dataset.py csv *": "needs a table; prepare/test_csv_table.py and chain/test_docs.py have some",
    "python prepare_dataset.py boris *": "needs a project; prepare/test_boris.py has some",
    "python prepare_dataset.py mammalnet *": "needs MammalNet; prepare/test_mammalnet.py has a small one",
    "bash reproduce_animal_kingdom.sh *": "needs the data set; chain/test_reproduce.py runs it on a tiny one",
    "tensorboard *": "serves until it is stopped",
    "torchrun *": "four processes; extraction/test_sharding.py and the tests of both trainings run two",
    "python -m benchmarks": "takes an hour; benchmarks/test_benchmarks.py runs it in small",
}
INSTEAD = {  # these download CLIP: run them with an encoder from a folder
    command: f"{command} --clip-model-name local-dir:tinyclip"
    for command in ("python extract_embeddings.py", "python extract_embeddings.py --dry-run")
}
INSTEAD["python -m TFAM.zero_shot"] = "python -m TFAM.zero_shot --clip-model-name local-dir:tinyclip"
RUN = "checkpoints/TFAM/cross_attention/seed49"
FILM, TINY = "python predict.py my_films/unseen.mp4", "--clip-model-name local-dir:tinyclip"
for command in (
    f"{FILM} --student checkpoints/first --tfam {RUN} -o predictions/",
    f'{FILM} --labels drinking running "lying down"',
):
    INSTEAD[command] = f"{command.replace('my_films/unseen.mp4', 'my_videos/walking/0.mp4')} {TINY} --overwrite"
BARE = "python evaluate.py predictions.csv --annotations-dir dataset/annotations --logits"
INSTEAD |= {
    f"python evaluate.py {RUN} --compare checkpoints/TFAM/rgb/seed49": (  # the shortened list has no rgb
        f"python evaluate.py {RUN} --compare checkpoints/TFAM/cross_attention/seed50"
    ),
    BARE: f"cp {RUN}/predictions.csv . && {BARE}",
}


def commands() -> list[str]:
    """Return all commands of the README in their order."""
    return commands_in(README, inline=True)


def commands_in(text: str, inline: bool = False) -> list[str]:
    """Return the lines of a page's bash blocks; with `inline`, also the commands quoted in its text."""
    found = re.findall(r"```bash\n(.*?)```|`((?:python|bash) [^`]+)`", text, flags=re.DOTALL)
    return [line for block, quoted in found for line in (block.splitlines() if block else [quoted] if inline else [])]


@pytest.mark.parametrize("command", commands())
def test_a_command_in_the_readme_parses(command: str) -> None:
    check_command(command)


def check_command(command: str) -> None:
    """Assert that the script exists and accepts all flags."""
    words = shlex.split(command)
    if words[0] == "torchrun":
        words = ["python", *words[3:]]  # behind --nproc-per-node 4
    if words[0] == "python":
        module, arguments = (words[2], words[3:]) if words[1] == "-m" else (Path(words[1]).stem, words[2:])
        module = f"{module}.__main__" if (REPOSITORY / module).is_dir() else module
        importlib.import_module(module).build_parser().parse_args(arguments)
    elif words[0] == "bash":
        assert (REPOSITORY / words[1]).exists() or (REPOSITORY / "TFAM" / words[1]).exists()
    elif words[0] == "cd":
        assert (REPOSITORY / words[1]).is_dir()
    else:
        assert words[0] == "tensorboard"


def test_the_readme_has_commands_of_every_stage() -> None:
    stages = ["demo.sh", "prepare_dataset.py", "extract_embeddings.py", "extract_flows.py", "train.py", "inference.py"]
    stages += ["evaluate.py", "predict.py", "reproduce_animal_kingdom.sh"]
    for stage in [*stages, "run_experiments.sh", "TFAM.train_and_eval", "test.sh"]:
        assert any(stage in command for command in commands()), stage


def shorten(path: Path, long: str, short: str) -> None:
    """Replace a text in a file."""
    assert long in path.read_text()
    path.write_text(path.read_text().replace(long, short))


def test_the_commands_of_the_readme_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("vimoclip", "TFAM", "demo"):
        shutil.copytree(REPOSITORY / name, clone / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    for script in REPOSITORY.glob("*.py"):
        shutil.copy(script, clone)
    make_tiny_clip(clone / "tinyclip", vocabulary=49408)
    for i, action in enumerate(("walking", "running", "eating")):
        for k in range(3):
            frames = moving_frames(10, (i, k), seed=10 * i + k)
            write_video(clone / "my_videos" / action / f"{k}.mp4", frames, lossless=False)
    shorten(
        clone / "TFAM" / "run_experiments.sh",
        "rgb motion concat_embedding concat_time cross_attention cross_attention_none cross_attention_shuffled",
        "cross_attention",
    )
    shorten(clone / "TFAM" / "run_experiments.sh", "49 50 51", "49")
    shorten(clone / "TFAM" / "configs" / "default.yaml", "epochs: 30", "epochs: 2")
    folder, ran = clone, []
    for command in commands():
        if command.startswith("cd "):
            folder = (folder / command[3:]).resolve()
        elif not any(fnmatch(command, pattern) for pattern in NOT_RUN):
            command_line = INSTEAD.get(command, command)
            if command_line.startswith("python "):
                monkeypatch.chdir(folder)
                run_in_process(command_line)
            else:
                completed = shell(command_line, folder)
                assert completed.returncode == 0, f"{command}\n{completed.stdout}{completed.stderr}"
            ran.append(command)
    for pattern in NOT_RUN:
        assert any(fnmatch(command, pattern) for command in commands()), f"{pattern} is not in the README"
    assert len(ran) >= 8, ran
    assert "cross_attention" in (clone / "TFAM" / "results" / "table.md").read_text()
