"""Explanations by changing parts of the image: occlusion (Zeiler and Fergus, 2014) and RISE (Petsiuk et al., 2018)."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from camplug.errors import InputError
from camplug.explain.image_explainer import ImageExplainer
from camplug.explain.inputs import Batch
from camplug.explain.masked_scores import find_probabilities, score_copies
from camplug.explain.registry import register
from camplug.explain.tensor_ops import widen
from camplug.explain.wrapper import is_number
from camplug.plug import Targets


def occlude(image: Tensor, boxes: Sequence[tuple[int, int, int, int]]) -> Tensor:
    """Return copies [M,C,H,W] of an image [C,H,W], each with its mean colour in one box (top, left, bottom, right)."""
    copies = image.expand(len(boxes), -1, -1, -1).clone()
    fill = image.mean((1, 2))[:, None, None]
    for copy, (top, left, bottom, right) in zip(copies, boxes, strict=True):
        copy[:, top:bottom, left:right] = fill
    return copies


@register("occlusion")
class Occlusion(ImageExplainer):
    r"""Occlusion: drop of the score when a window shows the mean colour only.

    .. math:: L_p = \frac{\sum_{w \ni p} \big(y(x) - y(x_w)\big)}{|\{w \ni p\}|}

    Each position has the mean drop of the windows over it, negative ones count as 0 at the end.

    Args:
        model: any module, which is never changed.
        window: side of the window in pixels; default: an eighth of the image's shorter side.
        stride: pixels between windows; default: half of the window.
        batch_size: changed copies per forward pass.
        normalize: "max", "minmax" or None.
        evidence: "positive" or "negative".
        class_names: class names by index.
        preprocess: preprocessing for `explain`.
    """

    def __init__(self, model: nn.Module, window: int | None = None, stride: int | None = None, **options: Any) -> None:
        super().__init__(model, **options)
        for name, value in (("window", window), ("stride", stride)):
            if value is not None and not (is_number(value, numbers.Integral) and value >= 1):
                raise InputError(f"{name}={value!r}; give a whole number of pixels, at least 1.")
        self.window, self.stride = window, stride

    @override
    def explain_image(self, image: Batch, targets: Targets, scores: Tensor) -> Tensor:
        height, width = image.size
        side = min(self.window or max(1, min(height, width) // 8), height, width)
        step = self.stride or max(1, side // 2)
        boxes = [
            (top, left, top + side, left + side)
            for top in _list_starts(height, side, step)
            for left in _list_starts(width, side, step)
        ]

        def make(first: int, last: int) -> Tensor:
            return occlude(image.x[0], boxes[first:last])

        drops = scores - score_copies(self.model, image, targets, len(boxes), make, self.batch_size)
        total, count = widen(image.x).new_zeros(len(scores), height, width), widen(image.x).new_zeros(height, width)
        for drop, (top, left, bottom, right) in zip(widen(drops), boxes, strict=True):
            total[:, top:bottom, left:right] += drop[:, None, None]
            count[top:bottom, left:right] += 1
        return total / count


def _list_starts(length: int, side: int, step: int) -> list[int]:
    """List the first pixels of windows along an axis; the last window ends with it."""
    starts = list(range(0, length - side + 1, step))
    return starts if starts[-1] == length - side else [*starts, length - side]


def make_rise_masks(count: int, cells: int, p: float, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Draw RISE's masks [M,H,W] in [0, 1]: coarse random grids, enlarged and shifted at random (Sec. 3.2)."""
    height, width = size
    high, wide = -(-height // cells), -(-width // cells)  # pixels of a cell, rounded up
    grid = (torch.rand(count, 1, cells, cells, generator=generator) < p).float()
    masks = F.interpolate(grid, ((cells + 1) * high, (cells + 1) * wide), mode="bilinear", align_corners=False)[:, 0]
    tops = torch.randint(high, (count,), generator=generator).tolist()
    lefts = torch.randint(wide, (count,), generator=generator).tolist()
    return torch.stack([m[t : t + height, a : a + width] for m, t, a in zip(masks, tops, lefts, strict=True)])


@register("rise")
class RISE(ImageExplainer):
    r"""RISE: mean of random masks, weighted by the class probability of the masked image.

    .. math:: L = \frac{1}{p\,M} \sum_{i=1}^{M} y(x \odot m_i)\, m_i \quad \text{(eq. 6)}

    Of classes the probability counts (softmax; sigmoid for a multi-label model), of a callable its value. The masks are
    the same for every image and call.

    Args:
        model: any module, which is never changed.
        masks: number of masks M; the paper has 4000 to 8000.
        cells: side of the coarse grid.
        p: share of cells that stay visible.
        seed: seed of the masks.
        batch_size: masked images per forward pass.
        normalize: "max", "minmax" or None.
        evidence: "positive" or "negative".
        class_names: class names by index.
        preprocess: preprocessing for `explain`.
    """

    def __init__(
        self, model: nn.Module, masks: int = 1000, cells: int = 7, p: float = 0.5, *, seed: int = 0, **options: Any
    ) -> None:
        super().__init__(model, **options)
        if not all(is_number(v, numbers.Integral) and v >= 1 for v in (masks, cells)) or not (
            is_number(p) and 0 < p < 1
        ):
            raise InputError(
                f"masks={masks!r}, cells={cells!r}, p={p!r}; give whole numbers of at least 1, and p between 0 and 1."
            )
        self.masks, self.cells, self.p, self.seed = masks, cells, p, seed

    @override
    def explain_image(self, image: Batch, targets: Targets, scores: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        total = widen(image.x).new_zeros(len(scores), *image.size)
        for first in range(0, self.masks, self.batch_size):
            count = min(self.batch_size, self.masks - first)
            masks = make_rise_masks(count, self.cells, self.p, image.size, generator).to(image.x)

            def make(start: int, stop: int, masks: Tensor = masks) -> Tensor:
                return image.x * masks[start:stop, None]

            y = score_copies(
                self.model, image, targets, count, make, count, probabilities=find_probabilities(self.model, targets)
            )
            total += torch.einsum("mk,mhw->khw", widen(y), widen(masks))
        return total / (self.p * self.masks)
