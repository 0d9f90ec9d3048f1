"""MultiView: golden numbers, the slow reference, what it asks of the inner explainer, what it refuses."""

from __future__ import annotations

import math

import awkward
import numpy as np
import pytest
import slow
import torch
import torchvision
from PIL import Image
from torch import nn
from wrapped import Channels, Recording, Scripted, looking, model_and_batch, same

import camplug
from camplug import FullyCAM, GradCAM, InputError, ModelError, MultiView, TargetError
from camplug.explain.tensor_ops import resize_images

SIZES = [(5, 7), (13, 9), (26, 40), (20, 20), (7, 33), (1, 1)]


# ---- resizing


@pytest.mark.parametrize("size", SIZES)
def test_images_are_resized_as_pil_does(size, device):
    pixels = np.random.default_rng(0).integers(60, 196, (13, 20, 3), dtype=np.uint8)  # cubic overshoot is not clipped
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float().to(device)
    got = resize_images(x, size)[0]
    for c in range(3):
        exact = Image.fromarray(pixels[:, :, c].astype(np.float32)).resize(size[::-1], Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(exact) - got[c].cpu().numpy()).max() < 1e-3
    rounded = np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BICUBIC)).astype(float)
    got = got.cpu().numpy()
    assert np.abs(rounded.transpose(2, 0, 1) - got).max() < 1.2  # it rounds after each of the two directions


@pytest.mark.parametrize("size", SIZES)
def test_images_are_resized_in_their_own_precision(size, device):
    x = torch.randn(1, 3, 13, 20).to(device, torch.float64)
    got = resize_images(x, size)[0].cpu().numpy()
    np.testing.assert_allclose(got, slow.bicubic(x[0].cpu().numpy(), size), atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_formats_are_resized_in_float32(dtype, device):
    x = torch.randn(1, 3, 8, 8).to(device, dtype)
    got = resize_images(x, (12, 4))
    assert got.dtype == dtype
    assert same(got, resize_images(x.float(), (12, 4)).to(dtype))
    assert resize_images(x, (8, 8)) is x


# ---- the formula


class Shift(nn.Module):
    """Its only feature is the red channel one pixel to the right, so it does not see mirrored what is mirrored."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, (1, 3), padding=(0, 1), bias=False)
        self.act = nn.ReLU()
        self.head = nn.Linear(1, 2)
        with torch.no_grad():
            self.conv.weight.zero_()[0, 0, 0, 0] = 1
            self.head.weight.fill_(1)

    def forward(self, x):
        return self.head(self.act(self.conv(x)).mean((2, 3)))


@pytest.mark.parametrize("method", ["gradcam", "cam", "fully"])
@pytest.mark.parametrize("combine", ["sum", "max", "mean"])
def test_the_mirror_image_is_mirrored_back(method, combine, device):
    x = torch.zeros(1, 3, 1, 4, device=device)
    x[0, 0, 0, 1] = 4  # seen at 2; mirrored, 2 is seen at 3, which is 0 when mirrored back
    explainer = camplug.create(method, Shift().to(device))
    assert explainer.maps(x, 0)[0, 0].tolist() == [0.0, 0.0, 1.0, 0.0]
    assert MultiView(explainer, (1.0,), combine=combine).maps(x, 0)[0, 0].tolist() == [1.0, 0.0, 1.0, 0.0]
    assert MultiView(explainer, (1.0,), flip=False, combine=combine).maps(x, 0)[0, 0].tolist() == [0.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("combine", "normalize", "want"),
    [
        ("sum", None, [1.5, 0.5, 1.0]),
        ("mean", None, [0.75, 0.25, 0.5]),
        ("max", None, [1.0, 0.5, 1.0]),
        ("sum", "max", [1.0, 1 / 3, 2 / 3]),
        ("sum", "minmax", [1.0, 0.0, 0.5]),
    ],
)
def test_fusing_golden(combine, normalize, want, device):
    runs = [([[[1.0, 0.5, 0.0]]], [0.0, 0.0]), ([[[0.5, 0.0, 1.0]]], [0.0, 0.0])]
    views = MultiView(Scripted(runs), (1.0, 2.0), flip=False, combine=combine, normalize=normalize)
    torch.testing.assert_close(views.maps(torch.zeros(1, 3, 1, 3, device=device), 0)[0, 0].cpu(), torch.tensor(want))


@pytest.mark.parametrize("inner", [GradCAM, FullyCAM])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("combine", ["sum", "max", "mean"])
@pytest.mark.parametrize("size", [None, (7, 9)])
def test_equals_the_slow_reference(inner, flip, combine, size, device):
    model, x = model_and_batch(device=device)
    classes, scales = [[3, 0], [1]], (0.5, 1.0, 1.6)
    explainer = inner(model)
    raw = MultiView(explainer, scales, flip, combine, normalize=None).maps(x, classes, size)
    scaled = MultiView(explainer, scales, flip, combine).maps(x, classes, size)
    for image, row, one, other in zip(x.cpu().numpy(), classes, raw, scaled, strict=True):
        want = slow.views(looking(explainer), image, row, scales, flip, combine, size or (12, 14))
        np.testing.assert_allclose(one.cpu().numpy(), want, atol=1e-10)
        np.testing.assert_allclose(other.cpu().numpy(), [slow.scaled(m) for m in want], atol=1e-10)


def test_unnormalized_keeps_the_scale_of_every_view(device):
    model, x = model_and_batch(1, device=device)
    views = MultiView(GradCAM(model), (0.5, 1.0))
    look, image = looking(GradCAM(model, normalize=None)), x[0].cpu().numpy()
    want = slow.views(look, image, [2], (0.5, 1.0), True, "sum", (12, 14))
    np.testing.assert_allclose(views.without_normalization().maps(x, 2).cpu().numpy(), want, atol=1e-12)
    assert views.normalize == views.explainer.normalize == "max"


def test_the_scales_of_the_paper_are_the_default():
    views = MultiView(Channels())
    assert (views.scales, views.flip, views.combine) == ((0.5, 1.0, 1.5, 2.0), True, "sum")
    assert views.name.endswith("(channels)")


# ---- classes


def test_classes_in_every_form_agree(device):
    model, x = model_and_batch(3, device=device)
    views = MultiView(GradCAM(model), (0.5, 1.0))
    want = views.maps(x, [2, 0, 2])
    for form in (torch.tensor([2, 0, 2]), (2, 0, 2), np.array([2, 0, 2])):
        assert same(views.maps(x, form), want)
    for form in ([[2], [0], [2]], torch.tensor([[2], [0], [2]]), [np.array([2]), (0,), torch.tensor([2])]):
        assert same(torch.cat(views.maps(x, form)), want)
    torch.testing.assert_close(views.maps(x, 2)[2], want[2])


def test_lists_with_an_empty_one(device):
    model, x = model_and_batch(3, device=device)
    views = MultiView(GradCAM(model), (0.5, 1.0), combine="mean")
    got = views.maps(x, [[4, 1], [], [0]], (5, 6))
    assert [tuple(m.shape) for m in got] == [(2, 5, 6), (0, 5, 6), (1, 5, 6)]
    for i, k, c in ((0, 0, 4), (0, 1, 1), (2, 0, 0)):
        torch.testing.assert_close(got[i][k], views.maps(x[i : i + 1], c, (5, 6))[0], rtol=0, atol=1e-12)
    assert [len(m) for m in views.maps(x, [[], [], []])] == [0, 0, 0]


@pytest.mark.parametrize("flip", [True, False])
def test_a_callable_sees_every_view(flip, device):
    model, x = model_and_batch(3, device=device)
    views = MultiView(GradCAM(model), (0.5, 1.0), flip)
    asked = []

    def score(output):
        asked.append(len(output))
        return output[:, 2] - torch.arange(len(output), device=device) * output[:, 0]  # another score for every image

    got = views.maps(x, score)
    assert set(asked) == {3}
    assert len(asked) == (4 if flip else 2)
    for i in range(3):
        alone = views.maps(x[i : i + 1], lambda output, i=i: output[:, 2] - i * output[:, 0])
        torch.testing.assert_close(got[i : i + 1], alone, rtol=0, atol=1e-12)
    with pytest.raises(TargetError, match="GradCAM"):
        MultiView(camplug.CAM(model)).maps(x, lambda output: output[:, 0])


class Sides(nn.Module):
    """Class 0 is red on the left, class 1 red on the right: the mirror image is of the other class."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, bias=False)
        nn.init.constant_(self.conv.weight, 1)

    def forward(self, x):
        y, half = self.conv(x), x.shape[3] // 2
        return torch.stack([y[:, 0, :, :half].sum((1, 2)), y[:, 1, :, half:].sum((1, 2))], 1)


def test_the_predicted_class_is_that_of_the_image_as_it_is(device):
    model, x = Sides().to(device), torch.zeros(2, 3, 4, 8, device=device)
    x[0, :, 1, 1] = x[1, :, 2, 6] = 1
    recorder = Recording(GradCAM(model, "conv"))
    result = MultiView(recorder, (0.5, 1.0)).run(x, None)
    assert [classes for _, classes, _ in recorder.seen] == [[[0], [1], [0], [1]]] * 2
    assert result.targets.classes == ((0,), (1,))
    assert result.targets.per_image is False
    assert same(result.maps[0], MultiView(GradCAM(model, "conv"), (0.5, 1.0)).maps(x, [0, 1])[:1])


@pytest.mark.parametrize("classes", [1, [0, 3], [[0], [1, 2]], None, lambda output: output[:, 1]])
def test_the_logits_are_of_the_unmirrored_view_nearest_to_scale_1(classes, device):
    model, x = model_and_batch(device=device)
    with torch.no_grad():
        small, same = model(resize_images(x, (9, 10))), model(x)  # 0.75 * 14 = 10.5
    got = MultiView(GradCAM(model), (0.5, 0.75, 2.0)).run(x, classes)
    torch.testing.assert_close(got.logits, small)
    assert len(got.targets.classes) == len(got.maps) == 2
    torch.testing.assert_close(MultiView(GradCAM(model), (2.0, 1.0)).run(x, classes).logits, same)


def test_an_image_and_its_mirror_image_are_one_batch(device):
    model, x = model_and_batch(3, device=device)
    recorder = Recording(GradCAM(model))
    MultiView(recorder, (0.5, 1.0)).maps(x, [2, 0, 1])
    assert [tuple(seen.shape) for seen, _, _ in recorder.seen] == [(6, 3, 12, 14), (6, 3, 6, 7)]
    for seen, classes, _ in recorder.seen:
        assert same(seen[3:], seen[:3].flip(-1))
        assert classes == [[2], [0], [1]] * 2


# ---- refusals


class Fixed(awkward.FeatureModule):
    """Takes 12 by 14 pixels only."""

    error: type[Exception] = RuntimeError

    def forward(self, x):
        if x.shape[2:] != (12, 14):
            raise self.error("Input is wrong\nsecond line")
        return super().forward(x)


@pytest.mark.parametrize("error", [RuntimeError, AssertionError, ValueError])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("classes", [1, lambda output: output[:, 1]])
def test_a_model_of_one_input_size_is_told_with_the_scale(error, flip, classes):
    model = Fixed().eval()
    model.error = error
    x = torch.randn(2, 3, 12, 14)
    says = (
        r"images of 18x21 pixels \(Input is wrong\), which is the view at scale 1.5; leave that scale out of scales=\.$"
    )
    with pytest.raises(ModelError, match=says):
        MultiView(GradCAM(model), (1.0, 1.5), flip).maps(x, classes)
    assert MultiView(GradCAM(model), (1.0,), flip).maps(x, classes).amax() == 1
    with pytest.raises(error, match="second line"):  # that is no matter of the scale
        MultiView(GradCAM(model), (1.0,), flip).maps(torch.randn(2, 3, 9, 9), classes)


def test_a_transformer_of_one_input_size():
    model = torchvision.models.VisionTransformer(32, 16, 1, 2, 8, 16, num_classes=3).eval()
    with pytest.raises(ModelError, match=r"16x16 pixels .*, which is the view at scale 0\.5; leave that scale out"):
        MultiView(GradCAM(model), (0.5, 1.0)).maps(torch.randn(1, 3, 32, 32), 1)


def test_errors_of_the_inner_explainer_stay_as_they_are(device):
    model, x = model_and_batch(device=device)
    with pytest.raises(TargetError, match="class 7 is outside the model's 5 classes"):
        MultiView(GradCAM(model), (0.5,)).maps(x, 7)
    with pytest.raises(TargetError, match="1 entries in classes for 2 images"):
        MultiView(GradCAM(model)).maps(x, [1])
    with pytest.raises(InputError, match="size="):
        MultiView(GradCAM(model)).maps(x, 1, (0, 3))
    with pytest.raises(InputError, match=r"x\[None\]"):
        MultiView(GradCAM(model)).maps(x[0], 1)


@pytest.mark.parametrize(
    "scales", [(), [], 1.0, "2", None, (0.0,), (1, -1), (math.inf,), (math.nan,), ("1",), (True,), {0.5, 1.0}]
)
def test_bad_scales(scales):
    with pytest.raises(InputError, match=r"^scales=.*; give positive factors, for instance \(0\.5, 1\.0, 1\.5, 2\.0\)"):
        MultiView(Channels(), scales)


def test_other_bad_options():
    with pytest.raises(InputError, match=r"^combine='median'; allowed are 'sum', 'max', 'mean'"):
        MultiView(Channels(), combine="median")
    with pytest.raises(InputError, match=r"^normalize='sum'; allowed are .max., .minmax. and None"):
        MultiView(Channels(), normalize="sum")
    with pytest.raises(InputError, match=r"^MultiView wraps an explainer, for instance .*; got FeatureModule\.$"):
        MultiView(awkward.FeatureModule())
