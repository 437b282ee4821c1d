"""Zero-shot: labels by CLIP's text tower, as predict.py --labels has them."""

import json
from pathlib import Path

import pytest
import torch

import predict
from tests.conftest import make_clip, moving_frames, write_video
from vimoclip import clip
from vimoclip.errors import UserError

LABELS = ("drinking", "Head_Up", "lyingDown")


@pytest.fixture(scope="module")
def reading_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CLIP that can read any text."""
    return make_clip(tmp_path_factory.mktemp("models") / "reader", vocabulary=49408)


def test_frames_that_look_like_a_label_s_words_get_that_label(reading_clip: str) -> None:
    _, words = clip.load_zero_shot(reading_clip, None, LABELS, None)
    for place in range(len(LABELS)):
        frames = 3.0 * words.labels[place].repeat(4, 1)  # lengths don't matter
        scores = words.scores(frames)
        assert int(scores.argmax()) == place
        # by hand: of all labels and of none, by how near they are
        cosines = torch.cat([words.labels, words.neither[None]]) @ words.labels[place]
        assert scores.tolist() == pytest.approx((words.scale * cosines).softmax(0)[:-1].tolist(), abs=1e-6)
    words.scale = 100.0  # as trained ones have
    assert words.scores(words.neither[None]).sum() < 0.5


def test_a_single_label_is_not_sure_by_itself(reading_clip: str) -> None:
    _, words = clip.load_zero_shot(reading_clip, None, ["drinking"], None)
    assert float(words.scores(words.neither[None])[0]) < 0.5 < float(words.scores(words.labels)[0])


def test_a_clip_that_learnt_by_sigmoid_scores_each_label_by_itself() -> None:
    labels = torch.eye(3)
    words = clip.ZeroShot(labels[:2], labels[2], scale=10.0, bias=-5.0)
    both = words.scores(torch.tensor([[1.0, 1.0, 0.0]]))
    expected = torch.sigmoid(torch.tensor(10 * 0.5**0.5 - 5)).item()
    assert both.tolist() == pytest.approx([expected, expected], abs=1e-6)


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("Head_Up", "head up"),
        ("lyingDown", "lying down"),
        ("Auto-Groom", "auto-groom"),
        ("Being  fed", "being fed"),
    ],
)
def test_names_of_classes_become_words(label: str, words: str) -> None:
    assert clip.readable(label) == words


def test_windows_are_scored_without_any_training(reading_clip: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_frames(50, (1, 0)), lossless=False)
    command = [str(path), "--labels", *LABELS, "--clip-model-name", reading_clip, "--num-workers", "0"]
    window = ["--window", "1", "--stride-seconds", "0.5"]
    report = predict.main([*command, *window, "-o", str(tmp_path / "out")])
    assert report.done == 1
    found = json.loads((tmp_path / "out" / "a.json").read_text())
    assert found["classes"] == list(LABELS)
    assert found["starts"] == [0.0, 0.5, 1.0]
    assert found["frames"] == 8  # 4 a second
    assert found["made_with"]["zero_shot"] is True
    assert found["made_with"]["templates"] == list(clip.TEMPLATES)
    assert all(0 <= score <= 1 for row in found["scores"] for score in row)
    again = ["--labels", "sleeping", "eating", "up", "--clip-model-name", reading_clip, "--num-workers", "0"]
    with pytest.raises(UserError, match="classes is"):  # as many others are not the same
        predict.main([str(path), *again, *window, "-o", str(tmp_path / "out")])
    more = predict.main([*command, *window, "-o", str(tmp_path / "more"), "--fps", "25", "--template", "some {}"])
    assert more.done == 1
    every = json.loads((tmp_path / "more" / "a.json").read_text())
    assert every["frames"] == 50
    assert every["scores"] != found["scores"]


def test_a_template_without_a_place_for_the_label_is_refused(reading_clip: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_frames(4, (1, 0)))
    with pytest.raises(UserError, match="--template 'an animal'"):
        predict.main([str(path), "--labels", "a", "--template", "an animal", "--clip-model-name", reading_clip])


def test_a_text_tower_that_misses_its_weights_is_refused(reading_clip: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder, whole = tmp_path / "half", Path(reading_clip.removeprefix("local-dir:"))
    folder.mkdir()
    (folder / "open_clip_config.json").write_text((whole / "open_clip_config.json").read_text())
    state = load_file(whole / "open_clip_model.safetensors")
    image = {key: tensor for key, tensor in state.items() if key.startswith("visual.")}
    save_file(image, folder / "open_clip_model.safetensors")
    path = write_video(tmp_path / "a.mp4", moving_frames(4, (1, 0)))
    with pytest.raises(UserError, match="can't be loaded as a CLIP model"):
        predict.main([str(path), "--labels", "a", "--clip-model-name", f"local-dir:{folder}"])
