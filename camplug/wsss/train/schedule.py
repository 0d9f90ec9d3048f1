"""Optimizers and learning rates by name, with what is meant by momentum and by power told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from camplug.errors import InputError

OPTIMIZERS = ("sgd", "adamw")
SHAPES = ("poly", "one-cycle")


@dataclass(frozen=True)
class ScheduleSettings:
    """How a network learns.

    The published codes of PSA and IRN call 0.9 "momentum" that is in truth the power of their learning rate's decay,
    and run SGD with a momentum of next to nothing. Here both are named: `momentum` is SGD's, `power` is the decay's.

    Args:
        optimizer: "sgd" or "adamw".
        lr: learning rate of the first step, multiplied by each group's own factor.
        momentum: of SGD; AdamW has its own two.
        weight_decay: of the weights.
        power: lr (1 - step/steps)^power, updated at every step.
        warmup: part of the steps, from the first on, in which the rate rises, linearly with "poly".
        shape: "poly", the decay above, or "one-cycle" (Smith & Topin, 2018; `torch.optim.lr_scheduler.OneCycleLR`):
            along cosines up from lr/25 and down to next to nothing; it has no power.

    Raises:
        InputError: a number out of range, or an unknown optimizer or shape.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 1e-4
    power: float = 0.9
    warmup: float = 0.0
    shape: Literal["poly", "one-cycle"] = "poly"

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise InputError(f"optimizer={self.optimizer!r}; allowed are {', '.join(OPTIMIZERS)}.")
        if self.shape not in SHAPES:
            raise InputError(f"shape={self.shape!r}; allowed are {', '.join(SHAPES)}.")
        bounds = {"lr": (0, None), "momentum": (0, 1), "weight_decay": (0, None), "power": (0, None), "warmup": (0, 1)}
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not value >= low or (high is not None and value >= high):
                limit = f"at least {low}" + ("" if high is None else f" and less than {high}")
                raise InputError(f"{name}={value!r}; give {limit}.")

    @property
    def is_steady(self) -> bool:
        """Whether the learning rate is the same at every step, so that longer trainings begin in the same way."""
        return self.shape == "poly" and self.power == 0 and self.warmup == 0

    def rate(self, step: int, steps: int) -> float:
        """The factor of the learning rate at a step, counted from 0.

        >>> [round(ScheduleSettings(power=1.0).rate(step, 4), 2) for step in range(5)]
        [1.0, 0.75, 0.5, 0.25, 0.0]
        """
        decay: float = max(0.0, 1 - step / max(steps, 1)) ** self.power
        rising = self.warmup * steps
        return decay * min(1.0, (step + 1) / rising) if rising >= 1 else decay

    def optimizers(self, groups: Sequence[tuple[nn.Module, float]], steps: int) -> Any:
        """What `LightningModule.configure_optimizers` returns, for modules with a factor of the learning rate each."""
        parameters: list[dict[str, Any]] = [
            {
                "params": [p for p in module.parameters() if p.requires_grad],
                "lr": self.lr * factor,
                "weight_decay": self.weight_decay,
            }
            for module, factor in groups
        ]
        optimizer: torch.optim.Optimizer
        if self.optimizer == "sgd":
            optimizer = torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum)
        else:
            optimizer = torch.optim.AdamW(parameters, lr=self.lr)
        scheduler: torch.optim.lr_scheduler.LRScheduler
        if self.shape == "one-cycle":
            top = [group["lr"] for group in parameters]
            steps = max(steps, 3)  # torch divides by the lengths of both halves, less one step
            rising = min(max(self.warmup, 2 / steps), 1 - 1 / steps)
            scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, top, steps, pct_start=rising)
        else:
            scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.rate(step, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
