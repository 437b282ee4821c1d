"""The demo's scenes and drawings: single frames say nothing of the motion."""

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from demo import drawing, scenes
from demo.scenes import ACTIONS, FRAMES, GROUNDS, HEIGHT, MOTIONS, SPECIES, WIDTH, ActionCue, Scene

FIELDS = ("x", "y", "height", "facing", "limbs", "head", "tilt")
ANIMALS = 2500
SIGMAS = 4.5  # what chance alone passes once in 150,000 times


# Scenes: what a single frame says


def sample_poses(motions: tuple[str, ...], seed: int) -> dict[str, np.ndarray]:
    """When -> (ANIMALS, fields) of poses in the first frame, the last and any."""
    rng = np.random.default_rng(seed)
    found: dict[str, list[tuple[float, ...]]] = {"first": [], "any": [], "last": []}
    for _ in range(ANIMALS):
        animal = scenes.sample_animal(rng, motions, (0.3, 0.7), food=False)
        frames = {"first": 0, "any": int(rng.integers(FRAMES)), "last": FRAMES - 1}
        for when, frame in frames.items():
            at = scenes.pose_at(animal, frame)
            height = (at.y - animal.base_y) / animal.length
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
        animal = scenes.sample_animal(rng, (motion,), (0.3, 0.7), food=False)
        poses = {scenes.pose_at(animal, frame) for frame in range(FRAMES)}
        assert len(poses) == (1 if motion == "still" else FRAMES), motion


@pytest.fixture(scope="module")
def many_scenes() -> list[Scene]:
    return [scenes.sample_scene(seed) for seed in range(4000)]


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
    told_by_motion = [name for name, kind in ACTIONS.items() if kind == ActionCue.MOTION]
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
    assert set(ACTIONS.values()) == set(ActionCue)
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
    assert scenes.action_name(motion, species, water) == name


def test_only_motions_told_by_both_are_called_after_species_or_place() -> None:
    for motion in MOTIONS:
        names = {scenes.action_name(motion, species, water) for species in SPECIES for water in (False, True)}
        kinds = {ACTIONS[name] for name in names}
        assert kinds == ({ActionCue.BOTH} if len(names) > 1 else {ActionCue.MOTION}), motion


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
    names = [name for name, kind in ACTIONS.items() if kind != ActionCue.APPEARANCE]
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
    assert scenes.sample_scene(7) == scenes.sample_scene(7)
    assert scenes.sample_scene(7) != scenes.sample_scene(8)


# Drawing


def scene_of(motion: str, seed: int = 3) -> Scene:
    scene = scenes.sample_scene(seed)
    return replace(scene, animals=tuple(replace(animal, motions=(motion,)) for animal in scene.animals))


def test_without_the_cameras_shaking_only_what_moves_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "CAMERA_SHAKE", 0)
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
    assert np.abs(drawing.camera_offsets(3)).max() < drawing.MARGIN


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
