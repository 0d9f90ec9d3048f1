"""The confusion matrix of label images, counted image by image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from camplug.errors import InputError
from camplug.metrics.checks import check_labels, check_num_classes, check_truth, integers


class ConfusionMatrix:
    """Counts pixels by true label (rows) and predicted label (columns), and keeps nothing else.

    Memory is C x C int64 however many images come: no list of label images (COCO train: some 200 GB), no int32 counter
    (overflows on COCO val). `+` merges the counts of several workers.

    Args:
        num_classes: C, the background included: 21 for VOC, 81 for COCO.
        ignore: the true label of pixels that are not counted.

    Attributes:
        matrix: [C, C] int64, `matrix[i, j]` = number of counted pixels of class i that were called j.

    >>> truth = np.array([[0, 1, 1, 255]])
    >>> ConfusionMatrix(2).add(np.array([[0, 0, 1, 1]]), truth).matrix
    array([[1, 0],
           [1, 1]])
    """

    def __init__(self, num_classes: int, ignore: int = 255) -> None:
        self.num_classes, self.ignore = check_num_classes(num_classes, ignore)
        self.matrix: NDArray[np.int64] = np.zeros((self.num_classes, self.num_classes), np.int64)

    def add(self, prediction: ArrayLike, truth: ArrayLike) -> ConfusionMatrix:
        """Count one image, or a batch: two integer arrays of one shape. Returns the matrix itself, for chaining.

        Raises:
            InputError: shapes differ, an array is not of integers, or a counted pixel has a label outside 0..C-1 (a
                prediction may hold anything where the truth is `ignore`). Nothing is counted then.
        """
        said, true = integers(prediction, "prediction"), integers(truth, "truth")
        if said.shape != true.shape:
            raise InputError(
                f"prediction is {list(said.shape)} and truth {list(true.shape)}; resize the prediction "
                "to the size of the truth"
            )
        counted, rows = check_truth(true, self.num_classes, self.ignore)
        columns = check_labels(said[counted], "prediction", self.num_classes, " where the truth is counted")
        cells = np.bincount(rows * self.num_classes + columns, minlength=self.num_classes**2)
        self.matrix += cells.reshape(self.matrix.shape)
        return self

    def __iadd__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        self._check_like(other)
        self.matrix += other.matrix
        return self

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        total = ConfusionMatrix(self.num_classes, self.ignore)
        total += self
        total += other
        return total

    def _check_like(self, other: Any) -> None:
        if not isinstance(other, ConfusionMatrix):
            raise InputError(f"add another ConfusionMatrix, not a value of type {type(other).__name__}")
        if (self.num_classes, self.ignore) != (other.num_classes, other.ignore):
            raise InputError(
                f"one matrix has num_classes={self.num_classes}, ignore={self.ignore}, the other "
                f"num_classes={other.num_classes}, ignore={other.ignore}; merge counts of one dataset only"
            )
