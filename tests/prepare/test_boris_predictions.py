"""Predictions that were reviewed in BORIS become labels, unreviewed ones never do, and data sets are continued."""

import gzip
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import extract_embeddings
import extract_flows
import prepare_dataset
from tests.boris import boris_program
from tests.boris.test_reader import BEHAVIORS
from tests.conftest import indexed_frames, write_video
from tests.prepare.test_boris import label_names
from tests.stage_driver import driver
from vimoclip import annotations, boris, store
from vimoclip.annotations import Annotations
from vimoclip.boris import review_mark
from vimoclip.boris.events import behavior_code
from vimoclip.errors import UserError

WINDOWS = ("--window", "1", "--stride-seconds", "1")
SECONDS = 3.0
WALK, REST = [("walk", 0.0, 3.0)], [("rest", 0.0, 3.0)]
Events = Sequence[tuple[str, float, float]]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six films of 3 s."""
    folder = tmp_path_factory.mktemp("films")
    for i in range(6):
        write_video(folder / f"f{i}.mp4", indexed_frames(75, 32, 32, seed=i))
    return folder


def observations(events: Mapping[str, Events], reviewed: str = "", marked: bool = True) -> dict[str, Any]:
    """Return a project with an observation per film, f0 to f9, of which `reviewed` has the numbers of the reviewed."""
    project: dict[str, Any] = {}
    for film, film_events in events.items():
        rows = [[time, "", code, "", "", 0] for code, *times in film_events for time in times]
        other = boris_program.project(BEHAVIORS, {film: rows}, {f"{film}.mp4": SECONDS})
        if marked:
            other["observations"][film] |= {
                review_mark.OBSERVATION_MARK: {"video": f"{film}.mp4"},
                "description": review_mark.DESCRIPTION_START,
                "independent_variables": {"reviewed": "yes" if film[1] in reviewed else "no"},
            }
        project = project or other
        project["observations"] |= other["observations"]
    return project


def predicted(events: Mapping[str, Events], reviewed: str = "") -> dict[str, Any]:
    """Return a project that was written from predictions."""
    variable = {"label": "reviewed", "description": "", "type": "value from set"}
    variable |= {"default value": "no", "possible values": "no,yes"}
    mark = {review_mark.PROJECT_MARK: {"schema": 1, "observations": {}}}
    return observations(events, reviewed) | mark | {"independent_variables": {"0": variable}}


def run(root: Path, films: Path, events: dict[str, Any] | Path, *flags: str) -> tuple[dict[str, Any], Annotations]:
    """Import a project, or the file of one; return the report and the annotations."""
    path = events if isinstance(events, Path) else boris_program.write(root / "p.boris", events)
    prepare_dataset.main(["boris", *command(root, films, path), *flags])
    return json.loads((root / "report.json").read_text()), annotations.load(root / "dataset" / "annotations", "ak")


def command(root: Path, films: Path, path: Path) -> list[str]:
    dataset = ["--dataset-dir", str(root / "dataset"), "--report", str(root / "report.json")]
    return [str(path), "--videos-dir", str(films), *WINDOWS, *dataset]


def import_table(root: Path, films: Path, text: str) -> Annotations:
    (root / "table.csv").write_text("video,labels,split,start,end\n" + text)
    prepare_dataset.main(
        ["csv", str(root / "table.csv"), "--videos-dir", str(films), "--dataset-dir", f"{root}/dataset"]
    )
    return annotations.load(root / "dataset" / "annotations", "ak")


def files(root: Path) -> dict[str, bytes]:
    folder = root / "dataset" / "annotations"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix != ".html"}


def problems(root: Path) -> list[str]:
    prepare_dataset.main(["check", "--dataset-dir", str(root / "dataset"), "--json", str(root / "check.json")])
    return json.loads((root / "check.json").read_text())["problems"]


# --- unreviewed predictions never become labels


def as_project(root: Path, project: dict[str, Any]) -> Path:
    return boris_program.write(root / "p.boris", project)


def as_gzip(root: Path, project: dict[str, Any]) -> Path:
    (root / "p.boris.gz").write_bytes(gzip.compress(json.dumps(project).encode()))
    return root / "p.boris.gz"


def as_table(root: Path, project: dict[str, Any], suffix: str = "tsv") -> Path:
    path = root / f"events.{suffix}"
    path.write_text(boris_program.run("aggregate", project=project)[suffix], newline="")
    return path


def as_csv(root: Path, project: dict[str, Any]) -> Path:
    return as_table(root, project, "csv")


@pytest.mark.parametrize("save", [as_project, as_gzip, as_table, as_csv])
def test_only_reviewed_predictions_become_labels(
    tmp_path: Path, films: Path, save: Callable[[Path, dict[str, Any]], Path]
) -> None:
    path = save(tmp_path, predicted({"f0": WALK, "f1": WALK, "f2": REST, "f3": WALK}, reviewed="03"))
    report, data = run(tmp_path, films, path)
    assert data.classes == ("walk",)
    assert {name[:2] for name in label_names(data)} == {"f0", "f3"}
    assert set(report["skipped"]) == {"f1", "f2"}
    assert report["failed"] == {}  # rest is not lost: nobody has coded it
    observed = annotations.read_observations(tmp_path / "dataset" / "annotations")
    assert observed.keys() == label_names(data).keys()
    assert observed["f3_0-1000ms.mp4"] == ("f3", "f3.mp4", (films / "f3.mp4").stat().st_size)


@pytest.mark.parametrize("save", [as_project, as_table])
def test_without_a_review_nothing_is_imported_unless_asked_for(
    tmp_path: Path, films: Path, save: Callable[[Path, dict[str, Any]], Path]
) -> None:
    path = save(tmp_path, predicted({"f0": WALK, "f1": REST}))
    with pytest.raises(UserError, match="reviewed"):
        run(tmp_path, films, path)
    assert not (tmp_path / "dataset").exists()
    report, data = run(tmp_path, films, path, "--include-unreviewed")
    assert report["skipped"] == {}
    assert {next(iter(names)) for names in label_names(data).values()} == {"walk", "rest"}


def test_predictions_copied_into_another_project_need_a_review_and_others_do_not(tmp_path: Path, films: Path) -> None:
    project = observations({"f0": WALK, "f1": WALK}, marked=False)
    project["observations"] |= observations({"f2": REST, "f3": WALK}, reviewed="3")["observations"]
    report, data = run(tmp_path, films, project)
    assert {name[:2] for name in label_names(data)} == {"f0", "f1", "f3"}
    assert set(report["skipped"]) == {"f2"}


@pytest.mark.parametrize("save", [as_project, as_table])
def test_observations_added_to_the_predictions_need_a_review(
    tmp_path: Path, films: Path, save: Callable[[Path, dict[str, Any]], Path]
) -> None:
    project = predicted({"f0": WALK, "f1": WALK}, reviewed="01")
    project["observations"] |= observations({"f2": REST}, marked=False)["observations"]
    report, data = run(tmp_path, films, save(tmp_path, project))
    assert {name[:2] for name in label_names(data)} == {"f0", "f1"}
    assert set(report["skipped"]) == {"f2"}


def without_marks(project: dict[str, Any]) -> None:
    del project[review_mark.PROJECT_MARK]
    for content in project["observations"].values():
        del content[review_mark.OBSERVATION_MARK]


def with_other_descriptions(project: dict[str, Any]) -> None:
    for content in project["observations"].values():
        content["description"] = "cow 5"
        for row in content["events"]:
            row[4] = "score 0.912"


@pytest.mark.parametrize(("save", "change"), [(as_project, without_marks), (as_table, with_other_descriptions)])
def test_predictions_are_recognised_by_each_of_their_marks(
    tmp_path: Path, films: Path, save: Callable[[Path, dict[str, Any]], Path], change: Callable[[dict[str, Any]], None]
) -> None:
    project = predicted({"f0": WALK, "f1": REST})
    change(project)
    with pytest.raises(UserError, match="reviewed"):
        run(tmp_path, films, save(tmp_path, project))


@pytest.fixture(scope="module")
def reviewed_in_boris(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Predictions of f0 to f3, saved by BORIS: f0 is reviewed, f1 renamed, f3 reviewed and renamed; in own.boris, into
    which BORIS has copied them, is a coded observation of f4."""
    folder = tmp_path_factory.mktemp("boris")
    predictions, own = str(folder / "predictions.boris"), str(folder / "own.boris")
    bouts = (("walk", 0.0, SECONDS, 0.9),)
    items = [boris.PredictedObservation(f"f{i}", f"f{i}.mp4", SECONDS, 25.0, bouts) for i in range(4)]
    boris.write_predictions(Path(predictions), items, ["walk", "rest"])
    boris_program.write(Path(own), observations({"f4": WALK}, marked=False))
    steps = [["open", predictions], ["edit", "f0", "", "yes"], ["edit", "f1", "renamed"]]
    boris_program.run("use_window", steps=[*steps, ["edit", "f3", "seen", "yes"], ["save", predictions]])
    steps = [["open", own], ["import_observations", predictions], ["save", own]]
    boris_program.run("use_window", steps=steps)
    return folder


@pytest.mark.parametrize(("name", "used"), [("predictions", {"f0", "f3"}), ("own", {"f0", "f3", "f4"})])
def test_reviews_are_read_from_what_boris_saves(
    tmp_path: Path, films: Path, reviewed_in_boris: Path, name: str, used: set[str]
) -> None:
    report, data = run(tmp_path, films, reviewed_in_boris / f"{name}.boris")
    assert {name[:2] for name in label_names(data)} == used
    assert set(report["skipped"]) == {"renamed", "f2"}
    (tmp_path / "table").mkdir()
    project = json.loads((reviewed_in_boris / f"{name}.boris").read_text())
    if name == "predictions":  # in a table of own.boris, f4 would need a review too
        report, data = run(tmp_path / "table", films, as_table(tmp_path, project))
        assert {name[:2] for name in label_names(data)} == used
        assert set(report["skipped"]) == {"renamed", "f2"}


# --- the data set exists


def test_corrections_are_added_to_a_data_set_of_another_origin(
    tmp_path: Path, films: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """f0 is trained on, f1 selects the epoch, f2 (cut) and f3 (whole) are evaluated; f4 is new."""
    text = "f0.mp4,Rest,train,0,1\nf0.mp4,,train,1,2\nf1.mp4,a|b,train,0,1\nf2.mp4,a|b,val,0,1\nf3.mp4,Rest,val,,\n"
    before = import_table(tmp_path, films, text)
    folder = tmp_path / "dataset" / "annotations"
    (folder / "selection.txt").write_text("f1_0-1000ms.mp4\n")
    (folder / "sources.csv").write_text("video_id,source\nf0_0-1000ms.mp4,cow\nf0_1000-2000ms.mp4,cow\n")
    (folder / "animals.csv").write_text("video_id,animals,animal_classes\nf0_0-1000ms.mp4,cow,mammal\n")
    for name in ("f3.mp4", "f4.mp4"):  # the evaluated film has another name
        shutil.copy(films / name, tmp_path / name)
    (tmp_path / "f3.mp4").rename(tmp_path / "f5.mp4")
    project = predicted({f"f{i}": WALK for i in range(6) if i != 3}, reviewed="01245")
    code = project["behaviors_conf"]["2"]["code"] = behavior_code("a|b")  # BORIS refuses |
    rows = [[1.0, "", "rest", "", "", 0], [2.0, "", "rest", "", "", 0], [2.5, "", code, "", "", 0]]
    project["observations"]["f0"]["events"] = rows
    report, data = run(tmp_path, tmp_path, project, "--videos-dir", str(films))
    assert set(report["skipped"]) >= {"f2.mp4"}
    assert data.classes == (*before.classes, "walk")
    assert data.splits["val"] == before.splits["val"]
    labels = label_names(data)
    assert {name: labels[name] for name in labels if name[:2] == "f0"} == {
        "f0_0-1000ms.mp4": set(),
        "f0_1000-2000ms.mp4": {"Rest", "a|b"},
        "f0_2000-3000ms.mp4": {"a|b"},
    }
    new = {f"{film}_{span}ms.mp4" for film in ("f1", "f4") for span in ("0-1000", "1000-2000", "2000-3000")}
    assert all(labels[name] == {"walk"} for name in new)
    assert set(data.selection) == {name for name in data.splits["train"] if name[:2] == "f1"}
    sources = annotations.read_sources(folder)
    assert {sources[name] for name in labels if name[:2] == "f0"} == {"cow"}
    assert sources["f4_0-1000ms.mp4"] == "f4.mp4"
    assert annotations.read_animals(folder).keys() == {"f0_0-1000ms.mp4"}
    observed = annotations.read_observations(folder)
    assert "f0_0-1000ms.mp4" not in observed and "f0_2000-3000ms.mp4" in observed
    assert "walk" in capsys.readouterr().out


def test_imports_of_corrections_replace_each_other(tmp_path: Path, films: Path) -> None:
    first = predicted({"f0": WALK, "f1": REST, "f2": WALK, "f3": REST, "f4": WALK}, reviewed="0123")
    _, data = run(tmp_path, films, first)
    assert all(data.splits.values()) and data.selection
    before = files(tmp_path)
    assert run(tmp_path, films, first)[1] == data
    assert files(tmp_path) == before
    assert problems(tmp_path) == []
    # more is reviewed, and all films of val and of the selection get other labels
    split_of = {name[:2]: split for split, videos in data.splits.items() for name in videos}
    selected = {name[:2] for name in data.selection}
    second = predicted({film: [("bite", 0.5, 0.5)] for film in split_of} | {"f4": WALK}, reviewed="01234")
    report, later = run(tmp_path, films, second, "--stride-seconds", "0.5")
    assert report["skipped"].keys() == set()
    assert later.classes == (*data.classes, "bite")
    assert {name[:2]: split for split, videos in later.splits.items() for name in videos} == split_of | {"f4": "train"}
    assert {name[:2] for name in later.selection} == selected
    labels = label_names(later)
    assert all(labels[f"{film}_0-1000ms.mp4"] == {"bite"} for film in split_of)
    assert labels["f4_0-1000ms.mp4"] == {"walk"}
    assert problems(tmp_path) == []
    # films that are not in an import stay, and clips that it has no more are removed
    _, last = run(tmp_path, films, predicted({"f4": REST}, reviewed="4"))
    assert label_names(last) == {
        name: {"rest"} if name[:2] == "f4" else names
        for name, names in labels.items()
        if name[:2] != "f4" or "500" not in name
    }
    observed = annotations.read_observations(tmp_path / "dataset" / "annotations")
    assert (
        observed.keys()
        == label_names(last).keys()
        == annotations.read_sources(tmp_path / "dataset" / "annotations").keys()
    )
    assert problems(tmp_path) == []


def test_single_film_keeps_its_blocks(tmp_path: Path) -> None:
    """The only film is divided between the splits: later imports don't put windows across them."""
    write_video(tmp_path / "f0.mp4", indexed_frames(200, 32, 32))
    write_video(tmp_path / "f1.mp4", indexed_frames(75, 32, 32, seed=1))
    project = predicted({"f0": [("walk", 0.0, 8.0)], "f1": REST}, reviewed="0")
    flags = ["--window", "0.4", "--stride-seconds", "0.2"]
    run(tmp_path, tmp_path, project, *flags)
    before = files(tmp_path)
    run(tmp_path, tmp_path, project, *flags)
    assert files(tmp_path) == before
    project["observations"]["f1"]["independent_variables"]["reviewed"] = "yes"
    _, later = run(tmp_path, tmp_path, project, "--window", "0.6", "--stride-seconds", "0.1")
    assert {split for split, videos in later.splits.items() for name in videos if name[:2] == "f1"} == {"train"}
    spans = {
        split: [tuple(map(int, name[3:-6].split("-"))) for name in videos if name[:2] == "f0"]
        for split, videos in later.splits.items()
    }
    assert all(spans.values())
    for start, stop in spans["train"]:
        assert all(stop <= other[0] or start >= other[1] for other in spans["val"])


def test_films_of_one_name_become_different_clips(tmp_path: Path, films: Path) -> None:
    for day in (1, 2):
        (tmp_path / f"day{day}").mkdir()
        shutil.copy(films / f"f{day}.mp4", tmp_path / f"day{day}" / "GOPR.mp4")
    run_day = [
        boris_program.write(
            tmp_path / f"day{day}" / "p.boris",
            json.loads(json.dumps(predicted({"f1": events}, "1")).replace("f1.mp4", "GOPR.mp4")),
        )
        for day, events in ((1, WALK), (2, REST))
    ]
    for path in (*run_day, *run_day):
        _, data = run(tmp_path, path.parent, path)
    labels = label_names(data)
    assert labels["GOPR_0-1000ms.mp4"] == {"walk"}
    assert labels["day2__GOPR_0-1000ms.mp4"] == {"rest"}
    assert {name.rpartition("_")[0] for name in labels} == {"GOPR", "day2__GOPR"}


def test_renamed_film_keeps_its_split(tmp_path: Path, films: Path) -> None:
    shutil.copytree(films, tmp_path / "films")
    project = predicted({f"f{i}": WALK for i in range(3)}, reviewed="012")
    _, before = run(tmp_path, tmp_path / "films", project)
    evaluated = min(before.splits["val"])[:2]
    (tmp_path / "films" / f"{evaluated}.mp4").rename(tmp_path / "films" / "cow.mp4")
    project = json.loads(json.dumps(project).replace(f"{evaluated}.mp4", "cow.mp4"))
    _, data = run(tmp_path, tmp_path / "films", project)
    assert {name.partition("_")[0] for name in data.splits["val"]} == {"cow"}
    assert data.splits["train"] == before.splits["train"]
    after = files(tmp_path)
    run(tmp_path, tmp_path / "films", project)
    assert files(tmp_path) == after


def test_films_of_one_observation_stay_together(tmp_path: Path, films: Path) -> None:
    """Each observation has two films, which are one source; in a repeated import too."""
    project: dict[str, Any] = {}
    for name, numbers in (("f0", "01"), ("f2", "23")):
        other = predicted({name: [("walk", 0.0, 6.0)]}, reviewed="02")
        media = {f"f{number}.mp4": SECONDS for number in numbers}
        observation = boris_program.project(BEHAVIORS, {name: []}, media)["observations"][name]
        other["observations"][name] |= {key: observation[key] for key in ("file", "media_info")}
        project = project or other
        project["observations"] |= other["observations"]
    _, data = run(tmp_path, films, project, "--group-by", "observation")
    assert sorted({name[:2] for name in videos} for videos in data.splits.values()) in (
        [{"f0", "f1"}, {"f2", "f3"}],
        [{"f2", "f3"}, {"f0", "f1"}],
    )
    before = files(tmp_path)
    run(tmp_path, films, project, "--group-by", "observation")
    assert files(tmp_path) == before
    # a third film of the observation that is evaluated
    name = min(data.splits["val"])[:2]
    content = project["observations"][name]
    content["file"]["1"].append("f4.mp4")
    content["media_info"]["length"]["f4.mp4"] = SECONDS
    report, later = run(tmp_path, films, project, "--group-by", "observation")
    assert set(report["skipped"]) == {"f4.mp4"}
    assert later == data


def test_new_film_of_an_evaluated_observation_is_left_out(tmp_path: Path, films: Path) -> None:
    before = import_table(tmp_path, films, "f0.mp4,walk,train,,\nf1.mp4,rest,val,,\n")
    project = predicted({"f2": REST, "f3": WALK}, reviewed="23")
    content = boris_program.project(BEHAVIORS, {"f2": []}, {"f2.mp4": SECONDS, "f1.mp4": SECONDS})["observations"]["f2"]
    project["observations"]["f2"] |= {key: content[key] for key in ("file", "media_info")}
    report, data = run(tmp_path, films, project, "--group-by", "observation")
    assert set(report["skipped"]) == {"f1.mp4", "f2.mp4"}
    assert {name[:2] for name in data.splits["train"]} == {"f0", "f3"}
    assert data.splits["val"] == before.splits["val"]


def test_withdrawn_review_is_named(tmp_path: Path, films: Path) -> None:
    run(tmp_path, films, predicted({"f0": WALK, "f1": REST}, reviewed="01"))
    report, data = run(tmp_path, films, predicted({"f0": WALK, "f1": REST, "f2": WALK}, reviewed="0"))
    assert {name[:2] for name in label_names(data)} == {"f0", "f1"}
    assert report["skipped"]["f1"] != report["skipped"]["f2"]


def test_a_video_of_the_data_set_is_never_replaced(tmp_path: Path, films: Path) -> None:
    """f0 to f2 are whole videos of the data set, on which predict.py ran; f0_0-1000ms.mp4 was cut by somebody."""
    videos = tmp_path / "dataset" / "videos"
    import_table(
        tmp_path, films, "".join(f"f{i}.mp4,walk,{split},,\n" for i, split in enumerate(("train", "train", "val")))
    )
    cut = write_video(videos / "f0_0-1000ms.mp4", indexed_frames(25, 32, 32, seed=9)).read_bytes()
    with (tmp_path / "dataset" / "annotations" / "train_multi.txt").open("a") as file:
        file.write("f0_0-1000ms.mp4 0\n")
    report, data = run(tmp_path, videos, predicted({f"f{i}": REST for i in range(3)}, reviewed="012"))
    assert set(report["skipped"]) == {"f2.mp4"}
    labels = label_names(data)
    assert labels["f0.mp4"] == {"walk"}
    assert labels["f0_0-1000ms.mp4"] == labels["f1_0-1000ms.mp4"] == {"rest"}
    assert (videos / "f0_0-1000ms.mp4").read_bytes() == cut
    assert data.splits["val"].keys() == {"f2.mp4"}


def test_killed_import_is_completed_by_the_next_one(tmp_path: Path, films: Path) -> None:
    first = predicted({"f0": WALK, "f1": REST, "f2": WALK}, reviewed="012")
    run(tmp_path, films, first)
    second = predicted({"f0": REST, "f2": REST, "f3": [("bite", 1.0, 1.0)]}, reviewed="023")
    path = boris_program.write(tmp_path / "second.boris", second)
    shutil.copytree(tmp_path / "dataset", tmp_path / "before")
    words = ["prepare_dataset.py", "boris", *command(tmp_path, films, path), "--stride-seconds", "0.5"]
    counted = driver().run(words, tmp_path, kill_at_change=0)
    assert counted.returncode == 0, counted
    expected = files(tmp_path)
    num_changes = int(counted.stdout.splitlines()[-1].split()[0])
    writing = range(num_changes - 34, num_changes - 6, 6)  # changes while the annotations are written
    for change in (num_changes // 3, *writing):
        shutil.rmtree(tmp_path / "dataset")
        shutil.copytree(tmp_path / "before", tmp_path / "dataset")
        killed = driver().run(words, tmp_path, kill_at_change=change)
        assert killed.returncode == -9, killed
        run(tmp_path, films, path, "--stride-seconds", "0.5")
        assert files(tmp_path) == expected, change


def test_extraction_goes_on_with_the_corrected_labels(
    tmp_path: Path, films: Path, tiny_clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(tmp_path, films, predicted({"f0": WALK, "f1": REST, "f2": WALK, "f3": REST}, reviewed="0123"))
    extract, flow = ["--clip-model-name", tiny_clip, "--num-workers", "0"], ["--model", "dis", "--num-workers", "0"]
    extract_embeddings.main(extract)
    extract_flows.main(flow)
    events = {"f0": REST, "f1": [("rest", 0.0, 1.0)], "f2": WALK, "f3": WALK, "f4": REST}
    _, data = run(tmp_path, films, predicted(events, reviewed="01234"), "--stride-seconds", "0.5", "--drop-unlabelled")
    extract_embeddings.main(extract)
    extract_flows.main(flow)
    for split, videos in data.splits.items():
        reader = store.EmbeddingReader(store.rgb_embeddings_path(tmp_path / "dataset" / "embeddings", "ak", split))
        assert set(reader.keys) == videos.keys()
        assert all((reader.labels(name) == data.multi_hot(split, name)).all() for name in videos)
    assert problems(tmp_path) == []
    # a new class
    run(tmp_path, films, predicted({"f5": [("bite", 1.0, 1.0)]}, reviewed="5"))
    with pytest.raises(UserError, match="--overwrite"):
        extract_embeddings.main(extract)
    extract_embeddings.main([*extract, "--overwrite"])
    extract_flows.main(flow)
    assert problems(tmp_path) == []
