"""Thresholds of seeds without masks, by Otsu's method on the values of their maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from camplug.errors import InputError
from camplug.wsss.store.seed_folder import SeedFolder

Steps: TypeAlias = AbstractContextManager[Callable[[], None]]
LEVELS = 256
MAX_IMAGES = 2000


def choose_evenly(ids: Sequence[str]) -> Sequence[str]:
    """Return all names, or every n-th of more than 2000, so that at most 2000 are left.

    >>> len(choose_evenly(["a"] * 2000)), len(choose_evenly(["a"] * 5000))
    (2000, 1667)
    """
    return ids[:: max(1, -(-len(ids) // MAX_IMAGES))]


def count_strongest_values(
    seeds: SeedFolder, ids: Sequence[str], step: Callable[[], None] = lambda: None
) -> NDArray[np.int64]:
    """Count how often each value 0/255 to 255/255 is the largest of a pixel's maps, int64 [256].

    Images without a readable seed or without classes are left out.

    Args:
        seeds: maps.
        ids: image names.
        step: callback after every image.
    """
    counts = np.zeros(LEVELS, np.int64)
    for name in ids:
        step()
        try:
            maps = seeds.load(name).maps
        except InputError:
            continue
        if len(maps):
            values = maps if maps.dtype == np.uint8 else np.rint(maps.astype(np.float32) * 255).astype(np.uint8)
            counts += np.bincount(values.max(0).ravel(), minlength=LEVELS)
    return counts


def compute_otsu_thresholds(counts: NDArray[np.integer], classes: int = 2) -> tuple[float, ...]:
    """Compute the thresholds that minimise the variance within classes of values (Otsu 1979).

    With weights $w_i$ and means $m_i$ of the classes they maximise $\\sum_i w_i (m_i - m)^2$, the variance between. A
    value equal to a threshold belongs to the lower class.

    Args:
        counts: counts [256] of the values 0/255 to 255/255.
        classes: 2 for one threshold, 3 for two.

    Returns:
        classes - 1 increasing thresholds in [0, 1).

    Raises:
        InputError: there are fewer different values than classes, or scikit-image is missing.

    >>> values = np.repeat([10, 20, 120, 130, 250], 5)
    >>> [round(255 * t) for t in compute_otsu_thresholds(np.bincount(values, minlength=256), 3)]
    [20, 130]
    """
    try:
        from skimage.filters import threshold_multiotsu  # 0.3 s
    except ImportError:
        raise InputError(
            'Otsu\'s method needs the package scikit-image; install it with: pip install "camplug[train]".'
        ) from None
    if np.count_nonzero(counts) < classes:
        raise InputError(
            f"the seeds hold {np.count_nonzero(counts)} different values, and Otsu's method needs {classes}; give the "
            "thresholds as numbers."
        )
    cuts = threshold_multiotsu(  # type: ignore[no-untyped-call]
        hist=(counts.astype(np.float64), np.arange(LEVELS)), classes=classes
    )
    return tuple(float(cut) / 255 for cut in cuts)


def compute_otsu_of_seeds(
    seeds: SeedFolder, ids: Sequence[str], classes: int, steps: Callable[[int], Steps]
) -> tuple[tuple[float, ...], int]:
    """Compute Otsu's thresholds of a folder's maps; return them with the number of images used, at most 2000.

    Args:
        seeds: maps.
        ids: image names.
        classes: see `compute_otsu_thresholds`.
        steps: function from the number of images to a context that yields the callback after each.

    Raises:
        InputError: see `compute_otsu_thresholds`.
    """
    ids = choose_evenly(ids)
    with steps(len(ids)) as step:
        values = count_strongest_values(seeds, ids, step)
    return compute_otsu_thresholds(values, classes), len(ids)
