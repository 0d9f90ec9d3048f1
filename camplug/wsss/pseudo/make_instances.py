"""Make instances for a data set of seeds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camplug.errors import InputError
from camplug.wsss.data import SegmentationData
from camplug.wsss.irn.instances import SMALLEST, Instance, check_share
from camplug.wsss.pseudo.make import load_image
from camplug.wsss.pseudo.settings import check_long_side
from camplug.wsss.pseudo.walks import IRNWalk
from camplug.wsss.seeds import SeedFolder
from camplug.wsss.store.instance_folder import ImageInstances, InstanceFolder
from camplug.wsss.store.jobs import Report, make_results
from camplug.wsss.store.result_folder import check_digests


def make_instances(
    walk: IRNWalk,
    data: SegmentationData,
    seeds: SeedFolder,
    folder: InstanceFolder,
    *,
    smallest: float = SMALLEST,
    long_side: int | None = None,
    shard: tuple[int, int] = (0, 1),
    step: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Find the objects of every image from its seed, by the displacements of IRN.

    The folder gets one file per image and, at the end, instances.json and results.json; see `InstanceFolder`. Each
    process of several writes them, so the last one has the images of all.

    Resumable; broken images and missing seeds are reported and skipped: see `camplug.wsss.store.jobs.make_results`.

    Args:
        walk: walk with the IRN and the background threshold.
        data: photographs; labels and masks are not read.
        seeds: maps; classes are matched by name.
        folder: prepared folder of the instances, in the classes of the data.
        smallest: minimum area of an instance, relative to the photograph.
        long_side: maximum length of the longer side in pixels; larger photographs are reduced first, and their masks
            enlarged (nearest). None: no limit.
        shard: (r, n) selects every n-th image, starting from the r-th.
        step: callback after every image.

    Returns:
        Summary of the job.

    Raises:
        InputError: the seeds lack a class of the data, an option is out of its range, or the folder cannot be written.
    """
    check_share(smallest, "smallest")
    check_long_side(long_side)
    seeds = seeds.renumber(data.classes)

    def make(i: int) -> ImageInstances:
        photo, maps, seed = load_image(data, seeds, i, long_side)
        found = walk.find_instances(photo, maps, smallest=smallest)
        kept = [Instance(seed.classes[one.class_index], _enlarge_mask(one.mask, seed.size), one.score) for one in found]
        return ImageInstances(tuple(kept), seed.size)

    def get_digests(i: int) -> dict[str, str]:
        check_digests(seeds, data, i, labels=True)
        return {"photograph": data.photo_digest(i), "seed": seeds.compute_digest(data.ids[i])}

    def has_instances(i: int) -> bool:
        try:
            return folder.has_result(data.ids[i], get_digests(i))
        except InputError:  # a broken image, listed in the report
            return False

    report = make_results(data, folder, make, get_digests=get_digests, shard=shard, step=step)
    folder.write_coco_files(data, filter(has_instances, range(len(data))))
    return report


def _enlarge_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Enlarge a mask to the photograph's size, nearest."""
    if mask.shape == size:
        return mask
    return np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))
