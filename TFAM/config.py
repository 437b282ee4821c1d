"""A run's settings. `configs/default.yaml` holds the defaults and is the schema; a config holds only its difference."""

import argparse
import contextlib
import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from TFAM.model import Fusion, Pooling
from vimoclip.annotations.split_protocol import PUBLISHED, WATCHED
from vimoclip.errors import UserError
from vimoclip.io.yaml_json import parse_yaml, read_yaml
from vimoclip.store import rgb_path
from vimoclip.training.losses import MULTI_LABEL

DEFAULT = Path(__file__).parent / "configs" / "default.yaml"
Config = dict[str, dict[str, Any]]  # section -> key -> value

# what a key may hold beside null, where null is its default
NULLABLE: dict[str, type] = {
    "training.grad_clip_norm": float,
    "model.attention_dropout": float,
    "data.rgb_train_h5": str,
    "data.rgb_val_h5": str,
    "data.rgb_test_h5": str,
    "data.motion_h5": str,
    "data.annotations_dir": str,
    "data.protocol": str,
    "data.limit": int,
}
CHOICES: dict[str, tuple[str, ...]] = {
    "model.fusion": tuple(Fusion),
    "model.pooling": tuple(Pooling),
    "training.loss": tuple(MULTI_LABEL),
    "training.checkpoint": ("best", "last"),
    "data.motion": ("real", "none", "shuffled"),
    "data.protocol": tuple(WATCHED),
}
PLACES = {"data.rgb_train_h5", "data.rgb_val_h5", "data.rgb_test_h5", "data.motion_h5", "data.annotations_dir"}
FROM_ZERO = {"training.weight_decay", "training.min_lr"}
FRACTIONS = {"model.dropout", "model.attention_dropout", "model.classifier_dropout"}  # 0 or more, below 1
SEEDS = {"training.seed"}  # every other number is above 0


def from_arguments(args: argparse.Namespace, paths: Sequence[Path], base: Mapping[str, Any] | None = None) -> Config:
    """The config of a command line: the files', `--set`, `--seed` and `--limit`, with its inputs. Raises UserError."""
    flags = {"training.seed": args.seed, "data.limit": args.limit}
    config = load(paths, args.set + [f"{key}={value}" for key, value in flags.items() if value is not None], base)
    resolve_inputs(config, args.dataset_dir, args.dataset_name)
    return config


def load(paths: Sequence[Path], overrides: Iterable[str] = (), base: Mapping[str, Any] | None = None) -> Config:
    """Defaults, then `base`, then the files in turn, then `section.key=value` texts, checked. Raises UserError."""
    config: Config = read_yaml(DEFAULT)
    if base is not None:
        _merge(config, base, "the checkpoint")
    for path in paths:
        _merge(config, read_yaml(path), str(path))
    for text in overrides:
        _merge(config, _parse_override(text), f"--set {text}")
    if config["training"]["min_lr"] > config["training"]["lr"]:
        raise UserError(
            f"training.min_lr is {config['training']['min_lr']}, above training.lr {config['training']['lr']}",
            "the learning rate falls to min_lr: give a smaller one",
        )
    motion = config["data"]["motion"]
    if motion != "real" and config["model"]["fusion"] == Fusion.RGB:
        raise UserError(
            f"data.motion is {motion}, but model.fusion rgb sees no motion", "give one of the other fusions"
        )
    return config


def resolve_inputs(config: Config, dataset_dir: Path, name: str) -> None:
    """Fill in the embeddings' files and the annotations where the config leaves them to the data set."""
    folder = dataset_dir / "embeddings"
    defaults = {f"rgb_{split}_h5": rgb_path(folder, name, split) for split in ("train", "val", "test")}
    for key, path in {**defaults, "motion_h5": folder / "flow_embeddings.h5"}.items():
        config["data"][key] = config["data"][key] or str(path)
    config["data"]["annotations_dir"] = config["data"]["annotations_dir"] or str(dataset_dir / "annotations")


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings -> {"training.lr": 1e-4, ...}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def check_unchanged(old: Mapping[str, Any], new: Mapping[str, Any], where: Path | str, cure: str) -> None:
    """Raise UserError naming the first key in which a run's settings differ from those that it began with.

    A key that is younger than the run had its default: defaults are what was done before there was the key. Where the
    annotations are is no setting: of what they say the selection clips matter, which are compared by themselves."""
    defaults = flatten(read_yaml(DEFAULT)) | {"data.protocol": PUBLISHED}
    before, now = flatten(old), flatten(new)
    for key in sorted(before.keys() | now.keys()):
        if key.removeprefix("config.") == "data.annotations_dir":
            continue
        default = defaults.get(key.removeprefix("config."))
        was, is_now = before.get(key, default), now.get(key, default)
        if was != is_now:
            was, is_now = str(was)[:60], str(is_now)[:60]
            raise UserError(f"{where}: was made with {key} {was}, now it is {is_now}", cure)


def settings(config: Config) -> dict[str, Any]:
    """What sets a run apart from default.yaml, without its seed, files and protocol: {"model.fusion": "rgb", ...}."""
    defaults = flatten(read_yaml(DEFAULT))
    apart = {"training.seed", "data.protocol", *PLACES}
    return {k: v for k, v in flatten(config).items() if k not in apart and v != defaults[k]}


def _parse_override(text: str) -> dict[str, Any]:
    name, equals, value = text.partition("=")
    section, dot, key = name.partition(".")
    if not (equals and dot):
        raise UserError(f"--set {text}: give section.key=value, like --set training.epochs=1")
    try:
        return {section: {key: parse_yaml(value)}}
    except ValueError:
        raise UserError(f"--set {text}: {value!r} is not a YAML value") from None


def _merge(config: Config, changes: Mapping[str, Any], source: str) -> None:
    known = flatten(config)
    for section, content in changes.items():
        if section not in config:
            raise UserError(f"unknown section {section!r}", f"there are {', '.join(config)}", path=source)
        if content is not None and not isinstance(content, dict):
            raise UserError(f"{section} must hold keys and values, like training: {{epochs: 1}}", path=source)
        for key, value in (content or {}).items():
            name = f"{section}.{key}"
            if name not in known:
                near = difflib.get_close_matches(name, known, n=3) or [k for k in known if k.startswith(section + ".")]
                raise UserError(f"unknown key {name}", f"the nearest are {', '.join(near)}", path=source)
            config[section][key] = _checked(name, value, known[name], source)


def _checked(name: str, value: Any, default: Any, source: str) -> Any:
    """The value in its key's type and range. PyYAML reads `1e-4` as text, so a number may come as one."""
    if name in NULLABLE and (value is None or value in ("None", "none")):
        return None
    kind = NULLABLE.get(name, type(default))
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            value = float(value)
    fits = type(value) is kind
    if not fits:
        what = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}[kind]
        raise UserError(f"{name} is {repr(value)[:60]}, but must be {what}", path=source)
    if name in CHOICES and value not in CHOICES[name]:
        raise UserError(f"{name} is {repr(value)[:60]}, but must be one of {', '.join(CHOICES[name])}", path=source)
    if kind in (int, float) and (not math.isfinite(value) or not _in_range(name, value)):
        limits = {"from 0 to below 1": FRACTIONS, "0 or more": FROM_ZERO, "from 0 to 2^32 - 1": SEEDS}
        must = next((words for words, names in limits.items() if name in names), "above 0")
        raise UserError(f"{name} is {value}, but must be {must}", path=source)
    return value


def _in_range(name: str, value: float) -> bool:
    if name in FRACTIONS:
        return 0 <= value < 1
    if name in SEEDS:
        return 0 <= value < 2**32
    return value > 0 or (name in FROM_ZERO and value == 0)
