"""Write the inputs of all steps: small videos, annotations, random weights, and the files that importers read."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = ("walking", "running", "eating")
VELOCITIES = ((2, 0), (0, 3), (0, 0))  # pixels per frame in x and y, by class
CLIP_DIM = 32
Labels = Mapping[str, Sequence[int]]


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
    write_clip(root / "tinyclip")
    write_published(root / "published", root / "tinyclip")
    write_raft(root / "raft.ckpt")


# --- videos


def moving_frames(count: int, velocity: tuple[int, int], height: int = 48, width: int = 64, seed: int = 0) -> Any:
    """Return (T, H, W, 3) uint8: a smooth random texture that moves, and a square that moves the other way."""
    rng = np.random.default_rng(seed)
    noise = rng.random((height, width, 3))
    for axis in (0, 1):
        for _ in range(3):
            noise = (noise + np.roll(noise, 1, axis) + np.roll(noise, -1, axis)) / 3
    low, high = noise.min(), noise.max()
    texture = (255 * (noise - low) / (high - low)).astype(np.uint8)
    frames = np.stack([np.roll(texture, (t * velocity[1], t * velocity[0]), (0, 1)) for t in range(count)])
    for t in range(count):
        left = (5 - t * velocity[0]) % (width - 10)
        frames[t, 8:18, left : left + 10] = rng.integers(0, 256, 3) if t == 0 else frames[0, 8, 5]
    return frames


def write_video(path: Path, frames: np.ndarray, fps: Fraction = Fraction(25)) -> Path:
    """Encode frames as H.264 in one thread, with a keyframe every ten frames."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.options = "yuv420p", {"g": "10", "bf": "2", "crf": "18", "sc_threshold": "0"}
        stream.codec_context.thread_count = 1
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def damage(path: Path, packet: int) -> None:
    """Overwrite the data of one video packet."""
    import av

    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [bytes(found) for found in container.demux(video=0) if found.size]
    start = bytes(data).index(packets[packet])
    data[start + 4 : start + len(packets[packet])] = b"\xff" * (len(packets[packet]) - 4)
    path.write_bytes(data)


# --- data sets


def write_annotations(
    folder: Path, splits: Mapping[str, Labels], selection: Iterable[str] = (), classes: Sequence[str] = CLASSES
) -> None:
    """Write ak_action.csv with segments, a list per split, and selection.txt if there are names for it."""
    folder.mkdir(parents=True, exist_ok=True)
    segments = [("head", "middle", "tail")[i % 3] for i in range(len(classes))]
    rows = [f"{i},{name},{segment}\n" for i, (name, segment) in enumerate(zip(classes, segments, strict=True))]
    (folder / "ak_action.csv").write_text("id,name,segment\n" + "".join(rows))
    for split, videos in splits.items():
        lines = [" ".join([name, *map(str, labels)]) + "\n" for name, labels in videos.items()]
        (folder / f"{split}_multi.txt").write_text("".join(lines))
    if chosen := list(selection):
        (folder / "selection.txt").write_text("".join(f"{name}\n" for name in chosen))


def write_dataset(root: Path) -> None:
    """Write the main data set: 10 training clips, 3 for selection and one of a single frame, and 5 to validate."""
    splits: dict[str, dict[str, tuple[int, ...]]] = {"train": {}, "val": {}}
    for i in range(15):
        split, label = ("train", "val")[i >= 10], i % 3
        name = f"{split}{i:02d}.{'mkv' if i == 4 else 'mp4'}"
        splits[split][name] = (label,) if i % 5 else (label, (label + 1) % 3)
        size = {"height": 52, "width": 66} if i % 4 == 1 else {}
        frames = moving_frames(1 if i == 8 else 10 + i % 6, VELOCITIES[label], seed=i, **size)
        write_video(root / "videos" / name, frames, Fraction(30000, 1001) if i == 7 else Fraction(25))
    splits["val"]["val14.mp4"] = ()
    write_annotations(root / "annotations", splits, ("train01.mp4", "train05.mp4", "train06.mp4"))
    names = [name for videos in splits.values() for name in videos]
    animals = [f"{name},{('Lion', 'Crane', 'Lion;Ant')[i % 3]},{('Mammal', 'Bird', 'Mammal')[i % 3]}\n"
               for i, name in enumerate(names)]  # fmt: skip
    (root / "annotations" / "animals.csv").write_text("video_id,animals,animal_classes\n" + "".join(animals))


def write_bad_dataset(root: Path) -> None:
    """Write clips of which one is whole, one damaged, one cut, one of a single frame, one empty, and one missing."""
    names = ("whole", "damaged", "cut", "single", "empty", "missing")
    for i, name in enumerate(names[:4]):
        frames = moving_frames(1 if name == "single" else 24, (2, 1), seed=100 + i)
        write_video(root / "videos" / f"{name}.mp4", frames)
    damage(root / "videos" / "damaged.mp4", 12)
    cut = root / "videos" / "cut.mp4"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 3])
    (root / "videos" / "empty.mp4").write_bytes(b"")
    splits = {"train": {f"{name}.mp4": (i % 3,) for i, name in enumerate(names)}}
    write_annotations(root / "annotations", splits)


def write_many_annotations(root: Path) -> None:
    """Write annotations of 60 clips without videos, for drawing the model-selection split."""
    rng = np.random.default_rng(5)
    train = {f"t{i:03d}.mp4": tuple(np.flatnonzero(rng.random(3) < 0.4).tolist()) for i in range(60)}
    write_annotations(root / "annotations", {"train": train, "val": {"v0.mp4": (0,), "v1.mp4": (1,)}})


def write_evaluation(root: Path) -> None:
    """Write annotations of 40 clips, and two CSVs of logits, one of which lacks a clip."""
    rng, names = np.random.default_rng(6), ("walk", "run, fast", "eat", "7")
    labels = {
        split: {f"{split}{i:02d}.mp4": tuple(np.flatnonzero(rng.random(4) < 0.4).tolist()) for i in range(40)}
        for split in ("train", "val")
    }
    write_annotations(root / "annotations", labels, [f"train{i:02d}.mp4" for i in range(8)], ["a", "b", "c", "d"])
    rows = [f'{i},"{name}",{("head", "middle", "tail")[i % 3]}\n' for i, name in enumerate(names)]
    (root / "annotations" / "ak_action.csv").write_text("id,name,segment\n" + "".join(rows))
    selected = [f"train{i:02d}.mp4" for i in range(8)]
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
            write_video(root / action / f"site{k // 2}_{k}.mp4", frames)


def write_tables(root: Path) -> None:
    """Write three films and the tables that cut and label them."""
    for i in range(8):
        frames = moving_frames(50, (1, i % 2), 32, 40, seed=300 + i)
        write_video(root / f"film{i}.mp4", frames, Fraction(30000, 1001) if i == 1 else Fraction(25))
    spans = [(f"film{i % 4}.mp4", 0.3 * (i // 4), 0.3 * (i // 4) + 0.5, ("walk", "run;eat", "", "eat")[i % 4], i % 4)
             for i in range(16)]  # fmt: skip
    with open(root / "spans.csv", "w", newline="") as file:
        csv.writer(file).writerows([["video", "start", "end", "labels", "animal"], *spans])
    split = [("train", "train", "val", "test")[i % 4] for i in range(8)]
    rows = [[f"film{i}.mp4", i % 2, int(i > 2), split[i]] for i in range(8)]
    with open(root / "columns.csv", "w", newline="") as file:
        csv.writer(file).writerows([["video", "grooming", "lying", "split"], *rows, ["gone.mp4", 1, 0, "train"]])


def write_boris(root: Path) -> None:
    """Write three films, a BORIS project of them, and aggregated events as TSV (version 8) and TSV (version 7)."""
    films = {f"f{i}.mp4": 6.0 for i in range(3)}
    for i, name in enumerate(films):
        write_video(root / name, moving_frames(60, (1, i), 32, 40, seed=400 + i), Fraction(10))
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
            write_video(root / "trimmed_videos" / f"-{split}_{i}.mp4", frames)
            lines.append(f"trimmed_videos/-{split}_{i}.mp4 {i % 3} {8 + i % 2}\n")
        lines += ["trimmed_videos/gone.mp4 11 8\n"] if split == "test" else []
        (lists / f"{split}.csv").write_text("".join(lines))


def write_workbooks(root: Path) -> None:
    """Write Animal Kingdom's two workbooks, of which two names are swapped in one sheet, and the clips they name."""
    from openpyxl import Workbook

    names = ["Attacking", "Being eaten", "Flapping its ears", "Flapping tail", "Sensing", "Yawning"]
    clips: list[list[Any]] = []
    for label, name in enumerate(names):
        said = repr([(("Lion", "Crane")[label % 2], name)])
        clips += [[f"T{label}{i}", "train", str(label), said] for i in range(4)]
        clips.append([f"V{label}", "test", str(label), said])
    clips.append(["PAIR", "train", "1,0", repr([("Ant", names[1]), ("Crane", names[0])])])
    counted = [(name, {2: 3, 3: 2}.get(i, i), ("head", "middle", "tail")[i // 2]) for i, name in enumerate(names)]
    sheets: dict[str, list[list[Any]]] = {
        "AR": [["S/N", "video_id", "type", "labels", "list_animal_action"],
               *([i, *row] for i, row in enumerate(clips))],
        "Action": [["Label", "Category", "Action", "Description"],
                   *([i if i < 5 else "#N/A", "General", name, None] for i, name in enumerate(names))],
        "Animal": [["Animal", "Parent Class", "Class", "Sub-Class", "Young", "Generic name"],
                   *([name, kind, kind, kind, None, None] for name, kind in
                     (("Lion", "Mammal"), ("Crane", "Bird"), ("Ant", "Insect")))],
        "AR_count": [["S/N", "action_category", "action", "index", "segment", "count"],
                     *([i, "General", name, number, segment, 4] for i, (name, number, segment) in enumerate(counted))],
    }  # fmt: skip
    root.mkdir(parents=True)
    for file, wanted in (("AR_metadata.xlsx", ("AR", "Action", "Animal")), ("df_action.xlsx", ("AR_count",))):
        book = Workbook()
        book.remove(book.worksheets[0])
        for sheet in wanted:
            page = book.create_sheet(sheet)
            for row in sheets[sheet]:
                page.append(row)
        book.save(root / file)
    for i, clip in enumerate(clips):
        write_video(root / "video" / f"{clip[0]}.mp4", moving_frames(4, (1, i % 2), 32, 40, seed=600 + i))


# --- weights, and files of the published code


def write_clip(folder: Path) -> None:
    """Write a CLIP with random weights for 32x32 images, in open_clip's folder format."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    config: dict[str, Any] = {
        "embed_dim": CLIP_DIM,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    torch.manual_seed(0)
    model = open_clip.CLIP(**config)
    preprocess = {"mean": [0.48, 0.45, 0.4], "std": [0.27, 0.26, 0.27], "interpolation": "bicubic"}
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")


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
                values = rng.normal(size=(9 + i, CLIP_DIM)).astype(np.float32)
                file[f"{split}{i}.mp4/embeddings"], file[f"{split}{i}.mp4/labels"] = values, labels[i % 3]
                motion[f"{split}{i}/embeddings"] = values[1:] - values[:-1]
    motion.close()


def write_raft(path: Path) -> None:
    """Write random weights of ptlflow's raft_small."""
    import ptlflow
    import torch

    torch.manual_seed(0)
    torch.save({"state_dict": ptlflow.get_model("raft_small").state_dict(), "hyper_parameters": {}}, path)
