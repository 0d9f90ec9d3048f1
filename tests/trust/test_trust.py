"""Metrics of several explainers over a data set."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted import BOX, colours, draw
from torch import nn

import camplug
from camplug import InputError
from camplug.explain.batch import check_batch
from camplug.trust import (
    ClassScore,
    Settings,
    Trust,
    area_under_curve,
    confidence_drop,
    deletion_curve,
    fill_boxes,
    insertion_curve,
    list_metrics,
    mask_images,
    register_metric,
    registry,
    road,
    sparseness,
)

SETTINGS = Settings(steps=5, fractions=(0.2, 0.5), samples=3, stages=2, batch_size=7)


@pytest.fixture
def images(device):
    return torch.rand(3, 3, 12, 16, generator=torch.manual_seed(1), dtype=torch.float64).to(device)


@pytest.fixture
def model(device):
    return colours(device, torch.float64)


def test_values_are_those_of_the_functions(model, images):
    explainers = {"grad": camplug.GradCAM(model, "0"), "layer": camplug.LayerCAM(model, "0")}
    trust = Trust(explainers, ("deletion", "insertion", "road", "confidence_drop", "sparseness"), SETTINGS)
    trust.add(images, [0, 1, 2])
    score = ClassScore(model, check_batch(model, images), [0, 1, 2])
    before = model(images).softmax(1).diagonal().detach()
    for name, explainer in explainers.items():
        maps = explainer.maps(images, [0, 1, 2])
        slow = {
            "deletion": area_under_curve(deletion_curve(score, images, maps, steps=5)),
            "insertion": area_under_curve(insertion_curve(score, images, maps, steps=5)),
            "road": road(score, images, maps, fractions=(0.2, 0.5), batch_size=7),
            "confidence_drop": confidence_drop(before, score(mask_images(images, maps), [0, 1, 2])),
            "sparseness": sparseness(maps),
        }
        for metric, values in slow.items():
            assert trust.values(name, metric).tolist() == pytest.approx(values.tolist(), abs=1e-9), metric


def test_every_metric_of_every_batch_is_the_same_as_of_one(model, images):
    masks = fill_boxes([[(2, 2, 9, 9)]] * 3, (12, 16))
    chosen = [m for m in list_metrics() if m not in ("max_sensitivity", "randomization", "road")]  # these draw by place
    explainers = [camplug.GradCAM(model, "0"), camplug.GradCAM(model, "0", normalize=None)]
    whole = Trust(explainers, chosen, SETTINGS).add(images, masks=masks)
    parts = Trust(explainers, chosen, SETTINGS)
    for i in range(3):
        parts.add(images[i : i + 1], masks=masks[i : i + 1])
    for name in ("gradcam", "gradcam 2"):
        for metric in chosen:
            assert whole.values(name, metric).tolist() == pytest.approx(parts.values(name, metric).tolist(), abs=1e-9)
    everything = Trust(explainers, "*", SETTINGS).add(images, masks=masks).compute()
    assert list(everything) == ["gradcam", "gradcam 2"]
    assert sorted(everything["gradcam"]) == list_metrics()
    assert all(np.isfinite(v.mean) and v.count == 3 for row in everything.values() for v in row.values())


def test_the_memory_bound_holds_and_baselines_are_shared(model, images):
    sizes = []
    Trust(camplug.GradCAM(model, "0"), "deletion", SETTINGS).add(images)  # what is found out once
    model.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    one, two = ([camplug.GradCAM(model, "0")] * k for k in (1, 2))
    counts = []
    for explainers in (one, two):
        sizes.clear()
        Trust(explainers, ("deletion", "insertion"), SETTINGS).add(images)
        assert max(sizes) <= 7
        counts.append(sum(sizes))
    inside, ends = 3 * 4 * 2, 3 * 2  # the ends without evidence; the originals are known from the prediction
    assert counts[1] - counts[0] == inside + 3  # nothing but the curves' inner steps and one explanation
    assert counts[0] == inside + ends + 3 + 3  # with the prediction


def test_the_mean_and_its_interval(model, images):
    trust = Trust(camplug.GradCAM(model, "0"), "sparseness").add(images).add(images.flip(3))
    found = trust.compute()["gradcam"]["sparseness"]
    values = trust.values("gradcam", "sparseness")
    assert found.mean == pytest.approx(values.mean())
    assert values.min() <= found.low < found.mean < found.high <= values.max()
    assert f"| gradcam | {found.mean:.3f} [{found.low:.3f}, {found.high:.3f}] |" in trust.as_table()
    assert trust.as_table().startswith("| explainer | sparseness (+) |\n|---|---|\n")


def test_a_faithful_map_is_better_in_everything_that_can_tell():
    model, x = colours(), draw()
    top, left, bottom, right = BOX
    masks = fill_boxes([[(left, top, right, bottom)]], (24, 32))
    good, bad = camplug.GradCAM(model, "0"), camplug.CAM(model, "0", evidence="positive")
    trust = Trust({"good": good}, settings=SETTINGS).add(x, 0, masks=masks).compute()["good"]
    other = Trust({"bad": bad}, settings=SETTINGS).add(x, 0, masks=masks.flip(2)).compute()["bad"]
    assert trust["energy_pointing_game"].mean > 0.8 > 0.2 > other["energy_pointing_game"].mean
    assert (trust["pointing_game"].mean, other["pointing_game"].mean) == (1, 0)


class Gated(nn.Module):
    """A model of images and of a vector for each."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, x, gate):
        return self.head((self.conv(x).relu() * gate[:, :, None, None]).mean((2, 3)))


def test_other_inputs_follow_their_images(device):
    torch.manual_seed(0)
    model = Gated().double().eval().to(device)
    x, gate = torch.randn(2, 3, 8, 8).double().to(device), torch.rand(2, 4).double().to(device)
    names = [m for m in list_metrics() if not m.endswith("pointing_game") and m not in ("road", "max_sensitivity")]
    explainer = camplug.GradCAM(model, "conv", normalize=None)
    both = Trust(explainer, names, SETTINGS).add(x, 0, inputs=gate)
    for i in range(2):
        alone = Trust(explainer, names, SETTINGS).add(x[i : i + 1], 0, inputs=gate[i : i + 1])
        for name in names:
            expected = pytest.approx(alone.values("gradcam", name)[0], abs=1e-9, nan_ok=True)
            assert both.values("gradcam", name)[i] == expected, name
    other = Trust(explainer, "deletion", SETTINGS).add(x, 0, inputs=gate.flip(0))
    assert not np.allclose(other.values("gradcam", "deletion"), both.values("gradcam", "deletion"))


def test_probabilities_of_a_functional_sigmoid_stay(device):
    """Only the graph shows that the outputs are probabilities."""

    class Sigmoid(type(colours())):
        def forward(self, x):
            return super().forward(x).sigmoid()

    x = draw().to(device)
    model = Sigmoid().eval().to(device)
    trust = Trust(camplug.GradCAM(model, "0"), "deletion", Settings(steps=1)).add(x, 0)
    expected = (model(x)[0, 0] + model(torch.zeros_like(x))[0, 0]) / 2
    assert trust.values("gradcam", "deletion").item() == pytest.approx(expected.item(), rel=1e-5)


def test_own_metrics(model, images, monkeypatch):
    monkeypatch.setattr(registry, "_metrics", dict(registry._metrics))
    register_metric("peak", "higher")(lambda trial: trial.each_map(lambda maps: maps.amax((1, 2))))
    assert Trust(camplug.GradCAM(model, "0"), "peak").add(images).values("gradcam", "peak").tolist() == [1, 1, 1]
    with pytest.raises(InputError, match="the metric 'peak' is taken by"):
        register_metric("peak", "higher")(len)


def test_what_is_refused(model, images):
    explainer = camplug.GradCAM(model, "0")
    with pytest.raises(InputError, match="there is no metric 'delete'; available are complexity"):
        Trust(explainer, "delete")
    with pytest.raises(InputError, match="one or more explainers"):
        Trust([])
    with pytest.raises(InputError, match="one or more explainers"):
        Trust(model)
    with pytest.raises(InputError, match="different models"):
        Trust([explainer, camplug.GradCAM(colours(), "0")])
    with pytest.raises(InputError, match="give masks="):
        Trust(explainer, "pointing_game").add(images)
    with pytest.raises(InputError, match="the masks are"):
        Trust(explainer).add(images, masks=torch.zeros(3, 4, 4))
    with pytest.raises(camplug.TargetError, match="class 7"):
        Trust(explainer).add(images, 7)
    trust = Trust(explainer, ("sparseness", "pointing_game"))
    with pytest.raises(InputError, match="give masks="):
        trust.add(images)
    assert len(trust.values("gradcam", "sparseness")) == 0  # nothing is left of a batch that failed
