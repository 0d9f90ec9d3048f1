"""Scores of segmentations and of class activation maps as segmentations: plain arrays in, counts and numbers out.

`ConfusionMatrix` streams label images, `ThresholdSweep` streams maps at every background threshold in one pass; neither
keeps a picture. `Scores` and the functions beside it turn their counts into IoU, precision, recall, false discovery
rate and the three conventions of mIoU that are in print. Knows numpy, and nobody of ours but `camplug.errors`.

>>> import numpy as np
>>> matrix = ConfusionMatrix(num_classes=3).add(prediction=np.array([[0, 1]]), truth=np.array([[0, 255]]))
>>> Scores.of(matrix.matrix, names=["background", "cat", "dog"]).as_dict()["miou"]
{'present': 1.0, 'all': 0.3333333333333333, 'truth': 1.0}
"""

from camplug.metrics.confusion import ConfusionMatrix
from camplug.metrics.scores import Convention, Scores, false_discovery_rate, iou, miou, precision, recall
from camplug.metrics.sweep import ThresholdSweep, carried

__all__ = [
    "ConfusionMatrix",
    "Convention",
    "Scores",
    "ThresholdSweep",
    "carried",
    "false_discovery_rate",
    "iou",
    "miou",
    "precision",
    "recall",
]
