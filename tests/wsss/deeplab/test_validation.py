"""Validation of DeepLab: right scores, no influence on the weights, and images that cannot be read."""

from __future__ import annotations

import csv
from dataclasses import replace

import labelled
import numpy as np
import pytest
import torch
import trainable
from PIL import Image

from camplug.errors import InputError
from camplug.metrics import ConfusionMatrix, miou
from camplug.wsss.data import Scenes
from camplug.wsss.data.photographs import Photographs
from camplug.wsss.deeplab import DeepLabSettings, Segmenter, build_deeplab
from camplug.wsss.deeplab.validation import MaskedPhotos, ValidationScore

pytestmark = pytest.mark.filterwarnings("ignore:.*(self.log|does not say).*")
HELD_OUT = Scenes(5, (48, 40), seed=7, classes=3)


class Broken(Scenes):
    """Scenes of which number 2 breaks after the files were looked at."""

    def photo(self, i):
        if i == 2:
            raise InputError("the file is cut off.")
        return super().photo(i)


def score_by_hand(network, data, numbers):
    segmenter, counted = Segmenter(network), ConfusionMatrix(4)
    for i in numbers:
        counted.add(segmenter(np.asarray(data.photo(i))), data.mask(i))
    return miou(counted.matrix)


def compute_mean(score):
    return score.compute(torch.device("cpu"))[0]


def test_the_last_score_is_that_of_the_trained_network_and_changes_no_weight(tmp_path):
    settings = DeepLabSettings(replace(labelled.NETWORK, head="large-fov", width=8), labelled.SPAN)  # with dropout
    plain = labelled.trained(tmp_path, "plain", settings)
    scored = labelled.trained(tmp_path, "scored", settings, validation=HELD_OUT)
    assert trainable.same(plain.network, scored.network)
    assert scored.losses.pop("validation_miou") == pytest.approx(score_by_hand(scored.network, HELD_OUT, range(5)))
    assert scored.losses == plain.losses
    (log,) = (tmp_path / "scored" / "checkpoints" / "losses").glob("*/metrics.csv")
    with log.open() as opened:
        rows = list(csv.DictReader(opened))
    means = [float(row["validation_miou"]) for row in rows if row["validation_miou"]]
    names = ["background", *HELD_OUT.classes]
    ious = [
        [float(row[f"validation_iou_{name}"]) for name in names] for row in rows if row["validation_iou_background"]
    ]
    assert len(means) == len(ious) == settings.training.epochs
    np.testing.assert_allclose(means, np.mean(ious, 1), atol=1e-6)
    again = labelled.trained(tmp_path, "plain", settings, validation=HELD_OUT)  # finished: nothing is trained again
    assert (again.images, again.losses) == (0, {})


def test_classes_are_matched_by_name(tmp_path):
    settings = DeepLabSettings(labelled.NETWORK, replace(labelled.SPAN, epochs=1))

    class Turned(Scenes):
        """The same scenes with their classes in another order."""

        def __init__(self):
            super().__init__(5, (48, 40), seed=7, classes=3)
            self.classes = self.classes[::-1]

        def mask(self, i):
            return np.array([0, 3, 2, 1], np.uint8)[super().mask(i)]

    first, second = (
        labelled.trained(tmp_path, out, settings, validation=data).losses
        for out, data in (("a", HELD_OUT), ("b", Turned()))
    )
    assert first == second
    with pytest.raises(InputError, match="class"):
        labelled.trained(tmp_path, "c", settings, validation=Scenes(5, (48, 40), classes=6))


def test_an_image_that_breaks_is_left_out_and_told(tmp_path):
    data = Broken(5, (48, 40), seed=7, classes=3)
    settings = DeepLabSettings(labelled.NETWORK, replace(labelled.SPAN, epochs=1))
    with pytest.warns(UserWarning, match="scene7_000002: the file is cut off"):
        done = labelled.trained(tmp_path, settings=settings, validation=data, allow_missing=True)
    assert done.losses["validation_miou"] == pytest.approx(score_by_hand(done.network, HELD_OUT, (0, 1, 3, 4)))
    assert done.broken == [("scene7_000002", "the file is cut off.")]


def test_counts_begin_anew_after_every_epoch():
    network = build_deeplab(trainable.net(), "abc", labelled.NETWORK)
    score, images = ValidationScore(network, None), MaskedPhotos(HELD_OUT, range(5))
    found = []
    for numbers in ((0, 1, 2), (3, 4)):
        score.add(images.collate([images[0, i] for i in numbers]))
        found.append(compute_mean(score))
    assert found == [score_by_hand(network, HELD_OUT, (0, 1, 2)), score_by_hand(network, HELD_OUT, (3, 4))]


def test_data_without_masks_is_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="the validation data has no masks"):
        MaskedPhotos(Photographs([tmp_path / "a.png"]), [0])
