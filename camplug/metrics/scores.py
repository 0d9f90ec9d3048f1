"""Scores of confusion matrices: pure functions on [..., C, C] counts, rows truth, columns prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from camplug.errors import InputError
from camplug.metrics.checks import whole

Convention: TypeAlias = Literal["present", "all", "truth"]
Floats: TypeAlias = NDArray[np.float64]


def iou(matrix: ArrayLike) -> Floats:
    """Intersection over union of each class, TP / (TP + FP + FN): [..., C, C] counts to [..., C].

    nan for a class that occurs neither in the truth nor in the prediction.

    >>> iou([[3, 0, 1, 0], [0, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    array([0.75, 1.  , 0.  ,  nan])
    """
    hit, true, said = _counts(matrix)
    return _ratio(hit, true + said - hit)


def precision(matrix: ArrayLike) -> Floats:
    """Precision of each class, TP / (TP + FP): [..., C, C] counts to [..., C]; nan for a class never predicted."""
    hit, _, said = _counts(matrix)
    return _ratio(hit, said)


def recall(matrix: ArrayLike) -> Floats:
    """Recall of each class, TP / (TP + FN): [..., C, C] counts to [..., C]; nan for a class without true pixels."""
    hit, true, _ = _counts(matrix)
    return _ratio(hit, true)


def false_discovery_rate(matrix: ArrayLike) -> Floats:
    """False discovery rate of each class, FP / (TP + FP) = 1 - precision; nan for a class never predicted."""
    hit, _, said = _counts(matrix)
    return _ratio(said - hit, said)


def miou(matrix: ArrayLike, convention: Convention = "present", classes: Sequence[int] | None = None) -> Floats:
    """Mean IoU, by one of the three conventions that are in print: [..., C, C] counts to [...].

    They differ in which classes enter the mean of `iou`:

    - "present": classes with TP + FP + FN > 0, i.e. in the truth or in the prediction. chainercv, and with it irn,
      AdvCAM, FPR, ReCAM and RIB. nan without any.
    - "all": every class, with 0 for an absent one. SEAM and Puzzle-CAM, which write TP / (TP + FP + FN + 1e-10); the
      1e-10 is left out here.
    - "truth": classes with TP + FN > 0, i.e. with true pixels; a class only predicted is left out, though its pixels
      still count as missed by the others. deeplab-pytorch, CLIP-ES. nan without any.

    On a whole dataset where every class occurs they agree; on subsets they do not.

    Args:
        matrix: counts, rows truth, columns prediction; leading axes (thresholds, say) are kept.
        convention: "present", "all" or "truth".
        classes: average over these classes only (None: all C), after the IoU of each was computed on all pixels.

    Raises:
        InputError: another convention, or classes that are empty, repeated or not in the matrix.

    >>> matrix = [[3, 0, 1, 0], [0, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]  # class 2 only predicted, class 3 nowhere
    >>> [round(float(miou(matrix, c)), 4) for c in ("present", "all", "truth")]
    [0.5833, 0.4375, 0.875]
    >>> float(miou(matrix, classes=[0, 1]))
    0.875
    """
    hit, true, said = _counts(matrix)
    union = true + said - hit
    if convention == "present":
        enters = union > 0
    elif convention == "truth":
        enters = true > 0
    elif convention == "all":
        enters = np.ones_like(union, dtype=bool)
    else:
        raise InputError(f"convention={convention!r}: give one of {', '.join(map(repr, get_args(Convention)))}")
    chosen = _subset(classes, union.shape[-1])
    values = np.where(union > 0, _ratio(hit, union), 0)
    summed = np.where(enters, values, 0)[..., chosen].sum(-1)
    return _ratio(summed, enters[..., chosen].sum(-1))


@dataclass(frozen=True, eq=False)
class Scores:
    """All scores of one confusion matrix; see the functions of these names for the formulas.

    Attributes:
        names: the C class names ("0", "1", ... if none were given).
        classes: the classes that the three means average over.
        iou, precision, recall, false_discovery_rate: [C] float64, nan where undefined.
        miou_present, miou_all, miou_truth: mean IoU by each convention.
        pixel_accuracy: share of the counted pixels, of all classes, that got their true label.
        pixels: number of counted pixels.
    """

    names: tuple[str, ...]
    classes: tuple[int, ...]
    iou: Floats
    precision: Floats
    recall: Floats
    false_discovery_rate: Floats
    miou_present: float
    miou_all: float
    miou_truth: float
    pixel_accuracy: float
    pixels: int

    @classmethod
    def of(cls, matrix: ArrayLike, names: Sequence[str] | None = None, classes: Sequence[int] | None = None) -> Scores:
        """Score one matrix [C, C].

        Args:
            matrix: counts, rows truth, columns prediction.
            names: C different class names.
            classes: the means average over these classes only, as in `miou`.

        Raises:
            InputError: not one square matrix of counts, or names or classes that do not fit it.
        """
        hit, true, _ = _counts(matrix)
        if hit.ndim != 1:
            raise InputError(f"the matrix is {list(np.shape(matrix))}; Scores are of one matrix [C, C]: pick one first")
        labels = tuple(map(str, range(len(hit)))) if names is None else tuple(names)
        if len(labels) != len(hit) or len(set(labels)) != len(labels):
            raise InputError(
                f"{len(labels)} names, {len(set(labels))} of them different, for {len(hit)} classes; "
                "give one of its own to each class, the background included"
            )
        pixels = int(true.sum())
        return cls(
            names=labels,
            classes=tuple(_subset(classes, len(hit))),
            iou=iou(matrix),
            precision=precision(matrix),
            recall=recall(matrix),
            false_discovery_rate=false_discovery_rate(matrix),
            miou_present=float(miou(matrix, "present", classes)),
            miou_all=float(miou(matrix, "all", classes)),
            miou_truth=float(miou(matrix, "truth", classes)),
            pixel_accuracy=int(hit.sum()) / pixels if pixels else float("nan"),
            pixels=pixels,
        )

    def classes_in_mean(self) -> dict[str, int]:
        """Return how many classes enter the mean IoU by each convention."""
        chosen = list(self.classes)
        present, truth = (int((~np.isnan(column[chosen])).sum()) for column in (self.iou, self.recall))
        return {"present": present, "all": len(chosen), "truth": truth}

    def as_dict(self) -> dict[str, Any]:
        """The scores as JSON takes them: plain numbers, and None for what is undefined."""
        columns = {
            "iou": self.iou,
            "precision": self.precision,
            "recall": self.recall,
            "false_discovery_rate": self.false_discovery_rate,
        }
        return {
            "pixels": self.pixels,
            "pixel_accuracy": _plain(self.pixel_accuracy),
            "miou": {
                "present": _plain(self.miou_present),
                "all": _plain(self.miou_all),
                "truth": _plain(self.miou_truth),
            },
            "classes_in_mean": self.classes_in_mean(),
            "averaged_over": [self.names[c] for c in self.classes],
            "per_class": {
                name: {key: _plain(column[c]) for key, column in columns.items()} for c, name in enumerate(self.names)
            },
        }


def _counts(matrix: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Hits, true pixels and predicted pixels of each class, [..., C] each."""
    counts = np.asarray(matrix)
    if counts.ndim < 2 or counts.shape[-1] != counts.shape[-2] or counts.shape[-1] == 0:
        raise InputError(f"the matrix is {list(counts.shape)}; give counts [..., C, C], rows truth, columns prediction")
    if not np.issubdtype(counts.dtype, np.integer):
        raise InputError(f"the matrix is of type {counts.dtype}; give counts of pixels, as integers")
    counts = counts.astype(np.int64, copy=False)  # sums of int32 overflow where the platform adds in int32
    if (counts < 0).any():
        raise InputError(f"the matrix holds {counts.min()}; counts of pixels are 0 or more (did a counter overflow?)")
    return np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1), counts.sum(-2)


def _ratio(part: NDArray[Any], of: NDArray[Any]) -> Floats:
    """part / of, and nan where `of` is 0."""
    part, of = np.asarray(part), np.asarray(of)  # sums down to one number are scalars
    ratio: Floats = np.full(of.shape, np.nan)
    np.divide(part, of, out=ratio, where=of > 0)
    return ratio


def _subset(classes: Sequence[int] | None, num_classes: int) -> list[int]:
    """The classes to average over, checked."""
    if classes is None:
        return list(range(num_classes))
    chosen = [whole(c, "a number in classes") for c in classes]
    if not chosen or len(set(chosen)) != len(chosen) or not all(0 <= c < num_classes for c in chosen):
        raise InputError(f"classes={chosen}: give one or more different numbers from 0 to {num_classes - 1}")
    return chosen


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
