"""Normalised class maps of present classes, as the losses of training-time methods compare them."""

from __future__ import annotations

from torch import Tensor

from camplug.errors import InputError

EPS = 1e-5


def normalize_maps(maps: Tensor, present: Tensor | None = None, eps: float = EPS) -> Tensor:
    r"""Divide the positive part of each class map by its maximum; set absent classes to 0.

    .. math:: P_c(x) = y_c \frac{\mathrm{relu}(M_c(x))}{\max_x \mathrm{relu}(M_c(x)) + \epsilon}

    The gradient includes the maximum.

    Args:
        maps: M, output of the 1x1 head, [N,C,h,w].
        present: y, 1 where image n shows class c, [N,C]; None keeps all classes.
        eps: term of the denominator, so that maps without positive values give 0.

    Returns:
        [N,C,h,w] in [0, 1).

    Raises:
        InputError: the shapes do not fit together.

    >>> import torch
    >>> maps = torch.tensor([[[[-1.0, 2.0, 4.0]], [[3.0, 0.0, 0.0]]]])
    >>> normalize_maps(maps, torch.tensor([[1, 0]])).round(decimals=2)
    tensor([[[[0.0000, 0.5000, 1.0000]],
    <BLANKLINE>
             [[0.0000, 0.0000, 0.0000]]]])
    """
    positive = maps.clamp_min(0)
    shares = positive / (positive.amax((2, 3), keepdim=True) + eps)
    return shares if present is None else shares * prepare_labels(maps, present)[..., None, None].to(maps)


def prepare_labels(maps: Tensor, present: Tensor) -> Tensor:
    """Check labels [N,C] against class maps [N,C,h,w] and move them to the maps' device.

    Raises:
        InputError: the shapes do not fit.
    """
    check_labels(maps, present)
    return present.to(maps.device)


def check_labels(maps: Tensor, present: Tensor) -> None:
    """Check the shape of labels [N,C] against class maps [N,C,h,w].

    Raises:
        InputError: the shapes do not fit.
    """
    if maps.ndim != 4 or present.shape != maps.shape[:2]:
        raise InputError(
            f"class maps {list(maps.shape)} and labels {list(present.shape)} do not fit; give [N,C,h,w] and [N,C]."
        )
