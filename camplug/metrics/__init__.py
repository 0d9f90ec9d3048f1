"""Segmentation metrics for label images and class activation maps, from NumPy arrays.

`ConfusionMatrix` counts label images one by one; `ThresholdSweep` counts maps at all background thresholds in one pass.
`Scores` and the functions beside it compute IoU, precision, recall, false discovery rate and the three published
conventions of mIoU from the counts. Depends on NumPy and `camplug.errors` only.

>>> import numpy as np
>>> matrix = ConfusionMatrix(num_classes=3).add(prediction=np.array([[0, 1]]), truth=np.array([[0, 255]]))
>>> Scores.of(matrix.matrix, names=["background", "cat", "dog"]).as_dict()["miou"]
{'present': 1.0, 'all': 0.3333333333333333, 'truth': 1.0}
"""

from camplug.metrics.confusion import ConfusionMatrix
from camplug.metrics.scores import Convention, Scores, false_discovery_rate, iou, miou, precision, recall
from camplug.metrics.sweep import ThresholdSweep, apply_best_threshold

__all__ = [
    "ConfusionMatrix",
    "Convention",
    "Scores",
    "ThresholdSweep",
    "apply_best_threshold",
    "false_discovery_rate",
    "iou",
    "miou",
    "precision",
    "recall",
]
