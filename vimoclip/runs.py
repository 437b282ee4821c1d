"""Run folders and what is in them: checkpoints, seeds, metrics, TensorBoard; and the device that a run computes on."""

import csv
import hashlib
import io
import json
import random
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
import yaml

from vimoclip import UserError, __version__, files
from vimoclip.strangers import load_tensors

WRITTEN_ANEW = ("settings/", "_hparams_/")  # TensorBoard's tags of what every opening of a run says again
YAML_CHARACTERS, YAML_VALUES, YAML_LEVELS = 100_000, 100_000, 50  # what a run's settings never come near


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """auto, cpu, cuda, cuda:1, mps -> a device that is there. Raises UserError.

    Of several processes on one machine each gets a GPU of its own, where there are as many."""
    own = f"cuda:{local_rank % max(1, torch.cuda.device_count())}"
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device(own)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    name = own if name == "cuda" and local_rank else name
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: is not a device; give auto, cpu, cuda, cuda:1 or mps") from None
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= there.get(device.type, 0):
        raise UserError(f"--device {name}: there is none on this machine; give auto or cpu")
    return device


def pick_precision(name: str, device: torch.device) -> str:
    """auto -> bf16 on a GPU that computes in it, else fp32; on a CPU bf16 and int8 are only taken where asked for.

    (Without AMX bf16 may be several times slower there, and what a run gives would depend on the processor.)"""
    if name != "auto":
        return name
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The context in which a model runs in `precision` (fp32, bf16, fp16; int8 is the encoder's own doing)."""
    if precision in ("fp32", "int8"):
        return nullcontext()
    return torch.autocast(device.type, {"bf16": torch.bfloat16, "fp16": torch.float16}[precision])


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def epoch_order(length: int, seed: int, epoch: int) -> list[int]:
    """The order of one epoch: a function of seed and epoch alone, so that a resumed run goes on in it."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(length, generator=generator).tolist()


def random_state() -> dict[str, Any]:
    state: dict[str, Any] = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])


class Every:
    """True once every so many seconds; with 0 each time."""

    def __init__(self, seconds: float):
        self.seconds, self.last = seconds, time.monotonic()

    def __call__(self) -> bool:
        if time.monotonic() - self.last < self.seconds:
            return False
        self.last = time.monotonic()
        return True


def digest(content: Any) -> str:
    """A hash of plain values, by which a run knows again what it learns from."""
    return hashlib.sha256(repr(content).encode()).hexdigest()


def remove(folder: Path, logs: Path) -> None:
    """Remove a run, beginning with what it would go on from, or be called finished by, were this stopped."""
    for name in ("last.pth", "metrics.json"):
        (folder / name).unlink(missing_ok=True)
    for place in (folder, logs):
        if place.exists():
            shutil.rmtree(place)


def name_by_time() -> str:
    """Of a run that has no other name, like 20250328-003544."""
    return datetime.now().strftime("%Y%m%d-%H%M%S")


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> Path:
    """torch.save under its name only when whole. Content: tensors and plain Python, so that it loads safely."""
    with files.new_file(path) as file:
        torch.save(dict(content), cast(IO[bytes], file))
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `torch.load(weights_only=True)` gives; a plain state dict, with `module.` or not, comes as `state_dict`.

    Raises UserError, also for a file that would run code."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such checkpoint; name one that train.py or TFAM wrote")
    content = load_tensors(path)
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path}: holds no state dict; name a checkpoint that train.py or TFAM wrote")
    if "state_dict" not in content:
        content = {"state_dict": content}
    state = content["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise UserError(f"{path}: holds no state dict; name a checkpoint that train.py or TFAM wrote")
    content["state_dict"] = {k.removeprefix("module."): v for k, v in content["state_dict"].items()}
    return content


def load_state(model: torch.nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Load strictly. Raises UserError that names the first tensors that don't fit."""
    own = model.state_dict()
    wrong = [k for k in own if k not in state or own[k].shape != state[k].shape] + [k for k in state if k not in own]
    if wrong:
        raise UserError(
            f"{path}: {len(wrong)} tensors don't fit the model, the first is {wrong[0]}; "
            "is it a checkpoint of another architecture or number of classes?"
        )
    model.load_state_dict(dict(state))


def write_yaml(path: Path, content: Mapping[str, Any]) -> Path:
    return files.write_text(path, yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True))


def read_yaml(path: Path) -> dict[str, Any]:
    """A mapping from a YAML file. Raises UserError."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(YAML_CHARACTERS + 1)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; name one that is there") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); name a YAML file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not YAML: {error}") from None
    try:
        content = parse_yaml(text)
    except ValueError as error:
        raise UserError(f"{path}: is not YAML: {error}") from None
    if content is not None and not (isinstance(content, dict) and all(isinstance(key, str) for key in content)):
        raise UserError(f"{path}: must hold keys and values, like training: {{epochs: 1}}")
    return content or {}


def parse_yaml(text: str) -> Any:
    """The value of a YAML text, by the safe loader. Raises ValueError, also for one that would grow without bound."""
    if len(text) > YAML_CHARACTERS:
        raise ValueError(f"it is longer than {YAML_CHARACTERS} characters")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        values, levels = _expanded(node, {})
        if values > YAML_VALUES or levels > YAML_LEVELS:
            raise ValueError(f"with its aliases it has more than {YAML_VALUES} values, or {YAML_LEVELS} levels")
        return loader.construct_document(node)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except Exception as error:  # PyYAML raises nearly anything for a tag that its value doesn't fit
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def _expanded(node: yaml.Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """(values, levels) of a node once its aliases are followed; `known` holds what was counted before."""
    if id(node) not in known:
        if node.tag.endswith(":int") and len(node.value) > 100:
            raise ValueError("a number in it is too long")  # for a float, and to be printed
        known[id(node)] = YAML_VALUES, YAML_LEVELS  # an alias to what it stands in never ends
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in children for child in pair]
        counts = [_expanded(child, known) for child in children]
        known[id(node)] = 1 + sum(values for values, _ in counts), 1 + max((levels for _, levels in counts), default=0)
    return known[id(node)]


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    return files.write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=True) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return files.write_text(path, text.getvalue())


def versions() -> dict[str, str]:
    """What computed this: the project's own version and those of the packages that shape the numbers."""
    found = {"vimoclip": __version__}
    for package in ("torch", "torchvision", "open_clip_torch", "av", "opencv-python", "ptlflow", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def tensorboard(folder: Path, epoch: int, step: int) -> Any:
    """A SummaryWriter in a folder of which only what a run knows stays: up to this epoch, and up to this step.

    Tags that begin with `step/` or end with `_by_step` count steps, the others epochs. (SummaryWriter's purge_step
    compares both with one number.) What a checkpoint covers must be flushed before it is saved."""
    from torch.utils.tensorboard import SummaryWriter

    keep_events(folder, epoch, step)
    return SummaryWriter(str(folder))


def keep_events(folder: Path, epoch: int, step: int) -> None:
    """Rewrite a folder's event files as one that holds each (tag, step) once, up to this epoch and this step.

    Stopped anywhere, it leaves nothing lost; what it leaves doubled the next call mends."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    if not (written := sorted(folder.glob("*tfevents*"))):
        return
    events = known_events(written, epoch, step)
    temporary = folder / "events.partial"  # TensorBoard reads what has tfevents in its name
    with open(temporary, "wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())
    kept = folder / "events.out.tfevents.0000000000.kept"  # sorts, and so is read, before what SummaryWriter writes
    files.publish(temporary, kept)
    for path in written:
        if path != kept:
            path.unlink()


def known_events(paths: Iterable[Path], epoch: int, step: int) -> list[Any]:
    """Each (tag, step) of TensorBoard's files once, by step; a record that a kill cut short ends its file."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    found: dict[tuple[str, int], Event] = {}
    for path in paths:
        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.tag.startswith(WRITTEN_ANEW):
                    continue
                counts_steps = value.tag.startswith("step/") or value.tag.endswith("_by_step")
                if event.step <= (step if counts_steps else epoch):
                    summary = Summary(value=[value])
                    found[value.tag, event.step] = Event(wall_time=event.wall_time, step=event.step, summary=summary)
    # from this version on TensorBoard takes a smaller step for no restart, which would hide what came before
    return [Event(file_version="brain.Event:2"), *sorted(found.values(), key=lambda event: event.step)]
