"""The wrapper around `camplug.dense`: what it explains, and in what company."""

from __future__ import annotations

import pytest
import torch
from wrapped import Channels, model_and_batch, same

import camplug
from camplug import CAM, Dense, FullyCAM, GradCAM, InputError, ModelError, MultiView


@pytest.mark.parametrize("method", [CAM, GradCAM, FullyCAM])
@pytest.mark.parametrize("classes", [1, None, [[3, 0], []], "callable"])
def test_is_the_explainer_inside_of_a_dense_block(method, classes, device):
    model, x = model_and_batch(device=device)
    if classes == "callable":
        classes = [4, 4] if method is CAM else lambda output: output[:, 4]
    explainer = method(model)
    got = Dense(explainer, 1).run(x, classes, (24, 28))
    with camplug.dense(model, 1, example=x):
        want = explainer.run(x, classes, (24, 28))
    assert all(same(a, b) for a, b in zip(got.maps, want.maps, strict=True))
    assert same(got.logits, want.logits)
    assert got.targets == want.targets
    coarse = explainer.run(x, classes, (24, 28))
    assert not torch.allclose(got.maps[0], coarse.maps[0], atol=1e-3)


def test_the_stride_it_has_already_changes_nothing(device):
    model, x = model_and_batch(device=device)
    for stride in (2, 8):
        assert same(Dense(GradCAM(model), stride).maps(x, 1), GradCAM(model).maps(x, 1))
    assert Dense(GradCAM(model)).output_stride == 8


def test_inside_of_others_and_around_them(device):
    model, x = model_and_batch(device=device)
    inside = MultiView(Dense(GradCAM(model), 1), (1.0, 1.5)).maps(x, [1, 0])
    around = Dense(MultiView(GradCAM(model), (1.0, 1.5)), 1).maps(x, [1, 0])
    torch.testing.assert_close(inside, around, rtol=0, atol=1e-12)
    twice = Dense(MultiView(Dense(GradCAM(model), 1), (1.0, 1.5)), 2).maps(x, [1, 0])
    torch.testing.assert_close(twice, inside, rtol=0, atol=1e-12)


def test_unnormalized_keeps_the_scale(device):
    model, x = model_and_batch(device=device)
    raw = Dense(GradCAM(model), 1).without_normalization().maps(x, 1)
    assert same(raw, Dense(GradCAM(model, normalize=None), 1).maps(x, 1))
    torch.testing.assert_close(raw / raw.amax((1, 2), keepdim=True), Dense(GradCAM(model), 1).maps(x, 1))


@pytest.mark.parametrize("stride", [0, 3, -2, 2.0, "8", None, True])
def test_a_stride_that_is_no_power_of_two_is_told_at_once(stride):
    with pytest.raises(InputError, match=r"^output_stride=.*; allowed are the powers of two: 1, 2, 4, 8, 16, 32\.$"):
        Dense(Channels(), stride)


def test_what_cannot_be_dense_is_told_at_the_first_image():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.PixelUnshuffle(2), torch.nn.Conv2d(16, 2, 1)).eval()
    explainer = Dense(GradCAM(model, "2"), 1)
    with pytest.raises(ModelError, match="cannot run at that output stride"):
        explainer.maps(torch.randn(1, 3, 14, 14), lambda output: output[:, 0].mean((1, 2)))
    with pytest.raises(InputError, match=r"^Dense wraps an explainer, .*; got Sequential\.$"):
        Dense(model)
