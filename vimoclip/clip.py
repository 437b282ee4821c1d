"""The only user of open_clip: an image encoder and its preprocessing of uint8 batches, as one thing.

`load` gives the teacher (and what the student starts as), `build` the same tower without weights from a `config`,
a plain dictionary that says all that is needed to rebuild it and to prepare its input."""

import hashlib
import warnings
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import open_clip
import torch
import torchvision.transforms.functional as vision
from huggingface_hub import constants as hub_constants
from huggingface_hub import hf_hub_url, try_to_load_from_cache
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.model import _build_vision_tower
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from open_clip.transform import center_crop_or_pad
from PIL import Image
from torch import nn
from torchvision.transforms.v2.functional import InterpolationMode
from torchvision.transforms.v2.functional import resize as resize_uint8

from vimoclip import UserError

Tag = TypeVar("Tag")
Item = TypeVar("Item")  # a tensor, or something else that passes

# OpenAI's spelling -> open_clip's
OPENAI_NAMES = {
    "ViT-B/32": "ViT-B-32",
    "ViT-B/16": "ViT-B-16",
    "ViT-L/14": "ViT-L-14",
    "ViT-L/14@336px": "ViT-L-14-336",
}
RESIZE_MODES = {"center-crop": "shortest", "squash": "squash", "pad": "longest"}  # ours -> open_clip's
# PyTorch's uint8 kernel has 16-bit weights, PIL 22-bit ones. From here on up the two are within one grey level (of 56
# million values at 360 -> 224, 5 were two off); where frames are enlarged or hardly shrunk, more are, so there PIL
# itself does the work: 12x slower, exact.
PIL_BELOW_RATIO = 1.5


class Preprocess:
    """Video frames -> what the encoder sees, as open_clip's own validation transform has it. Safe to pickle."""

    def __init__(self, config: dict[str, Any]):
        self.size: tuple[int, int] = tuple(config["image_size"])
        self.mode: str = config["resize_mode"] if config["resize"] == "model" else RESIZE_MODES[config["resize"]]
        self.interpolation = InterpolationMode(config["interpolation"])
        self.fill: int = config["fill_color"]
        self.mean = torch.tensor(config["mean"]).view(3, 1, 1)
        self.std = torch.tensor(config["std"]).view(3, 1, 1)

    def __call__(self, frames: np.ndarray) -> torch.Tensor:
        """(n, H, W, 3) uint8 -> (n, 3, S, S) uint8: resized and cropped, not yet normalised."""
        resized = self._resize(frames, self._target(*frames.shape[1:3]))
        if self.mode == "longest":
            resized = center_crop_or_pad(resized, list(self.size), fill=self.fill)
        elif self.mode == "shortest":
            resized = vision.center_crop(resized, list(self.size))
        return resized.contiguous()

    def normalize(self, prepared: torch.Tensor) -> torch.Tensor:
        """(..., 3, S, S) uint8 -> float32, on the same device."""
        device = prepared.device
        return (prepared.float() / 255 - self.mean.to(device)) / self.std.to(device)

    def _target(self, height: int, width: int) -> tuple[int, int]:
        if self.mode == "squash":
            return self.size
        if self.mode == "shortest" and self.size[0] == self.size[1]:  # torchvision's Resize truncates ...
            short = self.size[0]
            longer = int(short * max(height, width) / min(height, width))
            return (short, longer) if height <= width else (longer, short)
        pick = max if self.mode == "longest" else min  # ... open_clip's ResizeKeepRatio rounds
        ratio = pick(height / self.size[0], width / self.size[1])
        return round(height / ratio), round(width / ratio)

    def _resize(self, frames: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
        height, width = frames.shape[1:3]
        if (height, width) == size:
            return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
        if min(height / size[0], width / size[1]) >= PIL_BELOW_RATIO:
            channels_first = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
            return resize_uint8(channels_first, list(size), self.interpolation, antialias=True)
        how = Image.Resampling.BILINEAR if self.interpolation.value == "bilinear" else Image.Resampling.BICUBIC
        images = [np.asarray(Image.fromarray(frame).resize((size[1], size[0]), how)) for frame in frames]
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


class ImageEncoder:
    """An image tower (`visual`), its `preprocess`, and the `config` from which both can be rebuilt."""

    def __init__(self, visual: nn.Module, config: dict[str, Any]):
        self.visual, self.config = visual, config
        self.preprocess = Preprocess(config)

    @torch.inference_mode()
    def encode(self, prepared: torch.Tensor) -> torch.Tensor:
        """(n, 3, S, S) uint8 -> (n, D) float32 on the CPU, as they leave the tower (not normalised)."""
        device = next(self.visual.parameters()).device
        return embed(self.visual, self.preprocess.normalize(prepared.to(device))).float().cpu()


def embed(visual: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """(n, 3, S, S) normalised -> (n, D). Some towers (CoCa's) also return tokens, which are dropped."""
    output = visual(images)
    return output[0] if isinstance(output, tuple) else output


def load(name: str, pretrained: str | None, resize: str = "model") -> ImageEncoder:
    """The image tower of a CLIP with its weights, in evaluation mode. Raises UserError.

    name: OpenAI's spelling, open_clip's, `hf-hub:<repository>` or `local-dir:<folder>`. pretrained: tag or file."""
    if ":" in name:
        pretrained = None  # the folder or repository holds the weights
    source, quick_gelu = _resolve(name, pretrained)
    weights = _weights_file(source, pretrained)
    kwargs: dict[str, Any] = {"force_quick_gelu": quick_gelu} if quick_gelu else {}
    if preprocess := _tag_preprocess(source, pretrained):
        kwargs["force_preprocess_cfg"] = preprocess
    script = weights is not None and _is_torchscript(weights)
    tag = None if script else str(weights) if weights else pretrained
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = open_clip.create_model(source, tag, require_pretrained=not script, **kwargs)
            if script and weights is not None:
                _load_torchscript(model, weights)
    except UserError:
        raise
    except Exception as error:  # open_clip raises whatever its parts raise: missing keys, pickles that hold code, ...
        what = f"{name} with {pretrained}" if pretrained else name
        raise UserError(f"{what}: can't be loaded as a CLIP model by open_clip: {_first_line(error)}") from error
    architecture = _architecture(source, quick_gelu)
    config = {
        "clip_model": canonical_name(name),
        "clip_pretrained": Path(pretrained).name if pretrained and Path(pretrained).is_file() else pretrained,
        "quick_gelu": architecture["quick_gelu"],
        "embed_dim": architecture["embed_dim"],
        "resize": resize,
        "architecture": architecture,
        "weights_sha256": weights_sha256(model.visual),
        **_preprocess_config(model.visual.image_size, model.visual.preprocess_cfg),
    }
    return ImageEncoder(model.visual.float().eval(), config)


def build(config: dict[str, Any]) -> ImageEncoder:
    """The tower that `config` describes, with random weights: a checkpoint fills them."""
    parts = config["architecture"]
    vision_cfg = dict(parts["vision_cfg"], timm_model_pretrained=False)
    return ImageEncoder(_build_vision_tower(parts["embed_dim"], vision_cfg, parts["quick_gelu"]), config)


def describe(name: str, resize: str = "model") -> dict[str, Any]:
    """The `config` of a model by its name alone, for weights that come without one (a published student)."""
    if ":" in name:
        return load(name, None, resize).config
    source = OPENAI_NAMES.get(name, name)
    if open_clip.get_model_config(source) is None:
        raise UserError(f"{name}: open_clip has no such model; see open_clip.list_models()")
    architecture = _architecture(source, name in OPENAI_NAMES)
    preprocess = open_clip.transform.PreprocessCfg(**_tag_preprocess(source, None))
    size = architecture["vision_cfg"]["image_size"]
    return {
        "clip_model": canonical_name(name),
        "clip_pretrained": None,
        "quick_gelu": architecture["quick_gelu"],
        "embed_dim": architecture["embed_dim"],
        "resize": resize,
        "architecture": architecture,
        "weights_sha256": None,
        **_preprocess_config(size, asdict(preprocess)),
    }


def missing_download(name: str, pretrained: str | None) -> dict[str, str] | None:
    """`url`, `what` and `where_to_put` of a file that `load` would have to download, or None."""
    source, _ = _resolve(name, pretrained)
    if source.startswith("hf-hub:"):
        repository = source.removeprefix("hf-hub:")
        return {"url": hf_hub_url(repository, "open_clip_config.json"), "what": name, "where_to_put": "a folder"}
    if source.startswith("local-dir:") or _weights_file(source, pretrained):
        return None
    cfg = _tag(source, pretrained)
    if not cfg:
        tags = ", ".join(list_pretrained_tags_by_model(source)) or "none"
        raise UserError(
            f"{pretrained}: is neither a file nor a tag of {name} (its tags: {tags}); give one with --clip-pretrained"
        )
    if repository := cfg.get("hf_hub", "").rpartition("/")[0]:
        url = hf_hub_url(repository, _hub_names(cfg)[0])
        where = f"{hub_constants.HF_HUB_CACHE} (as the hub's client lays it out)"
    else:
        url, where = cfg["url"], str(_clip_cache() / cfg["url"].rpartition("/")[2])
    return {"url": url, "what": f"the weights {pretrained} of {name}", "where_to_put": where}


def encode_stream(
    items: Iterable[tuple[Tag, Item]], encode: Callable[[torch.Tensor], torch.Tensor], batch_size: int
) -> Iterator[tuple[Tag, Item]]:
    """Prepared frames in, embeddings out, each under the tag and in the order in which it came.

    Batches all have batch_size frames, filled across the borders of videos, the last one filled up with zeros: on
    one machine the same frame gives the same bytes, whatever shares its batch. What is no tensor passes in its turn."""
    waiting: deque[tuple[Tag, Any]] = deque()  # (tag, number of frames) in the batch, or (tag, other)
    batch: torch.Tensor | None = None
    filled = 0

    def flush() -> Iterator[tuple[Tag, Any]]:
        nonlocal filled
        rows, start = (encode(batch) if batch is not None and filled else None), 0
        while waiting:
            tag, what = waiting.popleft()
            if isinstance(what, _Count):
                assert rows is not None
                yield tag, rows[start : start + what]
                start += what
            else:
                yield tag, what
        filled = 0

    for tag, item in items:
        if not isinstance(item, torch.Tensor):
            waiting.append((tag, item))
            continue
        start = 0
        while start < len(item):
            if batch is None:
                batch = torch.zeros((batch_size, *item.shape[1:]), dtype=item.dtype)
            taken = item[start : start + batch_size - filled]
            batch[filled : filled + len(taken)] = taken
            filled += len(taken)
            start += len(taken)
            waiting.append((tag, _Count(len(taken))))
            if filled == batch_size:
                yield from flush()
    if batch is not None:
        batch[filled:] = 0
    yield from flush()


class _Count(int):
    pass


def weights_sha256(visual: nn.Module) -> str:
    """SHA-256 over the names, shapes and float32 values of a tower's tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(visual.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _resolve(name: str, pretrained: str | None) -> tuple[str, bool]:
    """(open_clip's name, QuickGELU?). The activation follows the weights: DESIGN decision 7."""
    if name.startswith("hf-hub:"):
        config = try_to_load_from_cache(name.removeprefix("hf-hub:"), "open_clip_config.json")
        return (f"local-dir:{Path(config).parent}", False) if isinstance(config, str) else (name, False)
    if name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:"))
        if not (folder / "open_clip_config.json").is_file():
            raise UserError(
                f"{folder / 'open_clip_config.json'}: there is no such file; name a folder in open_clip's format"
            )
        return name, False
    openai = name in OPENAI_NAMES
    source = OPENAI_NAMES.get(name, name)
    config = open_clip.get_model_config(source)
    if config is None:
        raise UserError(f"{name}: open_clip has no such model; see open_clip.list_models(), or give local-dir:<folder>")
    if pretrained is None:
        raise UserError(f"{name}: needs weights; give a tag or a file with --clip-pretrained")
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


def _weights_file(source: str, pretrained: str | None) -> Path | None:
    """The file with the weights where it is on this machine; None where it must be downloaded or a folder has it."""
    if ":" in source or not pretrained:
        return None
    cfg = _tag(source, pretrained)
    if not cfg:
        return _checked(Path(pretrained)) if Path(pretrained).is_file() else None
    if repository := cfg.get("hf_hub", "").rpartition("/")[0]:
        for name in _hub_names(cfg):
            if isinstance(cached := try_to_load_from_cache(repository, name), str):
                return Path(cached)
    if url := cfg.get("url"):
        cached_file = _clip_cache() / url.rpartition("/")[2]
        if cached_file.is_file() and _file_sha256(cached_file) == url.split("/")[-2]:
            return cached_file
    return None


def _hub_names(cfg: dict[str, Any]) -> list[str]:
    name = cfg["hf_hub"].rpartition("/")[2]
    return [name] if name else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]


def _clip_cache() -> Path:
    return Path("~/.cache/clip").expanduser()  # where OpenAI's and open_clip's own downloads go


def _tag_preprocess(source: str, pretrained: str | None) -> dict[str, Any]:
    """How a tag's images are prepared; for weights from a file, how the model's first tag's are."""
    cfg = _tag(source, pretrained)
    if not cfg and ":" not in source and (tags := list_pretrained_tags_by_model(source)):
        cfg = get_pretrained_cfg(source, tags[0])
    return {k: cfg[k] for k in ("mean", "std", "interpolation", "resize_mode") if k in cfg}


def _preprocess_config(size: int | tuple[int, int], cfg: dict[str, Any]) -> dict[str, Any]:
    return {
        "image_size": [size, size] if isinstance(size, int) else list(size),
        "mean": list(cfg["mean"]),
        "std": list(cfg["std"]),
        "interpolation": "bilinear" if cfg["interpolation"] == "bilinear" else "bicubic",
        "resize_mode": cfg["resize_mode"],
        "fill_color": cfg["fill_color"],
    }


def _architecture(source: str, quick_gelu: bool) -> dict[str, Any]:
    config = open_clip.get_model_config(source)
    return {
        "embed_dim": config["embed_dim"],
        "vision_cfg": config["vision_cfg"],
        "quick_gelu": bool(quick_gelu or config.get("quick_gelu", False)),
    }


def canonical_name(name: str) -> str:
    """OpenAI's spelling where there is one; a folder's own name without its path."""
    if name.startswith("local-dir:"):
        return "local-dir:" + Path(name.removeprefix("local-dir:")).resolve().name
    plain = name.removesuffix("-quickgelu")
    return {ours: openai for openai, ours in OPENAI_NAMES.items()}.get(plain, plain)


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _openai_sha256() -> set[str]:
    urls = (get_pretrained_cfg(model, "openai").get("url", "") for model in open_clip.list_models())
    return {url.split("/")[-2] for url in urls if url}


def _checked(path: Path) -> Path:
    """Raise UserError for a TorchScript file, which holds code, unless it is one that OpenAI publishes."""
    if _is_torchscript(path) and _file_sha256(path) not in _openai_sha256():
        raise UserError(
            f"{path}: is a TorchScript file, which holds code, and not one of OpenAI's; "
            "save its state dict with torch.save or as safetensors"
        )
    return path


def _load_torchscript(model: nn.Module, path: Path) -> None:
    state = torch.jit.load(path, map_location="cpu").state_dict()
    own = {k: v.float() for k, v in state.items() if k not in ("input_resolution", "context_length", "vocab_size")}
    model.load_state_dict(own)


def _file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
