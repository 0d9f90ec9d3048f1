"""LPCAM (Chen & Sun, CVPR 2023, arXiv 2303.10334): similarity to local prototypes of a class."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from camplug.errors import InputError, ModelError, TargetError
from camplug.explain.base import Explainer
from camplug.explain.cam import CAM, cam
from camplug.explain.fuse import Fusion
from camplug.explain.inputs import Batch
from camplug.explain.local_prototypes import LocalPrototypes
from camplug.explain.registry import register
from camplug.explain.tensor_ops import widen
from camplug.models.class_names import find_class_names
from camplug.plug import Against, Tape, make_index


def lpcam(features: Tensor, vectors: Tensor) -> Tensor:
    r"""Compute LPCAM, the cosine to prototypes minus that to context, its positive part.

    .. math:: L = \mathrm{relu}\Big(\frac1J \sum_j \cos(f, p_j) - \frac1M \sum_m \cos(f, b_m)\Big)
        = \mathrm{relu}\Big(\frac{f}{\lVert f \rVert} \cdot v\Big)

    Args:
        features: f, input of global average pooling, [N,K,h,w].
        vectors: v, vector of each image's class, [N,K]; see `LocalPrototypes.make_vectors`.

    Returns:
        Map [N,h,w], not negative, not normalised; 0 where the features are 0.
    """
    features = widen(features)
    return cam(F.normalize(features, dim=1, eps=torch.finfo(features.dtype).tiny), widen(vectors))


def list_files(explainer: Explainer) -> list[str]:
    """List the files of prototypes that an explainer, or one within it, was built from."""
    if isinstance(explainer, LPCAM):
        return [] if explainer.file is None else [explainer.file]
    return [file for value in vars(explainer).values() if isinstance(value, Explainer) for file in list_files(value)]


@register("lpcam")
class LPCAM(CAM):
    """LPCAM: similarity of the pooled map to local prototypes of the class, minus that to its context.

    The prototypes are the centres of clusters of the features of training images with image labels; they are made once
    with `fit_prototypes` or `camplug fit-prototypes`. Needs a head as `CAM` does, and one forward pass.

    Args:
        model: classifier whose features the prototypes were made of.
        prototypes: prototypes, or the .npz file that holds them.
        layers: pooled layer; default: found as in `CAM`.
        options: further arguments of `LayerExplainer`.

    Raises:
        InputError: there are no prototypes, or they cannot be read.
        ModelError: the model has no such head, or another number of channels or classes than the prototypes.
        TargetError: at call time, a class has no prototypes, or evidence against a class is explained.
    """

    needs_fit: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        prototypes: LocalPrototypes | str | os.PathLike[str] | None = None,
        layers: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(model, layers, **options)
        if self.evidence == "negative":
            raise InputError('LPCAM has no evidence against a class; leave out evidence="negative", or use GradCAM.')
        if prototypes is None:
            raise InputError(
                "LPCAM needs prototypes=, made of training images by `camplug fit-prototypes` or "
                'camplug.fit_prototypes; for instance LPCAM(prototypes="prototypes.npz").'
            )
        self.file = None if isinstance(prototypes, LocalPrototypes) else os.fspath(prototypes)
        self.prototypes = prototypes if isinstance(prototypes, LocalPrototypes) else LocalPrototypes.load(prototypes)
        self._vectors = self.prototypes.make_vectors()

    @override
    def _fuse_rounds(self, tape: Tape, head: Any, output: Any, targets: Any, batch: Batch) -> list[Fusion]:
        if not head.features:
            raise ModelError("LPCAM needs a head that pools a map of features; this model's head makes a map itself.")
        features = self._find_pooled_map(tape, head, output, batch)[1]
        self._check(features.shape[1], len(head.weight), targets)
        vectors = self._vectors.to(features)
        fusions = []
        for r in range(targets.rounds):
            images, chosen = (make_index(features.device, numbers) for numbers in targets.get_round(r))
            own = features.new_zeros(len(batch), features.shape[1])
            own[images] = vectors[chosen]
            fusion = Fusion(None)
            fusion.add(lpcam(features, own), features.shape[1])
            fusions.append(fusion)
        return fusions

    def _check(self, channels: int, classes: int, targets: Any) -> None:
        """Raise if prototypes and model do not fit, or a class has no prototypes."""
        have = (len(self._vectors), self._vectors.shape[1])
        if have != (classes, channels):
            raise ModelError(
                f"the prototypes are of {have[0]} classes and {have[1]} channels, and the model has {classes} and "
                f"{channels}; make them with this model."
            )
        for c in dict.fromkeys(c for row in targets.classes for c in row):
            if isinstance(c, Against):
                raise TargetError("LPCAM has no evidence against a class; use GradCAM.")
            if not len(self.prototypes.positive[c]):
                names = find_class_names(self.model, classes, self.class_names)
                raise TargetError(
                    f"there are no prototypes of class {names[c] if names else c!r}: no training image showed it; make "
                    "prototypes with images of it, or explain this class with CAM."
                )
