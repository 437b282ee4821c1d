"""Write the inputs of all steps: small videos, annotations, random weights, and the files that importers read."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from tests import video_files
from tests.conftest import CLASSES, make_tiny_clip, moving_frames, write_video
from tests.prepare.workbooks import make_workbooks, swap_ids
from vimoclip import annotations
from vimoclip.annotations import SEGMENTS, Annotations, VideoAnimals

VELOCITIES = ((2, 0), (0, 3), (0, 0))  # pixels per frame in x and y, by class
NTSC = 30000 / 1001  # frames/s
Splits = dict[str, dict[str, tuple[int, ...]]]


def write_inputs(root: Path) -> None:
    """Write every input below `root`, with fixed seeds."""
    write_dataset(root / "dataset")
    write_bad_dataset(root / "bad")
    write_many_annotations(root / "many")
    write_evaluation(root / "scores")
    write_action_folder(root / "raw" / "actions")
    write_tables(root / "raw" / "tables")
    write_boris(root / "raw" / "boris")
    write_mammalnet(root / "raw" / "MammalNet")
    write_workbooks(root / "raw" / "workbooks")
    make_tiny_clip(root / "tinyclip", vocabulary=49408)
    write_published(root / "published", root / "tinyclip")
    write_raft(root / "raft.ckpt")


# --- data sets


def write_annotations(
    root: Path, splits: Splits, selection: tuple[str, ...] = (), classes: tuple[str, ...] = CLASSES
) -> None:
    segments = tuple(SEGMENTS[i % 3] for i in range(len(classes)))
    data = Annotations(classes, splits, {"segment": segments}, selection)
    annotations.write(root / "annotations", "ak", data)


def write_dataset(root: Path) -> None:
    """Write the main data set: 10 training clips, of which 3 are selected and one has one frame, and 5 to validate."""
    splits: Splits = {"train": {}, "val": {}}
    for i in range(15):
        split, label = ("train", "val")[i >= 10], i % 3
        name = f"{split}{i:02d}.{'mkv' if i == 4 else 'mp4'}"
        splits[split][name] = (label,) if i % 5 else (label, (label + 1) % 3)
        size = {"height": 52, "width": 66} if i % 4 == 1 else {}
        frames = moving_frames(1 if i == 8 else 10 + i % 6, VELOCITIES[label], seed=i, **size)
        write_video(root / "videos" / name, frames, NTSC if i == 7 else 25, lossless=False)
    splits["val"]["val14.mp4"] = ()
    write_annotations(root, splits, ("train01.mp4", "train05.mp4", "train06.mp4"))
    kinds = [(("Lion",), ("Mammal",)), (("Crane",), ("Bird",)), (("Lion", "Ant"), ("Mammal",))]
    names = [name for videos in splits.values() for name in videos]
    text = annotations.format_animals({name: VideoAnimals(*kinds[i % 3]) for i, name in enumerate(names)})
    (root / "annotations" / annotations.ANIMALS_FILE).write_text(text)


def write_bad_dataset(root: Path) -> None:
    """Write clips of which one is whole, one damaged, one cut, one of a single frame, one empty, and one missing."""
    names = ("whole", "damaged", "cut", "single", "empty", "missing")
    paths = [root / "videos" / f"{name}.mp4" for name in names]
    for i, path in enumerate(paths[:4]):
        video_files.encode(path, moving_frames(1 if path.stem == "single" else 24, (2, 1), seed=100 + i), "h264")
    video_files.corrupt_packet(paths[1], 12)
    paths[2].write_bytes(paths[2].read_bytes()[: paths[2].stat().st_size // 3])
    paths[4].write_bytes(b"")
    write_annotations(root, {"train": {path.name: (i % 3,) for i, path in enumerate(paths)}})


def write_many_annotations(root: Path) -> None:
    """Write annotations of 60 clips without videos, for drawing the model-selection split."""
    rng = np.random.default_rng(5)
    train = {f"t{i:03d}.mp4": tuple(np.flatnonzero(rng.random(3) < 0.4).tolist()) for i in range(60)}
    write_annotations(root, {"train": train, "val": {"v0.mp4": (0,), "v1.mp4": (1,)}})


def write_evaluation(root: Path) -> None:
    """Write annotations of 40 clips, and two CSVs of logits, one of which lacks a clip."""
    rng, names = np.random.default_rng(6), ("walk", "run, fast", "eat", "7")
    labels = {
        split: {f"{split}{i:02d}.mp4": tuple(np.flatnonzero(rng.random(4) < 0.4).tolist()) for i in range(40)}
        for split in ("train", "val")
    }
    selected = tuple(f"train{i:02d}.mp4" for i in range(8))
    write_annotations(root, labels, selected, names)
    files = {"first": list(labels["val"]), "second": list(labels["val"])[1:], "selection": selected}
    for number, (name, videos) in enumerate(files.items()):
        with open(root / f"{name}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["video_id", *(names if number != 1 else range(4))])
            for video in videos:
                own = (labels["train"] | labels["val"])[video]
                scores = rng.normal(size=4).round(4) + [1.5 * (i in own) for i in range(4)]
                writer.writerow([video, *scores.tolist()])


# --- what importers read


def write_action_folder(root: Path) -> None:
    """Write root/<action>/<site>_<number>.mp4 with three sites."""
    for i, action in enumerate(("eating", "running", "walking")):
        for k in range(6):
            frames = moving_frames(6, (i, k % 3), 32, 40, seed=200 + 10 * i + k)
            write_video(root / action / f"site{k // 2}_{k}.mp4", frames, lossless=False)


def write_tables(root: Path) -> None:
    """Write eight videos and the tables that cut and label them."""
    for i in range(8):
        frames = moving_frames(50, (1, i % 2), 32, 40, seed=300 + i)
        write_video(root / f"film{i}.mp4", frames, NTSC if i == 1 else 25, lossless=False)
    spans = [(f"film{i % 4}.mp4", 0.3 * (i // 4), 0.3 * (i // 4) + 0.5, ("walk", "run;eat", "", "eat")[i % 4], i % 4)
             for i in range(16)]  # fmt: skip
    with open(root / "spans.csv", "w", newline="") as file:
        csv.writer(file).writerows([["video", "start", "end", "labels", "animal"], *spans])
    split = [("train", "train", "val", "test")[i % 4] for i in range(8)]
    rows = [[f"film{i}.mp4", i % 2, int(i > 2), split[i]] for i in range(8)]
    with open(root / "columns.csv", "w", newline="") as file:
        csv.writer(file).writerows([["video", "grooming", "lying", "split"], *rows, ["gone.mp4", 1, 0, "train"]])


def write_boris(root: Path) -> None:
    """Write three videos, a BORIS project of them, and aggregated events as TSV (version 8) and TSV (version 7)."""
    films = {f"f{i}.mp4": 6.0 for i in range(3)}
    for i, name in enumerate(films):
        write_video(root / name, moving_frames(60, (1, i), 32, 40, seed=400 + i), 10, lossless=False)
    kinds = {"walk": "State event", "rest": "State event", "bite": "Point event"}
    observations = {f"observation {i}": _observation(name, i) for i, name in enumerate(films)}
    project = {
        "project_format_version": "7.0",
        "behaviors_conf": {str(i): {"type": kind, "code": code} for i, (code, kind) in enumerate(kinds.items())},
        "subjects_conf": {"0": {"key": "", "name": "Ann", "description": ""}},
        "observations": observations,
    }
    (root / "project.boris").write_text(json.dumps(project))
    header = ["Observation id", "Source", "Time offset (s)", "Media duration (s)", "Subject", "Behavior"]
    header += ["Behavior type", "Start (s)", "Stop (s)", "Media file name"]
    older = ["Observation id", "Media file", "Total length", "Subject", "Behavior", "Behavior type"]
    older += ["Start (s)", "Stop (s)"]
    new, old = [header], [older]
    for i, name in enumerate(films):
        for behavior, kind, start, stop in (("walk", "STATE", 0.5 + i, 3.0), ("rest", "STATE", 3.0, 5.5),
                                            ("bite", "POINT", 2.5, 2.5), ("rest", "STATE", 5.6, "NA")):  # fmt: skip
            new.append([f"o{i}", f"player #1:{name}", "0", "6.0", "Ann", behavior, kind, str(start), str(stop), name])
            old.append([f"o{i}", f"C:\\films\\{name}", "6.0", "Ann", behavior, kind, str(start), str(stop)])
    for file, rows in (("events.tsv", new), ("older.tsv", old)):
        (root / file).write_text("".join("\t".join(row) + "\n" for row in rows))


def _observation(name: str, number: int) -> dict[str, Any]:
    times = [(10.5, "Ann", "walk"), (13.0, "Ann", "walk"), (12.0, "Bob", "rest"), (14.0 + number / 2, "Bob", "rest")]
    times += [(11.0, "Ann", "bite"), (15.0, "Bob", "walk")]  # the last one has no end
    return {
        "file": {"1": [name], "2": []},
        "type": "MEDIA",
        "time offset": 10.0,
        "observation time interval": [0, 0],
        "events": [[time, subject, code, "", "", 0] for time, subject, code in times],
        "media_info": {"length": {name: 6.0}, "fps": {name: 10.0}},
    }


def write_mammalnet(root: Path) -> None:
    """Write MammalNet's lists and videos as its authors give them out; one video is missing."""
    lists = root / "annotation" / "composition"
    lists.mkdir(parents=True)
    names = "".join(f"does_{letter}\t{i}\n" for i, letter in enumerate("abcdefghijkl"))
    (root / "annotation" / "behavior_to_id.txt").write_text(names)
    (root / "annotation" / "genus_to_id.txt").write_text("canis\t8\nfelis\t9\n")
    for split, count in {"train": 6, "val": 4, "test": 4}.items():
        lines = []
        for i in range(count):
            frames = moving_frames(8 + i % 3, (i % 3, 0), 32, 40, seed=500 + i + 10 * count + len(split))
            write_video(root / "trimmed_videos" / f"-{split}_{i}.mp4", frames, lossless=False)
            lines.append(f"trimmed_videos/-{split}_{i}.mp4 {i % 3} {8 + i % 2}\n")
        lines += ["trimmed_videos/gone.mp4 11 8\n"] if split == "test" else []
        (lists / f"{split}.csv").write_text("".join(lines))


def write_workbooks(root: Path) -> None:
    """Write Animal Kingdom's two workbooks, of which two names are swapped in one sheet, and the clips they name."""
    workbooks = make_workbooks(each=4)
    swap_ids(workbooks, 2, 3)
    workbooks.listed[5][0] = "#N/A"
    for row in workbooks.clips[::3]:
        row[3] = row[3].replace("Lion", "Crane")
    root.mkdir(parents=True)
    workbooks.write(root)
    for i, clip in enumerate(workbooks.clips):
        frames = moving_frames(4, (1, i % 2), 32, 40, seed=600 + i)
        write_video(root / "video" / f"{clip[0]}.mp4", frames, lossless=False)


# --- files of the published code, and weights


def write_published(root: Path, clip: Path) -> None:
    """Write what the published code leaves: a student's plain state dict, and HDF5 files without attributes."""
    import h5py
    import torch
    from safetensors.torch import load_file

    root.mkdir(parents=True)
    weights = load_file(clip / "open_clip_model.safetensors")
    state = {f"module.visual_encoder.{k[7:]}": v for k, v in weights.items() if k.startswith("visual.")}
    generator = torch.Generator().manual_seed(1)
    shapes = {"residual_mlp.fc1": (32, 32), "residual_mlp.fc2": (32, 32)}
    shapes |= {"classification_head.0": (16, 32), "classification_head.2": (3, 16)}
    for name, shape in shapes.items():
        state[f"module.{name}.weight"] = 0.1 * torch.randn(shape, generator=generator)
        state[f"module.{name}.bias"] = torch.zeros(shape[0])
    torch.save(state, root / "student_epoch_1.pth")
    rng = np.random.default_rng(7)
    motion, labels = h5py.File(root / "motion.h5", "w"), np.eye(3, dtype=np.float32)
    for split, count in (("train", 6), ("val", 4)):
        with h5py.File(root / f"{split}.h5", "w") as file:
            for i in range(count):
                values = rng.normal(size=(9 + i, 32)).astype(np.float32)
                file[f"{split}{i}.mp4/embeddings"], file[f"{split}{i}.mp4/labels"] = values, labels[i % 3]
                motion[f"{split}{i}/embeddings"] = values[1:] - values[:-1]
    motion.close()


def write_raft(path: Path) -> None:
    """Write random weights of ptlflow's raft_small."""
    import ptlflow
    import torch

    torch.manual_seed(0)
    torch.save({"state_dict": ptlflow.get_model("raft_small").state_dict(), "hyper_parameters": {}}, path)
