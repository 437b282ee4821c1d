"""Animal Kingdom's unseen animals from the workbooks to the table and top-1, with made-up embeddings."""

import json
from pathlib import Path

import numpy as np
import pytest

import evaluate
import prepare_dataset
from tests.prepare.workbooks import Workbooks, animal_actions_cell
from tests.tfam.helpers import SAMPLING, TEACHER, read_csv, train_command, write_h5
from TFAM import table
from TFAM.train_and_eval import main
from vimoclip import annotations

ACTIONS = ("Moving", "Eating", "Attending", "Swimming", "Sensing", "Keeping still")
LIZARDS = "Lizard / Gecko / Draco / Iguana / Chamelon"


def write_workbooks(folder: Path) -> list[str]:
    """Write 72 clips of robins and 48 of geckos, in eight and six sources; return the importer's flags."""
    workbooks = Workbooks(animals=[["Robin", "Bird"], ["Gecko", "Reptile", LIZARDS]])
    for animal, count, letter in (("Robin", 72, "R"), ("Gecko", 48, "G")):
        for i in range(count):
            action = ACTIONS[i % 6]
            name = f"C{i:03}{letter}{letter}{'ABCDEFGH'[i // (9 if animal == 'Robin' else 8)]}"
            workbooks.clips.append([name, "train", str(i % 6), animal_actions_cell(action, animal=animal)])
    for label, action in enumerate(ACTIONS):
        workbooks.listed.append([label, action])
        workbooks.counted.append([action, label, "head", 20])
    return workbooks.write(folder)


def embeddings(number: int, label: int, rows: int, is_noise: bool) -> np.ndarray:
    found = np.random.default_rng(number).normal(size=(rows, 8)).astype(np.float32)
    found[:, label] += 0 if is_noise else 4
    return found


@pytest.fixture
def unseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> annotations.Annotations:
    """The data set of unseen animals, in dataset/unseen: of geckos only motion shows the action, of robins both do."""
    monkeypatch.chdir(tmp_path)
    flags = write_workbooks(tmp_path)
    dataset = ["--dataset-dir", "dataset/unseen"]
    prepare_dataset.main(["animal-kingdom", *flags, "--protocol", "unseen-animals", *dataset])
    data = annotations.load(Path("dataset/unseen/annotations"), "ak", ["train", "val"])
    folder = Path("dataset/unseen/embeddings")
    motion = {}
    for split, videos in data.splits.items():
        rgb = {}
        for number, (video, (label,)) in enumerate(videos.items()):
            is_noise = split == "val"
            rgb[video] = embeddings(number, label, 4, is_noise)
            motion[video.removesuffix(".mp4")] = embeddings(1000 + number, label, 3, False)
        labels = np.array([data.multi_hot(split, video) for video in videos])
        attributes = {"kind": "rgb", "class_names": list(ACTIONS), "num_classes": 6, "embed_dim": 8}
        write_h5(folder / f"ak_{split}_clip_embeddings.h5", rgb, labels, sampling=SAMPLING, **attributes, **TEACHER)
    write_h5(
        folder / "flow_embeddings.h5",
        motion,
        kind="motion",
        embed_dim=8,
        sampling=SAMPLING,
        student={"teacher": TEACHER},
        clip_model="ViT-B/32",
        weights_sha256="student",
    )
    return data


def test_from_the_workbooks_to_the_table_and_top1(unseen: annotations.Annotations) -> None:
    assert [len(videos) for videos in unseen.splits.values()] == [72, 48]
    for config in ("rgb", "motion"):  # the commands of run_experiments.sh
        main([*train_command(config, "--dataset-dir", "dataset/unseen", "--seed", "49"), "training.epochs=12"])
    table.main(["--output-dir", "results", "--resamples", "50"])
    rows = {row["config"]: row for row in read_csv(Path("results/table.csv"))}
    assert sorted(rows) == ["motion", "rgb"] and {row["num_videos"] for row in rows.values()} == {"48"}
    assert float(rows["motion"]["map_macro_minus_rgb_low"]) > 0
    found = {}
    for config in rows:
        for over in ("clips", "sources"):
            run = f"checkpoints/TFAM/{config}/seed49"
            evaluate.main([run, "--resample", over, "--resamples", "50", "--dataset-name", "ak"])
            found[config, over] = json.loads(Path(run, "evaluation/metrics.json").read_text())
    for (_, over), metrics in found.items():
        assert (metrics["num_videos"], metrics["num_classes"], metrics["protocol"]) == (48, 6, "held_out")
        assert metrics["bootstrap"]["units"] == {"clips": 48, "sources": 6}[over]
        for name in ("top1", "mean_per_class_top1"):
            low, high = metrics[name]["ci95"]
            assert 0 <= low <= metrics[name]["value"] <= high <= 1
    top1 = {config: found[config, "clips"]["top1"]["value"] for config in rows}
    assert top1["motion"] > 0.6 and top1["rgb"] < 0.4
    assert any("inferred" in note for note in found["rgb", "sources"]["notes"])
