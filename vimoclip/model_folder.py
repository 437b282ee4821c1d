"""A model folder, written by export_model.py: config.json, and the tensors of all parts of a model in one file."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_url, snapshot_download, try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from vimoclip import cli
from vimoclip.errors import UserError, first_line
from vimoclip.io import atomic, yaml_json

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
BACKBONE_LICENCE = "LICENSE-backbone"  # names of its texts begin with this
FORMAT, SCHEMA = "vimoclip", 1
FUSION, STUDENT, ENCODER = "fusion", "student", "encoder"  # the parts; a tensor's name begins with that of its part
HUB_PREFIX = "hf-hub:"
HINT = "give a folder that export_model.py wrote"


@dataclass(frozen=True)
class ModelFolder:
    """A folder with its config.json. `parts`: those that it contains."""

    path: Path
    config: dict[str, Any]
    parts: frozenset[str]

    @property
    def weights_path(self) -> Path:
        return self.path / WEIGHTS_FILE

    def window(self) -> tuple[float, float]:
        """Return length and stride of predict.py's windows, in seconds. Raises UserError."""
        try:
            seconds, stride = (float(self.config["window"][key]) for key in ("seconds", "stride_seconds"))
        except (KeyError, TypeError, ValueError):
            seconds = stride = 0.0
        if not (0 < seconds < math.inf and 0 < stride < math.inf):
            raise UserError("its window is not of two positive numbers", HINT, path=self.path / CONFIG_FILE)
        return seconds, stride

    def tensors(self, part: str) -> dict[str, torch.Tensor]:
        """Return the state dict of a part. Raises UserError if the folder does not contain it."""
        if part not in self.parts:
            raise UserError(f"does not contain the {part}", "export the model again with it", path=self.path)
        prefix = f"{part}."
        with _open_weights(self.weights_path) as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 - is not a dict
            return {name.removeprefix(prefix): file.get_tensor(name) for name in names}


def is_model_folder(path: Path) -> bool:
    """Return whether a folder has a config.json of this format, of any schema."""
    try:
        return (path / CONFIG_FILE).is_file() and yaml_json.read_json(path / CONFIG_FILE).get("format") == FORMAT
    except UserError:
        return False


def open_folder(path: Path) -> ModelFolder:
    """Open a model folder. Raises UserError if it is none, is incomplete, or has a newer schema."""
    config = yaml_json.read_json(path / CONFIG_FILE, HINT)
    if config.get("format") != FORMAT:
        raise UserError("is not the config.json of export_model.py", HINT, path=path / CONFIG_FILE)
    schema = config.get("schema")
    if schema != SCHEMA:
        problem = f"has schema {schema!r}, and this version reads {SCHEMA}"
        is_newer = isinstance(schema, int) and schema > SCHEMA
        raise UserError(problem, "update this project" if is_newer else "export the model again", path=path)
    if not (path / WEIGHTS_FILE).is_file():
        raise UserError("there is no such file", "copy it, or export the model again", path=path / WEIGHTS_FILE)
    with _open_weights(path / WEIGHTS_FILE) as file:
        parts = frozenset(name.partition(".")[0] for name in file.keys())  # noqa: SIM118
    return ModelFolder(path, config, parts)


def is_unfinished(path: Path) -> bool:
    """Return whether a folder is what an interrupted `write_folder` leaves: weights of this format, no config.json."""
    weights = path / WEIGHTS_FILE
    if {file.name for file in path.iterdir()} == {atomic.temporary_path(weights).name}:
        return True
    if (path / CONFIG_FILE).exists() or not weights.is_file():
        return False
    try:
        with _open_weights(weights) as file:
            return any(name.startswith(f"{FUSION}.") for name in file.keys())  # noqa: SIM118
    except UserError:
        return False


def write_folder(
    path: Path,
    config: Mapping[str, Any],
    parts: Mapping[str, Mapping[str, torch.Tensor]],
    texts: Mapping[str, str],
) -> Path:
    """Write the weights, other files, and config.json, which marks the folder complete; return it. Raises OSError.

    A model that was in the folder remains until the new weights are on the disk. `config`: without format and schema;
    `parts`: state dicts; `texts`: content of the other files by name."""
    tensors = {
        f"{part}.{name}": tensor.detach().cpu().contiguous()
        for part, state in parts.items()
        for name, tensor in state.items()
    }
    with atomic.open_atomic(path / WEIGHTS_FILE) as file:
        file.write(save(tensors, {"format": "pt"}))
        file.flush()
        file.check()
        for old in (path / CONFIG_FILE, *path.glob(f"{BACKBONE_LICENCE}*")):  # of another model
            if old.name not in texts:
                old.unlink(missing_ok=True)
    for name, text in texts.items():
        atomic.write_text(path / name, text)
    return yaml_json.write_json(path / CONFIG_FILE, {"format": FORMAT, "schema": SCHEMA, **config}).parent


def find_folder(name: str) -> Path:
    """Return the folder that `name` is: a path, or hf-hub:OWNER/NAME, which is downloaded unless it is in the cache.

    Raises UserError if it can't be downloaded."""
    if not name.startswith(HUB_PREFIX):
        return Path(name)
    repository = name.removeprefix(HUB_PREFIX)
    try:
        cached = [try_to_load_from_cache(repository, file) for file in (CONFIG_FILE, WEIGHTS_FILE)]
    except ValueError:  # of huggingface_hub, for a name that no repository can have
        raise UserError("is not a name on the Hugging Face Hub", f"give {HUB_PREFIX}OWNER/NAME", path=name) from None
    if all(isinstance(path, str) for path in cached):
        return Path(str(cached[0])).parent
    hint = "or download its files by hand and name the folder"
    cli.check_downloadable({"url": hf_hub_url(repository, CONFIG_FILE), "name": name, "hint": hint})
    try:
        return Path(snapshot_download(repository, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE, "README.md", "LICENSE*"]))
    except Exception as error:  # huggingface_hub and its HTTP client raise many types
        raise UserError(f"can't be downloaded: {first_line(error)}", hint, path=name) from None


def _open_weights(path: Path) -> Any:
    """Return an open safetensors file. Raises UserError if it is damaged."""
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise UserError(f"is damaged: {first_line(error)}", "copy or download it again", path=path) from None
