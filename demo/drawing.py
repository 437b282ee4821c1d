"""Rendering of scenes: textured ground, a slightly shaking camera, and animals as polygons with joints."""

import math

import cv2
import numpy as np

from demo.scenes import FRAMES, HEIGHT, SPECIES, WIDTH, Animal, Pose, Scene, pose_at

MARGIN = 8  # pixels of ground around the frame, for the camera shake
CAMERA_SHAKE = 0.35  # standard deviation, pixels per frame
FRACTION_BITS = 4  # of OpenCV's fixed-point coordinates
Color = tuple[int, int, int]
GROUND_COLORS: dict[str, tuple[Color, Color]] = {
    "grass": ((52, 92, 38), (126, 158, 72)),
    "sand": ((176, 148, 102), (226, 204, 158)),
    "snow": ((196, 206, 220), (246, 248, 252)),
    "rock": ((84, 82, 84), (158, 152, 146)),
    "leaves": ((84, 52, 30), (172, 112, 62)),
}
BODY_COLORS: dict[str, tuple[Color, Color]] = {  # body, markings
    "zebra": ((236, 234, 226), (30, 28, 30)),
    "leopard": ((222, 164, 72), (74, 44, 20)),
    "parrot": ((40, 168, 84), (214, 44, 48)),
    "owl": ((150, 112, 78), (232, 214, 184)),
    "seal": ((96, 108, 128), (56, 62, 78)),
    "turtle": ((126, 88, 46), (226, 198, 118)),
}


def draw_clip(scene: Scene) -> np.ndarray:
    """Return the frames of a clip, (FRAMES, HEIGHT, WIDTH, 3) uint8."""
    canvas, camera = draw_ground(scene), camera_offsets(scene.seed)
    return np.stack([draw_frame(scene, canvas, camera[t], t) for t in range(FRAMES)])


def draw_still(scene: Scene) -> np.ndarray:
    """Return one random frame of the clip, (HEIGHT, WIDTH, 3) uint8."""
    frame = int(np.random.default_rng([scene.seed, 1]).integers(FRAMES))
    return draw_frame(scene, draw_ground(scene), camera_offsets(scene.seed)[frame], frame)


def camera_offsets(seed: int) -> np.ndarray:
    """Return (FRAMES, 2) camera offsets in pixels: a mean-reverting random walk."""
    steps = np.random.default_rng([seed, 2]).normal(0, CAMERA_SHAKE, (FRAMES, 2))
    camera = np.zeros((FRAMES, 2))
    for t in range(1, FRAMES):
        camera[t] = 0.9 * camera[t - 1] + steps[t]
    return np.clip(camera, -MARGIN, MARGIN)


def draw_frame(scene: Scene, canvas: np.ndarray, camera: np.ndarray, frame: int) -> np.ndarray:
    """Return (HEIGHT, WIDTH, 3) uint8. `canvas`: the ground; `camera` (2,): offset of the frame."""
    translation = np.array([[1, 0, camera[0] - MARGIN], [0, 1, camera[1] - MARGIN]], np.float32)
    image = cv2.warpAffine(canvas, translation, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
    for animal in scene.animals:
        AnimalPainter(image, animal, pose_at(animal, frame), camera).draw()
    return image


def draw_ground(scene: Scene) -> np.ndarray:
    """Return (HEIGHT + 2 MARGIN, WIDTH + 2 MARGIN, 3) uint8: ground, water and objects."""
    rng = np.random.default_rng([scene.seed, 3])
    height, width = HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN
    noise = sum(
        cv2.resize(rng.random((height // cell + 2, width // cell + 2)), (width, height), interpolation=cv2.INTER_CUBIC)
        * amplitude
        for cell, amplitude in ((48, 0.3), (12, 0.35), (4, 0.35))
    )
    dark, bright = (np.array(color, float) for color in GROUND_COLORS[scene.ground])
    brightness = np.clip((noise - 0.2) / 0.6, 0, 1)[..., None]
    image = np.ascontiguousarray((dark * (1 - brightness) + bright * brightness).astype(np.uint8))
    if scene.water:
        for animal in scene.animals:
            draw_river(image, animal, rng)
    if scene.flowers:
        for x, y in zip(rng.uniform(0, width, 14), rng.uniform(0, height, 14), strict=True):
            color = [(240, 220, 70), (236, 120, 190), (250, 250, 250)][rng.integers(3)]
            fill_disc(image, (x, y), 2.4, color)
            fill_disc(image, (x, y), 1.0, (120, 70, 20))
    if scene.nest:
        draw_nest(image, scene.nest[0] * WIDTH + MARGIN, scene.nest[1] * HEIGHT + MARGIN)
    return image


def draw_river(image: np.ndarray, animal: Animal, rng: np.random.Generator) -> None:
    """Draw a band of water across the frame, as high as the animal's body."""
    xs = np.linspace(-4, image.shape[1] + 4, 24)
    center_y, half_height = animal.base_y + MARGIN, 0.33 * animal.length
    top, bottom = (center_y + side * half_height + rng.normal(0, 1.5, len(xs)) for side in (-1, 1))
    band = np.concatenate([np.stack([xs, top], 1), np.stack([xs, bottom], 1)[::-1]])
    overlay = image.copy()
    fill_polygon(overlay, band, (48, 120, 196))
    image[:] = cv2.addWeighted(overlay, 0.8, image, 0.2, 0)
    for _ in range(26):
        x, y = rng.uniform(0, image.shape[1]), center_y + rng.uniform(-0.9, 0.9) * half_height
        ripple = np.array([[x, y], [x + 5, y - 1.4], [x + 10, y], [x + 5, y - 0.2]])
        fill_polygon(image, ripple, (150, 200, 236))


def draw_nest(image: np.ndarray, x: float, y: float) -> None:
    fill_polygon(image, ellipse_points((x, y), 24, 15), (216, 178, 96))
    fill_polygon(image, ellipse_points((x, y - 1), 19, 11), (70, 40, 20))
    for offset in (-9, 0, 9):
        fill_polygon(image, ellipse_points((x + offset, y - 2 + abs(offset) / 8), 5.5, 7), (244, 250, 255))


class AnimalPainter:
    """Painter of one animal in body coordinates: unit body length, x forwards, y down, origin at the body's center."""

    def __init__(self, image: np.ndarray, animal: Animal, pose: Pose, camera: np.ndarray):
        self.image, self.animal, self.pose = image, animal, pose
        self.body, self.marks = BODY_COLORS[animal.species]
        self.rng = np.random.default_rng(animal.seed)  # the same markings in each frame
        self.matrix = np.diag([animal.length * pose.facing, animal.length]) @ rotation_matrix(pose.tilt)
        self.offset = np.array([pose.x, pose.y]) + camera

    def draw(self) -> None:
        {"legs": self.draw_mammal, "wings": self.draw_bird, "flippers": self.draw_swimmer}[
            SPECIES[self.animal.species]
        ]()

    def draw_polygon(
        self, points: np.ndarray, color: Color, joint: tuple[float, float] = (0, 0), angle: float = 0
    ) -> None:
        """Draw a polygon, rotated about its joint by an angle in radians."""
        rotated = (points - joint) @ rotation_matrix(angle).T + joint
        fill_polygon(self.image, rotated @ self.matrix.T + self.offset, color)

    def draw_limb(self, joint: tuple[float, float], length: float, width: float, angle: float, color: Color) -> None:
        """Draw a tapered limb below its joint."""
        x, y = joint
        points = np.array(
            [[x - width, y], [x + width, y], [x + 0.6 * width, y + length], [x - 0.6 * width, y + length]]
        )
        self.draw_polygon(points, color, joint, angle)

    def draw_head(
        self, center: tuple[float, float], size: float, joint: tuple[float, float], color: Color, muzzle: Color
    ) -> None:
        """Draw a head with muzzle or beak, eye, and food."""
        angle = 0.5 * self.pose.head
        self.draw_polygon(ellipse_points(center, size, 0.85 * size), color, joint, angle)
        mouth = (center[0] + 0.95 * size, center[1] + 0.25 * size)
        self.draw_polygon(
            np.array(
                [
                    [center[0] + 0.6 * size, center[1] - 0.35 * size],
                    [mouth[0] + 0.5 * size, mouth[1]],
                    [center[0] + 0.5 * size, center[1] + 0.65 * size],
                ]
            ),
            muzzle,
            joint,
            angle,
        )
        self.draw_polygon(
            ellipse_points((center[0] + 0.3 * size, center[1] - 0.2 * size), 0.24 * size, 0.26 * size),
            (250, 250, 240),
            joint,
            angle,
        )
        self.draw_polygon(
            ellipse_points((center[0] + 0.36 * size, center[1] - 0.2 * size), 0.13 * size, 0.15 * size),
            (10, 10, 10),
            joint,
            angle,
        )
        if self.animal.food:
            for dx, dy, color in (
                (0.02, -0.1, (70, 180, 50)),
                (0.1, -0.02, (232, 24, 120)),
                (0.18, 0.08, (250, 60, 150)),
                (0.03, 0.1, (206, 14, 100)),
            ):
                self.draw_polygon(ellipse_points((mouth[0] + dx, mouth[1] + dy), 0.085, 0.085), color, joint, angle)

    def draw_mammal(self) -> None:
        """Draw a zebra or leopard."""
        is_zebra, swing = self.animal.species == "zebra", 0.55 * self.pose.limbs
        dark: Color = tuple(int(0.75 * c) for c in self.body)  # type: ignore[assignment]
        leg_length = 0.36 if is_zebra else 0.28
        self.draw_limb((-0.4, -0.08), 0.34, 0.025, 0.7 + 0.3 * self.pose.limbs, self.marks)  # tail
        for x, phase, color in ((-0.22, -1, dark), (0.28, 1, dark), (-0.3, 1, self.body), (0.2, -1, self.body)):
            self.draw_limb((x, 0.08), leg_length, 0.055, phase * swing, color)
        self.draw_polygon(ellipse_points((0, 0), 0.42, 0.19), self.body)
        if is_zebra:
            for x in np.linspace(-0.34, 0.34, 9) + self.rng.uniform(-0.02, 0.02, 9):
                half_height = 0.19 * math.sqrt(1 - (x / 0.42) ** 2)
                self.draw_polygon(
                    np.array(
                        [
                            [x - 0.018, -half_height],
                            [x + 0.018, -half_height],
                            [x + 0.004, half_height],
                            [x - 0.012, half_height],
                        ]
                    ),
                    self.marks,
                )
        else:
            for x, y in self.rng.uniform((-0.33, -0.13), (0.33, 0.1), (22, 2)):
                if (x / 0.42) ** 2 + (y / 0.19) ** 2 < 0.75:
                    self.draw_polygon(ellipse_points((x, y), 0.028, 0.024), self.marks)
        neck = (
            np.array([[0.2, -0.08], [0.38, 0.06], [0.56, -0.2], [0.42, -0.3]])
            if is_zebra
            else np.array([[0.22, -0.12], [0.36, 0.08], [0.5, -0.02], [0.44, -0.2]])
        )
        joint = (0.32, -0.05)
        self.draw_polygon(neck, self.body, joint, 0.5 * self.pose.head)
        head_center = (0.5, -0.27) if is_zebra else (0.48, -0.13)
        self.draw_polygon(
            np.array([[-0.1, -0.04], [-0.04, -0.2], [0.02, -0.06]]) + head_center,
            self.marks,
            joint,
            0.5 * self.pose.head,
        )
        self.draw_head(head_center, 0.11, joint, self.body, self.marks if is_zebra else (240, 226, 200))

    def draw_bird(self) -> None:
        """Draw a parrot or owl with a beating wing."""
        is_owl, wing_angle = self.animal.species == "owl", 0.9 * self.pose.limbs
        tail = np.array([[-0.24, -0.06], [-0.24, 0.1], [-0.58, 0.22], [-0.55, 0.04]])
        self.draw_polygon(tail, self.marks if not is_owl else (104, 74, 50))
        self.draw_limb((-0.02, 0.14), 0.16, 0.02, 0.3 * self.pose.limbs, (220, 170, 60))
        self.draw_limb((0.06, 0.14), 0.16, 0.02, -0.3 * self.pose.limbs, (200, 150, 50))
        self.draw_polygon(ellipse_points((0, 0), 0.34, 0.23 if is_owl else 0.19), self.body)
        for x, y in self.rng.uniform((-0.2, -0.12), (0.25, 0.15), (14, 2)):
            self.draw_polygon(ellipse_points((x, y), 0.022, 0.03), self.marks if is_owl else (60, 196, 120))
        wing = np.array([[0.14, -0.06], [0.02, -0.13], [-0.3, -0.16], [-0.48, -0.02], [-0.26, 0.06], [0.02, 0.06]])
        self.draw_polygon(wing, (112, 80, 54) if is_owl else (34, 92, 196), (0.1, -0.04), wing_angle)
        for k in (0.3, 0.55, 0.8):
            feather = np.array(
                [[0.08 - 0.5 * k, -0.08], [0.1 - 0.5 * k, 0.03], [0.06 - 0.5 * k, 0.03], [0.05 - 0.5 * k, -0.08]]
            )
            self.draw_polygon(feather, self.marks, (0.1, -0.04), wing_angle)
        self.draw_head(
            (0.36, -0.17), 0.15 if is_owl else 0.12, (0.24, -0.08), self.body if is_owl else self.marks, (232, 196, 70)
        )

    def draw_swimmer(self) -> None:
        """Draw a seal or turtle with paddling flippers."""
        is_turtle, flipper_angle = self.animal.species == "turtle", 0.7 * self.pose.limbs
        dark: Color = tuple(int(0.8 * c) for c in self.body)  # type: ignore[assignment]
        if is_turtle:
            for x, phase in ((-0.26, -1), (0.24, 1)):
                self.draw_limb((x, 0.06), 0.28, 0.07, phase * flipper_angle + 0.4, (112, 150, 86))
            self.draw_polygon(
                np.array([[-0.42, 0.1], [-0.3, -0.16], [0, -0.27], [0.28, -0.16], [0.4, 0.1], [0, 0.16]]), self.body
            )
            for x in (-0.22, 0, 0.2):
                for y in (-0.12, 0.04):
                    self.draw_polygon(ellipse_points((x + self.rng.uniform(-0.02, 0.02), y), 0.075, 0.055), self.marks)
            self.draw_head((0.48, -0.02), 0.11, (0.36, 0.04), (112, 150, 86), (132, 168, 98))
            return
        self.draw_polygon(
            np.array([[-0.3, -0.04], [-0.58, -0.16], [-0.54, 0.02], [-0.6, 0.18], [-0.3, 0.08]]),
            dark,
            (-0.34, 0.02),
            0.5 * self.pose.limbs,
        )
        self.draw_polygon(
            np.array(
                [[-0.38, 0.02], [-0.1, -0.16], [0.2, -0.2], [0.42, -0.16], [0.42, 0.06], [0.1, 0.18], [-0.2, 0.14]]
            ),
            self.body,
        )
        for x, y in self.rng.uniform((-0.2, -0.08), (0.3, 0.1), (16, 2)):
            self.draw_polygon(ellipse_points((x, y), 0.025, 0.02), self.marks)
        self.draw_limb((0.12, 0.08), 0.3, 0.07, flipper_angle + 0.4, dark)
        self.draw_head((0.46, -0.13), 0.13, (0.34, -0.04), self.body, (60, 66, 84))


def rotation_matrix(angle: float) -> np.ndarray:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


UNIT_CIRCLE = np.stack(
    [np.cos(np.linspace(0, 2 * math.pi, 16, False)), np.sin(np.linspace(0, 2 * math.pi, 16, False))], 1
)


def ellipse_points(center: tuple[float, float], half_width: float, half_height: float) -> np.ndarray:
    return UNIT_CIRCLE * (half_width, half_height) + center


def fill_disc(image: np.ndarray, center: tuple[float, float], radius: float, color: Color) -> None:
    fill_polygon(image, ellipse_points(center, radius, radius), color)


def fill_polygon(image: np.ndarray, points: np.ndarray, color: Color) -> None:
    """Fill an anti-aliased polygon with subpixel coordinates."""
    cv2.fillPoly(image, [np.rint(points * 2**FRACTION_BITS).astype(np.int32)], color, cv2.LINE_AA, FRACTION_BITS)
