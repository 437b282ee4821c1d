"""Safe loading of downloaded checkpoints: only tensors and plain values, no code runs, memory use is bounded."""

import contextlib
import hashlib
import os
import re
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from vimoclip.errors import UserError, first_line

Model = TypeVar("Model", bound=nn.Module)


def read_zip_names(path: Path) -> list[str]:
    """Return the names in a zip file, [] for another file. Raises UserError for a damaged file or a zip bomb."""
    try:
        if not zipfile.is_zipfile(path):
            return []
        with zipfile.ZipFile(path) as archive:
            names, unpacked_size = archive.namelist(), sum(info.file_size for info in archive.infolist())
    except Exception as error:  # zipfile raises nearly any type
        raise UserError(f"is a damaged zip file ({error})", "download it again", path=path) from None
    size = path.stat().st_size
    if unpacked_size > 2 * size + 2**20:  # torch compresses only the code of TorchScript, and no tensor
        problem = f"has {size} bytes and would unpack to {unpacked_size}"
        raise UserError(problem, "save it again with torch.save", path=path)
    return names


@contextlib.contextmanager
def force_weights_only() -> Iterator[None]:
    """Force torch.load to use weights_only=True, also if a library passes False (ptlflow 0.4.0 does)."""
    variables = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "0"}
    previous = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in previous.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def load_tensors(path: Path) -> Any:
    """Call torch.load on the CPU with weights_only=True. Raises UserError for a file that it refuses."""
    read_zip_names(path)
    if tarfile.is_tarfile(path):  # torch's oldest format, through which code ran in torch before 2.6 (CVE-2025-32434)
        raise UserError("is a tar file", "save it again with torch.save", path=path)
    try:
        with warnings.catch_warnings(), force_weights_only():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles raise nearly any type
        reason, hint = _load_error_reason(str(error))
        problem = f"can't be loaded as a checkpoint of tensors and plain values: {reason}"
        raise UserError(problem, hint, path=path) from None


def load_model(build: Callable[[], Model], state: Mapping[str, torch.Tensor], path: Path) -> Model:
    """Return the model that `build` makes, with a state dict. `path`: file for the error message.

    Raises UserError like `load_state`, or if `build` fails. Where the model can be built on the meta device, that is
    found before memory is allocated, as a downloaded config may hold any value."""
    limit = 2 * len(state) + 100  # some towers replace their last layers
    # suppressed: some versions of timm read values of tensors, which the meta device does not have
    unreadable = contextlib.suppress(RuntimeError, NotImplementedError)
    with config_errors(path), _limit_parameters(limit, path), unreadable, torch.device("meta"):
        _check_state(build(), state, path)
    with config_errors(path):
        model = build()
    load_state(model, state, path)
    return model


@contextlib.contextmanager
def config_errors(path: Path) -> Iterator[None]:
    """Raise UserError for any error of a block that uses a config that may be damaged. `path`: for the message."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # open_clip, timm and torch raise many types for unexpected values
        problem = f"its config is invalid ({type(error).__name__}: {first_line(error)})"
        raise UserError(problem, "copy or download it again, or give another one", path=path) from None


def load_state(model: nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Load a state dict strictly. `path`: file for the error message.

    Raises UserError with the name of the first tensor that is missing, unknown or of another shape."""
    _check_state(model, state, path)
    model.load_state_dict(dict(state))


@contextlib.contextmanager
def _limit_parameters(limit: int, path: Path) -> Iterator[None]:
    """Raise UserError if the block creates more parameters than `limit`: modules without memory need time and RAM."""
    num_parameters = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal num_parameters
        num_parameters += 1
        if num_parameters > limit:
            raise UserError("its config has more layers than its weights", "copy or download it again", path=path)

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def _check_state(model: nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    expected = model.state_dict()
    mismatched = [key for key in expected if key not in state or expected[key].shape != state[key].shape]
    mismatched += [key for key in state if key not in expected]
    if mismatched:
        raise UserError(
            f"{len(mismatched)} tensors do not fit the model, the first is {mismatched[0]}",
            "give a checkpoint of the same architecture and number of classes",
            path=path,
        )


def weights_sha256(module: nn.Module) -> str:
    """Return the `tensors_sha256` of a module."""
    return tensors_sha256(module.state_dict())


def tensors_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 over the names, shapes and float32 values of a state dict's tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _load_error_reason(message: str) -> tuple[str, str]:
    """Return (reason, hint) for a message of torch.load."""
    if "weights_only" not in message and "Weights only" not in message:
        return (message.strip().splitlines() or ["it is damaged"])[0][:120], ""
    match = re.search(r"GLOBAL\s+([\w.]+)", message)
    reason = f"{match[1]} in it could run code" if match else "an object in it could run code, or the file is damaged"
    return reason, "save only its state dict with torch.save"
