"""Check backbones and flow models with random weights: the tables of docs/backbones-and-flow.md.

    python -m benchmarks.models backbones ViT-B-32 ViT-L-14 ViT-B-16-SigLIP2
    python -m benchmarks.models flows dis raft_small sea_raft_s
Prints one Markdown row per model. For a backbone, weights are loaded from a file, the fast path is compared with
open_clip's forward, preprocessing with open_clip's transform, and a student is saved and loaded; GFLOP is PyTorch's
count for one frame. For a flow model, pairs of frames with two odd sizes are computed; the time of a pair is relative
to that of the first model of the same run."""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vimoclip import cli

COLUMNS = {
    "backbones": (
        "name",
        "parameters",
        "input",
        "width",
        "GFLOP",
        "fast path",
        "preprocessing",
        "student",
        "int8",
    ),
    "flows": ("name", "parameters", "time", "odd sizes"),
}
SIZES = ((225, 397), (67, 51))


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("table", choices=list(COLUMNS))
    parser.add_argument("names", nargs="+", help="models of open_clip, or values of extract_flows.py --model")
    return parser


def main(argv: list[str] | None = None) -> list[list[str]]:
    """Print the table and return its rows."""
    args = build_parser().parse_args(argv)
    import torch

    torch.manual_seed(0)
    check = {"backbones": check_backbone, "flows": check_flow}[args.table]
    print("| " + " | ".join(COLUMNS[args.table]) + " |\n" + "|---" * len(COLUMNS[args.table]) + "|")
    rows, first_seconds = [], 0.0
    for name in args.names:
        try:
            row, seconds = check(name)
            first_seconds = first_seconds or seconds
            row = [cell if cell != "TIME" else f"{seconds / first_seconds:.0f}" for cell in row]
        except Exception as error:  # third-party models raise anything; the row reports it
            row = [name, f"{type(error).__name__}: {str(error).splitlines()[0][:100] if str(error) else ''}"]
        rows.append(row)
        print("| " + " | ".join(row) + " |", flush=True)
    return rows


def check_backbone(name: str) -> tuple[list[str], float]:
    """Return (cells, 0.0); the time of a backbone is not measured."""
    import open_clip
    import torch
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from PIL import Image
    from safetensors.torch import save_file

    from vimoclip import clip, moclip
    from vimoclip.training import checkpoint

    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        model = open_clip.create_model(name, pretrained=None)
        save_file({key: tensor.contiguous().clone() for key, tensor in model.state_dict().items()}, weights)
        del model
        encoder = clip.load_encoder(name, str(weights))
        weights.unlink()
        frames = np.random.default_rng(0).integers(0, 256, (8, 270, 480, 3), dtype=np.uint8)
        prepared = encoder.preprocess(frames)
        visual: Any = encoder.visual
        transform = image_transform_v2(PreprocessCfg(**visual.preprocess_cfg), is_train=False)
        reference: Any = transform(Image.fromarray(frames[0]))
        levels = (encoder.preprocess.normalize(prepared)[0] - reference).abs().max().item() * 255
        flop = count_flop(lambda: clip.encode_images(encoder.visual, encoder.preprocess.normalize(prepared[:1])))
        with torch.inference_mode():
            plain = clip.encode_images(encoder.visual, encoder.preprocess.normalize(prepared)).float()
        fast = encoder.encode(prepared)
        student = moclip.MoCLIP(encoder.visual, encoder.config["embed_dim"], 5, 0.1)
        config = {"clip": encoder.config, "alpha": 0.1, "num_classes": 5, "flow": {}, "teacher": {}}
        checkpoint.save_checkpoint(Path(folder) / "student.pth", {"state_dict": student.state_dict(), "config": config})
        loaded, student_config = moclip.load(Path(folder) / "student.pth")
    rebuilt = clip.ImageEncoder(loaded.visual_encoder, student_config["clip"])
    same = torch.equal(rebuilt.encode(rebuilt.preprocess(frames)), fast)
    rebuilt.freeze(precision="int8")
    cells = [
        name,
        f"{sum(p.numel() for p in encoder.visual.parameters()) / 1e6:.0f} M",
        "x".join(map(str, encoder.config["image_size"])),
        str(encoder.config["embed_dim"]),
        f"{flop / 1e9:.0f}",
        f"{_min_cosine(plain, fast):.6f}",
        f"{levels:.0f} levels",
        "same" if same else "differs",
        f"{_min_cosine(rebuilt.encode(prepared), fast):.4f}",
    ]
    return cells, 0.0


def count_flop(compute: Callable[[], Any]) -> int:
    """Return the floating-point operations of a computation, with those of attention between tokens."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    torch.backends.mha.set_fastpath_enabled(False)  # it is not counted, and on the CPU neither is fused attention
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        compute()
    return counter.get_total_flops()


def check_flow(name: str) -> tuple[list[str], float]:
    """Return (cells, seconds for a pair of 397x225); the cell TIME is filled in by `main`."""
    import torch

    from vimoclip import flow

    if name in flow.METHODS_WITHOUT_WEIGHTS:
        compute: Any = flow.opencv_flow(name)
        parameters = "none"
    else:
        model = flow.PTLFlowModel(name, None, None, torch.device("cpu"))
        compute, parameters = model, f"{sum(p.numel() for p in model.model.parameters()) / 1e6:.1f} M"
    rng, is_valid = np.random.default_rng(0), []
    for height, width in SIZES:
        texture = rng.integers(0, 256, (height + 4, width + 4, 3), dtype=np.uint8)
        vectors = compute(np.stack([texture[t : t + height, t : t + width] for t in range(3)]))
        is_valid.append(vectors.shape == (2, height, width, 2) and bool(np.isfinite(vectors).all()))
    large = rng.integers(0, 256, (2, *SIZES[0], 3), dtype=np.uint8)
    return [name, parameters, "TIME", "yes" if all(is_valid) else "no"], _best_time(lambda: compute(large))


def _min_cosine(first: Any, second: Any) -> float:
    import torch

    return torch.nn.functional.cosine_similarity(first, second).min().item()


def _best_time(work: Callable[[], Any]) -> float:
    """Return the seconds of the fastest of three calls, after one warm-up call."""
    work()
    times = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


if __name__ == "__main__":
    cli.run(main)
