"""Scores of confusion matrices: functions of counts [..., C, C], rows truth, columns prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from camplug.errors import InputError
from camplug.json_values import to_json_number
from camplug.metrics.checks import check_whole

Convention: TypeAlias = Literal["present", "all", "truth"]
Floats: TypeAlias = NDArray[np.float64]


def iou(matrix: ArrayLike) -> Floats:
    """Compute intersection over union per class, TP / (TP + FP + FN): counts [..., C, C] to [..., C].

    nan for a class without true and predicted pixels.

    >>> iou([[3, 0, 1, 0], [0, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    array([0.75, 1.  , 0.  ,  nan])
    """
    hit, true, predicted = _check_counts(matrix)
    return _divide(hit, true + predicted - hit)


def precision(matrix: ArrayLike) -> Floats:
    """Compute precision per class, TP / (TP + FP): counts [..., C, C] to [..., C]; nan without predicted pixels."""
    hit, _, predicted = _check_counts(matrix)
    return _divide(hit, predicted)


def recall(matrix: ArrayLike) -> Floats:
    """Compute recall per class, TP / (TP + FN): counts [..., C, C] to [..., C]; nan without true pixels."""
    hit, true, _ = _check_counts(matrix)
    return _divide(hit, true)


def false_discovery_rate(matrix: ArrayLike) -> Floats:
    """Compute the false discovery rate per class, FP / (TP + FP) = 1 - precision; nan without predicted pixels."""
    hit, _, predicted = _check_counts(matrix)
    return _divide(predicted - hit, predicted)


def miou(matrix: ArrayLike, convention: Convention = "present", classes: Sequence[int] | None = None) -> Floats:
    """Compute mean IoU by one of three published conventions: counts [..., C, C] to [...].

    The conventions average `iou` over different classes:

    - "present": classes with TP + FP + FN > 0, i.e. in the truth or in the prediction. Used by
      chainercv, irn, AdvCAM, FPR, ReCAM and RIB. nan without any.
    - "all": every class, with 0 for an absent one. Used by SEAM and Puzzle-CAM as TP / (TP + FP + FN + 1e-10); here
      without the 1e-10.
    - "truth": classes with TP + FN > 0, i.e. with true pixels; pixels of a class that is only predicted still
      count as false negatives of the others. Used by deeplab-pytorch and CLIP-ES. nan without any.

    They agree on datasets in which every class occurs.

    Args:
        matrix: counts, rows truth, columns prediction; leading axes (such as thresholds) are kept.
        convention: "present", "all" or "truth".
        classes: classes to average over (default: all C); the IoU of each is computed on all pixels.

    Raises:
        InputError: the convention is unknown, or classes are empty, repeated or not in the matrix.

    >>> matrix = [[3, 0, 1, 0], [0, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]  # class 2 only predicted, class 3 nowhere
    >>> [round(float(miou(matrix, c)), 4) for c in ("present", "all", "truth")]
    [0.5833, 0.4375, 0.875]
    >>> float(miou(matrix, classes=[0, 1]))
    0.875
    """
    hit, true, predicted = _check_counts(matrix)
    union = true + predicted - hit
    if convention == "present":
        enters = union > 0
    elif convention == "truth":
        enters = true > 0
    elif convention == "all":
        enters = np.ones_like(union, dtype=bool)
    else:
        raise InputError(f"convention={convention!r}: give one of {', '.join(map(repr, get_args(Convention)))}")
    chosen = _check_classes(classes, union.shape[-1])
    values = np.where(union > 0, _divide(hit, union), 0)
    summed = np.where(enters, values, 0)[..., chosen].sum(-1)
    return _divide(summed, enters[..., chosen].sum(-1))


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of one confusion matrix; see the functions of the same names for the formulas.

    Attributes:
        names: C class names; default: "0", "1", ...
        classes: classes in the means.
        iou, precision, recall, false_discovery_rate: [C] float64, nan where undefined.
        miou_present, miou_all, miou_truth: mean IoU by each convention.
        pixel_accuracy: share of the counted pixels, of all classes, with the true label.
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
        """Compute the scores of one matrix [C, C].

        Args:
            matrix: counts, rows truth, columns prediction.
            names: C different class names.
            classes: classes in the means, as in `miou`.

        Raises:
            InputError: the matrix is not a square matrix of counts, or names or classes do not fit it.
        """
        hit, true, _ = _check_counts(matrix)
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
            classes=tuple(_check_classes(classes, len(hit))),
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
        """Return the number of classes in the mean IoU by convention."""
        chosen = list(self.classes)
        present, truth = (int((~np.isnan(column[chosen])).sum()) for column in (self.iou, self.recall))
        return {"present": present, "all": len(chosen), "truth": truth}

    def as_dict(self) -> dict[str, Any]:
        """Return the scores as a dict for JSON, with None for undefined values."""
        columns = {
            "iou": self.iou,
            "precision": self.precision,
            "recall": self.recall,
            "false_discovery_rate": self.false_discovery_rate,
        }
        return {
            "pixels": self.pixels,
            "pixel_accuracy": to_json_number(self.pixel_accuracy),
            "miou": {
                "present": to_json_number(self.miou_present),
                "all": to_json_number(self.miou_all),
                "truth": to_json_number(self.miou_truth),
            },
            "classes_in_mean": self.classes_in_mean(),
            "averaged_over": [self.names[c] for c in self.classes],
            "per_class": {
                name: {key: to_json_number(column[c]) for key, column in columns.items()}
                for c, name in enumerate(self.names)
            },
        }


def _check_counts(matrix: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the hits, true pixels and predicted pixels per class, [..., C] each."""
    counts = np.asarray(matrix)
    if counts.ndim < 2 or counts.shape[-1] != counts.shape[-2] or counts.shape[-1] == 0:
        raise InputError(f"the matrix is {list(counts.shape)}; give counts [..., C, C], rows truth, columns prediction")
    if not np.issubdtype(counts.dtype, np.integer):
        raise InputError(f"the matrix is of type {counts.dtype}; give counts of pixels, as integers")
    counts = counts.astype(np.int64, copy=False)  # int32 sums may overflow
    if (counts < 0).any():
        raise InputError(f"the matrix holds {counts.min()}; counts of pixels are 0 or more (did a counter overflow?)")
    return np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1), counts.sum(-2)


def _divide(part: NDArray[Any], of: NDArray[Any]) -> Floats:
    """Return part / of, with nan where `of` is 0."""
    part, of = np.asarray(part), np.asarray(of)  # may be scalars
    ratio: Floats = np.full(of.shape, np.nan)
    np.divide(part, of, out=ratio, where=of > 0)
    return ratio


def _check_classes(classes: Sequence[int] | None, num_classes: int) -> list[int]:
    """Return the classes to average over; raise InputError for bad ones."""
    if classes is None:
        return list(range(num_classes))
    chosen = [check_whole(c, "a number in classes") for c in classes]
    if not chosen or len(set(chosen)) != len(chosen) or not all(0 <= c < num_classes for c in chosen):
        raise InputError(f"classes={chosen}: give one or more different numbers from 0 to {num_classes - 1}")
    return chosen
