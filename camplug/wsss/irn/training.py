"""What surrounds the training of IRNet: the labels before it, and the mean displacement after it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from camplug.errors import InputError
from camplug.wsss.crf import CRFSettings, DenseCRF
from camplug.wsss.data import SegmentationData
from camplug.wsss.irn.labels import ir_labels
from camplug.wsss.irn.module import IRN
from camplug.wsss.jobs import Report
from camplug.wsss.pseudo.make import make_labels
from camplug.wsss.pseudo.store import LabelFolder
from camplug.wsss.seeds import SeedFolder


def make_ir_labels(
    data: SegmentationData,
    seeds: SeedFolder,
    folder: LabelFolder,
    *,
    foreground: float = 0.30,
    background: float = 0.05,
    crf: str | CRFSettings | None = "irn",
    shard: tuple[int, int] = (0, 1),
    step: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Make IRN's training labels (`ir_labels`) of every image from its seed; see `camplug.wsss.pseudo.make_labels`.

    An image without classes becomes background.
    """

    def labels(photo: NDArray[np.uint8], maps: NDArray[np.float32]) -> NDArray[np.uint8]:
        refine = DenseCRF(photo, crf) if crf is not None and len(maps) else None
        return ir_labels(maps, refine, foreground=foreground, background=background)

    return make_labels(labels, data, seeds, folder, shard=shard, step=step)


@torch.no_grad()
def set_mean_displacement(irn: IRN, data: SegmentationData, step: Callable[[], None] = lambda: None) -> None:
    """Find the mean displacement over all positions of a data set's images, which is then subtracted.

    The losses leave it open: adding a constant to all displacements changes none of them. Broken images are left out.
    """
    if irn.displacement is None:
        return
    irn.eval()
    irn.displacement.mean.zero_()
    total, count = torch.zeros(2, dtype=torch.float64), 0
    for i in range(len(data)):
        step()
        try:
            photo = np.asarray(data.photo(i))
        except InputError:
            continue
        displacement = irn.displacements(photo)
        assert displacement is not None
        total += displacement.double().sum((1, 2)).cpu()
        count += displacement[0].numel()
    if count:
        irn.displacement.mean.copy_(total / count)
