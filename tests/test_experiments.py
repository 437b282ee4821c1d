"""TFAM's protocols, its controls, and the table of an experiment."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from sklearn.metrics import average_precision_score

from tests.conftest import REPOSITORY
from tests.test_tfam import (
    CLASSES,
    CONFIGS,
    SAMPLING,
    assert_same_run,
    command,
    rows_for,
    write_h5,
    write_motion,
    write_rgb,
)
from TFAM import config as tfam_config
from TFAM import final_evaluation, rgb_difference, table, trainer
from TFAM.train_and_eval import main
from vimoclip import annotations, metrics
from vimoclip.errors import UserError
from vimoclip.io import predictions_csv
from vimoclip.store import Reader
from vimoclip.training import run_folder
from vimoclip.training.losses import MULTI_LABEL

SELECTION = [1, 4, 8]
NOTES = Path("dataset/annotations")
LAST = "training.checkpoint=last"


def draw(numbers: list[int]) -> None:
    NOTES.mkdir(parents=True, exist_ok=True)
    (NOTES / annotations.SELECTION).write_text("".join(f"V{n:02}.mp4\n" for n in numbers))


@pytest.fixture
def drawn(dataset: Path) -> Path:
    """Nine training videos, three of them selection clips, and six that are reported."""
    draw(SELECTION)
    return dataset


def replace(path: Path, *arguments: Any, **changes: Any) -> None:
    """Another file of RGB embeddings under the same name."""
    path.unlink()
    write_rgb(path, *arguments, **changes)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def same_weights(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    return all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


# --- protocols


def test_a_held_out_run_leaves_what_it_should_and_says_what_it_is(drawn: Path) -> None:
    folder = main(command())
    names = {"config.yaml", "best_model.pth", "last.pth", "metrics.csv", "metrics.json"}
    assert {path.name for path in folder.iterdir()} == names | {"predictions.csv", "selection_predictions.csv"}
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["data"]["protocol"] == "held_out" and config["data"]["annotations_dir"] == str(NOTES)
    rows, found = read_csv(folder / "metrics.csv"), read_json(folder / "metrics.json")
    of_epoch = ["epoch", "lr", "train_loss", "selection_loss", "selection_map_macro", "selection_map_micro"]
    assert list(rows[0]) == of_epoch and len(rows) == 3
    best = max(rows, key=lambda row: float(row["selection_map_micro"]))
    assert found["epoch"] == int(best["epoch"])
    assert found["protocol"] == "held_out" and found["epoch_chosen_by"] == "map_micro on the selection clips"
    assert (found["train_num_videos"], found["selection_num_videos"], found["num_videos"]) == (6, 3, 6)
    assert found["selection"]["map_micro"] == float(best["selection_map_micro"])
    assert found["seconds"] >= 0 and "data.protocol" not in found["settings"]
    ids = {
        name: [row["video_id"] for row in read_csv(folder / name)]
        for name in ("predictions.csv", "selection_predictions.csv")
    }
    assert ids["predictions.csv"] == [f"V{n:02}.mp4" for n in range(9, 15)]
    assert ids["selection_predictions.csv"] == [f"V{n:02}.mp4" for n in SELECTION]
    written = predictions_csv.read(folder / "selection_predictions.csv")
    targets = np.eye(3)[[n % 3 for n in SELECTION]]
    micro = average_precision_score(targets.ravel(), written.scores.ravel())
    assert found["selection"]["map_micro"] == pytest.approx(micro)


def test_selection_clips_are_kept_out_of_training(drawn: Path) -> None:
    """As a run that never had them; and whatever their labels are."""
    held_out = main([*command("cross_attention", "--checkpoints-dir", "held-out"), LAST])
    replace(drawn / "ak_train_clip_embeddings.h5", [n for n in range(9) if n not in SELECTION])
    without = main([*command("cross_attention", "--checkpoints-dir", "without"), LAST, "data.protocol=published"])
    assert same_weights(held_out / "last.pth", without / "last.pth")
    losses = [[row["train_loss"] for row in read_csv(run / "metrics.csv")] for run in (held_out, without)]
    assert losses[0] == losses[1]
    whole = main([*command("cross_attention", "--checkpoints-dir", "whole"), LAST, "data.protocol=published"])
    assert same_weights(whole / "last.pth", without / "last.pth")


def test_what_is_reported_has_no_part_in_a_held_out_run(drawn: Path) -> None:
    made = {}
    for name, turned in (("as they are", 0), ("turned", 1)):
        replace(drawn / "ak_val_clip_embeddings.h5", range(9, 15), turned=turned)
        made[name] = main(command("cross_attention", "--checkpoints-dir", name))
    one, other = made.values()
    assert same_weights(one / "best_model.pth", other / "best_model.pth")
    for name in ("metrics.csv", "selection_predictions.csv", "predictions.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    assert read_json(one / "metrics.json")["map_micro"] != read_json(other / "metrics.json")["map_micro"]


def test_the_epoch_is_the_best_on_the_clips_of_the_protocol(drawn: Path) -> None:
    """The better it learns, the worse it does on the selection clips, of which each shows another class than it has."""
    numbers = range(24)
    videos = {f"V{n:02}.mp4": rows_for(n, 4 + n % 5) for n in numbers}
    labels = np.eye(3, dtype=np.float32)[[(n + (n % 4 == 0)) % 3 for n in numbers]]
    about = {
        "kind": "rgb",
        "class_names": CLASSES,
        "num_classes": 3,
        "embed_dim": 8,
        "clip_model": "ViT-B/32",
        "sampling": SAMPLING,
        "weights_sha256": "aa",
    }
    for path in drawn.glob("*.h5"):
        path.unlink()
    write_h5(drawn / "ak_train_clip_embeddings.h5", videos, labels, **about)
    write_rgb(drawn / "ak_val_clip_embeddings.h5", range(24, 48))
    draw([n for n in numbers if n % 4 == 0])
    chosen = {}
    for protocol, watched in (("held_out", "selection"), ("published", "val")):
        folder = main(
            [*command("rgb", "--checkpoints-dir", protocol), f"data.protocol={protocol}", "training.epochs=6"]
        )
        by_epoch = [float(row[f"{watched}_map_micro"]) for row in read_csv(folder / "metrics.csv")]
        chosen[protocol] = read_json(folder / "metrics.json")["epoch"]
        assert len(set(by_epoch)) > 1 and chosen[protocol] == 1 + by_epoch.index(max(by_epoch))
    assert chosen["held_out"] < chosen["published"]


@pytest.mark.parametrize("broken", ["missing", "nonsense"])
def test_the_val_file_is_not_opened_before_the_last_epoch_is_done(
    drawn: Path, broken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, val = main(command("cross_attention", "--checkpoints-dir", "whole")), drawn / "ak_val_clip_embeddings.h5"
    val.rename("kept.h5")
    if broken == "nonsense":
        val.write_text("no embeddings")
    with pytest.raises(UserError) as raised:
        main(command())
    said = str(raised.value)
    assert str(val) in said and "all epochs are done" in said and "goes on with the evaluation alone" in said
    assert len(said.splitlines()) == 1
    folder = Path("checkpoints/TFAM/cross_attention/seed49")
    assert len(read_csv(folder / "metrics.csv")) == 3 and not (folder / "metrics.json").exists()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    Path("kept.h5").replace(val)
    capsys.readouterr()
    main(command())
    assert "train_loss" not in capsys.readouterr().out
    assert all((folder / name).read_bytes() == content for name, content in before.items())
    for name in ("metrics.csv", "predictions.csv", "selection_predictions.csv"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    found = [read_json(run / "metrics.json") | {"seconds": None} for run in (folder, whole)]
    assert found[0] == found[1]


def test_the_protocol_follows_from_whether_selection_clips_were_drawn(
    dataset: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = main(command("rgb"))
    said = capsys.readouterr().out
    assert "warning" in said and "python prepare_dataset.py selection" in said
    found = read_json(folder / "metrics.json")
    assert found["protocol"] == "published" and "selection" not in found
    assert not (folder / "selection_predictions.csv").exists()
    with pytest.raises(UserError, match=r"selection\.txt: there is no such file"):
        main([*command("rgb", "--checkpoints-dir", "asked"), "data.protocol=held_out"])
    draw(SELECTION)
    capsys.readouterr()
    main(command("rgb"))  # a run that was begun stays what it is
    assert "finished already (protocol published" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"data\.protocol published, now it is held_out"):
        main([*command("rgb"), "data.protocol=held_out"])
    assert read_json(main(command("motion")) / "metrics.json")["protocol"] == "held_out"


def test_the_annotations_may_lie_elsewhere_and_move(drawn: Path) -> None:
    NOTES.rename("notes")
    folder = main([*command("rgb"), "data.annotations_dir=notes"])
    assert read_json(folder / "metrics.json")["selection_num_videos"] == 3
    Path("notes").rename("moved")
    assert main([*command("rgb"), "data.annotations_dir=moved"]) == folder
    (folder / "metrics.json").unlink()
    assert main([*command("rgb"), "data.annotations_dir=moved"]) == folder
    assert (folder / "metrics.json").is_file()


def test_a_run_goes_on_only_with_the_selection_clips_that_it_began_with(drawn: Path) -> None:
    folder = main(command())
    draw([1, 4, 7])
    with pytest.raises(UserError, match=rf"the selection clips' hash is \w+ in {folder} but \w+ in .*selection\.txt"):
        main(command())
    (folder / "metrics.json").unlink()
    with pytest.raises(UserError, match=r"last\.pth: was made with selection \w+, now it is \w+"):
        main(command())
    with pytest.raises(UserError, match=r"data\.protocol held_out, now it is published"):
        main([*command(), "data.protocol=published"])
    draw([8, 4, 1])  # the same, in another order
    assert main(command()) == folder


def test_the_limit_is_of_each_part(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = read_json(main(command("rgb", "--limit", "2")) / "metrics.json")
    assert (found["train_num_videos"], found["selection_num_videos"], found["num_videos"]) == (2, 2, 2)
    main(command("motion", "--dry-run"))
    assert "6 videos to train on and 3 to validate (selection clips" in capsys.readouterr().out


def test_selection_clips_without_motion_are_counted_and_named(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (drawn / "flow_embeddings.h5").unlink()
    write_motion(drawn / "flow_embeddings.h5", [n for n in range(15) if n != 4])
    found = read_json(main(command()) / "metrics.json")
    assert found["selection_num_videos"] == 2 and list(found["selection_left_out_videos"]) == ["V04.mp4"]
    assert found["train_left_out"] == 0 and "2 selection videos, 1 left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("student", "protocol"),
    [
        ({"protocol": "held_out"}, "held_out"),
        ({"protocol": "held_out", "selection": run_folder.digest([f"V{n:02}.mp4" for n in SELECTION])}, "held_out"),
        ({"protocol": "published"}, "published"),
        ({}, "published"),
        (None, None),
    ],
)
def test_a_student_that_was_not_held_out_is_told_of(
    drawn: Path, student: dict[str, str] | None, protocol: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = {"teacher": {"clip_model": "ViT-B/32", "weights_sha256": "aa"}}
    (drawn / "flow_embeddings.h5").unlink()
    write_motion(drawn / "flow_embeddings.h5", range(15), student={} if student is None else teacher | student)
    if student is None:
        import h5py

        with h5py.File(drawn / "flow_embeddings.h5", "a") as file:
            del file.attrs["student"]
    for config, warned in (
        ("cross_attention", protocol != "held_out"),
        ("rgb", False),
        ("cross_attention_none", False),
    ):
        found = read_json(main(command(config)) / "metrics.json")
        assert ("warning" in capsys.readouterr().out) == warned, config
        assert found["student_protocol"] == (None if config == "rgb" else protocol)


@pytest.mark.parametrize("when", ["in the third epoch", "before the evaluation"])
def test_a_held_out_run_that_was_stopped_ends_as_one_that_was_not(
    drawn: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = main(command("cross_attention", "--checkpoints-dir", "whole"))

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if when == "before the evaluation":
            patch.setattr(final_evaluation, "finish", stop)
        else:
            patch.setattr(trainer.Run, "after_step", lambda run, loss: stop() if len(run.history) == 2 else None)
        main(command())
    last = Path("checkpoints/TFAM/cross_attention/seed49/last.pth")
    torch.save(torch.load(last, weights_only=True) | {"seconds": 1000.0}, last)
    folder = main(command())
    assert_same_run(whole, folder)
    assert read_json(folder / "metrics.json")["seconds"] >= 1000
    name = "selection_predictions.csv"
    assert (whole / name).read_bytes() == (folder / name).read_bytes()


def test_a_student_of_other_selection_clips_is_told_of(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    student = {"protocol": "held_out", "selection": run_folder.digest(["V01.mp4"]), "teacher": {}}
    (drawn / "flow_embeddings.h5").unlink()
    write_motion(drawn / "flow_embeddings.h5", range(15), student=student)
    found = read_json(main(command()) / "metrics.json")
    assert found["student_protocol"] == "held_out" and found["student_selection_agrees"] is False
    assert "its student had other selection clips" in capsys.readouterr().out


def test_seconds_are_of_all_sessions(drawn: Path) -> None:
    folder = main(command("rgb"))
    state = torch.load(folder / "last.pth", weights_only=True)
    assert state["seconds"] == pytest.approx(read_json(folder / "metrics.json")["seconds"], abs=0.06)
    torch.save(state | {"seconds": 1000.04}, folder / "last.pth")
    (folder / "metrics.json").unlink()
    main(command("rgb"))  # nothing is left to train
    assert read_json(folder / "metrics.json")["seconds"] == 1000.0


def test_evaluate_says_the_protocol_of_the_checkpoint(drawn: Path) -> None:
    folder = main(command("rgb"))
    again = ["--evaluate", str(folder / "best_model.pth"), "--device", "cpu", "--num-workers", "0"]
    found, ran = main(again), read_json(folder / "metrics.json")
    assert (found["map_macro"], found["map_micro"]) == (ran["map_macro"], ran["map_micro"])
    assert found["protocol"] == "held_out"


# --- controls and losses


def test_without_motion_what_the_motions_are_changes_nothing(dataset: Path) -> None:
    found = {}
    for name in ("one", "other"):
        for config in ("cross_attention_none", "cross_attention"):
            folder = main(command(config, "--checkpoints-dir", name))
            found[name, config] = folder
        with_h5 = {f"V{n:02}": rows_for(n + 100, 3 + n % 5) for n in range(15)}  # as many, but others
        about = Reader(dataset / "flow_embeddings.h5").attributes
        kept = {key: about[key] for key in ("kind", "embed_dim", "sampling", "student", "clip_model", "weights_sha256")}
        (dataset / "flow_embeddings.h5").unlink()
        write_h5(dataset / "flow_embeddings.h5", with_h5, **kept)
    for config, same in (("cross_attention_none", True), ("cross_attention", False)):
        texts = [(found[name, config] / "predictions.csv").read_text() for name in ("one", "other")]
        assert (texts[0] == texts[1]) == same, config
    metrics_of = [
        read_json(found["one", config] / "metrics.json") for config in ("cross_attention_none", "cross_attention")
    ]
    assert (
        metrics_of[0]["parameters"] == metrics_of[1]["parameters"]
        and metrics_of[0]["settings"]["data.motion"] == "none"
    )
    checkpoint = found["one", "cross_attention_none"] / "best_model.pth"
    again = main(["--evaluate", str(checkpoint), "--device", "cpu", "--num-workers", "0"])
    assert again["map_micro"] == metrics_of[0]["map_micro"] and again["settings"]["data.motion"] == "none"


@pytest.mark.parametrize("loss", MULTI_LABEL)
def test_a_run_learns_by_the_loss_that_is_asked_for(dataset: Path, loss: str) -> None:
    folder = main([*command("rgb"), f"training.loss={loss}"])
    found = predictions_csv.read(folder / "predictions.csv")
    logits = torch.logit(torch.tensor(found.scores))
    targets = torch.eye(3, dtype=torch.float64)[[n % 3 for n in range(9, 15)]]
    assert read_json(folder / "metrics.json")["loss"] == pytest.approx(
        float(MULTI_LABEL[loss](logits, targets)), rel=1e-4
    )
    losses = [float(row["train_loss"]) for row in read_csv(folder / "metrics.csv")]
    assert losses[-1] < losses[0]


# --- the table


TRUTH = np.eye(3, dtype=bool)[[n % 3 for n in range(30)]]


def noisy(seed: int, noise: float) -> np.ndarray:
    """Scores of 30 clips that tell their class, but for noise."""
    scores = TRUTH + noise * np.random.default_rng(seed).normal(size=TRUTH.shape)
    return 1 / (1 + np.exp(-scores))


def write_run(config: str, seed: int, scores: np.ndarray, numbers: range = range(30), **changes: Any) -> Path:
    """What the table reads of a finished run."""
    folder = Path("checkpoints/TFAM", config, f"seed{seed}")
    folder.mkdir(parents=True)
    val = Path(f"val-{len(numbers)}.h5")
    if not val.exists():
        write_rgb(val, numbers)
    videos = [f"V{n:02}.mp4" for n in numbers]
    predictions_csv.write(folder / "predictions.csv", videos, scores, CLASSES)
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": {"rgb_val_h5": str(val)}}))
    written = predictions_csv.read(folder / "predictions.csv").scores
    per_class = [average_precision_score(TRUTH[: len(numbers), c], written[:, c]) for c in range(3)]
    found = {
        "map_macro": float(np.mean(per_class)),
        "map_micro": float(average_precision_score(TRUTH[: len(numbers)].ravel(), written.ravel())),
        "config": config,
        "fusion": config.split("_none")[0],
        "seed": seed,
        "settings": {"model.fusion": config} if config != "cross_attention" else {},
        "num_videos": len(numbers),
        "parameters": 1234567,
        "seconds": 10.0 * seed,
        "protocol": "held_out",
        "inputs_sha256": {"rgb_val_h5": Reader(val).attributes["content_sha256"]},
    }
    (folder / "metrics.json").write_text(json.dumps(found | changes))
    return folder


def make_table(*flags: str) -> tuple[dict[str, dict[str, str]], str]:
    """(rows by config, table.md)."""
    path = table.main(["--output-dir", "results", *flags])
    return {row["config"]: row for row in read_csv(path)}, Path("results/table.md").read_text()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def average_precisions(scores: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """(macro, micro) as scikit-learn has them."""
    per_class = [average_precision_score(TRUTH[:, c], scores[:, c], sample_weight=weight) for c in range(3)]
    return float(np.mean(per_class)), float(
        average_precision_score(TRUTH.ravel(), scores.ravel(), sample_weight=np.repeat(weight, 3))
    )


def test_differences_to_rgb_and_their_intervals_are_those_of_scikit_learn(place: Path) -> None:
    """Over the seeds that both have: 1 and 2, of 1, 2 and 3."""
    folders = {("rgb", s): write_run("rgb", s, noisy(s, 1.0)) for s in (1, 2, 3)}
    folders |= {("cross_attention", s): write_run("cross_attention", s, noisy(10 + s, 0.7)) for s in (1, 2)}
    scores = {key: predictions_csv.read(folder / "predictions.csv").scores for key, folder in folders.items()}
    rows, text = make_table("--resamples", "40")
    row = rows["cross_attention"]
    drawn = metrics.draw_weights(30, 40, 0)
    for column, metric in enumerate(("map_macro", "map_micro")):
        of = {key: average_precisions(s, np.ones(30))[column] for key, s in scores.items()}
        rgb, ours = ([of[config, seed] for seed in (1, 2)] for config in ("rgb", "cross_attention"))
        assert float(row[f"{metric}_mean"]) == pytest.approx(np.mean(ours), abs=5e-5)
        assert float(row[f"{metric}_std"]) == pytest.approx(np.std(ours, ddof=1), abs=5e-5)
        assert float(row[f"{metric}_minus_rgb"]) == pytest.approx(np.mean(ours) - np.mean(rgb), abs=5e-5)
        # a resample draws clips, and as many seeds as there are
        seeds = 1 + np.random.default_rng([0, 1]).integers(0, 2, (40, 2))
        differences = [
            np.mean([average_precisions(scores["cross_attention", s], w)[column] for s in of_seeds])
            - np.mean([average_precisions(scores["rgb", s], w)[column] for s in of_seeds])
            for w, of_seeds in zip(drawn, seeds, strict=True)
        ]
        moved = np.mean(ours) - np.mean(rgb) - np.mean(differences)  # so that they lie around the difference itself
        expected = np.percentile(differences, [2.5, 97.5]) + moved
        found = [float(row[f"{metric}_minus_rgb_{end}"]) for end in ("low", "high")]
        assert found == pytest.approx(expected, abs=5e-5)
        assert f"[{found[0]:+.4f}, {found[1]:+.4f}]" in text
    assert rows["rgb"]["map_macro_minus_rgb"] == rows["rgb"]["map_macro_minus_rgb_low"] == ""
    assert (row["seeds"], row["seconds"], row["parameters"], row["num_videos"]) == ("2", "15.0", "1234567", "30")
    assert rows["rgb"]["seconds"] == "20.0" and row["protocol"] == "held_out"


def test_the_order_of_clips_in_a_file_is_no_matter_and_the_same_scores_differ_by_nothing(place: Path) -> None:
    write_run("rgb", 1, noisy(1, 1.0))
    folder = write_run("motion", 1, noisy(1, 1.0))
    lines = (folder / "predictions.csv").read_text().splitlines(keepends=True)
    (folder / "predictions.csv").write_text(lines[0] + "".join(reversed(lines[1:])))
    row = make_table("--resamples", "30")[0]["motion"]
    for metric in ("map_macro", "map_micro"):
        assert [float(row[f"{metric}_minus_rgb{end}"]) for end in ("", "_low", "_high")] == [0, 0, 0]


def test_the_caption_says_what_the_numbers_are(place: Path) -> None:
    write_run("rgb", 1, noisy(1, 1.0))
    write_run("cross_attention_none", 1, noisy(1, 1.0), settings={"data.motion": "none"})
    rows, text = make_table("--resamples", "5")
    for words in ("30 clips", "5 resamples", "macro AP", "micro AP", "held_out: epochs were chosen on selection clips"):
        assert words in text
    assert "published" not in text
    assert [row["paper_map_micro"] for row in rows.values()] == ["0.7583", ""]
    header = (Path("results") / "table.csv").read_text().splitlines()[0]
    assert header.startswith(
        "config,seeds,map_macro_mean,map_macro_std,map_micro_mean,map_micro_std,paper_map_micro,protocol,"
    )
    table_lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table_lines}) == 1 and len(table_lines) == 4


def test_runs_of_different_protocols_are_never_in_one_row_nor_compared(place: Path) -> None:
    write_run("rgb", 1, noisy(1, 1.0))
    write_run("rgb", 2, noisy(2, 1.0), protocol="published")
    write_run("motion", 2, noisy(3, 1.0), protocol=None)  # of before there were protocols: published
    write_run("concat_time", 2, noisy(3, 1.0))
    path = table.main(["--output-dir", "results", "--resamples", "5"])
    rows = read_csv(path)
    assert [(row["config"], row["protocol"], row["seeds"]) for row in rows] == [
        *(("rgb", "held_out", "1"), ("rgb", "published", "1"), ("motion", "published", "1")),
        ("concat_time", "held_out", "1"),
    ]
    assert rows[2]["map_micro_minus_rgb_low"]
    assert rows[3]["map_micro_minus_rgb"] == ""  # rgb's seed 2 is of the other protocol
    text = Path("results/table.md").read_text()
    assert "concat_time, held_out: no difference to rgb: they have no seed in common" in text
    assert "on the very clips that are reported" in text and "held_out: epochs" in text


def other_settings() -> None:
    write_run("rgb", 1, noisy(1, 1.0))
    write_run("motion", 1, noisy(2, 1.0), settings={"model.fusion": "motion", "training.epochs": 2})


def no_rgb() -> None:
    write_run("motion", 1, noisy(2, 1.0))


def other_number_of_clips() -> None:
    write_run("rgb", 1, noisy(1, 1.0)[:27], range(27))
    write_run("motion", 1, noisy(2, 1.0))


def other_clips() -> None:
    write_run("rgb", 1, noisy(1, 1.0))
    path = write_run("motion", 1, noisy(2, 1.0)) / "predictions.csv"
    path.write_text(path.read_text().replace("V07.mp4", "V99.mp4"))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (other_settings, "no run of rgb of the same protocol and settings"),
        (no_rgb, "no run of rgb of the same protocol and settings"),
        (other_number_of_clips, "they are of other clips"),
        (other_clips, "they are of other clips"),
    ],
)
def test_what_cannot_be_compared_has_no_difference_and_the_table_says_why(place: Path, make: Any, why: str) -> None:
    make()
    rows, text = make_table("--resamples", "5")
    assert {rows["motion"][name] for name in rows["motion"] if "minus_rgb" in name} == {""}
    assert "motion, held_out: no difference to rgb: " in text and why in text


@pytest.mark.parametrize("what", ["gone", "another", "unnamed", "predictions"])
def test_without_the_labels_there_is_a_difference_but_no_interval(place: Path, what: str) -> None:
    write_run("rgb", 1, noisy(1, 1.0))
    folder = write_run("motion", 1, noisy(2, 1.0))
    if what == "another":
        replace(Path("val-30.h5"), range(30), turned=1)
    elif what == "unnamed":
        (folder / "config.yaml").write_text("data: {}\n")
    elif what == "predictions":
        (folder / "predictions.csv").unlink()
    if what == "gone":
        write_run("concat_time", 1, noisy(3, 1.0))
        Path("val-30.h5").unlink()
    rows, text = make_table("--resamples", "5")
    assert rows["motion"]["map_macro_minus_rgb"] and rows["motion"]["map_macro_minus_rgb_low"] == ""
    for config in rows.keys() - {"rgb"}:
        assert f"{config}, held_out: no interval: " in text
    assert {"gone": "val-30.h5", "another": "val-30.h5", "unnamed": "config.yaml"}.get(what, "predictions.csv") in text


def test_without_resamples_there_is_no_interval(place: Path) -> None:
    write_run("rgb", 1, noisy(1, 1.0))
    write_run("motion", 1, noisy(2, 1.0))
    rows, text = make_table("--resamples", "0")
    assert rows["motion"]["map_macro_minus_rgb"] and rows["motion"]["map_macro_minus_rgb_low"] == ""
    assert "interval" not in text


def test_of_several_rgb_rows_the_one_that_is_most_alike_is_compared_with(place: Path) -> None:
    like = {"model.positions": True}
    write_run("rgb", 1, noisy(1, 1.0))
    write_run("rgb", 2, noisy(1, 1.0), settings={"model.fusion": "rgb", **like}, map_macro=0.25)
    write_run("motion", 2, noisy(2, 1.0), settings={"model.fusion": "motion", **like}, map_macro=0.75)
    rows, _ = make_table("--resamples", "0")
    assert rows["motion"]["map_macro_minus_rgb"] == "+0.5000"


def test_the_shipped_configs_can_be_compared_with_rgb() -> None:
    """They differ in nothing but what is a config's own."""
    changed = [tfam_config.settings(tfam_config.load([path])) for path in CONFIGS]
    assert set().union(*changed) <= rgb_difference.OWN_TO_A_CONFIG


def test_the_experiments_are_the_five_fusions_and_the_controls_three_times() -> None:
    script = (REPOSITORY / "TFAM" / "run_experiments.sh").read_text()
    configs, seeds = (re.search(rf'(?m)^{name}="\${{{name}:-([^"}}]*)}}"', script) for name in ("CONFIGS", "SEEDS"))
    assert configs and seeds
    names = configs[1].split()
    assert set(names) == {*table.PAPER_MAP_MICRO, "cross_attention_none", "cross_attention_shuffled"}
    assert {path.stem for path in CONFIGS} >= set(names) and len(seeds[1].split()) == 3


def test_a_real_run_is_in_the_table_with_its_time(drawn: Path) -> None:
    for config in ("rgb", "cross_attention"):
        main(command(config))
    shutil.rmtree(NOTES)
    rows, text = make_table("--resamples", "10")
    row = rows["cross_attention"]
    assert (
        row["protocol"] == "held_out, student published" and float(row["seconds"]) >= 0 and int(row["parameters"]) > 0
    )
    assert float(row["map_micro_minus_rgb_low"]) <= float(row["map_micro_minus_rgb"]) + 0.5
    assert "6 clips that are reported" in text


def rows_of(config: str) -> list[dict[str, str]]:
    return [row for row in read_csv(Path("results/table.csv")) if row["config"] == config]


@pytest.mark.parametrize(
    ("student", "said"),
    [
        ({"student_protocol": "published"}, "held_out, student published"),
        ({"student_protocol": None}, "held_out, student unknown"),
        (
            {"student_protocol": "held_out", "student_selection_agrees": False},
            "held_out, student of other selection clips",
        ),
        ({"student_protocol": "held_out", "student_selection_agrees": True}, "held_out"),
    ],
)
def test_a_student_that_was_not_held_out_is_said_in_the_table(place: Path, student: Any, said: str) -> None:
    write_run("rgb", 1, noisy(1, 1.0), student_protocol=None)  # which reads no motion
    write_run("cross_attention", 1, noisy(2, 0.7), **student)
    rows, text = make_table("--resamples", "5")
    assert rows["rgb"]["protocol"] == "held_out"
    assert rows["cross_attention"]["protocol"] == said
    assert rows["cross_attention"]["map_macro_minus_rgb"]  # rgb alone is still what it is compared with
    assert ("flatters" in text) == (said.endswith("published"))


def test_runs_that_learnt_from_other_files_are_rows_of_their_own(place: Path) -> None:
    folder = write_run("rgb", 1, noisy(1, 1.0))
    inputs = json.loads((folder / "metrics.json").read_text())["inputs_sha256"]
    for seed, motion in ((1, "a"), (2, "a"), (3, "b")):
        write_run("cross_attention", seed, noisy(seed, 0.7), inputs_sha256={**inputs, "motion_h5": motion})
    _, text = make_table("--resamples", "0")
    found = rows_of("cross_attention")
    assert sorted(row["seeds"] for row in found) == ["1", "2"]
    assert len({row["settings"] for row in found}) == 2 and all("inputs=" in row["settings"] for row in found)
    assert "rows of their own" in text


@pytest.mark.parametrize("key", ["rgb_train_h5", "rgb_val_h5", "selection"])
def test_there_is_no_difference_between_runs_of_other_labels_or_clips(place: Path, key: str) -> None:
    folder = write_run("rgb", 1, noisy(1, 1.0))
    inputs = json.loads((folder / "metrics.json").read_text())["inputs_sha256"] | {key: "one"}
    about = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps(about | {"inputs_sha256": inputs}))
    write_run("cross_attention", 1, noisy(2, 0.7), inputs_sha256=inputs | {key: "another"})
    rows, text = make_table("--resamples", "0")
    assert rows["cross_attention"]["map_macro_minus_rgb"] == ""
    assert "of other labels, embeddings or selection clips" in text


def test_the_papers_number_stands_beside_no_control_and_no_part_of_the_clips(place: Path) -> None:
    write_run("rgb", 1, noisy(1, 1.0), settings={"model.fusion": "rgb", "model.dropout": 0.2})
    write_run("cross_attention", 1, noisy(2, 0.7), settings={"data.limit": 100})
    rows, _ = make_table("--resamples", "0")
    assert rows["rgb"]["paper_map_micro"] == "0.7583"
    assert rows["cross_attention"]["paper_map_micro"] == ""
