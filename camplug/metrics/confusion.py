"""Confusion matrix of label images, updated image by image."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from camplug.errors import InputError
from camplug.metrics.checks import check_integers, check_labels, check_mergeable, check_num_classes, check_truth


class ConfusionMatrix:
    """Streaming confusion matrix: true labels in rows, predicted labels in columns.

    Needs C x C int64 of memory for any number of images. `+` merges the counts of several workers.

    Args:
        num_classes: C, including the background: 21 for VOC, 81 for COCO.
        ignore: true label of pixels that are not counted.

    Attributes:
        matrix: [C, C] int64, `matrix[i, j]` = number of pixels of class i predicted as j.

    >>> truth = np.array([[0, 1, 1, 255]])
    >>> ConfusionMatrix(2).add(np.array([[0, 0, 1, 1]]), truth).matrix
    array([[1, 0],
           [1, 1]])
    """

    def __init__(self, num_classes: int, ignore: int = 255) -> None:
        self.num_classes, self.ignore = check_num_classes(num_classes, ignore)
        self.matrix: NDArray[np.int64] = np.zeros((self.num_classes, self.num_classes), np.int64)

    def add(self, prediction: ArrayLike, truth: ArrayLike) -> ConfusionMatrix:
        """Count one image or batch, two integer arrays of equal shape, and return the object itself.

        Raises:
            InputError: shapes differ, an array is not of integers, or a counted pixel has a label outside 0..C-1
                (predictions are free where the truth is `ignore`). The counts stay unchanged.
        """
        predicted, true = check_integers(prediction, "prediction"), check_integers(truth, "truth")
        if predicted.shape != true.shape:
            raise InputError(
                f"prediction is {list(predicted.shape)} and truth {list(true.shape)}; resize the prediction "
                "to the size of the truth"
            )
        counted, rows = check_truth(true, self.num_classes, self.ignore)
        columns = check_labels(predicted[counted], "prediction", self.num_classes, " where the truth is counted")
        cells = np.bincount(rows * self.num_classes + columns, minlength=self.num_classes**2)
        self.matrix += cells.reshape(self.matrix.shape)
        return self

    def __iadd__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        check_mergeable(self, other, "matrix")
        self.matrix += other.matrix
        return self

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        total = ConfusionMatrix(self.num_classes, self.ignore)
        total += self
        total += other
        return total
