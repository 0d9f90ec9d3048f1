"""Training labels of IRN from two thresholds and two dense CRFs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from camplug.errors import InputError
from camplug.wsss.crf import DenseCRF, refine_labels
from camplug.wsss.crf.settings import CERTAINTY
from camplug.wsss.data.dataset import IGNORE


def label_with_background(maps: NDArray[np.floating], threshold: float) -> NDArray[np.int64]:
    """Label pixels by the strongest of a background threshold (0, also on ties) and the maps [K,H,W] (1 to K).

    >>> label_with_background(np.array([[[0.1, 0.3, 0.4]], [[0.0, 0.2, 0.9]]]), 0.3)
    array([[0, 0, 2]])
    """
    if not len(maps):
        return np.zeros(maps.shape[1:], np.int64)
    strongest = maps.argmax(0)
    return np.where(np.take_along_axis(maps, strongest[None], 0)[0] > threshold, strongest + 1, 0)


def merge_labels(confident: NDArray[np.integer], generous: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Merge labels: objects of the confident labels, background where both are background, else ignored (255).

    >>> merge_labels(np.array([1, 0, 0]), np.array([1, 1, 0]))
    array([  1, 255,   0], dtype=uint8)
    """
    return np.where(confident > 0, confident, np.where(generous > 0, IGNORE, 0)).astype(np.uint8)


def make_ir_labels(
    maps: NDArray[np.floating],
    crf: DenseCRF | None,
    *,
    foreground: float = 0.30,
    background: float = 0.05,
    certainty: float = CERTAINTY,
) -> NDArray[np.uint8]:
    """Make the training labels of IRN from the maps of one image, 0 to K and 255 ignored, [H,W].

    The maps are thresholded twice: pixels above the high threshold are objects, those below the low one background.
    Both label maps are refined by a dense CRF and merged by `merge_labels`.

    Args:
        maps: [K,H,W] in [0, 1] at the photograph's size.
        crf: CRF of the photograph; None for no refinement.
        foreground, background: high and low threshold; AdvCAM .35/.15, ReCAM .35/.10, FPR .25/.10, RPNet .30/.05.
        certainty: initial probability of each pixel's label in the CRF.

    Raises:
        InputError: the thresholds are in the wrong order.
    """
    if not 0 <= background <= foreground < 1:
        raise InputError(
            f"thresholds {foreground:g} for objects and {background:g} for background are not possible; the first is "
            "at least the second, both from 0 to below 1."
        )
    if not len(maps):
        return np.zeros(maps.shape[1:], np.uint8)

    def cut(threshold: float) -> NDArray[np.int64]:
        labels = label_with_background(maps, threshold)
        if crf is None:
            return labels
        return refine_labels(crf, labels, len(maps) + 1, certainty)

    return merge_labels(cut(foreground), cut(background))
