"""Layers, models and uses that the tape refuses."""

from __future__ import annotations

import awkward
import pytest
import torch
from taped import picture, small
from torch import nn
from torch.utils.checkpoint import checkpoint

from camplug import LayerError, ModelError, Tape


def test_reentrant_checkpoint_is_refused_with_the_layer_named(device):
    class Reentrant(awkward.FeatureModule):
        def features(self, x):
            return checkpoint(super().features, x, use_reentrant=True)

    model = small(device, Reentrant)
    with Tape(model, "conv2") as tape:
        y = model(picture(device=device))
        with pytest.raises(LayerError, match=r"conv2.*reentrant"):
            list(tape.gradients(y[:, 0]))


def test_a_layer_beside_the_road_alone_is_refused(device):
    model = small(device, awkward.Unused)
    with Tape(model, "aside") as tape, pytest.raises(LayerError, match=r"aside.*feeds the score"):
        list(tape.gradients(model(picture(device=device))[:, 0]))


def test_a_layer_that_did_not_run_alone_is_refused():
    model = awkward.Unused().double().eval()
    with Tape(model, "never") as tape, pytest.raises(LayerError, match=r"never.* ran"):
        list(tape.gradients(model(picture())[:, 0]))


def test_gradients_outside_of_the_block_and_without_a_graph(device):
    model, x = small(device), picture(device=device)
    with Tape(model) as tape:
        y = model(x)
    with pytest.raises(LayerError, match="inside its with-block"):
        list(tape.gradients(y[:, 0]))
    with Tape(model, forward_only=True) as tape:
        y = model(x)
        assert not y.requires_grad
        with pytest.raises(LayerError, match="forward_only"):
            list(tape.gradients(y[:, 0]))


def test_entering_twice_and_wrong_models():
    with Tape(small()) as tape, pytest.raises(ModelError, match="open already"), tape:
        pass
    with pytest.raises(ModelError, match=r"torch\.nn\.Module"):
        Tape(lambda x: x)
    with torch.inference_mode():
        born_blind = awkward.FeatureModule()
    with pytest.raises(ModelError, match="inference_mode"), Tape(born_blind):
        pass


def test_a_layer_without_a_float_output():
    class Integers(awkward.FeatureModule):
        def __init__(self):
            super().__init__()
            self.counts = camplug_counts()

        def features(self, x):
            self.counts(x)
            return super().features(x)

    model = Integers().double()
    with Tape(model, "counts"), pytest.raises(LayerError, match=r"counts.*floating-point"):
        model(picture())


def camplug_counts():
    class Counts(nn.Module):
        def forward(self, x):
            return (x > 0).long()

    return Counts()


def test_unknown_name_in_the_tape():
    model = small()
    with Tape(model, "conv1") as tape:
        model(picture())
        assert tape["conv1"].shape == (2, 8, 12, 12)
        with pytest.raises(LayerError, match="holds no layer 'conv2'"):
            tape["conv2"]


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_a_model_of_torchscript_has_no_layers_to_look_for():
    model = torch.jit.script(nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    with pytest.raises(ModelError, match="TorchScript cannot be looked for; explain the model that it was made of"):
        Tape(model, "last").__enter__()
