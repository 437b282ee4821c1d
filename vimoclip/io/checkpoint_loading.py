"""Checkpoints from strangers: tensors and plain values come out of them, no code runs, and memory stays bounded."""

import contextlib
import os
import re
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from vimoclip.errors import UserError


def zip_names(path: Path) -> list[str]:
    """What a zip file holds, [] for another file. Raises UserError for one that is damaged or unpacks without bound."""
    try:
        if not zipfile.is_zipfile(path):
            return []
        with zipfile.ZipFile(path) as archive:
            names, unpacked = archive.namelist(), sum(info.file_size for info in archive.infolist())
    except Exception as error:  # zipfile raises nearly anything
        raise UserError(f"is a damaged zip file ({error})", "get it anew", path=path) from None
    size = path.stat().st_size
    if unpacked > 2 * size + 2**20:  # torch packs only the code of TorchScript, and no tensor
        raise UserError(f"has {size} bytes and would unpack to {unpacked}", "save it anew with torch.save", path=path)
    return names


@contextlib.contextmanager
def tensors_only() -> Iterator[None]:
    """torch.load reads tensors and plain values only, whatever a library asks of it (ptlflow 0.4.0 asks for more)."""
    ours = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "0"}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def load_tensors(path: Path) -> Any:
    """What torch.load makes of a checkpoint of tensors and plain values, on the CPU. Raises UserError for any other."""
    zip_names(path)
    if tarfile.is_tarfile(path):  # torch's oldest format, by which code ran in torch before 2.6 (CVE-2025-32434)
        raise UserError("is a tar file", "save it anew with torch.save", path=path)
    try:
        with warnings.catch_warnings(), tensors_only():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles raise nearly anything
        reason = _why_not_loaded(str(error))
        raise UserError(f"can't be loaded as a checkpoint of tensors and plain values: {reason}", path=path) from None


def _why_not_loaded(text: str) -> str:
    if "weights_only" not in text and "Weights only" not in text:
        return (text.strip().splitlines() or ["it is damaged"])[0][:120]
    found = re.search(r"GLOBAL\s+([\w.]+)", text)
    what = f"{found[1]} in it could run code" if found else "other things in it could run code, or it is damaged"
    return f"{what}; have it saved anew by torch.save with its state dict alone"
