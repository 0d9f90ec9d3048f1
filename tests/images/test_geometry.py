"""The part of a photograph that somebody's own transform shows."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as T
from torchvision.transforms import v2

from camplug.images.geometry import Box, find_box
from camplug.images.preprocess import IMAGENET_MEAN, IMAGENET_STD


def quiet_box(transform, size):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return find_box(transform, size)


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
