"""IRN's training labels: what two thresholds and two dense CRFs agree about."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from camplug.errors import InputError
from camplug.wsss.crf import DenseCRF, refine_labels
from camplug.wsss.data.dataset import IGNORE


def label_with_background(maps: NDArray[np.floating], threshold: float) -> NDArray[np.int64]:
    """The strongest of a constant background plane and the maps [K,H,W], as 0 (also on ties) to K, [H,W].

    >>> label_with_background(np.array([[[0.1, 0.3, 0.4]], [[0.0, 0.2, 0.9]]]), 0.3)
    array([[0, 0, 2]])
    """
    if not len(maps):
        return np.zeros(maps.shape[1:], np.int64)
    strongest = maps.argmax(0)
    return np.where(np.take_along_axis(maps, strongest[None], 0)[0] > threshold, strongest + 1, 0)


def merge_labels(confident: NDArray[np.integer], generous: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Objects where the confident labels say so, background where both do, else ignored (255).

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
    certainty: float = 0.7,
) -> NDArray[np.uint8]:
    """The training labels of IRN from the maps of one image, 0 to K and 255 ignored, [H,W].

    The maps are cut at a high threshold (what is above it is object) and at a low one (what is below it is background).
    Each of the two label maps goes through a dense CRF; they are merged by `merge_labels`.

    Args:
        maps: [K,H,W] in [0, 1] at the photograph's size.
        crf: of the photograph; None leaves the two label maps as they are.
        foreground, background: the thresholds; AdvCAM .35/.15, ReCAM .35/.10, FPR .25/.10, RPNet .30/.05.
        certainty: the probability that the CRF starts a pixel's label with.

    Raises:
        InputError: thresholds in the wrong order.
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
