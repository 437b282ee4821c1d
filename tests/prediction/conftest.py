"""A folder with the outputs of the chain."""

from pathlib import Path

import pytest

from tests.conftest import make_tiny_clip, moving_frames, write_annotations, write_video
from tests.prediction.helpers import CONFIGS, RUNS, SMALL_FUSION


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset after all scripts of the chain: clips of odd size and 14 to 21 frames, sampled with stride 2."""
    import extract_embeddings
    import extract_flows
    import inference
    import train
    from TFAM import train_and_eval

    root = tmp_path_factory.mktemp("chain")
    splits: dict[str, dict[str, tuple[int, ...]]] = {"train": {}, "val": {}}
    for i in range(8):
        split = "val" if i % 4 == 3 else "train"
        name, label = f"clip{i}.mp4", i % 3
        splits[split][name] = (label,)
        frames = moving_frames(14 + i, ((2, 0), (0, 3), (0, 0))[label], height=51, width=67, seed=i)
        write_video(root / "dataset" / "videos" / name, frames, lossless=False)
    write_annotations(root / "dataset" / "annotations", splits)
    (root / "dataset" / "annotations" / "selection.txt").write_text("clip1.mp4\nclip2.mp4\n")
    make_tiny_clip(root / "tinyclip")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        extract_embeddings.main(["--clip-model-name", "local-dir:tinyclip", "--stride", "2"])
        extract_flows.main(["--model", "dis", "--stride", "2", "--size", "35", "--lossless", "--num-workers", "0"])
        student = ["--clip-model-name", "local-dir:tinyclip", "--epochs", "1", "--sequence-length", "4"]
        train.main([*student, "--run-name", "student", "--num-workers", "0"])
        inference.main(["--checkpoint-dir", "checkpoints/student"])
        for config, extra in RUNS.items():
            command = ["--config", str(CONFIGS / f"{config}.yaml"), "--num-workers", "0", *SMALL_FUSION, *extra]
            train_and_eval.main(command)
    return root
