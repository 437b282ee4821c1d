"""Configs of runs. configs/default.yaml is the schema and has all defaults; other configs hold only differences."""

import argparse
import contextlib
import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from TFAM.packing import Fusion, Pooling
from vimoclip import cli
from vimoclip.annotations.few_shot import ALL_CLIPS
from vimoclip.annotations.split_protocol import MONITOR_SPLIT
from vimoclip.errors import UserError
from vimoclip.io.yaml_json import parse_yaml, read_yaml
from vimoclip.store import rgb_embeddings_path
from vimoclip.training.losses import MULTI_LABEL_LOSSES

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "default.yaml"
VARIANTS = DEFAULT_CONFIG.with_name("variants.yaml")
Config = dict[str, dict[str, Any]]  # section -> key -> value

# type of the keys whose default is null
NULLABLE: dict[str, type] = {
    "training.grad_clip_norm": float,
    "training.init": str,
    "model.attention_dropout": float,
    "data.rgb_train_h5": str,
    "data.rgb_val_h5": str,
    "data.rgb_test_h5": str,
    "data.motion_h5": str,
    "data.annotations_dir": str,
    "data.protocol": str,
    "data.limit": int,
    "data.shots": int,
}
CHOICES: dict[str, tuple[str, ...]] = {
    "model.fusion": tuple(Fusion),
    "model.pooling": tuple(Pooling),
    "training.loss": tuple(MULTI_LABEL_LOSSES),
    "training.checkpoint": ("best", "last"),
    "data.motion": ("real", "none", "shuffled"),
    "data.protocol": tuple(MONITOR_SPLIT),
}
INPUT_KEYS = {"data.rgb_train_h5", "data.rgb_val_h5", "data.rgb_test_h5", "data.motion_h5", "data.annotations_dir"}
FRACTION = (lambda number: 0 <= number < 1), "from 0 to below 1"
NON_NEGATIVE = (lambda number: number >= 0), "0 or more"
RANGES: dict[str, tuple[Callable[[float], bool], str]] = {  # all other numbers are positive
    "model.dropout": FRACTION,
    "model.attention_dropout": FRACTION,
    "model.classifier_dropout": FRACTION,
    "training.weight_decay": NON_NEGATIVE,
    "training.min_lr": NON_NEGATIVE,
    "training.seed": ((lambda number: 0 <= number < 2**32), "from 0 to 2^32 - 1"),
}


def from_arguments(args: argparse.Namespace, paths: Sequence[Path], base: Mapping[str, Any] | None = None) -> Config:
    """Build the config of a command line: its files, `--set`, `--seed` (the first), `--limit`. Raises UserError."""
    flags = {"training.seed": args.seed[0] if args.seed else None, "data.limit": args.limit}
    config = load(paths, args.set + [f"{key}={value}" for key, value in flags.items() if value is not None], base)
    resolve_inputs(config, args.dataset_dir, args.dataset_name)
    return config


def load(paths: Sequence[Path], overrides: Iterable[str] = (), base: Mapping[str, Any] | None = None) -> Config:
    """Merge and check: defaults, `base`, the files in order, then `section.key=value` overrides. Raises UserError."""
    config: Config = read_yaml(DEFAULT_CONFIG)
    if base is not None:
        _merge(config, base, "the checkpoint")
    for path in paths:
        _merge(config, read_config(path), str(path))
    for text in overrides:
        _merge(config, _parse_override(text), f"--set {text}")
    if config["training"]["min_lr"] > config["training"]["lr"]:
        raise UserError(
            f"training.min_lr is {config['training']['min_lr']}, above training.lr {config['training']['lr']}",
            "the learning rate falls to min_lr: give a smaller one",
        )
    motion, fusion = config["data"]["motion"], Fusion(config["model"]["fusion"])
    if motion != "real" and not fusion.uses_motion:
        raise UserError(
            f"data.motion is {motion}, but model.fusion {fusion} sees no motion", "give one of the other fusions"
        )
    return config


def read_config(path: Path) -> dict[str, Any]:
    """Read a YAML file, or the variant that `<name>` or `configs/<name>.yaml` names. Raises UserError."""
    if path.is_file():
        return read_yaml(path)
    variants = read_yaml(VARIANTS)
    name = path.stem if path.parent.name == "configs" else str(path)
    if name not in variants:
        nearest = difflib.get_close_matches(name, variants, n=3) or variants
        raise UserError("there is no such file or variant", f"the nearest variants are {', '.join(nearest)}", path=path)
    return variants[name]


def resolve_inputs(config: Config, dataset_dir: Path, dataset_name: str) -> None:
    """Fill in the paths of embeddings and annotations that are null with those of the data set, in place.

    {seed} in a path becomes the seed of the run, and {shots} its shots or `all`, so that a command can read the motion
    of several students."""
    folder = dataset_dir / "embeddings"
    defaults = {
        f"rgb_{split}_h5": rgb_embeddings_path(folder, dataset_name, split) for split in ("train", "val", "test")
    }
    for key, path in {**defaults, "motion_h5": folder / "flow_embeddings.h5"}.items():
        config["data"][key] = config["data"][key] or str(path)
    config["data"]["annotations_dir"] = config["data"]["annotations_dir"] or str(dataset_dir / "annotations")
    for key in (name.removeprefix("data.") for name in INPUT_KEYS):
        names = {"{seed}": config["training"]["seed"], "{shots}": config["data"]["shots"] or ALL_CLIPS}
        for name, value in names.items():
            config["data"][key] = config["data"][key].replace(name, str(value))


def logged_sections(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sections of a run's config that TensorBoard shows."""
    return {section: config[section] for section in ("training", "data", "model")}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings into {"training.lr": 1e-4, ...}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def check_unchanged(old: Mapping[str, Any], new: Mapping[str, Any], path: Path, hint: str) -> None:
    """Raise UserError with the first key in which the settings of the run at `path` differ from the new ones.

    data.annotations_dir is not compared, since the hash of the model-selection split is."""
    old_flat, new_flat = flatten(old), flatten(new)
    keys = sorted(key for key in old_flat | new_flat if not key.endswith("data.annotations_dir"))
    previous, current = ({key: flat.get(key) for key in keys} for flat in (old_flat, new_flat))
    cli.check_settings_match(current, previous, "this command", str(path), hint)


def changed_settings(config: Config) -> dict[str, Any]:
    """Return what differs from default.yaml, like {"model.fusion": "rgb"}, without seed, protocol and paths."""
    defaults = flatten(read_yaml(DEFAULT_CONFIG))
    excluded = {"training.seed", "data.protocol", *INPUT_KEYS}
    return {k: v for k, v in flatten(config).items() if k not in excluded and v != defaults[k]}


def _parse_override(text: str) -> dict[str, Any]:
    name, equals, value = text.partition("=")
    section, dot, key = name.partition(".")
    if not (equals and dot):
        raise UserError("give section.key=value, like --set training.epochs=1", path=f"--set {text}")
    try:
        return {section: {key: parse_yaml(value)}}
    except ValueError:
        raise UserError(f"{value!r} is not a YAML value", path=f"--set {text}") from None


def _merge(config: Config, changes: Mapping[str, Any], source: str) -> None:
    """Apply changes in place. `source`: file or flag, for error messages. Raises UserError."""
    defaults = flatten(config)
    for section, content in changes.items():
        if section not in config:
            raise UserError(f"unknown section {section!r}", f"there are {', '.join(config)}", path=source)
        if content is not None and not isinstance(content, dict):
            raise UserError(f"{section} must hold keys and values, like training: {{epochs: 1}}", path=source)
        for key, value in (content or {}).items():
            name = f"{section}.{key}"
            if name not in defaults:
                in_section = [k for k in defaults if k.startswith(section + ".")]
                nearest = difflib.get_close_matches(name, defaults, n=3) or in_section
                raise UserError(f"unknown key {name}", f"the nearest are {', '.join(nearest)}", path=source)
            config[section][key] = _validate(name, value, defaults[name], source)


def _validate(name: str, value: Any, default: Any, source: str) -> Any:
    """Return the value in its key's type; raise UserError for another type or range. PyYAML reads `1e-4` as text."""
    if name in NULLABLE and (value is None or value in ("None", "none")):
        return None
    value_type = NULLABLE.get(name, type(default))
    if value_type is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            value = float(value)
    has_type = type(value) is value_type  # a variable: mypy would narrow `value` to object
    if not has_type:
        expected = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}[value_type]
        raise UserError(f"{name} is {repr(value)[:60]}, but must be {expected}", path=source)
    if name in CHOICES and value not in CHOICES[name]:
        raise UserError(f"{name} is {repr(value)[:60]}, but must be one of {', '.join(CHOICES[name])}", path=source)
    if value_type in (int, float):
        is_allowed, expected = RANGES.get(name, (lambda number: number > 0, "above 0"))
        if not (math.isfinite(value) and is_allowed(value)):
            raise UserError(f"{name} is {value}, but must be {expected}", path=source)
    return value
