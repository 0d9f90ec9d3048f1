"""Scores of many changed copies of one image, computed in batches."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from camplug.errors import InputError
from camplug.explain.batch import call_model
from camplug.explain.inputs import Batch
from camplug.explain.wrapper import is_number
from camplug.models.outputs import is_multi_label
from camplug.plug import Tape, Targets, get_logits


def check_batch_size(batch_size: Any) -> int:
    """Return the number of copies per forward pass.

    Raises:
        InputError: not a whole number of at least 1.
    """
    if not is_number(batch_size, numbers.Integral) or batch_size < 1:
        raise InputError(f"batch_size={batch_size!r}; give a whole number of at least 1.")
    return int(batch_size)


def split_images(batch: Batch, targets: Targets) -> Iterator[tuple[Batch, Targets]]:
    """Yield every image of a batch as a batch of one, with its targets."""
    for i in range(len(batch)):
        yield batch.take([i]), targets.take([i])


Probabilities = Callable[[Tensor], Tensor]
"""Function from logits [M,C] to class probabilities [M,C]."""


def find_probabilities(model: nn.Module, targets: Targets) -> Probabilities | None:
    """Return the function from the model's outputs to probabilities; None where the outputs are probabilities."""
    if targets.link in ("softmax", "sigmoid"):
        return None
    if is_multi_label(model):
        return torch.sigmoid
    return lambda z: z.sigmoid() if z.shape[1] == 1 else z.softmax(1)


def read_scores(output: Any, targets: Targets, count: int, probabilities: Probabilities | None = None) -> Tensor:
    """Return the signed scores [M,K] of M copies of one image from the model's output for them.

    Args:
        output: output of the model for M copies.
        targets: targets of the image.
        count: M.
        probabilities: function whose values count for classes instead of the outputs.
    """
    if probabilities is not None and targets.score is None:
        output = probabilities(get_logits(output, count))
    copies = targets.take([0] * count)
    return torch.stack([copies.compute_scores(output, r).detach() for r in range(targets.rounds)], 1)


@torch.no_grad()
def score_copies(  # noqa: PLR0917
    model: nn.Module,
    image: Batch,
    targets: Targets,
    count: int,
    make: Callable[[int, int], Tensor],
    batch_size: int,
    *,
    probabilities: Probabilities | None = None,
) -> Tensor:
    """Return the scores [M,K] of M changed copies of one image.

    Args:
        model: the model.
        image: the image with the model's other inputs, a batch of one.
        targets: its targets, K of them.
        count: M.
        make: function that returns the copies number a to b - 1, [b-a,C,H,W].
        batch_size: copies per forward pass.
        probabilities: function from logits [M,C] to the class probabilities [M,C] that count instead of the outputs.
    """
    found = []
    for first in range(0, count, batch_size):
        last = min(first + batch_size, count)
        copies = image.take([0] * (last - first)).with_images(make(first, last))
        with Tape(model, [""], forward_only=True, image=image.where):
            output = call_model(model, copies)
        found.append(read_scores(output, targets, last - first, probabilities))
    return torch.cat(found)
