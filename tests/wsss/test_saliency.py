"""Saliency: both formulas against slow loops, files of every kind, and the sentences for what is missing."""

from __future__ import annotations

import cmath
import math
import pickle

import numpy as np
import pytest
from PIL import Image

from camplug.errors import InputError
from camplug.wsss.data import Scenes
from camplug.wsss.saliency import (
    check_saliency,
    compute_colour_contrast,
    compute_spectral_residual,
    convert_to_lab,
    make_saliency,
    read_saliency,
)

RNG = np.random.default_rng(7)
KINDS = [compute_colour_contrast, compute_spectral_residual]


def random_photo(height=12, width=10):
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def lab_of(pixel):
    """CIE's formulas for one pixel, with exact fractions."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in pixel / 255]
    rows = [(0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227)]
    f = []
    for row in rows:
        t = sum(a * c for a, c in zip(row, linear, strict=True)) / sum(row)
        f.append(t ** (1 / 3) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def stretched(values):
    return (values - values.min()) / (values.max() - values.min())


def test_lab_like_one_pixel_at_a_time():
    photo = random_photo()
    photo[0, 0], photo[0, 1], photo[0, 2] = 0, 255, (3, 0, 1)
    slow = np.array([[lab_of(pixel) for pixel in row] for row in photo])
    np.testing.assert_allclose(convert_to_lab(photo), slow, atol=0.01)


def test_lab_like_scikit_image():
    color = pytest.importorskip("skimage.color")
    photo = random_photo()
    np.testing.assert_allclose(convert_to_lab(photo), color.rgb2lab(photo), atol=0.1)  # its white has fewer digits


def test_colour_contrast_like_the_slow_loop():
    photo = random_photo()
    image = np.array([[lab_of(pixel) for pixel in row] for row in photo])
    mean = image.reshape(-1, 3).mean(0)
    height, width = photo.shape[:2]
    distances = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            blurred = np.zeros(3)
            for dy in range(-2, 3):
                for dx in range(-2, 3):
                    weight = math.comb(4, dy + 2) * math.comb(4, dx + 2) / 256
                    blurred += weight * image[min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)]
            distances[y, x] = math.dist(blurred, mean)
    np.testing.assert_allclose(compute_colour_contrast(photo), stretched(distances), atol=1e-3)


def test_colour_contrast_golden_numbers():
    """A white and a black half: the mean is 50, so that both are 50 from it; grey at the seam is the least salient.

    Across the seam the blurred lightness is 100 (1, 15/16, 11/16, 5/16, 1/16, 0), its distances from 50 are
    50, 43.75, 18.75, 18.75, 43.75, 50, of which the least becomes 0 and the most 1.
    """
    photo = np.zeros((8, 12, 3), np.uint8)
    photo[:, :6] = 255
    expected = [1, 1, 1, 1, 0.8, 0, 0, 0.8, 1, 1, 1, 1]
    np.testing.assert_allclose(compute_colour_contrast(photo), [expected] * 8, atol=1e-3)


def test_colour_contrast_knows_no_places():
    """A spot is as salient in a corner as in the centre."""
    peaks = []
    for at in (1, 15):
        photo = np.full((40, 40, 3), 60, np.uint8)
        photo[at : at + 8, at : at + 8] = 20, 200, 90
        salient = compute_colour_contrast(photo)
        assert salient[at + 2 : at + 6, at + 2 : at + 6].min() == 1
        peaks.append((salient > 0.5).sum())
    assert peaks[0] == peaks[1] > 40


def slow_residual(grey, sigma):
    """Every sum of the paper's equations written out; borders are repeated."""
    height, width = grey.shape

    def transform(values, sign):
        out = np.zeros((height, width), complex)
        for v in range(height):
            for u in range(width):
                out[v, u] = sum(
                    values[y, x] * cmath.exp(sign * 2j * math.pi * (v * y / height + u * x / width))
                    for y in range(height)
                    for x in range(width)
                )
        return out

    def averaged(values, reach, weight):
        out = np.zeros((height, width))
        for y in range(height):
            for x in range(width):
                total = 0.0
                for dy in range(-reach, reach + 1):
                    for dx in range(-reach, reach + 1):
                        w = weight(dy, dx)
                        total += w
                        out[y, x] += w * values[min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)]
                out[y, x] /= total
        return out

    spectrum = transform(grey.astype(float), -1)
    course = np.log(np.abs(spectrum) + 1)
    residual = course - averaged(course, 1, lambda dy, dx: 1)
    back = transform(np.exp(residual) * np.exp(1j * np.angle(spectrum)), 1) / (height * width)
    return averaged(np.abs(back) ** 2, round(4 * sigma), lambda dy, dx: math.exp(-(dy * dy + dx * dx) / 2 / sigma**2))


def test_spectral_residual_like_the_slow_sums():
    grey = RNG.integers(0, 256, (10, 8), dtype=np.uint8)
    np.testing.assert_allclose(
        compute_spectral_residual(grey, sigma=1.0), stretched(slow_residual(grey, 1.0)), atol=1e-4
    )


@pytest.mark.parametrize("scale", [1, 4])
def test_spectral_residual_finds_what_stands_out(scale):
    """A small spot on noise, whatever it is: the photograph may be larger than the 64 pixels that are looked at."""
    photo = np.random.default_rng(1).normal(100, 12, (64, 64))
    photo[17:22, 40:45] = 180
    photo = np.kron(photo, np.ones((scale, scale))).astype(np.uint8)
    y, x = np.array(np.unravel_index(compute_spectral_residual(photo).argmax(), photo.shape)) / scale
    assert (y, x) == pytest.approx((19.5, 42.5), abs=3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(30, 45), (130, 97), (200, 3), (2, 2)])
def test_range_size_and_kind_of_numbers(kind, size):
    salient = kind(random_photo(*size))
    assert salient.shape == size
    assert salient.dtype == np.float32
    assert (salient.min(), salient.max()) == pytest.approx((0, 1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0, 77, 255])
def test_a_photograph_of_one_colour_has_nothing_salient(kind, value):
    salient = kind(np.full((70, 90, 3), value, np.uint8))
    assert salient.shape == (70, 90)
    assert not salient.any()


@pytest.mark.parametrize("kind", KINDS)
def test_takes_what_a_photograph_can_be(kind):
    photo = random_photo()
    np.testing.assert_array_equal(kind(photo), kind(Image.fromarray(photo)))
    np.testing.assert_array_equal(kind(photo), kind(photo.copy()))
    with pytest.raises(InputError, match="uint8"):
        kind(photo / 255)


def test_a_sigma_that_is_none():
    with pytest.raises(InputError, match="sigma=0; give a number of pixels above 0"):
        compute_spectral_residual(random_photo(), sigma=0)


def test_contrast_finds_creatures():
    """On scenes, most of what stands out is creature: its mean saliency is over twice that of the ground."""
    data = Scenes(12, size=(64, 64))
    inside, outside = [], []
    for i in range(len(data)):
        salient, object_ = make_saliency("contrast")(data, i), data.mask(i) > 0
        inside.append(salient[object_].mean())
        outside.append(salient[~object_].mean())
    assert np.mean(inside) > 2 * np.mean(outside)


@pytest.mark.parametrize("name", ["contrast", "spectral"])
def test_saliency_of_names_the_kinds(name):
    data = Scenes(2, size=(32, 40))
    found = pickle.loads(pickle.dumps(make_saliency(name)))(data, 1)  # as processes that load images get it
    kind = {"contrast": compute_colour_contrast, "spectral": compute_spectral_residual}[name]
    np.testing.assert_array_equal(found, kind(data.photo(1)))
    check_saliency(name, data)


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg"])
def test_a_folder_by_image_name(tmp_path, suffix):
    data = Scenes(2, size=(32, 40))
    values = np.zeros((32, 40), np.uint8)
    values[8:24, 8:32] = 255
    Image.fromarray(values).save(tmp_path / f"{data.ids[1]}.{suffix}")
    salient = make_saliency(tmp_path)(data, 1)
    assert salient.dtype == np.float32
    np.testing.assert_allclose(salient, values / 255, atol=0 if suffix == "png" else 0.05)
    np.testing.assert_array_equal(make_saliency(str(tmp_path))(data, 1), salient)


def test_a_name_with_a_folder(tmp_path):
    (tmp_path / "cats").mkdir()
    Image.fromarray(np.full((4, 4), 51, np.uint8)).save(tmp_path / "cats" / "one.png")
    np.testing.assert_allclose(read_saliency(tmp_path, "cats/one", (4, 4)), 0.2)


def test_a_map_of_another_size_is_resized_bilinearly(tmp_path):
    """Of 0 and 1 side by side, the middles of four pixels lie at 0, 1/4, 3/4 and 1."""
    Image.fromarray(np.array([[0, 255], [0, 255]], np.uint8)).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_saliency(tmp_path, "a", (3, 4)), [[0, 0.25, 0.75, 1]] * 3, atol=1e-6)


@pytest.mark.parametrize("how", ["bits", "sixteen", "grey written as colour"])
def test_other_greys(tmp_path, how):
    values = np.array([[0, 1], [1, 0]], np.uint8)
    picture = {
        "bits": lambda: Image.fromarray(values * 255).convert("1"),
        "sixteen": lambda: Image.fromarray(values.astype(np.uint16) * 65535),
        "grey written as colour": lambda: Image.fromarray(values * 255).convert("RGB"),
    }[how]()
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_saliency(tmp_path, "a", (2, 2)), values)


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA"])
def test_coloured_pictures_are_refused(tmp_path, mode):
    Image.fromarray(random_photo()).convert(mode).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=rf"a.png' is not grey but {mode}; save it as an 8-bit grey PNG"):
        read_saliency(tmp_path, "a", (12, 10))


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(InputError, match=r"has no saliency map of 'a'; add a.png \(or .jpg\), in grey"):
        read_saliency(tmp_path, "a", (2, 2))
    (tmp_path / "a.png").write_bytes(b"\x89PNG nothing more")
    with pytest.raises(InputError, match=r"a.png' is damaged or cannot be read"):
        read_saliency(tmp_path, "a", (2, 2))


def test_the_check_counts_what_is_missing(tmp_path):
    data = Scenes(5, size=(16, 16))
    Image.new("L", (16, 16)).save(tmp_path / f"{data.ids[0]}.png")
    Image.new("L", (16, 16)).save(tmp_path / f"{data.ids[2]}.jpg")
    with pytest.raises(InputError, match=f"lacks the saliency maps of 3 of 5 images, that of '{data.ids[1]}'"):
        check_saliency(tmp_path, data)
    for name in data.ids:
        Image.new("L", (16, 16)).save(tmp_path / f"{name}.png")
    check_saliency(tmp_path, data)


@pytest.mark.parametrize("use", [make_saliency, lambda source: check_saliency(source, Scenes(1))])
def test_neither_kind_nor_folder(tmp_path, use):
    for source in ("contrasts", tmp_path / "missing"):
        with pytest.raises(InputError, match="give contrast or spectral, a folder of grey PNGs or JPEGs, or the file"):
            use(source)
