"""Compare the files of two folders by what they hold: numbers exactly, prose and times of day not at all."""

import csv
import json
import math
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ABSENT = "(absent)"
FILE, CONTENT = "(file)", "(content)"
SHOWN = 5  # differences of one file


class Ignored(NamedTuple):
    """What is not compared. `files`, `key`: patterns of fnmatch; a key is a path like `rows/3/seconds`.

    The key FILE means that the file may be absent, CONTENT that it must exist, other keys that they must exist."""

    files: str
    key: str
    reason: str


IGNORED = (
    Ignored("*/__pycache__/*", FILE, "Python's cache"),
    Ignored("*.lock", FILE, "lock of a process that has ended"),
    Ignored(".*", FILE, "hidden file at the root: cache or temporary file"),
    Ignored("*/.*", FILE, "hidden file: cache or temporary file"),
    Ignored("*.html", CONTENT, "page for people: its numbers are in the JSON and CSV files beside it"),
    Ignored("*.md", CONTENT, "table for people: its numbers are in the CSV file beside it"),
    Ignored("*", "*versions/processor", "describes the processor, which may be another one"),
    Ignored("*.manifest*.jsonl", "*/reason", "prose"),
    Ignored("*.manifest*.jsonl", "*/seconds", "duration"),
    Ignored("*.manifest*.jsonl", "*/mtime", "time of day"),
    Ignored("*.frames", FILE, "frame cache, whose names and format may change"),
    Ignored("*frames/*.npy", FILE, "frame cache: a name depends on the path of the flow folder"),
    Ignored("*last.pth", "seconds", "duration"),
    Ignored("*left_out.csv", "rows/*/reason", "prose"),
    Ignored("*metrics.json", "*seconds*", "duration"),
    Ignored("*metrics.json", "notes*", "prose"),
    Ignored("*metrics.json", "epoch_chosen_*", "prose"),
    Ignored("*metrics.json", "*left_out_videos/*", "prose"),
    Ignored("*metrics.json", "torchmetrics_macro/note", "prose"),
    Ignored("*metrics.json", "bootstrap/method", "prose"),
    Ignored("*table.csv", "rows/*/seconds", "duration"),
    Ignored("*check*.json", "problems/*/reason", "prose"),
    Ignored("*check*.json", "problems/*/cure", "prose"),
    Ignored("*check*.json", "notes/*/reason", "prose"),
    Ignored("*predictions*.json", "whole_by", "prose"),
    Ignored("*predictions*.json", "made_with/problem", "prose"),
    Ignored("*predictions*.json", "made_with/note", "prose"),
)


def compare_folders(old: Path, new: Path, without: frozenset[str] = frozenset()) -> list[str]:
    """Return one line for each difference between the files of two folders; `without`: names relative to them."""
    sides = [_files(folder, without) for folder in (old, new)]
    lines = []
    for name in sorted(sides[0].keys() | sides[1].keys()):
        paths = [side.get(name, []) for side in sides]
        if not all(paths):
            lines.append(f"{name}: only in the {'old' if paths[0] else 'new'} outputs")
        elif not _ignored(name, CONTENT):
            lines += _compare_file(name, paths[0], paths[1], (old, new))
    return lines


def _files(folder: Path, without: frozenset[str]) -> dict[str, list[Path]]:
    """Return the files by name; TensorBoard's event files of one folder, named by time and host, are one entry."""
    found: dict[str, list[Path]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if "tfevents" in path.name:
            name = f"{Path(name).parent.as_posix()}/events.tfevents"
        if name not in without and not _ignored(name, FILE):
            found.setdefault(name, []).append(path)
    return found


def _ignored(name: str, key: str) -> bool:
    return any(fnmatchcase(name, entry.files) and fnmatchcase(key, entry.key) for entry in IGNORED)


def _compare_file(name: str, old: list[Path], new: list[Path], roots: tuple[Path, Path]) -> list[str]:
    if len(old) == len(new) == 1 and old[0].read_bytes() == new[0].read_bytes():
        return []
    try:
        contents = [load(paths, str(root)) for paths, root in zip((old, new), roots, strict=True)]
    except Exception as error:
        return [f"{name}: the bytes differ, and the content can't be read ({type(error).__name__}: {error})"]
    found = list(islice(differences(name, "", *contents), SHOWN + 1))
    return [f"{name}: {line}" for line in found[:SHOWN]] + ([f"{name}: ... and more"] if len(found) > SHOWN else [])


# --- trees of plain values, arrays and tensors


def differences(name: str, key: str, old: Any, new: Any) -> Iterator[str]:
    """Yield a line for each value of two trees that differs, less the ignored ones."""
    if key and _ignored(name, key) and ABSENT not in (_plain(old), _plain(new)):
        return
    old, new = _parsed(old), _parsed(new)
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for part in dict.fromkeys([*old, *new]):
            yield from differences(name, _join(key, part), old.get(part, ABSENT), new.get(part, ABSENT))
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple):
        if len(old) != len(new):
            yield f"{key}: {len(old)} entries, now {len(new)}"
        for number, (mine, theirs) in enumerate(zip_longest(old, new, fillvalue=ABSENT)):
            yield from differences(name, _join(key, number), mine, theirs)
    elif line := _difference(old, new):
        yield f"{key or 'content'}: {line}"


def _join(key: str, part: Any) -> str:
    return f"{key}/{part}" if key else str(part)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else None


def _parsed(value: Any) -> Any:
    """Return the tree of a text that is a JSON object, else the value."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _difference(old: Any, new: Any) -> str:
    """Describe how two leaves differ; empty if they are equal."""
    import torch

    if isinstance(old, torch.Tensor) and isinstance(new, torch.Tensor):
        if (old.dtype, old.shape) != (new.dtype, new.shape):
            return f"tensor of {old.dtype} {tuple(old.shape)}, now {new.dtype} {tuple(new.shape)}"
        old, new = (value.detach().cpu().to_dense() for value in (old, new))
        if torch.equal(old, new) or torch.equal(old.nan_to_num(), new.nan_to_num()):
            return ""
        return f"tensors differ by up to {float((old.double() - new.double()).abs().max()):.3g}"
    if isinstance(old, np.ndarray) and isinstance(new, np.ndarray):
        if (old.dtype, old.shape) != (new.dtype, new.shape):
            return f"array of {old.dtype} {old.shape}, now {new.dtype} {new.shape}"
        if np.array_equal(old, new, equal_nan=old.dtype.kind in "fc"):
            return ""
        if old.dtype.kind not in "fiub" or old.size == 1:
            return f"{old.tolist()!r}, now {new.tolist()!r}" if old.size == 1 else "arrays differ"
        return f"arrays differ by up to {np.abs(old.astype(float) - new.astype(float)).max():.3g}"
    both_nan = isinstance(old, float) and isinstance(new, float) and math.isnan(old) and math.isnan(new)
    if type(old) is type(new) and (both_nan or old == new):
        return ""
    return f"{_short(old)}, now {_short(new)}"


def _short(value: Any) -> str:
    text = f"array of {value.shape}" if hasattr(value, "shape") and value.shape else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


# --- files to trees


def load(paths: list[Path], root: str) -> Any:
    """Return the content of a file, or of TensorBoard's files of one folder, as a tree without the root's path."""
    path = paths[0]
    if "tfevents" in path.name:
        return _load_events(paths)
    loaders = {
        (".h5", ".hdf5"): _load_hdf5,
        (".pth", ".pt", ".ckpt"): _load_checkpoint,
        (".safetensors",): _load_safetensors,
        (".mp4", ".mkv", ".avi"): _load_video,
        (".png", ".jpg"): lambda picture: _pixels(picture.read_bytes()),
        (".json",): lambda file: json.loads(file.read_text()),
        (".jsonl",): lambda file: [json.loads(line) for line in file.read_text().splitlines()],
        (".yaml", ".yml"): _load_yaml,
        (".csv", ".tsv"): _load_table,
        (".txt", ".vtt", ".sh"): lambda file: file.read_text().splitlines(),
    }
    for suffixes, loader in loaders.items():
        if path.suffix in suffixes:
            return _without_root(loader(path), root)
    return np.frombuffer(path.read_bytes(), np.uint8)


def _without_root(value: Any, root: str) -> Any:
    if isinstance(value, str):
        return value.replace(root, "<root>")
    if isinstance(value, Mapping):
        return {_without_root(key, root): _without_root(item, root) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_root(item, root) for item in value]
    return value


def _load_hdf5(path: Path) -> Any:
    import h5py

    def tree(node: Any) -> dict[str, Any]:
        found: dict[str, Any] = {"attributes": {key: _value(value) for key, value in node.attrs.items()}}
        if isinstance(node, h5py.Dataset):
            return found | {"values": _value(node[()])}
        return found | {"members": {key: tree(node[key]) for key in node}}

    with h5py.File(path, "r") as file:
        return tree(file)


def _value(value: Any) -> Any:
    """Return numbers as arrays, so that their type is compared too, and text as text."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, np.ndarray) and value.dtype.kind in "OSU":
        return [_value(item) for item in value.ravel().tolist()]
    return np.asarray(value) if isinstance(value, np.generic) else value


def _load_checkpoint(path: Path) -> Any:
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)


def _load_safetensors(path: Path) -> Any:
    from safetensors.torch import load_file

    return load_file(path)


def _load_yaml(path: Path) -> Any:
    import yaml

    return yaml.safe_load(path.read_text())


def _load_table(path: Path) -> Any:
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ","))
    header, *others = rows or [[]]
    named = [dict(zip_longest(header, row, fillvalue=ABSENT)) if len(row) <= len(header) else row for row in others]
    return {"header": header, "rows": named}


def _load_video(path: Path) -> Any:
    """Return the stream's format, the container's comment, and the decoded frames with their times."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        about = {"codec": context.name, "format": str(context.pix_fmt), "rate": str(stream.average_rate)}
        about["comment"] = container.metadata.get("comment", "")
        frames = [(str(frame.pts), frame.to_ndarray()) for frame in container.decode(stream)]
    return about | {"times": [time for time, _ in frames], "frames": [pixels for _, pixels in frames]}


def _pixels(data: bytes) -> np.ndarray:
    from io import BytesIO

    from PIL import Image

    return np.asarray(Image.open(BytesIO(data)))


def _load_events(paths: list[Path]) -> Any:
    """Return tag -> step -> values in order; of text only that it is there, of hyperparameters their values."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    found: dict[str, dict[str, list[Any]]] = {}
    for path in paths:
        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                found.setdefault(value.tag, {}).setdefault(str(event.step), []).append(_event_value(value))
    return found


def _event_value(value: Any) -> Any:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from tensorboard.util import tensor_util

    plugin = value.metadata.plugin_data
    if plugin.plugin_name == "hparams":
        session = HParamsPluginData.FromString(plugin.content).session_start_info
        return {key: str(setting) for key, setting in session.hparams.items()}
    kind = value.WhichOneof("value")
    if kind == "image":
        return _pixels(value.image.encoded_image_string)
    if kind == "tensor":
        array = tensor_util.make_ndarray(value.tensor)
        return "(text)" if array.dtype.kind in "OSU" else array
    return value.simple_value if kind == "simple_value" else str(getattr(value, kind or "tag"))
