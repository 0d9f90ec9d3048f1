"""Iterative erasing at inference: erase the found regions, explain again and combine the maps."""

from __future__ import annotations

import numbers
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from typing_extensions import override

from camplug.errors import InputError, TargetError
from camplug.explain.base import Explainer, Result
from camplug.explain.batch import check_batch, check_size
from camplug.explain.fuse import SCALINGS, Normalize, Scaling, normalize_map, resize_maps, scale_relative
from camplug.explain.inputs import Inputs
from camplug.explain.registry import register_wrapper
from camplug.explain.wrapper import Wrapper, check_choice, is_number, set_class_form
from camplug.plug import Against, Classes, MapSize, Targets, make_index, pick_values, send_to

Weight: TypeAlias = Literal["sigmoid", "softmax"] | None

ERASE: dict[str, dict[str, Any]] = {
    "paper": {"threshold": 0.7, "stop": 0.01, "max_iter": 5, "combine": "sum", "scaling": "own"},
    "repo": {"threshold": 0.7, "stop": 0.02, "max_iter": 5, "combine": "max", "scaling": "own"},
    "camplug": {"threshold": 0.7, "stop": 0.01, "max_iter": 5, "combine": "max", "scaling": "relative"},
}


def erase(x: Tensor, mask: Tensor) -> Tensor:
    """Fill images [N,C,H,W] with their mean colour where the mask [N,H,W] is true."""
    return torch.where(mask[:, None], x.mean((2, 3), keepdim=True), x)


def compute_class_weights(logits: Tensor | None, classes: tuple[tuple[int, ...], ...], weight: Weight) -> list[Tensor]:
    """Compute the probabilities [K] of each image's classes (1 - p for `Against`); ones without `weight`.

    Raises:
        TargetError: the model has no logits.
    """
    if logits is None:
        raise TargetError("weights by class probability need the model's logits, and its output has none.")
    if weight is None:
        return [logits.new_ones(len(c)) for c in classes]
    p = logits.float().sigmoid() if weight == "sigmoid" or logits.shape[1] == 1 else logits.float().softmax(1)
    images = [i for i, row in enumerate(classes) for _ in row]
    wanted = [c for row in classes for c in row]
    found = pick_values(p, images, wanted)
    against = [isinstance(c, Against) for c in wanted]
    if any(against):
        found = torch.where(send_to(torch.tensor(against), found.device), 1 - found, found)
    return list(torch.split(found, [len(row) for row in classes]))


@register_wrapper("iterativeerasing")
class IterativeErasing(Wrapper):
    """Erase the strongest regions of the map, explain the image again and combine the maps, until nothing new appears.

    Sun et al., "Inferring the Class Conditional Response Map for Weakly Supervised Semantic Segmentation" (2021), Sec.
    3.2, Fig. 4. Regions where the combined map of any of the image's classes exceeds `threshold` are filled with
    the mean colour. Passes end when the newly erased share of the image falls below `stop`.

    Presets: "paper" adds the maps and stops below 1 % of new area; "repo" (the authors' code) takes their maximum and
    stops below 2 %; "camplug" takes the maximum of passes on the scale of the first. All have at most five passes. On
    real photographs, "paper" and "repo" are worse than no erasing (docs/seeds.md).

    Args:
        explainer: any explainer.
        preset: default of the other settings: "camplug", "paper" or "repo".
        threshold: value of the combined map, normalised to maximum 1, above which a position is erased.
        stop: newly erased share of the image below which no further pass follows.
        max_iter: maximum number of passes, including the first.
        combine: combination of the passes: "sum" or "max".
        scaling: scale of the passes' maps before they are combined: "own" divides each by its maximum (the paper),
            "relative" by the larger of its maximum and that of the first pass (`scale_relative`), "raw" keeps it, so
            that weak evidence adds little. Without `normalize`, "relative" keeps the scale of the first pass.
        weight: class probability that weights each pass: "sigmoid", "softmax" or None.
        stop_probability: probability (by `weight`, else sigmoid) below which a class stops; that pass is not counted,
            unless it is the first.
        normalize: normalisation of the combined map: "max", "minmax" or None.
    """

    def __init__(
        self,
        explainer: Explainer,
        preset: str = "camplug",
        *,
        threshold: float | None = None,
        stop: float | None = None,
        max_iter: int | None = None,
        combine: str | None = None,
        scaling: Scaling | None = None,
        weight: Weight = None,
        stop_probability: float = 0.0,
        normalize: Normalize = "max",
    ) -> None:
        super().__init__(explainer, normalize=normalize)
        check_choice("preset", preset, tuple(ERASE))
        given = {
            "threshold": threshold,
            "stop": stop,
            "max_iter": max_iter,
            "combine": combine,
            "scaling": scaling,
        }
        chosen: dict[str, Any] = {k: ERASE[preset][k] if v is None else v for k, v in given.items()}
        check_choice("combine", chosen["combine"], ("sum", "max"))
        check_choice("scaling", chosen["scaling"], SCALINGS)
        check_choice("weight", weight, ("sigmoid", "softmax", None))
        limits = (chosen["threshold"], chosen["stop"], stop_probability)
        if (
            not (all(is_number(v) and 0 <= v <= 1 for v in limits) and 0 < limits[0] < 1)
            or not is_number(chosen["max_iter"], numbers.Integral)
            or chosen["max_iter"] < 1
        ):
            raise InputError(
                f"threshold={chosen['threshold']!r}, stop={chosen['stop']!r}, max_iter={chosen['max_iter']!r}, "
                f"stop_probability={stop_probability!r}: threshold lies between 0 and 1, stop and stop_probability "
                "from 0 to 1, and max_iter is a whole number of at least 1."
            )
        self.threshold, self.stop = float(chosen["threshold"]), float(chosen["stop"])
        self.max_iter, self.combine = int(chosen["max_iter"]), str(chosen["combine"])
        self.scaling, self.weight, self.stop_probability = str(chosen["scaling"]), weight, stop_probability

    @override
    def run(self, x: Tensor, classes: Classes, size: MapSize | None = None, inputs: Inputs | None = None) -> Result:
        batch = check_batch(self.model, x, inputs)
        sizes = check_size(batch, size)
        wanted, per_image = self.choose_classes(batch, classes)
        inner = self.explainer if self.scaling == "own" else self.explainer.without_normalization()
        input_size, n = batch.size, len(batch)
        joined: list[Tensor] = []
        peaks: list[Tensor] = []  # per image: maxima of the first pass
        first: Result | None = None
        hidden = torch.zeros((n, *input_size), dtype=torch.bool, device=batch.x.device)
        active = list(range(n))
        followed: dict[int, Tensor] = {}  # per image: classes that were probable in every pass
        for _ in range(self.max_iter):
            part, covered = batch, hidden
            if len(active) < n:
                part, covered = batch.take(active), hidden.index_select(0, make_index(hidden.device, active))
            visible = part.with_images(erase(part.x, covered))
            result = inner.run_batch(visible, [wanted[i] for i in active], input_size)
            if first is None:
                first = result
                joined = [torch.zeros_like(m) for m in result.maps]
                peaks = [m.amax((1, 2)) if len(m) else m.new_zeros(0) for m in result.maps]
            weights, probable = self._compute_weights(result)
            for j, i in enumerate(active):
                first_pass = i not in followed
                followed[i] = probable[j] if first_pass else probable[j] & followed[i]
                counts = weights[j] if first_pass else weights[j] * followed[i]
                one = result.maps[j]
                if self.scaling == "relative":
                    one = scale_relative(one, peaks[i])
                one = one * counts[:, None, None]
                joined[i] = torch.maximum(joined[i], one) if self.combine == "max" else joined[i] + one
            found = []  # per image: number of new positions, and whether a class is still probable
            for i in active:
                peak = normalize_map(joined[i], "max").amax(0) if len(joined[i]) else joined[i].new_zeros(input_size)
                new = (peak > self.threshold) & ~hidden[i]
                hidden[i] |= new
                found.append(torch.stack([new.sum(), followed[i].any()]))
            numbers = torch.stack(found).tolist()  # the only synchronisation of a pass
            pixels = input_size[0] * input_size[1]
            active = [
                i
                for i, (new, probable) in zip(active, numbers, strict=True)
                if new > 0 and new / pixels >= self.stop and probable
            ]
            if not active:
                break
        assert first is not None
        if self.scaling == "relative" and self.normalize is None:
            joined = [m * peak[:, None, None] for m, peak in zip(joined, peaks, strict=True)]
        maps = [normalize_map(resize_maps(m, s), self.normalize) for m, s in zip(joined, sizes, strict=True)]
        return set_class_form(Result(maps, first.targets, first.logits), per_image)

    def _compute_weights(self, result: Result) -> tuple[list[Tensor], list[Tensor]]:
        """Return per image the weights of its classes [K] in this pass, and whether they are probable enough [K]."""
        targets: Targets = result.targets
        weights = compute_class_weights(result.logits, targets.classes, self.weight)
        p = compute_class_weights(result.logits, targets.classes, self.weight or "sigmoid")
        return weights, [q >= self.stop_probability for q in p]
