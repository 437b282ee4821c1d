"""The image encoder: a CLIP image tower with its preprocessing, loaded with weights or rebuilt from a config."""

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.model import _build_vision_tower
from torch import nn

from vimoclip import model_folder
from vimoclip.clip import linear_kernels
from vimoclip.clip.cuda_preprocess import CudaPreprocess, PinnedFrames
from vimoclip.clip.fast_vit import FoldedViT, is_supported
from vimoclip.clip.preprocess import Preprocess
from vimoclip.clip.pretrained import (
    OPENAI_NAMES,
    canonical_name,
    check_weights_file,
    find_weights_file,
    is_torchscript,
    load_torchscript,
    local_folder,
    preprocess_config,
    resolve_model,
)
from vimoclip.errors import UserError, first_line
from vimoclip.io.checkpoint_loading import config_errors, force_weights_only, load_model, tensors_sha256, weights_sha256
from vimoclip.runtime import onednn
from vimoclip.runtime.device import HALF_DTYPES, autocast, cast_layers, copy_to_device, measure_memory, usable_memory

MEASURED_FRAMES = 4  # to measure the memory of a frame
ENCODER_MEMORY = 0.8  # of the free memory of a GPU; frames are resized in the rest

EncodeFunction = Callable[[torch.Tensor], torch.Tensor]  # (n, 3, S, S) uint8 -> (n, D)
LoadedFrames = torch.Tensor | PinnedFrames  # frames before `ImageEncoder.prepare`


class ImageEncoder:
    """A CLIP image tower (`visual`) with its `preprocess` and the `config` from which both can be rebuilt."""

    def __init__(self, visual: nn.Module, config: dict[str, Any]):
        self.visual, self.config = visual, config
        self.preprocess = Preprocess(config)
        self.device = torch.device("cpu")
        self._encode_function: EncodeFunction | None = None
        self._cuda_preprocess: CudaPreprocess | None = None

    def freeze(self, device: torch.device | None = None, precision: str = "fp32") -> "ImageEncoder":
        """Build the function that `encode` calls, on a device; return the encoder.

        Call it again after a change of the tower's weights. `precision`: int8, or that of autocast. Raises UserError
        for int8 on another device than the CPU."""
        self.device = next(self.visual.parameters()).device if device is None else device
        if precision == "int8" and self.device.type != "cpu":
            raise UserError(f"--precision int8: runs on the CPU only, not on {self.device}", "give bf16 or fp16")
        self._encode_function = _make_encode_function(self.visual.eval(), self.preprocess, self.device, precision)
        is_cuda = self.device.type == "cuda"
        self._cuda_preprocess = CudaPreprocess(self.preprocess, self.device) if is_cuda else None
        return self

    def fitting_batch_size(self, requested: int) -> int:
        """Return the frames per batch: `requested`, or as many as the free memory of a CUDA GPU allows.

        Call `freeze` before."""
        if self.device.type != "cuda":
            return requested
        frames = torch.zeros(MEASURED_FRAMES, 3, *self.preprocess.size, dtype=torch.uint8)
        self.encode_on_device(frames)  # the workspaces of cuBLAS and cuDNN, which do not grow with the frames
        memory = measure_memory(lambda: self.encode_on_device(frames), self.device)[1]
        fitting = int(ENCODER_MEMORY * usable_memory(self.device) * MEASURED_FRAMES // max(memory, 1))
        if fitting >= requested:
            return requested
        print(f"--frame-batch-size {requested}: {max(1, fitting)} is used, as many as fit on {self.device}", flush=True)
        return max(1, fitting)

    def load_frames(self, frames: np.ndarray) -> LoadedFrames:
        """(n, H, W, 3) uint8 -> what `prepare` takes; can be called in any thread. Call `freeze` before."""
        return self._cuda_preprocess.pin(frames) if self._cuda_preprocess else self.preprocess(frames)

    def prepare(self, frames: LoadedFrames) -> torch.Tensor:
        """Return (n, 3, S, S) uint8: on a CUDA GPU, to which the frames are copied, or else on the CPU."""
        if isinstance(frames, torch.Tensor):
            return frames
        assert self._cuda_preprocess is not None
        return self._cuda_preprocess(frames)

    def encode(self, prepared: torch.Tensor) -> torch.Tensor:
        """(n, 3, S, S) uint8 -> (n, D) float32 on the CPU, not normalized. Calls `freeze` if it was not called."""
        return self.encode_on_device(prepared).cpu()

    @torch.inference_mode()
    def encode_on_device(self, prepared: torch.Tensor) -> torch.Tensor:
        """Like `encode`, but the result is on the encoder's device, and the CPU does not wait for a CUDA GPU."""
        if self._encode_function is None:
            self.freeze()
        assert self._encode_function is not None
        return self._encode_function(copy_to_device(prepared, self.device)).float()


class NormalizedTower(nn.Module):
    """Any tower's own forward, under autocast, from preprocessed uint8 images: (n, 3, S, S) -> (n, D)."""

    def __init__(self, visual: nn.Module, preprocess: Preprocess, precision: str):
        super().__init__()
        self.visual, self.preprocess, self.precision = visual, preprocess, precision

    def forward(self, prepared: torch.Tensor) -> torch.Tensor:
        images = self.preprocess.normalize(prepared)
        if images.is_cuda:
            images = images.contiguous(memory_format=torch.channels_last)
        with autocast(images.device, self.precision):
            return encode_images(self.visual, images)


def encode_images(visual: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """(n, 3, S, S) normalized -> (n, D). Some towers (CoCa's) also return tokens, which are dropped."""
    output = visual(images)
    return output[0] if isinstance(output, tuple) else output


# --- loading


def load_encoder(name: str, pretrained: str | None, resize: str = "model") -> ImageEncoder:
    """Load the image tower of a CLIP model in evaluation mode. Raises UserError.

    name: OpenAI's or open_clip's name, `hf-hub:<repository>` or `local-dir:<folder>`, which may also be a model folder.
    pretrained: open_clip's tag or a file."""
    folder = local_folder(name)
    if folder and model_folder.is_model_folder(folder):
        return load_from_model_folder(folder, resize)
    return load_clip(name, pretrained, resize)[0]


def load_from_model_folder(path: Path, resize: str) -> ImageEncoder:
    """Load the image tower that a model folder contains. Raises UserError."""
    folder = model_folder.open_folder(path)
    state = folder.tensors(model_folder.ENCODER)
    with config_errors(path / model_folder.CONFIG_FILE):
        config = folder.config["backbone"] | {"resize": resize, "weights_sha256": tensors_sha256(state)}
    visual = load_model(lambda: build_encoder(config).visual, state, folder.weights_path)
    return ImageEncoder(visual.float().eval(), config)


def load_clip(name: str, pretrained: str | None, resize: str = "model") -> tuple[ImageEncoder, nn.Module, str]:
    """Load the image encoder, the whole CLIP model with its text tower, and open_clip's model name.

    Raises UserError."""
    source, quick_gelu = resolve_model(name, pretrained)
    if ":" in name:
        pretrained = None  # the folder or repository contains the weights
    try:
        with warnings.catch_warnings(), force_weights_only():
            warnings.simplefilter("ignore")
            model = _create_model(source, pretrained, quick_gelu)
        config = _make_config(name, source, quick_gelu, resize, model.visual.image_size, model.visual.preprocess_cfg)
        config["clip_pretrained"] = Path(pretrained).name if pretrained and Path(pretrained).is_file() else pretrained
        config["weights_sha256"] = weights_sha256(model.visual)
        return ImageEncoder(model.visual.float().eval(), config), model, source
    except UserError:
        raise
    except Exception as error:  # open_clip raises many types: missing keys, pickles with code, ...
        model_name = f"{name} with {pretrained}" if pretrained else name
        raise UserError(f"{model_name}: open_clip can't load it as a CLIP model: {first_line(error)}") from error


def _create_model(source: str, pretrained: str | None, quick_gelu: bool) -> Any:
    """Return open_clip's model with its weights."""
    weights = find_weights_file(source, pretrained)
    if weights:
        check_weights_file(weights)
    kwargs: dict[str, Any] = {"force_quick_gelu": quick_gelu} if quick_gelu else {}
    if preprocess := preprocess_config(source, pretrained):
        kwargs["force_preprocess_cfg"] = preprocess
    torchscript = weights is not None and is_torchscript(weights)
    tag = None if torchscript or ":" in source else str(weights) if weights else pretrained
    model = open_clip.create_model(source, tag, require_pretrained=not torchscript, **kwargs)
    if torchscript and weights is not None:
        load_torchscript(model, weights)
    return model


def build_encoder(config: dict[str, Any]) -> ImageEncoder:
    """Build the tower that `config` describes, with random weights, for a checkpoint's state dict."""
    architecture = config["architecture"]
    if config["quick_gelu"] != architecture["quick_gelu"]:
        raise ValueError(f"quick_gelu is {config['quick_gelu']}, but {architecture['quick_gelu']} in architecture")
    vision_cfg = dict(architecture["vision_cfg"], timm_model_pretrained=False)
    visual = _build_vision_tower(architecture["embed_dim"], vision_cfg, architecture["quick_gelu"])
    if _as_sides(config["image_size"]) != _as_sides(visual.image_size):
        raise ValueError(f"image_size is {config['image_size']}, but that of the tower is {visual.image_size}")
    return ImageEncoder(visual, config)


def encoder_config(name: str, resize: str = "model") -> dict[str, Any]:
    """Return the `config` of a model by its name alone, for weights without one (a published student's)."""
    if ":" in name:
        return load_encoder(name, None, resize).config
    source = OPENAI_NAMES.get(name, name)
    if open_clip.get_model_config(source) is None:
        raise UserError(f"{name}: is not a model of open_clip", "see open_clip.list_models()")
    preprocess = asdict(open_clip.transform.PreprocessCfg(**preprocess_config(source, None)))
    image_size = open_clip.get_model_config(source)["vision_cfg"]["image_size"]
    return _make_config(name, source, name in OPENAI_NAMES, resize, image_size, preprocess)


def _make_config(
    name: str, source: str, quick_gelu: bool, resize: str, size: int | tuple[int, int], preprocess: dict[str, Any]
) -> dict[str, Any]:
    """Return the `config` of a model, without its weights. `source`: open_clip's name."""
    model = open_clip.get_model_config(source)
    width, quick_gelu = model["embed_dim"], bool(quick_gelu or model.get("quick_gelu", False))
    return {
        "clip_model": canonical_name(name),
        "clip_pretrained": None,
        "quick_gelu": quick_gelu,
        "embed_dim": width,
        "resize": resize,
        "architecture": {"embed_dim": width, "vision_cfg": model["vision_cfg"], "quick_gelu": quick_gelu},
        "weights_sha256": None,
        "image_size": _as_sides(size),
        "mean": list(preprocess["mean"]),
        "std": list(preprocess["std"]),
        "interpolation": "bilinear" if preprocess["interpolation"] == "bilinear" else "bicubic",
        "resize_mode": preprocess["resize_mode"],
        "fill_color": preprocess["fill_color"],
    }


def _as_sides(size: int | Sequence[int]) -> list[int]:
    return [size, size] if isinstance(size, int) else list(size)


def _make_encode_function(
    visual: nn.Module, preprocess: Preprocess, device: torch.device, precision: str
) -> EncodeFunction:
    """Return the fastest function for this tower, processor and precision; `visual` keeps its weights in float32."""
    dtype = HALF_DTYPES.get(precision, torch.float32)
    if is_supported(visual):
        return FoldedViT(visual, preprocess, _linear_factory(device, precision, dtype), device, dtype)
    if precision == "int8":
        visual = linear_kernels.quantize(copy.deepcopy(visual))
    elif precision in HALF_DTYPES:
        visual = cast_layers(copy.deepcopy(visual), dtype)
    return NormalizedTower(visual.to(device), preprocess, precision)


def _linear_factory(device: torch.device, precision: str, dtype: torch.dtype) -> linear_kernels.LinearFactory:
    if precision == "int8":
        return linear_kernels.int8_linear
    if precision == "fp32" and device.type == "cpu" and onednn.is_used():
        return linear_kernels.packed_linear
    return partial(linear_kernels.plain_linear, device=device, dtype=dtype)
