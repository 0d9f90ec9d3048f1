"""KPCA-CAM (Karmani et al., 2024, arXiv 2410.00267)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from camplug.errors import InputError
from camplug.explain.activation import ActivationExplainer
from camplug.explain.registry import register
from camplug.explain.tensor_ops import widen
from camplug.explain.wrapper import is_number
from camplug.plug import Selector

# positions up to which all eigenvectors are computed
SMALL = 256


def kpca_cam(activation: Tensor, gamma: float | None = None) -> Tensor:
    r"""Compute KPCA-CAM of one layer: the first component of a kernel PCA over the positions.

    .. math:: \kappa_{ij} = \tanh(\gamma\, f_i \cdot f_j + 1), \quad \bar\kappa = J \kappa J = U \Lambda U^T, \quad
        L = \mathrm{relu}(\sqrt{\lambda_1}\, u_1)

    f are the features of the positions, minus their mean; J centres the kernel matrix. An eigenvector has no sign: here
    it is the one that agrees with the sum of the features, :math:`\sum_i u_{1i} \sum_k A_{ki} \ge 0`.

    Args:
        activation: A, [N,K,h,w].
        gamma: :math:`\gamma`; default: 1/K.

    Returns:
        Map [N,h,w], not negative, not normalised.
    """
    features = activation.flatten(2).transpose(1, 2).double()  # [N,hw,K]
    sums = features.sum(2)
    features = features - features.mean(1, keepdim=True)
    kernel = torch.tanh(features @ features.transpose(1, 2) * (gamma or 1 / features.shape[2]) + 1)
    kernel = kernel - kernel.mean(1, keepdim=True)
    kernel = kernel - kernel.mean(2, keepdim=True)
    component = torch.stack([find_first_component(one) for one in (kernel + kernel.transpose(1, 2)) / 2])
    component = component * torch.where((component * sums).sum(1, keepdim=True) < 0, -1.0, 1.0)
    result: Tensor = component.clamp_min(0).view(len(activation), *activation.shape[2:])
    return result.to(widen(activation[:0]).dtype)


def find_first_component(kernel: Tensor) -> Tensor:
    """Return the eigenvector [P] of the largest eigenvalue of a symmetric matrix [P,P], times the eigenvalue's root."""
    if len(kernel) <= SMALL:
        values, vectors = torch.linalg.eigh(kernel)
        scaled: Tensor = vectors[:, -1] * values[-1].clamp_min(0).sqrt()
        return scaled
    from scipy.sparse.linalg import eigsh

    start = torch.linspace(-1, 1, len(kernel), dtype=torch.float64).numpy()
    values, vectors = eigsh(kernel.cpu().numpy(), k=1, which="LA", v0=start)
    component: Tensor = torch.from_numpy(vectors[:, 0] * max(float(values[0]), 0.0) ** 0.5).to(kernel)
    return component


@register("kpcacam")
class KPCACAM(ActivationExplainer):
    """KPCA-CAM: first component of a kernel PCA of the last feature map; independent of the class, without gradients.

    Needs memory for the square of the number of positions.

    Args:
        model: any module, which is never changed.
        layers: layers to read; default: the last feature map.
        gamma: factor of the inner products in the sigmoid kernel; default: 1 / channels.
        options: further arguments of `LayerExplainer`.
    """

    def __init__(
        self, model: nn.Module, layers: Selector | None = None, *, gamma: float | None = None, **options: Any
    ) -> None:
        super().__init__(model, layers, **options)
        if gamma is not None and not (is_number(gamma) and gamma > 0):
            raise InputError(f"gamma={gamma!r}; give a number above 0, or None for 1 / channels.")
        self.gamma = gamma

    @override
    def activation_map(self, activation: Tensor) -> Tensor:
        return kpca_cam(activation, self.gamma)
