"""MoCLIP, the student: a copy of the CLIP image tower that embeds flow frames (paper, equations 1 to 6)."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from vimoclip import clip
from vimoclip.errors import UserError
from vimoclip.training import checkpoint, losses


class Output(NamedTuple):
    """z_motion, predicted (zhat): (B, L, D), zeros where padded; logits: (B, C)."""

    z_motion: torch.Tensor
    predicted: torch.Tensor
    logits: torch.Tensor


class ResidualMLP(nn.Module):
    """Linear, GELU, Linear of width D; the second starts at zero, so that zhat starts as z_motion."""

    def __init__(self, dim: int):
        super().__init__()
        self.fc1, self.activation, self.fc2 = nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim)
        nn.init.zeros_(self.fc2.weight)
        nn.init.zeros_(self.fc2.bias)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(z)))


class MoCLIP(nn.Module):
    """The student with its residual MLP and its accessory classification head. Keys of the state dict as published."""

    def __init__(self, visual_encoder: nn.Module, dim: int, num_classes: int, alpha: float):
        super().__init__()
        self.alpha = alpha
        self.visual_encoder = visual_encoder
        self.residual_mlp = ResidualMLP(dim)
        self.classification_head = nn.Sequential(nn.Linear(dim, dim // 2), nn.ReLU(), nn.Linear(dim // 2, num_classes))

    def forward(self, images: torch.Tensor, mask: torch.Tensor) -> Output:
        """images: (B, L, 3, S, S) normalised flow frames; mask: (B, L), true for real ones: only these are embedded."""
        z = clip.embed(self.visual_encoder, images[mask])  # [frames, D]
        predicted = z + self.alpha * self.residual_mlp(z)
        z_motion = z.new_zeros((*mask.shape, z.shape[-1])).masked_scatter(mask[..., None], z)
        padded = predicted.new_zeros(z_motion.shape).masked_scatter(mask[..., None], predicted)
        return Output(z_motion, padded, self.classification_head(losses.masked_mean(z_motion, mask)))


def build(config: dict[str, Any]) -> MoCLIP:
    """The model that a checkpoint's `config` describes, with random weights."""
    visual = clip.build(config["clip"]).visual
    return MoCLIP(visual, config["clip"]["embed_dim"], config["num_classes"], config["alpha"])


def find_checkpoint(folder: Path) -> Path:
    """The student in a run folder, ours (`<run>/`) or published (`<run> - best/`). Raises UserError."""
    if folder.is_file():
        return folder
    published = folder.with_name(folder.name + " - best")
    for place in (folder, published):
        if (best := place / "student_best.pth").is_file():
            return best
    for place in (published, folder):
        students = sorted(path for path in place.glob("*.pth") if path.name != "last.pth")
        if len(students) == 1:
            return students[0]
        if students:
            names = ", ".join(path.name for path in students)
            raise UserError(
                f"holds no student_best.pth but {names}", "name one of them with --checkpoint-dir", path=place
            )
    raise UserError("holds no student (student_best.pth)", "name a run folder that train.py wrote", path=folder)


def load(path: Path, clip_model_name: str | None = None, num_classes: int | None = None) -> tuple[MoCLIP, dict]:
    """A student and its config, in evaluation mode, from its checkpoint alone. Raises UserError.

    A published checkpoint holds no config: then `clip_model_name` (default ViT-B/32) and `num_classes` (default: as
    its head has) say what it is; otherwise they may only confirm what the file says."""
    content = checkpoint.load_checkpoint(path)
    state, config = content["state_dict"], content.get("config")
    head = state.get("classification_head.2.weight")
    if head is None or not any(key.startswith("visual_encoder.") for key in state):
        raise UserError(
            "is no MoCLIP student (no visual_encoder or classification_head)", "name a run of train.py", path=path
        )
    classes = int(head.shape[0])
    if num_classes is not None and num_classes != classes:
        raise UserError(f"--num-classes {num_classes}: {path} has {classes}", "leave the flag out or name another run")
    if not isinstance(config, dict) or not {"clip", "alpha", "num_classes", "flow"} <= set(config):
        taken_for = clip_model_name or "ViT-B/32"
        print(f"warning: {path} holds no config of ours, so nothing can be checked; taken for {taken_for}")
        config = {
            "clip": clip.describe(taken_for),
            "alpha": 0.1,
            "num_classes": classes,
            "teacher": {},
            "flow": {},
        }
    try:
        made_from = config["clip"].get("clip_model")
        if clip_model_name and made_from and clip.canonical_name(clip_model_name) != made_from:
            raise UserError(
                f"--clip-model-name {clip_model_name}: {path} was trained from {made_from}",
                "leave the flag out or name another run",
            )
        if not (isinstance(config["alpha"], float | int) and isinstance(config["flow"], dict)):
            raise TypeError("alpha is no number, or flow no dictionary")
        model = build(config)
    except UserError:
        raise
    except Exception as error:  # whatever open_clip and torch make of values that aren't ours
        raise UserError(f"its config describes no student ({error})", "name a run of train.py", path=path) from None
    checkpoint.load_state(model, state, path)
    return model.eval(), config
