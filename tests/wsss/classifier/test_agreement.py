"""Losses that compare class maps: weights that rise from 0, and a word where the maps vanish."""

from __future__ import annotations

import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from moved import moved
from torch import nn
from trainable import net, scenes

from camplug.errors import InputError
from camplug.wsss.atm import ATM
from camplug.wsss.classifier import ClassifierCrops, LearningSettings, SpanSettings, build_classifier, train_classifier
from camplug.wsss.classifier.crops import ClassifierCrop
from camplug.wsss.rpnet import RPNet

METHODS = {
    "atm": ATM(fum=False),
    "rpnet": RPNet(width=8, stages="last", enhanced_block="shared", each_first=False, scales=(1.0,)),
}
IDLE = {"atm": {"similarity": 0.0, "background_similarity": 0.0}, "rpnet": {"weight": 0.0}}
each_method = pytest.mark.parametrize("name", list(METHODS))


def training(name, **options):
    data = scenes()
    method = replace(METHODS[name], **options)
    network = build_classifier(net(), data.classes, neck=method.get_neck_settings())
    return method.make_module(network, LearningSettings(cut=None), ClassifierCrops(data, crop=48, sides=(48, 48)))


def at(module, step=0, epoch=0):
    """The module, as in a step of a training."""
    module._trainer = SimpleNamespace(global_step=step, current_epoch=epoch, global_rank=0)
    module.log = module.log_dict = lambda *_, **__: None
    return module


@each_method
def test_golden_share_of_the_weights(name):
    """A quarter of 40 steps: 0, 0.1, 0.2, ... 1 from the tenth on."""
    module = training(name, ramp=0.25)
    module.steps = 40
    found = [at(module, step).ramp_factor for step in (0, 1, 5, 9, 10, 39)]
    assert found == pytest.approx([0, 0.1, 0.5, 0.9, 1, 1])


@each_method
@pytest.mark.parametrize(
    ("ramp", "steps"), [(0.0, 40), (0.01, 40), (1.0, 0)], ids=["none", "below a step", "not begun"]
)
def test_no_ramp_is_the_full_weight_from_the_first_step_on(name, ramp, steps):
    module = training(name, ramp=ramp)
    module.steps = steps
    assert module.ramp_factor == 1


def losses_of(module, step, device="cpu"):
    pictures = ClassifierCrops(scenes(), crop=48, sides=(48, 48))
    batch = ClassifierCrop(*map(torch.stack, zip(*(pictures[0, i] for i in range(4)), strict=True)))
    batch = moved(batch, device)
    return at(module.to(device), step).compute_losses(module.normalize(batch.pixels), batch, step)


@each_method
def test_every_weight_but_the_classifications_rises(name, device):
    module = training(name, ramp=1.0)
    module.steps = 8
    full, half = (losses_of(module, step, device) for step in (8, 4))
    assert full["classification"][0] == half["classification"][0] == 1
    others = set(full) - {"classification"}
    assert others
    assert [half[k][0] for k in others] == pytest.approx([full[k][0] / 2 for k in others])


@each_method
def test_the_first_step_is_that_of_the_classification_alone(name, tmp_path):
    """With one step, of weight 0, both trainings end with the same weights; with full weights they do not."""
    data = scenes()
    span = SpanSettings(epochs=1, batch=len(data) // 2 * 2, crop=48, sides=(48, 48))

    def trained(out, **options):
        method = replace(METHODS[name], **options)
        done = train_classifier(
            net(), data, tmp_path / out, method=method, learning=LearningSettings(cut=None), span=span
        )
        return torch.cat([p.flatten() for p in done.network.parameters()])

    idle = trained("idle", **IDLE[name])
    assert torch.equal(trained("rising", ramp=1.0), idle)
    assert not torch.equal(trained("full"), idle)


@each_method
@pytest.mark.parametrize("dead", [True, False])
def test_maps_of_nothing_are_told(name, dead, device):
    module = training(name)
    with torch.no_grad():
        for parameter in module.network.parameters():
            if parameter.ndim > 1:
                nn.init.constant_(parameter, 0.01)
        module.network.head.weight.fill_(-1.0 if dead else 1.0)
    losses_of(module, 0, device)
    at(module, epoch=3)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        module.on_train_epoch_end()
    assert [("in epoch 3 hardly any class map" in str(w.message)) for w in seen] == ([True] if dead else [])


@each_method
@pytest.mark.parametrize("ramp", [-0.1, 1.5])
def test_a_ramp_out_of_range(name, ramp):
    with pytest.raises(InputError, match=rf"ramp={ramp}; give a part of the training, 0 to 1"):
        replace(METHODS[name], ramp=ramp)
