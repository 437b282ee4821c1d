"""What happens in a drawn clip: who is there, where, what each animal does, and so which actions it is labelled with.

Every degree of freedom of an animal (travel, limbs, head, hop, circle, ...) is a phase that starts anywhere. An action
decides only which phases run and how fast. A single frame of a walking animal is therefore drawn from the same
distribution as one of an animal that keeps still: what sets motions apart is in time alone. (H.264 blurs what moves by
a trace; `demo.check_frames` looks whether that can be used.)"""

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
CHANCE_OF_A_THING = 0.4  # of food, water and a nest, each by itself


class Kind(StrEnum):
    """What tells an action."""

    MOTION = "motion"  # a single frame says nothing
    APPEARANCE = "appearance"  # a single frame says all
    BOTH = "both"  # a single frame says how the motion would be called, not whether there is that motion


ACTIONS = {
    "keeping still": Kind.MOTION,
    "walking": Kind.MOTION,
    "running": Kind.MOTION,
    "jumping": Kind.MOTION,
    "circling": Kind.MOTION,
    "head bobbing": Kind.MOTION,
    "eating": Kind.APPEARANCE,
    "in water": Kind.APPEARANCE,
    "nesting": Kind.APPEARANCE,
    "flying": Kind.BOTH,
    "swimming": Kind.BOTH,
    "galloping": Kind.BOTH,
    "bathing": Kind.BOTH,
    "shaking": Kind.BOTH,
}


class Phase(StrEnum):
    """The degrees of freedom of an animal."""

    TRAVEL = "travel"  # from side to side, turning round at the ends
    LIMBS = "limbs"
    HOP = "hop"
    CIRCLE = "circle"
    HEAD = "head"
    WAVE = "wave"  # up and down while travelling
    TILT = "tilt"


# Radians a second; travel in body lengths a second.
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
# surge has three names and shake two, so surge is drawn twice as often
OFTEN = {motion: 2 if motion == "surge" else 1 for motion in MOTIONS}


@dataclass(frozen=True)
class Animal:
    """One animal: its looks, its phases at the first frame, and its motions, one after the other for equal times."""

    species: str
    length: float  # of its body, in pixels
    base: tuple[float, float]  # y, and the lowest x of its travels
    phases: dict[Phase, float]
    turn: int  # 1 or -1: the way round of its circles
    motions: tuple[str, ...]
    food: bool
    seed: int  # of its markings


@dataclass(frozen=True)
class Scene:
    """A clip before it is drawn."""

    ground: str
    water: bool
    nest: tuple[float, float] | None
    flowers: bool
    animals: tuple[Animal, ...]
    seed: int

    def actions(self) -> set[str]:
        """The clip's labels: those of all its animals."""
        found = {name_of(motion, animal.species, self.water) for animal in self.animals for motion in animal.motions}
        things = {"eating": any(animal.food for animal in self.animals), "in water": self.water, "nesting": self.nest}
        return found | {name for name, there in things.items() if there}

    def caption(self) -> str:
        """What a still shows: species, ground and objects, nothing of motion."""
        text = "a drawing of " + " and ".join(f"a {animal.species}" for animal in self.animals) + f" on {self.ground}"
        text += " in water" if self.water else ""
        things = {"food": any(animal.food for animal in self.animals), "a nest": self.nest}
        there = [name for name, here in things.items() if here]
        return text + (" with " + " and ".join(there) if there else "")


def name_of(motion: str, species: str, water: bool) -> str:
    """The action that a motion is: for some of them, species and place decide."""
    if motion == "surge":
        return "swimming" if water else {"wings": "flying"}.get(SPECIES[species], "galloping")
    if motion == "shake":
        return "bathing" if water else "shaking"
    names = {"still": "keeping still", "walk": "walking", "run": "running", "jump": "jumping"}
    return {**names, "circle": "circling", "bob": "head bobbing"}[motion]


def draw_scene(seed: int) -> Scene:
    """A clip's content. How many motions there are has nothing to do with how many animals: one may do two in turn."""
    rng = np.random.default_rng(seed)
    animals, motions = int(rng.integers(1, 3)), int(rng.integers(1, 3))
    weights = np.array(list(OFTEN.values()), float)
    drawn = [str(m) for m in rng.choice(list(MOTIONS), motions, replace=False, p=weights / weights.sum())]
    doing = [tuple(drawn)] if animals == 1 else [(drawn[0],), (drawn[-1],)]
    heights = [(0.34, 0.74)] if animals == 1 else [(0.26, 0.38), (0.68, 0.8)]
    food = rng.random() < CHANCE_OF_A_THING
    eater = int(rng.integers(animals))
    return Scene(
        ground=str(rng.choice(GROUNDS)),
        water=bool(rng.random() < CHANCE_OF_A_THING),
        nest=(rng.uniform(0.1, 0.9), rng.uniform(0.12, 0.88)) if rng.random() < CHANCE_OF_A_THING else None,
        flowers=bool(rng.random() < CHANCE_OF_A_THING),
        animals=tuple(draw_animal(rng, doing[i], heights[i], food and i == eater) for i in range(animals)),
        seed=seed,
    )


def draw_animal(rng: np.random.Generator, motions: tuple[str, ...], heights: tuple[float, float], food: bool) -> Animal:
    length = rng.uniform(74, 100)
    return Animal(
        species=str(rng.choice(list(SPECIES))),
        length=length,
        base=(HEIGHT * rng.uniform(*heights), 0.45 * length),
        phases={phase: rng.uniform(0, 2 * math.pi) for phase in Phase},
        turn=int(rng.choice([-1, 1])),
        motions=motions,
        food=food,
        seed=int(rng.integers(2**31)),
    )


@dataclass(frozen=True)
class Pose:
    """An animal in one frame: pixels, radians; `limbs`, `head` in -1..1."""

    x: float
    y: float
    facing: int
    limbs: float
    head: float
    tilt: float


def pose(animal: Animal, frame: int, frames: int = FRAMES) -> Pose:
    """Where an animal is and how it holds itself in a frame of its clip."""
    phases = dict(animal.phases)
    each = frames / len(animal.motions)
    span = WIDTH - 2 * animal.base[1]
    for i, motion in enumerate(animal.motions):
        seconds = min(max(frame - i * each, 0), each) / FPS
        for phase, rate in MOTIONS[motion].items():
            phases[phase] += seconds * (rate * animal.length * math.pi / span if phase == Phase.TRAVEL else rate)
    now = animal.motions[min(int(frame / each), len(animal.motions) - 1)]
    travelled = phases[Phase.TRAVEL] / math.pi % 2  # 0..1 to the right, 1..2 back
    circle = animal.turn * phases[Phase.CIRCLE]
    facing = 1 if travelled < 1 else -1
    if now == "circle":
        facing = 1 if -math.sin(circle) * animal.turn > 0 else -1
    return Pose(
        x=animal.base[1] + span * (1 - abs(1 - travelled)) + 0.3 * animal.length * math.cos(circle),
        y=animal.base[0]
        + animal.length * (0.16 * math.sin(circle) + 0.1 * math.sin(phases[Phase.WAVE]))
        - 0.3 * animal.length * (abs(math.sin(phases[Phase.HOP])) - 0.5),
        facing=facing,
        limbs=math.sin(phases[Phase.LIMBS]),
        head=math.sin(phases[Phase.HEAD]),
        tilt=0.2 * math.sin(phases[Phase.TILT]),
    )
