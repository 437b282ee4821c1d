"""Trained TFAM as the classifier of windows in `predict.py`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from TFAM import trained_fusion
from TFAM.data import ClipFeatures, collate
from TFAM.loops import score_batch
from TFAM.packing import Fusion, Pooling
from TFAM.probes import LinearProbe, build_model
from vimoclip import video
from vimoclip.errors import UserError
from vimoclip.io.checkpoint_loading import config_errors, load_model, weights_sha256
from vimoclip.prediction import WindowFeatures

DEFAULT_THRESHOLD = 0.5  # of classes without a fitted threshold


class FusionPredictor:
    """Trained TFAM that scores windows. `path`: a run folder with a best_model.pth, a checkpoint, or a model folder.

    `inputs`: root attributes of the embedding files that it was trained on, by stream (rgb, motion); None for a stream
    that it does not use. `calibration`: the run's, by which all scores become probabilities; None if it has none, or
    if `raw` is set. Raises UserError if the checkpoint does not record its inputs, or was trained on shuffled motion,
    or if its calibration is damaged."""

    def __init__(self, path: Path, device: torch.device, precision: str, raw: bool = False):
        self.trained = trained = trained_fusion.load(path, calibrated=not raw)
        self.path, self.name, self.classes = trained.path, trained.name, trained.classes
        config = trained.config
        self.model_config = config["model"]
        if len(self.classes) != self.model_config.get("num_classes"):
            problem = f"names {len(self.classes)} classes, but its model has {self.model_config.get('num_classes')}"
            raise UserError(problem, "copy it again", path=self.path)
        with config_errors(self.path):
            self.fusion = Fusion(self.model_config["fusion"])
        motion_mode = config["data"]["motion"]
        if motion_mode == "shuffled" and self.fusion.uses_motion:
            raise UserError("was trained on shuffled motion (data.motion)", "give another run", path=self.path)
        uses_rgb, uses_motion = self.fusion.uses_rgb, self.fusion.uses_motion and motion_mode == "real"
        self.inputs: dict[str, dict[str, Any] | None] = {
            "rgb": config["inputs"].get("rgb") if uses_rgb else None,
            "motion": config["inputs"].get("motion") if uses_motion else None,
        }
        for stream, is_used in (("rgb", uses_rgb), ("motion", uses_motion)):
            if is_used and "sampling" not in (self.inputs[stream] or {}):
                problem = f"has no metadata of its {stream} embeddings"
                raise UserError(problem, "extract them again, and train again", path=self.path)
        for attributes in filter(None, self.inputs.values()):
            with config_errors(self.path):
                video.Sampling(**attributes["sampling"])
                video.geometry_of(attributes)
                if not isinstance(attributes.get("student", {}), dict):
                    raise TypeError("student")
        self.calibration = trained.calibration
        self.device, self.precision = device, precision
        self.model = load_model(lambda: build_model(self.model_config), trained.state_dict, self.path)
        self.model.to(device).eval()
        self.weights_sha256 = weights_sha256(self.model)

    @torch.inference_mode()
    def __call__(self, windows: Sequence[WindowFeatures]) -> np.ndarray:
        """Return (n, C) float64 scores. With pooling padded_mean each window is a batch, as padding counts."""
        is_padded_mean = Pooling(self.model_config["pooling"]) == Pooling.PADDED_MEAN
        batches = [[window] for window in windows] if is_padded_mean else [windows]
        scores = np.concatenate([self._score(batch) for batch in batches])
        return scores if self.calibration is None else self.calibration.scores(scores)

    @property
    def has_two_streams(self) -> bool:
        """Whether the scores depend on RGB and on motion."""
        return all(inputs is not None for inputs in self.inputs.values())

    def score_streams(self, windows: Sequence[WindowFeatures]) -> np.ndarray:
        """Return (2, n, C): the scores with RGB alone and with motion alone; the other's embeddings are `_absent`."""
        return np.stack(
            [
                self([window._replace(motion=None) for window in windows]),
                self([window._replace(rgb=None) for window in windows]),
            ]
        )

    def _score(self, windows: Sequence[WindowFeatures]) -> np.ndarray:
        batch = collate([self._features(window) for window in windows], self.model_config["pooling"])
        logits = score_batch(self.model, batch, self.device, self.precision).cpu()
        if not logits.isfinite().all():
            raise UserError("gives scores that are not finite", "use --precision fp32", path=self.path)
        return logits.sigmoid().double().numpy()

    def _features(self, window: WindowFeatures) -> ClipFeatures:
        """Return the embeddings of a window, `_absent` for a stream that was not computed, or is not the model's."""
        rgb, motion = window.rgb, window.motion
        if rgb is None or self.inputs["rgb"] is None:
            rgb = self._absent("rgb", window.frames)
        if not self.fusion.uses_motion:
            motion = None
        elif motion is None or self.inputs["motion"] is None:
            motion = self._absent("motion", window.frames - 1)
        return ClipFeatures("", rgb, motion, torch.empty(0))

    def _absent(self, stream: str, count: int) -> torch.Tensor:
        """Return (count, D) embeddings that stand for a stream without content: 0, or a linear probe's mean clip."""
        if isinstance(self.model, LinearProbe):
            return self.model.absent(stream).expand(count, -1)
        return torch.zeros(count, self.model_config["d_model"])

    def thresholds(self) -> np.ndarray:
        """Return (C,) thresholds that the run fitted on its model-selection split, or DEFAULT_THRESHOLD."""
        if self.calibration:
            return self.calibration.thresholds
        fitted = self.trained.raw_thresholds or {}
        if not fitted:
            print(f"{self.path}: no fitted thresholds, so {DEFAULT_THRESHOLD} is used for every class", flush=True)
        return np.array([float(fitted.get(name, DEFAULT_THRESHOLD)) for name in self.classes])
