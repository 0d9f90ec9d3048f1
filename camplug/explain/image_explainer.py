"""Base class of explainers that score changed copies of each image and need no layers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from camplug.explain.base import Explainer, Result
from camplug.explain.batch import call_model, check_batch, check_size, find_class_logits
from camplug.explain.fuse import Normalize, normalize_map, resize_maps
from camplug.explain.inputs import Batch, Inputs
from camplug.explain.masked_scores import check_batch_size, score_copies, split_images
from camplug.explain.tensor_ops import widen
from camplug.plug import Classes, Evidence, MapSize, Tape, Targets, resolve_classes


class ImageExplainer(Explainer):
    """Base class of explainers that score changed copies of each image and need no layers.

    Args:
        model: any module, which is never changed.
        batch_size: changed copies per forward pass.
        normalize: "max", "minmax" or None.
        evidence: "positive" or "negative".
        class_names: class names by index.
        preprocess: preprocessing for `explain`.
    """

    needs_many_passes: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        *,
        batch_size: int = 32,
        normalize: Normalize = "max",
        evidence: Evidence = "positive",
        class_names: Sequence[str] | None = None,
        preprocess: Callable[[Any], Tensor] | None = None,
    ) -> None:
        super().__init__(model, normalize=normalize, evidence=evidence, class_names=class_names, preprocess=preprocess)
        self.batch_size = check_batch_size(batch_size)

    @abstractmethod
    def explain_image(self, image: Batch, targets: Targets, scores: Tensor) -> Tensor:
        """Compute the maps [K,h,w] of one image, of any size and not normalised; negative values count as 0.

        Args:
            image: batch of one; `image.x` is [1,C,H,W].
            targets: K classes or the score of the image, for `score_copies`.
            scores: scores [K] of the unchanged image.
        """

    def score_copies(self, image: Batch, targets: Targets, copies: Tensor) -> Tensor:
        """Compute the scores [M,K] of changed copies [M,C,H,W] of an image, `batch_size` of them per forward pass."""
        return score_copies(
            self.model, image, targets, len(copies), lambda first, last: copies[first:last], self.batch_size
        )

    @override
    @torch.no_grad()
    def run(self, x: Tensor, classes: Classes, size: MapSize | None = None, inputs: Inputs | None = None) -> Result:
        batch = check_batch(self.model, x, inputs)
        sizes, n = check_size(batch, size), len(batch)
        with Tape(self.model, [""], forward_only=True, image=batch.where):
            output = call_model(self.model, batch)
        targets = resolve_classes(classes, output, n, self.evidence)
        targets.check(output)
        rounds = [(_list_images(targets, r), targets.compute_scores(output, r).detach()) for r in range(targets.rounds)]
        maps = []
        for i, (image, own) in enumerate(split_images(batch, targets)):
            if own.rounds == 0:
                maps.append(widen(batch.x).new_zeros(0, *sizes[i]))
                continue
            scores = torch.stack([values[images.index(i)] for images, values in rounds[: own.rounds]])
            raw = widen(self.explain_image(image, own, scores)).clamp_min(0)
            maps.append(normalize_map(resize_maps(raw, sizes[i]), self.normalize))
        return Result(maps, targets, find_class_logits(output, n))


def _list_images(targets: Targets, r: int) -> list[int]:
    """List the images that have a score in round r."""
    return list(range(len(targets.classes))) if targets.score is not None else targets.get_round(r)[0]
