"""Zero-shot classification with CLIP's text tower, alone and in predict.py --labels."""

import json
from pathlib import Path

import pytest
import torch

import predict
from tests.conftest import make_tiny_clip, moving_frames, write_video
from vimoclip import clip
from vimoclip.errors import UserError

LABELS = ("drinking", "Head_Up", "lyingDown")


@pytest.fixture(scope="module")
def text_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CLIP model whose text tower has the whole vocabulary of CLIP's tokenizer."""
    return make_tiny_clip(tmp_path_factory.mktemp("models") / "text_clip", vocabulary=49408)


def test_frames_near_a_labels_text_get_that_label(text_clip: str) -> None:
    _, classifier = clip.load_zero_shot(text_clip, None, LABELS, None)
    for index in range(len(LABELS)):
        frames = 3.0 * classifier.text_embeddings[index].repeat(4, 1)  # lengths don't matter
        scores = classifier.score(frames)
        assert int(scores.argmax()) == index
        # softmax over all labels and the background
        cosines = (
            torch.cat([classifier.text_embeddings, classifier.background_embedding[None]])
            @ classifier.text_embeddings[index]
        )
        assert scores.tolist() == pytest.approx((classifier.logit_scale * cosines).softmax(0)[:-1].tolist(), abs=1e-6)
    classifier.logit_scale = 100.0  # as in trained models
    assert classifier.score(classifier.background_embedding[None]).sum() < 0.5


def test_single_label_is_compared_with_the_background_prompt(text_clip: str) -> None:
    _, classifier = clip.load_zero_shot(text_clip, None, ["drinking"], None)
    assert (
        float(classifier.score(classifier.background_embedding[None])[0])
        < 0.5
        < float(classifier.score(classifier.text_embeddings)[0])
    )


def test_sigmoid_models_score_labels_independently() -> None:
    labels = torch.eye(3)
    classifier = clip.ZeroShotClassifier(labels[:2], labels[2], logit_scale=10.0, logit_bias=-5.0)
    both = classifier.score(torch.tensor([[1.0, 1.0, 0.0]]))
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
def test_class_names_become_words(label: str, words: str) -> None:
    assert clip.label_to_text(label) == words


def test_predict_scores_windows_without_training(text_clip: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_frames(50, (1, 0)), lossless=False)
    command = [str(path), "--labels", *LABELS, "--clip-model-name", text_clip, "--num-workers", "0"]
    window = ["--window", "1", "--stride-seconds", "0.5"]
    report = predict.main([*command, *window, "-o", str(tmp_path / "out")])
    assert report.done == 1
    found = json.loads((tmp_path / "out" / "a.json").read_text())
    assert found["classes"] == list(LABELS)
    assert found["starts"] == [0.0, 0.5, 1.0]
    assert found["frames"] == 8  # 4 a second
    assert found["made_with"]["zero_shot"] is True
    assert found["made_with"]["templates"] == list(clip.PROMPT_TEMPLATES)
    assert all(0 <= score <= 1 for row in found["scores"] for score in row)
    again = ["--labels", "sleeping", "eating", "up", "--clip-model-name", text_clip, "--num-workers", "0"]
    with pytest.raises(UserError, match="classes is"):  # as many classes, with other names
        predict.main([str(path), *again, *window, "-o", str(tmp_path / "out")])
    more = predict.main([*command, *window, "-o", str(tmp_path / "more"), "--fps", "25", "--template", "some {}"])
    assert more.done == 1
    all_frames = json.loads((tmp_path / "more" / "a.json").read_text())
    assert all_frames["frames"] == 50
    assert all_frames["scores"] != found["scores"]


def test_template_without_placeholder_is_refused(text_clip: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_frames(4, (1, 0)))
    with pytest.raises(UserError, match="--template 'an animal'"):
        predict.main([str(path), "--labels", "a", "--template", "an animal", "--clip-model-name", text_clip])


def test_text_tower_without_weights_is_refused(text_clip: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder, complete = tmp_path / "half", Path(text_clip.removeprefix("local-dir:"))
    folder.mkdir()
    (folder / "open_clip_config.json").write_text((complete / "open_clip_config.json").read_text())
    state = load_file(complete / "open_clip_model.safetensors")
    image = {key: tensor for key, tensor in state.items() if key.startswith("visual.")}
    save_file(image, folder / "open_clip_model.safetensors")
    path = write_video(tmp_path / "a.mp4", moving_frames(4, (1, 0)))
    with pytest.raises(UserError, match="open_clip"):
        predict.main([str(path), "--labels", "a", "--clip-model-name", f"local-dir:{folder}"])
