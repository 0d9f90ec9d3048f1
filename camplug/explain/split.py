"""Split & unite at inference: explain parts of the image separately and unite their maps."""

from __future__ import annotations

import math
import numbers
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from camplug.errors import InputError
from camplug.explain.base import Explainer, Result
from camplug.explain.batch import check_batch, check_size
from camplug.explain.erase import Weight, compute_class_weights
from camplug.explain.fuse import SCALINGS, Normalize, Scaling, normalize_map, resize_maps, scale_relative
from camplug.explain.inputs import Batch, Inputs
from camplug.explain.registry import register_wrapper
from camplug.explain.wrapper import Wrapper, check_choice, is_number, run_at_size, set_class_form
from camplug.images.geometry import scale_size
from camplug.plug import Classes, MapSize, find_size_multiple

SPLIT: dict[str, dict[str, Any]] = {
    "paper": {
        "margins": (0, 0), "many": "per-class", "combine": "max", "scaling": "own", "weight": None, "whole": False,
        "zoom": 1.0,
    },
    "repo": {
        "margins": (10, 20), "many": "none", "combine": "max", "scaling": "own", "weight": None, "whole": False,
        "zoom": 1.0,
    },
    "camplug": {
        "margins": (0, 0), "many": "per-class", "combine": "mean", "scaling": "relative", "weight": None,
        "whole": True, "zoom": 2.0,
    },
}  # fmt: skip


class Patch(NamedTuple):
    """Part of an image in pixels; bottom and right are exclusive."""

    top: int
    left: int
    bottom: int
    right: int


def find_centres_of_mass(maps: Tensor) -> list[tuple[int, int]]:
    """Return the centre of mass (row, column) of each map [K,h,w], rounded down; the middle of an all-zero map."""
    height, width = maps.shape[-2:]
    mass = maps.double().clamp_min(0)
    total = mass.sum((1, 2))
    y = (mass.sum(2) * torch.arange(height, device=maps.device)).sum(1) / total
    x = (mass.sum(1) * torch.arange(width, device=maps.device)).sum(1) / total
    found = torch.stack([y, x, total], 1).tolist()  # one synchronisation
    return [(int(row), int(column)) if mass > 0 else (height // 2, width // 2) for row, column, mass in found]


def make_patches(
    centres: Sequence[tuple[int, int]], size: tuple[int, int], margin: int = 0, smallest: int = 1
) -> list[Patch]:
    """Return four patches, one per corner of the image, that all contain the box around the centres.

    The box is extended by `margin` on all sides.

    Args:
        centres: centres of mass (row, column), one or more.
        size: height and width of the image.
        margin: extension of the box in pixels, clamped to the image.
        smallest: minimum side of a patch, at most that of the image.
    """
    height, width = size
    top, bottom = min(c[0] for c in centres) - margin, max(c[0] for c in centres) + margin
    left, right = min(c[1] for c in centres) - margin, max(c[1] for c in centres) + margin
    bottom, right = max(bottom, smallest), max(right, smallest)
    top, left = min(top, height - smallest), min(left, width - smallest)
    bottom, right = min(bottom, height), min(right, width)
    top, left = max(top, 0), max(left, 0)
    return [
        Patch(0, 0, bottom, right),
        Patch(0, left, bottom, width),
        Patch(top, 0, height, right),
        Patch(top, left, height, width),
    ]


class _Union:
    """Union of the maps of an image's patches.

    Args:
        like: maps of the whole image [K,H,W], for shape and device.
        combine: "max", "mean" or "sum" of the maps that cover a position.
    """

    def __init__(self, like: Tensor, combine: str) -> None:
        self.combine = combine
        self.maps, self.counts = torch.zeros_like(like), torch.zeros_like(like)

    def add(self, patch: Patch, rows: list[int], maps: Tensor) -> None:
        """Add maps [k,h,w] of a patch for consecutive classes."""
        part = (slice(rows[0], rows[-1] + 1), slice(patch.top, patch.bottom), slice(patch.left, patch.right))
        self.maps[part] = torch.maximum(self.maps[part], maps) if self.combine == "max" else self.maps[part] + maps
        self.counts[part] += 1

    def result(self) -> Tensor:
        """Return the united maps [K,H,W]; 0 where no patch lies."""
        return self.maps / self.counts.clamp_min(1) if self.combine == "mean" else self.maps


@register_wrapper("splitunite")
class SplitUnite(Wrapper):
    """Explain four parts of each image separately and unite their maps.

    Sun et al., "Inferring the Class Conditional Response Map for Weakly Supervised Semantic Segmentation" (2021), Sec.
    3.2, Fig. 3. One class: four patches around the centre of mass of its map. Two classes: four patches that share the
    box between both centres. Three or more: each class separately around its own centre ("per-class", the paper), or
    the whole image only ("none", the authors' code). The result is the maximum over the patches' maps at their
    positions. Patches of equal size form one batch.

    Presets: "paper"; "repo" (the authors' code); "camplug": patches at twice their size, on the scale of the whole
    image, and at each position the mean of the maps that cover it, including that of the whole image. On real
    photographs, "paper" and "repo" are worse than no splitting, "camplug" is better (docs/seeds.md).

    Args:
        explainer: any explainer, used for the patches.
        preset: default of the other settings: "camplug", "paper" or "repo".
        margins: extension of the box in pixels for one class, and for two.
        many: patches for three or more classes: "per-class" or "none".
        smallest: minimum side of a patch in pixels.
        combine: combination of the maps that cover a position: "max" (the paper), "mean" or "sum" (which favours
            positions in several patches, such as the box between two centres).
        scaling: scale of the patches' maps before they are combined: "own" divides each by its maximum, also without
            the object (the paper); "relative" by the larger of its maximum and that of the whole image's map
            (`scale_relative`); "raw" keeps it. Without `normalize`, "relative" keeps the scale of the whole image.
        weight: class probability that weights each patch: "sigmoid", "softmax" or None.
        whole: also unite the map of the whole image.
        zoom: enlargement of each patch before it enters the model.
        locate: explainer for the centres; default: the map of the whole image.
        normalize: normalisation of the united map: "max", "minmax" or None.
    """

    def __init__(
        self,
        explainer: Explainer,
        preset: str = "camplug",
        *,
        margins: tuple[int, int] | None = None,
        many: str | None = None,
        smallest: int = 32,
        combine: str | None = None,
        scaling: Scaling | None = None,
        weight: Weight | Literal["preset"] = "preset",
        whole: bool | None = None,
        zoom: float | None = None,
        locate: Explainer | None = None,
        normalize: Normalize = "max",
    ) -> None:
        super().__init__(explainer, normalize=normalize)
        check_choice("preset", preset, tuple(SPLIT))
        settings = SPLIT[preset]
        chosen = settings["margins"] if margins is None else margins
        self.many = settings["many"] if many is None else many
        combine = settings["combine"] if combine is None else combine
        scaling = settings["scaling"] if scaling is None else scaling
        weight = settings["weight"] if weight == "preset" else weight
        whole = settings["whole"] if whole is None else whole
        zoom = settings["zoom"] if zoom is None else zoom
        check_choice("many", self.many, ("per-class", "none"))
        check_choice("combine", combine, ("max", "mean", "sum"))
        check_choice("scaling", scaling, SCALINGS)
        check_choice("weight", weight, ("sigmoid", "softmax", None))
        pixels = (*chosen, smallest) if isinstance(chosen, (tuple, list)) and len(chosen) == 2 else ()
        if (
            not pixels
            or not all(is_number(v, numbers.Integral) and v >= 0 for v in pixels)
            or smallest < 1
            or not is_number(zoom)
            or not 0 < zoom < math.inf
        ):
            raise InputError(
                f"margins={chosen!r}, smallest={smallest!r}, zoom={zoom!r}: give two margins of at least 0 pixels, a "
                "smallest side of at least 1 pixel, and a zoom above 0."
            )
        if locate is not None and not isinstance(locate, Explainer):
            raise InputError(f"locate={locate!r} is no explainer; give for instance locate=camplug.CAM(model).")
        self.margins = tuple(chosen)
        self.smallest, self.combine, self.scaling, self.weight = smallest, combine, scaling, weight
        self.whole, self.zoom = whole, zoom
        self.locate = explainer if locate is None else locate

    @override
    def run(self, x: Tensor, classes: Classes, size: MapSize | None = None, inputs: Inputs | None = None) -> Result:
        batch = check_batch(self.model, x, inputs)
        sizes = check_size(batch, size)
        wanted, per_image = self.choose_classes(batch, classes)
        full = batch.size
        inner = self.explainer if self.scaling == "own" else self.explainer.without_normalization()
        # a factor does not move the centres, so the map of the whole image serves for both
        shared = self.locate is self.explainer and (inner is self.explainer or self.explainer.normalize != "minmax")
        located = (inner if shared else self.locate).run_batch(batch, wanted, full)
        whole = located if shared or not self._needs_whole(wanted) else inner.run_batch(batch, wanted, full)
        peaks = [m.amax((1, 2)) if len(m) else m.new_zeros(0) for m in whole.maps]
        weights = compute_class_weights(whole.logits, whole.targets.classes, self.weight)
        unions = [_Union(m, self.combine) for m in located.maps]
        jobs: list[tuple[int, Patch, list[int]]] = []  # image, patch, indices into the image's classes
        centres = iter(find_centres_of_mass(torch.cat(located.maps)))
        for i, maps in enumerate(located.maps):
            own = [next(centres) for _ in range(len(maps))]
            if self._includes_whole(len(own)):
                unions[i].add(
                    Patch(0, 0, *full), list(range(len(own))), self._scale(whole.maps[i], peaks[i], weights[i])
                )
            jobs += [(i, patch, rows) for patch, rows in self._list_patches(own, full)]
        for (i, patch, rows), maps, w in self._explain_patches(inner, batch, wanted, jobs):
            unions[i].add(patch, rows, self._scale(maps, peaks[i][rows[0] : rows[-1] + 1], w))
        united = [union.result() for union in unions]
        if self.scaling == "relative" and self.normalize is None:
            united = [m * peak[:, None, None] for m, peak in zip(united, peaks, strict=True)]
        fused = [normalize_map(resize_maps(m, s), self.normalize) for m, s in zip(united, sizes, strict=True)]
        return set_class_form(Result(fused, located.targets, located.logits), per_image)

    def _includes_whole(self, classes: int) -> bool:
        """Return whether the map of the whole image is united, in an image with a number of classes."""
        return classes > 0 and (self.whole or (classes > 2 and self.many == "none"))

    def _needs_whole(self, wanted: list[list[int]]) -> bool:
        return self.scaling == "relative" or any(self._includes_whole(len(row)) for row in wanted)

    def _scale(self, maps: Tensor, peaks: Tensor, weights: Tensor) -> Tensor:
        """Return maps [K,h,w] of a patch with the scale and weight that they are united with."""
        return (scale_relative(maps, peaks) if self.scaling == "relative" else maps) * weights[:, None, None]

    def _list_patches(self, centres: list[tuple[int, int]], size: tuple[int, int]) -> list[tuple[Patch, list[int]]]:
        """List the patches of one image with the indices of their classes, from the centres of the classes' maps."""
        if not centres or (len(centres) > 2 and self.many == "none"):
            return []
        if len(centres) <= 2:
            margin = self.margins[len(centres) - 1]
            return [(p, list(range(len(centres)))) for p in make_patches(centres, size, margin, self.smallest)]
        return [
            (p, [k])
            for k, centre in enumerate(centres)
            for p in make_patches([centre], size, self.margins[0], self.smallest)
        ]

    def _explain_patches(
        self, inner: Explainer, batch: Batch, wanted: list[list[int]], jobs: list[tuple[int, Patch, list[int]]]
    ) -> Iterator[tuple[tuple[int, Patch, list[int]], Tensor, Tensor]]:
        """Yield each job with the maps of its patch and the weights of its classes; equal sizes form one batch."""
        by_size: dict[tuple[int, int], list[tuple[int, Patch, list[int]]]] = defaultdict(list)
        for job in jobs:
            by_size[job[1].bottom - job[1].top, job[1].right - job[1].left].append(job)
        for size, group in by_size.items():
            zoom = 1.0 if size == batch.size else self.zoom
            parts = batch.cut([(i, p) for i, p, _ in group])
            zoomed = parts.resize(scale_size(size, zoom, find_size_multiple(self.model)))
            called = "a part of the image; models of one input size cannot be explained in parts"
            result = run_at_size(inner, zoomed, [[wanted[i][k] for k in rows] for i, _, rows in group], called, size)
            weights = compute_class_weights(result.logits, result.targets.classes, self.weight)
            yield from zip(group, result.maps, weights, strict=True)
