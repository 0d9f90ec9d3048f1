"""Make label pictures and propagated maps for a data set of seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from camplug.errors import InputError
from camplug.settings import to_plain
from camplug.wsss.data import SegmentationData
from camplug.wsss.data.read_files import MAX_CLASSES
from camplug.wsss.pseudo.refine import Floats, Photo, PseudoLabels
from camplug.wsss.pseudo.settings import LabelSettings, WalkedMapSettings, check_long_side
from camplug.wsss.pseudo.walks import MapWalk
from camplug.wsss.seeds import Seed, SeedFolder
from camplug.wsss.store.jobs import Mismatch, Report, make_results
from camplug.wsss.store.label_folder import LabelFolder
from camplug.wsss.store.result_folder import check_digests
from camplug.wsss.store.seed_folder import Dtype, check_storage, pack_maps


def make_labels(
    labels: Callable[[Photo, Floats], NDArray[np.uint8]],
    data: SegmentationData,
    seeds: SeedFolder,
    folder: LabelFolder,
    *,
    long_side: int | None = None,
    shard: tuple[int, int] = (0, 1),
    step: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Make the label picture of every image from its seed.

    Resumable; broken images and missing seeds are reported and skipped: see `camplug.wsss.store.jobs.make_results`.

    Args:
        labels: function from a photograph [H,W,3] and its maps [K,H,W] to labels [H,W], 0 background, k + 1 for map k
            and 255 ignored; `PseudoLabels` for instance.
        data: photographs; labels and masks are not read.
        seeds: maps; classes are matched by name.
        folder: prepared folder of label pictures in the classes of the data (c + 1 for class c).
        long_side: maximum length of the longer side in pixels; larger photographs are reduced first, and their labels
            enlarged to the photograph's size (nearest), which limits memory and time. None: no limit.
        shard: (r, n) selects every n-th image, starting from the r-th.
        step: callback after every image.

    Returns:
        Summary of the job.

    Raises:
        InputError: there are more classes than a label picture holds, the seeds lack a class of the data, or the folder
            cannot be written.
    """

    check_long_side(long_side)
    if len(data.classes) > MAX_CLASSES:
        raise InputError(
            f"the data have {len(data.classes)} classes, and label pictures can hold {MAX_CLASSES}; make seeds with a "
            "classifier of fewer classes."
        )
    seeds = seeds.renumber(data.classes)

    def make(i: int) -> NDArray[np.uint8]:
        photo, maps, seed = load_image(data, seeds, i, long_side)
        found = renumber_to_data(labels(photo, maps), seed.classes)
        if found.shape == seed.size:
            return found
        return np.asarray(Image.fromarray(found).resize(seed.size[::-1], Image.Resampling.NEAREST))

    def get_digests(i: int) -> dict[str, str]:
        check_digests(seeds, data, i, labels=True)
        return {"photograph": data.photo_digest(i), "seed": seeds.compute_digest(data.ids[i])}

    return make_results(data, folder, make, get_digests=get_digests, shard=shard, step=step)


def make_walked_seeds(
    walk: MapWalk,
    data: SegmentationData,
    seeds: SeedFolder,
    folder: SeedFolder,
    *,
    dtype: Dtype = "uint8",
    scale: float = 1.0,
    long_side: int | None = None,
    shard: tuple[int, int] = (0, 1),
    step: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Make seeds from propagated maps; their background threshold can be chosen like that of any seeds.

    Args:
        walk: random walk that propagates the maps of a photograph.
        data: photographs; labels and masks are not read.
        seeds: maps before the walk; classes are matched by name.
        folder: prepared folder of the maps after the walk, with the same classes, sizes and logits.
        dtype: "uint8" (maps in steps of 1/255) or "float16".
        scale: size of the stored maps relative to the photographs; .25 is the grid of IRN's walk.
        long_side: maximum length of the longer side in pixels; larger photographs are reduced first, and their maps are
            stored at this size at most. None: no limit.
        shard: (r, n) selects every n-th image, starting from the r-th.
        step: callback after every image.

    Returns:
        Summary of the job.

    Raises:
        InputError: the seeds lack a class of the data, or the folder cannot be written.
    """
    check_storage(dtype, scale)
    check_long_side(long_side)
    seeds = seeds.renumber(data.classes)

    def make(i: int) -> Seed:
        photo, maps, seed = load_image(data, seeds, i, long_side)
        walked = torch.from_numpy(walk.maps(photo, maps))
        own = min(1.0, scale * max(seed.size) / max(photo.shape[:2]))
        return Seed(pack_maps(walked, dtype, own), seed.classes, seed.size, seed.logits)

    def get_digests(i: int) -> dict[str, str]:
        check_digests(seeds, data, i, labels=True)
        name = data.ids[i]
        labels = {k: v for k, v in seeds.read_digests(name).items() if k == "labels"}
        return {"photograph": data.photo_digest(i), "seed": seeds.compute_digest(name), **labels}

    return make_results(data, folder, make, get_digests=get_digests, shard=shard, step=step)


def prepare_labels(
    labels: PseudoLabels,
    settings: LabelSettings,
    data: SegmentationData,
    seeds: SeedFolder,
    open_folder: Callable[[dict[str, Any]], LabelFolder],
) -> Callable[..., Report]:
    """Open the folder of the label pictures that are made with some settings; see `make_labels`.

    Args:
        labels: labels of a photograph.
        settings: settings of the labels.
        data: photographs.
        seeds: maps.
        open_folder: function that prepares the folder for results of given settings.

    Returns:
        Function of `shard` and `step` that makes the missing label pictures.
    """
    own = {"crf": to_plain(labels.crf), "certainty": labels.certainty, **settings.describe_size()}
    return partial(make_labels, labels, data, seeds, open_folder(own), long_side=settings.long_side)


def prepare_walked_seeds(
    walk: MapWalk,
    settings: WalkedMapSettings,
    data: SegmentationData,
    seeds: SeedFolder,
    open_folder: Callable[[dict[str, Any]], SeedFolder],
) -> Callable[..., Report]:
    """Open the folder of the maps that a walk makes; see `make_walked_seeds` and `prepare_labels`."""
    storage: dict[str, Any] = {"dtype": settings.dtype, "scale": settings.scale}
    folder = open_folder(storage | settings.describe_size())
    return partial(make_walked_seeds, walk, data, seeds, folder, long_side=settings.long_side, **storage)


def renumber_to_data(labels: NDArray[np.integer], classes: Sequence[int]) -> NDArray[np.uint8]:
    """Convert labels 0 to K (255 ignored) of an image's classes to those of the data: 0, c + 1 for class c, 255.

    >>> renumber_to_data(np.array([0, 2, 1, 255]), (7, 14))
    array([  0,  15,   8, 255], dtype=uint8)
    """
    values = np.full(256, 255, np.uint8)
    values[: len(classes) + 1] = [0, *(c + 1 for c in classes)]
    mapped: NDArray[np.uint8] = values[labels]
    return mapped


def load_image(
    data: SegmentationData, seeds: SeedFolder, i: int, long_side: int | None
) -> tuple[Photo, NDArray[np.float32], Seed]:
    """Load the photograph and the maps of image i, reduced to `long_side`, and its seed; check that they fit."""
    seed, photo = seeds.load(data.ids[i]), data.photo(i)
    check_digests(seeds, data, i, labels=True)
    unknown = [c for c in seed.classes if not 0 <= c < len(data.classes)]
    if unknown:
        raise Mismatch(
            f"the seed of {data.ids[i]!r} has class {unknown[0]}, the data has {len(data.classes)} classes, counted "
            "from 0; give the seeds of this data set."
        )
    if seed.size != (photo.height, photo.width):
        (h, w), (height, width) = seed.size, (photo.height, photo.width)
        raise InputError(
            f"the seed of {data.ids[i]!r} is of a photograph of {w}x{h} pixels, this one has {width}x{height}; make "
            "the seed anew."
        )
    if long_side is None or max(seed.size) <= long_side:
        return np.asarray(photo), seed.to_full_size(), seed
    height, width = (max(1, round(side * long_side / max(seed.size))) for side in seed.size)
    return np.asarray(photo.resize((width, height), Image.Resampling.BICUBIC)), seed.resize((height, width)), seed
