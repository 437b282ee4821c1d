"""Reading and atomic writing of YAML and JSON files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from vimoclip.errors import UserError
from vimoclip.io import atomic
from vimoclip.io.text import read_text

MAX_YAML_CHARACTERS, MAX_YAML_VALUES, MAX_YAML_LEVELS = 100_000, 100_000, 50  # far above a run's settings


def write_yaml(path: Path, content: Mapping[str, Any]) -> Path:
    """Write a YAML file atomically and return its path. Raises OSError."""
    return atomic.write_text(path, yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True))


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, {} for an empty file. Raises UserError."""
    text = read_text(path, "name a YAML file", MAX_YAML_CHARACTERS + 1)
    try:
        content = parse_yaml(text)
    except ValueError as error:
        raise UserError(f"is not YAML: {error}", path=path) from None
    if content is not None and not (isinstance(content, dict) and all(isinstance(key, str) for key in content)):
        raise UserError("must hold keys and values, like training: {epochs: 1}", path=path)
    return content or {}


def parse_yaml(text: str) -> Any:
    """Parse YAML with the safe loader. Raises ValueError, also for aliases that expand without bound."""
    if len(text) > MAX_YAML_CHARACTERS:
        raise ValueError(f"it is longer than {MAX_YAML_CHARACTERS} characters")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        values, levels = _expanded_size(node, {})
        if values > MAX_YAML_VALUES or levels > MAX_YAML_LEVELS:
            raise ValueError(f"with its aliases it has more than {MAX_YAML_VALUES} values, or {MAX_YAML_LEVELS} levels")
        return loader.construct_document(node)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except Exception as error:  # PyYAML raises nearly any type for a value that doesn't fit its tag
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def _expanded_size(node: yaml.Node, sizes: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Return (values, levels) of a node after expansion of its aliases; `sizes` caches results by node id."""
    if id(node) not in sizes:
        if node.tag.endswith(":int") and len(node.value) > 100:
            raise ValueError("a number in it is too long")  # for conversion to float, and for messages
        sizes[id(node)] = MAX_YAML_VALUES, MAX_YAML_LEVELS  # an alias inside its own anchor never ends
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in children for child in pair]
        counts = [_expanded_size(child, sizes) for child in children]
        sizes[id(node)] = 1 + sum(values for values, _ in counts), 1 + max((levels for _, levels in counts), default=0)
    return sizes[id(node)]


def read_json(path: Path, hint: str = "") -> dict[str, Any]:
    """Return the object in a JSON file. Raises UserError; `hint`: what to do if there is none."""
    try:
        content = json.loads(read_text(path, hint))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise UserError("is no JSON object", hint, path=path)
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """Write a JSON file with sorted keys atomically and return its path. Raises OSError."""
    return atomic.write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=True) + "\n")
