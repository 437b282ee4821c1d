"""MoCLIP, the student: a copy of the CLIP image tower that embeds flow frames (paper, equations 1 to 6)."""

from vimoclip.moclip.model import MoCLIP, Output, ResidualMLP, build, find_checkpoint, load

__all__ = ["MoCLIP", "Output", "ResidualMLP", "build", "find_checkpoint", "load"]
