"""Drawing of synthetic scenes on arrays: distances to shapes, textures of heads and of grounds.

Lengths are in units of the image's shorter side, x to the right and y down; colours are in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.floating[Any]]

SHAPES = ("disc", "square", "triangle", "star", "cross", "hexagon")
TEXTURES = ("striped", "dotted", "ringed", "checked", "rayed", "zigzag")
GROUNDS = ("grass", "water", "bricks", "dunes", "tiles", "planks")

# heads: main colour, second colour; the first six are far apart in hue
HEADS = np.array(
    [
        [(214, 48, 40), (250, 226, 200)], [(38, 92, 200), (240, 226, 90)], [(30, 140, 66), (236, 244, 214)],
        [(238, 140, 20), (60, 34, 30)], [(128, 50, 168), (240, 200, 236)], [(16, 150, 166), (24, 38, 70)],
        [(226, 70, 150), (40, 40, 52)], [(130, 190, 40), (40, 52, 120)], [(120, 66, 30), (250, 210, 120)],
        [(70, 70, 220), (250, 250, 250)], [(180, 20, 70), (120, 220, 200)], [(220, 200, 40), (110, 40, 120)],
    ],
    np.float64,
) / 255  # fmt: skip
# grounds: two muted colours
EARTHS = np.array(
    [
        [(84, 120, 62), (124, 152, 84)], [(74, 116, 150), (126, 162, 184)], [(146, 96, 80), (184, 170, 154)],
        [(206, 184, 142), (178, 152, 112)], [(150, 154, 158), (190, 192, 190)], [(122, 92, 66), (156, 122, 90)],
        [(206, 212, 218), (176, 188, 202)], [(92, 84, 120), (128, 116, 150)], [(104, 128, 118), (150, 166, 148)],
        [(196, 160, 150), (170, 128, 124)], [(70, 78, 86), (104, 110, 116)], [(168, 166, 108), (138, 138, 84)],
    ],
    np.float64,
) / 255  # fmt: skip
# bodies: colours for any class
COATS = np.array(
    [(150, 132, 112), (112, 108, 106), (186, 170, 148), (122, 98, 84), (140, 146, 150), (160, 120, 104),
     (118, 124, 100), (172, 158, 162)],
    np.float64,
) / 255  # fmt: skip


def make_outline(shape: str) -> Array:
    """Return the corners of a shape of area 1 around the origin, [P,2]; a disc has 40."""
    if shape == "star":
        angles, radii = np.arange(10) * np.pi / 5, np.where(np.arange(10) % 2, 0.5, 1.0)
    elif shape == "cross":
        a = 0.36
        corners = [(a, a), (1, a), (1, -a), (a, -a), (a, -1), (-a, -1), (-a, -a), (-1, -a), (-1, a), (-a, a), (-a, 1)]
        points = np.array([*corners, (a, 1)])
        angles, radii = np.arctan2(points[:, 1], points[:, 0]), np.hypot(points[:, 0], points[:, 1])
    else:
        count = {"disc": 40, "square": 4, "triangle": 3, "hexagon": 6}[shape]
        angles, radii = (np.arange(count) + 0.5) * 2 * np.pi / count, np.ones(count)
    corners_xy = np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)
    x, y = corners_xy.T
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    return np.asarray(corners_xy / np.sqrt(area))


def compute_polygon_distance(x: Array, y: Array, corners: Array) -> Array:
    """Compute the signed distance of points x, y [H,W] to a polygon with corners [P,2]; negative inside."""
    nearest = np.full(x.shape, np.inf)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        nearest = np.minimum(nearest, compute_segment_distance(x, y, (ax, ay), (bx, by)))
        if ay != by:
            inside ^= ((ay > y) != (by > y)) & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
    return np.where(inside, -nearest, nearest)


def compute_segment_distance(x: Array, y: Array, start: tuple[float, float], end: tuple[float, float]) -> Array:
    """Compute the distance of points [H,W] to a line segment."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = ((x - start[0]) * dx + (y - start[1]) * dy) / max(dx * dx + dy * dy, 1e-12)
    along = np.clip(along, 0, 1)
    return np.hypot(x - start[0] - along * dx, y - start[1] - along * dy)


def make_texture(kind: str, u: Array, v: Array, phase: float) -> Array:
    """Compute a head's texture in [0, 1] at u, v [H,W], in units of the head's radius."""
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    k = 5.2
    waves: dict[str, Callable[[], Array]] = {
        "striped": lambda: np.sin(k * 1.1 * u + phase),
        "dotted": lambda: np.cos(k * u + phase) + np.cos(k * v) - 0.5,
        "ringed": lambda: np.sin(k * 1.3 * radius + phase),
        "checked": lambda: 1.6 * np.sin(k * 0.8 * u + phase) * np.sin(k * 0.8 * v),
        "rayed": lambda: np.sin(5 * angle + phase),
        "zigzag": lambda: np.sin(k * 1.1 * (v + 0.9 * np.abs((1.3 * u + phase) % 1 - 0.5))),
    }
    return np.asarray(np.clip(0.5 + 1.6 * waves[kind](), 0, 1))


def make_ground(kind: str, x: Array, y: Array, rng: np.random.Generator) -> Array:
    """Compute a ground's texture in [0, 1] at x, y [H,W], randomly rotated and scaled a little."""
    scale, tilt = rng.uniform(0.85, 1.2), rng.uniform(-0.15, 0.15)
    shift = rng.uniform(0, 1, 2)
    x, y = scale * (x + tilt * y) + shift[0], scale * (y - tilt * x) + shift[1]
    fine, coarse = make_noise(rng, x.shape, (28, 28)), make_noise(rng, x.shape, (5, 5))
    if kind == "grass":  # blades: upright streaks
        value = 0.5 + 0.55 * make_noise(rng, x.shape, (8, 48)) + 0.2 * fine + 0.15 * coarse
    elif kind == "water":  # waves: level, unsteady
        value = 0.5 + 0.4 * np.sin(2 * np.pi * (7 * y + 0.35 * np.sin(2 * np.pi * 1.7 * x) + 0.5 * coarse)) + 0.1 * fine
    elif kind == "bricks":
        row = np.floor(y * 8)
        gap = np.minimum(_get_edge(y * 8) / 8, _get_edge(x * 4 + 0.5 * (row % 2)) / 4)
        value = (
            np.clip(1 - (gap - 0.006) * 120, 0, 1) + 0.15 * fine + 0.2 * _hash(row, np.floor(x * 4 + 0.5 * (row % 2)))
        )
    elif kind == "dunes":  # ripples on the slant
        value = 0.5 + 0.35 * np.sin(2 * np.pi * (4 * x + 4 * y + 0.8 * coarse)) + 0.15 * fine
    elif kind == "tiles":
        gap = np.minimum(_get_edge(x * 5), _get_edge(y * 5)) / 5
        value = 0.25 + 0.6 * ((np.floor(x * 5) + np.floor(y * 5)) % 2) - 0.5 * (gap < 0.008) + 0.08 * fine
    else:  # planks: upright boards with grain
        board = np.floor(x * 6)
        grain = np.sin(2 * np.pi * (18 * x + 0.6 * np.sin(2 * np.pi * (0.8 * y + _hash(board, board)))))
        value = 0.5 + 0.3 * _hash(board, board + 1) + 0.15 * grain - 0.8 * (_get_edge(x * 6) < 0.05) + 0.1 * fine
    return np.asarray(np.clip(value, -0.3, 1.3))


def make_noise(rng: np.random.Generator, shape: tuple[int, ...], cells: tuple[int, int]) -> Array:
    """Draw smooth noise [H,W] with mean about 0 and deviation below 1: a random grid, enlarged bicubically."""
    grid = rng.normal(size=cells).astype(np.float32)
    drawn = Image.fromarray(grid).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(drawn, np.float64)


def _get_edge(t: Array) -> Array:
    """Compute the distance to the nearest whole number."""
    return np.abs(t - np.round(t))


def _hash(a: Array, b: Array) -> Array:
    """Compute a pseudo-random number in [-.5, .5) that depends on a and b only."""
    return np.asarray((np.sin(a * 12.9898 + b * 78.233) * 43758.5453) % 1 - 0.5)
