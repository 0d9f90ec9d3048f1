"""Class-conditional inference: splitting and erasing together are what they are one by one."""

from __future__ import annotations

import numpy as np
import pytest
import slow
import torch
from wrapped import Channels, Recording, looking, model_and_batch, same

from camplug import CAM, ClassConditional, FullyCAM, GradCAM, InputError, IterativeErasing, SplitUnite, TargetError

ERASE = {
    "paper": {"threshold": 0.7, "stop": 0.01, "max_iter": 5, "combine": "sum"},
    "repo": {"threshold": 0.7, "stop": 0.02, "max_iter": 5, "combine": "max"},
}
SPLIT = {"paper": {"margins": (0, 0), "many": "per-class"}, "repo": {"margins": (10, 20), "many": "none"}}
CLASSES = [[3], [0, 1], [4, 2, 0]]


@pytest.mark.parametrize("preset", ["paper", "repo"])
@pytest.mark.parametrize("inner", [GradCAM, FullyCAM])
def test_is_splitting_around_erasing(preset, inner, device):
    model, x = model_and_batch(3, (12, 16), device=device)
    explainer = inner(model)
    got = ClassConditional(explainer, preset, split={"smallest": 4}).run(x, CLASSES, (9, 11))
    want = SplitUnite(IterativeErasing(explainer, preset), preset, smallest=4, locate=explainer).run(
        x, CLASSES, (9, 11)
    )
    assert all(same(a, b) for a, b in zip(got.maps, want.maps, strict=True))
    assert same(got.logits, want.logits)
    assert got.targets == want.targets


@pytest.mark.parametrize("preset", ["paper", "repo"])
@pytest.mark.parametrize("inner", [GradCAM, FullyCAM])
@pytest.mark.parametrize("margins", [None, (1, 2)])
def test_equals_the_slow_reference(preset, inner, margins, device):
    model, x = model_and_batch(3, (12, 16), device=device)
    split = {"smallest": 4} if margins is None else {"smallest": 4, "margins": margins}
    conditional = ClassConditional(inner(model), preset, split=split, erase={"stop": 0.05}, normalize=None)
    look = looking(inner(model))

    def erase(image, classes, size=None):
        joined, _ = slow.erasing(look, image, classes, **{**ERASE[preset], "stop": 0.05})
        return np.array([slow.scaled(m) for m in joined])

    for image, row, got in zip(x.cpu().numpy(), CLASSES, conditional.maps(x, CLASSES), strict=True):
        want = slow.splitting(erase, image, row, locate=look, **{**SPLIT[preset], **split})
        np.testing.assert_allclose(got.cpu().numpy(), want, atol=1e-10)


def test_every_part_is_filled_with_its_own_mean(device):
    recorder = Recording(Channels())
    x = (torch.rand(1, 3, 6, 8) + 0.1).to(device)
    ClassConditional(recorder, erase={"stop": 0.0, "max_iter": 2}, split={"smallest": 1}).maps(x, 1)
    located, *parts = [seen for seen, _, _ in recorder.seen]
    assert same(located, x)
    for first, second in zip(parts[::2], parts[1::2], strict=True):
        hidden = first[:, 1] / first[:, 1].amax((1, 2), keepdim=True) > 0.7
        want = torch.where(hidden[:, None], first.mean((2, 3), keepdim=True), first)
        torch.testing.assert_close(second, want)


def test_arguments_reach_both_parts():
    made = ClassConditional(
        Channels(), "repo", split={"combine": "sum"}, erase={"weight": "softmax"}, normalize="minmax"
    )
    assert (made.united.margins, made.united.combine, made.united.normalize) == ((10, 20), "sum", "minmax")
    erasing = made.united.explainer
    assert (erasing.combine, erasing.weight, erasing.normalize) == ("max", "softmax", "max")
    assert made.united.locate is made.explainer is erasing.explainer


def test_unnormalized_keeps_the_scale_of_every_part(device):
    model, x = model_and_batch(1, device=device)
    made = ClassConditional(GradCAM(model), split={"smallest": 4})
    raw = GradCAM(model, normalize=None)
    want = SplitUnite(IterativeErasing(raw, normalize=None), smallest=4, locate=GradCAM(model), normalize=None)
    assert same(made.without_normalization().maps(x, 1), want.maps(x, 1))
    assert made.united.normalize == made.united.explainer.normalize == made.explainer.normalize == "max"


def test_the_predicted_class(device):
    model, x = model_and_batch(2, device=device)
    made = ClassConditional(CAM(model), split={"smallest": 4})
    with torch.no_grad():
        predicted = model(x).argmax(1)
    assert same(made.maps(x), made.maps(x, predicted))


def test_refusals():
    with pytest.raises(TargetError, match="explains classes, not a callable"):
        ClassConditional(Channels()).maps(torch.rand(1, 3, 4, 4), lambda output: output[:, 0])
    with pytest.raises(InputError, match=r"^preset='mine'; allowed are 'paper', 'repo'"):
        ClassConditional(Channels(), "mine")
    with pytest.raises(InputError, match=r"^combine='min'; allowed are 'max', 'mean'"):
        ClassConditional(Channels(), split={"combine": "min"})
    with pytest.raises(InputError, match="threshold lies between 0 and 1"):
        ClassConditional(Channels(), erase={"threshold": 2})
    with pytest.raises(InputError, match="normalize='sum'; allowed are"):
        ClassConditional(Channels(), normalize="sum")
    with pytest.raises(InputError, match=r"^ClassConditional wraps an explainer, .*; got str\.$"):
        ClassConditional("FullyCAM")
