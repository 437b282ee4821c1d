"""The demo: what its scenes give away and what not, the files its steps write, and demo.sh from nothing to a table."""

import argparse
import csv
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import average_precision_score

from demo import check_frames, drawing, make_clips, make_teacher, report, scenes, strips
from demo.scenes import ACTIONS, FRAMES, GROUNDS, HEIGHT, MOTIONS, SPECIES, WIDTH, Kind, Scene
from tests.conftest import CLASSES, REPOSITORY, moving_frames, write_annotations, write_video
from vimoclip import UserError, annotations, clip, metrics, video

FIELDS = ("x", "y", "height", "facing", "limbs", "head", "tilt")
ANIMALS = 2500
SIGMAS = 4.5  # what chance alone passes once in 150,000 times


# Scenes: what a single frame says


def sample_poses(motions: tuple[str, ...], seed: int) -> dict[str, np.ndarray]:
    """When -> (ANIMALS, fields) of poses in the first frame, the last and any."""
    rng = np.random.default_rng(seed)
    found: dict[str, list[tuple[float, ...]]] = {"first": [], "any": [], "last": []}
    for _ in range(ANIMALS):
        animal = scenes.draw_animal(rng, motions, (0.3, 0.7), food=False)
        frames = {"first": 0, "any": int(rng.integers(FRAMES)), "last": FRAMES - 1}
        for when, frame in frames.items():
            at = scenes.pose(animal, frame)
            height = (at.y - animal.base[0]) / animal.length
            found[when].append((at.x / WIDTH, at.y / HEIGHT, height, at.facing, at.limbs, at.head, at.tilt))
    return {when: np.array(rows) for when, rows in found.items()}


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """Kolmogorov and Smirnov's: the largest gap between two distribution functions, in units of what chance makes."""
    at = np.unique(np.concatenate([first, second]))
    below = [np.searchsorted(np.sort(sample), at, side="right") / len(sample) for sample in (first, second)]
    return float(np.abs(below[0] - below[1]).max() / np.sqrt(1 / len(first) + 1 / len(second)))


@pytest.fixture(scope="module")
def still_poses() -> dict[str, np.ndarray]:
    return sample_poses(("still",), seed=1)


IN_TURN: list[tuple[str, ...]] = [("still", "walk"), ("circle", "run"), ("jump", "circle"), ("surge", "shake")]


@pytest.mark.parametrize("motions", [*((motion,) for motion in MOTIONS), *IN_TURN], ids="-".join)
def test_a_frame_of_a_moving_animal_is_distributed_as_one_of_an_animal_that_keeps_still(
    motions: tuple[str, ...], still_poses: dict[str, np.ndarray]
) -> None:
    for when, moving in sample_poses(motions, seed=2).items():
        still = still_poses[when]
        for i, field in enumerate(FIELDS):
            assert distance(still[:, i], moving[:, i]) < 2.7, f"{field} in {when} frame"  # one in a million
            for side in (-1, 1):  # and the same of those that look to one side
                alike = [poses[poses[:, 3] == side, i] for poses in (still, moving)]
                assert distance(*alike) < 2.7, f"{field} in {when} frame, looking {side}"
        for power in (1, 2):  # no two fields go together that don't where animals keep still
            gap = np.corrcoef((still**power)[:, [0, 2, 4, 5, 6]].T) - np.corrcoef((moving**power)[:, [0, 2, 4, 5, 6]].T)
            assert np.abs(gap).max() < SIGMAS * np.sqrt(2 / ANIMALS), f"{when} frame"


def test_a_motion_moves_something_and_keeping_still_nothing() -> None:
    rng = np.random.default_rng(0)
    for motion in MOTIONS:
        animal = scenes.draw_animal(rng, (motion,), (0.3, 0.7), food=False)
        poses = {scenes.pose(animal, frame) for frame in range(FRAMES)}
        assert len(poses) == (1 if motion == "still" else FRAMES), motion


@pytest.fixture(scope="module")
def many_scenes() -> list[Scene]:
    return [scenes.draw_scene(seed) for seed in range(4000)]


def things_in(scene: Scene) -> dict[str, bool]:
    """What a still of a scene shows, as yes or no."""
    return {
        "two animals": len(scene.animals) == 2,
        "water": scene.water,
        "food": any(animal.food for animal in scene.animals),
        "a nest": scene.nest is not None,
        "flowers": scene.flowers,
        **{ground: scene.ground == ground for ground in GROUNDS},
        **{species: scene.animals[-1].species == species for species in SPECIES},
    }


def test_what_a_still_shows_says_nothing_of_the_motions(many_scenes: list[Scene]) -> None:
    seen = [things_in(scene) for scene in many_scenes]
    done = [{motion for animal in scene.animals for motion in animal.motions} for scene in many_scenes]
    told_by_motion = [name for name, kind in ACTIONS.items() if kind == Kind.MOTION]
    labels = {m: np.array([m in motions for motions in done]) for m in MOTIONS}
    labels |= {name: np.array([name in scene.actions() for scene in many_scenes]) for name in told_by_motion}
    for thing in seen[0]:
        there = np.array([things[thing] for things in seen])
        for action, labelled in labels.items():
            with_it, without = labelled[there], labelled[~there]
            error = np.sqrt(labelled.mean() * (1 - labelled.mean()) * (1 / len(with_it) + 1 / len(without)))
            assert abs(with_it.mean() - without.mean()) < SIGMAS * error, f"{action} where there is {thing}"


def test_there_are_ten_actions_of_three_kinds_and_six_species(many_scenes: list[Scene]) -> None:
    assert len(ACTIONS) >= 10
    assert set(ACTIONS.values()) == set(Kind)
    assert len(SPECIES) == 6
    labels = [scene.actions() for scene in many_scenes]
    assert set().union(*labels) == set(ACTIONS)
    rarest = min(sum(action in found for found in labels) for action in ACTIONS)
    assert rarest > 0.03 * len(labels)
    assert {animal.species for scene in many_scenes for animal in scene.animals} == set(SPECIES)


@pytest.mark.parametrize(
    ("motion", "species", "water", "name"),
    [
        ("surge", "parrot", False, "flying"),
        ("surge", "owl", False, "flying"),
        ("surge", "zebra", False, "galloping"),
        ("surge", "turtle", False, "galloping"),
        ("surge", "parrot", True, "swimming"),
        ("surge", "leopard", True, "swimming"),
        ("shake", "seal", True, "bathing"),
        ("shake", "seal", False, "shaking"),
        ("still", "owl", True, "keeping still"),
        ("still", "owl", False, "keeping still"),
        ("bob", "zebra", True, "head bobbing"),
    ],
)
def test_species_and_place_decide_what_some_motions_are_called(
    motion: str, species: str, water: bool, name: str
) -> None:
    assert scenes.name_of(motion, species, water) == name


def test_only_motions_told_by_both_are_called_after_species_or_place() -> None:
    for motion in MOTIONS:
        names = {scenes.name_of(motion, species, water) for species in SPECIES for water in (False, True)}
        kinds = {ACTIONS[name] for name in names}
        assert kinds == ({Kind.BOTH} if len(names) > 1 else {Kind.MOTION}), motion


def test_labels_are_those_of_all_animals_and_all_their_motions(many_scenes: list[Scene]) -> None:
    kinds = {(len(scene.animals), len(scene.animals[0].motions)) for scene in many_scenes}
    assert kinds == {(1, 1), (1, 2), (2, 1)}
    two = next(scene for scene in many_scenes if len(scene.animals) == 2)
    first, second = (
        replace(animal, species="owl", motions=(motion,), food=food)
        for animal, motion, food in zip(two.animals, ("surge", "walk"), (False, True), strict=True)
    )
    scene = replace(two, animals=(first, second), water=False, nest=None)
    assert scene.actions() == {"flying", "walking", "eating"}
    assert replace(scene, water=True, nest=(0.5, 0.5)).actions() == {
        *("swimming", "walking", "eating", "in water", "nesting")
    }
    alone = replace(scene, animals=(replace(first, motions=("bob", "shake")),))
    assert alone.actions() == {"head bobbing", "shaking"}


def test_a_caption_names_what_a_still_shows_and_never_a_motion(many_scenes: list[Scene]) -> None:
    names = [name for name, kind in ACTIONS.items() if kind != Kind.APPEARANCE]
    motion_words = {*MOTIONS, *(word[:4] for name in names for word in name.split())}
    for scene in many_scenes[:500]:
        caption = scene.caption()
        things = things_in(scene)
        assert all(animal.species in caption for animal in scene.animals)
        assert scene.ground in caption
        assert [word in caption for word in ("water", "food", "nest")] == [
            things["water"],
            things["food"],
            things["a nest"],
        ]
        assert not [word for word in motion_words if re.search(rf"\b{word}", caption)], caption


def test_a_seed_is_a_scene_whatever_was_drawn_before() -> None:
    assert scenes.draw_scene(7) == scenes.draw_scene(7)
    assert scenes.draw_scene(7) != scenes.draw_scene(8)


# Drawing


def scene_of(motion: str, seed: int = 3) -> Scene:
    scene = scenes.draw_scene(seed)
    return replace(scene, animals=tuple(replace(animal, motions=(motion,)) for animal in scene.animals))


def test_without_the_cameras_shaking_only_what_moves_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "SHAKE", 0)
    for motion in MOTIONS:
        frames = drawing.draw_clip(scene_of(motion))
        assert frames.shape == (FRAMES, HEIGHT, WIDTH, 3)
        assert frames.dtype == np.uint8
        changed = [bool((a != b).any()) for a, b in pairwise(frames)]
        if motion == "still":
            assert not any(changed)
        else:
            assert sum(changed) > 0.8 * len(changed), motion


def test_the_camera_shakes_in_every_clip() -> None:
    frames = drawing.draw_clip(scene_of("still"))
    assert all((a != b).any() for a, b in pairwise(frames))
    assert np.abs(drawing.shake(3)).max() < drawing.MARGIN


def test_a_still_is_a_frame_of_its_clip() -> None:
    scene = scene_of("run")
    still = drawing.draw_still(scene)
    assert sum(bool((frame == still).all()) for frame in drawing.draw_clip(scene)) == 1


def test_what_the_labels_of_appearance_name_is_seen() -> None:
    """Food, water and a nest change a frame where they are, and nothing but them is another."""
    plain = replace(scene_of("still"), water=False, nest=None)
    plain = replace(plain, animals=tuple(replace(animal, food=False) for animal in plain.animals))
    fed = replace(plain, animals=tuple(replace(animal, food=True) for animal in plain.animals))
    still = drawing.draw_still(plain).astype(int)
    for other in (fed, replace(plain, water=True), replace(plain, nest=(0.5, 0.5))):
        changed = np.abs(drawing.draw_still(other) - still).max(-1) > 30
        assert 20 < changed.sum() < 0.8 * changed.size


# make_clips


def draw(folder: Path, *flags: str) -> Path:
    return make_clips.main(["--train", "2", "--val", "1", "--num-workers", "0", "--dataset-dir", str(folder), *flags])


def times(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dataset = tmp_path_factory.mktemp("drawn") / "demo"
    draw(dataset)
    return dataset


def test_clips_are_h264_of_two_seconds_with_their_scenes_labels(drawn: Path) -> None:
    data = annotations.load(drawn / "annotations", "demo", ["train", "val"])
    assert data.classes == tuple(ACTIONS)
    assert {split: list(videos) for split, videos in data.splits.items()} == {
        "train": ["clip0000.mp4", "clip0001.mp4"],
        "val": ["clip0002.mp4"],
    }
    for split, videos in data.splits.items():
        for name, labels in videos.items():
            info = video.probe(drawn / "videos" / name)
            assert (info.width, info.height, info.fps, info.frames) == (240, 136, 25, 50)
            with av.open(str(drawn / "videos" / name)) as container:
                assert container.streams.video[0].codec.canonical_name == "h264"
                assert sum(1 for _ in container.decode(video=0)) == 50
            assert info.comment is not None
            scene = scenes.draw_scene(info.comment["scene"])
            assert {data.classes[label] for label in labels} == scene.actions(), split
            assert info.comment["caption"] == scene.caption()
            decoded = video.SpanReader(drawn / "videos" / name).read(0, 50).astype(int)
            assert np.abs(decoded - drawing.draw_clip(scene)).mean() < 6


def test_a_second_call_draws_nothing_again(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = tmp_path / "demo"
    shutil.copytree(drawn, dataset)
    before = times(dataset / "videos")
    draw(dataset)
    assert times(dataset / "videos") == before
    assert f"3 clips in {dataset / 'videos'}" in capsys.readouterr().out
    (dataset / "videos" / "clip0001.mp4").unlink()
    draw(dataset)
    after = times(dataset / "videos")
    assert {name for name in before if before[name] != after[name]} == {"clip0001.mp4"}
    for name in before:
        assert (dataset / "videos" / name).read_bytes() == (drawn / "videos" / name).read_bytes()


def test_processes_draw_the_same_bytes_and_another_seed_other_clips(drawn: Path, tmp_path: Path) -> None:
    draw(tmp_path / "same", "--num-workers", "1")
    draw(tmp_path / "other", "--seed", "2")
    for path in (drawn / "videos").iterdir():
        assert (tmp_path / "same" / "videos" / path.name).read_bytes() == path.read_bytes()
        assert (tmp_path / "other" / "videos" / path.name).read_bytes() != path.read_bytes()
    for path in (drawn / "annotations").iterdir():
        assert (tmp_path / "same" / "annotations" / path.name).read_bytes() == path.read_bytes()


def test_another_seed_over_the_same_clips_is_refused_before_anything_is_written(drawn: Path) -> None:
    before = times(drawn)
    with pytest.raises(UserError, match="shows another scene; give another --dataset-dir") as caught:
        draw(drawn, "--seed", "2")
    assert str(drawn / "videos" / "clip0000.mp4") in str(caught.value)
    assert times(drawn) == before


# make_teacher

FEW = ["--stills", "40", "--held-out", "20", "--steps", "2", "--num-workers", "1", "--batch-size", "16"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_teacher.main([*FEW, "--output-dir", str(tmp_path_factory.mktemp("models") / "teacher")])


def test_the_teacher_is_a_folder_that_open_clip_reads(teacher: Path) -> None:
    encoder = clip.load(f"local-dir:{teacher}", None)
    frames = np.random.default_rng(0).integers(0, 255, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)
    prepared = encoder.preprocess(frames)
    assert prepared.shape == (2, 3, 64, 64)
    assert encoder.encode(prepared).shape == (2, 128)
    assert 0.8e6 < sum(p.numel() for p in encoder.visual.parameters()) < 1.3e6
    squashed = clip.load(f"local-dir:{teacher}", None, "squash").preprocess(frames)  # as it has learnt from stills
    own = clip.Preprocess(make_teacher.input_config())(frames)
    assert torch.equal(squashed, own)


def test_the_teacher_says_how_well_it_knows_stills_that_it_has_not_seen(teacher: Path) -> None:
    found = json.loads((teacher / "retrieval.json").read_text())
    assert found["stills"] == 20
    assert 1 < found["captions"] <= 20
    assert 0 <= found["recall_at_1"] <= found["recall_at_5"] <= 1


def test_a_teacher_that_is_there_is_not_trained_again(teacher: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = times(teacher)
    assert make_teacher.main([*FEW, "--output-dir", str(teacher)]) == teacher
    said = capsys.readouterr().out
    assert said.startswith(f"{teacher}: is there already\nheld-out stills: of ")
    with pytest.raises(UserError, match=r"steps is 3 in this command but 2 in .*retrieval.json"):
        make_teacher.main([*FEW, "--steps", "3", "--output-dir", str(teacher)])
    assert times(teacher) == before


@pytest.mark.parametrize("seed", [0, 49, 1999, 2**32 - 1, 2000])
def test_no_clip_shows_a_still_that_the_teacher_learns_from(seed: int) -> None:
    clips = range(seed * make_clips.SEED_STEP, (seed + 1) * make_clips.SEED_STEP)
    stills = range(make_teacher.FIRST_SCENE, make_teacher.FIRST_SCENE + make_clips.SEED_STEP)
    assert clips.stop <= stills.start or stills.stop <= clips.start


class KnowsByHeart(torch.nn.Module):
    """Reads an image's number off its first pixel and a caption's off its first token; `mistaken` names the next."""

    def __init__(self, count: int, mistaken: tuple[int, ...] = ()):
        super().__init__()
        self.count, self.mistaken = count, mistaken

    def encode_image(self, images: torch.Tensor, normalize: bool) -> torch.Tensor:
        assert normalize
        config = make_teacher.input_config()
        numbers = (images[:, 0, 0, 0] * config["std"][0] + config["mean"][0]).mul(255).round().long()
        shifted = [(int(n) + (int(n) in self.mistaken)) % self.count for n in numbers]
        return torch.eye(self.count)[shifted]

    def encode_text(self, tokens: torch.Tensor, normalize: bool) -> torch.Tensor:
        assert normalize
        return torch.eye(self.count)[tokens[:, 0]]


def images_of(numbers: list[int]) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.uint8)[:, None, None, None].expand(-1, 8, 8, 3)


def test_retrieval_counts_a_caption_once_and_a_still_each_time() -> None:
    numbers = [0, 1, 2, 3, 4, 5, 6, 7, 0, 0]
    tokens = torch.tensor([[n, 9] for n in numbers])
    found = make_teacher.retrieval(KnowsByHeart(8), images_of(numbers), tokens)
    assert found == {"stills": 10, "captions": 8, "recall_at_1": 1.0, "recall_at_5": 1.0}
    found = make_teacher.retrieval(KnowsByHeart(8, mistaken=(0,)), images_of(numbers), tokens)
    assert found["recall_at_1"] == pytest.approx(0.7)  # three stills show what is called 0
    assert found["captions"] == 8


# check_frames


@pytest.fixture
def columns() -> dict[str, list[int]]:
    return {"all": [0, 1, 2, 3], "motion": [0, 1], "appearance": [2], "both": [3]}


def few_labels(count: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand((count, 4), generator=generator) < 0.2).float()
    targets[0] = 1
    return targets


def summarize(scores: torch.Tensor, targets: torch.Tensor, columns: dict[str, list[int]], rounds: int = 100) -> dict:
    return check_frames.summarize(scores, targets, columns, argparse.Namespace(rounds=rounds, seed=0))


def test_perfect_scores_are_1_in_each_column_and_far_above_chance(columns: dict[str, list[int]]) -> None:
    found = summarize(few_labels() + 0.5, few_labels(), columns)
    assert found["clips"] == 40
    assert found["macro_ap"].keys() == columns.keys()
    for value in found["macro_ap"].values():
        low, high = value["chance_95"]
        assert value["value"] == pytest.approx(1)
        assert low <= value["chance"] <= high < 0.7


def test_scores_without_a_meaning_are_mostly_within_chance(columns: dict[str, list[int]]) -> None:
    targets, inside = few_labels(), []
    for seed in range(25):
        scores = torch.rand(targets.shape, generator=torch.Generator().manual_seed(seed))
        for value in summarize(scores, targets, columns)["macro_ap"].values():
            low, high = value["chance_95"]
            inside.append(low <= value["value"] <= high)
    assert np.mean(inside) > 0.85


def test_chance_is_above_prevalence_where_positives_are_few(columns: dict[str, list[int]]) -> None:
    targets = torch.zeros(30, 4)
    targets[:2] = 1
    scores = torch.rand(targets.shape, generator=torch.Generator().manual_seed(0))
    for value in summarize(scores, targets, columns, rounds=300)["macro_ap"].values():
        assert value["chance"] > 1.3 * 2 / 30


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_permutations_reorder_rows_and_a_seed_is_an_order(count: int, width: int, seed: int) -> None:
    targets = torch.arange(count * width).reshape(count, width)
    drawn = list(metrics.permutations(targets, 5, seed))
    assert len(drawn) == 5
    for rows in drawn:
        assert sorted(rows.tolist()) == targets.tolist()
    again = list(metrics.permutations(targets, 5, seed))
    assert all(torch.equal(a, b) for a, b in zip(drawn, again, strict=True))


def test_permutations_of_another_seed_and_of_the_next_round_are_others() -> None:
    targets = torch.arange(50)[:, None]
    first, second = metrics.permutations(targets, 2, 0)
    (other,) = metrics.permutations(targets, 1, 1)
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)


# report


VAL = {f"v{i}.mp4": labels for i, labels in enumerate([(1, 6), (2,), (2, 7, 9), (0,), (1, 9, 12), (6, 0)])}


def write_data(folder: Path, classes: tuple[str, ...] = tuple(ACTIONS), name: str = "demo") -> Path:
    data = annotations.Annotations(classes, {"train": {"t.mp4": (0,)}, "val": VAL})
    annotations.write(folder / "annotations", name, data)
    return folder


def write_run(
    folder: Path, scores: np.ndarray, classes: tuple[str, ...] = tuple(ACTIONS), finished: bool = True
) -> None:
    folder.mkdir(parents=True)
    with open(folder / "predictions.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video_id", *classes])
        writer.writerows([name, *map(repr, row)] for name, row in zip(VAL, scores.tolist(), strict=True))
    if finished:
        (folder / "metrics.json").write_text("{}")


def truth(classes: int = len(ACTIONS)) -> np.ndarray:
    return np.array([[int(c in labels) for c in range(classes)] for labels in VAL.values()])


def tabulate(dataset: Path, checkpoints: Path, output: Path) -> list[dict[str, str]]:
    path = report.main(
        [
            *("--dataset-dir", str(dataset), "--checkpoints-dir", str(checkpoints)),
            *("--output-dir", str(output), "--rounds", "20"),
        ]
    )
    assert path == output / "table.md"
    with open(output / "table.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_holds_sklearns_precisions_of_each_group_and_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, runs = write_data(tmp_path / "data"), tmp_path / "checkpoints"
    rng = np.random.default_rng(0)
    scores = {
        (config, seed): rng.random((len(VAL), len(ACTIONS))) for config in ("rgb", "cross_attention") for seed in (3, 4)
    }
    scores["rgb", 3] = truth() * 0.5 + 0.2
    for (config, seed), values in scores.items():
        write_run(runs / "TFAM" / config / f"seed{seed}", values)
    write_run(runs / "TFAM" / "motion" / "seed3", scores["rgb", 4], finished=False)
    rows = tabulate(dataset, runs, tmp_path / "out")
    assert [(row["config"], row["seed"]) for row in rows] == [
        *(("cross_attention", "3"), ("cross_attention", "4"), ("rgb", "3"), ("rgb", "4"))
    ]
    kinds: dict[str, list[int]] = {
        kind: [i for i, name in enumerate(ACTIONS) if ACTIONS[name] == kind] for kind in Kind
    }
    for row in rows:
        values = scores[row["config"], int(row["seed"])]
        for name, classes in {"all": list(range(len(ACTIONS))), **kinds}.items():
            there = [c for c in classes if truth()[:, c].any()]
            per_class = [average_precision_score(truth()[:, c], values[:, c]) for c in there]
            pooled = average_precision_score(truth()[:, classes].ravel(), values[:, classes].ravel())
            assert float(row[f"map_macro_{name}"]) == pytest.approx(np.mean(per_class), abs=1e-6)
            assert float(row[f"map_micro_{name}"]) == pytest.approx(pooled, abs=1e-6)
            assert 0 < float(row[f"map_macro_{name}_chance"]) < 1
    text = (tmp_path / "out" / "table.md").read_text()
    assert capsys.readouterr().out == text
    assert "on 6 validation clips" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        *("RGB alone", "cross-attention (TFAM)", "chance (20 permutations)")
    ]
    assert len({len(line) for line in lines}) == 1
    mean = np.mean([float(row["map_macro_motion"]) for row in rows if row["config"] == "rgb"])
    assert re.search(rf"RGB alone +\| 2 .*\| {mean:.2f} ± ", text)


def test_what_motion_adds_is_told_seed_by_seed_for_the_seeds_that_both_have(tmp_path: Path) -> None:
    dataset, runs = write_data(tmp_path / "data"), tmp_path / "checkpoints"
    right, wrong = truth() * 0.5 + 0.2, 0.7 - truth() * 0.5
    for config, found in {
        "rgb": {1: right, 2: wrong},
        "cross_attention": {1: wrong, 2: right, 5: right},
        "motion": {2: wrong},
    }.items():
        for seed, scores in found.items():
            write_run(runs / "TFAM" / config / f"seed{seed}", scores)
    rows = tabulate(dataset, runs, tmp_path / "out")
    value = {(row["config"], row["seed"]): float(row["map_macro_motion"]) for row in rows}
    assert value["rgb", "1"] == pytest.approx(1)
    gap = 1 - value["rgb", "2"]
    assert gap > 0.3
    said = (tmp_path / "out" / "table.md").read_text().splitlines()
    place = said.index("macro AP of the actions told by motion, over RGB alone, seed by seed:")
    assert said[place + 1 :] == [f"  cross-attention (TFAM): -{gap:.2f}, +{gap:.2f}", "  motion alone: +0.00"]


def test_predictions_of_other_classes_or_clips_are_refused_by_name(tmp_path: Path) -> None:
    dataset, path = write_data(tmp_path / "data"), tmp_path / "checkpoints" / "TFAM" / "rgb" / "seed1"
    write_run(path, truth() * 0.5, classes=("other", *tuple(ACTIONS)[1:]))
    with pytest.raises(UserError, match=r"seed1/predictions.csv: is of other classes or clips"):
        tabulate(dataset, tmp_path / "checkpoints", tmp_path / "out")
    shutil.rmtree(path)
    write_run(path, truth() * 0.5)
    text = (path / "predictions.csv").read_text()
    (path / "predictions.csv").write_text(text.replace("v3.mp4", "t.mp4"))
    with pytest.raises(UserError, match=r"seed1/predictions.csv: is of other classes or clips"):
        tabulate(dataset, tmp_path / "checkpoints", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_a_finished_run_there_is_no_table(tmp_path: Path) -> None:
    dataset = write_data(tmp_path / "data")
    write_run(tmp_path / "checkpoints" / "TFAM" / "rgb" / "seed1", truth() * 0.5, finished=False)
    with pytest.raises(UserError, match=r"TFAM: holds no finished run"):
        tabulate(dataset, tmp_path / "checkpoints", tmp_path / "out")


def test_actions_that_are_not_the_demos_are_in_one_group(tmp_path: Path) -> None:
    own = tuple(f"action {i}" for i in range(13))
    dataset = write_data(tmp_path / "data", own)
    for config in ("rgb", "motion"):
        write_run(tmp_path / "checkpoints" / "TFAM" / config / "seed1", truth(13) * 0.5, own)
    rows = tabulate(dataset, tmp_path / "checkpoints", tmp_path / "out")
    assert set(rows[0]) == {
        *("config", "seed", "map_macro_all", "map_micro_all", "map_macro_all_chance", "map_micro_all_chance")
    }
    text = (tmp_path / "out" / "table.md").read_text()
    assert "macro AP, over RGB alone, seed by seed:\n  motion alone: +0.00\n" in text


def test_ones_own_actions_are_in_one_group_also_where_they_are_called_as_some_of_the_demos(tmp_path: Path) -> None:
    data = annotations.Annotations(("running", "walking"), {"val": {name: (i % 2,) for i, name in enumerate(VAL)}})
    annotations.write(tmp_path / "data" / "annotations", "demo", data)
    write_run(tmp_path / "checkpoints" / "TFAM" / "rgb" / "seed1", truth(2) * 0.5, data.classes)
    (row,) = tabulate(tmp_path / "data", tmp_path / "checkpoints", tmp_path / "out")
    assert not [name for name, value in row.items() if value == "nan"]


# strips


@pytest.fixture
def pictured(tmp_path: Path) -> Path:
    """A data set of two clips with the flow of one, and a run's predictions."""
    dataset = tmp_path / "data"
    for name in ("a", "b"):
        frames = np.repeat(np.arange(0, 240, 20, dtype=np.uint8), 48 * 64 * 3).reshape(12, 48, 64, 3)
        write_video(dataset / "videos" / f"{name}.mp4", frames)
    write_video(dataset / "flows" / "a.mp4", np.full((11, 24, 32, 3), (250, 20, 30), np.uint8))
    write_annotations(dataset / "annotations", {"train": {"t.mp4": (0,)}, "val": {"a.mp4": (2,), "b.mp4": (0,)}})
    run = tmp_path / "run"
    run.mkdir()
    header = ",".join(["video_id", *CLASSES])
    (run / "predictions.csv").write_text(f"{header}\na.mp4,0.25,0.5,1.0\nb.mp4,0.9,0.1,0.2\n")
    return tmp_path


def draw_strips(root: Path, *flags: str) -> list[Path]:
    return strips.main(
        [
            *("--run", str(root / "run"), "--dataset-dir", str(root / "data"), "--dataset-name", "ak"),
            *("--output-dir", str(root / "out"), *flags),
        ]
    )


def bars(sheet: np.ndarray, width: int, count: int) -> list[tuple[tuple[int, ...], int]]:
    """Colour and length of each bar of a picture, whose strips are `width` pixels wide."""
    found = []
    for i in range(count):
        row = sheet[int((i + 0.5) * sheet.shape[0] / count), width + 2 * strips.GAP + 140 :]
        color = tuple(int(c) for c in row[0])
        found.append((color, int((row == row[0]).all(1).argmin())))
    return found


def test_a_picture_shows_frames_flow_and_the_likeliest_actions(pictured: Path) -> None:
    first, second = draw_strips(pictured)
    assert [path.name for path in (first, second)] == ["a.png", "b.png"]
    wide = 6 * 160 + 5 * strips.GAP
    sheet = np.array(Image.open(first).convert("RGB"))
    assert sheet.shape == (2 * 120 + strips.GAP, wide + 2 * strips.GAP + strips.BARS, 3)
    for i, bright in enumerate(np.linspace(0, 11, 6).astype(int) * 20):  # the first frame, the last and evenly between
        frame = sheet[:120, i * 166 : i * 166 + 160].astype(int)
        assert np.abs(frame - bright).max() < 8
        assert np.abs(sheet[126:, i * 166 : i * 166 + 160].astype(int) - (250, 20, 30)).max() < 12
    widest = strips.BARS - 190
    colors, lengths = zip(*bars(sheet, wide, 3), strict=True)
    assert colors == (strips.RIGHT, strips.WRONG, strips.WRONG)  # it is labelled with the likeliest
    assert np.allclose(lengths, [widest, widest / 2, widest / 4], atol=2)
    without_flow = np.array(Image.open(second).convert("RGB"))
    assert without_flow.shape == (120, wide + 2 * strips.GAP + strips.BARS, 3)
    assert [color for color, _ in bars(without_flow, wide, 3)] == [strips.RIGHT, strips.WRONG, strips.WRONG]


def test_pictures_are_of_the_first_clips_or_of_those_named(pictured: Path) -> None:
    assert [path.name for path in draw_strips(pictured, "--count", "1")] == ["a.png"]
    assert [path.name for path in draw_strips(pictured, "--clips", "b.mp4")] == ["b.png"]


def test_a_picture_of_what_is_not_there_is_refused(pictured: Path) -> None:
    with pytest.raises(
        UserError, match=r"t.mp4: isn't among .*predictions.csv and val_multi.txt; name validation clips"
    ):
        draw_strips(pictured, "--clips", "t.mp4")
    with pytest.raises(UserError, match=r"nowhere/predictions.csv: there is no such file; name a finished run"):
        draw_strips(pictured, "--run", str(pictured / "nowhere"))


def test_a_run_on_clips_that_the_annotations_dont_name_is_refused(pictured: Path) -> None:
    (pictured / "data" / "annotations" / "val_multi.txt").write_text("b.mp4 0\n")
    with pytest.raises(UserError, match=r"a\.mp4"):
        draw_strips(pictured)


def test_a_picture_of_a_clip_whose_header_says_no_length(pictured: Path) -> None:
    path = pictured / "data" / "videos" / "a.mp4"
    with av.open(str(path.with_suffix(".mkv")), "w") as target:
        stream = target.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in video.SpanReader(path).read(0, 12):
            target.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        target.mux(stream.encode(None))
    path.with_suffix(".mkv").replace(path)
    assert video.probe(path).frames == 0
    draw_strips(pictured)


# From the shell


def bash(command: str, cwd: Path = REPOSITORY, **environment: str) -> subprocess.CompletedProcess[str]:
    """With the Python that runs the tests as the active environment, and no GPU."""
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "VIRTUAL_ENV": sys.prefix,
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",  # so small is the work that threads cost more than they save
    }
    return subprocess.run(
        ["bash", "-c", command], cwd=cwd, env=env | environment, capture_output=True, text=True, timeout=1200
    )


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_the_usage_and_exit_code_0(flag: str) -> None:
    done = bash(f"bash demo.sh {flag}")
    assert (done.returncode, done.stderr) == (0, "")
    for said in ("bash demo.sh --real", "bash demo.sh --clips DIR", "bash demo.sh --tiny"):
        assert said in done.stdout
    assert "set -euo" not in done.stdout


@pytest.mark.parametrize(
    ("flags", "names"),
    [("--huge", "--huge"), ("--tiny extra", "extra"), ("--clips nowhere", "--clips"), ("--clips", "--clips")],
)
def test_a_wrong_call_of_the_demo_is_one_line_before_anything_is_installed(
    flags: str, names: str, tmp_path: Path
) -> None:
    shutil.copytree(REPOSITORY / "demo", tmp_path / "demo", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "demo.sh", tmp_path)
    done = bash(f"bash demo.sh {flags}", tmp_path, PATH="/usr/bin:/bin", VIRTUAL_ENV="")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("demo.sh: error: ")
    assert names in line
    assert {path.name for path in tmp_path.iterdir()} == {"demo", "demo.sh"}


@pytest.mark.parametrize(
    ("text", "fit"),
    [
        ("numpy>=1.20  # arrays\n\n# nothing else\nPyYAML\n", True),
        ("numpy>=99\n", False),
        ("numpy>=1.20\nno-such-package-here\n", False),
        ("opencv-python>=4\n", True),  # also where it is there as opencv-python-headless
        ("-r other.txt\nnumpy\n", False),
        ("-r fine.txt\nnumpy\n", True),
        ("", True),
    ],
)
def test_an_environment_fits_where_it_has_every_package_at_its_bound(text: str, fit: bool, tmp_path: Path) -> None:
    (tmp_path / "asked.txt").write_text(text)
    (tmp_path / "other.txt").write_text("numpy>=99\n")
    (tmp_path / "fine.txt").write_text("pytest>=8\n")
    done = bash(f"source demo/environment.sh && fits '{sys.executable}' '{tmp_path / 'asked.txt'}'")
    assert (done.returncode, done.stdout, done.stderr) == (0 if fit else 1, "", "")


def test_a_python_that_is_not_there_does_not_fit(tmp_path: Path) -> None:
    (tmp_path / "asked.txt").write_text("")
    assert bash(f"source demo/environment.sh && fits nowhere/python '{tmp_path / 'asked.txt'}'").returncode != 0


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What a user has after `git clone`; removed at the end."""
    root = tmp_path_factory.mktemp("clone") / "ViMoCLIP"
    root.mkdir()
    for name in ("vimoclip", "TFAM", "demo"):
        ignore = shutil.ignore_patterns("__pycache__", "results")
        shutil.copytree(REPOSITORY / name, root / name, ignore=ignore)
    for path in [*REPOSITORY.glob("*.py"), *REPOSITORY.glob("*.sh"), *REPOSITORY.glob("requirements*.txt")]:
        shutil.copy(path, root)
    yield root
    shutil.rmtree(root, ignore_errors=True)


def table_of(text: str) -> list[list[str]]:
    """The cells of the table that a demo printed, its header first."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("| --")]


def commands_of(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.startswith("   python ")]


def results_of(root: Path) -> Mapping[str, int]:
    """When each file was written that takes time to make."""
    suffixes, names = {".mp4", ".h5", ".pth", ".safetensors"}, {"predictions.csv", "metrics.csv", "metrics.json"}
    return {
        name: time
        for name, time in times(root).items()
        if Path(name).suffix in suffixes or (Path(name).name in names and not name.startswith("TFAM/results"))
    }


CONFIGS = ["rgb", "motion", "concat_time", "cross_attention", "cross_attention_shuffled"]


def test_the_demo_runs_from_nothing_to_a_table(clone: Path) -> None:
    done = bash("bash demo.sh --tiny", clone)
    assert done.returncode == 0, done.stdout + done.stderr
    header, *rows = table_of(done.stdout)
    assert [row[0] for row in rows] == [*report.WHAT.values(), "chance (200 permutations)"]
    assert header[2:] == [f"{mean} {name}" for mean in ("macro", "micro") for name in ("all", *Kind)]
    assert all(re.fullmatch(r"[01]\.\d\d", cell) for row in rows for cell in row[2:])
    commands = commands_of(done.stdout)
    assert len(commands) == sum(line.startswith("== ") for line in done.stdout.splitlines()) == 14
    for _, *words in commands:
        script = words[1].replace(".", "/") + ".py" if words[0] == "-m" else words[0]
        assert (REPOSITORY / script).is_file(), words
    assert [word for words in commands for word in words if word.startswith("TFAM/configs/")] == [
        f"TFAM/configs/{config}.yaml" for config in CONFIGS
    ]
    results = clone / "TFAM" / "results" / "demo-tiny"
    assert (results / "table.md").read_text() in done.stdout
    frames = json.loads((results / "frames.json").read_text())
    assert frames["macro_ap"].keys() == {"all", *Kind}
    data = annotations.load(clone / "dataset" / "demo-tiny" / "annotations", "demo", ["train", "val"])
    assert [len(videos) for videos in data.splits.values()] == [24, 12]
    pictures = [annotations.stem(name) for name in list(data.splits["val"])[:4]]
    assert sorted(path.stem for path in results.glob("*.png")) == pictures
    for config in CONFIGS:
        assert (clone / "checkpoints" / "demo-tiny" / "TFAM" / config / "seed49" / "predictions.csv").is_file()

    first, said = results_of(clone), done.stdout
    assert sum(name.endswith(".mp4") for name in first) == 36 * 2
    assert sum(name.endswith(".h5") for name in first) == 3
    again = bash("bash demo.sh --tiny", clone)
    assert again.returncode == 0, again.stdout + again.stderr
    assert results_of(clone) == first
    assert table_of(again.stdout) == table_of(said)
    assert commands_of(again.stdout) == commands


def test_the_demo_runs_on_a_folder_of_ones_own_clips(clone: Path, tmp_path: Path) -> None:
    for action, velocity, count in (("moving left", (-2, 0), 4), ("moving up", (0, -2), 3)):
        for i in range(count):
            frames = moving_frames(12 + i, velocity, seed=i)
            write_video(tmp_path / "my clips" / action / f"c{i}.mp4", frames, lossless=False)
    (tmp_path / "my clips" / "moving left" / "broken.mp4").write_text("not a video")
    done = bash(f"cd '{tmp_path}' && bash '{clone}/demo.sh' --clips 'my clips' --tiny", clone)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = clone / "dataset" / "clips-my clips-tiny" / "annotations"
    data = annotations.load(folder, "demo", ["train", "val"])
    assert data.classes == ("moving left", "moving up")
    assert [len(videos) for videos in data.splits.values()] == [5, 3]
    assert done.stdout.count("note: the videos that failed, named above, are left out") == 2  # embeddings and flow
    header, *rows = table_of(done.stdout)
    assert header[2:] == ["macro all", "micro all"]
    assert [row[0] for row in rows] == [*report.WHAT.values(), "chance (200 permutations)"]
    assert "this CLIP has seen drawn animals only" in done.stdout
    pictures = {path.stem for path in (clone / "TFAM" / "results" / "clips-my clips-tiny").glob("*.png")}
    assert pictures == {annotations.stem(name) for name in data.splits["val"]} - {"moving left__broken"}

    first, *others = (folder / "val_multi.txt").read_text().splitlines()
    (folder / "val_multi.txt").write_text("\n".join(others) + "\n")
    (folder / "train_multi.txt").write_text((folder / "train_multi.txt").read_text() + first + "\n")
    again = bash(f"bash demo.sh --clips '{tmp_path / 'my clips'}' --tiny", clone)
    assert again.returncode == 2
    assert "holds other clips or labels than checkpoints/clips-my clips-tiny learnt from" in again.stderr


RECORDER = """#!/bin/sh
# stands for Python where what it would run downloads: the commands are looked at, not their work
[ "$1" = - ] && exit 0
[ "$1" = -c ] && echo 2 && exit 0
for name in demo-real clips-mine-real; do mkdir -p "dataset/$name/annotations"; : >"dataset/$name/annotations/x"; done
"""


@pytest.mark.parametrize("flags", ["--real", "--real --clips mine"])
def test_the_commands_of_the_demo_with_real_weights_parse(flags: str, clone: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(RECORDER)
    (tmp_path / "bin" / "python").chmod(0o755)
    (clone / "mine").mkdir(exist_ok=True)
    done = bash(f"bash demo.sh {flags}", clone, PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stdout + done.stderr
    commands = commands_of(done.stdout)
    for _, *words in commands:
        module, arguments = (words[1], words[2:]) if words[0] == "-m" else (Path(words[0]).stem, words[1:])
        parsed = importlib.import_module(module).build_parser()
        parsed.parse_args([word.replace("SEED", "49") for word in arguments])
    said = done.stdout
    assert "--clip-model-name ViT-B/32 --clip-pretrained openai" in said and "--model raft" in said
    assert ("--resize squash" in said, "demo.make_clips" in said) == (
        (True, True) if flags == "--real" else (False, False)
    )
    assert "demo.make_teacher" not in said
