"""Mean displacement of IRNet, computed after training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from camplug.errors import InputError
from camplug.wsss.data import SegmentationData
from camplug.wsss.irn.lightning_module import IRN


@torch.no_grad()
def set_mean_displacement(irn: IRN, data: SegmentationData, step: Callable[[], None] = lambda: None) -> None:
    """Compute the mean displacement over all positions of all images and store it in the head, which subtracts it.

    The losses do not depend on a constant added to all displacements. Unreadable images are left out.
    """
    if irn.displacement is None:
        return
    irn.eval()
    irn.displacement.mean.zero_()
    total, count = irn.displacement.mean.new_zeros(2, dtype=torch.float64), 0
    for i in range(len(data)):
        step()
        try:
            photo = np.asarray(data.photo(i))
        except InputError:
            continue
        displacement = irn.displacements(photo)
        assert displacement is not None
        total += displacement.sum((1, 2), dtype=torch.float64)
        count += displacement[0].numel()
    if count:
        irn.displacement.mean.copy_(total / count)
