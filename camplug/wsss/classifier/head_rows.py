"""Matching of the rows of a trained head with the classes of a data set, by name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from camplug.errors import InputError
from camplug.models.class_names import find_class_names
from camplug.wsss.class_names import match_classes


def find_rows(model: nn.Module, has: int, classes: Sequence[str], keep: bool | None) -> list[int] | None:
    """Return the rows of a trained head for the given classes, or None where it does not have them.

    Args:
        model: model with class names.
        has: number of its classes; 0 for no head.
        classes: names of the wanted classes.
        keep: True requires the head, False discards it, None keeps it where it has these classes.

    Raises:
        InputError: `keep` is True and the model has other class names.
    """
    names = find_class_names(model)
    if keep is False or not has:
        return None
    if names is None or len(names) != has:
        return list(range(has)) if has == len(classes) else None
    try:
        return match_classes(names, classes, "the trained model")
    except InputError as error:
        if keep:
            raise
        if len(names) == len(classes) or set(names) & set(classes):
            warnings.warn(f"the head is trained anew: {error}", stacklevel=4)
        return None


def take_rows(head: nn.Conv2d, rows: Sequence[int]) -> nn.Conv2d:
    """Return a 1x1 head with the given rows of another one."""
    if list(rows) == list(range(head.out_channels)):
        return head
    chosen = nn.Conv2d(head.in_channels, len(rows), 1, bias=head.bias is not None).to(head.weight)
    with torch.no_grad():
        chosen.weight.copy_(head.weight[list(rows)])
        if head.bias is not None and chosen.bias is not None:
            chosen.bias.copy_(head.bias[list(rows)])
    return chosen


def move_weight(weight: Tensor, neck: nn.Module | None) -> Tensor:
    """Return the weight [C,J] of a head behind a new neck that gives the maps of a trained one [C,K] in front of it."""
    take = getattr(neck, "take_head", None)
    return weight if take is None else take(weight)


def move_head(head: nn.Conv2d, neck: nn.Module) -> nn.Conv2d:
    """Return a 1x1 head behind a new neck that gives the maps of a trained one; see `move_weight`."""
    weight = move_weight(head.weight.detach()[:, :, 0, 0], neck)
    moved = nn.Conv2d(weight.shape[1], len(weight), 1, bias=head.bias is not None).to(head.weight)
    with torch.no_grad():
        moved.weight.copy_(weight[:, :, None, None])
        if head.bias is not None and moved.bias is not None:
            moved.bias.copy_(head.bias)
    return moved


def warn_of_lost_neck(trained: Mapping[str, Any] | None, neck: Mapping[str, Any]) -> None:
    """Warn where a classifier's trained neck is replaced by another one.

    Args:
        trained: kind and settings of the trained neck; None if there is none.
        neck: those of the other one.
    """
    if trained is None:
        return
    changed = (f"{k}={v!r} instead of {trained.get(k)!r}" for k, v in neck.items() if trained.get(k) != v)
    warnings.warn(
        f"the classifier's trained neck is replaced by an untrained one ({', '.join(changed)}); give the settings that "
        "it was trained with to keep it.",
        stacklevel=5,
    )
