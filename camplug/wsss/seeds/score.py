"""Score seeds and label pictures against masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from camplug.errors import InputError
from camplug.metrics import ConfusionMatrix, ThresholdSweep
from camplug.wsss.data import SegmentationData
from camplug.wsss.store.result_folder import check_digests
from camplug.wsss.store.seed_folder import SeedFolder


def score_seeds(
    folder: SeedFolder,
    data: SegmentationData,
    thresholds: NDArray[np.float64] | None = None,
    step: Callable[[], None] = lambda: None,
) -> tuple[ThresholdSweep, list[tuple[str, str]]]:
    """Compare all seeds of a data set with its masks at every threshold, in one pass.

    Args:
        folder: seeds; classes are matched by name if the folder has class names.
        data: images with masks.
        thresholds: increasing thresholds in [0, 1); by default .01 to .99.
        step: callback after every image.

    Returns:
        Sweep, and the names of images that could not be scored with the reasons.

    Raises:
        InputError: the folder lacks a class of the data; no image can be scored.
    """
    folder = folder.renumber(data.classes)
    sweep = ThresholdSweep(len(data.classes) + 1, thresholds, data.ignore)

    def add(i: int, name: str) -> None:
        seed, mask = folder.load(name), data.mask(i)
        if seed.size != mask.shape:
            raise InputError(f"the seed of {name!r} is of a photograph of {seed.size}, its mask has {mask.shape}.")
        check_digests(folder, data, i, labels=True)
        sweep.add(seed.to_full_size(), seed.classes, mask)

    return sweep, _add_all(data, add, step)


def score_labels(
    folder: Path,
    data: SegmentationData,
    step: Callable[[], None] = lambda: None,
    *,
    ignore_as: Literal["background"] | None = None,
) -> tuple[ConfusionMatrix, list[tuple[str, str]]]:
    """Compare label pictures (palette or grey PNGs named like the images) with the masks of a data set.

    Classes are matched by name if the folder has class names; else they must be the data's, in their order. Labels of
    some of the data's classes are scored with a warning.

    Args:
        folder: label pictures.
        data: images with masks.
        step: callback after every image.
        ignore_as: "background" counts ignored pixels (255) of label pictures as background, as in IRN's code. None: a
            picture cannot be scored if it ignores pixels that the mask does not ignore.

    Returns:
        Confusion matrix, and the names of images that could not be scored with the reasons.

    Raises:
        InputError: the folder has no class of the data; no image can be scored.
    """
    from camplug.wsss.store.label_folder import LabelFolder

    labels = LabelFolder(folder).renumber(data.classes, some=True)
    matrix = ConfusionMatrix(len(data.classes) + 1, data.ignore)

    def add(i: int, name: str) -> None:
        picture, mask = labels.load(name), data.mask(i)
        check_digests(labels, data, i)
        ignored = picture == data.ignore
        if ignore_as == "background":
            picture = np.where(ignored, 0, picture)
        elif picture.shape == mask.shape and (ignored & (mask != data.ignore)).any():
            raise InputError(
                f"the labels of {name!r} leave pixels open (255) that the mask counts; --ignore-as background takes "
                "them for background, as IRN's code does."
            )
        matrix.add(picture, mask)

    return matrix, _add_all(data, add, step)


def list_thresholds(extra: float | None = None) -> NDArray[np.float64]:
    """Return the thresholds 0.01 to 0.99, and one more if it is not among them.

    >>> list_thresholds(0.015)[:3]
    array([0.01 , 0.015, 0.02 ])
    """
    grid = np.arange(1, 100) / 100
    if extra is None or np.abs(grid - extra).min() <= 1e-9:
        return grid
    return np.sort(np.append(grid, extra))


def _add_all(
    data: SegmentationData, add: Callable[[int, str], None], step: Callable[[], None]
) -> list[tuple[str, str]]:
    """Call `add` with every image's index and name; return the names of broken images with the reasons.

    Raises:
        InputError: all images are broken.
    """
    broken: list[tuple[str, str]] = []
    for i, name in enumerate(data.ids):
        try:
            add(i, name)
        except InputError as error:
            broken.append((name, str(error)))
        step()
    if len(broken) == len(data):
        raise InputError(f"none of the {len(data)} images could be scored; the first one: {broken[0][1]}")
    return broken
