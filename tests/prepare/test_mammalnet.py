"""Import of MammalNet's release, and the chain with three splits."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import prepare_dataset
from tests.conftest import REPOSITORY, make_tiny_clip, moving_frames, write_video
from vimoclip import annotations, store
from vimoclip.errors import UserError
from vimoclip.io import predictions_csv
from vimoclip.training import checkpoint

BEHAVIOR_NAMES = [f"does_{letter}" for letter in "abcdefghijkl"]
SMALL_MODEL = ["training.epochs=1", "model.num_heads=4", "model.num_layers=1", "model.dim_feedforward=16"]
SPLIT_SIZES = {"train": 6, "val": 4, "test": 5}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unpacked release with 15 videos, and one that is missing."""
    root = tmp_path_factory.mktemp("release")
    lists = root / "annotation" / "composition"
    lists.mkdir(parents=True)
    (root / "annotation" / "behavior_to_id.txt").write_text(
        "".join(f"{n}\t{i}\n" for i, n in enumerate(BEHAVIOR_NAMES))
    )
    (root / "annotation" / "genus_to_id.txt").write_text("canis\t8\nfelis\t9\n")
    for split, count in SPLIT_SIZES.items():
        lines = []
        for i in range(count):
            name = f"-{split}_{i}"  # ids of YouTube may start with -
            frames = moving_frames(8 + i % 3, (i % 3, 0), 32, 40, seed=i + 100 * count)
            write_video(root / "trimmed_videos" / f"{name}.mp4", frames, lossless=False)
            lines.append(f"trimmed_videos/{name}.mp4 {i % 3} {8 + i % 2}")
        (lists / f"{split}.csv").write_text("\n".join(lines) + "\n")
    (lists / "test.csv").write_text((lists / "test.csv").read_text() + "trimmed_videos/gone.mp4 11 8\n")
    return root


def prepare(release: Path, dataset: Path, *flags: str) -> annotations.Annotations:
    report = prepare_dataset.main(["mammalnet", str(release), "--dataset-dir", str(dataset), *flags])
    return annotations.load(report.outputs[0], "ak")


def test_three_splits_and_names_of_the_release(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = prepare(release, tmp_path / "dataset", "--report", str(tmp_path / "report.json"))
    counts = json.loads((tmp_path / "report.json").read_text())
    assert (counts["done"], set(counts["skipped"])) == (15, {"trimmed_videos/gone.mp4"})
    assert data.classes == tuple(BEHAVIOR_NAMES)
    assert {split: len(videos) for split, videos in data.splits.items()} == SPLIT_SIZES
    assert data.splits["test"]["-test_4.mp4"] == (1,)
    assert data.selection == ()  # epochs are selected on val
    assert annotations.read_animals(tmp_path / "dataset" / "annotations")["-test_3.mp4"].animals == ("felis",)
    assert "15 clips: 6 in train, 4 in val, 5 in test; 12 actions" in capsys.readouterr().out


def test_lists_without_animals_and_release_without_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in SPLIT_SIZES:
        (tmp_path / f"{split}.csv").write_text(f"trimmed_videos/{split}.mp4 8\n")
        (tmp_path / "trimmed_videos").mkdir(exist_ok=True)
        (tmp_path / "trimmed_videos" / f"{split}.mp4").write_text(split)
    data = prepare(tmp_path, tmp_path / "dataset")
    assert data.classes[8] == "behavior_8"
    assert data.splits["val"] == {"val.mp4": (8,)}
    assert "behavior_to_id.txt" in capsys.readouterr().out
    assert not (tmp_path / "dataset" / "annotations" / "animals.csv").exists()


@pytest.mark.parametrize(
    ("line", "number"), [("trimmed_videos/a.mp4", ":1"), ("trimmed_videos/a.mp4 12", ":1"), ("", "")]
)
def test_invalid_list_is_an_error(line: str, number: str, tmp_path: Path) -> None:
    for split in SPLIT_SIZES:
        (tmp_path / f"{split}.csv").write_text(f"{line}\n")
    with pytest.raises(UserError) as caught:
        prepare(tmp_path, tmp_path / "dataset")
    assert caught.value.path == f"{tmp_path / 'train.csv'}{number}"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"train\.csv"):
        prepare(tmp_path / "empty", tmp_path / "dataset")


@pytest.fixture(scope="module")
def chain(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the chain from the release to a trained fusion; test is hidden until training ends."""
    import extract_embeddings
    import extract_flows
    import inference
    import train
    from TFAM import train_and_eval

    root = tmp_path_factory.mktemp("mammalnet")
    make_tiny_clip(root / "tinyclip", vocabulary=49408)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        prepare(release, Path("dataset"))
        clip = ["--clip-model-name", "local-dir:tinyclip"]
        extract_embeddings.main([*clip, "--split", "train", "val", "test"])
        extract_flows.main(["--model", "dis", "--num-workers", "0"])
        test = Path("dataset/embeddings/ak_test_clip_embeddings.h5")
        test.rename("hidden.h5")
        train.main([*clip, "--epochs", "1", "--sequence-length", "4", "--run-name", "student", "--num-workers", "0"])
        inference.main(["--checkpoint-dir", "checkpoints/student"])
        for config in ("rgb", "cross_attention"):
            command = ["--config", str(REPOSITORY / "TFAM" / "configs" / f"{config}.yaml"), "--num-workers", "0"]
            if config == "rgb":  # trains, and fails at the evaluation of the missing test split
                with pytest.raises(UserError, match=r"ak_test_clip_embeddings\.h5"):
                    train_and_eval.main([*command, "--set", *SMALL_MODEL])
                Path("hidden.h5").rename(test)
            train_and_eval.main([*command, "--set", *SMALL_MODEL])
    return root


def test_epochs_are_selected_on_val_and_test_is_evaluated(chain: Path) -> None:
    run = chain / "checkpoints" / "TFAM" / "cross_attention" / "seed49"
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["protocol"] == "three_splits"
    assert metrics["epoch_chosen_by"] == "map_micro on the val split"
    assert metrics["num_videos"] == SPLIT_SIZES["test"]
    assert predictions_csv.read(run / "predictions.csv").videos == [f"-test_{i}.mp4" for i in range(5)]
    assert predictions_csv.read(run / "selection_predictions.csv").videos == [f"-val_{i}.mp4" for i in range(4)]
    assert set(metrics["thresholds"]) == set(BEHAVIOR_NAMES)
    student = checkpoint.load_checkpoint(chain / "checkpoints" / "student" / "student_best.pth")
    assert student["config"]["protocol"] == "three_splits"
    with open(run / "metrics.csv", newline="") as file:
        assert "val_map_micro" in next(csv.DictReader(file))


def test_same_command_finds_the_finished_run(chain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from TFAM import train_and_eval

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(chain)
        config = str(REPOSITORY / "TFAM" / "configs" / "cross_attention.yaml")
        train_and_eval.main(["--config", config, "--num-workers", "0", "--set", *SMALL_MODEL])
        assert "three_splits" in capsys.readouterr().out
        folder = Path("checkpoints/TFAM/cross_attention/seed49")
        metrics = train_and_eval.main(["--evaluate", str(folder / "best_model.pth"), "--num-workers", "0"])
        assert metrics["num_videos"] == SPLIT_SIZES["test"]
        assert metrics["map_macro"] == json.loads((folder / "metrics.json").read_text())["map_macro"]


def test_evaluation_and_table_use_the_test_clips(chain: Path) -> None:
    import evaluate
    from TFAM import select_best, zero_shot
    from TFAM.table import main

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(chain)
        evaluation = evaluate.main(["checkpoints/TFAM/cross_attention/seed49", "--resamples", "20"])
        assert evaluation.metrics["split"] == "test"
        assert evaluation.metrics["num_videos"] == SPLIT_SIZES["test"]
        assert evaluation.metrics["f1_macro_at_fitted_thresholds"] is not None
        assert not [
            note for note in evaluation.metrics["notes"] if "too high" in note or "may have been trained" in note
        ]
        zero_shot.main(["--clip-model-name", "local-dir:tinyclip", "--report", "report.json"])
        counts = json.loads(Path("report.json").read_text())
        assert (counts["done"], counts["unit"]) == (SPLIT_SIZES["test"], "video")
        assert counts["outputs"] == ["checkpoints/TFAM/zero_shot/seed0"]
        with open(main(["--resamples", "20"]), newline="") as file:
            rows = {row["config"]: row for row in csv.DictReader(file)}
        assert {name: row["protocol"] for name, row in rows.items()} == {
            "rgb": "three_splits",
            "cross_attention": "three_splits",
            "zero_shot": "zero_shot",
        }
        assert rows["cross_attention"]["num_videos"] == "5"
        assert rows["cross_attention"]["map_macro_minus_rgb_low"]
        text = Path("TFAM/results/table.md").read_text()
        assert "three_splits" in text.partition("\n\n")[2]  # explained below the table
        assert "no difference to rgb" not in text
        assert select_best.main([]).parent.name in ("rgb", "cross_attention")


def test_zero_shot_scores_equal_open_clips(chain: Path) -> None:
    """Recomputed from the embeddings and open_clip's text tower."""
    import open_clip
    import torch

    import evaluate
    from vimoclip.clip import PROMPT_TEMPLATES

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(chain)
        evaluation = evaluate.main(["checkpoints/TFAM/zero_shot/seed0", "--resamples", "20"])
        assert evaluation.metrics["protocol"] == "zero_shot"
        model = open_clip.create_model("local-dir:tinyclip").eval()
        tokenize = open_clip.get_tokenizer("local-dir:tinyclip")
        table = predictions_csv.read(Path("checkpoints/TFAM/zero_shot/seed0/predictions.csv"))
        reader = store.EmbeddingReader(Path("dataset/embeddings/ak_test_clip_embeddings.h5"), "rgb")
        words = [name.replace("_", " ") for name in BEHAVIOR_NAMES]
        background = ["a photo of an animal.", "a video of an animal.", "a picture of the animal."]
        with torch.no_grad():
            rows = []
            for prompts in [[t.replace("{}", word) for t in PROMPT_TEMPLATES] for word in words] + [background]:
                texts = torch.nn.functional.normalize(model.encode_text(tokenize(prompts)), dim=-1)
                rows.append(torch.nn.functional.normalize(texts.mean(0), dim=0).numpy())
        for video, row in zip(table.videos, table.scores, strict=True):
            frames = reader.embeddings(video)
            mean = (frames / np.linalg.norm(frames, axis=1, keepdims=True)).mean(0)
            cosines = np.stack(rows) @ (mean / np.linalg.norm(mean))
            weights = np.exp(cosines * model.logit_scale.exp().item())
            assert row == pytest.approx((weights / weights.sum())[:-1], abs=1e-5)
