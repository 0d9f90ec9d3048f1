"""Notes on labels that leave nothing to learn, or nothing to choose an epoch by."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from trainable import SPAN, Scenes, same, scenes, trained

from camplug.wsss.classifier.label_checks import choose_keep, count_images, warn_about_constant_classes


class Labelled(Scenes):
    """Scenes that say to show other classes than they do."""

    def __init__(self, *labels, classes=2):
        self.given = labels
        super().__init__(len(labels), (48, 48), classes=classes)

    def labels(self, i):
        return self.given[i]


MIXED = Labelled((0,), (1,), (0, 1))
ALL = Labelled((0,), (0,), (0,), classes=1)
NONE = Labelled((), (), ())


def test_counts():
    assert count_images(MIXED) == [2, 2]
    assert count_images(Labelled((1,), (), (1,))) == [0, 2]


def test_one_sided_classes_are_told():
    with pytest.warns(
        UserWarning, match=r"every image shows striped disc \(1 of 1 classes\): .* learn when they are absent"
    ):
        warn_about_constant_classes(ALL)
    with pytest.warns(
        UserWarning, match=r"no image shows striped disc, dotted square \(2 of 2 classes\): .* recognise them"
    ):
        warn_about_constant_classes(NONE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_about_constant_classes(MIXED)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (ALL, "every validation image shows the same classes: their average precision is 1"),
        (NONE, "no validation image shows a class: there is no average precision"),
    ],
)
def test_a_validation_that_cannot_tell_epochs_apart(data, says):
    with pytest.warns(UserWarning, match=says + r".*, and the last epoch is kept\."):
        assert choose_keep("best", data) == "last"
    with pytest.warns(UserWarning, match=says):
        assert choose_keep("last", data) == "last"
    assert choose_keep("best", MIXED) == "best"
    assert choose_keep("best", None) == "best"


def test_the_last_epoch_is_kept_where_no_precision_is_known(tmp_path):
    span = replace(SPAN, epochs=3)
    last = trained(tmp_path / "last", scenes(8), span=span)
    with pytest.warns(UserWarning, match="the last epoch is kept"):
        best = trained(tmp_path / "best", scenes(8), span=span, keep="best", validation=Labelled((), (), (), classes=3))
    assert same(best.network, last.network)
    assert torch.isfinite(best.network.head.weight).all()
    assert not (tmp_path / "best" / "checkpoints" / "best.ckpt").exists()
