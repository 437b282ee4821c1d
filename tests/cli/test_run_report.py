"""The report of a run: merged from processes, as JSON for --report, and its estimate."""

import importlib
import json
from pathlib import Path

import pytest

from vimoclip.cli import CostEstimate, RunReport, add_estimates, remove_old_report
from vimoclip.errors import UserError


def test_the_json_holds_the_counts_the_reasons_and_the_estimate_in_numbers(tmp_path: Path) -> None:
    report = RunReport([tmp_path / "a.h5"], done=2, already_done=1, partial={"p.mp4": "3 frames"}, not_retried=1)
    report.merge(RunReport([tmp_path / "b.h5"], done=3, skipped={"s.mp4": "one frame"}, failed={"f.mp4": "empty"}))
    report.pending, report.estimate = 4, CostEstimate(600, "frame", 20.0, 5000, 1e9, 3e9)
    report.write(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == {
        "schema": 1,
        "unit": "video",
        "done": 5,
        "already": 1,
        "partial": {"p.mp4": "3 frames"},
        "skipped": {"s.mp4": "one frame"},
        "failed": {"f.mp4": "empty"},
        "changed": [],
        "not_retried": 1,
        "outputs": [str(tmp_path / "a.h5"), str(tmp_path / "b.h5")],
        "pending": 4,
        "estimate": {
            "units": 600,
            "unit": "frame",
            "rate": 20.0,
            "seconds": 30.0,
            "disk_bytes": 5000,
            "memory_bytes": 1e9,
            "gpu_memory_bytes": 3e9,
        },
    }


def test_a_name_with_a_line_break_is_one_printed_line(capsys: pytest.CaptureFixture[str]) -> None:
    RunReport(failed={"a\nb\u202e.mp4": "empty"}).print()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and "\u202e" not in lines[1]


STAGES = {  # wrong calls
    "extract_embeddings": ["--dataset-dir", "nowhere"],
    "extract_flows": ["--dataset-dir", "nowhere"],
    "inference": ["--dataset-dir", "nowhere", "--checkpoint-dir", "nowhere"],
    "evaluate": ["nowhere.csv"],
    "predict": ["nowhere.mp4", "--labels", "running"],
    "prepare_dataset folder": ["nowhere"],
    "prepare_dataset csv": ["nowhere.csv"],
    "prepare_dataset boris": ["nowhere.boris"],
    "prepare_dataset mammalnet": ["nowhere"],
    "prepare_dataset animal-kingdom": ["--metadata", "nowhere.xlsx", "--actions", "nowhere.xlsx"],
    "prepare_dataset selection": ["--dataset-dir", "nowhere"],
    "prepare_dataset check": ["--dataset-dir", "nowhere"],
    "TFAM.table": ["--checkpoints-dir", "nowhere"],
    "TFAM.select_best": ["--checkpoints-dir", "nowhere"],
    "TFAM.zero_shot": ["--dataset-dir", "nowhere"],
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_wrong_call_leaves_no_report_of_an_earlier_run(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    script, *command = stage.split()
    RunReport(done=1).write(Path("report.json"))
    with pytest.raises(UserError) as error:
        importlib.import_module(script).main([*command, *STAGES[stage], "--report", "report.json"])
    assert error.value.exit_code == 2
    assert not Path("report.json").exists()


def test_a_report_without_a_possible_folder_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as error:
        remove_old_report(tmp_path / "file" / "report.json")
    assert error.value.path == str(tmp_path / "file")


def test_only_a_report_is_replaced(tmp_path: Path) -> None:
    table, link, empty = tmp_path / "labels.json", tmp_path / "link", tmp_path / "empty"
    table.write_text('{"done": 1}')
    link.symlink_to(table)
    empty.touch()
    for path in (table, link, tmp_path, Path("/dev/null")):
        with pytest.raises(UserError) as error:
            remove_old_report(path)
        assert error.value.path == str(path)
    assert table.read_text() == '{"done": 1}' and link.is_symlink() and Path("/dev/null").exists()
    remove_old_report(empty)
    RunReport(done=1).write(empty)
    remove_old_report(empty)
    assert not empty.exists()


def test_estimates_add_up_at_the_mean_measured_rate() -> None:
    slow, fast = CostEstimate(100, "frame", 10.0, 1, 5), CostEstimate(400, "frame", 40.0, 2, 7, 9)
    unmeasured = CostEstimate(50, "frame", None, 4, 6)
    total = add_estimates([slow, fast, unmeasured])
    assert (total.units, total.disk_bytes, total.memory_bytes, total.gpu_memory_bytes) == (550, 7, 7, 9)
    assert total.seconds == pytest.approx(550 / 25)  # 500 frames in 20 s
    assert add_estimates([unmeasured]).seconds is None
    assert CostEstimate(0, "frame", None, 0, 0).seconds == 0
