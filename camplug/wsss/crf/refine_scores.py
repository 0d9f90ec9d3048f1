"""Refinement of class scores by a dense CRF or by pixel-adaptive refinement."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import torch
from numpy.typing import NDArray

from camplug.plug import resolve_device, send_to
from camplug.wsss.crf.densecrf import DenseCRF
from camplug.wsss.crf.par import pixel_adaptive_refinement
from camplug.wsss.crf.settings import CRFSettings, Refinement
from camplug.wsss.crf.unary import make_unary_from_scores


def refine_scores(
    photo: NDArray[np.uint8],
    scores: NDArray[np.float32],
    settings: Refinement,
    *,
    device: str | torch.device | None = None,
) -> NDArray[np.float32]:
    """Refine the scores of classes at every pixel, [K,H,W].

    A dense CRF takes them for probabilities, and returns its marginals. Pixel-adaptive refinement averages each plane
    over pixels of similar colour: a plane of one value keeps it, so thresholds keep their meaning.

    Args:
        photo: RGB photograph, uint8 [H,W,3].
        scores: scores of at least 0, float32 [K,H,W].
        settings: settings of the refinement.
        device: device of the computation; by default the CPU.

    Raises:
        InputError: photograph and scores do not fit.

    >>> from camplug.wsss.crf import PARSettings
    >>> edge = np.zeros((1, 8, 3), np.uint8)
    >>> edge[:, 4:] = 255
    >>> scores = np.array([[[0.2] * 8], [[0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]]], np.float32)
    >>> refine_scores(edge, scores, PARSettings(dilations=(1, 2), scale=1)).round(1)[:, 0]
    array([[0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2],
           [0.5, 0.5, 0.5, 0.5, 0. , 0. , 0. , 0. ]], dtype=float32)
    """
    if isinstance(settings, CRFSettings):
        return DenseCRF(photo, settings, device=device).refine(make_unary_from_scores(scores))
    there = send_to(torch.from_numpy(scores), resolve_device(device))
    return pixel_adaptive_refinement(photo, there, **asdict(settings)).cpu().numpy()
