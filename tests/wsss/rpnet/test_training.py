"""RPNet's training: written, read again, stopped and resumed, and options that it refuses."""

from __future__ import annotations

import os
import signal
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from trainable import SPAN, net, same, scenes, trained

import camplug
from camplug.errors import InputError
from camplug.wsss.classifier import ClassifierCrops, Method, load_classifier
from camplug.wsss.rpnet import RPNet, RPNetTraining

RPNET = RPNet(width=8, stages="last,4")

pytestmark = pytest.mark.filterwarnings("ignore:.*self.trainer. reference")


# ---- whole trainings


def test_trained_written_and_read_again(tmp_path):
    done = trained(tmp_path / "a", method=RPNET)
    assert done.losses.keys() == {"classification", "self_supervised", "confident", "foreground", "loss"}
    assert 0 < done.losses["confident"] <= 1
    assert 0 < done.losses["foreground"] < 1.3
    assert same(trained(tmp_path / "b", method=RPNET).network, done.network)
    x = torch.randn(2, 3, 48, 48)
    loaded = load_classifier(done.file, net())
    assert same(loaded, done.network)
    with torch.no_grad():
        assert torch.allclose(loaded(x), done.network(x), atol=1e-6)
        maps = loaded.head(loaded.neck(loaded.body(x)))
        assert torch.allclose(loaded(x), maps.mean((2, 3)), atol=1e-6)
    found = camplug.CAM(loaded).maps(x, [0, 1])
    assert torch.isfinite(found).all()
    wanted = F.interpolate(maps.relu(), (48, 48), mode="bilinear", align_corners=False)[[0, 1], [0, 1]]
    wanted = wanted / wanted.amax((1, 2), keepdim=True).clamp_min(1e-12)
    assert torch.allclose(found, wanted, atol=1e-4)
    assert torch.isfinite(camplug.FullyCAM(loaded).maps(x, [0, 1])).all()


def test_stopped_and_going_on_is_the_same_as_not_stopped(tmp_path, monkeypatch):
    whole = trained(tmp_path / "whole", method=RPNET)
    step = RPNetTraining.training_step

    def stops(self, batch, batch_idx):
        if (self.current_epoch, batch_idx) == (1, 1):
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch, batch_idx)

    hears = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is deaf to it
    try:
        monkeypatch.setattr(RPNetTraining, "training_step", stops)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "stopped", method=RPNET)
    finally:
        signal.signal(signal.SIGINT, hears)
    monkeypatch.undo()
    resumed = trained(tmp_path / "stopped", method=RPNET)
    assert same(resumed.network, whole.network)
    assert resumed.losses == whole.losses


def test_without_self_supervision_one_image_is_ordinary_training(tmp_path):
    ours = trained(tmp_path / "a", method=replace(RPNET, images=1, weight=0.0))

    class Ordinary(Method):
        def get_neck_settings(self):
            return replace(RPNET, weight=0.0).get_neck_settings()

    theirs = trained(tmp_path / "b", method=Ordinary())
    assert same(ours.network, theirs.network)


def test_every_choice_trains(tmp_path):
    for number, change in enumerate(
        (
            {"images": 1},
            {"images": 4, "scales": (1.0, 0.5)},
            {"stages": "two.0,last,2"},
            {"smooth": False},
            {"random_part": 1.0},
            {"prototypes": False},
            {"each_first": False},
        )
    ):
        done = trained(tmp_path / str(number), method=replace(RPNET, **change), span=replace(SPAN, epochs=1))
        assert all(np.isfinite(value) for value in done.losses.values())
        assert done.losses["self_supervised"] > 0


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"images": 5}, "images=5; give 1 to 4"),
        ({"images": 0}, "images=0; give 1 to 4"),
        ({"width": 0}, "width=0; give at least 1"),
        ({"stages": " , "}, "stages=' , '; give each once: last, strides"),
        ({"stages": "8,last,8"}, "stages='8,last,8'; give each once"),
        ({"enhanced_block": "none"}, "enhanced_block='none'; allowed are own, shared"),
        ({"threshold": 1.0}, "threshold=1.0; give a number above 0 and below 1"),
        ({"regions": "all"}, "regions='all'; allowed are channels, classes"),
        ({"random_part": 0.0}, "random_part=0.0; give a probability above 0 and at most 1"),
        ({"scale": float("nan")}, "scale=nan; give a number above 0"),
        ({"border": "dark"}, "border='dark'; allowed are normalized, zero"),
        ({"weight": -1.0}, "weight=-1.0; give a weight of 0 or more"),
        ({"scales": (0.5, 2.0)}, r"scales=\(0.5, 2.0\); give each once, above 0, and 1 among them"),
        ({"scales": (1.0, 1.0)}, "scales=.*give each once"),
        ({"scales": (1.0, -1.0)}, "scales=.*above 0"),
        ({"scales": ()}, r"scales=\(\); give each once"),
    ],
)
def test_options_out_of_range(change, sentence):
    with pytest.raises(InputError, match=sentence):
        RPNet(**change)


def test_a_batch_holds_whole_groups(tmp_path):
    with pytest.raises(InputError, match="batch=8: a batch holds groups of 3 images; give a multiple"):
        trained(tmp_path, method=replace(RPNET, images=3))


def test_images_without_a_partner_are_told_of(tmp_path):
    data = scenes(1)
    with pytest.warns(UserWarning, match="1 of 1 images share no class with another image, so each of them is its own"):
        RPNET.make_items(ClassifierCrops(data, crop=48, sides=(48, 48)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RPNET.make_items(ClassifierCrops(scenes(), crop=48, sides=(48, 48)))
        replace(RPNET, images=1).make_items(ClassifierCrops(data, crop=48, sides=(48, 48)))
