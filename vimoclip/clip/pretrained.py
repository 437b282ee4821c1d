"""Resolve model names and pretrained tags to open_clip architectures and weight files."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from huggingface_hub import constants as hub_constants
from huggingface_hub import hf_hub_url, try_to_load_from_cache
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.factory import _find_checkpoint_in_dir
from torch import nn

from vimoclip.errors import UserError
from vimoclip.io.checkpoint_loading import load_tensors, read_zip_names
from vimoclip.model_folder import HUB_PREFIX, is_model_folder

# OpenAI's name -> open_clip's
OPENAI_NAMES = {
    "ViT-B/32": "ViT-B-32",
    "ViT-B/16": "ViT-B-16",
    "ViT-L/14": "ViT-L-14",
    "ViT-L/14@336px": "ViT-L-14-336",
}

LOCAL_PREFIX = "local-dir:"  # of a folder in open_clip's format, or a model folder
SUFFIXES_WITHOUT_PICKLE = (".safetensors", ".npz", ".npy")  # open_clip reads these without torch.load


def local_folder(name: str) -> Path | None:
    """Return the folder of `local-dir:<folder>`, None for another name."""
    return Path(name.removeprefix(LOCAL_PREFIX)) if name.startswith(LOCAL_PREFIX) else None


def canonical_name(name: str) -> str:
    """Return OpenAI's name of a model if it has one; a folder's name without its path."""
    if folder := local_folder(name):
        return LOCAL_PREFIX + folder.resolve().name
    base_name = name.removesuffix("-quickgelu")
    return {ours: openai for openai, ours in OPENAI_NAMES.items()}.get(base_name, base_name)


def hub_repository(name: str, pretrained: str | None) -> str | None:
    """Return the repository of a model's weights on the Hugging Face Hub, None for a folder, a file or a bare URL."""
    if name.startswith(HUB_PREFIX):
        return name.removeprefix(HUB_PREFIX)
    return _tag_repository(_tag_config(OPENAI_NAMES.get(name, name), pretrained))


def missing_download(name: str, pretrained: str | None) -> dict[str, str] | None:
    """Return `url`, `name` and `hint` of a file that `load_encoder` would download, or None. Raises UserError."""
    if (folder := local_folder(name)) and is_model_folder(folder):
        return None
    source, _ = resolve_model(name, pretrained)
    if source.startswith(HUB_PREFIX):
        repository = source.removeprefix(HUB_PREFIX)
        url = hf_hub_url(repository, HF_SAFE_WEIGHTS_NAME)
        hint = "put it and its open_clip_config.json into a folder, and give --clip-model-name local-dir:FOLDER"
        return {"url": url, "name": name, "hint": hint}
    if source.startswith("local-dir:") or find_weights_file(source, pretrained):
        return None
    cfg = _tag_config(source, pretrained)
    if not cfg:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(source)) or "none"
        raise UserError(
            f"{pretrained}: is neither a file nor a tag of {name} (tags: {tags})", "give one with --clip-pretrained"
        )
    if tag_repository := _tag_repository(cfg):
        url = hf_hub_url(tag_repository, _hub_file_names(cfg)[0])
        target = f"{hub_constants.HF_HUB_CACHE} (in the layout of huggingface_hub)"
    else:
        url, target = cfg["url"], str(_download_dir() / cfg["url"].rpartition("/")[2])
    hint = f"put it at {target}, or give a file with --clip-pretrained"
    return {"url": url, "name": f"the weights {pretrained} of {name}", "hint": hint}


def resolve_model(name: str, pretrained: str | None) -> tuple[str, bool]:
    """Return open_clip's name and whether to use QuickGELU, which depends on the weights.

    Raises UserError."""
    if ":" in name and pretrained not in (None, "openai"):  # "openai" is the flag's default
        raise UserError(f"--clip-pretrained {pretrained}: {name} contains its own weights", "omit the flag")
    if name.startswith(HUB_PREFIX):
        folder = cached_snapshot(name)
        has_weights = folder and any((folder / file).is_file() for file in (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME))
        return (f"local-dir:{folder}", False) if has_weights else (name, False)
    if local := local_folder(name):
        if not (local / "open_clip_config.json").is_file():
            raise UserError(
                "does not exist",
                "give --clip-model-name local-dir:FOLDER with a folder in open_clip's format, or of export_model.py",
                path=local / "open_clip_config.json",
            )
        return name, False
    source = OPENAI_NAMES.get(name, name)
    config = open_clip.get_model_config(source)
    if config is None:
        raise UserError(
            f"{name}: is not a model of open_clip", "see open_clip.list_models(), or give local-dir:<folder>"
        )
    if pretrained is None:
        raise UserError(f"{name}: needs weights", "give a tag or a file with --clip-pretrained")
    tag = _tag_config(source, pretrained)
    tag_quick_gelu = tag.get("quick_gelu", False) if tag else None
    if name in OPENAI_NAMES:
        return source, True if tag_quick_gelu is None else tag_quick_gelu
    if tag_quick_gelu is not None and tag_quick_gelu != config.get("quick_gelu", False):
        other = f"{source}-quickgelu" if tag_quick_gelu else source.removesuffix("-quickgelu")
        print(f"warning: {pretrained} was trained with another activation than that of {name}; use {other}")
    return source, config.get("quick_gelu", False)


def cached_snapshot(name: str) -> Path | None:
    """Return the folder of `hf-hub:<repository>` in the cache of the Hugging Face Hub, None if it isn't there."""
    config = try_to_load_from_cache(name.removeprefix(HUB_PREFIX), "open_clip_config.json")
    return Path(config).parent if isinstance(config, str) else None


def _tag_config(source: str, pretrained: str | None) -> dict[str, Any]:
    if not pretrained or ":" in source:
        return {}
    return open_clip.get_pretrained_cfg(source, pretrained) or open_clip.get_pretrained_cfg(
        f"{source}-quickgelu", pretrained
    )


def _tag_repository(cfg: Mapping[str, Any]) -> str | None:
    return cfg.get("hf_hub", "").rpartition("/")[0] or None


def find_weights_file(source: str, pretrained: str | None) -> Path | None:
    """Return the weights file if it is on this machine, None if it must be downloaded."""
    if folder := local_folder(source):
        checkpoint = _find_checkpoint_in_dir(folder)
        return Path(checkpoint) if checkpoint else None
    if ":" in source or not pretrained:
        return None
    cfg = _tag_config(source, pretrained)
    if not cfg:
        return Path(pretrained) if Path(pretrained).is_file() else None
    if repository := _tag_repository(cfg):
        for name in _hub_file_names(cfg):
            if isinstance(cached := try_to_load_from_cache(repository, name), str):
                return Path(cached)
    if url := cfg.get("url"):
        cached_file = _download_dir() / url.rpartition("/")[2]
        if cached_file.is_file() and _file_sha256(cached_file) == url.split("/")[-2]:
            return cached_file
    return None


def preprocess_config(source: str, pretrained: str | None) -> dict[str, Any]:
    """Return a tag's preprocessing; for weights from a file, that of the model's first tag."""
    cfg = _tag_config(source, pretrained)
    if not cfg and ":" not in source and (tags := open_clip.list_pretrained_tags_by_model(source)):
        cfg = open_clip.get_pretrained_cfg(source, tags[0])
    return {k: cfg[k] for k in ("mean", "std", "interpolation", "resize_mode") if k in cfg}


def _hub_file_names(cfg: dict[str, Any]) -> list[str]:
    name = cfg["hf_hub"].rpartition("/")[2]
    return [name] if name else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]


def _download_dir() -> Path:
    return Path("~/.cache/clip").expanduser()  # the download folder of OpenAI's clip and of open_clip


def is_torchscript(path: Path) -> bool:
    return any("/code/" in name for name in read_zip_names(path))


def _openai_sha256() -> set[str]:
    urls = (open_clip.get_pretrained_cfg(model, "openai").get("url", "") for model in open_clip.list_models())
    return {url.split("/")[-2] for url in urls if url}


def check_weights_file(path: Path) -> None:
    """Raise UserError for weights that could run code, such as TorchScript files other than OpenAI's."""
    if is_torchscript(path):
        if _file_sha256(path) not in _openai_sha256():
            raise UserError(
                "is a TorchScript file, which contains code, and not one of OpenAI's",
                "save its state dict with torch.save or as safetensors",
                path=path,
            )
    elif path.suffix not in SUFFIXES_WITHOUT_PICKLE:
        load_tensors(path)  # open_clip, with torch before 2.6, may fall back to an unsafe load


def load_torchscript(model: nn.Module, path: Path) -> None:
    state = torch.jit.load(path, map_location="cpu").state_dict()
    weights = {k: v.float() for k, v in state.items() if k not in ("input_resolution", "context_length", "vocab_size")}
    model.load_state_dict(weights)


def _file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
