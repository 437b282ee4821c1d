"""What computes the encoder: PyTorch, or from one ONNX file made of it ONNX Runtime or OpenVINO, on the CPU.

Measured on 2 cores of an AMD EPYC with AVX-512, ViT-B/32 in batches of 16, against the tower's own forward: torch 2.3
times as fast, OpenVINO 2.2, ONNX Runtime 1.9. So torch is the default; the others are for machines where they win."""

import copy
import importlib
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vimoclip.clip import linear_kernels
from vimoclip.clip.fast_vit import ClassToken, is_known
from vimoclip.clip.int8 import quantize
from vimoclip.clip.preprocess import Preprocess
from vimoclip.errors import UserError

Compute = Callable[[torch.Tensor], torch.Tensor]  # (n, 3, S, S) uint8 -> (n, D)
OPSET = 17
GRAPH_PACKAGES = {"onnxruntime": ("onnxruntime", "onnx"), "openvino": ("openvino", "onnx")}


def check(backend: str, precision: str, device: torch.device) -> None:
    """Raise UserError for what doesn't go together, or lacks a package."""
    if precision == "int8" and device.type != "cpu":
        raise UserError(f"--precision int8: is for the CPU, not for {device}", "give bf16 or fp16 there")
    if backend == "torch":
        return
    if device.type != "cpu":
        raise UserError(f"--backend {backend}: is for the CPU", "give --device cpu, or leave the flag out")
    if precision != "fp32":
        raise UserError(f"--backend {backend}: computes in fp32 alone", "give --precision fp32, or leave --backend out")
    for package in GRAPH_PACKAGES[backend]:
        try:
            importlib.import_module(package)
        except ImportError:
            raise UserError(
                f"--backend {backend}: needs the package {package}", f"run pip install '.[{backend}]'"
            ) from None


def in_torch(visual: nn.Module, preprocess: Preprocess, precision: str, autocast: bool) -> Compute:
    """By PyTorch on the device where the tower is."""
    on_cpu = next(visual.parameters()).device.type == "cpu"
    if precision == "int8":
        if is_known(visual):
            return ClassToken(visual, preprocess, linear_kernels.int8)
        return AsItIs(quantize(copy.deepcopy(visual)), preprocess)
    if not is_known(visual):
        return AsItIs(visual, preprocess)
    pack = on_cpu and not autocast and linear_kernels.can_pack()
    return ClassToken(visual, preprocess, linear_kernels.packed if pack else linear_kernels.plain)


class AsItIs(nn.Module):
    """Any tower by its own forward; some (CoCa's) also return tokens, which are dropped."""

    def __init__(self, visual: nn.Module, preprocess: Preprocess):
        super().__init__()
        self.visual, self.preprocess = visual, preprocess

    def forward(self, prepared: torch.Tensor) -> torch.Tensor:
        images = self.preprocess.normalize(prepared)
        if images.is_cuda:
            images = images.contiguous(memory_format=torch.channels_last)
        output = self.visual(images)
        return output[0] if isinstance(output, tuple) else output


def by_graph(backend: str, visual: nn.Module, preprocess: Preprocess, batch: torch.Tensor) -> Compute:
    """By ONNX Runtime or OpenVINO, for batches of the shape of this one."""
    known = is_known(visual)
    tower = ClassToken(visual, preprocess, linear_kernels.plain) if known else AsItIs(visual, preprocess)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.onnx"
        _write(tower.eval(), batch, path)
        return _onnxruntime(path) if backend == "onnxruntime" else _openvino(path)


def _write(tower: nn.Module, batch: torch.Tensor, path: Path) -> None:
    with warnings.catch_warnings(), torch.no_grad():  # of tracing: constants that depend on the shape, which is fixed
        warnings.simplefilter("ignore")
        names: dict[str, Any] = {"input_names": ["frames"], "output_names": ["embeddings"]}
        try:
            torch.onnx.export(tower, (batch,), str(path), opset_version=OPSET, dynamo=False, **names)
        except Exception as error:  # whatever a tower's operations raise there
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"this encoder can't be written as ONNX, leave --backend out: {reason}") from error


def _onnxruntime(path: Path) -> Compute:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda prepared: torch.from_numpy(session.run(None, {"frames": prepared.numpy()})[0])


def _openvino(path: Path) -> Compute:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",  # its own choice may be bf16
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    return lambda prepared: torch.from_numpy(compiled(prepared.numpy())[0].copy())
