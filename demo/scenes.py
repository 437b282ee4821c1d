"""Content of a drawn clip: animals, their positions and motions, and the resulting action labels.

Every degree of freedom of an animal (travel, limbs, head, hop, circle, ...) is a phase with a random start. An action
only determines which phases advance and how fast. A single frame of a walking animal therefore has the same
distribution as one of an animal that keeps still. (H.264 slightly blurs moving objects; `demo.check_frames` tests
whether this reveals the motion.)"""

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

WIDTH, HEIGHT, FPS, FRAMES = 240, 136, 25, 50
SPECIES = {
    "zebra": "legs",
    "leopard": "legs",
    "parrot": "wings",
    "owl": "wings",
    "seal": "flippers",
    "turtle": "flippers",
}
GROUNDS = ("grass", "sand", "snow", "rock", "leaves")
OBJECT_PROBABILITY = 0.4  # of food, water, a nest and flowers, independently


class ActionCue(StrEnum):
    """Visual cue that defines an action."""

    MOTION = "motion"  # not recognisable from a single frame
    APPEARANCE = "appearance"  # recognisable from a single frame
    BOTH = "both"  # a single frame determines the name of the motion, not whether it occurs


ACTIONS = {
    "keeping still": ActionCue.MOTION,
    "walking": ActionCue.MOTION,
    "running": ActionCue.MOTION,
    "jumping": ActionCue.MOTION,
    "circling": ActionCue.MOTION,
    "head bobbing": ActionCue.MOTION,
    "eating": ActionCue.APPEARANCE,
    "in water": ActionCue.APPEARANCE,
    "nesting": ActionCue.APPEARANCE,
    "flying": ActionCue.BOTH,
    "swimming": ActionCue.BOTH,
    "galloping": ActionCue.BOTH,
    "bathing": ActionCue.BOTH,
    "shaking": ActionCue.BOTH,
}


class Phase(StrEnum):
    """The degrees of freedom of an animal."""

    TRAVEL = "travel"  # from side to side, with turns at the ends
    LIMBS = "limbs"
    HOP = "hop"
    CIRCLE = "circle"
    HEAD = "head"
    WAVE = "wave"  # up and down while travelling
    TILT = "tilt"


# radians/s; travel in body lengths/s
MOTIONS: dict[str, dict[Phase, float]] = {
    "still": {},
    "walk": {Phase.TRAVEL: 0.45, Phase.LIMBS: 8},
    "run": {Phase.TRAVEL: 1.5, Phase.LIMBS: 18},
    "jump": {Phase.HOP: 5},
    "circle": {Phase.CIRCLE: 4, Phase.LIMBS: 8},
    "bob": {Phase.HEAD: 11},
    "surge": {Phase.TRAVEL: 0.9, Phase.WAVE: 8, Phase.LIMBS: 11},
    "shake": {Phase.TILT: 24},
}
# surge is split into three actions and shake into two
MOTION_WEIGHTS = {motion: 2 if motion == "surge" else 1 for motion in MOTIONS}


@dataclass(frozen=True)
class Animal:
    """One animal: appearance, phases at the first frame, and motions, which follow one another for equal times."""

    species: str
    length: float  # of its body, in pixels
    base_y: float  # of its body, in pixels
    min_x: float  # of its travel, in pixels
    phases: dict[Phase, float]
    turn: int  # 1 or -1: direction of its circles
    motions: tuple[str, ...]
    food: bool
    seed: int  # of its markings


@dataclass(frozen=True)
class Scene:
    """The content of a clip."""

    ground: str
    water: bool
    nest: tuple[float, float] | None
    flowers: bool
    animals: tuple[Animal, ...]
    seed: int

    def actions(self) -> set[str]:
        """Return the labels of the clip: the actions of all its animals."""
        names = {
            action_name(motion, animal.species, self.water) for animal in self.animals for motion in animal.motions
        }
        objects = {"eating": any(animal.food for animal in self.animals), "in water": self.water, "nesting": self.nest}
        return names | {name for name, present in objects.items() if present}

    def caption(self) -> str:
        """Return a caption of species, ground and objects, without motion."""
        text = "a drawing of " + " and ".join(f"a {animal.species}" for animal in self.animals) + f" on {self.ground}"
        text += " in water" if self.water else ""
        objects = {"food": any(animal.food for animal in self.animals), "a nest": self.nest}
        present = [name for name, is_present in objects.items() if is_present]
        return text + (" with " + " and ".join(present) if present else "")


def action_name(motion: str, species: str, water: bool) -> str:
    """Return the action of a motion; for some motions it depends on species and water."""
    if motion == "surge":
        return "swimming" if water else {"wings": "flying"}.get(SPECIES[species], "galloping")
    if motion == "shake":
        return "bathing" if water else "shaking"
    names = {"still": "keeping still", "walk": "walking", "run": "running", "jump": "jumping"}
    return {**names, "circle": "circling", "bob": "head bobbing"}[motion]


def sample_scene(seed: int) -> Scene:
    """Return a random scene. The numbers of motions and animals are independent: one animal may do two in turn."""
    rng = np.random.default_rng(seed)
    num_animals, num_motions = int(rng.integers(1, 3)), int(rng.integers(1, 3))
    weights = np.array(list(MOTION_WEIGHTS.values()), float)
    motions = [str(m) for m in rng.choice(list(MOTIONS), num_motions, replace=False, p=weights / weights.sum())]
    motions_by_animal = [tuple(motions)] if num_animals == 1 else [(motions[0],), (motions[-1],)]
    heights = [(0.34, 0.74)] if num_animals == 1 else [(0.26, 0.38), (0.68, 0.8)]
    food = rng.random() < OBJECT_PROBABILITY
    eating_animal = int(rng.integers(num_animals))
    return Scene(
        ground=str(rng.choice(GROUNDS)),
        water=bool(rng.random() < OBJECT_PROBABILITY),
        nest=(rng.uniform(0.1, 0.9), rng.uniform(0.12, 0.88)) if rng.random() < OBJECT_PROBABILITY else None,
        flowers=bool(rng.random() < OBJECT_PROBABILITY),
        animals=tuple(
            sample_animal(rng, motions_by_animal[i], heights[i], food and i == eating_animal)
            for i in range(num_animals)
        ),
        seed=seed,
    )


def sample_animal(
    rng: np.random.Generator, motions: tuple[str, ...], heights: tuple[float, float], food: bool
) -> Animal:
    """Return a random animal. `heights`: range of its y, as fractions of the frame's height."""
    length = rng.uniform(74, 100)
    return Animal(
        species=str(rng.choice(list(SPECIES))),
        length=length,
        base_y=HEIGHT * rng.uniform(*heights),
        min_x=0.45 * length,
        phases={phase: rng.uniform(0, 2 * math.pi) for phase in Phase},
        turn=int(rng.choice([-1, 1])),
        motions=motions,
        food=food,
        seed=int(rng.integers(2**31)),
    )


@dataclass(frozen=True)
class Pose:
    """An animal in one frame: pixels and radians; `limbs` and `head` in -1..1."""

    x: float
    y: float
    facing: int
    limbs: float
    head: float
    tilt: float


def pose_at(animal: Animal, frame: int, frames: int = FRAMES) -> Pose:
    """Return the position and posture of an animal in a frame of its clip."""
    phases = dict(animal.phases)
    frames_per_motion = frames / len(animal.motions)
    span = WIDTH - 2 * animal.min_x
    for i, motion in enumerate(animal.motions):
        seconds = min(max(frame - i * frames_per_motion, 0), frames_per_motion) / FPS
        for phase, rate in MOTIONS[motion].items():
            phases[phase] += seconds * (rate * animal.length * math.pi / span if phase == Phase.TRAVEL else rate)
    current_motion = animal.motions[min(int(frame / frames_per_motion), len(animal.motions) - 1)]
    travelled = phases[Phase.TRAVEL] / math.pi % 2  # 0..1 to the right, 1..2 back
    circle = animal.turn * phases[Phase.CIRCLE]
    facing = 1 if travelled < 1 else -1
    if current_motion == "circle":
        facing = 1 if -math.sin(circle) * animal.turn > 0 else -1
    return Pose(
        x=animal.min_x + span * (1 - abs(1 - travelled)) + 0.3 * animal.length * math.cos(circle),
        y=animal.base_y
        + animal.length * (0.16 * math.sin(circle) + 0.1 * math.sin(phases[Phase.WAVE]))
        - 0.3 * animal.length * (abs(math.sin(phases[Phase.HOP])) - 0.5),
        facing=facing,
        limbs=math.sin(phases[Phase.LIMBS]),
        head=math.sin(phases[Phase.HEAD]),
        tilt=0.2 * math.sin(phases[Phase.TILT]),
    )
