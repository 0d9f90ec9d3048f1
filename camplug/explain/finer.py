"""Finer-CAM (Zhang et al., CVPR 2025, arXiv 2501.11309): explain a class against similar classes, for any explainer."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from camplug.errors import InputError, TargetError
from camplug.explain.base import Explainer, Result
from camplug.explain.batch import check_batch
from camplug.explain.fuse import Normalize, normalize_map
from camplug.explain.inputs import Inputs
from camplug.explain.registry import register_wrapper
from camplug.explain.wrapper import Wrapper, is_number
from camplug.plug import Against, Classes, MapSize, get_logits, make_index, resolve_classes


def compute_contrast(logits: Tensor, classes: Tensor, references: int = 3, strength: float = 0.6) -> Tensor:
    r"""Compute the logit of a class minus the weighted mean of the logits of its most similar classes.

    .. math:: s_c = y_c - \gamma\, \frac{\sum_{d \in D} p_d\, y_d}{\sum_{d \in D} p_d}, \quad p = \mathrm{softmax}(y)

    D are the other classes whose logits are closest to that of the class. The weights p are constants for gradients.

    Args:
        logits: y, [N,C].
        classes: c, the class of each image, [N].
        references: number of classes in D, at most C - 1.
        strength: gamma.

    Returns:
        Contrasts [N].

    >>> compute_contrast(torch.tensor([[4.0, 3.0, 1.0, -9.0]]), torch.tensor([0]), references=1, strength=0.5)
    tensor([2.5000])
    """
    own = logits.gather(1, classes[:, None])
    fixed = logits.detach()
    distance = (fixed - own.detach()).abs().scatter(1, classes[:, None], torch.inf)
    nearest = distance.sort(dim=1, stable=True).indices[:, : min(references, logits.shape[1] - 1)]
    weights = fixed.gather(1, nearest).softmax(1)  # the softmax over all classes, divided by its sum over D
    return own[:, 0] - strength * (weights * logits.gather(1, nearest)).sum(1)


@register_wrapper("finercam")
class FinerCAM(Wrapper):
    """Explain what tells a class from the most similar classes: its logit minus theirs (`compute_contrast`).

    Finer-CAM of the paper is `FinerCAM(GradCAM(model))`. Evidence that the class shares with similar classes counts
    less, by `strength`. The explainer must take a callable as classes; instead of `CAM` use `GradCAM`, which equals it.
    One run of the explainer for the n-th class of all images.

    Args:
        explainer: any explainer of a callable score.
        references: number of similar classes, those with the closest logits; 3 in the authors' code.
        strength: gamma, share of their logits that is subtracted; 0 explains the class alone.
        normalize: normalisation of the result: "max", "minmax" or None.

    Raises:
        TargetError: at call time, the model has one class, evidence against a class is explained, or the explainer
            takes no callable.
    """

    def __init__(
        self, explainer: Explainer, references: int = 3, strength: float = 0.6, *, normalize: Normalize = "max"
    ) -> None:
        super().__init__(explainer, normalize=normalize)
        if not is_number(references, numbers.Integral) or references < 1:
            raise InputError(f"references={references!r}; give a whole number of at least 1.")
        if not is_number(strength) or not 0 <= strength < float("inf"):
            raise InputError(f"strength={strength!r}; give a number of at least 0, for instance 0.6.")
        self.references, self.strength = references, strength

    @override
    def run(self, x: Tensor, classes: Classes, size: MapSize | None = None, inputs: Inputs | None = None) -> Result:
        batch = check_batch(self.model, x, inputs)
        wanted, per_image = self.choose_classes(batch, classes)
        if any(isinstance(c, Against) for row in wanted for c in row):
            raise TargetError("FinerCAM explains a class against similar ones, not the evidence against a class.")
        maps: list[list[Tensor]] = [[] for _ in wanted]
        result: Result | None = None
        for r in range(max(1, *map(len, wanted))):
            # images without an r-th class run with class 0, so that the logits of all images come from one call
            chosen = [row[r] if len(row) > r else 0 for row in wanted]
            found = self.explainer.run_batch(batch, self._make_score(chosen), size)
            result = result or found
            for row, own, one in zip(wanted, maps, found.maps, strict=True):
                if len(row) > r:
                    own.append(one[0])
        assert result is not None
        stacked = [
            torch.stack(own) if own else one.new_zeros(0, *one.shape[1:])
            for own, one in zip(maps, result.maps, strict=True)
        ]
        targets = replace(result.targets, classes=tuple(map(tuple, wanted)), score=None, per_image=per_image)
        return Result([normalize_map(m, self.normalize) for m in stacked], targets, result.logits)

    def _make_score(self, classes: Sequence[int]) -> Any:
        """Return the callable that computes the contrast of each image's class."""

        def score(output: Any) -> Tensor:
            logits = get_logits(output, len(classes))
            if logits.shape[1] < 2:
                raise TargetError("FinerCAM compares classes, and the model has one; use the explainer alone.")
            chosen = [row[0] for row in resolve_classes(list(classes), logits, len(classes)).classes]  # checked
            return compute_contrast(logits, make_index(logits.device, chosen), self.references, self.strength)

        return score
