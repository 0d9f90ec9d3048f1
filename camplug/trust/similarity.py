"""Similarity of two maps of one image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from camplug.errors import InputError
from camplug.explain.fuse import normalize_map
from camplug.explain.tensor_ops import safe_divide


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    r"""Compute Spearman's rank correlation of maps [N,H,W] and others, [N]; nan where a map is constant.

    .. math:: \rho = \mathrm{corr}(\mathrm{rank}(a), \mathrm{rank}(b))

    with mean ranks for equal values.

    >>> rank_correlation(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[1.0, 4.0, 9.0]]]))
    tensor([1.])
    """
    from scipy.stats import rankdata

    _check_pair(a, b)
    ranks = [torch.from_numpy(rankdata(t.detach().cpu().double().flatten(1).numpy(), axis=1)) for t in (a, b)]
    u, v = (r - r.mean(1, keepdim=True) for r in ranks)
    size = u.norm(dim=1) * v.norm(dim=1)
    found = torch.where(size > 0, (u * v).sum(1) / size, torch.nan)
    return found.to(a.dtype).to(a.device)


def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    r"""Compute the cosine of maps [N,H,W] and others, [N]; 0 where a map is empty.

    .. math:: \cos = \frac{\langle a, b \rangle}{\|a\| \, \|b\|}

    >>> cosine_similarity(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[4.0, 3.0]]]))
    tensor([0.9600])
    """
    _check_pair(a, b)
    u, v = a.flatten(1), b.flatten(1)
    return safe_divide((u * v).sum(1), u.norm(dim=1) * v.norm(dim=1))


def structural_similarity(a: Tensor, b: Tensor) -> Tensor:
    r"""Compute the SSIM of maps [N,H,W] and others, [N]; each map is divided by its maximum first.

    .. math:: \mathrm{SSIM} = \frac{(2 \mu_a \mu_b + c_1) (2 \sigma_{ab} + c_2)}
        {(\mu_a^2 + \mu_b^2 + c_1) (\sigma_a^2 + \sigma_b^2 + c_2)}

    averaged over all windows inside the map; Gaussian windows of 11 x 11 pixels with a standard deviation of 1.5,
    c1 = 0.01^2, c2 = 0.03^2. Wang et al., IEEE TIP 2004.

    Raises:
        InputError: the maps are smaller than a window.
    """
    _check_pair(a, b)
    if min(a.shape[1:]) < 11:
        raise InputError(f"the maps have {a.shape[1]}x{a.shape[2]} pixels, and SSIM needs at least 11x11.")
    u, v = (normalize_map(t, "max")[:, None] for t in (a, b))
    place = torch.arange(-5, 6, dtype=a.dtype, device=a.device)
    line = torch.exp(-(place**2) / (2 * 1.5**2))
    line = line / line.sum()
    window = torch.outer(line, line)[None, None]
    mu, mv, uu, vv, uv = (F.conv2d(t, window) for t in (u, v, u * u, v * v, u * v))
    su, sv, cross = uu - mu**2, vv - mv**2, uv - mu * mv
    c1, c2 = 0.01**2, 0.03**2
    ratio = (2 * mu * mv + c1) * (2 * cross + c2) / ((mu**2 + mv**2 + c1) * (su + sv + c2))
    return ratio.mean((1, 2, 3))


Similarity: TypeAlias = Literal["rank", "ssim", "cosine"]

_SIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rank": rank_correlation,
    "ssim": structural_similarity,
    "cosine": cosine_similarity,
}


def compare_maps(a: Tensor, b: Tensor, how: Similarity = "rank") -> Tensor:
    """Compute the similarity of maps [N,H,W] and others, [N], by name: "rank", "ssim" or "cosine".

    Raises:
        InputError: the name is unknown or the shapes differ.
    """
    if how not in _SIMILARITIES:
        raise InputError(f"similarity={how!r}; allowed are {', '.join(map(repr, _SIMILARITIES))}.")
    return _SIMILARITIES[how](a, b)


def is_constant(maps: Tensor) -> Tensor:
    """Return whether each map [N,H,W] has one value up to rounding, bool [N]."""
    low, high = maps.amin((1, 2)), maps.amax((1, 2))
    room = 100 * float(np.finfo(np.float32).eps) * torch.maximum(low.abs(), high.abs())
    return high - low <= room


def _check_pair(a: Tensor, b: Tensor) -> None:
    if a.ndim != 3 or a.shape != b.shape:
        raise InputError(f"the maps are {list(a.shape)} and {list(b.shape)}; give two of one shape [N,H,W].")
