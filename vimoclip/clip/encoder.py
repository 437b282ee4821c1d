"""An image tower with its preprocessing: loaded with weights, or rebuilt from a config without."""

import hashlib
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import _build_vision_tower
from torch import nn

from vimoclip.clip import onnx_backend
from vimoclip.clip.preprocess import Preprocess
from vimoclip.clip.pretrained import (
    OPENAI_NAMES,
    canonical_name,
    check_weights,
    is_torchscript,
    load_torchscript,
    resolve,
    tag_preprocess,
    weights_file,
)
from vimoclip.errors import UserError
from vimoclip.io.checkpoint_loading import tensors_only


class ImageEncoder:
    """An image tower (`visual`), its `preprocess`, and the `config` from which both can be rebuilt."""

    def __init__(self, visual: nn.Module, config: dict[str, Any]):
        self.visual, self.config = visual, config
        self.preprocess = Preprocess(config)
        self._backend, self._precision = "torch", "fp32"
        self._known_by: Any = None
        self._compute: Any = None

    def compute_with(self, backend: str = "torch", precision: str = "fp32") -> None:
        """Say what encodes: torch, onnxruntime or openvino; int8, or else what autocast says. Raises UserError."""
        onnx_backend.check(backend, precision, next(self.visual.parameters()).device)
        self._backend, self._precision = backend, precision

    @torch.inference_mode()
    def encode(self, prepared: torch.Tensor) -> torch.Tensor:
        """(n, 3, S, S) uint8 -> (n, D) float32 on the CPU, as they leave the tower (not normalised)."""
        device = next(self.visual.parameters()).device
        if device.type == "cuda":
            prepared = prepared.pin_memory().to(device, non_blocking=True)
        return self._computing(prepared.to(device)).float().cpu()

    def _computing(self, prepared: torch.Tensor) -> torch.Tensor:
        """Encode by what was made ready for these weights, in the state in which they are; a student's change."""
        tensors = [*self.visual.parameters(), *self.visual.buffers()]
        device, shape = tensors[0].device, prepared.shape if self._backend != "torch" else None
        autocast = torch.is_autocast_enabled(device.type)
        state = [(t.data_ptr(), t._version) for t in tensors if not t.is_inference()]
        known_by = self._backend, self._precision, device, autocast, shape, self.visual.training, state
        if self._compute is None or known_by != self._known_by:
            self._compute, self._known_by = None, known_by
            self._compute = self._make_ready(prepared, autocast)
        return self._compute(prepared)

    def _make_ready(self, prepared: torch.Tensor, autocast: bool) -> onnx_backend.Compute:
        if self.visual.training:
            return onnx_backend.AsItIs(self.visual, self.preprocess)
        if self._backend == "torch":
            return onnx_backend.in_torch(self.visual, self.preprocess, self._precision, autocast)
        return onnx_backend.by_graph(self._backend, self.visual, self.preprocess, prepared)


def embed(visual: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """(n, 3, S, S) normalised -> (n, D). Some towers (CoCa's) also return tokens, which are dropped."""
    output = visual(images)
    return output[0] if isinstance(output, tuple) else output


def load(name: str, pretrained: str | None, resize: str = "model") -> ImageEncoder:
    """The image tower of a CLIP with its weights, in evaluation mode. Raises UserError.

    name: OpenAI's spelling, open_clip's, `hf-hub:<repository>` or `local-dir:<folder>`. pretrained: tag or file."""
    return load_whole(name, pretrained, resize)[0]


def load_whole(name: str, pretrained: str | None, resize: str = "model") -> tuple[ImageEncoder, nn.Module, str]:
    """As `load`; also the whole CLIP, with its text tower, and open_clip's name of it. Raises UserError."""
    source, quick_gelu = resolve(name, pretrained)
    if ":" in name:
        pretrained = None  # the folder or repository holds the weights
    try:
        with warnings.catch_warnings(), tensors_only():
            warnings.simplefilter("ignore")
            model = _create(source, pretrained, quick_gelu)
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
        return ImageEncoder(model.visual.float().eval(), config), model, source
    except UserError:
        raise
    except Exception as error:  # open_clip raises whatever its parts raise: missing keys, pickles that hold code, ...
        what = f"{name} with {pretrained}" if pretrained else name
        raise UserError(f"{what}: can't be loaded as a CLIP model by open_clip: {_first_line(error)}") from error


def _create(source: str, pretrained: str | None, quick_gelu: bool) -> Any:
    """open_clip's model with its weights."""
    weights = weights_file(source, pretrained)
    if weights:
        check_weights(weights)
    kwargs: dict[str, Any] = {"force_quick_gelu": quick_gelu} if quick_gelu else {}
    if preprocess := tag_preprocess(source, pretrained):
        kwargs["force_preprocess_cfg"] = preprocess
    script = weights is not None and is_torchscript(weights)
    tag = None if script or ":" in source else str(weights) if weights else pretrained
    model = open_clip.create_model(source, tag, require_pretrained=not script, **kwargs)
    if script and weights is not None:
        load_torchscript(model, weights)
    return model


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
        raise UserError(f"{name}: open_clip has no such model", "see open_clip.list_models()")
    architecture = _architecture(source, name in OPENAI_NAMES)
    preprocess = open_clip.transform.PreprocessCfg(**tag_preprocess(source, None))
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


def weights_sha256(visual: nn.Module) -> str:
    """SHA-256 over the names, shapes and float32 values of a tower's tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(visual.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


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


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
