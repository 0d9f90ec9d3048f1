"""Creatures of synthetic scenes: a head and a body, their placement and their distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from camplug.wsss.data import painting
from camplug.wsss.data.painting import COATS, HEADS, SHAPES, Array

TRIES = 30  # attempts to place a creature before it is left out


@dataclass(frozen=True)
class Creature:
    """Object of a scene; lengths in units of the image's shorter side."""

    kind: int  # class
    centre: Array  # head, [2] (x, y)
    angle: float  # direction of the head
    area: float  # head and body
    bones: list[tuple[Array, Array, float]]  # body segments: ends in the image, reduction of the width
    width: float  # body, approximate
    radius: float  # head
    coat: Array  # colour of the body, [3]
    colours: Array  # both colours of the head, [2,3]
    phase: float  # head's texture


def place_creature(placed: list[Creature], kind: int, plain: float, extent: Array, rng: np.random.Generator) -> None:
    """Add a creature of a class at a place where all creatures stay visible, if one is found."""
    for attempt in range(TRIES):
        one = _make_creature(kind, plain, extent, 1 - 0.5 * attempt / TRIES, rng)
        if all(_is_visible(one, other) and _is_visible(other, one) for other in placed):
            placed.append(one)
            return


def _make_creature(kind: int, plain: float, extent: Array, shrink: float, rng: np.random.Generator) -> Creature:
    """Make a random creature of a class inside an image with the extent [2] (width, height)."""
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
    points = np.stack(rotate(points[:, 0], points[:, 1], angle), 1)
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
    """Return whether most of the lower creature's head and of its body's middle stays visible below the upper one."""
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


def compute_distances(one: Creature, x: Array, y: Array, plain: float, unit: int) -> tuple[Array, Array]:
    """Compute signed distances to the head and to the body [H,W]; the body's thickness follows from its area."""
    none = np.full(x.shape, np.inf)
    head = none
    if plain < 1:
        u, v = rotate(x - one.centre[0], y - one.centre[1], -one.angle)
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


def rotate(x: Array, y: Array, angle: float) -> tuple[Array, Array]:
    """Rotate points around the origin by an angle."""
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * x - sin * y, sin * x + cos * y
