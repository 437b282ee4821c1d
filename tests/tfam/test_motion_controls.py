"""The controls data.motion=shuffled and data.motion=none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.tfam.helpers import KEEP_LAST_EPOCH, class_embeddings, read_json, train_command, write_h5
from TFAM import config as tfam_config
from TFAM.data import apply_config, pair_embeddings
from TFAM.train_and_eval import main
from vimoclip.errors import UserError
from vimoclip.store import EmbeddingReader


@pytest.fixture(scope="module")
def numbered_readers(tmp_path_factory):
    """Readers of RGB and motion of 50 videos of 2 to 8 frames; motion t of video n is (n, t, 0, 0)."""
    folder = tmp_path_factory.mktemp("numbered")
    lengths = {n: 2 + n * 5 % 7 for n in range(50)}
    motions = {
        f"V{n:02}": np.array([[n, t, 0, 0] for t in range(frames - 1)], np.float32) for n, frames in lengths.items()
    }
    rgb = write_h5(
        folder / "rgb.h5",
        {f"V{n:02}.mp4": np.zeros((length, 4), np.float32) for n, length in lengths.items()},
        np.eye(3, dtype=np.float32)[[n % 3 for n in lengths]],
        kind="rgb",
    )
    return EmbeddingReader(rgb, "rgb"), EmbeddingReader(
        write_h5(folder / "motion.h5", motions, kind="motion"), "motion"
    )


def motion_source(clip):
    """Return the number of the video that a clip's motion belongs to."""
    assert clip.motion is not None
    return int(clip.motion[0, 0])


def shuffled_clips(readers, size, seed):
    """Return the first `size` clips, with data.motion shuffled."""
    rgb, motion = readers
    dataset = pair_embeddings(rgb, motion, "cross_attention", size)
    apply_config({"val": dataset}, tfam_config.load([], ["data.motion=shuffled", f"training.seed={seed}"]))
    return [dataset[i] for i in range(len(dataset))]


@hypothesis_settings(max_examples=40, deadline=None)
@given(size=st.integers(2, 50), seed=st.integers(0, 2**32 - 1))
def test_shuffled_motion_is_a_derangement_of_matching_length(numbered_readers, size, seed):
    clips = shuffled_clips(numbered_readers, size, seed)
    sources = [motion_source(clip) for clip in clips]
    assert sorted(sources) == list(range(size))
    assert all(source != number for number, source in enumerate(sources))
    assert [clip.video for clip in clips] == [f"V{n:02}.mp4" for n in range(size)]
    for clip, source in zip(clips, sources, strict=True):
        length = numbered_readers[1].length(f"V{source:02}")
        expected = [[source, t % length, 0, 0] for t in range(len(clip.rgb) - 1)]  # repeated or trimmed
        assert clip.motion.tolist() == expected
    again = shuffled_clips(numbered_readers, size, seed)
    assert all(torch.equal(a.motion, b.motion) for a, b in zip(clips, again, strict=True))


def test_seeds_shuffle_differently_and_real_motion_is_unchanged(numbered_readers):
    orders = [tuple(motion_source(clip) for clip in shuffled_clips(numbered_readers, 20, seed)) for seed in range(5)]
    assert len(set(orders)) == 5
    rgb, motion = numbered_readers
    dataset = pair_embeddings(rgb, motion, "cross_attention")
    apply_config({"val": dataset}, tfam_config.load([]))
    assert [motion_source(dataset[i]) for i in range(50)] == list(range(50))


def test_single_video_takes_motion_of_another_split(dataset):
    folder = main(train_command("cross_attention_shuffled", "--limit", "1"))
    with pytest.raises(UserError) as error:
        main(["--evaluate", str(folder / "best_model.pth"), "--limit", "1"])
    assert error.value.path == str(dataset / "ak_val_clip_embeddings.h5")
    assert "data.motion" in error.value.problem


def test_shuffled_motion_removes_motion_only_classes(motion_only_dataset):
    metrics = {}
    for config in ("cross_attention", "cross_attention_shuffled"):
        folder = main([*train_command(config), "training.epochs=6", KEEP_LAST_EPOCH])
        metrics[config] = read_json(folder / "metrics.json")
    assert metrics["cross_attention"]["map_macro"] > 0.95
    assert metrics["cross_attention_shuffled"]["map_macro"] < 0.6
    assert metrics["cross_attention_shuffled"]["settings"]["data.motion"] == "shuffled"
    assert "data.motion" not in metrics["cross_attention"]["settings"]


def test_shuffled_checkpoint_is_evaluated_with_shuffled_motion(motion_only_dataset):
    folder = main(train_command("cross_attention_shuffled"))
    checkpoint, trained = folder / "best_model.pth", read_json(folder / "metrics.json")
    evaluated = main(["--evaluate", str(checkpoint), "--device", "cpu", "--num-workers", "0"])
    assert (evaluated["map_macro"], evaluated["map_micro"]) == (trained["map_macro"], trained["map_micro"])
    assert evaluated["settings"]["data.motion"] == "shuffled"
    predictions = Path("TFAM/results/evaluate/cross_attention_shuffled-seed49-best_model/predictions.csv")
    assert predictions.read_text() == (folder / "predictions.csv").read_text()
    with_real_motion = main(["--evaluate", str(checkpoint), "--device", "cpu", "--set", "data.motion=real"])
    assert "data.motion" not in with_real_motion["settings"]
    assert predictions.read_text() != (folder / "predictions.csv").read_text()


def test_none_control_ignores_motion_values(dataset: Path) -> None:
    folders = {}
    for name in ("one", "other"):
        for config in ("cross_attention_none", "cross_attention"):
            folders[name, config] = main(train_command(config, "--checkpoints-dir", name))
        attributes = EmbeddingReader(dataset / "flow_embeddings.h5").attributes
        kept = ("kind", "embed_dim", "sampling", "student", "clip_model", "weights_sha256")
        (dataset / "flow_embeddings.h5").unlink()
        other_motion = {f"V{n:02}": class_embeddings(n + 100, 3 + n % 5) for n in range(15)}  # of the same lengths
        write_h5(dataset / "flow_embeddings.h5", other_motion, **{key: attributes[key] for key in kept})
    for config, same in (("cross_attention_none", True), ("cross_attention", False)):
        texts = [(folders[name, config] / "predictions.csv").read_text() for name in ("one", "other")]
        assert (texts[0] == texts[1]) == same, config
    control, real = (
        read_json(folders["one", config] / "metrics.json") for config in ("cross_attention_none", "cross_attention")
    )
    assert control["parameters"] == real["parameters"]
    assert control["settings"]["data.motion"] == "none"
    checkpoint = folders["one", "cross_attention_none"] / "best_model.pth"
    again = main(["--evaluate", str(checkpoint), "--device", "cpu", "--num-workers", "0"])
    assert again["map_micro"] == control["map_micro"] and again["settings"]["data.motion"] == "none"
