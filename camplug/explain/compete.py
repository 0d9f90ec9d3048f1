"""Competition of the classes of one image, decided by a class-discriminative map."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from camplug.errors import InputError, ModelError
from camplug.explain.base import Explainer, Result
from camplug.explain.batch import check_batch, check_size, choose_size
from camplug.explain.fuse import Normalize, normalize_map
from camplug.explain.gradcam import GradCAM
from camplug.explain.inputs import Inputs
from camplug.explain.registry import register_wrapper
from camplug.explain.wrapper import Wrapper, is_number, set_class_form
from camplug.plug import Classes, MapSize

FLOOR = 1e-3  # all classes share positions where the judge is 0


def compute_shares(judged: Tensor, power: float = 1.0) -> Tensor:
    r"""Compute the share of each class at each position.

    .. math:: s_c = \Big(\frac{J_c + \epsilon}{\max_{c'} J_{c'} + \epsilon}\Big)^p, \quad \epsilon = 10^{-3}

    Args:
        judged: J, the judge's maps of one image's K classes, [K,h,w], each with maximum 1.
        power: p; larger values favour the strongest class.

    Returns:
        Shares [K,h,w]: 1 for the strongest class of a position, less for the others; 1 for all where J is 0.

    >>> import torch
    >>> compute_shares(torch.tensor([[[0.5]], [[0.25]]]))
    tensor([[[1.0000]],
            [[0.5010]]])
    """
    if len(judged) == 0:
        return judged
    return ((judged + FLOOR) / (judged.amax(0, keepdim=True) + FLOOR)) ** power


@register_wrapper("compete")
class Compete(Wrapper):
    """Let the classes of one image compete for each position, by the maps of a class-discriminative judge.

    Maps that use early layers (such as Fully-CAM) cover objects well, but are nearly the same for two classes of one
    image. Maps of the last layer are coarse, but discriminate classes. Each class's map is multiplied by the judge's
    value for the class relative to the strongest class there (`compute_shares`). Images with one class stay unchanged
    and need no pass of the judge. Our own method, without a paper.

    Args:
        explainer: any explainer.
        judge: class-discriminative explainer; default: `GradCAM` of the same model.
        power: exponent of the share; larger values favour the strongest class.
        normalize: normalisation of the result: "max", "minmax" or None.
    """

    def __init__(
        self,
        explainer: Explainer,
        judge: Explainer | None = None,
        power: float = 2.0,
        *,
        normalize: Normalize = "max",
    ) -> None:
        super().__init__(explainer, normalize=normalize)
        if judge is not None and not isinstance(judge, Explainer):
            raise InputError(f"judge={judge!r} is no explainer; give for instance judge=camplug.CAM(model).")
        if not is_number(power) or not power > 0:
            raise InputError(f"power={power!r}; give more than 0.")
        self.judge = GradCAM(explainer.model) if judge is None else judge
        if self.judge.model is not self.model:
            raise ModelError("the judge explains another model than the explainer; give both the same.")
        self.power = power

    @override
    def run(self, x: Tensor, classes: Classes, size: MapSize | None = None, inputs: Inputs | None = None) -> Result:
        batch = check_batch(self.model, x, inputs)
        sizes = check_size(batch, size)
        wanted, per_image = self.choose_classes(batch, classes)
        result = self.explainer.run_batch(batch, wanted, choose_size(sizes))
        many = [i for i, row in enumerate(wanted) if len(row) > 1]
        maps = list(result.maps)
        if many:
            judged = self.judge.run_batch(
                batch.take(many), [wanted[i] for i in many], choose_size([sizes[i] for i in many])
            )
            for i, j in zip(many, judged.maps, strict=True):
                maps[i] = maps[i] * compute_shares(normalize_map(j, "max"), self.power).to(maps[i].dtype)
        return set_class_form(
            Result([normalize_map(m, self.normalize) for m in maps], result.targets, result.logits), per_image
        )
