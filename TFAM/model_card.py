"""The model card of an exported model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_files(output: Path, run: Path, document: Mapping[str, Any], parts: Any) -> None:
    """Write README.md and the licences."""
    output.mkdir(parents=True, exist_ok=True)
