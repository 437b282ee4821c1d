"""Which architecture and which weights a name stands for, and where the weights are."""

import hashlib
from pathlib import Path
from typing import Any

import open_clip
import torch
from huggingface_hub import constants as hub_constants
from huggingface_hub import hf_hub_url, try_to_load_from_cache
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.factory import _find_checkpoint_in_dir
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from torch import nn

from vimoclip.errors import UserError
from vimoclip.io.checkpoint_loading import load_tensors, zip_names

# OpenAI's spelling -> open_clip's
OPENAI_NAMES = {
    "ViT-B/32": "ViT-B-32",
    "ViT-B/16": "ViT-B-16",
    "ViT-L/14": "ViT-L-14",
    "ViT-L/14@336px": "ViT-L-14-336",
}

NO_PICKLE = (".safetensors", ".npz", ".npy")  # what open_clip reads otherwise than by torch.load


def canonical_name(name: str) -> str:
    """OpenAI's spelling where there is one; a folder's own name without its path."""
    if name.startswith("local-dir:"):
        return "local-dir:" + Path(name.removeprefix("local-dir:")).resolve().name
    plain = name.removesuffix("-quickgelu")
    return {ours: openai for openai, ours in OPENAI_NAMES.items()}.get(plain, plain)


def missing_download(name: str, pretrained: str | None) -> dict[str, str] | None:
    """`url`, `what` and `cure` of a file that `load` would have to download, or None."""
    source, _ = resolve(name, pretrained)
    if source.startswith("hf-hub:"):
        repository = source.removeprefix("hf-hub:")
        url = hf_hub_url(repository, HF_SAFE_WEIGHTS_NAME)
        cure = "and open_clip_config.json beside it, put both into a folder and give --clip-model-name local-dir:FOLDER"
        return {"url": url, "what": name, "cure": cure}
    if source.startswith("local-dir:") or weights_file(source, pretrained):
        return None
    cfg = _tag(source, pretrained)
    if not cfg:
        tags = ", ".join(list_pretrained_tags_by_model(source)) or "none"
        raise UserError(
            f"{pretrained}: is neither a file nor a tag of {name} (its tags: {tags})", "give one with --clip-pretrained"
        )
    if repository := cfg.get("hf_hub", "").rpartition("/")[0]:
        url = hf_hub_url(repository, _hub_names(cfg)[0])
        where = f"{hub_constants.HF_HUB_CACHE} (as the hub's client lays it out)"
    else:
        url, where = cfg["url"], str(_clip_cache() / cfg["url"].rpartition("/")[2])
    cure = f"put it at {where}, or name a file with --clip-pretrained"
    return {"url": url, "what": f"the weights {pretrained} of {name}", "cure": cure}


def resolve(name: str, pretrained: str | None) -> tuple[str, bool]:
    """(open_clip's name, QuickGELU?). The activation follows the weights: DESIGN decision 7."""
    if ":" in name and pretrained not in (None, "openai"):  # "openai" is the flag's default
        raise UserError(f"--clip-pretrained {pretrained}: {name} holds its own weights", "leave the flag out")
    if name.startswith("hf-hub:"):
        config = try_to_load_from_cache(name.removeprefix("hf-hub:"), "open_clip_config.json")
        folder = Path(config).parent if isinstance(config, str) else Path()
        whole = any((folder / file).is_file() for file in (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME))
        return (f"local-dir:{folder}", False) if isinstance(config, str) and whole else (name, False)
    if name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:"))
        if not (folder / "open_clip_config.json").is_file():
            raise UserError(
                "there is no such file",
                "give --clip-model-name local-dir:FOLDER with a folder in open_clip's format",
                path=folder / "open_clip_config.json",
            )
        return name, False
    openai = name in OPENAI_NAMES
    source = OPENAI_NAMES.get(name, name)
    config = open_clip.get_model_config(source)
    if config is None:
        raise UserError(
            f"{name}: open_clip has no such model", "see open_clip.list_models(), or give local-dir:<folder>"
        )
    if pretrained is None:
        raise UserError(f"{name}: needs weights", "give a tag or a file with --clip-pretrained")
    tag = _tag(source, pretrained)
    tag_quick_gelu = tag.get("quick_gelu", False) if tag else None
    if openai:
        return source, True if tag_quick_gelu is None else tag_quick_gelu
    if tag_quick_gelu is not None and tag_quick_gelu != config.get("quick_gelu", False):
        other = f"{source}-quickgelu" if tag_quick_gelu else source.removesuffix("-quickgelu")
        print(f"warning: {pretrained} was trained with another activation than {name} has; {other} fits it")
    return source, config.get("quick_gelu", False)


def _tag(source: str, pretrained: str | None) -> dict[str, Any]:
    if not pretrained or ":" in source:
        return {}
    return get_pretrained_cfg(source, pretrained) or get_pretrained_cfg(f"{source}-quickgelu", pretrained)


def weights_file(source: str, pretrained: str | None) -> Path | None:
    """The file with the weights where it is on this machine; None where it must be downloaded."""
    if source.startswith("local-dir:"):
        found = _find_checkpoint_in_dir(Path(source.removeprefix("local-dir:")))
        return Path(found) if found else None
    if ":" in source or not pretrained:
        return None
    cfg = _tag(source, pretrained)
    if not cfg:
        return Path(pretrained) if Path(pretrained).is_file() else None
    if repository := cfg.get("hf_hub", "").rpartition("/")[0]:
        for name in _hub_names(cfg):
            if isinstance(cached := try_to_load_from_cache(repository, name), str):
                return Path(cached)
    if url := cfg.get("url"):
        cached_file = _clip_cache() / url.rpartition("/")[2]
        if cached_file.is_file() and _file_sha256(cached_file) == url.split("/")[-2]:
            return cached_file
    return None


def tag_preprocess(source: str, pretrained: str | None) -> dict[str, Any]:
    """How a tag's images are prepared; for weights from a file, how the model's first tag's are."""
    cfg = _tag(source, pretrained)
    if not cfg and ":" not in source and (tags := list_pretrained_tags_by_model(source)):
        cfg = get_pretrained_cfg(source, tags[0])
    return {k: cfg[k] for k in ("mean", "std", "interpolation", "resize_mode") if k in cfg}


def _hub_names(cfg: dict[str, Any]) -> list[str]:
    name = cfg["hf_hub"].rpartition("/")[2]
    return [name] if name else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]


def _clip_cache() -> Path:
    return Path("~/.cache/clip").expanduser()  # where OpenAI's and open_clip's own downloads go


def is_torchscript(path: Path) -> bool:
    return any("/code/" in name for name in zip_names(path))


def _openai_sha256() -> set[str]:
    urls = (get_pretrained_cfg(model, "openai").get("url", "") for model in open_clip.list_models())
    return {url.split("/")[-2] for url in urls if url}


def check_weights(path: Path) -> None:
    """Raise UserError for weights from which code could run; TorchScript holds code, so only OpenAI's may be it."""
    if is_torchscript(path):
        if _file_sha256(path) not in _openai_sha256():
            raise UserError(
                "is a TorchScript file, which holds code, and not one of OpenAI's",
                "save its state dict with torch.save or as safetensors",
                path=path,
            )
    elif path.suffix not in NO_PICKLE:
        load_tensors(path)  # before open_clip does, which with torch before 2.6 may fall back to running what it says


def load_torchscript(model: nn.Module, path: Path) -> None:
    state = torch.jit.load(path, map_location="cpu").state_dict()
    own = {k: v.float() for k, v in state.items() if k not in ("input_resolution", "context_length", "vocab_size")}
    model.load_state_dict(own)


def _file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
