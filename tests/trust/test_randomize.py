"""Cascading randomisation: order of layers, what changes at each stage, and what stays as it is."""

from __future__ import annotations

import copy

import pytest
import torch
from planted import colours, draw
from torch import nn

import camplug
from camplug import InputError, ModelError
from camplug.explain.batch import check_batch
from camplug.trust import cascade, explain_classes, randomize_layers
from camplug.trust.randomize import list_weighted_layers


class Backwards(nn.Module):
    """Layers that are called in another order than they were made."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.ones(1))
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.unused = nn.Linear(2, 2)
        self.first = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        return self.head(self.second(self.first(x * self.scale).relu()).relu().mean((2, 3)))


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(before, after):
    return {name.rpartition(".")[0] for name in before if not torch.equal(before[name], after[name])}


def test_layers_come_in_the_order_of_their_calls():
    model = Backwards().eval()
    names = [name for name, _ in list_weighted_layers(model, check_batch(model, torch.randn(2, 3, 8, 8)))]
    assert names == ["", "unused", "first", "second", "head"]
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_top_layers_first_and_the_model_stays(device):
    model = Backwards().eval().to(device)
    explainer = camplug.GradCAM(model, "second")
    batch, before = check_batch(model, torch.randn(2, 3, 8, 8).to(device)), state(model)
    seen = []
    for name, share, copied in randomize_layers(explainer, batch, stages=5):
        assert copied.model is not model
        seen.append((name, round(share, 1), changed(before, state(copied.model))))
    assert seen == [
        ("head", 0.2, {"head"}),
        ("second", 0.4, {"head", "second"}),
        ("first", 0.6, {"head", "second", "first"}),
        ("unused", 0.8, {"head", "second", "first", "unused"}),
        ("model", 1.0, {"head", "second", "first", "unused", ""}),
    ]
    assert changed(before, state(model)) == set()
    stages = [share for _, share, _ in randomize_layers(explainer, batch, stages=2)]
    assert stages == [0.4, 1.0]
    assert len(list(randomize_layers(explainer, batch, stages=50))) == 5


def test_weights_keep_their_mean_and_spread_and_are_seeded():
    model = nn.Sequential(nn.Conv2d(3, 64, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with torch.no_grad():
        model[0].weight.normal_(0.3, 2)
    explainer, batch = camplug.GradCAM(model, "0"), check_batch(model, torch.randn(1, 3, 8, 8))
    first, again, other = (
        next(iter(randomize_layers(explainer, batch, stages=1, seed=s)))[2].model[0].weight for s in (0, 0, 1)
    )
    assert first.mean().item() == pytest.approx(model[0].weight.mean().item(), abs=0.1)
    assert first.std().item() == pytest.approx(model[0].weight.std().item(), rel=0.05)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_shared_weights_are_drawn_once():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    model[1].weight = model[0].weight
    batch = check_batch(model, torch.randn(1, 3, 4, 4))
    weights = [e.model[0].weight.clone() for _, _, e in randomize_layers(camplug.GradCAM(model, "0"), batch, stages=2)]
    assert torch.equal(*weights)


class Edges(camplug.Explainer):
    """A map of the image alone, which explains nothing of the model."""

    name = "edges"

    def run(self, x, classes, size=None, inputs=None):
        result = camplug.GradCAM(self.model, "0").run(x, classes, size)
        heat = x.std(1)
        result.maps = [one[None] for one in heat / heat.amax((1, 2), keepdim=True)]
        return result


def test_a_map_of_the_image_stays_and_a_map_of_the_model_does_not(device):
    model, x = colours(device), draw().to(device)
    batch = check_batch(model, x)
    for explainer, same in ((Edges(model), True), (camplug.LayerCAM(model, "0"), False)):
        maps = explain_classes(explainer, batch, [0])
        found = cascade(explainer, batch, [0], maps, stages=2, similarity="cosine")
        assert found.maps.shape == (2, 1, 24, 32)
        assert found.layers == ("4", "0")
        assert found.shares == (0.5, 1.0)
        assert (found.similarity[-1].item() > 0.999) == same


def test_a_cascade_through_wrappers_leaves_the_explainer_as_it_is():
    model, x = colours(), draw()
    explainer = camplug.MultiView(camplug.LayerCAM(model, "0"), scales=(0.5, 1.0))
    batch, before = check_batch(model, x), copy.deepcopy(model.state_dict())
    maps = explain_classes(explainer, batch, [0])
    found = cascade(explainer, batch, [0], maps, stages=1)
    assert found.similarity.item() < 0.99
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert torch.equal(maps, explain_classes(explainer, batch, [0]))


def test_an_empty_map_has_nothing_in_common():
    model, x = colours(), draw()
    batch = check_batch(model, x)

    class Fading(camplug.GradCAM):
        def run(self, x, classes, size=None, inputs=None):
            result = super().run(x, classes, size, inputs)
            if self.model is not model:
                result.maps = [0 * m for m in result.maps]
            return result

    explainer = Fading(model, "0")
    found = cascade(explainer, batch, [0], explain_classes(explainer, batch, [0]), stages=2)
    assert found.similarity.tolist() == [[0], [0]]


def test_what_is_refused():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    batch = check_batch(model, torch.randn(1, 3, 4, 4))
    with pytest.raises(ModelError, match="no weights"):
        next(randomize_layers(camplug.GradCAM(model, "0"), batch))
    with pytest.raises(InputError, match="stages=0"):
        next(randomize_layers(camplug.GradCAM(model, "0"), batch, stages=0))

    class Single(type(colours())):
        def __deepcopy__(self, memo):
            raise RuntimeError("one of a kind")

    single = Single().eval()
    with pytest.raises(ModelError, match=r"cannot be copied \(one of a kind\)"):
        next(randomize_layers(camplug.GradCAM(single, "0"), batch))
