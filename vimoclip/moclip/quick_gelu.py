"""QuickGELU as OpenAI's weights need it, in fewer passes over memory."""

import torch
import torch.nn.functional as F
from torch import nn

SLOPE = 1.702


class FusedQuickGELU(nn.Module):
    """x * sigmoid(1.702 x) = silu(1.702 x) / 1.702, which keeps one tensor for its gradient, not two."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.silu(x * SLOPE) / SLOPE


def fuse_quick_gelu(model: nn.Module) -> None:
    """Replace open_clip's QuickGELU, which has no parameters, wherever a model has it."""
    for parent in list(model.modules()):
        for name, module in parent.named_children():
            if type(module).__name__ == "QuickGELU":
                setattr(parent, name, FusedQuickGELU())
