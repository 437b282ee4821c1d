"""The demo's clips and its teacher."""

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from demo import drawing, make_clips, make_teacher, scenes
from demo.scenes import ACTIONS, HEIGHT, WIDTH
from tests.conftest import modification_times
from vimoclip import annotations, clip, video
from vimoclip.errors import UserError

# make_clips

FULL = (256, 28, 128)  # clips to train on, to choose on and to report on


def make(folder: Path, *flags: str) -> Path:
    return make_clips.main(["--train", "2", "--val", "1", "--num-workers", "0", "--dataset-dir", str(folder), *flags])


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dataset = tmp_path_factory.mktemp("data") / "demo"
    make(dataset)
    return dataset


def test_clips_are_h264_of_two_seconds_with_the_labels_of_their_scenes(dataset_dir: Path) -> None:
    data = annotations.load(dataset_dir / "annotations", "demo", ["train", "val"])
    assert data.classes == tuple(ACTIONS)
    assert {split: list(videos) for split, videos in data.splits.items()} == {
        "train": ["clip0000.mp4", "clip0001.mp4"],
        "val": ["clip0002.mp4"],
    }
    for split, videos in data.splits.items():
        for name, labels in videos.items():
            info = video.probe(dataset_dir / "videos" / name)
            assert (info.width, info.height, info.fps, info.frames) == (240, 136, 25, 50)
            with av.open(str(dataset_dir / "videos" / name)) as container:
                assert container.streams.video[0].codec.canonical_name == "h264"
                assert sum(1 for _ in container.decode(video=0)) == 50
            assert info.comment is not None
            scene = scenes.sample_scene(info.comment["scene"])
            assert {data.classes[label] for label in labels} == scene.actions(), split
            assert info.comment["caption"] == scene.caption()
            decoded = video.RandomAccessReader(dataset_dir / "videos" / name).read(0, 50).astype(int)
            assert np.abs(decoded - drawing.draw_clip(scene)).mean() < 6


def test_a_tenth_of_the_training_clips_is_the_selection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_clips, "write_clip", lambda folder, item: None)  # the labels are enough
    make_clips.main(["--num-workers", "0", "--dataset-dir", str(tmp_path)])
    data = annotations.load(tmp_path / "annotations", "demo", ["train", "val"])
    assert set(data.selection) < set(data.splits["train"])
    assert (len(data.splits["train"]) - len(data.selection), len(data.selection), len(data.splits["val"])) == FULL
    trained = {label for name, labels in data.splits["train"].items() if name not in data.selection for label in labels}
    assert trained == set(range(len(ACTIONS)))


def test_a_second_call_draws_only_missing_clips(dataset_dir: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "demo"
    shutil.copytree(dataset_dir, dataset)
    before = modification_times(dataset / "videos")
    make(dataset)
    assert modification_times(dataset / "videos") == before
    (dataset / "videos" / "clip0001.mp4").unlink()
    make(dataset)
    after = modification_times(dataset / "videos")
    assert {name for name in before if before[name] != after[name]} == {"clip0001.mp4"}
    for name in before:
        assert (dataset / "videos" / name).read_bytes() == (dataset_dir / "videos" / name).read_bytes()


def test_clips_are_deterministic_and_follow_the_seed(dataset_dir: Path, tmp_path: Path) -> None:
    make(tmp_path / "same", "--num-workers", "1")
    make(tmp_path / "other", "--seed", "2")
    for path in (dataset_dir / "videos").iterdir():
        assert (tmp_path / "same" / "videos" / path.name).read_bytes() == path.read_bytes()
        assert (tmp_path / "other" / "videos" / path.name).read_bytes() != path.read_bytes()
    for path in (dataset_dir / "annotations").iterdir():
        assert (tmp_path / "same" / "annotations" / path.name).read_bytes() == path.read_bytes()


def test_another_seed_in_the_same_folder_raises_before_writing(dataset_dir: Path) -> None:
    before = modification_times(dataset_dir)
    with pytest.raises(UserError, match=r"clip0000.mp4") as error:
        make(dataset_dir, "--seed", "2")
    assert str(dataset_dir / "videos" / "clip0000.mp4") in str(error.value)
    assert modification_times(dataset_dir) == before


# make_teacher

SMALL = ["--stills", "40", "--held-out", "20", "--steps", "2", "--num-workers", "1", "--batch-size", "16"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_teacher.main([*SMALL, "--output-dir", str(tmp_path_factory.mktemp("models") / "teacher")])


def test_the_teacher_is_a_folder_that_open_clip_reads(teacher: Path) -> None:
    encoder = clip.load_encoder(f"local-dir:{teacher}", None)
    frames = np.random.default_rng(0).integers(0, 255, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)
    prepared = encoder.preprocess(frames)
    assert prepared.shape == (2, 3, 64, 64)
    assert encoder.encode(prepared).shape == (2, 128)
    assert 0.8e6 < sum(p.numel() for p in encoder.visual.parameters()) < 1.3e6
    squashed = clip.load_encoder(f"local-dir:{teacher}", None, "squash").preprocess(frames)  # as in training
    expected = clip.Preprocess(make_teacher.preprocess_config())(frames)
    assert torch.equal(squashed, expected)


def test_the_teacher_reports_retrieval_on_held_out_stills(teacher: Path) -> None:
    result = json.loads((teacher / "retrieval.json").read_text())
    assert result["stills"] == 20
    assert 1 < result["captions"] <= 20
    assert 0 <= result["recall_at_1"] <= result["recall_at_5"] <= 1


def test_an_existing_teacher_is_not_trained_again(teacher: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = modification_times(teacher)
    assert make_teacher.main([*SMALL, "--output-dir", str(teacher)]) == teacher
    output = capsys.readouterr().out
    assert output.startswith(f"{teacher}: ")
    with pytest.raises(UserError, match=r"steps .*retrieval.json"):
        make_teacher.main([*SMALL, "--steps", "3", "--output-dir", str(teacher)])
    assert modification_times(teacher) == before


@pytest.mark.parametrize("seed", [0, 49, 1999, 2**32 - 1, 2000])
def test_scene_seeds_of_clips_and_stills_do_not_overlap(seed: int) -> None:
    clips = range(seed * make_clips.SEEDS_PER_DATASET, (seed + 1) * make_clips.SEEDS_PER_DATASET)
    stills = range(make_teacher.FIRST_STILL_SEED, make_teacher.FIRST_STILL_SEED + make_clips.SEEDS_PER_DATASET)
    assert clips.stop <= stills.start or stills.stop <= clips.start


class LookupModel(torch.nn.Module):
    """Encode an image's first pixel and a caption's first token as one-hot; `mistaken` images get the next number."""

    def __init__(self, count: int, mistaken: tuple[int, ...] = ()):
        super().__init__()
        self.count, self.mistaken = count, mistaken

    def encode_image(self, images: torch.Tensor, normalize: bool) -> torch.Tensor:
        assert normalize
        config = make_teacher.preprocess_config()
        numbers = (images[:, 0, 0, 0] * config["std"][0] + config["mean"][0]).mul(255).round().long()
        shifted = [(int(n) + (int(n) in self.mistaken)) % self.count for n in numbers]
        return torch.eye(self.count)[shifted]

    def encode_text(self, tokens: torch.Tensor, normalize: bool) -> torch.Tensor:
        assert normalize
        return torch.eye(self.count)[tokens[:, 0]]


def make_images(numbers: list[int]) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.uint8)[:, None, None, None].expand(-1, 8, 8, 3)


def test_retrieval_counts_distinct_captions_and_all_stills() -> None:
    numbers = [0, 1, 2, 3, 4, 5, 6, 7, 0, 0]
    tokens = torch.tensor([[n, 9] for n in numbers])
    result = make_teacher.evaluate_retrieval(LookupModel(8), make_images(numbers), tokens)
    assert result == {"stills": 10, "captions": 8, "recall_at_1": 1.0, "recall_at_5": 1.0}
    result = make_teacher.evaluate_retrieval(LookupModel(8, mistaken=(0,)), make_images(numbers), tokens)
    assert result["recall_at_1"] == pytest.approx(0.7)  # three stills have caption 0
    assert result["captions"] == 8
