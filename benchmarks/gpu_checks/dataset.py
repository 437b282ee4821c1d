"""A generated data set of two classes by direction of motion, and what the scripts make of it."""

import csv
import importlib
import io
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_checks.check import CheckFailed
from benchmarks.inputs import write_clip_model
from vimoclip import cli, flow, store, video
from vimoclip.training import checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]
NAME, CLASSES = "gpu", ("moving left", "moving right")
SPLITS = {"train": 8, "val": 4}  # clips
NUM_CLIPS = sum(SPLITS.values())
FPS = 25
LONGEST_SECONDS = 300.0  # of a script in other processes
CLIP_MODEL: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 64, "layers": 3, "width": 64, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    "quick_gelu": True,
}
# No dropout: ranks draw unequal random numbers, so with it two processes can't equal one. The learning rate is high, so
# that losses change within a few steps.
TFAM_SETTINGS = [
    "model.dropout=0",
    "model.classifier_dropout=0",
    "model.num_layers=2",
    "model.dim_feedforward=128",
    "training.lr=0.001",
]


def run_script(module: str, *arguments: object) -> Any:
    """Call a script's `main` and return its result. Raises CheckFailed if it fails or a video failed."""
    output = io.StringIO()
    try:
        with redirect_stdout(output), redirect_stderr(output):
            result = importlib.import_module(module).main(list(map(str, arguments)))
    except SystemExit:  # argparse has printed the reason
        raise CheckFailed(f"{module}: {(output.getvalue().strip().splitlines() or [''])[-1]}") from None
    if isinstance(result, cli.RunReport) and result.failed:
        video_id, reason = next(iter(result.failed.items()))
        raise CheckFailed(f"{module}: {len(result.failed)} videos failed, the first is {video_id}: {reason}")
    return result


def start_python(words: list[str]) -> subprocess.Popen[str]:
    """Start `python WORDS...` in the repository. Its output is in a pipe."""
    command = [sys.executable, *words]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run_python(words: list[str], seconds: float) -> None:
    """Run `python WORDS...`. Raises CheckFailed if it fails or takes longer."""
    process, seconds = start_python(words), min(max(1.0, seconds), LONGEST_SECONDS)
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()  # torchrun then ends its processes
        process.communicate()
        raise CheckFailed(f"not finished after {seconds:.0f} s: {' '.join(words[:6])}") from None
    if process.returncode:
        lines = output.strip().splitlines() or [""]
        reason = next((line for line in lines if "rror" in line), lines[-1])
        raise CheckFailed(f"exit code {process.returncode} of {' '.join(words[:6])}: {reason}")


def flags(settings: Mapping[str, object]) -> list[str]:
    """Return command line flags: {"batch_size": 4} -> --batch-size 4; True: a flag without value."""
    words = []
    for name, value in settings.items():
        words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return words


def read_losses(run: Path) -> list[float]:
    """Return all losses in the metrics.csv of a run of train.py or of TFAM, epoch by epoch."""
    with (run / "metrics.csv").open(newline="") as file:
        return [float(value) for row in csv.DictReader(file) for key, value in row.items() if key.endswith("loss")]


class GeneratedDataset:
    """Clips, annotations and random weights in `folder`; the outputs of the scripts are made at first use.

    The `cached_property`s run one script each on the device, and return its report or run folder."""

    def __init__(self, folder: Path, device: torch.device, dry_run: bool):
        self.folder, self.device, self.dry_run = folder, device, dry_run
        self.frames, self.size = (5, (48, 64)) if dry_run else (24, (240, 320))
        self.sequence_length = 4 if dry_run else 9
        self.loader_workers = 0 if dry_run else 2  # processes; they take seconds to start
        self.flow_model, self.flow_size, self.iterations = ("raft_small", 64, 1) if dry_run else ("raft", 224, 12)
        self.embeddings_path = store.rgb_embeddings_path(folder / "embeddings", NAME, "train")
        self.checkpoints_dir, self.logs_dir = self.folder / "checkpoints", self.folder / "logs"
        self.no_videos_dir = folder / "no-videos"
        self.no_videos_dir.mkdir(parents=True)
        self._losses: dict[str, list[float]] = {}
        self._write_videos()
        write_clip_model(self.folder / "clip", CLIP_MODEL)

    def _write_videos(self) -> None:
        names = [f"clip{clip:02}.mp4" for clip in range(NUM_CLIPS)]
        train = SPLITS["train"]
        write_annotations(self.folder / "annotations", {"train": names[:train], "val": names[train:]})
        for clip, name in enumerate(names):
            path = self.folder / "videos" / name
            write_video(path, textured_frames(self.frames, *self.size, (3 * (-1) ** (clip + 1), 0), clip))

    @property
    def data_flags(self) -> list[str]:
        return flags({"dataset_dir": self.folder, "dataset_name": NAME})

    @property
    def clip_flags(self) -> list[str]:
        return ["--clip-model-name", f"local-dir:{self.folder / 'clip'}"]

    @property
    def device_flags(self) -> list[str]:
        return ["--device", str(self.device)]

    @cached_property
    def flow_flags(self) -> list[str]:
        """Flags of extract_flows.py; its weights are written at first use."""
        path = self.folder / "flow_weights.ckpt"
        torch.manual_seed(0)
        model = flow.PTLFlowModel(self.flow_model, None, None, torch.device("cpu")).model
        checkpoint.save_checkpoint(path, {"state_dict": model.state_dict()})
        settings = {"ckpt_path": path, "size": self.flow_size, "iters": self.iterations}
        return [*flags({"model": self.flow_model}), *flags(settings)]

    @cached_property
    def embeddings(self) -> cli.RunReport:
        return run_script("extract_embeddings", *self.data_flags, *self.clip_flags, *self.device_flags)

    @cached_property
    def flows(self) -> cli.RunReport:
        """Learned flow, on which the student is trained."""
        return run_script("extract_flows", *self.data_flags, *self.flow_flags, *self.device_flags)

    @cached_property
    def dis_flows(self) -> cli.RunReport:
        folder = self.folder / "flows-dis"
        return run_script("extract_flows", *self.data_flags, "--model", "dis", "--output-dir", folder)

    def train_flags(self, run_name: str, **settings: object) -> list[str]:
        """Return the flags of train.py for a run of three epochs. `settings` override them."""
        defaults = {
            "run_name": run_name,
            "protocol": "published",
            "sequence_length": self.sequence_length,
            "batch_size": 4,
            "num_workers": 0,
            "epochs": 3,
            "learning_rate": 1e-4,
            "precision": "fp32",
            "device": self.device,
            "videos_dir": self.no_videos_dir,  # TensorBoard then shows no clips, which takes 0.3 s an epoch
            "checkpoints_dir": self.checkpoints_dir,
            "logs_dir": self.logs_dir,
        }
        limit = {"limit": 4} if self.dry_run else {}
        return [*self.data_flags, *self.clip_flags, *flags(defaults | limit | settings)]

    def train(self, run_name: str, **settings: object) -> Path:
        """Run train.py; return the run folder."""
        _ = self.embeddings, self.flows
        return run_script("train", *self.train_flags(run_name, **settings))

    def losses(self, **settings: object) -> list[float]:
        """Return the losses of all epochs of a run of train.py with these settings, from a cache if there is one."""
        name = "run-" + "-".join(f"{key}={value}" for key, value in sorted(settings.items()))
        if name not in self._losses:
            self._losses[name] = read_losses(self.train(name, **settings))
        return self._losses[name]

    @cached_property
    def student(self) -> Path:
        videos_dir, workers = self.folder / "videos", self.loader_workers
        return self.train("student", precision="auto", num_workers=workers, videos_dir=videos_dir)

    @cached_property
    def motion(self) -> cli.RunReport:
        arguments = ["--checkpoint-dir", self.student, *self.device_flags]
        return run_script("inference", *self.data_flags, *arguments)

    def tfam_flags(self, checkpoints_dir: Path, batch_size: int = 4, epochs: int = 3) -> list[str]:
        """Return the flags of TFAM.train_and_eval."""
        settings = [*TFAM_SETTINGS, f"training.batch_size={batch_size}", f"training.epochs={epochs}"]
        folders = flags(
            {
                "checkpoints_dir": checkpoints_dir,
                "logs_dir": checkpoints_dir / "logs",
                "num_workers": self.loader_workers,
            }
        )
        return [*self.data_flags, *self.device_flags, *folders, "--config", "cross_attention", "--set", *settings]

    @cached_property
    def tfam(self) -> Path:
        _ = self.embeddings, self.motion
        return run_script("TFAM.train_and_eval", *self.tfam_flags(self.checkpoints_dir))

    def predict_flags(self, videos: Path, output_dir: Path) -> list[str]:
        """Return the arguments of predict.py for a video or a folder of videos."""
        models = {"student": self.student, "tfam": self.tfam, "ckpt_path": self.folder / "flow_weights.ckpt"}
        return [str(videos), *flags(models | {"output_dir": output_dir}), *self.device_flags, *self.clip_flags]


def write_annotations(folder: Path, splits: Mapping[str, Sequence[str]]) -> None:
    """Write the classes, and the splits' videos, which have the classes in turn."""
    folder.mkdir(parents=True)
    rows = [f"{number},{name}" for number, name in enumerate(CLASSES)]
    (folder / f"{NAME}_action.csv").write_text("\n".join(["id,name", *rows]) + "\n")
    for split, names in splits.items():
        lines = [f"{name} {number % len(CLASSES)}\n" for number, name in enumerate(names)]
        (folder / f"{split}_multi.txt").write_text("".join(lines))


def textured_frames(count: int, height: int, width: int, velocity: tuple[int, int], seed: int) -> np.ndarray:
    """Return (n, H, W, 3) uint8 frames of a smooth texture that moves by `velocity` (x, y) pixels per frame."""
    import cv2

    x, y = (np.arange(count) * -step - min(0, (count - 1) * -step) for step in velocity)  # of the left upper corner
    size = width + int(x.max()), height + int(y.max())
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    texture = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    return np.stack([texture[top : top + height, left : left + width] for left, top in zip(x, y, strict=True)])


def write_video(path: Path, frames: np.ndarray) -> None:
    with video.VideoWriter(path, FPS, {}) as writer:
        writer.write(frames)
