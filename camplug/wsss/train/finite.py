"""Detection of losses that are NaN, infinite or always zero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from camplug.errors import ModelError

EVERY = 32  # steps between two transfers from a device


def check_finite(loss: Any, step: int, images: Sequence[str] = ()) -> None:
    """Check that a loss is finite; this synchronises with the device (see `FiniteLosses`).

    Args:
        loss: loss of a step.
        step: number of the step.
        images: names of the images of the step.

    Raises:
        ModelError: the loss is NaN or infinite.
    """
    value = float(loss)
    if not math.isfinite(value):
        came = f" on the images {', '.join(images)}" if images else ""
        raise ModelError(f"the loss at step {step} is {value}{came}; a lower learning rate usually mends that.")


class FiniteLosses:
    """Check of all losses for NaN and infinity without synchronising with the device at every step.

    Losses on a GPU are checked together every 32 steps and, by `fit`, at the end of every epoch before validation and
    checkpoints. Losses on the CPU are checked at once.

    Args:
        ids: image names by number.
    """

    def __init__(self, ids: Sequence[str] = ()) -> None:
        self.ids = list(ids)
        self.nonzero = False  # whether any loss so far differs from 0
        self._seen: list[tuple[int, Tensor, Tensor | None]] = []

    def add(self, loss: Tensor, step: int, images: Tensor | None = None) -> None:
        """Add the loss of a step.

        Args:
            loss: scalar.
            step: number of the step.
            images: numbers of the images of the step.

        Raises:
            ModelError: this loss or an earlier one is NaN or infinite.
        """
        self._seen.append((step, loss.detach(), images))
        if loss.device.type == "cpu" or len(self._seen) >= EVERY:
            self.check()

    def check(self) -> None:
        """Check all losses since the last check.

        Raises:
            ModelError: one of them is NaN or infinite; the message names the first.
        """
        seen, self._seen = self._seen, []
        if not seen:
            return
        for (step, _, images), loss in zip(seen, torch.stack([loss for _, loss, _ in seen]).tolist(), strict=True):
            self.nonzero = self.nonzero or loss != 0
            if not math.isfinite(loss):
                numbers = [] if images is None or not self.ids else images.flatten().tolist()
                check_finite(loss, step, [self.ids[i] for i in numbers])

    def check_nonzero(self) -> None:
        """Check that the losses so far are not all exactly 0.

        Raises:
            ModelError: they are.
        """
        self.check()
        if not self.nonzero:
            raise ModelError(
                "the loss of every step is exactly 0, so there is nothing to learn: the labels leave no pixels to "
                "compare; make labels with other thresholds, or give larger crops."
            )
