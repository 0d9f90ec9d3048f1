"""Saliency maps: where a photograph draws the eye, whatever its classes; without training, or from a folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from camplug.errors import InputError
from camplug.explain.photo import read_photo
from camplug.wsss.data import SegmentationData
from camplug.wsss.store.identity import make_file_table

Map = NDArray[np.float32]

SUFFIXES = (".png", ".jpg", ".jpeg")
SIDE = 64  # pixels, of the photograph whose spectrum is taken
BINOMIAL = np.array([1, 4, 6, 4, 1]) / 16
XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
WHITE = XYZ.sum(1)  # D65


def compute_colour_contrast(photo: Any) -> Map:
    r"""How far each pixel's colour is from the photograph's mean colour.

    .. math:: S(x) = \lVert I_\mu - I_\omega(x) \rVert

    (Achanta, Hemami, Estrada and Suesstrunk, "Frequency-tuned Salient Region Detection", CVPR 2009, eq. 4.) I is the
    photograph in CIELAB, I_mu its mean, I_omega the photograph blurred by the 5x5 binomial filter. It knows nothing of
    places, so it has no bias to the centre.

    Args:
        photo: RGB, uint8 [H,W,3], or whatever else `camplug.explain.photo.read_photo` takes.

    Returns:
        [H,W], from 0, the least contrast, to 1, the most; all 0 for a photograph of one colour.

    Raises:
        InputError: no photograph.

    >>> photo = np.full((20, 20, 3), 90, np.uint8)
    >>> photo[8:12, 8:12] = 255, 0, 0
    >>> compute_colour_contrast(photo)[10, ::2].round(1)
    array([0. , 0. , 0. , 0. , 0.7, 1. , 0.3, 0. , 0. , 0. ], dtype=float32)
    """
    image = convert_to_lab(np.asarray(read_photo(photo)))
    mean = image.mean((0, 1))
    for axis in (0, 1):
        image = ndimage.convolve1d(image, BINOMIAL, axis, mode="nearest")
    return _stretch(np.linalg.norm(image - mean, axis=2))


def compute_spectral_residual(photo: Any, *, sigma: float = 2.5) -> Map:
    r"""What in a photograph's spectrum does not follow from its smooth course, back in the photograph.

    .. math:: R(f) = \log A(f) - h_3(f) * \log A(f), \qquad
              S = g_\sigma * \big| \mathcal F^{-1} [\exp(R(f) + i P(f))] \big|^2

    (Hou and Zhang, "Saliency Detection: A Spectral Residual Approach", CVPR 2007, eqs. 9 to 12.) A and P are amplitude
    and phase of the grey photograph, shrunk so that its longer side has 64 pixels, h_3 the mean over 3x3, g a Gaussian.

    Args:
        photo: as for `compute_colour_contrast`.
        sigma: of the Gaussian, in pixels of the shrunk photograph; as in the authors' script, while the paper has 8.

    Returns:
        [H,W], from 0, the least salient, to 1, the most; all 0 for a photograph of one grey.

    Raises:
        InputError: no photograph; a sigma that is not above 0.
    """
    if not 0 < sigma < float("inf"):
        raise InputError(f"sigma={sigma!r}; give a number of pixels above 0.")
    grey = read_photo(photo).convert("L")
    shrink = min(1.0, SIDE / max(grey.size))
    small = grey.resize([max(1, round(side * shrink)) for side in grey.size], Image.Resampling.BILINEAR)
    pixels = np.asarray(small, np.float64)
    if pixels.min() == pixels.max():
        return np.zeros((grey.height, grey.width), np.float32)
    spectrum = np.fft.fft2(pixels)
    course = np.log1p(np.abs(spectrum))  # plus 1, so that a drawn picture's empty frequencies have a logarithm
    residual = course - ndimage.uniform_filter(course, 3, mode="nearest")
    back = np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))
    salient = ndimage.gaussian_filter(np.abs(back) ** 2, sigma, mode="nearest")
    return _stretch(_resize(salient.astype(np.float32), (grey.height, grey.width)))


KINDS: dict[str, Callable[[Any], Map]] = {"contrast": compute_colour_contrast, "spectral": compute_spectral_residual}


def make_saliency(source: str | Path) -> Callable[[SegmentationData, int], Map]:
    """The saliency map of any image of a data set: from (data, i) to float32 [H,W] of the photograph's size.

    Args:
        source: "contrast" (`compute_colour_contrast`), "spectral" (`compute_spectral_residual`), or a folder
            (`read_saliency`).

    Raises:
        InputError: neither of the two, nor a folder.

    >>> from camplug.wsss.data import Scenes
    >>> make_saliency("contrast")(Scenes(1), 0).shape
    (96, 96)
    """
    if isinstance(source, str) and source in KINDS:
        return partial(_compute, KINDS[source])
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise InputError(f"saliency {str(source)!r}: give {' or '.join(KINDS)}, or a folder of grey PNGs or JPEGs.")
    return partial(_read, folder)


def check_saliency(source: str | Path, data: SegmentationData) -> None:
    """Refuse a source that has no map for some image, before anything long begins; maps themselves are not read.

    Args:
        source: see `make_saliency`.
        data: the images.

    Raises:
        InputError: no such source, or one that lacks maps; with their number and the first name.
    """
    make_saliency(source)
    if isinstance(source, str) and source in KINDS:
        return
    folder = Path(source).expanduser()
    missing = [name for name in data.ids if find_saliency_file(folder, name) is None]
    if missing:
        raise InputError(
            f"{str(source)!r} lacks the saliency maps of {len(missing)} of {len(data)} images, that of {missing[0]!r} "
            f"for instance; add {missing[0]}.png, and so on, or give {' or '.join(KINDS)}, which need no files."
        )


def make_saliency_table(folder: Path, data: SegmentationData) -> dict[str, str]:
    """Return the digests of the saliency maps in a folder, by image name."""
    folder = folder.expanduser()
    return make_file_table(data.ids, lambda name: find_saliency_file(folder, name) or folder / name)


def read_saliency(folder: Path, name: str, size: tuple[int, int]) -> Map:
    """A saliency map that some model left in a file: NAME.png or NAME.jpg, grey, black 0 and white 1.

    Args:
        folder: of the files.
        name: of the image.
        size: (H, W) of its photograph; a map of another size is resized, bilinearly.

    Returns:
        [H,W] in [0, 1].

    Raises:
        InputError: the file is missing, damaged or not grey.
    """
    file = find_saliency_file(folder, name)
    if file is None:
        raise InputError(f"{str(folder)!r} has no saliency map of {name!r}; add {name}.png (or .jpg), in grey.")
    try:
        with Image.open(file) as image:
            mode = image.mode
            pixels = np.asarray(image.convert("L") if mode == "1" else image)
    except Exception as error:  # what decoders raise on damaged files is anybody's guess
        raise InputError(f"the saliency map {str(file)!r} is damaged or cannot be read ({error}).") from None
    if mode == "RGB" and (pixels == pixels[..., :1]).all():  # grey, written as colour
        mode, pixels = "L", pixels[..., 0]
    if mode not in ("1", "L") and not mode.startswith("I;16"):
        raise InputError(f"the saliency map {str(file)!r} is not grey but {mode}; save it as an 8-bit grey PNG.")
    values: Map = pixels.astype(np.float32) / np.float32(65535 if mode.startswith("I;16") else 255)
    return _resize(values, size).clip(0, 1)


def convert_to_lab(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Colours of sRGB in CIELAB (white D65): lightness 0 to 100, red against green, yellow against blue.

    >>> convert_to_lab(np.array([[[255, 255, 255], [255, 0, 0]]], np.uint8)).round() + 0
    array([[[100.,   0.,   0.],
            [ 53.,  80.,  67.]]])
    """
    steps = np.arange(256) / 255
    linear = np.where(steps <= 0.04045, steps / 12.92, ((steps + 0.055) / 1.055) ** 2.4)
    xyz = linear[rgb] @ (XYZ / WHITE[:, None]).T
    x, y, z = np.moveaxis(np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def _compute(kind: Callable[[Any], Map], data: SegmentationData, i: int) -> Map:
    return kind(data.photo(i))


def _read(folder: Path, data: SegmentationData, i: int) -> Map:
    photo = data.photo(i)
    return read_saliency(folder, data.ids[i], (photo.height, photo.width))


def find_saliency_file(folder: Path, name: str) -> Path | None:
    """Return the file of an image's saliency map; None where there is none."""
    files = (folder / f"{name}{suffix}" for suffix in SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def _resize(values: Map, size: tuple[int, int]) -> Map:
    """The map at (H, W)."""
    if values.shape == tuple(size):
        return values
    return np.asarray(Image.fromarray(values).resize(size[::-1], Image.Resampling.BILINEAR))


def _stretch(values: NDArray[np.floating]) -> Map:
    """From 0 to 1; all 0 where nothing but rounding tells the values apart."""
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-6 * max(1.0, high):
        return np.zeros(values.shape, np.float32)
    return ((values - low) / (high - low)).astype(np.float32)
