"""Deep feature factorisation (Collins et al., ECCV 2018, arXiv 1806.10206)."""

from __future__ import annotations

import numbers
import warnings
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from camplug.errors import InputError
from camplug.explain.base import LayerExplainer
from camplug.explain.registry import register
from camplug.explain.tensor_ops import widen
from camplug.explain.wrapper import is_number
from camplug.plug import Selector


def factorize_features(features: Tensor, concepts: int, *, iterations: int = 200) -> tuple[Tensor, Tensor]:
    r"""Factorise the features of all positions of one image or several, by non-negative matrix factorisation.

    .. math:: \mathrm{relu}(A) \approx H W, \quad H \ge 0,\; W \ge 0

    Args:
        features: A, [N,K,h,w]; the images share their concepts.
        concepts: number of concepts C; at most the number of channels and of positions count.
        iterations: maximum number of steps of scikit-learn's NMF, which starts from a singular value decomposition.

    Returns:
        Strength of each concept at each position, H, [N,C,h,w], and the concepts, W, [C,K].

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        nmf = import_module("sklearn.decomposition").NMF
    except ImportError:
        raise InputError("deep feature factorisation needs scikit-learn: pip install scikit-learn.") from None
    n, channels = features.shape[:2]
    values = widen(features).clamp_min(0).flatten(2).transpose(1, 2).reshape(-1, channels)
    count = min(concepts, *values.shape)
    if not bool(values.any()):
        strengths, found = values.new_zeros(len(values), count), values.new_zeros(count, channels)
    else:
        model = nmf(count, init="nndsvda", max_iter=iterations, tol=1e-4, random_state=0)
        array = values.double().cpu().numpy()
        strengths = torch.from_numpy(_fit_quietly(model, array)).to(values)
        found = torch.from_numpy(model.components_).to(values)
    maps = strengths.view(n, -1, count).transpose(1, 2)
    return maps.reshape(n, count, *features.shape[2:]), found


def _fit_quietly(model: Any, array: Any) -> Any:
    """Return the strengths; a factorisation that has not converged is as good as the steps allow."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", import_module("sklearn.exceptions").ConvergenceWarning)
        return model.fit_transform(array)


def weigh_concepts(strengths: Tensor, concepts: Tensor, gradient: Tensor) -> Tensor:
    r"""Add the maps of concepts, weighted by what each adds to the score to first order.

    .. math:: L = \sum_c \mathrm{relu}(\alpha \cdot W_c)\, H_c, \quad \alpha_k = \mathrm{mean}_{ij}\, g_{kij}

    The paper shows the concepts one by one; these weights are Grad-CAM's.

    Args:
        strengths: H of one image, [C,h,w].
        concepts: W, [C,K].
        gradient: g, [K,h,w].

    Returns:
        Map [h,w], not negative, not normalised.
    """
    weights = (concepts @ widen(gradient).flatten(1).mean(1)).clamp_min(0)
    return torch.einsum("c,c...->...", weights, strengths)


@register("dff")
class DeepFeatureFactorization(LayerExplainer):
    """Deep feature factorisation: concepts of the last feature map (NMF), those added that speak for the class.

    Each image is factorised by itself. `factorize_features` gives the concepts of several images one by one.

    Args:
        model: any module, which is never changed.
        layers: layers to read; default: the last feature map.
        concepts: number of concepts.
        options: further arguments of `LayerExplainer`.
    """

    def __init__(self, model: nn.Module, layers: Selector | None = None, *, concepts: int = 5, **options: Any) -> None:
        super().__init__(model, layers, **options)
        if not is_number(concepts, numbers.Integral) or concepts < 1:
            raise InputError(f"concepts={concepts!r}; give a whole number of at least 1.")
        self.concepts = concepts

    @override
    def layer_map(self, activation: Tensor, gradient: Tensor) -> Tensor:
        maps = []
        for a, g in zip(activation, gradient, strict=True):
            strengths, concepts = factorize_features(a[None], self.concepts)
            maps.append(weigh_concepts(strengths[0], concepts, g))
        return torch.stack(maps)
