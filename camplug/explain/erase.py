"""Iterative erasing at inference: hide what a map shows, look again, add what appears (class-conditional inference)."""

from __future__ import annotations

import numbers
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from typing_extensions import override

from camplug.errors import InputError, TargetError
from camplug.explain.base import Explainer, Result
from camplug.explain.batch import check_batch, check_size
from camplug.explain.fuse import Normalize, normalize_map, resize_maps
from camplug.explain.inputs import Inputs
from camplug.explain.registry import register_wrapper
from camplug.explain.wrapper import Wrapper, check_choice, is_number, with_class_form
from camplug.plug import Against, Classes, Targets, make_index, pick_values, send_to

Weight: TypeAlias = Literal["sigmoid", "softmax"] | None

ERASE: dict[str, dict[str, Any]] = {
    "paper": {"threshold": 0.7, "stop": 0.01, "max_iter": 5, "combine": "sum", "keep_scale": False},
    "repo": {"threshold": 0.7, "stop": 0.02, "max_iter": 5, "combine": "max", "keep_scale": False},
    "camplug": {"threshold": 0.7, "stop": 0.01, "max_iter": 5, "combine": "sum", "keep_scale": True},
}


def erase(x: Tensor, mask: Tensor) -> Tensor:
    """Images [N,C,H,W] with their own mean colour where the mask [N,H,W] is true."""
    return torch.where(mask[:, None], x.mean((2, 3), keepdim=True), x)


def class_weights(logits: Tensor | None, classes: tuple[tuple[int, ...], ...], weight: Weight) -> list[Tensor]:
    """Per image, the probability of each of its classes [K] (of `Against` that of not being it); ones without `weight`.

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
    """Erases what the map shows most, explains the image again, and joins the maps, until nothing new appears.

    Sun et al., "Inferring the Class Conditional Response Map for Weakly Supervised Semantic Segmentation" (2021), Sec.
    3.2, Fig. 4. What exceeds `threshold` in the joined map of any of the image's classes is filled with the image's
    mean colour. A pass is added, the newly erased share is compared with `stop`, and the next pass follows.

    Presets: "paper" adds the maps and stops below 1 % of new area; "repo" (the authors' code) takes their maximum and
    stops below 2 %; "camplug" is the paper with passes that keep their scale. All know at most five passes. On real
    photographs the first two lose against no erasing; the last gains on Fully-CAM and about keeps CAM (docs/seeds.md),
    so it is the default.

    Args:
        explainer: any explainer.
        preset: "camplug", "paper" or "repo": where the other settings come from that are not given.
        threshold: of the joined map, of maximum 1, above which a position is erased.
        stop: share of the image newly erased below which no further pass follows.
        max_iter: passes at most, the first included.
        combine: how passes are joined: "sum" (the erasing threshold then reads the normalised sum) or "max".
        keep_scale: passes keep their scale, so that one with little evidence adds little; False: each is divided by
            its own maximum.
        weight: weigh each pass by the probability of the class in it: "sigmoid", "softmax" or None.
        stop_probability: no class is followed further once its probability (by `weight`, or else a sigmoid) is below;
            the pass in which it is counts no more, except that the first pass, the image itself, always counts.
        normalize: of the joined map: "max", "minmax" or None.
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
        keep_scale: bool | None = None,
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
            "keep_scale": keep_scale,
        }
        chosen: dict[str, Any] = {k: ERASE[preset][k] if v is None else v for k, v in given.items()}
        check_choice("combine", chosen["combine"], ("sum", "max"))
        check_choice("keep_scale", chosen["keep_scale"], (True, False))
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
        self.keep_scale, self.weight, self.stop_probability = bool(chosen["keep_scale"]), weight, stop_probability

    @override
    def run(
        self, x: Tensor, classes: Classes, size: tuple[int, int] | None = None, inputs: Inputs | None = None
    ) -> Result:
        batch = check_batch(self.model, x, inputs)
        out_size = check_size(batch, size)
        wanted, per_image = self.choose_classes(batch, classes)
        inner = self.explainer.unnormalized() if self.keep_scale else self.explainer
        input_size, n = batch.size, len(batch)
        joined: list[Tensor] = []
        first: Result | None = None
        hidden = torch.zeros((n, *input_size), dtype=torch.bool, device=batch.x.device)
        active = list(range(n))
        followed: dict[int, Tensor] = {}  # per image, which of its classes have been probable in every pass
        for _ in range(self.max_iter):
            part, covered = batch, hidden
            if len(active) < n:
                part, covered = batch.take(active), hidden.index_select(0, make_index(hidden.device, active))
            shown = part.with_images(erase(part.x, covered))
            result = inner.run_batch(shown, [wanted[i] for i in active], input_size)
            if first is None:
                first = result
                joined = [torch.zeros_like(m) for m in result.maps]
            weights, probable = self._weights(result)
            for j, i in enumerate(active):
                first_pass = i not in followed
                followed[i] = probable[j] if first_pass else probable[j] & followed[i]
                counts = weights[j] if first_pass else weights[j] * followed[i]
                one = result.maps[j] * counts[:, None, None]
                joined[i] = torch.maximum(joined[i], one) if self.combine == "max" else joined[i] + one
            found = []  # of each image, how many positions are new, and whether a class is still probable
            for i in active:
                seen = normalize_map(joined[i], "max").amax(0) if len(joined[i]) else joined[i].new_zeros(input_size)
                new = (seen > self.threshold) & ~hidden[i]
                hidden[i] |= new
                found.append(torch.stack([new.sum(), followed[i].any()]))
            numbers = torch.stack(found).tolist()  # the one wait for the device in a pass
            pixels = input_size[0] * input_size[1]
            active = [
                i
                for i, (new, probable) in zip(active, numbers, strict=True)
                if new > 0 and new / pixels >= self.stop and probable
            ]
            if not active:
                break
        assert first is not None
        maps = [normalize_map(resize_maps(m, out_size), self.normalize) for m in joined]
        return with_class_form(Result(maps, first.targets, first.logits), per_image)

    def _weights(self, result: Result) -> tuple[list[Tensor], list[Tensor]]:
        """Per image, what this pass counts for each class [K], and whether the class is probable enough [K]."""
        targets: Targets = result.targets
        weights = class_weights(result.logits, targets.classes, self.weight)
        p = class_weights(result.logits, targets.classes, self.weight or "sigmoid")
        return weights, [q >= self.stop_probability for q in p]
