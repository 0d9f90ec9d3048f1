"""Instances from maps, displacements and a random walk, as in IRN (Ahn, Cho & Kwak, CVPR 2019)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import index
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from camplug.errors import InputError
from camplug.wsss.affinity.grid import enlarge_planes
from camplug.wsss.affinity.sparse import to_numpy
from camplug.wsss.irn.network import STRIDE, grid_size

IRN_THRESHOLD = 0.25  # background of IRN's maps (Ahn, Cho & Kwak, CVPR 2019)
SMALLEST = 0.01

Floats = NDArray[np.floating[Any]]
Whole = NDArray[np.integer[Any]]


class Instance(NamedTuple):
    """Object of a photograph.

    Attributes:
        class_index: index of its map.
        mask: 4-connected region, bool [H,W].
        score: maximum of its map inside the mask, in (0, 1].
    """

    class_index: int
    mask: NDArray[np.bool_]
    score: float


def find_centroids(displacement: Any, steps: int = 300) -> NDArray[np.int64]:
    """Find the end point of each position when it follows the displacements.

    Starting at its own coordinates, each step adds the bilinearly interpolated displacement and clips to the grid. The
    end is rounded, halves to even. Computed in float64.

    Args:
        displacement: [2,h,w], rows before columns, in grid positions; array or tensor.
        steps: maximum number of steps; 100 or more in the paper, 300 in their code.

    Returns:
        Row and column, [2,h,w].

    Raises:
        InputError: another shape, NaN or infinity, or a negative or fractional number of steps.

    >>> find_centroids([[[0, 0, 0]], [[2, 1, 0]]])  # all positions of the row point to its end
    array([[[0, 0, 0]],
           [[2, 2, 2]]])
    """
    field = _read_field(displacement).astype(np.float64)
    last = np.array(field.shape[1:]).reshape(2, 1, 1) - 1
    at = np.indices(field.shape[1:]).astype(np.float64)
    for _ in range(_read_count(steps)):
        before = at
        move = [ndimage.map_coordinates(plane, at, order=1, mode="nearest") for plane in field]
        at = np.clip(at + np.stack(move), 0, last)
        if np.array_equal(at, before):  # converged
            break
    return np.rint(at).astype(np.int64)


def cluster_positions(displacement: Any, centroids: Any, threshold: float = 2.5) -> tuple[Whole, int]:
    """Group positions that end at the same centre, a 4-connected region of short displacements.

    Positions that end at no centre get the label 0, among them those of objects whose centre is outside the photograph:
    they end at the border.

    Args:
        displacement: displacements; see `find_centroids`.
        centroids: end point of each position, integers [2,h,w].
        threshold: length below which displacements belong to a centre, in grid positions.

    Returns:
        Labels [h,w], 0 or 1 to n, and the number n of centres, including those that no position ends at.

    Raises:
        InputError: the shapes do not fit, centroids are off the grid, or the threshold is not above 0.

    >>> field = np.zeros((2, 1, 8))
    >>> field[1, 0] = [1, 0, 0, -1, 1, 0, 0, -1]
    >>> cluster_positions(field, find_centroids(field), threshold=1)
    (array([[1, 1, 1, 1, 2, 2, 2, 2]], dtype=int32), 2)
    """
    field = _read_field(displacement)
    if not (isinstance(threshold, (int, float)) and threshold > 0):
        raise InputError(f"threshold={threshold!r}; give a length above 0, in grid positions (IRN: 2.5).")
    ends = to_numpy(centroids, "centroids")
    if ends.shape != field.shape or ends.dtype.kind not in "iu":
        raise InputError(f"centroids are {ends.dtype} {list(ends.shape)}; give integers {list(field.shape)}.")
    rows, columns = ends
    h, w = field.shape[1:]
    if rows.min() < 0 or columns.min() < 0 or rows.max() >= h or columns.max() >= w:
        raise InputError(f"a centroid lies off the {h}x{w} grid; give rows and columns as `find_centroids` does.")
    parts, count = ndimage.label(np.hypot(*field) < threshold)
    return parts[rows, columns], int(count)


def cut_instance_maps(maps: Any, clusters: Whole) -> list[tuple[int, Floats]]:
    """Cut each map to each cluster, leaving out results that are 0 everywhere.

    Positions without a centre form another cluster, as in IRN's code, so that objects cut by the border are not lost.

    Args:
        maps: nonnegative floats [K,h,w].
        clusters: labels from `cluster_positions`, [h,w].

    Returns:
        Pairs of the index of the map and the cut map [h,w].

    Raises:
        InputError: the maps have another dtype or size.

    >>> cut_instance_maps(np.array([[[0.5, 0.7, 0.0]]]), np.array([[1, 2, 3]]))
    [(0, array([[0.5, 0. , 0. ]])), (0, array([[0. , 0.7, 0. ]]))]
    """
    planes = _read_maps(maps, clusters.shape)
    masks = [clusters == label for label in np.unique(clusters)]
    cut = [(k, np.where(mask, plane, 0)) for k, plane in enumerate(planes) for mask in masks]
    return [(k, plane) for k, plane in cut if plane.any()]


def find_instances(
    maps: Any,
    displacement: Any,
    spread: Callable[[Floats], Any],
    size: Sequence[int],
    *,
    threshold: float = IRN_THRESHOLD,
    smallest: float = SMALLEST,
    steps: int = 300,
    short: float = 2.5,
) -> list[Instance]:
    """Find the objects of a photograph: IRN's instance step.

    The maps are split by the clusters of the displacements (`find_centroids`, `cluster_positions`,
    `cut_instance_maps`) and spread by a random walk. They are resized bilinearly to 4 times the grid, cropped to the
    photograph and divided by their common maximum. Each pixel is assigned to the strongest map, or to the background
    where none is above `threshold`. Every 4-connected piece of a map's pixels is an object; pieces too small are
    dropped, where IRN's code keeps them with a score of 0.

    Args:
        maps: nonnegative floats [K,h,w] on the grid of stride 4; K may be 0.
        displacement: [2,h,w], rows before columns, in grid positions.
        spread: random walk of the cut maps [M,h,w], such as `lambda x: propagate(x * (1 - boundary), affinity)`.
        size: (H, W) of the photograph.
        threshold: background threshold, from 0 to below 1.
        smallest: minimum size of a piece, as a part of the photograph.
        steps: see `find_centroids`.
        short: threshold of `cluster_positions`.

    Returns:
        Objects by decreasing score; masks do not overlap.

    Raises:
        InputError: the sizes do not fit together, values are not finite, or an option is out of range.

    Two touching objects of one class; each half of the map points to its own centre:

    >>> field = np.zeros((2, 4, 16))
    >>> field[1] = np.repeat([4, 12], 8) - np.arange(16)
    >>> found = find_instances(np.ones((1, 4, 16)), field, spread=lambda maps: maps, size=(16, 64))
    >>> [(one.class_index, int(one.mask.sum()), one.score) for one in found]
    [(0, 512, 1.0), (0, 512, 1.0)]
    """
    height, width = _read_size(size)
    check_share(threshold, "threshold")
    check_share(smallest, "smallest")
    field = _read_field(displacement)
    _check_grid(field, height, width)
    clusters, _ = cluster_positions(field, find_centroids(field, steps), short)
    parts = cut_instance_maps(maps, clusters)
    if not parts:
        return []
    walked = _run_spread(spread, np.stack([plane for _, plane in parts]))
    owner, best = _find_strongest(walked, height, width, threshold)
    found = [
        Instance(class_index, piece, float(best[piece].max()))
        for label, (class_index, _) in enumerate(parts, start=1)
        for piece in _split_pieces(owner == label, smallest * height * width)
    ]
    return sorted(found, key=lambda one: -one.score)


def check_share(value: Any, name: str) -> None:
    """Raise `InputError` for a value that is no number from 0 to below 1."""
    if not (isinstance(value, (int, float)) and 0 <= value < 1):
        raise InputError(f"{name}={value!r}; give a number from 0 to below 1.")


def _check_grid(field: Floats, height: int, width: int) -> None:
    h, w = grid_size(height, width)
    if field.shape[1:] != (h, w):
        raise InputError(
            f"the displacement is {list(field.shape)} and the photograph {height}x{width}, whose grid of stride "
            f"{STRIDE} is {h}x{w}; give the displacement of this photograph."
        )


def _run_spread(spread: Callable[[Floats], Any], planes: Floats) -> Floats:
    walked = to_numpy(spread(planes), "what spread returned")
    if walked.shape != planes.shape or walked.dtype.kind != "f" or not np.isfinite(walked).all():
        raise InputError(
            f"spread made {walked.dtype} {list(walked.shape)} of maps {list(planes.shape)}; it must return finite "
            "floats of the same shape."
        )
    return walked


def _find_strongest(
    planes: Floats, height: int, width: int, threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the strongest plane at each pixel, from 1, or 0 for the background (also on ties), and its value.

    Each plane is enlarged twice instead of storing all of them at the photograph's size.
    """
    owner = np.zeros((height, width), np.int64)
    best = np.full((height, width), threshold, np.float32)
    top = max(_enlarge(plane, height, width).max() for plane in planes)
    if top > 0:
        for number, plane in enumerate(planes, start=1):
            score = _enlarge(plane, height, width) / top
            wins = score > best
            owner[wins], best[wins] = number, score[wins]
    return owner, best


def _enlarge(plane: Floats, height: int, width: int) -> NDArray[np.float32]:
    """Enlarge a plane to stride 1 and crop it to the photograph."""
    planes = torch.from_numpy(plane.astype(np.float32))[None]
    pixels: NDArray[np.float32] = enlarge_planes(planes, STRIDE, (height, width))[0].numpy()
    return pixels


def _split_pieces(mask: NDArray[np.bool_], smallest: float) -> list[NDArray[np.bool_]]:
    """Split a mask into 4-connected pieces of at least `smallest` pixels."""
    parts, _ = ndimage.label(mask)
    areas = np.bincount(parts.ravel())
    return [parts == i for i in range(1, len(areas)) if areas[i] >= smallest]


def _read_field(displacement: Any) -> Floats:
    field = to_numpy(displacement, "the displacement")
    if field.ndim != 3 or len(field) != 2 or not field.size or field.dtype.kind not in "iuf":
        raise InputError(f"the displacement is {field.dtype} {list(field.shape)}; give floats [2,h,w], rows first.")
    if not np.isfinite(field).all():
        raise InputError("the displacement holds nan or infinity; give finite numbers, in grid positions.")
    return field


def _read_maps(maps: Any, size: tuple[int, ...]) -> Floats:
    planes = to_numpy(maps, "the maps")
    if planes.ndim != 3 or planes.shape[1:] != size or planes.dtype.kind != "f":
        raise InputError(f"the maps are {planes.dtype} {list(planes.shape)}; give floats [K,{size[0]},{size[1]}].")
    if planes.size and not (np.isfinite(planes).all() and planes.min() >= 0):
        raise InputError("the maps hold nan, infinity or negative values; give finite maps of at least 0.")
    return planes


def _read_size(size: Sequence[int]) -> tuple[int, int]:
    try:
        height, width = map(index, size)
    except (TypeError, ValueError):
        height = width = 0
    if height < 1 or width < 1:
        raise InputError(f"size={size!r}; give the photograph's height and width, such as (375, 500).")
    return height, width


def _read_count(steps: Any) -> int:
    try:
        number = index(steps)
    except TypeError:
        number = -1
    if number < 0:
        raise InputError(f"steps={steps!r}; give a whole number of at least 0 (IRN: 300).")
    return number
