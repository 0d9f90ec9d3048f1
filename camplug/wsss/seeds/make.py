"""Make the seeds of a data set: resumable, in shares over processes, past broken images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL.Image import Image

from camplug.explain.base import Explainer
from camplug.explain.pictures import maps_on_photo
from camplug.wsss.data import SegmentationData
from camplug.wsss.jobs import Mismatch, Report, for_each
from camplug.wsss.seeds.store import Number, Seed, SeedFolder, check_stored, packed


def make_seeds(
    explainer: Explainer,
    data: SegmentationData,
    folder: SeedFolder,
    *,
    number: Number = "uint8",
    scale: float = 1.0,
    shard: tuple[int, int] = (0, 1),
    step: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Explain every image of a data set for the classes that it is labelled with.

    Resumable, in shares, past broken images: see `camplug.wsss.jobs.for_each`. Photographs are read and seeds written
    in threads of their own, beside the model's work. An image without labels gets a seed without maps.

    Args:
        explainer: whose class c is the data's class c.
        data: the images and their labels; masks are not read.
        folder: where seeds go; see `SeedFolder.prepare`.
        number: "uint8" (maps in steps of 1/255) or "float16".
        scale: of the stored maps, relative to the photographs; .25 is what the random walks of IRN work on.
        shard: (r, n): every n-th image, starting from the r-th.
        step: told after every image.

    Raises:
        InputError: the model has another number of classes than the data; a place that cannot be written.
        Exception: whatever else stops the first image; nothing says that it is the image's fault.
    """
    check_stored(number, scale)

    def read(i: int) -> tuple[Image, tuple[int, ...]]:
        return data.photo(i), data.labels(i)

    def make(image: tuple[Image, tuple[int, ...]]) -> Seed:
        return _seed(explainer, data, image, number, scale)

    return for_each(data, folder, make, read=read, shard=shard, step=step)


def _seed(
    explainer: Explainer, data: SegmentationData, image: tuple[Image, tuple[int, ...]], number: Number, scale: float
) -> Seed:
    photo, classes = image
    size = (photo.height, photo.width)
    if not classes:
        return Seed(packed(torch.zeros(0, *size), number, scale), (), size, np.zeros(0, np.float32))
    maps, logits = maps_on_photo(explainer, photo, list(classes))
    if logits is None or len(logits) != len(data.classes):
        has = "no logits" if logits is None else f"{len(logits)} classes"
        raise Mismatch(
            f"the model has {has} and the data has {len(data.classes)} ({', '.join(data.classes[:3])}, ...); give a "
            "classifier of these classes in this order."
        )
    return Seed(packed(maps, number, scale), classes, size, logits.numpy())
