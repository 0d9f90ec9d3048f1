"""Average the seeds of several folders, with a saliency map if wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from camplug.errors import InputError
from camplug.wsss.data import SegmentationData
from camplug.wsss.saliency_source import SaliencySource
from camplug.wsss.store.jobs import Report, make_results
from camplug.wsss.store.result_folder import check_digests
from camplug.wsss.store.seed_folder import Dtype, MapStorage, Seed, SeedFolder, check_storage, pack_maps

Floats = NDArray[np.float32]


def average_seed_maps(maps: Sequence[Floats], weights: Sequence[float], saliency: Floats | None = None) -> Floats:
    r"""Compute the weighted mean of several maps of the same classes.

    $$ M_k = \frac{\sum_i w_i M_{ik} + w_s s}{\sum_i w_i + w_s} $$

    The saliency $s$ is the same for all classes: it moves the border to the background, not the one between classes.

    Args:
        maps: maps [K,H,W] in [0, 1] of each source.
        weights: weight of each source; behind them that of the saliency, if there is one.
        saliency: saliency map [H,W] in [0, 1].

    Returns:
        Maps [K,H,W] in [0, 1].

    >>> a, b = np.array([[[0.0, 1.0]]], np.float32), np.array([[[0.5, 0.5]]], np.float32)
    >>> average_seed_maps([a, b], [1, 3])
    array([[[0.375, 0.625]]], dtype=float32)
    >>> average_seed_maps([a], [1, 1], np.array([[0.5, 0.0]], np.float32))
    array([[[0.25, 0.5 ]]], dtype=float32)
    """
    parts = [*maps, *(() if saliency is None else (np.broadcast_to(saliency, maps[0].shape),))]
    total = np.zeros(maps[0].shape, np.float64)
    for part, weight in zip(parts, weights, strict=True):
        total += weight * part.astype(np.float64)
    return (total / sum(weights)).astype(np.float32)


def check_weights(weights: Sequence[float], sources: int) -> None:
    """Check the weights of an average.

    Args:
        weights: weight of each source.
        sources: number of sources: folders, and the saliency.

    Raises:
        InputError: another number of weights, or one that is not above 0.
    """
    if len(weights) != sources or not all(0 < weight < float("inf") for weight in weights):
        raise InputError(
            f"weights={', '.join(f'{w:g}' for w in weights)} of {sources} sources; give one number above 0 for each "
            "folder, and one for the saliency if there is one."
        )


def make_average_seeds(
    data: SegmentationData,
    sources: Sequence[SeedFolder],
    folder: SeedFolder,
    weights: Sequence[float],
    *,
    saliency: SaliencySource | None = None,
    dtype: Dtype = "uint8",
    scale: float = 1.0,
    shard: tuple[int, int] = (0, 1),
    step: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Make seeds that are the mean of the seeds in several folders; see `average_seed_maps`.

    Args:
        data: photographs; labels and masks are not read.
        sources: folders of seeds of the same images and classes, matched by name.
        folder: prepared folder of the averages.
        weights: weight of each folder, and behind them that of the saliency.
        saliency: saliency maps.
        dtype: "uint8" (maps in steps of 1/255) or "float16".
        scale: size of the stored maps relative to the photographs.
        shard: (r, n) selects every n-th image, starting from the r-th.
        step: callback after every image.

    Returns:
        Summary of the job; images whose seeds are of different classes are among the broken ones.

    Raises:
        InputError: no folder is given, a weight is out of range, seeds lack a class of the data, or the folder cannot
            be written.
    """
    check_storage(dtype, scale)
    if not sources:
        raise InputError("there are no seeds to average; give at least one folder.")
    check_weights(weights, len(sources) + (saliency is not None))
    sources = [source.renumber(data.classes) for source in sources]

    def make(i: int) -> Seed:
        seeds = [source.load(data.ids[i]) for source in sources]
        for source, seed in zip(sources, seeds, strict=True):
            check_digests(source, data, i, labels=True)
            if (seed.classes, seed.size) != (seeds[0].classes, seeds[0].size):
                raise InputError(
                    f"the seeds of {data.ids[i]!r} differ in classes or size: {_describe(seeds[0])} in "
                    f"{str(sources[0].path)!r}, {_describe(seed)} in {str(source.path)!r}; make both of the same data."
                )
        maps = [seed.to_full_size() for seed in seeds]
        found = average_seed_maps(maps, weights, None if saliency is None else saliency.load(i))
        return replace(seeds[0], maps=pack_maps(torch.from_numpy(found), dtype, scale))

    def get_digests(i: int) -> dict[str, str]:
        name = data.ids[i]
        labels = {k: v for k, v in sources[0].read_digests(name).items() if k == "labels"}
        seeds = {f"seed {n}": source.compute_digest(name) for n, source in enumerate(sources)}
        return {"photograph": data.photo_digest(i), **seeds, **labels} | (saliency.get_digest(i) if saliency else {})

    return make_results(data, folder, make, get_digests=get_digests, shard=shard, step=step)


def prepare_average_seeds(
    data: SegmentationData,
    sources: Sequence[SeedFolder],
    weights: Sequence[float],
    open_folder: Callable[[Mapping[str, Any]], SeedFolder],
    *,
    saliency: SaliencySource | None = None,
    storage: MapStorage | None = None,
) -> Callable[..., Report]:
    """Open the folder of the averages of seeds; see `make_average_seeds`.

    Args:
        data, sources, weights, saliency: see `make_average_seeds`.
        open_folder: function that prepares the folder for results of given settings.
        storage: type and size of the stored maps.

    Returns:
        Function of `shard` and `step` that makes the missing seeds.
    """
    storage = storage or MapStorage()
    average = {
        "seeds": [source.read_settings() for source in sources],
        "weights": list(weights),
        "saliency": None if saliency is None else saliency.settings,
    }
    stored: dict[str, Any] = {"dtype": storage.dtype, "scale": storage.scale}
    folder = open_folder({"classes": list(data.classes), "average": average, **stored})
    return partial(make_average_seeds, data, sources, folder, weights, saliency=saliency, **stored)


def _describe(seed: Seed) -> str:
    """Return the class numbers and the size of a seed as text."""
    return f"classes {list(seed.classes)} of {seed.size[1]}x{seed.size[0]} pixels"
