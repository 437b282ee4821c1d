"""MoCLIP, the student: a copy of the CLIP image encoder that embeds flow frames (paper, eq. 1 to 6)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import nn

from vimoclip import clip, model_folder
from vimoclip.errors import UserError
from vimoclip.io.checkpoint_loading import config_errors, load_model
from vimoclip.runtime.device import copy_to_device
from vimoclip.training import checkpoint, losses

TOWER_PREFIX = "visual_encoder."  # of the image tower's tensors in a state dict


class StudentOutput(NamedTuple):
    """z_motion and predicted (zhat in the paper): (B, L, D), zero at padding; logits: (B, C)."""

    z_motion: torch.Tensor
    predicted: torch.Tensor
    logits: torch.Tensor


class ResidualMLP(nn.Module):
    """Linear, GELU, Linear of width D. The second layer is initialised to zero, so that zhat starts as z_motion."""

    def __init__(self, dim: int):
        super().__init__()
        self.fc1, self.activation, self.fc2 = nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim)
        nn.init.zeros_(self.fc2.weight)
        nn.init.zeros_(self.fc2.bias)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(z)))


class MoCLIP(nn.Module):
    """Image encoder, residual MLP, and a classification head for training. State dict keys are the published ones."""

    def __init__(self, visual_encoder: nn.Module, dim: int, num_classes: int, alpha: float):
        super().__init__()
        self.alpha, self.num_classes = alpha, num_classes
        self.visual_encoder = visual_encoder
        self.residual_mlp = ResidualMLP(dim)
        self.classification_head = nn.Sequential(nn.Linear(dim, dim // 2), nn.ReLU(), nn.Linear(dim // 2, num_classes))

    def forward(self, images: torch.Tensor, mask: torch.Tensor, lengths: Sequence[int] = ()) -> StudentOutput:
        """Encode images (B, L, 3, S, S), normalised. mask (B, L): true for real frames; padding is not encoded.

        `lengths`: numbers of real frames, which come before the padding; without them a GPU is waited for."""
        frames, index = images.flatten(0, 1), None
        if min(lengths or mask.sum(1).tolist()) < mask.shape[1]:
            host_mask = torch.arange(mask.shape[1]) < torch.tensor(lengths)[:, None] if lengths else mask.cpu()
            index = copy_to_device(host_mask.flatten().nonzero()[:, 0], images.device)
            frames = frames.index_select(0, index)
        z = clip.encode_images(self.visual_encoder, frames)  # (frames, D)
        predicted = z + self.alpha * self.residual_mlp(z)
        z_motion, padded = (_pad(rows, index, mask.shape) for rows in (z, predicted))
        return StudentOutput(z_motion, padded, self.classification_head(losses.masked_mean(z_motion, mask)))


def _pad(rows: torch.Tensor, index: torch.Tensor | None, shape: torch.Size) -> torch.Tensor:
    """Return (B, L, D) with rows at the positions `index` of B * L, zero elsewhere; None: there is no padding."""
    if index is not None:
        rows = rows.new_zeros((shape.numel(), rows.shape[-1])).index_copy(0, index, rows)
    return rows.unflatten(0, tuple(shape))


def build(config: dict[str, Any]) -> MoCLIP:
    """Build the model that a checkpoint's `config` describes, with random weights."""
    visual = clip.build_encoder(config["clip"]).visual
    return MoCLIP(visual, config["clip"]["embed_dim"], config["num_classes"], config["alpha"])


def find_checkpoint(folder: Path) -> Path:
    """Find the student in a run folder, ours (`<run>/`) or published (`<run> - best/`). Raises UserError.

    A file, or a model folder, is the student itself."""
    if folder.is_file() or model_folder.is_model_folder(folder):
        return folder
    published = folder.with_name(folder.name + " - best")
    for candidate in (folder, published):
        if (best := candidate / "student_best.pth").is_file():
            return best
    for candidate in (published, folder):
        students = sorted(path for path in candidate.glob("*.pth") if path.name != "last.pth")
        if len(students) == 1:
            return students[0]
        if students:
            names = ", ".join(path.name for path in students)
            raise UserError(f"has no student_best.pth but {names}", "give --checkpoint-dir one of them", path=candidate)
    raise UserError("has no student_best.pth", "give a run folder of train.py", path=folder)


def load(path: Path, clip_model_name: str | None = None, num_classes: int | None = None) -> tuple[MoCLIP, dict]:
    """Load a student from a checkpoint or a model folder, in evaluation mode, and its config.

    Published checkpoints hold no config: `clip_model_name` (default: ViT-B/32) then determines the architecture.
    Raises UserError if `clip_model_name` or `num_classes` contradicts the file, or the file holds no student."""
    content = _read_model_folder(path) if path.is_dir() else checkpoint.load_checkpoint(path)
    state, config = content["state_dict"], content.get("config")
    head_weight = state.get("classification_head.2.weight")
    if head_weight is None or not any(key.startswith(TOWER_PREFIX) for key in state):
        raise UserError(
            "is not a MoCLIP student (no visual_encoder or classification_head)",
            "give a run folder of train.py",
            path=path,
        )
    file_classes = int(head_weight.shape[0])
    if num_classes is not None and num_classes != file_classes:
        problem = f"--num-classes is {num_classes}, but {path} has {file_classes}"
        raise UserError(problem, "remove the flag, or give another run")
    if not is_config(config):
        name = clip_model_name or "ViT-B/32"
        print(f"warning: {path} has no config of this project; {name} is assumed, and inputs are not checked")
        config = {
            "clip": clip.encoder_config(name),
            "alpha": 0.1,
            "num_classes": file_classes,
            "teacher": {},
            "flow": {},
        }
    with config_errors(path):
        file_model = config["clip"].get("clip_model")
        if clip_model_name and file_model and clip.canonical_name(clip_model_name) != file_model:
            raise UserError(
                f"--clip-model-name is {clip_model_name}, but {path} was trained from {file_model}",
                "remove the flag, or give another run",
            )
        if not (isinstance(config["alpha"], float | int) and isinstance(config["flow"], dict)):
            raise TypeError("alpha must be a number, flow a mapping")
    model = load_model(lambda: build(config), state, path)
    return model.eval(), config


def _read_model_folder(path: Path) -> dict[str, Any]:
    """Return the student of a model folder as a checkpoint has it. Raises UserError.

    The image tower of a frozen student is the encoder's, and stored once."""
    folder = model_folder.open_folder(path)
    state = folder.tensors(model_folder.STUDENT)
    if not any(key.startswith(TOWER_PREFIX) for key in state):
        tower = folder.tensors(model_folder.ENCODER)
        state |= {f"{TOWER_PREFIX}{name}": tensor for name, tensor in tower.items()}
    if not is_config(config := folder.config.get("student")):
        raise UserError("its student is damaged", model_folder.HINT, path=path / model_folder.CONFIG_FILE)
    return {"state_dict": state, "config": config}


def is_config(config: Any) -> TypeGuard[dict[str, Any]]:
    """Return whether a value is a student's config, which published checkpoints do not have."""
    return isinstance(config, dict) and {"clip", "alpha", "num_classes", "flow"} <= set(config)
