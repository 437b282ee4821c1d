"""reproduce_animal_kingdom.sh: the whole script on a tiny data set in the authors' own format."""

import csv
import json
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.chain.helpers import copy_repository, result_times, shell
from tests.conftest import make_tiny_clip, modification_times, moving_frames, write_video
from tests.prepare.workbooks import Workbooks, animal_actions_cell
from vimoclip import annotations, store
from vimoclip.annotations import SEGMENTS

CLASSES = ("Attending", "Eating", "Walking")
CLIPS = {"train": 12, "test": 4}
CALL = (
    "bash reproduce_animal_kingdom.sh --metadata a/AR_metadata.xlsx --actions a/df_action.xlsx --videos 'a/the clips'"
)
FIRST_STAGES = ["embeddings of the frames", "optical flow"]
STUDENTS = {"published": "student", "held_out": "student_seed49"}
SMALL = {
    "CLIP": "--clip-model-name local-dir:a/tinyclip",
    "FLOW": "--model dis --flow-normalization frame",
    "STUDENT": "--epochs 1 --batch-size 8 --sequence-length 8 --num-classes 3",
    "FUSIONS": "cross_attention",
    "CONTROLS": "cross_attention_none",
    "PROBES": "probe_both",
    "SEEDS": "49",
    "FUSION_SETTINGS": "training.epochs=2 model.num_heads=4 model.num_layers=1 model.dim_feedforward=32",
    "COMPUTE": "--num-workers 0 --device cpu",
    "EVALUATION": "--resamples 20",
}


def write_workbooks(folder: Path) -> None:
    """Write the authors' workbooks; clip i shows class i % 3."""
    workbooks = Workbooks(animals=[["Common Crane", "Bird"]])
    for kind, clips in CLIPS.items():
        for i in range(clips):
            actions = animal_actions_cell(CLASSES[i % 3], animal="Common Crane")
            workbooks.clips.append([f"{kind.upper()}{i:02}", kind, str(i % 3), actions])
    for label, name in enumerate(CLASSES):
        workbooks.listed.append([label, name])
        workbooks.counted.append([name, label, SEGMENTS[label], 0])
    workbooks.write(folder)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A clone of the repository beside the data set as its authors give it out, in a/."""
    root = copy_repository(tmp_path_factory.mktemp("clone") / "ViMoCLIP")
    source = root / "a"
    source.mkdir()
    write_workbooks(source)
    make_tiny_clip(source / "tinyclip")
    for kind, clips in CLIPS.items():
        for i in range(clips):
            frames = moving_frames(9 + i % 3, (i % 3, 2 - i % 3), 32, 44, seed=i + 50 * (kind == "test"))
            write_video(source / "the clips" / f"{kind.upper()}{i:02}.mp4", frames, lossless=False)
    yield root
    shutil.rmtree(root, ignore_errors=True)


def plan_of(text: str) -> tuple[list[str], list[str]]:
    """Return the stages that --plan lists, and those that it has no estimate of."""
    stages = re.findall(r"^== (.+)$", text, flags=re.M)
    return stages, [name for name in re.findall(r": ([^:\n]+)$", text, flags=re.M) if name in stages]


def stages_of(protocol: str, *students: str) -> list[str]:
    names = [
        stage
        for student in students or [STUDENTS[protocol]]
        for stage in (f"the {student}", f"embeddings of the flow, {student}")
    ]
    return [f"{name}, {protocol}" for name in [*names, "fusion"]]


def test_a_plan_without_any_output_estimates_two_stages_and_writes_nothing(clone: Path) -> None:
    before = modification_times(clone)
    done = shell(f"{CALL} --plan", clone, **SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    stages, pending = plan_of(done.stdout)
    assert stages == [*FIRST_STAGES, *stages_of("published"), *stages_of("held_out")]
    assert pending == stages[2:]
    numbers = re.findall(r"(\d+) videos to process", done.stdout)
    assert numbers == ["12", "4", "16"]  # frames of both splits, and flow
    assert "dataset/animal_kingdom/embeddings/ak_train_clip_embeddings.h5" in done.stdout
    assert "2 dry runs" in done.stdout
    written = {name for name in modification_times(clone).keys() - before.keys() if "__pycache__" not in name}
    assert written == set()


class HeadHandler(BaseHTTPRequestHandler):
    """Answers that each file is there."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


def test_a_plan_leaves_a_stage_out_of_the_sum_whose_weights_are_not_downloaded_yet(clone: Path, tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), HeadHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hub = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path), "no_proxy": "*"}
        clip = {"CLIP": "--clip-model-name ViT-B/32 --clip-pretrained openai"}
        done = shell(f"{CALL} --plan", clone, **SMALL | hub | clip | {"PROTOCOLS": "held_out"})
        server.shutdown()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 videos to process" in done.stdout  # the dry run itself succeeds
    assert "1 dry runs" in done.stdout  # of the flow
    assert plan_of(done.stdout)[1] == [FIRST_STAGES[0], *stages_of("held_out")]


def test_a_plan_without_the_authors_files_names_them(clone: Path) -> None:
    call = CALL.replace("a/AR", "nowhere/AR").replace("a/the clips", "nowhere/clips")
    done = shell(f"{call} --plan", clone, **SMALL | {"PROTOCOLS": "held_out"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nowhere/AR_metadata.xlsx: " in done.stdout and "nowhere/clips: " in done.stdout
    stages, pending = plan_of(done.stdout)
    assert pending == stages == [*FIRST_STAGES, *stages_of("held_out")]


def test_held_out_has_a_student_for_each_seed_unless_it_was_begun_with_one(clone: Path) -> None:
    call = CALL.replace("a/AR", "nowhere/AR").replace("a/the clips", "nowhere/clips")
    seeds = SMALL | {"SEEDS": "49 50", "NAME": "seeds"}
    stages, _ = plan_of(shell(f"{call} --plan", clone, **seeds).stdout)
    held_out = stages_of("held_out", "student_seed49", "student_seed50")
    assert stages == [*FIRST_STAGES, *stages_of("published"), *held_out]
    (clone / "checkpoints" / "seeds" / "held_out" / "student").mkdir(parents=True)
    stages, _ = plan_of(shell(f"{call} --plan", clone, **seeds).stdout)
    shutil.rmtree(clone / "checkpoints" / "seeds")
    assert stages == [*FIRST_STAGES, *stages_of("published"), *stages_of("held_out", "student")]


def test_a_stage_that_fails_is_named_and_ends_it(clone: Path) -> None:
    missing = clone / "a" / "the clips" / "TRAIN03.mp4"
    missing.rename(clone / "elsewhere.mp4")
    done = shell(CALL, clone, **SMALL | {"NAME": "broken"})
    (clone / "elsewhere.mp4").rename(missing)
    assert done.returncode == 1
    assert '"check of the clips"' in done.stderr.splitlines()[-1]
    assert "TRAIN03" in done.stdout
    assert not (clone / "dataset" / "broken" / "embeddings").exists()


def test_skip_failed_continues_without_an_unreadable_clip(clone: Path) -> None:
    """The run passes the check of the clips and the stage in which one fails."""
    broken = clone / "a" / "the clips" / "TEST01.mp4"
    content = broken.read_bytes()
    broken.write_bytes(b"no video")
    skipping = SMALL | {"NAME": "skip", "PROTOCOLS": "held_out", "FLOW": "--model nonsense"}
    done = shell(f"{CALL} --skip-failed", clone, **skipping)
    broken.write_bytes(content)
    assert "TEST01.mp4" in done.stdout
    assert '"optical flow"' in done.stderr.splitlines()[-1]  # because of the unknown model
    shutil.rmtree(clone / "dataset" / "skip")


def test_from_the_authors_files_to_both_tables_and_then_nothing_is_repeated(clone: Path, tmp_path: Path) -> None:
    call = CALL.replace("reproduce", f"'{clone}'/reproduce")
    call = call.replace(" a/", f" '{clone}'/a/").replace("'a/", f"'{clone}/a/")
    done = shell(call, tmp_path, **SMALL)  # from anywhere
    assert done.returncode == 0, done.stdout + done.stderr
    annotations_dir = clone / "dataset" / "animal_kingdom" / "annotations"
    data = annotations.load(annotations_dir, "ak", ["train", "val"])
    assert [len(videos) for videos in data.splits.values()] == [12, 4]
    assert annotations.read_animals(annotations_dir)["TRAIN00.mp4"].classes == ("Bird",)
    for protocol in ("published", "held_out"):
        configs = ["cross_attention", *(["cross_attention_none"] if protocol == "held_out" else []), "probe_both"]
        motion = f"flow_embeddings_{protocol}{STUDENTS[protocol].removeprefix('student')}.h5"
        student = store.EmbeddingReader(annotations_dir.parent / "embeddings" / motion, "motion")
        assert student.attributes["student"]["protocol"] == protocol
        assert student.attributes["student"]["flow"]["normalization"] == "frame"
        runs = sorted((clone / "checkpoints" / "animal_kingdom" / protocol / "TFAM").glob("*/seed49"))
        assert [run.parent.name for run in runs] == configs
        assert {json.loads((run / "metrics.json").read_text())["protocol"] for run in runs} == {protocol}
        (report,) = (run / "evaluation" / "report.html" for run in runs if (run / "evaluation").exists())
        assert report.is_file() and str(report.relative_to(clone)) in done.stdout
        found = json.loads(report.with_name("metrics.json").read_text())
        assert (found["protocol"], found["num_videos"]) == (protocol, 4)
        with open(clone / "TFAM" / "results" / "animal_kingdom" / protocol / "table.csv", newline="") as file:
            rows = {row["config"]: row for row in csv.DictReader(file)}
        assert sorted(rows) == configs
        assert {row["protocol"] for row in rows.values()} == {protocol}
        assert f"{protocol}/TFAM/cross_attention/seed49" in done.stderr  # the best run
    first = result_times(clone)
    assert sum(name.endswith(".h5") for name in first) == 4
    again = shell(CALL, clone, **SMALL | {"PROTOCOLS": "held_out"})
    assert again.returncode == 0, again.stdout + again.stderr
    assert result_times(clone) == first
    planned = shell(f"{CALL} --plan", clone, **SMALL | {"PROTOCOLS": "published"})
    assert plan_of(planned.stdout) == ([*FIRST_STAGES, *stages_of("published")], []), planned.stdout
    assert result_times(clone) == first


def test_other_splits_use_their_clips_only(clone: Path) -> None:
    """All classes must exist for unseen animals: the splits by source are the ones that fit this data set."""
    other = SMALL | {"IMPORT": "--protocol by-source", "NAME": "by_source", "PROTOCOLS": "held_out"}
    (clone / "a" / "the clips" / "UNKNOWN1.mp4").write_bytes((clone / "a" / "the clips" / "TEST01.mp4").read_bytes())
    planned = shell(f"{CALL} --plan", clone, **other)
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert re.findall(r"(\d+) videos to process", planned.stdout)[2] == "16"  # flow of the annotated clips
    done = shell(CALL, clone, **other | {"FLOW": "--model nonsense"})
    (clone / "a" / "the clips" / "UNKNOWN1.mp4").unlink()
    assert '"optical flow"' in done.stderr.splitlines()[-1], done.stdout + done.stderr
    dataset = clone / "dataset" / "by_source"
    sources = annotations.read_sources(dataset / "annotations")
    assert {path.name for path in (dataset / "videos").iterdir()} == sources.keys()
    assert (dataset / "embeddings" / "ak_train_clip_embeddings.h5").is_file()
    refused = shell(CALL, clone, **SMALL | {"IMPORT": "--protocol by-source"})
    assert refused.returncode == 2 and "NAME" in refused.stderr
    shutil.rmtree(dataset)


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ("--huge", "--huge"),
        ("--metadata", "--metadata"),
        ("--videos nowhere", "nowhere: "),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(clone: Path, flags: str, names: str) -> None:
    done = shell(f"bash reproduce_animal_kingdom.sh {flags}", clone)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("reproduce_animal_kingdom.sh: error: ") and names in line


def test_help_is_the_usage(clone: Path) -> None:
    done = shell("cd / && bash '{clone}/reproduce_animal_kingdom.sh' --help".replace("{clone}", str(clone)))
    assert (done.returncode, done.stderr) == (0, "")
    assert "--plan" in done.stdout and "set -euo" not in done.stdout


def test_the_students_settings_are_those_of_the_published_command() -> None:
    from tests.chain.test_commands import PUBLISHED_TRAIN
    from tests.conftest import REPOSITORY

    script = (REPOSITORY / "reproduce_animal_kingdom.sh").read_text()
    (settings,) = re.findall(r"^STUDENT=\$\{STUDENT:-(.*?)\}$", script, flags=re.M | re.S)
    words = settings.split()
    for flag, value in zip(words[::2], words[1::2], strict=True):
        assert f"{flag} {value}" in PUBLISHED_TRAIN
    paths = ("--train-hdf5-path", "--val-hdf5-path", "--flow-videos-dir", "--num-workers")
    assert set(words[::2]) == set(re.findall(r"--\S+", PUBLISHED_TRAIN)) - set(paths)
