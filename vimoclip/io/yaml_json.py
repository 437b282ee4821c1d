"""Reading and atomic writing of YAML and JSON files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from vimoclip.errors import UserError
from vimoclip.io import atomic
from vimoclip.io.text import read_text

MAX_YAML_CHARACTERS = 100_000  # far above a run's settings
MAX_NUMBER_CHARACTERS = 200  # a longer number can't be converted to float, or printed


class _LoaderWithoutAliases(yaml.SafeLoader):
    """Safe loader that refuses aliases and long numbers, which have no bound when they are used."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it has an alias (*name); write the value instead")
        node = super().compose_node(parent, index)
        match node:
            case yaml.ScalarNode(tag=tag, value=value) if tag.endswith((":int", ":float")):
                if len(value) > MAX_NUMBER_CHARACTERS:
                    raise ValueError("a number in it is too long")
        return node


def write_yaml(path: Path, content: Mapping[str, Any]) -> Path:
    """Write a YAML file atomically and return its path. Raises OSError."""
    return atomic.write_text(path, yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True))


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, {} for an empty file. Raises UserError."""
    text = read_text(path, "name a YAML file", MAX_YAML_CHARACTERS + 1)
    try:
        content = parse_yaml(text)
    except ValueError as error:
        raise UserError(f"can't be read as YAML: {error}", path=path) from None
    if content is not None and not (isinstance(content, dict) and all(isinstance(key, str) for key in content)):
        raise UserError("must hold keys and values, like training: {epochs: 1}", path=path)
    return content or {}


def parse_yaml(text: str) -> Any:
    """Parse YAML that needs no code and has no aliases. Raises ValueError."""
    if len(text) > MAX_YAML_CHARACTERS:
        raise ValueError(f"it is longer than {MAX_YAML_CHARACTERS} characters")
    try:
        return _LoaderWithoutAliases(text).get_single_data()
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except Exception as error:  # PyYAML raises nearly any type for a value that doesn't fit its tag
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def read_json(path: Path, hint: str = "") -> dict[str, Any]:
    """Return the object in a JSON file. Raises UserError; `hint`: what to do if there is none."""
    try:
        content = json.loads(read_text(path, hint))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise UserError("is not a JSON object", hint, path=path)
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """Write a JSON file with sorted keys atomically and return its path. Raises OSError."""
    return atomic.write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=True) + "\n")
