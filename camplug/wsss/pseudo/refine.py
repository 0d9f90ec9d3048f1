"""Pseudo-labels of one photograph from its activation maps: scores with a background, then a refinement."""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from camplug.errors import InputError
from camplug.wsss.crf import CRFSettings, DenseCRF, PARSettings, Refinement, refine_labels, refine_scores
from camplug.wsss.crf.settings import resolve_refinement, resolve_settings
from camplug.wsss.crf.tensors import choose_device
from camplug.wsss.pseudo.settings import LabelSettings, check_certainty

Photo: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float32]

MAX_MAPS = 254  # maximum number of maps; 255 is ignored


class Scores(Protocol):
    """Interface of functions that score the classes of every pixel: `Threshold` and the walks."""

    def __call__(self, photo: Photo, maps: Floats, /) -> Floats:
        """Compute scores [K+1,H,W], background first.

        Args:
            photo: RGB photograph, uint8 [H,W,3].
            maps: maps [K,H,W] in [0, 1]; K may be 0.
        """


class Threshold:
    """Constant background score, followed by the maps.

    Args:
        threshold: score of the background, 0 or more and below 1.

    Raises:
        InputError: the threshold is out of its range.

    >>> photo = np.zeros((1, 3, 3), np.uint8)
    >>> Threshold(0.25)(photo, np.array([[[0.0, 0.25, 1.0]]], np.float32))
    array([[[0.25, 0.25, 0.25]],
    <BLANKLINE>
           [[0.  , 0.25, 1.  ]]], dtype=float32)
    """

    def __init__(self, threshold: float) -> None:
        if not 0 <= threshold < 1:
            raise InputError(f"a threshold of {threshold:g} is not possible; give 0 or more, and less than 1.")
        self.threshold = threshold

    def __call__(self, photo: Photo, maps: Floats) -> Floats:
        """Compute scores [K+1,H,W]; see `Scores`."""
        scores = np.empty((len(maps) + 1, *maps.shape[1:]), np.float32)
        scores[0], scores[1:] = self.threshold, maps
        return scores


class PseudoLabels:
    """Labels of a photograph: the class of the highest score, optionally refined by the photograph's colours.

    A dense CRF starts from the labels, as in IRN, with the photograph's classes and the background only.
    Pixel-adaptive refinement (PAR) averages the scores before the labels are taken.

    Args:
        scores: function that scores the photograph's classes and the background.
        crf: name in `camplug.wsss.crf.REFINEMENTS`, settings of a dense CRF or of PAR, or None for neither.
        certainty: initial probability of a pixel's label in the dense CRF.
        device: device of the refinement, if it is a CUDA one; on others the CPU refines.

    Raises:
        InputError: there is no such CRF, or certainty is outside (0, 1).

    >>> labels = PseudoLabels(Threshold(0.25))
    >>> labels(np.zeros((1, 3, 3), np.uint8), np.array([[[0.0, 0.25, 1.0]]], np.float32))  # ties: background
    array([[0, 0, 1]], dtype=uint8)
    """

    def __init__(
        self,
        scores: Scores,
        crf: str | Refinement | None = None,
        certainty: float = LabelSettings.certainty,
        *,
        device: str | torch.device | None = None,
    ) -> None:
        self.scores, self.crf, self.certainty = scores, resolve_refinement(crf), certainty
        self.device = choose_device(device)
        check_certainty(certainty)

    def __call__(self, photo: Photo, maps: Floats) -> NDArray[np.uint8]:
        """Compute labels [H,W]: 0 background, k + 1 for map k.

        Args:
            photo: RGB photograph, uint8 [H,W,3].
            maps: maps [K,H,W] in [0, 1]; all background for K = 0.

        Raises:
            InputError: photograph and maps do not fit.
        """
        check_maps(photo, maps)
        if not len(maps):
            return np.zeros(maps.shape[1:], np.uint8)
        scores = self.scores(photo, maps)
        if isinstance(self.crf, PARSettings):
            scores = refine_scores(photo, scores, self.crf, device=self.device)
        labels: NDArray[np.integer] = scores.argmax(0)  # ties: the first
        if isinstance(self.crf, CRFSettings):
            labels = refine_labels(DenseCRF(photo, self.crf, device=self.device), labels, len(maps) + 1, self.certainty)
        return np.asarray(labels, np.uint8)


def resolve_crf(crf: str | CRFSettings | None) -> CRFSettings | None:
    """Return the settings of a preset; return settings and None unchanged.

    Raises:
        InputError: there is no such preset.
    """
    return None if crf is None else resolve_settings(crf)


def check_maps(photo: Photo, maps: Floats) -> None:
    """Check that maps fit a photograph.

    Raises:
        InputError: the type or size is wrong, values are not finite, or there are more maps than labels.
    """
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or not photo.size:
        raise InputError(f"the photograph is {photo.dtype} {list(photo.shape)}; give RGB uint8 [H,W,3].")
    if maps.ndim != 3 or maps.shape[1:] != photo.shape[:2] or maps.dtype.kind != "f" or len(maps) > MAX_MAPS:
        h, w = photo.shape[:2]
        raise InputError(
            f"the maps are {maps.dtype} {list(maps.shape)}; give floats [K,{h},{w}], K at most {MAX_MAPS}."
        )
    if not np.isfinite(maps).all():
        raise InputError("the maps hold nan or infinity; give values in [0, 1].")
