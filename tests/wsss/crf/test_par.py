"""Pixel-adaptive refinement against a loop over pixels in numpy; edges, scales, sizes, types, memory, bad input."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import simulated
import torch
import torch.nn.functional as F
from PIL import Image

from camplug.errors import InputError
from camplug.wsss.crf.par import pixel_adaptive_refinement

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (10, 12, 3)).astype(np.uint8)
MAPS = RNG.random((3, 10, 12))
ALL = (1, 2, 4, 8, 12, 24)


def softmax(values):
    e = np.exp(values - values.max())
    return e / e.sum()


def slow(colours, maps, dilations=ALL, iterations=10, w1=0.3, w2=0.01):
    """PAR as published, pixel by pixel, in float64; colours [H,W,C]. Weights sum to 1 + w2."""
    h, w = maps.shape[1:]
    offsets = [(a * d, b * d) for d in dilations for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]
    far = np.array([math.hypot(*o) for o in offsets])
    near = softmax(-((far / (far.std(ddof=1) + 1e-8) / w1) ** 2))
    weights, places = {}, {}
    for y in range(h):
        for x in range(w):
            places[y, x] = [(min(max(y + a, 0), h - 1), min(max(x + b, 0), w - 1)) for a, b in offsets]
            around = np.array([colours[at] for at in places[y, x]], np.float64)
            spread = around.std(0, ddof=1) + 1e-8
            exponent = -((np.abs(around - colours[y, x]) / spread / w1) ** 2)
            weights[y, x] = softmax(exponent.mean(1)) + w2 * near
    for _ in range(iterations):
        new = np.empty_like(maps, np.float64)
        for at, around in places.items():
            new[(slice(None), *at)] = sum(
                wt * maps[(slice(None), *p)] for wt, p in zip(weights[at], around, strict=True)
            )
        maps = new
    return maps


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dilations": (1,), "iterations": 1},
        {"dilations": (3, 2), "iterations": 3, "w1": 0.7, "w2": 0.5},
        {"w2": 0, "iterations": 4},
        {"iterations": 0},
    ],
    ids=str,
)
def test_equals_the_loop_but_for_the_sum_of_weights(options, device):
    steps, w2 = options.get("iterations", 10), options.get("w2", 0.01)
    want = slow(PHOTO.astype(float), MAPS, **options) / (1 + w2) ** steps
    np.testing.assert_allclose(pixel_adaptive_refinement(PHOTO, MAPS, scale=1, **options), want, rtol=0, atol=1e-9)
    single = pixel_adaptive_refinement(PHOTO, MAPS.astype(np.float32), scale=1, **options)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, want, rtol=0, atol=1e-5)
    for dtype, close in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        there = pixel_adaptive_refinement(PHOTO, torch.from_numpy(MAPS).to(device, dtype), scale=1, **options)
        assert (there.device.type, there.dtype) == (device.type, dtype)
        np.testing.assert_allclose(there.cpu().numpy(), want, rtol=0, atol=close)


def test_smooth_photograph_equals_the_loop():
    y, x = np.mgrid[:10, :12]
    colours = np.stack([y / 10, x / 12, np.sin(x * y / 9)], 2)
    got = pixel_adaptive_refinement(torch.from_numpy(colours.transpose(2, 0, 1)), MAPS, scale=1)
    np.testing.assert_allclose(got, slow(colours, MAPS) / 1.01**10, rtol=0, atol=1e-6)


def test_half_the_scale_is_bilinear_there_and_back(device):
    def half(x, size):
        return F.interpolate(torch.as_tensor(x)[None], size, mode="bilinear", align_corners=False)[0]

    for photo, maps in ((PHOTO, MAPS), (PHOTO[:9, :11], MAPS[:, :9, :11])):
        h, w = photo.shape[:2]
        small = (h // 2, w // 2)  # as in ToCo
        colours = half(photo.transpose(2, 0, 1).astype(float), small).permute(1, 2, 0).numpy()
        want = half(slow(colours, half(maps, small).numpy()) / 1.01**10, (h, w))
        np.testing.assert_allclose(pixel_adaptive_refinement(photo, maps, scale=0.5), want, rtol=0, atol=1e-6)
        there = pixel_adaptive_refinement(photo, torch.from_numpy(maps).to(device), scale=0.5)
        np.testing.assert_allclose(there.cpu().numpy(), want, rtol=0, atol=1e-6)
    assert inspect.signature(pixel_adaptive_refinement).parameters["scale"].default == 0.5
    np.testing.assert_array_equal(
        pixel_adaptive_refinement(PHOTO, MAPS), pixel_adaptive_refinement(PHOTO, MAPS, scale=0.5)
    )


@pytest.mark.parametrize("scale", [0.5, 1])
def test_constants_stay_and_values_stay_in_their_range(scale):
    maps = np.concatenate([np.full((1, 10, 12), 0.7), (MAPS > 0.5).astype(float)])
    refined = pixel_adaptive_refinement(PHOTO, maps, scale=scale)
    np.testing.assert_allclose(refined[0], 0.7, atol=1e-12)
    assert refined.min() >= 0
    assert refined.max() <= 1 + 1e-12


def test_colour_edges_stop_the_flow_and_even_colour_does_not():
    edge = np.full((16, 32, 3), (200, 30, 30), np.uint8)
    edge[:, 16:] = (30, 30, 200)
    seed = np.zeros((1, 16, 32))
    seed[0, 6:10, 6:10] = 1
    stopped = pixel_adaptive_refinement(edge, seed, scale=1, w2=0)
    assert stopped[0, :, 16:].max() < 1e-9
    assert stopped[0, :, :16].min() > 0.02  # the seed is 1/16 of its half
    through = pixel_adaptive_refinement(np.full_like(edge, 90), seed, scale=1, w2=0)
    assert through[0, :, 16:].max() > 0.01


def test_even_colour_gives_the_mean_of_the_neighbours():
    """Rounding in a resized even photograph is no colour either, and a lone other pixel is refilled from around it."""
    photo = np.full((9, 11, 3), 77, np.uint8)
    photo[4, 5] = 200
    one = np.zeros((1, 9, 11))
    one[0, 3, 4] = 1
    step = {"dilations": (1,), "iterations": 1, "w2": 0}
    assert pixel_adaptive_refinement(photo, one, scale=1, **step)[0, 4, 5] == pytest.approx(1 / 8, abs=1e-12)
    noisy = 0.3 + 1e-7 * torch.randn(3, 9, 11)
    got = pixel_adaptive_refinement(noisy, one, scale=1, **step)[0]
    np.testing.assert_allclose(got[2:5, 3:6], np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]]) / 8, atol=1e-12)


def test_a_pixel_unlike_all_its_neighbours():
    """Hundreds of deviations away, all weights of a plain softmax would vanish."""
    photo = (PHOTO % 2) + np.uint8(100)
    photo[5, 6] = 255
    refined = pixel_adaptive_refinement(photo, MAPS.astype(np.float32), scale=1)
    np.testing.assert_allclose(refined, slow(photo.astype(float), MAPS) / 1.01**10, atol=1e-5)


def test_a_channel_equal_in_all_neighbours_has_no_say():
    photo = torch.rand(3, 9, 11, dtype=torch.float64)
    photo[2] = 0.5
    photo[2, 4, 5] = 0.9  # differs from all around it by the same
    lone = photo.clone()
    lone[2] = 0.5
    maps = torch.rand(2, 9, 11, dtype=torch.float64)
    step = {"dilations": (1,), "iterations": 1, "scale": 1}
    got, want = (pixel_adaptive_refinement(p, maps, **step)[:, 4, 5] for p in (photo, lone))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


def test_the_scale_of_colours_does_not_matter():
    bytes_ = pixel_adaptive_refinement(PHOTO, MAPS)
    planes = torch.from_numpy(PHOTO.transpose(2, 0, 1) / 255.0)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for other in (planes, planes * 1e-20, planes * 1e20, (planes - mean.view(3, 1, 1)) / std.view(3, 1, 1)):
        np.testing.assert_allclose(pixel_adaptive_refinement(other, MAPS), bytes_, atol=1e-6)


def test_every_kind_of_photograph(tmp_path):
    want = pixel_adaptive_refinement(PHOTO, MAPS)
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    tensor = torch.from_numpy(PHOTO)
    for photo in (
        tmp_path / "photo.png",
        Image.fromarray(PHOTO),
        tensor,
        tensor.permute(2, 0, 1),
        PHOTO[:, ::-1][:, ::-1],
    ):
        np.testing.assert_array_equal(pixel_adaptive_refinement(photo, MAPS), want)
    grey = PHOTO[:, :, 0]
    three = np.stack([grey] * 3, 2)
    np.testing.assert_array_equal(pixel_adaptive_refinement(grey, MAPS), pixel_adaptive_refinement(three, MAPS))


def test_kinds_of_maps(device):
    photo = PHOTO.copy()
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        maps = torch.from_numpy(MAPS).to(device, dtype).requires_grad_()
        before = maps.detach().clone()
        refined = pixel_adaptive_refinement(photo, maps)
        assert refined.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert not refined.requires_grad
        assert refined.device == maps.device
        assert torch.equal(maps, before)
        assert np.array_equal(photo, PHOTO)
    kept = torch.from_numpy(MAPS).to(device)
    same = pixel_adaptive_refinement(photo, kept, iterations=0, scale=1)
    assert torch.equal(same, kept)
    kept += 1
    assert not torch.equal(same, kept)
    swapped = MAPS.transpose(0, 2, 1)
    turned = pixel_adaptive_refinement(photo.transpose(1, 0, 2), swapped, scale=1)  # strided views
    np.testing.assert_allclose(turned.transpose(0, 2, 1), pixel_adaptive_refinement(photo, MAPS, scale=1), atol=1e-9)


def test_planes_do_not_mix():
    together = pixel_adaptive_refinement(PHOTO, MAPS)
    for alone, plane in zip(MAPS, together, strict=True):
        np.testing.assert_allclose(pixel_adaptive_refinement(PHOTO, alone[None])[0], plane, atol=1e-12)


@pytest.mark.parametrize("size", [(1, 9), (9, 1), (1, 1), (2, 3)])
@pytest.mark.parametrize("scale", [0.5, 1])
def test_the_smallest_images(size, scale):
    photo, maps = RNG.integers(0, 256, (*size, 3)).astype(np.uint8), RNG.random((2, *size))
    refined = pixel_adaptive_refinement(photo, maps, scale=scale)
    assert refined.shape == maps.shape
    if scale == 1:
        np.testing.assert_allclose(refined, slow(photo.astype(float), maps) / 1.01**10, atol=1e-6)


def test_no_maps(device):
    assert pixel_adaptive_refinement(PHOTO, np.zeros((0, 10, 12), np.float32)).shape == (0, 10, 12)
    assert pixel_adaptive_refinement(PHOTO, torch.zeros(0, 10, 12).to(device)).shape == (0, 10, 12)


def test_other_numbers_of_channels():
    for channels in (1, 5):
        photo = torch.rand(channels, 10, 12, dtype=torch.float64)
        want = slow(photo.permute(1, 2, 0).numpy(), MAPS, iterations=2) / 1.01**2
        np.testing.assert_allclose(pixel_adaptive_refinement(photo, MAPS, iterations=2, scale=1), want, atol=1e-6)


def test_photographs_of_a_device(device):
    """A photograph follows its maps, wherever it comes from."""
    want = pixel_adaptive_refinement(PHOTO, MAPS)
    maps, planes = torch.from_numpy(MAPS), torch.from_numpy(PHOTO.transpose(2, 0, 1) / 255.0)
    for photo in (torch.from_numpy(PHOTO).to(device), planes.to(device), planes):
        for where in (device, torch.device("cpu")):
            refined = pixel_adaptive_refinement(photo, maps.to(where))
            assert refined.device.type == where.type
            np.testing.assert_allclose(refined.cpu().numpy(), want, atol=1e-6)
        np.testing.assert_allclose(pixel_adaptive_refinement(photo, MAPS), want, atol=1e-6)


def test_only_the_check_of_the_maps_waits_for_the_device(device):
    maps = torch.from_numpy(MAPS).to(device)
    with simulated.count_waits() as waits:
        pixel_adaptive_refinement(PHOTO, maps)
    assert waits.total() == (device.type == simulated.NAME)


@pytest.mark.parametrize(
    ("photo", "maps", "options", "said"),
    [
        (PHOTO[:9], MAPS, {}, r"the photograph is 9x12 and the maps are 10x12.*resize"),
        (PHOTO, MAPS[0], {}, r"the maps are float64 \[10, 12\]; give floats \[K,H,W\]"),
        (PHOTO, MAPS > 0.5, {}, r"the maps are bool"),
        (PHOTO, "maps", {}, r"give floats \[K,H,W\]"),
        (PHOTO, MAPS[:, :0], {}, r"\[3, 0, 12\]; give floats"),
        (PHOTO, np.where(MAPS > 0.9, np.nan, MAPS), {}, "hold nan or infinity"),
        (torch.full((3, 10, 12), math.inf), MAPS, {}, "photograph holds nan or infinity"),
        (PHOTO / 255, MAPS, {}, "must be uint8"),
        ("no.jpg", MAPS, {}, "there is no file"),
        (torch.zeros(10, 12), MAPS, {}, "must be uint8"),
        (PHOTO, MAPS, {"dilations": ()}, r"dilations=\(\); give whole numbers"),
        (PHOTO, MAPS, {"dilations": (1, 0)}, "each at least 1"),
        (PHOTO, MAPS, {"dilations": (1.5,)}, "whole numbers of pixels"),
        (PHOTO, MAPS, {"dilations": 3}, "whole numbers of pixels"),
        (PHOTO, MAPS, {"iterations": -1}, "iterations=-1; give"),
        (PHOTO, MAPS, {"iterations": 2.5}, "iterations=2.5; give"),
        (PHOTO, MAPS, {"w1": 0}, "w1=0; give"),
        (PHOTO, MAPS, {"w2": math.nan}, "w2=nan; give"),
        (PHOTO, MAPS, {"scale": 2}, "scale=2; give"),
        (PHOTO, MAPS, {"scale": 0}, "scale=0; give"),
    ],
)
def test_bad_input(photo, maps, options, said):
    with pytest.raises(InputError, match=said):
        pixel_adaptive_refinement(photo, maps, **options)
