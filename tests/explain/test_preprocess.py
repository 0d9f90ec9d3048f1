"""What the model reads of a photograph, and which part of the photograph that is."""

from __future__ import annotations

import random
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision import transforms as T
from torchvision.transforms import v2

from camplug.errors import InputError
from camplug.explain import preprocess as module
from camplug.explain.geometry import Box, find_box
from camplug.explain.preprocess import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Custom,
    Preprocess,
    find_channels,
    find_preprocess,
)


def plain(width, height, colour=(255, 51, 0)):
    return Image.new("RGB", (width, height), colour)


def quiet_box(transform, size):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return find_box(transform, size)


# ---- Preprocess


def test_values_are_scaled_and_normalised():
    x, box = Preprocess((8, 8), mean=(0.5, 0.1, 0.2), std=(0.5, 0.2, 0.4))(plain(8, 8))
    assert x.dtype == torch.float32
    assert x.shape == (3, 8, 8)
    expected = torch.tensor([(1 - 0.5) / 0.5, (0.2 - 0.1) / 0.2, (0 - 0.2) / 0.4])
    torch.testing.assert_close(x, expected[:, None, None].expand(3, 8, 8))
    assert box == Box(0, 0, 8, 8)


@pytest.mark.parametrize(
    "photo,size,shape",
    [
        ((120, 80), (40, 40), (40, 60)),
        ((80, 120), (40, 40), (60, 40)),
        ((20, 10), (40, 40), (40, 80)),  # small photographs grow
        ((100, 100), (32, 64), (64, 64)),  # the shorter side of each is reached
        ((4000, 10), (40, 40), (40, 160)),  # a panorama costs no more than four squares
        ((10, 4000), (40, 40), (160, 40)),
        ((2, 5000), (32, 32), (128, 32)),
    ],
)
def test_the_shape_is_kept_without_cropping(photo, size, shape):
    x, box = Preprocess(size)(plain(*photo))
    assert tuple(x.shape[1:]) == shape
    assert box == Box(0, 0, *photo)


@pytest.mark.parametrize(
    "photo,long_side,shape",
    [
        ((120, 80), 60, (40, 60)),
        ((80, 120), 60, (60, 40)),
        ((20, 10), 60, (30, 60)),  # small photographs grow
        ((500, 333), 320, (213, 320)),
        ((4000, 10), 320, (1, 320)),  # never less than a pixel, and no ratio is too long
        ((50, 50), 1, (1, 1)),
    ],
)
def test_the_longer_side_is_as_long_as_wanted(photo, long_side, shape):
    x, box = Preprocess((40, 40), long_side=long_side)(plain(*photo))
    assert tuple(x.shape[1:]) == shape
    assert box == Box(0, 0, *photo)


def test_a_long_side_resizes_as_any_other_size():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    x, _ = Preprocess((9, 9), (0, 0, 0), (1, 1, 1), "bicubic", long_side=20)(Image.fromarray(pixels))
    expected = np.asarray(Image.fromarray(pixels).resize((20, 15), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal((x * 255).round().byte().permute(1, 2, 0).numpy(), expected)


def test_bad_long_sides():
    for side in (0, -5):
        with pytest.raises(InputError, match=f"^a long side of {side} pixels is not possible; give at least 1"):
            Preprocess(long_side=side)
    with pytest.raises(InputError, match=r"^the model takes images of 30x50 pixels only; leave the long side out"):
        Preprocess((30, 50), keep_aspect=False, long_side=64)


def test_squeezing_keeps_everything_in_view():
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, 60:] = 255
    x, box = Preprocess((20, 20), mean=(0, 0, 0), std=(1, 1, 1), keep_aspect=False)(Image.fromarray(pixels))
    assert tuple(x.shape) == (3, 20, 20)
    assert box == Box(0, 0, 80, 40)
    assert (x[:, :, :14] == 0).all()
    assert (x[:, :, 16:] == 1).all()  # the right quarter stays the right quarter


def test_interpolation_is_what_it_says():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    photo = Image.fromarray(pixels)
    for how in ("nearest", "bilinear", "bicubic", "lanczos"):
        x, _ = Preprocess((27, 27), (0, 0, 0), (1, 1, 1), how)(photo)
        expected = np.asarray(photo.resize((27, 27), Image.Resampling[how.upper()]))
        np.testing.assert_array_equal((x * 255).round().byte().permute(1, 2, 0).numpy(), expected)
    x, _ = Preprocess((27, 27), (0, 0, 0), (1, 1, 1), "random")(photo)  # as some timm configurations say
    expected = np.asarray(photo.resize((27, 27), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal((x * 255).round().byte().permute(1, 2, 0).numpy(), expected)


# ---- geometry of somebody's own transform

NORM = T.Normalize(IMAGENET_MEAN, IMAGENET_STD)
SHOWS = {
    "resize and centre crop": ([T.Resize(64), T.CenterCrop(56), T.ToTensor(), NORM], (120, 80), (25, 5, 95, 75)),
    "the same in v2": (
        [v2.Resize(64), v2.CenterCrop(56), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)],
        (120, 80),
        (25, 5, 95, 75),
    ),
    "crop, then resize": ([T.CenterCrop(60), T.Resize(32), T.ToTensor()], (120, 80), (30, 10, 90, 70)),
    "squeeze": ([T.Resize((40, 40)), T.ToTensor()], (300, 100), (0, 0, 300, 100)),
    "nothing": ([T.ToTensor()], (50, 30), (0, 0, 50, 30)),
    "corner": ([T.Lambda(lambda p: p.crop((0, 10, 50, 60))), T.ToTensor()], (100, 80), (0, 10, 50, 60)),
    "grey": ([T.Grayscale(1), T.Resize(64), T.CenterCrop(56), T.ToTensor()], (80, 80), (5, 5, 75, 75)),
    "inverted, 0 to 255, BGR": (
        [T.Resize(64), T.CenterCrop(56), T.ToTensor(), T.Lambda(lambda x: 255 - 255 * x[[2, 1, 0]])],
        (80, 80),
        (5, 5, 75, 75),
    ),
    "a large photograph": ([T.Resize(64), T.CenterCrop(56), T.ToTensor(), NORM], (3000, 2000), (625, 125, 2375, 1875)),
}


@pytest.mark.parametrize("case", SHOWS)
def test_the_box_of_resizing_and_cropping_is_found(case):
    steps, (width, height), expected = SHOWS[case]
    box = quiet_box(T.Compose(steps), (width, height))
    # half a pixel of the resized picture, and what eight bits can tell of a long ramp
    tolerance = max(1.0, 0.003 * max(width, height))
    assert np.abs(np.subtract(box, expected)).max() <= tolerance, box


class Letterbox:
    """The photograph in its own shape in the middle of a square, the rest filled; resize before padding or after."""

    def __init__(self, side, fill=114, first="resize"):
        self.side, self.fill, self.first = side, fill, first

    def __call__(self, photo):
        width, height = photo.size
        fill = (self.fill,) * 3
        if self.first == "pad":
            square = Image.new("RGB", (max(photo.size),) * 2, fill)
            square.paste(photo, ((square.width - width) // 2, (square.height - height) // 2))
            return T.ToTensor()(square.resize((self.side, self.side), Image.Resampling.BILINEAR))
        scale = self.side / max(photo.size)
        small = photo.resize((round(width * scale), round(height * scale)), Image.Resampling.BILINEAR)
        square = Image.new("RGB", (self.side, self.side), fill)
        square.paste(small, ((self.side - small.width) // 2, (self.side - small.height) // 2))
        return T.ToTensor()(square)


PADDED = {
    "letterbox": (Letterbox(64), (120, 80), (0, -10 * 80 / 43, 120, 54 * 80 / 43)),  # 43 of 64 rows, from the 10th
    "letterbox of a tall one": (Letterbox(64, 0), (80, 160), (-40, 0, 120, 160)),
    "padded white, then resized": (Letterbox(50, 255, "pad"), (120, 80), (0, -20, 120, 100)),
    "padded by an odd number, then resized": (Letterbox(48, 114, "pad"), (120, 75), (0, -22, 120, 98)),
    "all around": (T.Compose([T.Resize(40), T.Pad(4), T.ToTensor()]), (100, 80), (-8, -8, 108, 88)),
    "normalised": (T.Compose([T.Resize(40), T.Pad(4, 128), T.ToTensor(), NORM]), (100, 80), (-8, -8, 108, 88)),
    "one side": (T.Compose([T.Pad((0, 6, 0, 0)), T.ToTensor()]), (100, 80), (0, -6, 100, 80)),
    "a crop larger than the photograph": (T.Compose([T.CenterCrop(90), T.ToTensor()]), (60, 50), (-15, -20, 75, 70)),
    "cropped across, padded down": (T.Compose([T.CenterCrop(80), T.ToTensor()]), (120, 60), (20, -10, 100, 70)),
    "a large photograph": (Letterbox(224), (3000, 2000), (0, -37 * 2000 / 149, 3000, 187 * 2000 / 149)),
}


@pytest.mark.parametrize("case", PADDED)
def test_padding_is_found(case):
    transform, size, expected = PADDED[case]
    box = quiet_box(transform, size)
    tolerance = 1.0 if "cropped" in case else 1e-9
    tolerance = 0.3 if "then resized" in case else tolerance  # of a photograph's pixel; borders are mixed with padding
    assert np.abs(np.subtract(box, expected)).max() <= tolerance, box


def standardised(picture):
    x = T.ToTensor()(picture)
    return (x - x.mean()) / x.std()


def per_channel(picture):
    pixels = np.asarray(picture) / 255
    pixels = (pixels - pixels.mean((0, 1))) / pixels.std((0, 1))
    return torch.from_numpy(pixels).permute(2, 0, 1).float()


@pytest.mark.parametrize("values", [standardised, per_channel])
@pytest.mark.parametrize(
    "steps,size,expected",
    [
        ([], (120, 80), (0, 0, 120, 80)),
        ([T.Resize((40, 40))], (300, 200), (0, 0, 300, 200)),
        ([T.Resize(64), T.CenterCrop(56)], (120, 80), (25, 5, 95, 75)),
        ([T.Lambda(lambda p: p.crop((0, 10, 50, 60)))], (100, 80), (0, 10, 50, 60)),
    ],
    ids=["nothing", "squeeze", "resize and crop", "corner"],
)
def test_standardising_each_picture_hides_no_geometry(values, steps, size, expected):
    box = quiet_box(T.Compose([*steps, values]), size)
    assert np.abs(np.subtract(box, expected)).max() <= 1.5, box


@pytest.mark.parametrize(
    "step", [T.RandomRotation((20, 20)), T.Lambda(lambda p: p.transpose(0)), T.Lambda(lambda p: p.rotate(90)),
             T.Pad(8, padding_mode="reflect"), T.Lambda(lambda p: p.point(lambda v: v**3 // 65025)), T.Pad((30, 0))],
    ids=["rotates", "mirrors", "turns", "reflects", "bends", "pads"],
)  # fmt: skip
def test_standardising_each_picture_does_not_hide_the_rest(step):
    with pytest.warns(UserWarning, match="does more than resize, crop and pad"):
        assert find_box(T.Compose([step, standardised]), (100, 80)) == Box(0, 0, 100, 80)


def test_a_box_within_a_percent_is_the_whole_photograph():
    assert quiet_box(T.Compose([T.CenterCrop((98, 198)), T.ToTensor()]), (200, 100)) == Box(0, 0, 200, 100)


DOES_MORE = {
    "rotates": [T.Resize((48, 48)), T.RandomRotation((30, 30)), T.ToTensor()],
    "turns by 90": [T.Resize((48, 48)), T.Lambda(lambda p: p.rotate(90)), T.ToTensor()],
    "mirrors": [T.Lambda(lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT)), T.ToTensor()],
    "upside down": [T.Lambda(lambda p: p.transpose(Image.Transpose.FLIP_TOP_BOTTOM)), T.ToTensor()],
    "reflects": [T.Pad(8, padding_mode="reflect"), T.ToTensor()],
    "crops at random": [T.RandomResizedCrop(48), T.ToTensor()],
    "mirrors at random": [T.Resize((48, 48)), T.RandomHorizontalFlip(), T.ToTensor()],
    "draws from random": [T.Lambda(lambda p: p if random.random() < 2 else None), T.ToTensor()],
    "draws from numpy": [T.Lambda(lambda p: p if np.random.rand() < 2 else None), T.ToTensor()],
    "bends the values": [T.ToTensor(), T.Lambda(lambda x: x**3)],
}


@pytest.mark.parametrize("case", DOES_MORE)
@pytest.mark.parametrize("size", [(100, 80), (400, 401)])
def test_a_transform_that_does_more_is_told_of(case, size):
    with pytest.warns(UserWarning, match="does more than resize, crop and pad"):
        assert find_box(T.Compose(DOES_MORE[case]), size) == Box(0, 0, *size)


def test_custom_hands_on_the_users_own_tensor():
    transform = T.Compose([T.Resize(64), T.CenterCrop(56), T.ToTensor(), NORM])
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8))
    x, box = Custom(transform)(photo)
    torch.testing.assert_close(x, transform(photo))
    assert box == find_box(transform, photo.size)


@pytest.mark.parametrize(
    "transform,got",
    [
        (lambda p: p, "Image"),
        (np.asarray, "ndarray"),
        (T.PILToTensor(), r"torch\.uint8 \[3, 8, 9\]"),
        (lambda p: T.ToTensor()(p)[None], r"torch\.float32 \[1, 3, 8, 9\]"),
    ],
)
def test_custom_refuses_what_is_no_float_image(transform, got):
    with pytest.raises(
        InputError, match=r"preprocess= must turn a PIL image into a float tensor \[3,H,W\]; it gave " + got
    ):
        Custom(transform)(plain(9, 8))


# ---- what a model wants


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def test_timm_configuration():
    model = timm.create_model("test_resnet", pretrained=False)
    cfg = model.pretrained_cfg
    got = find_preprocess(model)
    assert got == Preprocess(
        tuple(cfg["input_size"][1:]), tuple(cfg["mean"]), tuple(cfg["std"]), cfg["interpolation"], keep_aspect=True
    )
    assert got.size == (160, 160)


def test_transformers_of_one_input_size_are_squeezed():
    model = timm.create_model("test_vit", pretrained=False)
    got = find_preprocess(model)
    assert got.keep_aspect is False
    x, _ = got(plain(300, 100))
    assert tuple(x.shape[1:]) == tuple(model.pretrained_cfg["input_size"][1:])


def test_fixed_input_size_in_the_configuration_of_a_convolutional_model():
    model = Net()
    model.pretrained_cfg = {"input_size": (3, 30, 50), "fixed_input_size": True, "mean": (0, 0, 0), "std": (1, 1, 1)}
    assert find_preprocess(model) == Preprocess((30, 50), (0, 0, 0), (1, 1, 1), "bilinear", keep_aspect=False)


def test_torchvision_weights_on_the_model_or_as_transform():
    weights = torchvision.models.EfficientNet_B0_Weights.IMAGENET1K_V1  # bicubic, unlike the default
    expected = Preprocess((224, 224), IMAGENET_MEAN, IMAGENET_STD, "bicubic", keep_aspect=True)
    model = Net()
    assert find_preprocess(model, weights.transforms()) == expected
    model.weights = weights
    assert find_preprocess(model) == expected
    del model.weights
    model.transforms = weights.transforms()
    assert find_preprocess(model) == expected


def test_a_preset_for_a_transformer_is_squeezed():
    model = torchvision.models.VisionTransformer(32, 16, 1, 2, 8, 16, num_classes=3)
    model.weights = torchvision.models.ViT_B_16_Weights.IMAGENET1K_V1
    assert find_preprocess(model) == Preprocess((224, 224), IMAGENET_MEAN, IMAGENET_STD, "bilinear", keep_aspect=False)


def test_a_given_transform_comes_first():
    model = timm.create_model("test_resnet", pretrained=False)
    own = Preprocess((31, 33))
    assert find_preprocess(model, own) is own
    transform = T.ToTensor()
    assert find_preprocess(model, transform) == Custom(transform)
    with pytest.raises(InputError, match="preprocess= must be callable on a PIL image; got int"):
        find_preprocess(model, 3)


def test_defaults_are_told_of_once(monkeypatch):
    monkeypatch.setattr(module, "_warned", False)
    with pytest.warns(
        UserWarning, match=r"ImageNet's mean and standard deviation and 224 pixels are assumed.*preprocess="
    ):
        got = find_preprocess(Net())
    assert got == Preprocess((224, 224), IMAGENET_MEAN, IMAGENET_STD, "bilinear", keep_aspect=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_preprocess(Net()) == got


def test_nothing_is_told_where_the_model_knows(monkeypatch):
    monkeypatch.setattr(module, "_warned", False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find_preprocess(timm.create_model("test_resnet", pretrained=False))
        find_preprocess(Net(), T.ToTensor())
    assert module._warned is False


@pytest.mark.filterwarnings("ignore:the model does not say")
def test_image_size_of_the_model():
    model = torchvision.models.VisionTransformer(32, 16, 1, 2, 8, 16, num_classes=3)
    assert find_preprocess(model) == Preprocess((32, 32), keep_aspect=False)


@pytest.mark.filterwarnings("ignore:the model does not say")
def test_image_size_in_the_configuration():
    model = Net()
    model.config = SimpleNamespace(image_size=96)
    assert find_preprocess(model).size == (96, 96)
    model.config = SimpleNamespace(image_size=[64, 96])
    assert find_preprocess(model).size == (64, 96)
    own = timm.create_model("test_vit", pretrained=False, img_size=96)  # its configuration says 160
    assert find_preprocess(own).size == (96, 96)


@pytest.mark.filterwarnings("ignore:the model does not say")
def test_how_many_channels_a_model_reads():
    grey = nn.Sequential(nn.Conv2d(1, 4, 3))
    assert (find_channels(grey), find_channels(Net()), find_channels(nn.Linear(3, 2))) == (1, 3, None)
    later = nn.Sequential(nn.Conv2d(8, 4, 3), nn.Conv2d(3, 8, 3))
    assert find_channels(later) == 3
    assert find_preprocess(grey).channels == 1
    assert find_preprocess(grey, Preprocess((40, 40))) == Preprocess((40, 40), channels=1)
    timms = timm.create_model("test_resnet", pretrained=False, in_chans=1)
    assert find_preprocess(timms).channels == 1
    assert tuple(find_preprocess(timms)(plain(50, 40))[0].shape[:1]) == (1,)
    told = nn.Linear(3, 2)
    told.config = SimpleNamespace(num_channels=4)
    assert find_channels(told) == 4


def test_a_photograph_in_grey():
    x, box = Preprocess((8, 8), mean=(0.5,), std=(0.25,), channels=1)(plain(16, 8))
    luma = round(255 * 0.299 + 51 * 0.587) / 255
    torch.testing.assert_close(x, torch.full((1, 8, 16), (luma - 0.5) / 0.25))
    assert box == Box(0, 0, 16, 8)
    y, _ = Preprocess((8, 8), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), channels=1)(plain(16, 8))
    torch.testing.assert_close(y, x)
    with pytest.raises(InputError, match="a mean of 2 numbers and a standard deviation of 3 do not fit 1 channels"):
        Preprocess(mean=(0.1, 0.2), channels=1)
    with pytest.raises(InputError, match=r"the model reads 5 channels, and a photograph has 3 colours; give a float"):
        Preprocess(channels=5)(plain(16, 8))
