"""Explain logits among probabilities, both sides of one output, labels, evidence for and against."""

from __future__ import annotations

import awkward
import pytest
import torch
from cases import WRAPPERS
from reference import FORMULAS, reference_cam, reference_map, relative_error
from torch import nn

import camplug

LAYERS = {"fully": ["conv1", "conv2", "conv3"]}
TOLERANCE = 2e-6
LABELS = torch.tensor([[0, 1, 0, 1, 0], [1, 0, 0, 0, 0]])


def feature_module(device, how=None, outputs=5):
    torch.manual_seed(3)
    model = awkward.FeatureModule()
    model.head = nn.Linear(model.head.in_features, outputs)
    model = model.eval() if how is None else awkward.Wrapped(model, how).eval()
    return model.to(device), torch.randn(2, 3, 16, 16).to(device)


def expected(method, model, x, score):
    layers = LAYERS.get(method, ["act"])
    return torch.stack([reference_map(method, model, layers, image[None], score) for image in x])


@pytest.mark.parametrize("method", FORMULAS)
@pytest.mark.parametrize(
    "how", [lambda z: (z.softmax(1), 40 * z), lambda z: {"p": (40 * z).softmax(1), "z": 40 * z}],
    ids=["flat", "saturated"],
)  # fmt: skip
def test_the_logits_beside_probabilities_are_explained(method, how, device):
    model, x = feature_module(device)
    wrapped, _ = feature_module(device, how)
    want = expected(method, model, x, lambda out: 40 * out[:, 3])
    got = camplug.create(method, wrapped, layers=[f"inner.{n}" for n in LAYERS.get(method, ["act"])]).maps(x, 3)
    assert relative_error(got, want) <= TOLERANCE
    logits = camplug.create(method, wrapped).run(x, 3).logits
    torch.testing.assert_close(logits, 40 * model(x).detach())


def test_cam_takes_the_logits_beside_probabilities(device):
    wrapped, x = feature_module(device, lambda z: (z.softmax(1), z))
    got = camplug.CAM(wrapped).maps(x, 3)
    features = wrapped.inner.features(x).detach().double().cpu()
    want = [reference_cam(f, wrapped.inner.head.weight[3].cpu(), x.shape[2:]) for f in features]
    assert relative_error(got, torch.stack(want)) <= TOLERANCE


@pytest.mark.parametrize("method", [m for m in FORMULAS if m != "eigencam"])
def test_evidence_against_a_class_is_the_map_of_minus_its_score(method, device):
    model, x = feature_module(device)
    want = expected(method, model, x, lambda out: -out[:, 3])
    assert relative_error(camplug.create(method, model, evidence="negative").maps(x, 3), want) <= TOLERANCE
    assert relative_error(camplug.create(method, model).maps(x, camplug.Against(3)), want) <= TOLERANCE
    back = camplug.create(method, model, evidence="negative").maps(x, [[camplug.Against(3)], [3]])
    assert relative_error(back[1], want[1:]) <= TOLERANCE
    assert relative_error(back[0], expected(method, model, x[:1], lambda out: out[:, 3])) <= TOLERANCE
    callable_too = camplug.create(method, model, evidence="negative").maps(x, lambda out: out[:, 3])
    assert relative_error(callable_too, want) <= TOLERANCE


@pytest.mark.parametrize("dense_head", [False, True])
def test_cam_against_a_class_negates_the_heads_weights(dense_head, device):
    """Golden numbers: two maps 1x2, weights (1, -2) and bias 10, which is no evidence of any place."""
    head = nn.Conv2d(2, 2, 1) if dense_head else nn.Linear(2, 2)
    head.weight.data = torch.tensor([[1.0, -2.0], [0.0, 1.0]]).view_as(head.weight)
    head.bias.data = torch.tensor([10.0, 0.0])
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    body = nn.ReLU()  # a layer of which the map is the image itself
    model = nn.Sequential(body, *((head, *pooled) if dense_head else (*pooled, head))).eval().to(device)
    x = torch.tensor([[[[3.0, 1.0]], [[1.0, 2.0]]]]).to(device)  # score at the places: 3 - 2 = 1, 1 - 4 = -3
    positive, negative = (
        camplug.CAM(model, normalize=None, evidence=e).maps(x, 0).tolist() for e in ("positive", "negative")
    )
    assert (positive, negative) == ([[[1.0, 0.0]]], [[[0.0, 3.0]]])
    assert camplug.CAM(model, normalize=None).maps(x, [[0, camplug.Against(0), 1]])[0].tolist() == [
        [[1.0, 0.0]], [[0.0, 3.0]], [[1.0, 2.0]],
    ]  # fmt: skip


def test_golden_numbers_of_grad_cam_against_a_class(device):
    head = nn.Linear(2, 1)
    head.weight.data, head.bias.data = torch.tensor([[1.0, -2.0]]), torch.zeros(1)
    model = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval().to(device)
    x = torch.tensor([[[[3.0, 1.0]], [[1.0, 2.0]]]]).to(device)  # gradients: 1/2 and -1 at both places
    for evidence, want in (("positive", [0.5, 0.0]), ("negative", [0.0, 1.5])):
        got = camplug.GradCAM(model, "0", normalize=None, evidence=evidence).maps(x, 0)
        assert got.tolist() == [[want]]
    assert camplug.GradCAM(model, "0", normalize=None).maps(x).tolist() == [[[0.0, 1.5]]]  # -1 says no


def test_evidence_is_one_of_two_words():
    model, _ = feature_module("cpu")
    with pytest.raises(camplug.InputError, match='evidence=\'signed\'; allowed are "positive" and "negative"'):
        camplug.GradCAM(model, evidence="signed")
    with pytest.raises(camplug.InputError, match="eigencam shows the same for every class"):
        camplug.EigenCAM(model, evidence="negative")


ONE_OUTPUT = {k: w for k, w in WRAPPERS.items() if k != "finercam"}  # it compares several classes


@pytest.mark.parametrize("wrapper", ONE_OUTPUT)
def test_wrappers_show_what_their_explainer_shows(wrapper, device):
    """The map against a class is the map for it of the model with the opposite head."""
    model, x = feature_module(device, outputs=1)
    opposite, _ = feature_module(device, outputs=1)
    opposite.head.weight.data.neg_()
    opposite.head.bias.data.neg_()
    line = ONE_OUTPUT[wrapper].format("FullyCAM")
    want = camplug.create(line, opposite).maps(x, [[0], [0]])
    got = camplug.create(line, model).maps(x, [[camplug.Against(0)], [camplug.Against(0)]])
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5)


@pytest.mark.parametrize("line", ["gradcam", "cam", "fully", *(w.format("FullyCAM") for w in ONE_OUTPUT.values())])
def test_one_output_is_explained_as_it_decides(line, device):
    model, x = feature_module(device, outputs=1)
    z = model(x)[:, 0].detach()
    model.head.bias.data -= z.mean()  # one yes and one no, within what a probability could be
    predicted = camplug.create(line, model).run(x, None)
    yes = (z > z.mean()).tolist()
    sides = [[0] if y else [camplug.Against(0)] for y in yes]
    assert repr([list(c) for c in predicted.targets.classes]) == repr(sides)
    for a, b in zip(predicted.maps, camplug.create(line, model).run(x, sides).maps, strict=True):
        torch.testing.assert_close(a, b)


def test_one_output_that_is_a_probability_decides_at_one_half(device):
    model, x = feature_module(device, torch.sigmoid, outputs=1)
    z = model.inner(x)[:, 0].detach()
    model.inner.head.bias.data -= z.mean()
    for line in ("GradCAM", "MultiView(GradCAM, (1.0,))"):
        classes = camplug.create(line, model).run(x, None).targets.classes
        assert [repr(c[0]) for c in classes] == ["0" if v > z.mean() else "Against(0)" for v in z]


@pytest.mark.parametrize("line", ["gradcam", "cam", "MultiView(FullyCAM, (1.0, 1.5))", "Compete(FullyCAM)"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32])
def test_a_matrix_of_labels_is_the_lists_of_its_classes(line, dtype, device):
    model, x = feature_module(device)
    explainer = camplug.create(line, model)
    want = explainer.maps(x, [[1, 3], [0]])
    for labels in (LABELS.to(device, dtype), LABELS.to(dtype).numpy(), LABELS.to(dtype).tolist()):
        got = explainer.maps(x, labels)
        assert isinstance(got, list)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b)
    with pytest.raises(camplug.TargetError, match="the model has 5 classes; labels need one column per class"):
        explainer.maps(x, LABELS[:, :4])


@pytest.mark.parametrize("method", ["gradcam", "fully", "cam"])
@pytest.mark.parametrize("outputs", [5, 1])
def test_squeezed_outputs_are_those_of_the_whole(method, outputs, device):
    model, x = feature_module(device, outputs=outputs)
    squeezed, _ = feature_module(device, torch.squeeze, outputs=outputs)
    prefix = {"layers": "inner.act"} if method == "gradcam" else {}
    for images in (x[:1], x):
        got = camplug.create(method, squeezed, **prefix).run(images, outputs - 1)
        want = camplug.create(method, model).run(images, outputs - 1)
        torch.testing.assert_close(got.logits, want.logits)
        torch.testing.assert_close(torch.cat(got.maps), torch.cat(want.maps))


def test_one_output_without_a_graph(device):
    """Without a gradient nothing shows whether 0.3 is a logit: a checked head does, or it does not matter."""
    model, x = feature_module(device, outputs=1)
    z = model(x)[:, 0].detach()
    model.head.bias.data += 0.3 - z[0]
    assert camplug.EigenCAM(model).maps(x).shape == (2, 16, 16)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    head = nn.Conv2d(4, 1, 1)
    for end, yes in ((nn.Identity(), True), (nn.Sigmoid(), False)):
        dense = nn.Sequential(body, head, nn.AdaptiveAvgPool2d(1), nn.Flatten(), end).eval().to(device)
        value = dense(x).mean().detach()
        head.bias.data += 0.3 - value if yes else -2 - value
        if yes:
            assert repr(camplug.CAM(dense).run(x[:1], None).targets.classes[0]) in ("(0,)", "(Against(0),)")
        else:
            with pytest.raises(camplug.TargetError, match=r"whether a value below 0\.5 means no"):
                camplug.CAM(dense).run(x[:1], None)
