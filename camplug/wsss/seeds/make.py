"""Make the seeds of a data set: resumable, in shares over processes, past broken images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from camplug.errors import CamplugError, InputError
from camplug.explain.base import Explainer
from camplug.explain.pictures import maps_on_photo
from camplug.wsss.data import SegmentationData
from camplug.wsss.seeds.store import NUMBERS, Number, Seed, SeedFolder, packed


@dataclass
class Report:
    """What a run did: the numbers of seeds made and found, bytes written, and the broken images with their errors."""

    made: int = 0
    found: int = 0
    bytes: int = 0
    broken: list[tuple[str, str]] = field(default_factory=list)


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

    A seed that is there already is left alone, so a run that was stopped goes on where it was; what it left half
    written is removed. Images go through one by one: a seed does not depend on which others were made in the same run.
    An image without labels gets a seed without maps. A broken image is noted, and the run goes on.

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
    if number not in NUMBERS:
        raise InputError(f"number={number!r}; allowed are {', '.join(map(repr, NUMBERS))}.")
    if not 0 < scale <= 1:
        raise InputError(f"scale={scale!r}; give more than 0 and at most 1.")
    rank, world = shard
    if not 0 <= rank < world:
        raise InputError(f"shard={shard!r}; give (r, n) with r from 0 to n - 1.")
    report = Report()
    leftovers = folder.leftovers()
    for i in range(rank, len(data), world):
        name = data.ids[i]
        if folder.holds(name):
            report.found += 1
            step(report)
            continue
        try:
            seed = _seed(explainer, data, i, number, scale)
        except _Mismatch:
            raise
        except Exception as error:  # somebody's own model may raise anything
            if not isinstance(error, InputError) and not (report.made or report.found):
                raise
            report.broken.append((name, _says(error)))
        else:
            folder.save(name, seed)
            for part in leftovers.get(name, ()):  # older than this seed took, so nobody is writing it any more
                part.unlink(missing_ok=True)
            report.made += 1
            report.bytes += folder.file(name).stat().st_size
        step(report)
    return report


def _says(error: Exception) -> str:
    """The first line of an error, with its kind if it is not one of ours."""
    lines = str(error).strip().splitlines()
    kind = [] if isinstance(error, CamplugError) else [type(error).__name__]
    return ": ".join([*kind, *lines[:1]]) or type(error).__name__


class _Mismatch(CamplugError):
    """The model and the data do not fit; no image's fault."""


def _seed(explainer: Explainer, data: SegmentationData, i: int, number: Number, scale: float) -> Seed:
    photo, classes = data.photo(i), data.labels(i)
    size = (photo.height, photo.width)
    if not classes:
        return Seed(packed(torch.zeros(0, *size), number, scale), (), size, np.zeros(0, np.float32))
    maps, logits = maps_on_photo(explainer, photo, list(classes))
    if logits is None or len(logits) != len(data.classes):
        has = "no logits" if logits is None else f"{len(logits)} classes"
        raise _Mismatch(
            f"the model has {has} and the data has {len(data.classes)} ({', '.join(data.classes[:3])}, ...); give a "
            "classifier of these classes in this order."
        )
    return Seed(packed(maps, number, scale), classes, size, logits.numpy())
