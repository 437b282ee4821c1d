"""Scenes and drawings of the demo: single frames do not depend on the motion."""

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from demo import drawing, scenes
from demo.scenes import ACTIONS, FRAMES, GROUNDS, HEIGHT, MOTIONS, SPECIES, WIDTH, ActionCue, Scene

FIELDS = ("x", "y", "height", "facing", "limbs", "head", "tilt")
ANIMALS = 2500
SIGMAS = 4.5  # exceeded by chance once in 150,000 times


# Scenes: single frames


def sample_poses(motions: tuple[str, ...], seed: int) -> dict[str, np.ndarray]:
    """Return position -> (ANIMALS, fields) of poses in the first, a random and the last frame."""
    rng = np.random.default_rng(seed)
    poses: dict[str, list[tuple[float, ...]]] = {"first": [], "any": [], "last": []}
    for _ in range(ANIMALS):
        animal = scenes.sample_animal(rng, motions, (0.3, 0.7), food=False)
        frames = {"first": 0, "any": int(rng.integers(FRAMES)), "last": FRAMES - 1}
        for position, frame in frames.items():
            pose = scenes.pose_at(animal, frame)
            height = (pose.y - animal.base_y) / animal.length
            row = (pose.x / WIDTH, pose.y / HEIGHT, height, pose.facing, pose.limbs, pose.head, pose.tilt)
            poses[position].append(row)
    return {position: np.array(rows) for position, rows in poses.items()}


def ks_statistic(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Kolmogorov-Smirnov statistic, normalised by the sample sizes."""
    values = np.unique(np.concatenate([first, second]))
    cdfs = [np.searchsorted(np.sort(sample), values, side="right") / len(sample) for sample in (first, second)]
    return float(np.abs(cdfs[0] - cdfs[1]).max() / np.sqrt(1 / len(first) + 1 / len(second)))


@pytest.fixture(scope="module")
def still_poses() -> dict[str, np.ndarray]:
    return sample_poses(("still",), seed=1)


MOTION_PAIRS: list[tuple[str, ...]] = [("still", "walk"), ("circle", "run"), ("jump", "circle"), ("surge", "shake")]


@pytest.mark.parametrize("motions", [*((motion,) for motion in MOTIONS), *MOTION_PAIRS], ids="-".join)
def test_single_frames_of_moving_and_still_animals_have_the_same_distribution(
    motions: tuple[str, ...], still_poses: dict[str, np.ndarray]
) -> None:
    for position, moving in sample_poses(motions, seed=2).items():
        still = still_poses[position]
        for i, field in enumerate(FIELDS):
            assert ks_statistic(still[:, i], moving[:, i]) < 2.7, f"{field} in {position} frame"  # one in a million
            for facing in (-1, 1):  # also given the direction
                samples = [poses[poses[:, 3] == facing, i] for poses in (still, moving)]
                assert ks_statistic(*samples) < 2.7, f"{field} in {position} frame, facing {facing}"
        for power in (1, 2):  # the correlations of fields are equal too
            difference = np.corrcoef((still**power)[:, [0, 2, 4, 5, 6]].T) - np.corrcoef(
                (moving**power)[:, [0, 2, 4, 5, 6]].T
            )
            assert np.abs(difference).max() < SIGMAS * np.sqrt(2 / ANIMALS), f"{position} frame"


def test_every_motion_but_keeping_still_changes_the_pose() -> None:
    rng = np.random.default_rng(0)
    for motion in MOTIONS:
        animal = scenes.sample_animal(rng, (motion,), (0.3, 0.7), food=False)
        poses = {scenes.pose_at(animal, frame) for frame in range(FRAMES)}
        assert len(poses) == (1 if motion == "still" else FRAMES), motion


@pytest.fixture(scope="module")
def many_scenes() -> list[Scene]:
    return [scenes.sample_scene(seed) for seed in range(4000)]


def scene_content(scene: Scene) -> dict[str, bool]:
    """Return content of a still of a scene -> whether it is present."""
    return {
        "two animals": len(scene.animals) == 2,
        "water": scene.water,
        "food": any(animal.food for animal in scene.animals),
        "a nest": scene.nest is not None,
        "flowers": scene.flowers,
        **{ground: scene.ground == ground for ground in GROUNDS},
        **{species: scene.animals[-1].species == species for species in SPECIES},
    }


def test_content_of_stills_is_independent_of_the_motions(many_scenes: list[Scene]) -> None:
    contents = [scene_content(scene) for scene in many_scenes]
    motions_by_scene = [{motion for animal in scene.animals for motion in animal.motions} for scene in many_scenes]
    motion_actions = [name for name, cue in ACTIONS.items() if cue == ActionCue.MOTION]
    labels = {m: np.array([m in motions for motions in motions_by_scene]) for m in MOTIONS}
    labels |= {name: np.array([name in scene.actions() for scene in many_scenes]) for name in motion_actions}
    for name in contents[0]:
        is_present = np.array([content[name] for content in contents])
        for action, labelled in labels.items():
            with_it, without = labelled[is_present], labelled[~is_present]
            error = np.sqrt(labelled.mean() * (1 - labelled.mean()) * (1 / len(with_it) + 1 / len(without)))
            assert abs(with_it.mean() - without.mean()) < SIGMAS * error, f"{action} with {name}"


def test_there_are_ten_actions_of_three_cues_and_six_species(many_scenes: list[Scene]) -> None:
    assert len(ACTIONS) >= 10
    assert set(ACTIONS.values()) == set(ActionCue)
    assert len(SPECIES) == 6
    labels = [scene.actions() for scene in many_scenes]
    assert set().union(*labels) == set(ACTIONS)
    rarest = min(sum(action in actions for actions in labels) for action in ACTIONS)
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
def test_some_actions_depend_on_species_and_water(motion: str, species: str, water: bool, name: str) -> None:
    assert scenes.action_name(motion, species, water) == name


def test_only_actions_of_both_cues_depend_on_species_or_water() -> None:
    for motion in MOTIONS:
        names = {scenes.action_name(motion, species, water) for species in SPECIES for water in (False, True)}
        cues = {ACTIONS[name] for name in names}
        assert cues == ({ActionCue.BOTH} if len(names) > 1 else {ActionCue.MOTION}), motion


def test_labels_are_those_of_all_animals_and_all_their_motions(many_scenes: list[Scene]) -> None:
    sizes = {(len(scene.animals), len(scene.animals[0].motions)) for scene in many_scenes}
    assert sizes == {(1, 1), (1, 2), (2, 1)}
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


def test_a_caption_names_the_content_of_a_still_and_no_motion(many_scenes: list[Scene]) -> None:
    names = [name for name, cue in ACTIONS.items() if cue != ActionCue.APPEARANCE]
    motion_words = {*MOTIONS, *(word[:4] for name in names for word in name.split())}
    for scene in many_scenes[:500]:
        caption = scene.caption()
        content = scene_content(scene)
        assert all(animal.species in caption for animal in scene.animals)
        assert scene.ground in caption
        assert [word in caption for word in ("water", "food", "nest")] == [
            content["water"],
            content["food"],
            content["a nest"],
        ]
        assert not [word for word in motion_words if re.search(rf"\b{word}", caption)], caption


def test_scenes_are_determined_by_the_seed() -> None:
    assert scenes.sample_scene(7) == scenes.sample_scene(7)
    assert scenes.sample_scene(7) != scenes.sample_scene(8)


# Drawing


def scene_with_motion(motion: str, seed: int = 3) -> Scene:
    scene = scenes.sample_scene(seed)
    return replace(scene, animals=tuple(replace(animal, motions=(motion,)) for animal in scene.animals))


def test_without_camera_shake_frames_of_still_animals_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "CAMERA_SHAKE", 0)
    for motion in MOTIONS:
        frames = drawing.draw_clip(scene_with_motion(motion))
        assert frames.shape == (FRAMES, HEIGHT, WIDTH, 3)
        assert frames.dtype == np.uint8
        changed = [bool((a != b).any()) for a, b in pairwise(frames)]
        if motion == "still":
            assert not any(changed)
        else:
            assert sum(changed) > 0.8 * len(changed), motion


def test_the_camera_shakes_in_every_clip() -> None:
    frames = drawing.draw_clip(scene_with_motion("still"))
    assert all((a != b).any() for a, b in pairwise(frames))
    assert np.abs(drawing.camera_offsets(3)).max() < drawing.MARGIN


def test_a_still_is_a_frame_of_its_clip() -> None:
    scene = scene_with_motion("run")
    still = drawing.draw_still(scene)
    assert sum(bool((frame == still).all()) for frame in drawing.draw_clip(scene)) == 1


def test_food_water_and_nests_are_visible() -> None:
    """Food, water and a nest change some pixels of a frame and no others."""
    plain = replace(scene_with_motion("still"), water=False, nest=None)
    plain = replace(plain, animals=tuple(replace(animal, food=False) for animal in plain.animals))
    with_food = replace(plain, animals=tuple(replace(animal, food=True) for animal in plain.animals))
    still = drawing.draw_still(plain).astype(int)
    for other in (with_food, replace(plain, water=True), replace(plain, nest=(0.5, 0.5))):
        changed = np.abs(drawing.draw_still(other) - still).max(-1) > 30
        assert 20 < changed.sum() < 0.8 * changed.size
