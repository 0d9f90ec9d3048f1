"""The verdict on one map: known good and bad maps, the chance level, and what the picture and JSON hold."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from planted import colours, draw
from torch import nn

import camplug
from camplug import InputError
from camplug.trust import check, report
from camplug.trust.report import Measurements, decide_verdict, list_reasons, list_warnings


def photo():
    """The image of `draw` as a photograph."""
    pixels = ((draw()[0] * 0.5 + 0.5).clamp(0, 1) * 255).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


class Random(camplug.Explainer):
    """Smooth maps that have nothing to do with the model."""

    name = "random"

    def __init__(self, model, seed):
        super().__init__(model)
        self.seed = seed

    def run(self, x, classes, size=None, inputs=None):
        result = camplug.GradCAM(self.model, "0").run(x, classes, size)
        noise = torch.rand(len(x), 1, 6, 8, generator=torch.Generator().manual_seed(self.seed))
        maps = nn.functional.interpolate(noise, size or x.shape[2:], mode="bilinear").to(x)
        result.maps = list(maps)
        return result


def test_a_faithful_map_is_trustworthy(device):
    found = check(camplug.GradCAM(colours(device), "0"), photo(), "red", stages=2)
    assert found.verdict == "trustworthy"
    assert found.warnings == []
    m = found.measured
    assert m.probability == pytest.approx(found.explanation.probability(), abs=1e-5)
    assert m.deletion < min(m.random_deletion)
    assert m.insertion > max(m.random_insertion)
    assert m.chance == 1 / 20
    assert m.road > 0
    assert m.noise > 0.5 > m.weights[-1] - 0.5
    assert set(m.classes) == {"green", "blue"} - ({"blue"} - set(m.classes))
    assert f"mean probability {m.deletion:.2f} against {np.mean(m.random_deletion):.2f}" in found.reasons[0]
    assert "faster than" in found.reasons[0]
    assert "better than at 19 of 19 random places" in found.reasons[2]


def test_the_opposite_of_a_faithful_map_is_untrustworthy():
    class Opposite(camplug.GradCAM):
        def run(self, x, classes, size=None, inputs=None):
            result = super().run(x, classes, size, inputs)
            result.maps = [1 - m for m in result.maps]
            return result

    found = check(Opposite(colours(), "0"), photo(), 0, stages=1)
    assert found.verdict == "untrustworthy"
    assert "slower than" in found.reasons[0]
    assert any("ROAD speaks against" in text for text in found.warnings)


def test_chance_is_chance():
    """Random maps are as good as themselves at random places: a twentieth of them is better than all."""
    model, image = colours(), draw()[0]
    chances = [check(Random(model, seed), image, 0, stages=1, steps=5, seed=seed).measured.chance for seed in range(40)]
    assert sum(c <= 0.05 for c in chances) <= 6  # binomial: P(more than 6) < 0.4 %
    assert 0.35 < np.mean(chances) < 0.7


def test_a_map_of_the_image_does_not_depend_on_weights_or_class():
    class Edges(camplug.Explainer):
        name = "edges"

        def run(self, x, classes, size=None, inputs=None):
            result = camplug.GradCAM(self.model, "0").run(x, classes, size)
            result.maps = [(one - one.min())[None] for one in x.amax(1)]
            return result

    found = check(Edges(colours()), draw()[0], 0, stages=2)
    assert found.verdict == "untrustworthy"
    assert any("does not depend on the weights" in text for text in found.warnings)
    assert any("does not depend on the class" in text for text in found.warnings)
    assert found.measured.weights == pytest.approx([1, 1])


def test_a_method_that_does_not_know_classes_is_doubtful_at_best():
    found = check(camplug.EigenCAM(colours(), "0"), photo(), 0, stages=1)
    assert found.verdict != "trustworthy"
    assert any("same map for every class" in text for text in found.warnings)
    inner = check(camplug.MultiView(camplug.EigenCAM(colours(), "0"), scales=(1.0,)), photo(), 0, stages=1)
    assert any("same map for every class" in text for text in inner.warnings)


def without_evidence():
    model = colours()
    with torch.no_grad():
        model[4].weight[0] = -1.0
    return model


def test_an_empty_map_says_so_without_a_warning_twice(recwarn):
    found = check(camplug.GradCAM(without_evidence(), "1"), photo(), 0)
    assert found.verdict == "untrustworthy"
    assert found.warnings == ["the map is empty: the method finds no positive evidence for the class."]
    assert found.reasons == []
    assert found.curves is None
    assert [str(w.message) for w in recwarn if "map" in str(w.message)] == []
    assert found.as_dict()["numbers"]["deletion"] is None
    assert found.picture().width > 500


class Pooled(nn.Module):
    """A model whose last layer has one position."""

    pretrained_cfg = {"input_size": (3, 24, 32), "mean": (0, 0, 0), "std": (1, 1, 1)}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)
        self.tail = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.tail(self.conv(x).relu().mean((2, 3), keepdim=True))
        return self.head(x.flatten(1))


def test_a_constant_map_says_so():
    torch.manual_seed(0)
    model = Pooled().eval()
    with torch.no_grad():
        model.tail.weight.copy_(torch.eye(4)[:, :, None, None])
        model.tail.bias.fill_(1.0)
        model.head.weight.copy_(torch.tensor([[1.0] * 4, [-1.0] * 4]))
    explainer = camplug.GradCAM(model, "tail")
    with pytest.warns(UserWarning, match="the gradcam map of 'class 0' is constant, so that it shows no place"):
        explainer.explain(photo(), 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = check(explainer, photo(), 0)
    assert found.verdict == "untrustworthy"
    assert "the map is constant" in found.warnings[0]


GOOD = {
    "probability": 0.9,
    "blank": 0.1,
    "deletion": 0.2,
    "insertion": 0.7,
    "random_deletion": [0.5] * 19,
    "random_insertion": [0.5] * 19,
    "road": 0.2,
    "noise": 0.95,
    "weights": [0.5, 0.1],
    "classes": {"dog": 0.3, "cow": 0.99},
}


@pytest.mark.parametrize(
    ("change", "verdict", "warning"),
    [
        ({}, "trustworthy", None),
        ({"empty": True}, "untrustworthy", "the map is empty"),
        ({"constant": True}, "untrustworthy", "the map is constant"),
        ({"weights": [0.5, 0.96]}, "untrustworthy", "does not depend on the weights"),
        ({"weights": [0.99, 0.5]}, "trustworthy", None),
        ({"weights": [float("nan")]}, "trustworthy", None),
        ({"classes": {"dog": 0.96, "cow": 0.99}}, "doubtful", "does not depend on the class"),
        ({"ignores_class": True, "classes": {}}, "doubtful", "same map for every class"),
        ({"road": -0.1}, "doubtful", "ROAD speaks against"),
        ({"blank": 0.95}, "doubtful", "the image without evidence has a probability of 0.95"),
        ({"random_insertion": [0.5] * 18 + [1.1]}, "doubtful", None),
        ({"random_insertion": [1.1] * 10 + [0.5] * 9}, "untrustworthy", None),
    ],
)
def test_verdicts(change, verdict, warning):
    m = Measurements(**{**GOOD, **change})
    assert decide_verdict(m) == verdict
    found = list_warnings(m)
    assert (warning is None) == (found == [])
    if warning is not None:
        assert warning in found[0]
    assert not any("nan" in text for text in list_reasons(m))


def test_numbers_of_the_reasons():
    assert list_reasons(Measurements(**GOOD)) == [
        "deleting what the map shows first lowers the probability faster than the same map at random places: mean "
        "probability 0.20 against 0.50.",
        "inserting what the map shows first raises the probability faster than the same map at random places: mean "
        "probability 0.70 against 0.50.",
        "insertion minus deletion is better than at 19 of 19 random places.",
        "removing the least relevant pixels (ROAD) keeps more of the probability than removing the most relevant ones:"
        " +0.20, chance is 0.",
        "the map depends on what the model has learned: with random weights its rank correlation is 0.10, with noise in"
        " the photograph 0.95.",
        "the map depends on the class: the rank correlation with the map of 'dog' is 0.30.",
    ]


def test_the_level_needs_as_many_places():
    assert round(1 / report.LEVEL) - 1 == 19
    with pytest.raises(InputError, match="random=18; give at least 19"):
        check(camplug.GradCAM(colours(), "0"), photo(), 0, random=18)


def test_the_picture_and_json(tmp_path):
    found = check(camplug.LayerCAM(colours(), "0"), photo(), 0, stages=3)
    found.save(tmp_path / "check.png")
    with Image.open(tmp_path / "check.png") as picture:
        assert min(picture.size) > 500
    told = json.loads(json.dumps(found.as_dict()))
    assert told["class"] == {"index": 0, "name": "red"}
    assert told["numbers"]["deletion"] == pytest.approx(found.measured.deletion, abs=1e-5)
    assert len(told["numbers"]["similarity_with_random_weights"]) == 2  # there are two layers with weights
    assert [title for title, _ in found.randomized] == ["50% random", "100% random"]
    again = check(camplug.LayerCAM(colours(), "0"), photo(), 0, stages=3)
    assert again.as_dict() == found.as_dict()


def test_the_model_and_explainer_stay(device):
    model = colours(device).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    explainer = camplug.GradCAM(model, "0")
    check(explainer, photo(), 0, stages=2)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert model.training
    assert explainer.model is model
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class Gated(nn.Module):
    """A model of images and of a number for each."""

    def __init__(self):
        super().__init__()
        self.inner = colours()

    def forward(self, x, gate):
        return self.inner(x) * gate[:, None]


def test_other_inputs_are_passed_on():
    explainer = camplug.GradCAM(Gated().eval(), "inner.0")
    alone = check(camplug.GradCAM(colours(), "0"), draw()[0], 0, stages=1)
    found = check(explainer, draw()[0], 0, inputs=torch.ones(1), stages=1)
    assert found.measured.deletion == pytest.approx(alone.measured.deletion, abs=1e-6)
    other = check(explainer, draw()[0], 0, inputs=torch.full((1,), 0.1), stages=1)
    assert other.measured.deletion != pytest.approx(alone.measured.deletion, abs=1e-2)


def test_what_is_refused():
    explainer = camplug.GradCAM(colours(), "0")
    with pytest.raises(InputError, match="one photograph and one class"):
        check(explainer, photo(), [0, 1])
    with pytest.raises(InputError, match="callable"):
        check(explainer, photo(), lambda output: output[:, 0])
    with pytest.raises(camplug.TargetError, match="reddish"):
        check(explainer, photo(), "reddish")
    with pytest.raises(InputError, match=r"nowhere\.jpg"):
        check(explainer, "nowhere.jpg")
