"""Eigen-CAM (Muhammad and Yeasin, 2020, arXiv 2008.00299)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from camplug.explain.base import LayerExplainer
from camplug.explain.batch import choose_calls
from camplug.explain.fuse import Fusion
from camplug.explain.inputs import Batch
from camplug.explain.registry import register
from camplug.explain.tensor_ops import widen
from camplug.plug import Tape, Targets


def eigen_cam(activation: Tensor) -> Tensor:
    r"""Eigen-CAM of one layer: the projection of the features on their first principal direction, its positive part.

    .. math:: O = U \Sigma V^T, \quad L = \mathrm{relu}(O v_1), \quad O \in \mathbb{R}^{hw \times K}

    The features are not centred (as in the paper). The sign of a singular vector is arbitrary; it is chosen so that
    the projections sum to a positive number. The vector comes from the smaller Gram matrix, in float64.

    Args:
        activation: A, [N,K,h,w].

    Returns:
        [N,h,w], not negative, not normalised.
    """
    n, _, h, w = activation.shape
    o = activation.flatten(2).transpose(1, 2).double()  # [N,hw,K]
    if o.shape[1] <= o.shape[2]:
        values, vectors = torch.linalg.eigh(o @ o.transpose(1, 2))
        projection = vectors[..., -1] * values[:, -1:].clamp_min(0).sqrt()
    else:
        _, vectors = torch.linalg.eigh(o.transpose(1, 2) @ o)
        projection = (o @ vectors[..., -1:])[..., 0]
    projection = projection * torch.where(projection.sum(1, keepdim=True) < 0, -1.0, 1.0)
    shown: Tensor = projection.clamp_min(0).view(n, h, w)
    return shown.to(widen(activation[:0]).dtype)


@register("eigencam")
class EigenCAM(LayerExplainer):
    """Eigen-CAM: the main direction of the last feature map; the same map for every class, no gradient."""

    needs_gradient: ClassVar[bool] = False
    knows_classes: ClassVar[bool] = False

    @override
    def layer_map(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return eigen_cam(activation)

    @override
    def fusions(self, tape: Tape, output: Any, targets: Targets, batch: Batch) -> list[Fusion]:
        if targets.score is not None:
            targets.compute_scores(output, 0)  # NaN in the scores is refused here too
        with torch.autocast(batch.x.device.type, enabled=False):
            maps = [
                self.one_map(layer, activation, activation, batch)
                for layer, activation in choose_calls(tape, self.call)
            ]
        return [self.fuse(maps)] * targets.rounds
