"""Class maps as the losses of training-time methods compare them: of the present classes, between 0 and 1."""

from __future__ import annotations

from torch import Tensor

from camplug.errors import InputError

EPS = 1e-5


def normalized_maps(maps: Tensor, present: Tensor | None = None, eps: float = EPS) -> Tensor:
    r"""Positive part of class maps, each divided by its own maximum; 0 for absent classes.

    .. math:: P_c(x) = y_c \frac{\mathrm{relu}(M_c(x))}{\max_x \mathrm{relu}(M_c(x)) + \epsilon}

    The gradient goes through the maximum, too.

    Args:
        maps: M, what the 1x1 head puts out, [N,C,h,w].
        present: y, 1 where image n shows class c, [N,C]; None keeps all classes.
        eps: keeps a map without a positive value at 0.

    Returns:
        [N,C,h,w] in [0, 1).

    Raises:
        InputError: shapes that do not fit together.

    >>> import torch
    >>> maps = torch.tensor([[[[-1.0, 2.0, 4.0]], [[3.0, 0.0, 0.0]]]])
    >>> normalized_maps(maps, torch.tensor([[1, 0]])).round(decimals=2)
    tensor([[[[0.0000, 0.5000, 1.0000]],
    <BLANKLINE>
             [[0.0000, 0.0000, 0.0000]]]])
    """
    positive = maps.clamp_min(0)
    shares = positive / (positive.amax((2, 3), keepdim=True) + eps)
    return shares if present is None else shares * checked_present(maps, present)[..., None, None].to(maps)


def checked_present(maps: Tensor, present: Tensor) -> Tensor:
    """Labels [N,C] that fit class maps [N,C,h,w], on their device.

    Raises:
        InputError: they do not.
    """
    check_labels(maps, present)
    return present.to(maps.device)


def check_labels(maps: Tensor, present: Tensor) -> None:
    """Refuse labels that do not fit class maps [N,C,h,w], wherever they are.

    Raises:
        InputError: they do not.
    """
    if maps.ndim != 4 or present.shape != maps.shape[:2]:
        raise InputError(
            f"class maps {list(maps.shape)} and labels {list(present.shape)} do not fit; give [N,C,h,w] and [N,C]."
        )
