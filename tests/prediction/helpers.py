"""predict.py in a folder with the outputs of the chain, and copies of its runs of TFAM."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import CLASSES, REPOSITORY
from vimoclip import cli
from vimoclip.errors import UserError

CONFIGS = REPOSITORY / "TFAM" / "configs"
SMALL_FUSION = ["--set", "training.epochs=1", "model.num_heads=4", "model.num_layers=1", "model.dim_feedforward=16"]
RUNS = {
    "cross_attention": ["data.protocol=held_out"],
    "rgb": ["data.protocol=published"],
    "motion": ["data.protocol=published"],
    "concat_time": ["data.protocol=published"],
    "probe_both": ["data.protocol=published"],
}
FUSION_ARGS = ["--tfam", "checkpoints/TFAM/cross_attention/seed49", "--student", "checkpoints/student"]
RGB_RUN = "checkpoints/TFAM/rgb/seed49"


def predict(root: Path, *command: str, clip: str = "local-dir:tinyclip") -> cli.RunReport:
    import predict as script

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        return script.main([*command, *(["--clip-model-name", clip] if clip else []), "--num-workers", "0"])


def predict_error(root: Path, *command: str, clip: str = "local-dir:tinyclip") -> UserError:
    with pytest.raises(UserError) as caught:
        predict(root, *command, clip=clip)
    return caught.value


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def copy_run(
    chain: Path, config: str, folder: Path, change: Callable[[dict[str, Any]], None] = lambda state: None
) -> Path:
    """Copy a run into `folder` without its calibration; `change`: changes the content of its checkpoint."""
    shutil.copytree(chain / "checkpoints" / "TFAM" / config / "seed49", folder)
    (folder / "calibration.json").unlink(missing_ok=True)
    state = torch.load(folder / "best_model.pth", weights_only=True)
    change(state)
    torch.save(state, folder / "best_model.pth")
    return folder


def write_calibration(
    run: Path,
    slopes: Sequence[float] = (2.0, 0.5, 3.0),
    intercepts: Sequence[float] = (0.5, -1.0, 0.25),
    thresholds: Sequence[float] = (0.6, 0.3, 0.7),
    positives: Sequence[int] = (12, 3, 10),
    method: str = "platt",
) -> Path:
    """Write the calibration.json of a run of CLASSES."""
    numbers = zip(slopes, intercepts, thresholds, positives, strict=True)
    keys = ("slope", "intercept", "threshold", "positives")
    rows = [dict(zip(keys, row, strict=True)) for row in numbers]
    classes = {name: {"scaling": method, **row} for name, row in zip(CLASSES, rows, strict=True)}
    document = {"schema": 1, "method": method, "temperature": 1.0, "num_videos": 20, "cross_validated_log_loss": {}}
    (run / "calibration.json").write_text(json.dumps(document | {"classes": classes}))
    return run
