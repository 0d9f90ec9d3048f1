"""What follows the training of IRNet: the mean displacement."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from camplug.errors import InputError
from camplug.wsss.data import SegmentationData
from camplug.wsss.irn.lightning_module import IRN


@torch.no_grad()
def set_mean_displacement(irn: IRN, data: SegmentationData, step: Callable[[], None] = lambda: None) -> None:
    """Find the mean displacement over all positions of a data set's images, which is then subtracted.

    The losses leave it open: adding a constant to all displacements changes none of them. Broken images are left out.
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
