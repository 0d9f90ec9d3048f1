"""Checks of image-level labels: classes without positive or negative images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

from camplug.wsss.data import SegmentationData

Keep = Literal["last", "best"]


def count_images(data: SegmentationData, indices: Sequence[int] | None = None) -> list[int]:
    """Count the images that show each class, of all or of the given numbers."""
    counts = [0] * len(data.classes)
    for i in range(len(data)) if indices is None else indices:
        for c in data.labels(i):
            counts[c] += 1
    return counts


def warn_about_constant_classes(data: SegmentationData, indices: Sequence[int] | None = None) -> None:
    """Warn about classes that no image or every image shows.

    Args:
        data: labelled images.
        indices: numbers of the training images; None uses all.
    """
    counts = count_images(data, indices)
    total = len(data) if indices is None else len(indices)

    def list_names(count: int) -> str:
        names = [name for name, n in zip(data.classes, counts, strict=True) if n == count]
        dots = " ..." if len(names) > 5 else ""
        return f"{', '.join(names[:5])}{dots} ({len(names)} of {len(data.classes)} classes)" if names else ""

    if never := list_names(0):
        warnings.warn(f"no image shows {never}: the classifier cannot learn to recognise them.", stacklevel=3)
    if always := list_names(total):
        message = (
            f"every image shows {always}: the classifier cannot learn when they are absent; add images without them."
        )
        warnings.warn(message, stacklevel=3)


def choose_keep(keep: Keep, validation: SegmentationData | None, indices: Sequence[int] | None = None) -> Keep:
    """Return the weights to keep: the last ones, with a warning, where the validation images cannot rank epochs.

    The average precision of a class needs an image with it, and is always 1 without an image that lacks it.

    Args:
        keep: requested rule.
        validation: validation images; None for none.
        indices: numbers of the readable ones; None uses all.
    """
    if validation is None:
        return keep
    counts = count_images(validation, indices)
    total = len(validation) if indices is None else len(indices)
    if any(0 < count < total for count in counts):
        return keep
    if any(counts):
        message = "every validation image shows the same classes: their average precision is 1 whatever is learned"
    else:
        message = "no validation image shows a class: there is no average precision"
    warnings.warn(message + (", and the last epoch is kept." if keep == "best" else "."), stacklevel=3)
    return "last"
