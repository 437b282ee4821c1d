"""Few-shot runs of TFAM: their folders, their clips, and what is refused."""

from pathlib import Path

import pytest
import torch
import yaml

from tests.tfam.helpers import (
    ANNOTATIONS_DIR,
    SELECTION_NUMBERS,
    assert_same_run,
    read_json,
    train_command,
    write_motion,
    write_rgb,
)
from TFAM import select_best
from TFAM.train_and_eval import main
from vimoclip.errors import UserError
from vimoclip.runtime import cost_estimate

RUNS = Path("checkpoints/TFAM")
CANDIDATES = {n for n in range(9) if n not in SELECTION_NUMBERS}  # training clips that are not held out


def training_clips(run: Path) -> list[str]:
    return (run / "training_clips.txt").read_text().splitlines()


def train(variant: str, *more: str, settings: tuple[str, ...] = ()) -> Path:
    return main([*train_command(variant, *more), "training.epochs=1", *settings])


def test_all_fusions_probes_and_seeds_train_on_the_same_clips(selection_dataset: Path) -> None:
    runs = [
        train("rgb", "--shots", "1"),
        train("cross_attention", "--shots", "1", "--seed", "50"),
        train("cross_attention_shuffled", settings=("data.shots=1",)),
        train("probe_both", "--shots", "1"),
        train("probe_attentive", "--shots", "1"),
    ]
    names = ["rgb/seed49", "cross_attention/seed50", "cross_attention_shuffled/seed49"]
    names += ["probe_both/seed49", "probe_attentive/seed49"]
    assert runs == [RUNS / f"{name}_shots1" for name in names]
    clips = training_clips(runs[0])
    assert all(training_clips(run) == clips for run in runs)
    numbers = [int(clip[1:3]) for clip in clips]
    assert sorted(n % 3 for n in numbers) == [0, 1, 2] and set(numbers) <= CANDIDATES
    for run in runs:
        metrics = read_json(run / "metrics.json")
        assert metrics["train_num_videos"] == 3 and metrics["settings"]["data.shots"] == 1
        # the other splits stay whole
        assert metrics["selection_num_videos"] == len(SELECTION_NUMBERS) and metrics["num_videos"] == 6
        assert yaml.safe_load((run / "config.yaml").read_text())["data"]["shots"] == 1


@pytest.mark.parametrize("protocol", ["published", "three_splits"])
def test_every_protocol_draws_of_the_training_split_only(dataset: Path, protocol: str) -> None:
    if protocol == "three_splits":
        write_rgb(dataset / "ak_test_clip_embeddings.h5", range(15, 19))
        write_motion(dataset / "flow_embeddings.h5", range(19))
        ANNOTATIONS_DIR.mkdir(parents=True)
        (ANNOTATIONS_DIR / "test_multi.txt").write_text("V15.mp4 0\n")
    run = train("cross_attention", "--shots", "2", settings=(f"data.protocol={protocol}",))
    metrics = read_json(run / "metrics.json")
    assert (metrics["train_num_videos"], metrics["num_videos"]) == (6, 4 if protocol == "three_splits" else 6)
    assert metrics.get("selection_num_videos") == (6 if protocol == "three_splits" else None)
    assert {int(clip[1:3]) for clip in training_clips(run)} <= set(range(9))


def test_clips_without_motion_are_replaced(selection_dataset: Path) -> None:
    drawn = training_clips(train("cross_attention", "--shots", "1"))
    lost = int(drawn[0][1:3])
    write_motion(selection_dataset / "flow_embeddings.h5", [n for n in range(15) if n != lost])
    for variant in ("cross_attention", "rgb"):
        others = training_clips(train(variant, "--shots", "1", "--seed", "1"))
        assert len(others) == 3 and drawn[0] not in others and set(drawn[1:]) < set(others)


def test_several_shots_are_one_run_each(selection_dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train("rgb", "--shots", "1", "2", "1", "--report", "report.json")
    report = read_json(Path("report.json"))
    assert report["outputs"] == [str(RUNS / "rgb" / f"seed49_shots{n}") for n in (1, 2)]
    assert folder == RUNS / "rgb/seed49_shots2"
    assert (report["done"], report["already"], report["unit"]) == (2, 0, "epoch")
    assert all(list(Path("logs/TFAM/rgb", f"seed49_shots{n}").glob("events*")) for n in (1, 2))
    first, second = (set(training_clips(RUNS / "rgb" / f"seed49_shots{n}")) for n in (1, 2))
    assert first < second
    # a separate command gives the same, also as a setting
    alone = train("rgb", "--checkpoints-dir", "alone", settings=("data.shots=2",))
    assert_same_run(folder, alone)
    train("rgb", "--shots", "1", "2", "3", "--report", "report.json")
    report = read_json(Path("report.json"))
    assert (report["done"], report["already"]) == (1, 2)
    whole = train("rgb")
    assert whole == RUNS / "rgb/seed49" and not (whole / "training_clips.txt").exists()
    assert read_json(whole / "metrics.json")["train_num_videos"] == len(CANDIDATES)


def test_dry_run_reports_all_runs(selection_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_estimate, "PROBE_SECONDS", 0.05)
    train("rgb", "--shots", "1")
    train("rgb", "--shots", "1", "2", "3", "--dry-run", "--report", "report.json")
    report = read_json(Path("report.json"))
    assert (report["already"], report["pending"]) == (1, 2)
    # an epoch of 5 and one of 6 training clips, and two passes over 3 selection clips, which count as a third each
    assert report["estimate"]["units"] > 5 + 6
    assert [path.name for path in (RUNS / "rgb").iterdir()] == ["seed49_shots1"]


def test_resume_continues_a_few_shot_run_and_refuses_others(selection_dataset: Path) -> None:
    run = train("rgb", "--shots", "2")
    (run / "metrics.json").unlink()
    assert main(["--resume", str(run), "--device", "cpu", "--num-workers", "0"]) == run
    assert read_json(run / "metrics.json")["train_num_videos"] == len(training_clips(run))
    for more in (["--resume", str(run)], ["--evaluate", str(run / "best_model.pth")]):
        with pytest.raises(UserError) as error:
            main([*more, "--shots", "2"])
        assert "--shots" in error.value.problem
    with pytest.raises(UserError) as error:
        main(["--resume", str(run), "--set", "data.shots=1"])
    assert "data.shots" in error.value.problem
    with pytest.raises(UserError) as error:
        train("rgb", settings=("data.shots=0",))
    assert "data.shots" in error.value.problem


def test_a_run_without_the_setting_resumes(selection_dataset: Path) -> None:
    """Runs of earlier versions have no data.shots."""
    run = train("rgb")
    config = yaml.safe_load((run / "config.yaml").read_text())
    del config["data"]["shots"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    last = torch.load(run / "last.pth", weights_only=True)
    del last["config"]["data"]["shots"]
    torch.save(last, run / "last.pth")
    (run / "metrics.json").unlink()
    assert train("rgb") == run
    assert (run / "metrics.json").exists()


def test_motion_of_a_student_of_so_many_shots(selection_dataset: Path) -> None:
    """{shots} in a path is the number of the run."""
    for name in ("1", "2", "all"):
        write_motion(selection_dataset / f"flow_{name}.h5", range(15), weights_sha256=name)
    path = "data.motion_h5=dataset/embeddings/flow_{shots}.h5"
    train("concat_time", "--shots", "1", "2", settings=(path,))
    train("concat_time", settings=(path,))
    for run, name in (("seed49_shots1", "1"), ("seed49_shots2", "2"), ("seed49", "all")):
        state = torch.load(RUNS / "concat_time" / run / "best_model.pth", weights_only=True)
        assert state["config"]["inputs"]["motion"]["weights_sha256"] == name


def test_evaluation_of_a_checkpoint_names_its_shots(selection_dataset: Path) -> None:
    run = train("rgb", "--shots", "1")
    evaluated = main(["--evaluate", str(run / "best_model.pth"), "--device", "cpu", "--num-workers", "0"])
    assert evaluated["settings"]["data.shots"] == 1
    assert evaluated["map_micro"] == read_json(run / "metrics.json")["map_micro"]
    assert Path("TFAM/results/evaluate/rgb-seed49_shots1-best_model/metrics.json").exists()


def test_select_best_ignores_few_shot_runs(selection_dataset: Path) -> None:
    whole = train("rgb")
    few = train("rgb", "--shots", "1")
    rows = (few / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("selection_map_micro")
    cells = rows[1].split(",")
    (few / "metrics.csv").write_text("\n".join([rows[0], ",".join([*cells[:column], "2", *cells[column + 1 :]])]))
    assert select_best.main(["--report", "report.json"]) == whole
    assert list(read_json(Path("report.json"))["skipped"]) == [str(few)]


def test_several_seeds_are_several_runs(selection_dataset: Path) -> None:
    last = train("rgb", "--seed", "1", "2", "1", "--report", "report.json")
    assert last == RUNS / "rgb/seed2"
    assert {path.parent.name for path in RUNS.glob("rgb/*/metrics.json")} == {"seed1", "seed2"}
    assert read_json(RUNS / "rgb/seed1/metrics.json")["seed"] == 1
    assert read_json(Path("report.json"))["outputs"] == [str(RUNS / "rgb/seed1"), str(RUNS / "rgb/seed2")]
    alone = train("rgb", "--seed", "2", "--checkpoints-dir", "alone")
    assert_same_run(alone, last)
    with pytest.raises(UserError):
        main(["--resume", str(last), "--seed", "1", "2"])
