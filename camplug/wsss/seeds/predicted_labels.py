"""Image-level labels that a classifier predicts, in place of those of the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from typing_extensions import override

from camplug.errors import InputError
from camplug.explain import create
from camplug.explain.base import Explainer
from camplug.explain.photo_inputs import predict_on_inputs, preprocess_photo
from camplug.images.preprocess import Preprocess
from camplug.models.class_names import find_class_names
from camplug.wsss.class_names import match_classes
from camplug.wsss.data import SegmentationData
from camplug.wsss.data.data_view import DataView
from camplug.wsss.store.jobs import Mismatch

PROBABILITY = 0.5  # by default


def check_probability(value: float) -> None:
    """Raise InputError unless a value is a probability."""
    if not 0 <= value <= 1:
        raise InputError(f"probability={value:g}; give a number from 0 to 1.")


def find_predicted_classes(probabilities: torch.Tensor, outputs: list[int], threshold: float) -> tuple[int, ...]:
    """Find the data's classes that a model predicts: the most probable one, and all above a threshold.

    Args:
        probabilities: probabilities of the model's outputs [C].
        outputs: index of the output of each class of the data.
        threshold: probability.

    >>> find_predicted_classes(torch.tensor([0.1, 0.3, 0.9, 0.6]), [3, 2, 0], 0.5)
    (0, 1)
    """
    own = probabilities[outputs]
    return tuple(sorted({int(own.argmax()), *(own > threshold).nonzero().flatten().tolist()}))


def match_outputs(explainer: Explainer, data: SegmentationData) -> tuple[list[int], int]:
    """Return the index of the output of each class of the data, and the number of outputs that the model must have.

    Raises:
        InputError: the model's class names lack a class of the data.
    """
    names = find_class_names(explainer.model, class_names=explainer.class_names)
    if names is None:
        return list(range(len(data.classes))), len(data.classes)
    return match_classes(names, data.classes), len(names)


def check_logits(logits: torch.Tensor | None, count: int, data: SegmentationData) -> None:
    """Raise Mismatch for a wrong number of logits, which is the same for all images."""
    if logits is None or logits.shape[1] != count:
        has = "no logits" if logits is None else f"{logits.shape[1]} classes"
        raise Mismatch(
            f"the model has {has} and the data has {len(data.classes)} ({', '.join(data.classes[:3])}, ...); give a "
            "classifier of these classes, in this order where it has no class names."
        )


def predict_labels(
    data: SegmentationData,
    model: nn.Module,
    made_with: Mapping[str, Any],
    probability: float = PROBABILITY,
    preprocess: Preprocess | None = None,
) -> tuple[PredictedLabels, dict[str, Any]]:
    """Return a data set with the labels that a classifier predicts, and what identifies these labels.

    Args:
        data: photographs, with or without labels.
        model: classifier.
        made_with: settings that identify it, see `camplug.wsss.store.identity.make_network_settings`.
        probability: probability above which a class counts as shown.
        preprocess: preprocessing of the classifier's inputs; None for its own.

    Raises:
        InputError: the classifier lacks a class of the data, or the probability is not in [0, 1].
    """
    explainer = create("GradCAM", model, preprocess=preprocess)
    made_of = {"labels": "predicted", "classifier": dict(made_with), "probability": probability}
    return PredictedLabels(data, explainer, probability), made_of


class PredictedLabels(DataView):
    """Data set whose image-level labels are predicted: the most probable class, and all above a probability.

    Args:
        data: photographs, with or without labels.
        explainer: any explainer of the classifier; only its model, preprocessing and class names are used.
        probability: probability above which a class counts as shown.

    Raises:
        InputError: the classifier lacks a class of the data, or the probability is not in [0, 1].
    """

    def __init__(self, data: SegmentationData, explainer: Explainer, probability: float = PROBABILITY) -> None:
        check_probability(probability)
        super().__init__(data)
        self.has_labels = True
        self.explainer, self.probability = explainer, probability
        self._outputs, self._num_outputs = match_outputs(explainer, data)

    @override
    def labels(self, i: int) -> tuple[int, ...]:
        probabilities = predict_on_inputs(self.explainer, [preprocess_photo(self.explainer, self.photo(i))])
        check_logits(probabilities, self._num_outputs, self.data)
        return find_predicted_classes(probabilities[0], self._outputs, self.probability)

    @override
    def label_digest(self, i: int) -> str:
        """Return the photograph's digest: a classifier predicts the same labels for the same photograph."""
        return self.photo_digest(i)
