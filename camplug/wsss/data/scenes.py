"""Scenes drawn on the spot: many-label photographs with exact masks, and a known reason why CAM misses half of them."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from camplug.errors import InputError
from camplug.wsss.data import painting
from camplug.wsss.data.dataset import SegmentationData
from camplug.wsss.data.painting import COATS, EARTHS, GROUNDS, HEADS, SHAPES, TEXTURES, Array
from camplug.wsss.store.identity import make_digest

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = 1  # raised when the same numbers draw something else
MOST = len(HEADS)
STEEPEST = 1.4  # light that leaves a square scene's darkest corner just above black
TRIES = 30  # at a place for one more object, before the scene goes without it


@dataclass(frozen=True)
class Creature:
    """One object of a scene; lengths in units of the image's shorter side."""

    kind: int  # its class
    centre: Array  # of the head, [2] (x, y)
    angle: float  # of the head's direction
    area: float  # of head and body
    bones: list[tuple[Array, Array, float]]  # the body's segments in the image, and how much thinner each is
    width: float  # of the body, about
    radius: float  # of the head
    coat: Array  # the body's colour, [3]
    colours: Array  # the head's two, [2,3]
    phase: float  # of the head's texture


@dataclass(frozen=True)
class Scene:
    """One drawn scene: photo uint8 [H,W,3], mask and part uint8 [H,W], and which class's ground it has."""

    photo: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    part: NDArray[np.uint8]
    ground: int


class Scenes(SegmentationData):
    """Scenes with 1 to 3 creatures, drawn from random numbers: no files, exact masks, any number of images.

    A creature is a head, whose outline, texture and colours tell its class, and a plain body of a colour and a build
    that any class may have. The ground has a texture too, and class k stands mostly on ground k. So a classifier needs
    no more than the head, and may go by the ground: its maps miss the bodies and leak into the background, which is
    what weakly supervised segmentation has to cope with.

    Image i depends on the seed, i and the options alone: not on `count`, nor on the order of access.

    Args:
        count: how many images.
        size: (height, width) in pixels, 16 or more each.
        seed: another seed gives other images (a validation set, say).
        classes: C, 1 to 12.
        cooccurrence: the probability that the ground is the one of the first creature's class; otherwise it is drawn
            from all C grounds.
        plain: the share of a creature's area that is body; 0 leaves heads only, 1 bodies only, which nothing tells
            apart but the ground.
        objects: the least and the most creatures in an image; where there is no room for one more, there are fewer.
        noise: standard deviation of the pixel noise, of a full scale of 1.
        likeness: how far a body's colour is on the way from any coat, 0, to its head's main colour, 1.
        light: how unevenly scenes may be lit: the most that brightness changes over the length of the shorter side, of
            that in the middle; 0 to 1.4.

    Raises:
        InputError: an option is out of its range.
    """

    has_masks = True

    def __init__(
        self,
        count: int,
        size: tuple[int, int] = (96, 96),
        seed: int = 0,
        classes: int = 6,
        *,
        cooccurrence: float = 0.9,
        plain: float = 0.5,
        objects: tuple[int, int] = (1, 3),
        noise: float = 0.03,
        likeness: float = 0.0,
        light: float = 0.35,
    ) -> None:
        count, seed, classes = (
            _check_whole("count", count, 1),
            _check_whole("seed", seed, 0),
            _check_whole("classes", classes, 1, MOST),
        )
        self.size = _check_pair("size (height, width)", size, 16)
        self.objects = _check_pair("objects (least, most)", objects, 1, 8)
        if self.objects[0] > self.objects[1]:
            raise InputError(f"objects={objects!r}: scenes need the least first, then the most.")
        self.seed = seed
        self.cooccurrence, self.plain = _check_share("cooccurrence", cooccurrence), _check_share("plain", plain)
        self.noise, self.likeness = _check_share("noise", noise), _check_share("likeness", likeness)
        self.light = _check_share("light", light, STEEPEST)
        self.classes = tuple(f"{TEXTURES[k % 6]} {SHAPES[(k + k // 6) % 6]}" for k in range(classes))
        self.ids = tuple(f"scene{seed}_{i:06d}" for i in range(count))
        self._last: tuple[int, Scene] | None = None  # photo, mask and labels of one image are asked for in a row

    def labels(self, i: int) -> tuple[int, ...]:
        """The classes that image i shows, sorted."""
        return tuple(int(c) - 1 for c in np.unique(self._get_scene(i).mask) if c)

    def photo(self, i: int) -> Image:
        """Image i, RGB."""
        from PIL import Image as pil

        return pil.fromarray(self._get_scene(i).photo)

    def mask(self, i: int) -> NDArray[np.uint8]:
        """Image i's mask, uint8 [H,W]; a pixel is the uppermost creature's at its centre, and none is ignored."""
        return self._get_scene(i).mask.copy()

    def photo_digest(self, i: int) -> str:
        """Return a digest of what image i is drawn from; nothing is drawn."""
        return self._make_digest(i) if type(self).photo is Scenes.photo else super().photo_digest(i)

    def label_digest(self, i: int) -> str:
        """Return a digest of what image i is drawn from; nothing is drawn."""
        return self._make_digest(i) if type(self).labels is Scenes.labels else super().label_digest(i)

    def mask_digest(self, i: int) -> str:
        """Return a digest of what image i is drawn from; nothing is drawn."""
        return self._make_digest(i) if type(self).mask is Scenes.mask else super().mask_digest(i)

    def _make_digest(self, i: int) -> str:
        numbers = (self.cooccurrence, self.plain, self.objects, self.noise, self.likeness, self.light)
        return "scene:" + make_digest([VERSION, self.seed, self._check_index(i), self.size, len(self.classes), numbers])

    def part(self, i: int) -> NDArray[np.uint8]:
        """What image i's pixels tell, uint8 [H,W]: 0 ground, 1 head (tells the class), 2 body (does not)."""
        return self._get_scene(i).part.copy()

    def ground(self, i: int) -> int:
        """The class on whose ground image i stands, shown in it or not."""
        return self._get_scene(i).ground

    def _get_scene(self, i: int) -> Scene:
        i = self._check_index(i)
        last = self._last
        if last is None or last[0] != i:
            rng = np.random.default_rng([self.seed, i])
            last = self._last = i, self._draw(rng)
        return last[1]

    def _draw(self, rng: np.random.Generator) -> Scene:
        height, width = self.size
        count = int(rng.integers(self.objects[0], self.objects[1] + 1))
        kinds = rng.integers(0, len(self.classes), count)
        usual, drawn = rng.random() < self.cooccurrence, int(rng.integers(len(self.classes)))
        creatures: list[Creature] = []
        for kind in kinds.tolist():
            _place_creature(creatures, kind, self.plain, np.array([width, height]) / min(self.size), rng)
        if rng.random() < 0.5:  # the first creature, whose ground it is, stands behind or in front
            creatures.reverse()
        creatures = [replace(c, coat=c.coat + self.likeness * (c.colours[0] - c.coat)) for c in creatures]
        ground = int(kinds[0]) if usual else drawn
        return draw_scene(creatures, ground, self.size, plain=self.plain, noise=self.noise, light=self.light, rng=rng)


def draw_scene(
    creatures: list[Creature],
    ground: int,
    size: tuple[int, int],
    *,
    plain: float,
    noise: float,
    light: float,
    rng: np.random.Generator,
) -> Scene:
    """Paint the ground and the creatures on it, each over those before it, and light the whole."""
    height, width = size
    unit = min(size)
    y, x = np.mgrid[0:height, 0:width]
    x, y = (x + 0.5) / unit, (y + 0.5) / unit
    tint = rng.normal(0, 0.02, 3)
    colours = EARTHS[ground] * rng.uniform(0.9, 1.1)
    picture = _mix_colours(colours[0], colours[1], painting.make_ground(GROUNDS[ground % 6], x, y, rng))
    mask, part = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    for one in creatures:
        head, body = _compute_distances(one, x, y, plain, unit)
        near = np.minimum(head, body)
        picture *= 1 - 0.35 * np.clip(1 - near / 0.05, 0, 1)[..., None] ** 2  # a shadow round the feet
        round_ = np.clip(-body / max(one.width / 2, 1e-6), 0, 1)
        coat = one.coat * (0.72 + 0.36 * round_)[..., None]
        picture = _paint(picture, coat, body * unit)
        u, v = _rotate(x - one.centre[0], y - one.centre[1], -one.angle)
        values = painting.make_texture(
            TEXTURES[one.kind % 6], u / max(one.radius, 1e-6), v / max(one.radius, 1e-6), one.phase
        )
        face = _mix_colours(one.colours[0], one.colours[1], values)
        face *= (0.8 + 0.25 * np.clip(-3 * head / max(one.radius, 1e-6), 0, 1))[..., None]
        picture = _paint(picture, face, head * unit)
        mask[near <= 0] = one.kind + 1
        part[body <= 0] = 2
        part[head <= 0] = 1
    direction = rng.uniform(0, 2 * np.pi)
    slope = (x - x.mean()) * np.cos(direction) + (y - y.mean()) * np.sin(direction)
    brightness = rng.uniform(0.85, 1.1) * (1 + rng.uniform(0, light) * slope)
    picture = picture * brightness[..., None] + tint + rng.normal(0, noise, picture.shape)
    return Scene((picture.clip(0, 1) * 255).round().astype(np.uint8), mask, part, ground)


def _place_creature(placed: list[Creature], kind: int, plain: float, extent: Array, rng: np.random.Generator) -> None:
    """Add a creature of the class where it hides no other and is hidden by none, if such a place is found."""
    for attempt in range(TRIES):
        one = _make_creature(kind, plain, extent, 1 - 0.5 * attempt / TRIES, rng)
        if all(_is_visible(one, other) and _is_visible(other, one) for other in placed):
            placed.append(one)
            return


def _make_creature(kind: int, plain: float, extent: Array, shrink: float, rng: np.random.Generator) -> Creature:
    """A creature of the class, wholly inside an image of the extent [2] (width, height)."""
    area = float(rng.uniform(0.26, 0.46) * shrink) ** 2
    head, body = np.sqrt((1 - plain) * area / np.pi), plain * area
    stretch = rng.uniform(1.6, 3.2)
    width, length = np.sqrt(body / stretch), np.sqrt(body * stretch)
    start, bend = 0.6 * head, rng.uniform(-0.5, 0.5)
    spine = [np.array([-start, 0.0]), np.array([-start - 0.5 * length, 0.0])]
    spine.append(spine[1] + 0.5 * length * np.array([-np.cos(bend), np.sin(bend)]))
    bones = [(spine[0], spine[1], 0.0), (spine[1], spine[2], 0.0)]
    if rng.random() < 0.6:  # legs
        side = rng.choice([-1.0, 1.0])
        for at in (0.75 * spine[0] + 0.25 * spine[1], 0.3 * spine[1] + 0.7 * spine[2]):
            bones.append((at, at + np.array([0.1 * width, side * 1.1 * width]), 0.26 * width))
    angle = rng.uniform(-0.6, 0.6) + np.pi * rng.integers(2)
    points = np.array([p for a, b, _ in bones for p in (a, b)])
    points = np.stack(_rotate(points[:, 0], points[:, 1], angle), 1)
    # room for the head's outermost corner and the body's thickness
    low = np.minimum(points.min(0) - 0.6 * width, -1.75 * head)
    high = np.maximum(points.max(0) + 0.6 * width, 1.75 * head)
    room = np.maximum(extent - (high - low), 0)
    centre = rng.uniform(0, 1, 2) * room - low
    coat = COATS[rng.integers(len(COATS))] + rng.normal(0, 0.03, 3)
    colours = HEADS[kind] + rng.normal(0, 0.1, 3)
    turned = [(points[2 * n] + centre, points[2 * n + 1] + centre, thin) for n, (_, _, thin) in enumerate(bones)]
    return Creature(
        kind, centre, float(angle), area, turned, float(width), float(head), coat, colours, float(rng.uniform(0, 6.28))
    )


def _is_visible(lower: Creature, upper: Creature) -> bool:
    """Whether the upper one leaves most of the lower one's head, and of its body's middle, in sight."""
    spots = [(lower.centre, 1.2 * lower.radius)] if lower.radius else []
    spots.append((lower.bones[0][1], 0.3 * lower.width))
    for spot, around in spots:
        x, y = np.array(spot[0]), np.array(spot[1])
        away = [np.hypot(*(upper.centre - spot)) - 1.2 * upper.radius]
        away += [
            painting.compute_segment_distance(x, y, tuple(a), tuple(b)) - 0.5 * upper.width for a, b, _ in upper.bones
        ]
        if min(float(d) for d in away) < around:
            return False
    return True


def _compute_distances(one: Creature, x: Array, y: Array, plain: float, unit: int) -> tuple[Array, Array]:
    """Signed distances to the head and to the body [H,W], the body as thick as gives it its share of the area."""
    none = np.full(x.shape, np.inf)
    head = none
    if plain < 1:
        u, v = _rotate(x - one.centre[0], y - one.centre[1], -one.angle)
        shape = SHAPES[(one.kind + one.kind // 6) % 6]
        head = painting.compute_polygon_distance(u, v, painting.make_outline(shape) * np.sqrt((1 - plain) * one.area))
    if plain == 0:
        return head, none
    body = np.min(
        [painting.compute_segment_distance(x, y, tuple(a), tuple(b)) + thin for a, b, thin in one.bones], axis=0
    )
    free = np.sort(body[head > 0])
    pixels = min(max(round(plain * one.area * unit**2), 1), len(free))
    return head, body - free[pixels - 1]


def _rotate(x: Array, y: Array, angle: float) -> tuple[Array, Array]:
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * x - sin * y, sin * x + cos * y


def _mix_colours(first: Array, second: Array, share: Array) -> Array:
    """Two colours [3] mixed by a share [H,W] of the second, [H,W,3]."""
    return np.asarray(first + (second - first) * share[..., None])


def _paint(picture: Array, colour: Array, distance: Array) -> Array:
    """Lay a colour over the picture inside an edge that is soft over one pixel; the distance is in pixels."""
    return np.asarray(picture + (colour - picture) * np.clip(0.5 - distance, 0, 1)[..., None])


def _check_whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or (most is not None and number > most):
        allowed = f"{least} or more" if most is None else f"from {least} to {most}"
        raise InputError(f"{name}={value!r}: scenes need a whole number, {allowed}.")
    return number


def _check_pair(name: str, values: Any, least: int, most: int | None = None) -> tuple[int, int]:
    if not isinstance(values, (tuple, list)) or len(values) != 2:
        raise InputError(f"{name}={values!r}: scenes need two whole numbers.")
    return _check_whole(name, values[0], least, most), _check_whole(name, values[1], least, most)


def _check_share(name: str, value: Any, most: float = 1) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 <= number <= most:
        raise InputError(f"{name}={value!r}: scenes need a number from 0 to {most}.")
    return number
