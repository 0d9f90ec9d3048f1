"""Eigen-Grad-CAM: Eigen-CAM of the features times their gradients (as in pytorch-grad-cam; no paper)."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from camplug.explain.base import LayerExplainer
from camplug.explain.eigencam import eigen_cam
from camplug.explain.registry import register
from camplug.explain.tensor_ops import widen


def eigen_grad_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    r"""Compute Eigen-Grad-CAM of one layer: Eigen-CAM of :math:`A \odot g`.

    Args:
        activation: A, [N,K,h,w].
        gradient: g, [N,K,h,w].

    Returns:
        Map [N,h,w], not negative, not normalised.
    """
    return eigen_cam(widen(activation) * widen(gradient))


@register("eigengradcam")
class EigenGradCAM(LayerExplainer):
    """Eigen-Grad-CAM: first principal direction of the last feature map times its gradient."""

    @override
    def layer_map(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return eigen_grad_cam(activation, gradient)
