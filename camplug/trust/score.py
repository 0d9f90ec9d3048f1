"""Probabilities of the explained classes for changed images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from camplug.errors import InputError
from camplug.explain.batch import check_batch, compute_logits
from camplug.explain.inputs import Batch
from camplug.models.outputs import find_output_link, is_multi_label
from camplug.plug import Against, Evidence, Link, Targets, make_index, pick_values, resolve_classes, send_to

Score: TypeAlias = Callable[[Tensor, Sequence[int]], Tensor]
"""Function from images [M,C,H,W] and the number of the original image of each to one score per image, [M]."""


BATCH_SIZE = 8
"""Default number of changed images in one pass, for CPUs: small networks are faster with fewer, large ones with more; a
GPU needs more."""


class ClassScore:
    """Probability of one class per image, as a `Score`.

    .. math:: s(x) = p_c(x)

    with the softmax or sigmoid of the logits, or the outputs themselves if they are probabilities; 1 - p for
    `camplug.Against` and for negative evidence.

    Args:
        model: classifier; it is left as it is.
        batch: original images with the model's other inputs, which follow the images that are made of them.
        classes: one class per image, or None for the predicted ones.
        evidence: "negative" for maps of the evidence against the classes.
        inclusive: the classes do not exclude each other; default: as far as the model tells.
        link: kind of the outputs; default: as far as their values tell.

    Attributes:
        targets: class of each image.
        outputs: raw outputs [N,C] of the original images.

    Raises:
        InputError: a callable instead of classes, or more than one class for an image.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Batch,
        classes: object = None,
        *,
        evidence: Evidence = "positive",
        inclusive: bool | None = None,
        link: Link | None = None,
    ) -> None:
        if callable(classes) and not isinstance(classes, Tensor):
            raise InputError("trust is measured in the probability of a class; got a callable, give a class index.")
        self.model, self.batch = model, batch
        self.outputs = compute_logits(model, batch)
        self.targets: Targets = resolve_classes(classes, self.outputs, len(batch), evidence)
        counts = [len(row) for row in self.targets.classes]
        if any(count != 1 for count in counts):
            raise InputError(
                f"image {next(i for i, c in enumerate(counts) if c != 1)} has "
                f"{next(c for c in counts if c != 1)} classes; trust is measured for one class per image."
            )
        self.link = find_output_link(model, link or self.targets.link, self.outputs.cpu())
        self.inclusive = is_multi_label(model) if inclusive is None else inclusive

    @property
    def classes(self) -> list[int]:
        """Class of each image."""
        return [row[0] for row in self.targets.classes]

    def __call__(self, x: Tensor, owners: Sequence[int]) -> Tensor:
        """Return the probabilities [M] of images [M,C,H,W] made of the originals with these numbers."""
        inputs = None if self.batch.inputs is None else self.batch.inputs.take(owners)
        return self.pick(compute_logits(self.model, check_batch(self.model, x, inputs)), owners)

    @property
    def before(self) -> Tensor:
        """Probabilities [N] of the original images, in float64 on the CPU."""
        return self.pick(self.outputs, range(len(self.batch))).cpu().double()

    def find_known(self, x: Tensor) -> Tensor | None:
        """Return `before` if x are the original images; else None."""
        own = self.batch.x
        same = x.shape == own.shape and x.dtype == own.dtype and x.device == own.device
        return self.before if same and torch.equal(x, own) else None

    def pick(self, outputs: Tensor, owners: Sequence[int]) -> Tensor:
        """Return the probabilities [M] from raw outputs [M,C]."""
        p = self.to_probabilities(outputs)
        picked = pick_values(p, range(len(p)), [int(self.classes[i]) for i in owners])
        negative = self.targets.evidence == "negative"
        turned = torch.tensor([isinstance(self.classes[i], Against) != negative for i in owners])
        return torch.where(send_to(turned, p.device), 1 - picked, picked)

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """Return the probabilities [M,C] of raw outputs [M,C]."""
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        if self.link != "logits":
            return outputs
        return outputs.sigmoid() if self.inclusive or outputs.shape[1] == 1 else outputs.softmax(1)


def take_images(x: Tensor, numbers: Sequence[int]) -> Tensor:
    """Return the images (or maps) with these numbers, [M,...]."""
    return x.index_select(0, make_index(x.device, numbers))


def score_in_batches(
    score: Score, make: Callable[[int, int], Tensor], owners: Sequence[int], batch_size: int
) -> Tensor:
    """Return the scores [M] of images that are made a batch at a time.

    Args:
        score: see `Score`.
        make: function that returns the images [m,C,H,W] from a first number to a last one (exclusive).
        owners: number of the original image of each of M images.
        batch_size: largest number of images that exist at the same time.

    Raises:
        InputError: the batch size is below 1.
    """
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size}; give at least 1.")
    starts = range(0, len(owners), batch_size)
    parts = []
    for start in starts:
        stop = min(start + batch_size, len(owners))
        parts.append(score(make(start, stop), owners[start:stop]).detach())
    return torch.cat(parts).cpu().double() if parts else torch.zeros(0, dtype=torch.float64)
