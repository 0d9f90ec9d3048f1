"""Result of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from torch import nn

N = TypeVar("N", bound=nn.Module)


@dataclass
class TrainingResult(Generic[N]):
    """Result of a training.

    Attributes:
        network: trained network, on the model's device and in evaluation mode.
        file: path of its file.
        images: number of training images; 0 where the training was finished already.
        losses: losses logged last; empty where the training was finished already.
        broken: names of the images left out, with the reasons.
    """

    network: N = field(repr=False)
    file: Path
    images: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    broken: list[tuple[str, str]] = field(default_factory=list)


def format_losses(losses: Mapping[str, float]) -> str:
    """Format losses for a message.

    >>> format_losses({"affinity": 0.5, "displacement": 0.25})
    'affinity 0.5000, displacement 0.2500'
    """
    return ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
