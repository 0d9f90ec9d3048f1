"""Synthetic scenes: multi-label images with exact masks whose classes show in a part of each object only."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from camplug.errors import InputError
from camplug.wsss.data import painting
from camplug.wsss.data.creatures import Creature, compute_distances, place_creature, rotate
from camplug.wsss.data.dataset import SegmentationData
from camplug.wsss.data.painting import EARTHS, GROUNDS, HEADS, SHAPES, TEXTURES, Array
from camplug.wsss.store.identity import make_digest

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = 1  # increased when the same seed gives other images
MAX_CLASSES = len(HEADS)
SMALL_PIXELS = 128 * 128
MAX_LIGHT = 1.4  # the darkest corner of a square scene stays just above black


@dataclass(frozen=True)
class Scene:
    """Drawn scene: photo uint8 [H,W,3], mask and part uint8 [H,W], and the class of the ground."""

    photo: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    part: NDArray[np.uint8]
    ground: int


class Scenes(SegmentationData):
    """Random scenes with 1 to 3 creatures: no files, exact masks, any number of images.

    A creature has a head, whose outline, texture and colours depend on its class, and a plain body that does not. The
    ground has a texture, too, and class k stands mostly on ground k. A classifier can rely on the head and on the
    ground: its maps miss the bodies and include background, as in weakly supervised segmentation of photographs.

    Image i depends on the seed, i and the options only, not on `count` or the order of access.

    Args:
        count: number of images.
        size: (height, width) in pixels, 16 or more each.
        seed: random seed; another one gives other images, for validation for example.
        classes: C, 1 to 12.
        cooccurrence: probability that the ground belongs to the first creature's class; otherwise it is drawn from all
            C grounds.
        plain: share of the body in a creature's area; 0 gives heads only, 1 bodies only, whose classes only the ground
            shows.
        objects: minimum and maximum number of creatures in an image; fewer if there is no room.
        noise: standard deviation of the pixel noise, relative to a full scale of 1.
        likeness: mixture of the body's colour, from a random coat (0) to the head's main colour (1).
        light: maximum change of brightness over the length of the shorter side, relative to the centre; 0 to 1.4.

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
            _check_whole("classes", classes, 1, MAX_CLASSES),
        )
        self.size = _check_pair("size (height, width)", size, 16)
        self.objects = _check_pair("objects (least, most)", objects, 1, 8)
        if self.objects[0] > self.objects[1]:
            raise InputError(f"objects={objects!r}: scenes need the least first, then the most.")
        self.seed = seed
        self.cooccurrence, self.plain = _check_share("cooccurrence", cooccurrence), _check_share("plain", plain)
        self.noise, self.likeness = _check_share("noise", noise), _check_share("likeness", likeness)
        self.light = _check_share("light", light, MAX_LIGHT)
        self.classes = tuple(f"{TEXTURES[k % 6]} {SHAPES[(k + k // 6) % 6]}" for k in range(classes))
        self.ids = tuple(f"scene{seed}_{i:06d}" for i in range(count))

    def labels(self, i: int) -> tuple[int, ...]:
        """Return the classes visible in image i, sorted."""
        return tuple(int(c) - 1 for c in np.unique(self._get_scene(i).mask) if c)

    def photo(self, i: int) -> Image:
        """Draw image i, RGB."""
        from PIL import Image as pil

        return pil.fromarray(self._get_scene(i).photo)

    def mask(self, i: int) -> NDArray[np.uint8]:
        """Draw the mask of image i, uint8 [H,W]: the uppermost creature at each pixel's centre; no pixel is ignored."""
        return self._get_scene(i).mask.copy()

    def photo_digest(self, i: int) -> str:
        """Return a digest of the parameters of image i, without drawing it."""
        return self._make_digest(i) if type(self).photo is Scenes.photo else super().photo_digest(i)

    def label_digest(self, i: int) -> str:
        """Return a digest of the parameters of image i, without drawing it."""
        return self._make_digest(i) if type(self).labels is Scenes.labels else super().label_digest(i)

    def mask_digest(self, i: int) -> str:
        """Return a digest of the parameters of image i, without drawing it."""
        return self._make_digest(i) if type(self).mask is Scenes.mask else super().mask_digest(i)

    def _make_digest(self, i: int) -> str:
        numbers = (self.cooccurrence, self.plain, self.objects, self.noise, self.likeness, self.light)
        return "scene:" + make_digest([VERSION, self.seed, self._check_index(i), self.size, len(self.classes), numbers])

    def part(self, i: int) -> NDArray[np.uint8]:
        """Draw the parts of image i, uint8 [H,W]: 0 ground, 1 head (shows the class), 2 body (does not)."""
        return self._get_scene(i).part.copy()

    def ground(self, i: int) -> int:
        """Return the class of image i's ground; the class need not be visible."""
        return self._get_scene(i).ground

    def _get_scene(self, i: int) -> Scene:
        options = {k: getattr(self, k) for k in ("objects", "cooccurrence", "plain", "noise", "likeness", "light")}
        draw = draw_small_scene if math.prod(self.size) <= SMALL_PIXELS else draw_large_scene
        return draw(self.seed, self._check_index(i), self.size, len(self.classes), **options)


def draw_random_scene(
    seed: int,
    i: int,
    size: tuple[int, int],
    classes: int,
    *,
    objects: tuple[int, int],
    cooccurrence: float,
    plain: float,
    noise: float,
    likeness: float,
    light: float,
) -> Scene:
    """Draw image i of the seed; options as for `Scenes`."""
    rng = np.random.default_rng([seed, i])
    height, width = size
    count = int(rng.integers(objects[0], objects[1] + 1))
    kinds = rng.integers(0, classes, count)
    usual, drawn = rng.random() < cooccurrence, int(rng.integers(classes))
    creatures: list[Creature] = []
    for kind in kinds.tolist():
        place_creature(creatures, kind, plain, np.array([width, height]) / min(size), rng)
    if rng.random() < 0.5:  # the first creature is behind or in front
        creatures.reverse()
    creatures = [replace(c, coat=c.coat + likeness * (c.colours[0] - c.coat)) for c in creatures]
    ground = int(kinds[0]) if usual else drawn
    scene = draw_scene(creatures, ground, size, plain=plain, noise=noise, light=light, rng=rng)
    for array in (scene.photo, scene.mask, scene.part):
        array.flags.writeable = False  # kept below
    return scene


# drawing takes longer than a training step of a small network; 1024 small scenes take at most 84 MB
draw_small_scene = lru_cache(maxsize=1024)(draw_random_scene)
draw_large_scene = lru_cache(maxsize=4)(draw_random_scene)  # photo, mask and labels are often read together


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
    """Paint the ground and then the creatures in order, and apply the light."""
    height, width = size
    unit = min(size)
    y, x = np.mgrid[0:height, 0:width]
    x, y = (x + 0.5) / unit, (y + 0.5) / unit
    tint = rng.normal(0, 0.02, 3)
    colours = EARTHS[ground] * rng.uniform(0.9, 1.1)
    picture = _mix_colours(colours[0], colours[1], painting.make_ground(GROUNDS[ground % 6], x, y, rng))
    mask, part = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    for one in creatures:
        head, body = compute_distances(one, x, y, plain, unit)
        near = np.minimum(head, body)
        picture *= 1 - 0.35 * np.clip(1 - near / 0.05, 0, 1)[..., None] ** 2  # shadow
        round_ = np.clip(-body / max(one.width / 2, 1e-6), 0, 1)
        coat = one.coat * (0.72 + 0.36 * round_)[..., None]
        picture = _paint(picture, coat, body * unit)
        u, v = rotate(x - one.centre[0], y - one.centre[1], -one.angle)
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


def _mix_colours(first: Array, second: Array, share: Array) -> Array:
    """Mix two colours [3] by the share [H,W] of the second, [H,W,3]."""
    return np.asarray(first + (second - first) * share[..., None])


def _paint(picture: Array, colour: Array, distance: Array) -> Array:
    """Paint a colour where the distance in pixels is negative, with an edge that is soft over one pixel."""
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
