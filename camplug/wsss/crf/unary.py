"""Unary potentials from labels or scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from camplug.errors import InputError
from camplug.metrics.checks import check_integers, check_labels, check_whole
from camplug.wsss.crf.settings import CERTAINTY

Floats = NDArray[np.float32]


def make_unary_from_labels(
    labels: ArrayLike, classes: int, certainty: float = CERTAINTY, unsure: int | None = 255
) -> Floats:
    """Compute potentials of a label image: -log(certainty) for the label, -log((1 - certainty) / (K - 1)) for others.

    This is the label CRF of IRN.

    Args:
        labels: integers [H, W], 0 to K-1 or `unsure`.
        classes: K.
        certainty: probability of the label, between 0 and 1.
        unsure: value of pixels with -log(1 / K) for every class; None: there is no such value.

    Returns:
        Potentials [K, H, W] float32; zeros for K = 1.

    Raises:
        InputError: labels are not integers [H, W] or contain an unknown class, certainty is outside (0, 1), or there is
            no class.

    >>> make_unary_from_labels(np.array([[0, 255]]), classes=2, certainty=0.8)
    array([[[0.22314355, 0.6931472 ]],
           [[1.609438  , 0.6931472 ]]], dtype=float32)
    """
    given, k = check_integers(labels, "labels"), check_whole(classes, "classes")
    if given.ndim != 2:
        raise InputError(f"labels are {list(given.shape)}; give one label image [H, W].")
    if k < 1:
        raise InputError(f"classes={k}: give 1 or more, the background included.")
    if not 0 < certainty < 1:
        raise InputError(f"certainty={certainty}: give a probability between 0 and 1, such as 0.7.")
    if unsure is not None and 0 <= check_whole(unsure, "unsure") < k:
        raise InputError(f"unsure={unsure} is one of the classes 0 to {k - 1}; give another value, or None.")
    free = np.zeros(given.shape, bool) if unsure is None else given == unsure
    hint = "" if unsure is None else f", and {unsure} means unsure"
    known = check_labels(np.where(free, 0, given), "the label image", k, hint)
    if k == 1:
        return np.zeros((1, *given.shape), np.float32)
    potentials = np.full((k, *given.shape), -np.log((1 - certainty) / (k - 1)), np.float32)
    np.put_along_axis(potentials, known[None], np.float32(-np.log(certainty)), axis=0)
    potentials[:, free] = -np.log(1 / k)
    return potentials


def make_unary_from_scores(scores: ArrayLike, clip: float = 1e-5) -> Floats:
    """Compute potentials of scores: -log of the scores, clipped to [clip, 1]. They need not add up to 1, as in PSA.

    Args:
        scores: floats [K, H, W].
        clip: lower bound of scores, in (0, 1].

    Returns:
        Potentials [K, H, W] float32.

    Raises:
        InputError: scores have another shape or type, or are not finite, or clip is outside (0, 1].

    >>> make_unary_from_scores(np.array([[[1.0, 0.5, 0.0]]]))
    array([[[ 0.       ,  0.6931472, 11.512925 ]]], dtype=float32)
    """
    values: NDArray[Any] = np.asarray(scores)
    if values.ndim != 3 or not np.issubdtype(values.dtype, np.floating):
        raise InputError(f"scores are {values.dtype} {list(values.shape)}; give floats [K, H, W].")
    if not 0 < clip <= 1:
        raise InputError(f"clip={clip}: give a number above 0, up to 1, such as 1e-5.")
    if not np.isfinite(values).all():
        raise InputError("scores hold nan or infinite values; give numbers in [0, 1].")
    return 0 - np.log(np.clip(values.astype(np.float32), np.float32(clip), 1))  # 0, not -0, for a score of 1
