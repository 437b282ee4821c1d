"""MoCLIP, the student: a copy of the CLIP image encoder that embeds flow frames (paper, eq. 1 to 6)."""

from vimoclip.moclip.model import MoCLIP, ResidualMLP, StudentOutput, build, find_checkpoint, load

__all__ = ["MoCLIP", "ResidualMLP", "StudentOutput", "build", "find_checkpoint", "load"]
