"""Settings of optimizers and learning-rate schedules."""

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
    """Settings of the optimizer and its learning-rate schedule.

    The published codes of AffinityNet and IRN use the value 0.9, named "momentum", as the power of the learning-rate
    decay, and SGD with hardly any momentum. Here `momentum` is SGD's and `power` the decay's.

    Args:
        optimizer: "sgd" or "adamw".
        lr: learning rate of the first step, multiplied by the factor of each parameter group.
        momentum: momentum of SGD; AdamW uses its own.
        weight_decay: weight decay.
        power: power of the decay lr (1 - step/steps)^power, updated at every step.
        warmup: part of the steps at the start in which the rate rises, linearly with "poly".
        shape: "poly", the decay above, or "one-cycle" (Smith & Topin, 2018; `torch.optim.lr_scheduler.OneCycleLR`):
            cosines up from lr/25 and down to nearly 0, without `power`.

    Raises:
        InputError: a number is out of range, or the optimizer or shape is unknown.
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
        """Constant learning rate, independent of the number of steps."""
        return self.shape == "poly" and self.power == 0 and self.warmup == 0

    def get_factor(self, step: int, steps: int) -> float:
        """Compute the factor of the learning rate at a step, counted from 0.

        >>> [round(ScheduleSettings(power=1.0).get_factor(step, 4), 2) for step in range(5)]
        [1.0, 0.75, 0.5, 0.25, 0.0]
        """
        decay: float = max(0.0, 1 - step / max(steps, 1)) ** self.power
        rising = self.warmup * steps
        return decay * min(1.0, (step + 1) / rising) if rising >= 1 else decay

    def make_optimizers(self, groups: Sequence[tuple[nn.Module, float]], steps: int) -> Any:
        """Make the result of `LightningModule.configure_optimizers` for modules with factors of the learning rate."""
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
            steps = max(steps, 3)  # torch divides by the lengths of both halves minus one
            rising = min(max(self.warmup, 2 / steps), 1 - 1 / steps)
            scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, top, steps, pct_start=rising)
        else:
            scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.get_factor(step, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
