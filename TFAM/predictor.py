"""A trained TFAM that scores stretches of a video, as `predict.py` has them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from TFAM.data import Item, collate
from TFAM.evaluation import own_config
from TFAM.model import Fusion, FusionTransformer, Pooling
from vimoclip import clip
from vimoclip.errors import UserError
from vimoclip.prediction import Part
from vimoclip.runtime.device import autocast
from vimoclip.training import checkpoint

UNKNOWN = 0.5  # the threshold of a class of which none was fitted


class Fused:
    """A checkpoint of TFAM. `inputs`: what made its `rgb` and its `motion`, None where it does without.

    Raises UserError for a checkpoint that doesn't say what it is, or can't be used on a video alone."""

    def __init__(self, place: Path, device: torch.device, precision: str):
        self.path = place / "best_model.pth" if place.is_dir() else place
        state = checkpoint.load_checkpoint(self.path)
        own = own_config(state)
        if own is None:
            raise UserError(
                "doesn't say what its embeddings were made with, as published checkpoints don't",
                "name a run of TFAM/train_and_eval.py, which do",
                path=self.path,
            )
        self.model_config, self.control = own["model"], own["data"].get("motion", "real")
        self.fusion = Fusion(self.model_config["fusion"])
        if self.control == "shuffled" and self.fusion != Fusion.RGB:
            raise UserError(
                "learnt from motion of other videos (data.motion: shuffled)", "name another run", path=self.path
            )
        self.inputs: dict[str, dict[str, Any] | None] = {
            "rgb": None if self.fusion == Fusion.MOTION else own["inputs"].get("rgb"),
            "motion": own["inputs"].get("motion") if self._moves() else None,
        }
        for kind, needed in (("rgb", self.fusion != Fusion.MOTION), ("motion", self._moves())):
            if needed and "sampling" not in (self.inputs[kind] or {}):
                raise UserError(f"its {kind} embeddings don't say what made them", "make them anew", path=self.path)
        self.classes: tuple[str, ...] = tuple(state["class_names"])
        self.device, self.precision = device, precision
        self.model = FusionTransformer(**self.model_config).to(device).eval()
        checkpoint.load_state(self.model, state["state_dict"], self.path)
        self.weights = clip.weights_sha256(self.model)

    def _moves(self) -> bool:
        return self.fusion != Fusion.RGB and self.control == "real"

    @torch.inference_mode()
    def __call__(self, parts: Sequence[Part]) -> np.ndarray:
        """(n, C) float64 probabilities. With `padded_mean` each part is a batch of its own, as padding would count."""
        one_by_one = Pooling(self.model_config["pooling"]) == Pooling.PADDED_MEAN
        batches = [[part] for part in parts] if one_by_one else [parts]
        return np.concatenate([self._score(batch) for batch in batches])

    def _score(self, parts: Sequence[Part]) -> np.ndarray:
        batch = collate([self._item(part) for part in parts])
        with autocast(self.device, self.precision):
            logits = self.model(*batch.inputs(self.device)).float().cpu()
        if not logits.isfinite().all():
            raise UserError("gives scores that are not finite", "try --precision fp32", path=self.path)
        return logits.sigmoid().double().numpy()

    def _item(self, part: Part) -> Item:
        width = self.model_config["d_model"]
        rgb = torch.zeros(part.frames, width) if part.rgb is None else part.rgb
        motion = None
        if self.fusion != Fusion.RGB:
            motion = torch.zeros(part.frames - 1, width) if part.motion is None else part.motion
        return Item("", rgb, motion, torch.empty(0))

    def thresholds(self) -> np.ndarray:
        """(C,): those that the run fitted on its selection clips, and for classes without 0.5."""
        try:
            said = json.loads((self.path.parent / "metrics.json").read_text(encoding="utf-8"))
            fitted = said.get("thresholds") if self.path.name == "best_model.pth" else None  # which they are of
        except (OSError, ValueError):
            fitted = None
        if not fitted:
            print(f"{self.path}: no thresholds of it are known; every class has {UNKNOWN}", flush=True)
        return np.array([float((fitted or {}).get(name, UNKNOWN)) for name in self.classes])

    def described(self) -> dict[str, Any]:
        """What a result says of the model, without paths: run, epoch, weights, and what looked at the frames."""
        rgb, motion = self.inputs["rgb"] or {}, self.inputs["motion"] or {}
        return {
            "zero_shot": False,
            "tfam": "/".join(self.path.absolute().parts[-3:]),
            "tfam_weights_sha256": self.weights,
            "clip_model": rgb.get("clip_model"),
            "clip_weights_sha256": rgb.get("weights_sha256"),
            "student_weights_sha256": motion.get("weights_sha256"),
            "flow": motion.get("student", {}).get("flow"),
            "sampling": (rgb or motion).get("sampling"),
        }
