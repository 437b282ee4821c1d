"""Videos from which whole stages are measured: links to one clip, so that they are made in a second."""

from functools import cached_property
from pathlib import Path

from benchmarks.gpu_checks.check import CheckContext
from benchmarks.gpu_checks.dataset import CLIP_MODEL, NAME, textured_frames, write_annotations, write_video
from benchmarks.inputs import vit_b32_config, write_clip_model

CLIP_FRAMES, CLIP_SIZE, FLOW_SIZE = 150, (360, 640), 224
MAX_CLIPS = 400


class StageInputs:
    """Clips, links to them, annotations and a CLIP in `folder`."""

    def __init__(self, folder: Path, dry_run: bool):
        self.folder, self.dry_run = folder, dry_run
        self.frames, size = (6, (64, 80)) if dry_run else (CLIP_FRAMES, CLIP_SIZE)
        self.count = 2 if dry_run else MAX_CLIPS
        self.clip = folder / "clip.mp4"
        write_video(self.clip, textured_frames(self.frames, *size, (2, 0), seed=0))
        self.videos = self.link(self.clip, "videos")
        write_annotations(folder / "annotations", {"train": [path.name for path in self.videos]})
        write_clip_model(folder / "clip", CLIP_MODEL if dry_run else vit_b32_config())

    @cached_property
    def flow_clip(self) -> Path:
        """A flow video of the size that extract_flows.py --size 224 writes; its images are a moving texture."""
        path = self.folder / "flow.mp4"
        height, width = (64, 80) if self.dry_run else (FLOW_SIZE, FLOW_SIZE * CLIP_SIZE[1] // CLIP_SIZE[0])
        write_video(path, textured_frames(self.frames, height, width, (2, 0), seed=0))
        return path

    def link(self, source: Path, name: str) -> list[Path]:
        """Return `count` links to a video, in a new folder."""
        folder = self.folder / name
        folder.mkdir(parents=True)
        paths = [folder / f"clip{number:03}.mp4" for number in range(self.count)]
        for path in paths:
            path.symlink_to(source)
        return paths

    def flags(self, context: CheckContext, clips: int) -> list[str]:
        data = ["--dataset-dir", str(self.folder), "--dataset-name", NAME, "--limit", str(clips)]
        return [*data, "--device", str(context.device)]
