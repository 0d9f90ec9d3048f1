"""Training labels of AffinityNet from dense CRFs with much and with little background."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from scipy.special import softmax

from camplug.errors import InputError
from camplug.wsss.crf import DenseCRF, make_unary_from_scores
from camplug.wsss.data.dataset import IGNORE

ALPHA = 16.0  # power of the background before the walk, in the published code
SLACK = 1e-6  # tolerance for rounding of maps in [0, 1]


def add_background_scores(maps: NDArray[np.floating], alpha: float) -> NDArray[np.floating]:
    r"""Prepend a plane of background scores to maps, [K+1,H,W].

    .. math:: M_{bg} = (1 - \max_c M_c)^\alpha

    (Ahn & Kwak, CVPR 2018). A lower alpha gives more background. The planes do not sum to 1.

    Args:
        maps: [K,H,W] in [0, 1]; K may be 0.
        alpha: exponent, above 0.

    Returns:
        float64 for maps in float64, else float32.

    Raises:
        InputError: the maps have another shape or dtype or values outside [0, 1], or alpha is not above 0.

    >>> add_background_scores(np.array([[[0.5, 0.0]], [[0.25, 0.75]]]), alpha=2)
    array([[[0.25  , 0.0625]],
    <BLANKLINE>
           [[0.5   , 0.    ]],
    <BLANKLINE>
           [[0.25  , 0.75  ]]])
    """
    if not 0 < alpha < np.inf:
        raise InputError(f"alpha={alpha}; give a number above 0, such as 4 for much background or 32 for little.")
    values: NDArray[Any] = np.asarray(maps)
    if values.ndim != 3 or values.dtype.kind != "f":
        raise InputError(f"maps are {values.dtype} {list(values.shape)}; give floating-point maps [K,H,W] in [0, 1].")
    low, high = float(values.min(initial=0)), float(values.max(initial=1))  # nan anywhere makes both nan
    if not (low >= -SLACK and high <= 1 + SLACK):
        raise InputError(f"maps go from {low:g} to {high:g}; give values in [0, 1], without nan.")
    scores = np.empty((len(values) + 1, *values.shape[1:]), np.float64 if values.dtype == np.float64 else np.float32)
    np.clip(values, 0, 1, out=scores[1:], dtype=scores.dtype, casting="same_kind")
    scores[0] = (1 - scores[1:].max(0, initial=0)) ** alpha
    return scores


def make_alpha_labels(
    maps: NDArray[np.floating],
    crf: DenseCRF | None,
    *,
    low: float = 4.0,
    high: float = 32.0,
    stride: int = 8,
) -> NDArray[np.uint8]:
    """Make the training labels of AffinityNet from the maps of one image, 0 to K and 255 ignored, [H,W].

    For a low and a high alpha, the maps and their background are refined by a dense CRF, whose probabilities are
    averaged over cells of stride x stride pixels; the class of a cell is its strongest plane. A cell is background if
    it is with the high alpha, which gives little background; else it gets the class of the low alpha, and is ignored
    where that is background.

    The published code crops the probabilities before averaging, so that cells start at the corner of the crop. Here
    each pixel gets the label of the cell centred at it, rows y - stride // 2 to y + (stride - 1) // 2 and the same
    columns, averaged over the pixels inside the photograph. The middle pixels of all cells, which
    `camplug.wsss.train.LabelCrops` uses, are therefore the published labels of a crop at any position in the
    photograph's own size. In rescaled crops a cell is `stride` pixels of the photograph, not of the crop, and in
    mirrored ones it is shifted by one pixel if `stride` is even.

    Args:
        maps: [K,H,W] in [0, 1] at the photograph's size.
        crf: CRF of the photograph, with the settings "affinitynet"; None uses its input, normalised over the planes.
        low: alpha for much background, which leaves the confident objects; 4 in the paper.
        high: alpha for little background, which leaves the confident background; 32 in the published code, 24 in the
            paper's results and in SEAM.
        stride: side of a cell in pixels.

    Raises:
        InputError: the alphas are in the wrong order or out of range, the stride is below 1, or the maps are invalid
            for `add_background_scores` or more than labels can name.
    """
    if not 0 < low <= high < np.inf:
        raise InputError(
            f"low={low:g} and high={high:g} are not possible; both alphas are above 0, and the low one is at most the "
            "high one."
        )
    if stride < 1:
        raise InputError(f"stride={stride}; give a whole number of pixels, at least 1.")
    if len(maps) >= IGNORE:
        raise InputError(f"{len(maps)} maps are more than labels can name; give at most {IGNORE - 1}.")

    def strongest(alpha: float) -> NDArray[np.intp]:
        unary = make_unary_from_scores(add_background_scores(maps, alpha))
        probabilities = softmax(-unary, axis=0) if crf is None else crf.refine(unary)
        # sums instead of averages: all planes of a cell have the same number of pixels
        sums = np.asarray(probabilities, np.float64)
        for axis in (1, 2):
            sums = correlate1d(sums, np.ones(stride), axis, mode="constant")
        return np.asarray(sums.argmax(0))

    if not len(maps):
        return np.zeros(maps.shape[1:], np.uint8)
    confident, generous = strongest(low), strongest(high)
    return np.where(generous == 0, 0, np.where(confident == 0, IGNORE, confident)).astype(np.uint8)
