"""Run folders and what is in them: checkpoints, seeds, metrics, TensorBoard; and the device that a run computes on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from vimoclip.errors import UserError
from vimoclip.io import atomic

YAML_CHARACTERS, YAML_VALUES, YAML_LEVELS = 100_000, 100_000, 50  # what a run's settings never come near


def write_yaml(path: Path, content: Mapping[str, Any]) -> Path:
    return atomic.write_text(path, yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True))


def read_yaml(path: Path) -> dict[str, Any]:
    """A mapping from a YAML file. Raises UserError."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(YAML_CHARACTERS + 1)
    except FileNotFoundError:
        raise UserError("there is no such file", "name one that is there", path=path) from None
    except OSError as error:
        raise UserError(f"can't be read ({error.strerror})", "name a YAML file", path=path) from None
    except UnicodeDecodeError as error:
        raise UserError(f"is not YAML: {error}", path=path) from None
    try:
        content = parse_yaml(text)
    except ValueError as error:
        raise UserError(f"is not YAML: {error}", path=path) from None
    if content is not None and not (isinstance(content, dict) and all(isinstance(key, str) for key in content)):
        raise UserError("must hold keys and values, like training: {epochs: 1}", path=path)
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
    return atomic.write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=True) + "\n")
