"""Weights of attention transfer that rise from 0."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from trainable import net, scenes

from camplug.errors import InputError
from camplug.wsss.atm import ATM, ATMTraining
from camplug.wsss.classifier import Learning, Pictures, Span, over, train_classifier


def training(**options):
    data = scenes()
    method = ATM(fum=False, **options)
    return ATMTraining(over(net(), data.classes), Learning(cut=None), method), Pictures(data, crop=48, sides=(48, 48))


def test_golden_weights_of_the_steps():
    """A quarter of 40 steps: 0, 0.1, 0.2, ... 1 from the tenth on, times the two weights."""
    atm, _ = training(ramp=0.25, similarity=0.5, background_similarity=0.2)
    atm.steps = 40
    found = []
    for step in (0, 1, 5, 9, 10, 39):
        atm._trainer = SimpleNamespace(global_step=step)
        found.append(atm.risen)
    assert found == pytest.approx([0, 0.1, 0.5, 0.9, 1, 1])


@pytest.mark.parametrize(
    ("ramp", "steps"), [(0.0, 40), (0.01, 40), (1.0, 0)], ids=["none", "below a step", "not begun"]
)
def test_no_ramp_is_the_full_weight_from_the_first_step_on(ramp, steps):
    atm, _ = training(ramp=ramp)
    atm.steps = steps
    assert atm.risen == 1


def test_the_first_step_is_that_of_the_classification_alone(tmp_path):
    """With one step, of weight 0, both trainings end with the same weights; with full weights they do not."""
    data = scenes()
    span = Span(epochs=1, batch=len(data), crop=48, sides=(48, 48))
    learning = Learning(cut=None)

    def trained(name, **options):
        done = train_classifier(
            net(), data, tmp_path / name, method=ATM(fum=False, **options), learning=learning, span=span
        )
        return torch.cat([p.flatten() for p in done.network.parameters()])

    idle = trained("idle", similarity=0.0, background_similarity=0.0)
    assert torch.equal(trained("rising", ramp=1.0), idle)
    assert not torch.equal(trained("full"), idle)


@pytest.mark.parametrize("ramp", [-0.1, 1.5])
def test_a_ramp_out_of_range(ramp):
    with pytest.raises(InputError, match=rf"ramp={ramp}; give a part of the training, 0 to 1"):
        ATM(ramp=ramp)
