"""The adjusted views: grey levels by hand, what saturates, and what is refused."""

from __future__ import annotations

import warnings

import pytest
import torch
from moved import everywhere

from camplug.errors import InputError
from camplug.wsss.atm import DECREASED, ENHANCED, GreyChange, adjust_grey, compute_saturation, warn_if_saturated

_on_the_device = everywhere("adjust_grey", "compute_saturation", "warn_if_saturated")

PRINTED = GreyChange(1.5, 300)


def grey(*levels, dtype=torch.float32):
    return torch.tensor([[levels]], dtype=dtype).expand(3, 1, len(levels))


def test_golden_grey_levels():
    """1.5 * 127 + 30 = 220.5, to the even 220; 0.8 * 127 + 15 = 116.6; 1.5 * 151 + 30 = 256.5 is clipped."""
    assert adjust_grey(grey(0, 127, 150, 151, 255), ENHANCED)[0, 0].tolist() == [30, 220, 255, 255, 255]
    assert adjust_grey(grey(0, 127, 150, 151, 255), DECREASED)[0, 0].tolist() == [15, 117, 135, 136, 219]
    assert adjust_grey(grey(0, 20, 30), GreyChange(1, -25))[2, 0].tolist() == [0, 0, 5]


@pytest.mark.parametrize("change", [ENHANCED, DECREASED, GreyChange(2.5, -100)])
def test_views_equal_a_loop_over_bytes(change):
    pixels = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    expected = [float(min(255, max(0, round(change.alpha * g + change.beta)))) for g in pixels.flatten().tolist()]
    for given in (pixels, pixels.float(), pixels.double(), pixels.bfloat16()):
        view = adjust_grey(given, change)
        assert view.dtype == (torch.float64 if given.dtype == torch.float64 else torch.float32)
        assert view.shape == pixels.shape
        assert view.flatten().tolist() == expected


def test_contrast_of_the_views():
    pixels = torch.randint(60, 140, (3, 16, 16), dtype=torch.uint8)
    plain = pixels.float()
    assert adjust_grey(pixels, ENHANCED).std() > plain.std() > adjust_grey(pixels, DECREASED).std()
    assert adjust_grey(pixels, ENHANCED).mean() > plain.mean()


def test_leading_shapes_do_not_matter():
    pixels = torch.randint(0, 256, (2, 5, 3, 4, 4), dtype=torch.uint8)
    assert torch.equal(adjust_grey(pixels, ENHANCED)[1, 3], adjust_grey(pixels[1, 3], ENHANCED))


def test_saturated_golden_shares():
    """Of 0..255, 1.5 g + 30 clips 151..255; 0.8 g + 150 clips 132..255 (131 gives 254.8, 132 gives 255.6)."""
    levels = grey(*range(256))
    assert compute_saturation(levels, ENHANCED) == 105 / 256
    assert compute_saturation(levels, DECREASED) == 0
    assert compute_saturation(levels, PRINTED) == 1
    assert compute_saturation(levels, GreyChange(0.8, 150)) == 124 / 256
    assert compute_saturation(levels, GreyChange(1, -10)) == 10 / 256


def test_a_change_that_saturates_warns_with_share_and_proposal():
    with pytest.warns(UserWarning, match=r"100% of the pixel values saturate under GreyChange\(alpha=1.5, beta=300\)"):
        warn_if_saturated(grey(0, 10), PRINTED)
    with pytest.warns(UserWarning, match=r"such as GreyChange\(alpha=1.5, beta=30\)"):
        warn_if_saturated(grey(0, 200, 200), ENHANCED)


def test_half_saturated_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_saturated(grey(0, 200), ENHANCED)


@pytest.mark.parametrize(
    "pixels, words",
    [
        (torch.zeros(4, 5, 5), r"pixels \[4, 5, 5\]; give colour images"),
        (torch.zeros(3, 5), r"give colour images \[...,3,H,W\]"),
        (torch.zeros(3, 0, 5), "give colour images"),
        (torch.zeros(3, 2, 2, dtype=torch.int64), r"torch.int64; give uint8 or floating-point values in 0..255"),
        (grey(-2.1, 2.6), r"from -2.1 to 2.6; give 0..255, before normalisation"),
        (grey(0, 300), "from 0 to 300; give 0..255"),
        (grey(0, float("nan")), "give 0..255"),
        (grey(0.1, 0.9), "look like an image in 0..1; multiply it by 255"),
    ],
)
def test_pixels_refused(pixels, words):
    with pytest.raises(InputError, match=words):
        adjust_grey(pixels, ENHANCED)
    with pytest.raises(InputError, match=words):
        compute_saturation(pixels, ENHANCED)


def test_a_black_image_is_an_image():
    assert adjust_grey(torch.zeros(3, 2, 2), DECREASED).unique().tolist() == [15]


@pytest.mark.parametrize("alpha, beta", [(0, 10), (-1, 0), (float("nan"), 0), (1, float("inf"))])
def test_changes_refused(alpha, beta):
    with pytest.raises(InputError, match="give finite numbers with alpha above 0"):
        GreyChange(alpha, beta)
