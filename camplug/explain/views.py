"""Fusion of maps over scaled and mirrored views of an image (eq. 12 of the Fully-CAM paper), for any explainer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from typing_extensions import override

from camplug.errors import InputError
from camplug.explain.base import Explainer, Result
from camplug.explain.batch import check_batch, check_size
from camplug.explain.fuse import Normalize, normalize_map, resize_maps
from camplug.explain.inputs import Batch, Inputs
from camplug.explain.registry import register_wrapper
from camplug.explain.wrapper import Wrapper, check_choice, is_number, is_score, run_at_size
from camplug.images.geometry import scale_size
from camplug.plug import Classes, MapSize, find_size_multiple

Combine: TypeAlias = Literal["sum", "max", "mean"]


@register_wrapper("multiview")
class MultiView(Wrapper):
    r"""Fuse the maps of several views of each image: scales, each with its mirror image.

    .. math:: \mathrm{normalize}\Big(\sum_t t^{-1}\big(\mathrm{CAM}(t(I))\big)\Big) \quad \text{(Fully-CAM eq. 12)}

    Each view's map is normalised by the inner explainer, mirrored back, resized bilinearly and added with equal weight;
    the sum is normalised. An image and its mirror image form one batch. The logits are those of the unmirrored view
    with the scale nearest to 1.

    Args:
        explainer: any explainer.
        scales: factors of height and width; images are resized like PIL's bicubic filter.
        flip: add the horizontal mirror image of each view.
        combine: combination of the views: "sum", "max" or "mean" ("sum" and "mean" differ only without `normalize`).
        normalize: normalisation of the fused map: "max", "minmax" or None.

    Raises:
        ModelError: at call time, the model does not accept images of a view's size.
    """

    def __init__(
        self,
        explainer: Explainer,
        scales: Sequence[float] = (0.5, 1.0, 1.5, 2.0),
        flip: bool = True,
        combine: Combine = "sum",
        *,
        normalize: Normalize = "max",
    ) -> None:
        super().__init__(explainer, normalize=normalize)
        factors = tuple(scales) if isinstance(scales, (tuple, list)) else ()
        if not factors or not all(is_number(s) and 0 < s < math.inf for s in factors):
            raise InputError(f"scales={scales!r}; give positive factors, for instance (0.5, 1.0, 1.5, 2.0).")
        check_choice("combine", combine, ("sum", "max", "mean"))
        self.scales = tuple(float(s) for s in factors)
        self.flip = flip
        self.combine: Combine = combine

    @override
    def run(self, x: Tensor, classes: Classes, size: MapSize | None = None, inputs: Inputs | None = None) -> Result:
        batch = check_batch(self.model, x, inputs)
        sizes = check_size(batch, size)
        wanted, per_image = (classes, False) if is_score(classes) else self.choose_classes(batch, classes)
        fused: list[Tensor] | None = None
        nearest: Result | None = None
        for scale in sorted(self.scales, key=lambda s: abs(math.log(s))):
            for result, mirrored in self._run_views(batch, wanted, scale):
                turned = [m.flip(-1) if mirrored else m for m in result.maps]
                maps = [resize_maps(m, s) for m, s in zip(turned, sizes, strict=True)]
                fused = maps if fused is None else [self._combine(a, b) for a, b in zip(fused, maps, strict=True)]
                nearest = nearest or result
        assert fused is not None
        assert nearest is not None
        if self.combine == "mean":
            count = len(self.scales) * (2 if self.flip else 1)
            fused = [m / count for m in fused]
        n = len(batch)
        targets = replace(nearest.targets, classes=nearest.targets.classes[:n], per_image=per_image)
        logits = None if nearest.logits is None else nearest.logits[:n]
        return Result([normalize_map(m, self.normalize) for m in fused], targets, logits)

    def _combine(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.maximum(a, b) if self.combine == "max" else a + b

    def _run_views(self, batch: Batch, wanted: Any, scale: float) -> list[tuple[Result, bool]]:
        """Return the results of one scale, without and with mirroring."""
        n, size = len(batch), scale_size(batch.size, scale, find_size_multiple(self.model))
        view = batch.resize(size)
        called = f"the view at scale {scale:g}; leave that scale out of scales="

        def run(images: Batch, classes: Any) -> Result:
            if size == batch.size:
                return self.explainer.run_batch(images, classes)
            return run_at_size(self.explainer, images, classes, called)

        def change_view(mirrored: bool) -> Any:
            """Return a score, which may name places of the image, for this view."""
            change = getattr(wanted, "change_view", None)
            return wanted if change is None else change(scale, mirrored=mirrored)

        if not self.flip:
            return [(run(view, change_view(False)), False)]
        if is_score(wanted):  # the callable may hold values per image
            return [(run(v, change_view(mirrored)), mirrored) for v, mirrored in ((view, False), (view.mirror(), True))]
        both = run(view.join(view.mirror()), [*wanted, *wanted])
        halves = ((both.maps[:n], False), (both.maps[n:], True))
        return [(Result(maps, both.targets, both.logits), mirrored) for maps, mirrored in halves]
