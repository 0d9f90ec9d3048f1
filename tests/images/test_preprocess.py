"""Values and sizes of what the model reads of a photograph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as T

from camplug.errors import InputError
from camplug.images.geometry import Box, find_box
from camplug.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Custom, Preprocess


def plain(width, height, colour=(255, 51, 0)):
    return Image.new("RGB", (width, height), colour)


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


def test_custom_hands_on_the_users_own_tensor():
    transform = T.Compose([T.Resize(64), T.CenterCrop(56), T.ToTensor(), T.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
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


def test_other_numbers():
    made = Preprocess((8, 8), (0.1, 0.2, 0.3), (0.5, 0.5, 0.5), long_side=9)
    assert made.change(None, 0.25, None) == Preprocess((8, 8), (0.1, 0.2, 0.3), (0.25, 0.25, 0.25))
    assert made.change((0.3, 0.2, 0.1), None, 64) == Preprocess((8, 8), (0.3, 0.2, 0.1), (0.5, 0.5, 0.5), long_side=64)
    with pytest.raises(InputError, match="images of 8x8 pixels only"):
        Preprocess((8, 8), keep_aspect=False).change(None, None, 64)
