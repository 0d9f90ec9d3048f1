"""Class-conditional inference: split & unite with iterative erasing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor
from typing_extensions import override

from camplug.explain.base import Explainer, Result
from camplug.explain.erase import IterativeErasing
from camplug.explain.fuse import Normalize
from camplug.explain.inputs import Inputs
from camplug.explain.registry import register_wrapper
from camplug.explain.split import SplitUnite
from camplug.explain.wrapper import Wrapper
from camplug.plug import Classes, MapSize


@register_wrapper("classconditional")
class ClassConditional(Wrapper):
    """Split each image into four parts, erase iteratively in every part, and unite the maps.

    Sun et al., "Inferring the Class Conditional Response Map for Weakly Supervised Semantic Segmentation" (2021), Fig.
    5: `SplitUnite(IterativeErasing(explainer), locate=explainer)`.

    Args:
        explainer: any explainer.
        preset: preset of both parts, "camplug", "paper" or "repo".
        split: further arguments of `SplitUnite`.
        erase: further arguments of `IterativeErasing`.
        normalize: normalisation of the united map: "max", "minmax" or None.
    """

    def __init__(
        self,
        explainer: Explainer,
        preset: str = "camplug",
        *,
        split: Mapping[str, Any] | None = None,
        erase: Mapping[str, Any] | None = None,
        normalize: Normalize = "max",
    ) -> None:
        super().__init__(explainer, normalize=normalize)
        erasing = IterativeErasing(explainer, preset, **(erase or {}))
        self.united = SplitUnite(erasing, preset, locate=explainer, normalize=normalize, **(split or {}))

    @override
    def without_normalization(self) -> Self:
        other = super().without_normalization()
        other.united = self.united.without_normalization()
        return other

    @override
    def run(self, x: Tensor, classes: Classes, size: MapSize | None = None, inputs: Inputs | None = None) -> Result:
        return self.united.run(x, classes, size, inputs)
