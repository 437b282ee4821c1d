"""The model card and the licences in a folder of export_model.py."""

import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import metadata_load

import evaluate
import export_model
from tests.conftest import CLASSES, REPOSITORY
from tests.prediction.helpers import RGB_RUN, RUNS, copy_run
from TFAM import export, model_card
from vimoclip import annotations
from vimoclip.annotations import Annotations
from vimoclip.annotations.split_protocol import PROTOCOL_NOTES, PUBLISHED
from vimoclip.errors import UserError
from vimoclip.io import predictions_csv
from vimoclip.metrics import METRIC_NAMES, format_fraction

RUN = "checkpoints/TFAM/cross_attention/seed49"
STUDENT = ["--student", "checkpoints/student", "--clip-model-name", "local-dir:tinyclip"]


@pytest.fixture(autouse=True)
def _folder(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(chain)


@pytest.fixture(scope="module")
def cards(chain: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The exported folder of each run of RUNS."""
    root = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(chain)
        for config in RUNS:
            student = STUDENT if config != "rgb" else STUDENT[2:]
            export_model.main([f"checkpoints/TFAM/{config}/seed49", *student, "-o", str(root / config)])
    return {config: root / config for config in RUNS}


@pytest.fixture
def collected(chain: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    return export.collect(export_model.build_parser().parse_args([RUN, *STUDENT, "-o", "unused"]))


def write_files(output: Path, run: Path, *rest: Any) -> None:
    output.mkdir(exist_ok=True)
    for name, text in model_card.file_texts(output, run, *rest).items():
        (output / name).write_text(text, encoding="utf-8")


def card_text(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def tables(folder: Path) -> Iterator[list[list[str]]]:
    """Yield the rows of each table of a card, with the header first."""
    for block in re.findall(r"(?:^\|.*\|\n)+", card_text(folder), re.M):
        rows = [re.split(r"(?<!\\) \| ", line[2:-2]) for line in block.splitlines()]
        yield [rows[0], *rows[2:]]


def table(folder: Path, first: str) -> dict[str, list[str]]:
    """Return the rows of the table whose header begins with `first`, by their first cell."""
    return next({row[0]: row[1:] for row in rows[1:]} for rows in tables(folder) if rows[0][0] == first)


def make_run(chain: Path, folder: Path, sources: int) -> Path:
    """Return a run with its own data set in `folder`: 40 evaluated clips of so many sources (0: none are known)."""
    run = copy_run(chain, "cross_attention", folder / "runs" / "config" / "seed49")
    rng = np.random.default_rng(0)
    targets = rng.random((40, 3)) < (0.5, 0.4, 0.1)
    clips = [f"clip{i:02}.mp4" for i in range(len(targets))]
    labels = {clip: tuple(np.flatnonzero(row).tolist()) for clip, row in zip(clips, targets, strict=True)}
    train = {f"train{i}.mp4": (i % 3,) for i in range(9)}
    data = Annotations(CLASSES, {"train": train, "val": labels}, selection=("train0.mp4", "train1.mp4"))
    annotations.write(folder / "annotations", "ak", data)
    if sources:
        known = {clip: f"source{i % sources}" for i, clip in enumerate(clips)} | {"train8.mp4": "source0"}
        (folder / "annotations" / "sources.csv").write_text(annotations.format_sources(known))
    scores = np.clip(0.4 * targets + 0.6 * rng.random(targets.shape), 0, 1).astype(np.float32)
    predictions_csv.write(run / "predictions.csv", clips, scores, CLASSES)
    predictions_csv.write(run / "selection_predictions.csv", data.selection, scores[:2], CLASSES)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["annotations_dir"] = str(folder / "annotations")
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    change_json(run / "metrics.json", map_macro=evaluated(run, folder)["map_macro"]["value"], num_videos=len(clips))
    return run


def change_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def evaluated(run: Path, folder: Path, *flags: str) -> dict[str, Any]:
    """Return metrics.json of evaluate.py, and `per_class`, the rows of per_class.csv."""
    place = ["--annotations-dir", str(folder / "annotations"), "--output-dir", str(folder / "evaluation")]
    result = evaluate.main([str(run), *place, *flags])
    return result.metrics | {"per_class": result.per_class}


@pytest.mark.parametrize(("sources", "flags"), [(0, []), (4, []), (8, ["--resample", "sources"])])
def test_numbers_are_those_of_evaluate(
    chain: Path,
    tmp_path: Path,
    collected: tuple[dict[str, Any], dict[str, Any]],
    sources: int,
    flags: Sequence[str],
) -> None:
    run = make_run(chain, tmp_path, sources)
    expected = evaluated(run, tmp_path, *flags)
    write_files(tmp_path / "out", run, *collected, None)
    entries, found = expected | expected["calibration"], table(tmp_path / "out", "metric")
    keys = [key for key in METRIC_NAMES if entries[key] and entries[key]["value"] is not None]
    assert len(found) == len(keys) > 9
    for (name, cells), key in zip(found.items(), keys, strict=True):
        entry = entries[key]
        assert name.startswith(METRIC_NAMES[key].label)
        interval = " to ".join(format_fraction(bound) for bound in entry["ci95"])
        assert cells == [
            format_fraction(entry["value"]),
            interval,
            *(format_fraction(entry[chance]) for chance in ("baseline", "random")),
        ]
    assert f"intervals over {expected['bootstrap']['units']} {expected['bootstrap']['over']}" in card_text(
        tmp_path / "out"
    )
    assert all(note in card_text(tmp_path / "out") for note in expected["notes"])
    actions = table(tmp_path / "out", "action")
    for row in expected["per_class"]:
        cells = actions[row["class"]]
        few = "*" if row["positives"] < 10 else ""
        assert cells[:3] == [f"{row['train_positives']}*", f"{row['positives']}{few}", format_fraction(row["ap"])]
        assert cells[4] == format_fraction(row["ap_random"])
        assert float(cells[5]) == pytest.approx(collected[0]["thresholds"][row["class"]], abs=5e-4)
    splits = table(tmp_path / "out", "clips for")
    assert splits["evaluation"] == ["40", str(sources) if sources else "unknown"]
    assert ("1 sources of evaluated clips also" in card_text(tmp_path / "out")) == bool(sources)
    assert ("The source of 8 of all clips" in card_text(tmp_path / "out")) == bool(sources)  # train0 to train7


def lose_annotations(folder: Path) -> None:
    shutil.rmtree(folder / "annotations")


def change_labels(folder: Path) -> None:
    path = folder / "annotations" / "val_multi.txt"
    path.write_text(re.sub("^clip00.mp4.*", "clip00.mp4 0", path.read_text()))


@pytest.mark.parametrize("change", [lose_annotations, change_labels])
def test_without_the_labels_of_the_run_there_are_no_intervals(
    chain: Path,
    tmp_path: Path,
    collected: tuple[dict[str, Any], dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], None],
) -> None:
    run = make_run(chain, tmp_path, 0)
    metrics = json.loads((run / "metrics.json").read_text())
    change(tmp_path)
    capsys.readouterr()
    write_files(tmp_path / "out", run, *collected, None)
    assert str(tmp_path / "annotations") in capsys.readouterr().out
    assert list(table(tmp_path / "out", "metric").values()) == [
        [format_fraction(metrics[key])] for key in ("map_macro", "map_micro")
    ]
    assert set(table(tmp_path / "out", "action")) == set(CLASSES)
    assert str(tmp_path) not in card_text(tmp_path / "out")


def test_no_path_of_this_machine_is_in_the_folder(cards: dict[str, Path], chain: Path) -> None:
    places = [
        str(place).encode() for place in (chain, chain.parent, REPOSITORY, Path.home(), next(iter(cards.values())))
    ]
    for folder in cards.values():
        for path in folder.iterdir():
            content = path.read_bytes()
            assert not any(place in content for place in places if place != b"/"), path


def test_each_kind_of_run_is_described(cards: dict[str, Path]) -> None:
    texts = {config: card_text(folder) for config, folder in cards.items()}
    for config, text in texts.items():
        assert ("inference.py" in text) == (config in ("cross_attention", "motion", "concat_time"))
        assert ("Optical flow" in text) == (config != "rgb")
        assert ("embeds each sampled frame" in text) == (config != "motion")
        assert ("--init" in text) == (config != "probe_both")
        assert (PROTOCOL_NOTES[PUBLISHED] in text) == (RUNS[config] == ["data.protocol=published"])
        assert f"(`{config}`)" in text and f"--model {config} " in text
        counts = {role: row[0] for role, row in table(cards[config], "clips for").items()}
        held_out = {"training": "4", "model selection": "2", "evaluation": "2"}
        assert counts == (held_out if config == "cross_attention" else {"training": "6", "evaluation": "2"})


def test_names_with_spaces_and_bars(collected: Any, tmp_path: Path) -> None:
    """Commands can be copied into a shell, and no row of a table has more cells than its header."""
    document, parts = collected
    del parts["encoder"]
    inputs = document["fusion"]["config"]["inputs"]
    inputs["rgb"]["clip_model"] = "local-dir:my clip"
    inputs["motion"]["student"]["flow"] |= {"method": "raft", "checkpoint": "my weights.ckpt"}
    document["versions"]["training"] = {"processor": "A | B"}
    write_files(tmp_path / "my zebras", Path(RUN), document, parts, None)
    commands = [shlex.split(line) for line in card_text(tmp_path / "my zebras").splitlines() if "python " in line[:7]]
    words = {word for command in commands for word in command}
    assert {"local-dir:my clip", "my weights.ckpt", "my zebras"} <= words
    assert all(len(row) == len(rows[0]) for rows in tables(tmp_path / "my zebras") for row in rows)


def test_the_metadata_is_that_of_the_hub(cards: dict[str, Path], collected: Any, tmp_path: Path) -> None:
    metadata = metadata_load(cards["rgb"] / "README.md")
    assert metadata is not None and metadata.pop("tags")
    assert metadata == {
        "library_name": "vimoclip",
        "pipeline_tag": "video-classification",
        "license": "other",
        "license_name": "not-chosen-yet",
    }
    document, parts = collected
    document["backbone"] |= {"clip_model": "ViT-B/32", "clip_pretrained": "openai"}
    write_files(tmp_path / "out", Path(RUN), document, parts, None)
    found = metadata_load(tmp_path / "out" / "README.md")
    assert found is not None and found["base_model"] == "timm/vit_base_patch32_clip_224.openai"


@pytest.mark.parametrize(
    ("model", "weights", "licence", "text"),
    [
        ("ViT-B/32", "openai", "MIT", "Copyright (c) 2021 OpenAI"),
        ("ViT-B-16", "laion2b_s34b_b88k", "MIT", "Permission is hereby granted"),
        ("PE-Core-B-16", "meta", "Apache-2.0", "Version 2.0, January 2004"),
        ("ViT-B-16-SigLIP2-512", "webli", "Apache-2.0", "Version 2.0, January 2004"),
        ("hf-hub:imageomics/bioclip", None, "MIT", "Permission is hereby granted"),
        ("ViT-B-32-quickgelu", "metaclip_400m", "CC-BY-NC-4.0", None),
        ("MobileCLIP-S1", "datacompdr", "apple-amlr", None),
        ("ViT-B/32", "weights.pt", None, None),
        ("RN50", "cc12m", None, None),
    ],
)
def test_licence_of_the_backbone(
    collected: Any, tmp_path: Path, model: str, weights: str | None, licence: str | None, text: str | None
) -> None:
    document, parts = collected
    document["backbone"] |= {"clip_model": model, "clip_pretrained": weights}
    write_files(tmp_path, Path(RUN), document, parts, None)
    line = next(line for line in card_text(tmp_path).splitlines() if line.startswith("- **Backbone**"))
    assert (licence or "does not know its licence") in line
    assert ("non-commercial" in line) == (licence in ("CC-BY-NC-4.0", "apple-amlr"))
    assert ("TODO" in line) == (text is None)
    files = {path.name: path.read_text() for path in tmp_path.glob("LICENSE*")}
    assert files["LICENSE-ViMoCLIP.txt"] == (REPOSITORY / "LICENSE").read_text()
    assert set(files) == {"LICENSE-ViMoCLIP.txt"} | ({"LICENSE-backbone.txt"} if text else set())
    assert text is None or text in files["LICENSE-backbone.txt"]


def test_licences_beside_the_weights_of_the_backbone_are_passed_on(chain: Path, tmp_path: Path) -> None:
    shutil.copytree("tinyclip", tmp_path / "tinyclip")
    texts = {"LICENSE": "Apache License\n", "NOTICE.md": "By the authors\n"}
    for name, text in texts.items():
        (tmp_path / "tinyclip" / name).write_text(text)
    first, second = tmp_path / "first", tmp_path / "second"
    export_model.main([RGB_RUN, "--clip-model-name", f"local-dir:{tmp_path / 'tinyclip'}", "-o", str(first)])
    export_model.main([RGB_RUN, "--clip-model-name", f"local-dir:{first}", "-o", str(second)])
    expected = {f"LICENSE-backbone-{name}": text for name, text in texts.items()}
    for folder in (first, second):
        assert {path.name: path.read_text() for path in folder.glob("LICENSE-backbone*")} == expected
        assert all(name in card_text(folder) for name in expected)
    without = ["--without-encoder", "--overwrite", "-o", str(second)]
    export_model.main([RGB_RUN, "--clip-model-name", f"local-dir:{tmp_path / 'tinyclip'}", *without])
    assert not list(second.glob("LICENSE-backbone*")) and "are not in this folder" in card_text(second)


def test_a_licence_that_the_author_has_added_is_kept_for_the_same_backbone(chain: Path, tmp_path: Path) -> None:
    command = [RGB_RUN, "--clip-model-name", "local-dir:tinyclip", "-o", str(tmp_path / "model")]
    export_model.main(command)
    assert "LICENSE-backbone.txt" in card_text(tmp_path / "model")  # what to add
    added = tmp_path / "model" / "LICENSE-backbone.txt"
    added.write_text("MIT License\n")
    export_model.main([*command, "--overwrite"])
    assert added.read_text() == "MIT License\n"
    assert "text: `LICENSE-backbone.txt`" in card_text(tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(config.read_text().replace('"clip_model": "local-dir:tinyclip"', '"clip_model": "another"'))
    export_model.main([*command, "--overwrite"])
    assert not added.exists()


def test_a_control_is_trained_further_without_motion(chain: Path, collected: Any, tmp_path: Path) -> None:
    document, parts = collected
    document["fusion"]["config"]["data"]["motion"] = "none"
    write_files(tmp_path / "out", Path(RUN), document, parts, None)
    assert "--init out --set data.motion=none\n" in card_text(tmp_path / "out")


@pytest.mark.parametrize(
    ("flow", "expected"),
    [
        ({"method": "dis", "checkpoint": None}, ["OpenCV", "Apache-2.0"]),
        ({"method": "raft", "checkpoint": "things"}, ["BSD-3-Clause", "--ckpt-path"]),
        ({"method": "dpflow", "checkpoint": "things"}, ["**non-commercial**", "--ckpt-path"]),
        ({"method": "sea_raft_s", "checkpoint": "mine.ckpt"}, ["not known", "--ckpt-path"]),
    ],
)
def test_licence_of_the_flow(collected: Any, tmp_path: Path, flow: dict[str, Any], expected: list[str]) -> None:
    document, parts = collected
    document["flow"] |= flow
    write_files(tmp_path, Path(RUN), document, parts, None)
    line = next(line for line in card_text(tmp_path).splitlines() if line.startswith("- **Optical flow**"))
    assert all(text in line for text in expected)


def test_the_authors_text_and_licence_are_kept(collected: Any, tmp_path: Path) -> None:
    document, parts = collected

    def write() -> str:
        write_files(tmp_path, Path(RUN), document, parts, None)
        return card_text(tmp_path)

    text = write()
    begin, end = "<!-- author: begin -->", "<!-- author: end -->"
    before, _, after = re.split(f"{begin}|{end}", text)
    own = "\nZebras of Mpala, 2023.\n"
    edited = f"{before.replace('license: other', 'license: cc-by-4.0')}{begin}{own}{end}{after} An edit elsewhere."
    (tmp_path / "README.md").write_text(edited.replace("license_name: not-chosen-yet\n", ""))
    found = write()
    assert found == f"{before}{begin}{own}{end}{after}".replace(
        "license: other\nlicense_name: not-chosen-yet", "license: cc-by-4.0"
    )
    for damaged in (found.replace("license: cc", "license: [cc"), found.replace(begin, "")):
        (tmp_path / "README.md").write_text(damaged)
        with pytest.raises(UserError) as caught:
            write()
        assert caught.value.path == str(tmp_path / "README.md") and card_text(tmp_path) == damaged
