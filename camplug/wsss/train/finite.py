"""A word, and an end, where a training's loss is no number any more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from camplug.errors import ModelError

EVERY = 32  # steps between two looks at a device


def refuse_nan(loss: Any, step: int, images: Sequence[str] = ()) -> None:
    """Stop a training whose loss is no number any more; reading the loss waits for the device (see `FiniteLosses`).

    Args:
        loss: of the step.
        step: its number.
        images: that it came from, by name.

    Raises:
        ModelError: so it is.
    """
    value = float(loss)
    if not math.isfinite(value):
        came = f" on the images {', '.join(images)}" if images else ""
        raise ModelError(f"the loss at step {step} is {value}{came}; a lower learning rate usually mends that.")


class FiniteLosses:
    """Stops a training at the first loss that is no number, without making the host wait for the device at each step.

    Losses of a GPU stay there, and are looked at together every 32 steps and, by `fit`, at the end of every epoch,
    before anything is validated or kept. Losses on the CPU are looked at where they are made.

    Args:
        ids: the images' names by number.
    """

    def __init__(self, ids: Sequence[str] = ()) -> None:
        self.ids = list(ids)
        self.nonzero = False  # whether any loss was not exactly 0
        self._seen: list[tuple[int, Tensor, Tensor | None]] = []

    def add(self, loss: Tensor, step: int, images: Tensor | None = None) -> None:
        """Take in the loss of a step.

        Args:
            loss: a scalar.
            step: its number.
            images: the numbers of the images that it came from.

        Raises:
            ModelError: this loss, or one before it, is no number.
        """
        self._seen.append((step, loss.detach(), images))
        if loss.device.type == "cpu" or len(self._seen) >= EVERY:
            self.check()

    def check(self) -> None:
        """Look at all losses since the last look.

        Raises:
            ModelError: one of them is no number; the first one is told.
        """
        seen, self._seen = self._seen, []
        if not seen:
            return
        for (step, _, images), loss in zip(seen, torch.stack([loss for _, loss, _ in seen]).tolist(), strict=True):
            self.nonzero = self.nonzero or loss != 0
            if not math.isfinite(loss):
                numbers = [] if images is None or not self.ids else images.flatten().tolist()
                refuse_nan(loss, step, [self.ids[i] for i in numbers])

    def check_nonzero(self) -> None:
        """Stop a training whose first epoch had nothing to learn from.

        Raises:
            ModelError: all losses so far are exactly 0.
        """
        self.check()
        if not self.nonzero:
            raise ModelError(
                "the loss of every step is exactly 0, so there is nothing to learn: the labels leave no pixels to "
                "compare; make labels with other thresholds, or give larger crops."
            )
