"""What image-level labels leave to learn and to validate: notes on classes without positive or negative images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

from camplug.wsss.data import SegmentationData

Keep = Literal["last", "best"]


def count_images(data: SegmentationData, indices: Sequence[int] | None = None) -> list[int]:
    """Return how many images, or how many of those numbers, show each class."""
    counts = [0] * len(data.classes)
    for i in range(len(data)) if indices is None else indices:
        for c in data.labels(i):
            counts[c] += 1
    return counts


def warn_of_one_sided_classes(data: SegmentationData, indices: Sequence[int] | None = None) -> None:
    """Warn of classes that no image shows, and of those that every image shows.

    Args:
        data: the images.
        indices: numbers of those that are learned from; all by default.
    """
    counts = count_images(data, indices)
    total = len(data) if indices is None else len(indices)

    def told(count: int) -> str:
        names = [name for name, n in zip(data.classes, counts, strict=True) if n == count]
        dots = " ..." if len(names) > 5 else ""
        return f"{', '.join(names[:5])}{dots} ({len(names)} of {len(data.classes)} classes)" if names else ""

    if never := told(0):
        warnings.warn(f"no image shows {never}: the classifier can only learn to deny them.", stacklevel=3)
    if always := told(total):
        says = f"every image shows {always}: the classifier can only learn to affirm them; add images without them."
        warnings.warn(says, stacklevel=3)


def usable_keep(keep: Keep, validation: SegmentationData | None, indices: Sequence[int] | None = None) -> Keep:
    """Return which weights to keep: the last ones where validation images cannot tell epochs apart, with a warning.

    A class has an average precision where an image shows it, and one below 1 is possible where another image does not.

    Args:
        keep: as it was asked for.
        validation: the images that tell the mean average precision.
        indices: numbers of those that can be read; all by default.
    """
    if validation is None:
        return keep
    counts = count_images(validation, indices)
    total = len(validation) if indices is None else len(indices)
    if any(0 < count < total for count in counts):
        return keep
    if any(counts):
        says = "every validation image shows the same classes: their average precision is 1 whatever is learned"
    else:
        says = "no validation image shows a class: there is no average precision"
    warnings.warn(says + (", and the last epoch is kept." if keep == "best" else "."), stacklevel=3)
    return "last"
