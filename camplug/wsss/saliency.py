"""Class-agnostic saliency maps, computed without training or read from a folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camplug.errors import InputError
from camplug.images.photo import read_photo
from camplug.wsss.data import SegmentationData
from camplug.wsss.store.identity import make_file_table

Map = NDArray[np.float32]

SUFFIXES = (".png", ".jpg", ".jpeg")
SIDE = 64  # longer side of the photograph whose spectrum is computed, in pixels
BINOMIAL = np.array([1, 4, 6, 4, 1]) / 16
STEPS = np.arange(256) / 255
LINEAR = np.where(STEPS <= 0.04045, STEPS / 12.92, ((STEPS + 0.055) / 1.055) ** 2.4).astype(np.float32)  # sRGB's gamma


def compute_colour_contrast(photo: Any) -> Map:
    r"""Compute the distance of each pixel's colour from the photograph's mean colour.

    .. math:: S(x) = \lVert I_\mu - I_\omega(x) \rVert

    (Achanta, Hemami, Estrada and Suesstrunk, "Frequency-tuned Salient Region Detection", CVPR 2009, eq. 4.) I is the
    photograph in CIELAB, I_mu its mean, I_omega the photograph blurred by the 5x5 binomial filter. There is no bias
    towards the centre.

    Args:
        photo: RGB uint8 [H,W,3], or another input of `camplug.images.photo.read_photo`.

    Returns:
        Map [H,W] from 0, the least contrast, to 1, the most; all 0 for a photograph of one colour.

    Raises:
        InputError: the photograph cannot be read.

    >>> photo = np.full((20, 20, 3), 90, np.uint8)
    >>> photo[8:12, 8:12] = 255, 0, 0
    >>> compute_colour_contrast(photo)[10, ::2].round(1)
    array([0. , 0. , 0. , 0. , 0.7, 1. , 0.3, 0. , 0. , 0. ], dtype=float32)
    """
    picture = read_photo(photo)
    if picture.getcolors(1):  # one colour, whose rounding errors would be stretched
        return np.zeros((picture.height, picture.width), np.float32)
    image = convert_to_lab(np.asarray(picture))
    blurred = cv2.sepFilter2D(image, -1, BINOMIAL, BINOMIAL, borderType=cv2.BORDER_REPLICATE)
    difference = cv2.subtract(blurred, np.array(cv2.mean(image)))
    squared = cv2.transform(cv2.multiply(difference, difference), np.ones((1, 3), np.float32))  # sum over the channels
    return _stretch(np.sqrt(squared))


def compute_spectral_residual(photo: Any, *, sigma: float = 2.5) -> Map:
    r"""Compute saliency from the residual of a photograph's log spectrum after smoothing.

    .. math:: R(f) = \log A(f) - h_3(f) * \log A(f), \qquad
              S = g_\sigma * \big| \mathcal F^{-1} [\exp(R(f) + i P(f))] \big|^2

    (Hou and Zhang, "Saliency Detection: A Spectral Residual Approach", CVPR 2007, eqs. 9 to 12.) A and P are amplitude
    and phase of the grey photograph, reduced to a longer side of 64 pixels, h_3 the mean over 3x3, g a Gaussian.

    Args:
        photo: see `compute_colour_contrast`.
        sigma: standard deviation of the Gaussian in pixels of the reduced photograph; 2.5 is that of the authors'
            script, the paper has 8.

    Returns:
        Map [H,W] from 0, the least salient, to 1, the most; all 0 for a photograph of one grey.

    Raises:
        InputError: the photograph cannot be read, or sigma is not above 0.
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
    course = np.log1p(np.abs(spectrum))  # plus 1, as frequencies of drawings may be 0
    residual = course - cv2.blur(course, (3, 3), borderType=cv2.BORDER_REPLICATE)
    back = np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))
    side = 2 * round(4 * sigma) + 1
    salient = cv2.GaussianBlur(np.abs(back) ** 2, (side, side), sigma, borderType=cv2.BORDER_REPLICATE)
    return _stretch(resize_saliency(salient.astype(np.float32), (grey.height, grey.width)))


KINDS: dict[str, Callable[[Any], Map]] = {"contrast": compute_colour_contrast, "spectral": compute_spectral_residual}


def make_saliency(source: str | Path) -> Callable[[SegmentationData, int], Map]:
    """Make a function from (data, i) to the saliency map of image i, float32 [H,W] at the photograph's size.

    Args:
        source: "contrast" (`compute_colour_contrast`), "spectral" (`compute_spectral_residual`), or a folder
            (`read_saliency`).

    Raises:
        InputError: the source is neither of the two, nor a folder.

    >>> from camplug.wsss.data import Scenes
    >>> make_saliency("contrast")(Scenes(1), 0).shape
    (96, 96)
    """
    if isinstance(source, str) and source in KINDS:
        return partial(_compute, KINDS[source])
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise InputError(
            f"saliency {str(source)!r}: give {' or '.join(KINDS)}, a folder of grey PNGs or JPEGs, or the file of a "
            "saliency network (.pt, .pt2, .onnx)."
        )
    return partial(_read, folder)


def check_saliency(source: str | Path, data: SegmentationData) -> None:
    """Check that a source has the maps of all images, without reading them.

    Args:
        source: see `make_saliency`.
        data: images.

    Raises:
        InputError: there is no such source, or maps are missing.
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
    """Compute the digests of the saliency maps in a folder, by image name."""
    folder = folder.expanduser()
    return make_file_table(data.ids, lambda name: find_saliency_file(folder, name) or folder / name)


def read_saliency(folder: Path, name: str, size: tuple[int, int]) -> Map:
    """Read a saliency map from a grey NAME.png or NAME.jpg, black 0 and white 1.

    Args:
        folder: folder of the files.
        name: image name.
        size: (H, W) of the photograph; maps of another size are resized bilinearly.

    Returns:
        Map [H,W] in [0, 1].

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
    except Exception as error:  # decoders raise many kinds of errors on damaged files
        raise InputError(f"the saliency map {str(file)!r} is damaged or cannot be read ({error}).") from None
    if mode == "RGB" and (pixels == pixels[..., :1]).all():  # grey, stored as colour
        mode, pixels = "L", pixels[..., 0]
    if mode not in ("1", "L") and not mode.startswith("I;16"):
        raise InputError(f"the saliency map {str(file)!r} is not grey but {mode}; save it as an 8-bit grey PNG.")
    values: Map = pixels.astype(np.float32) / np.float32(65535 if mode.startswith("I;16") else 255)
    return resize_saliency(values, size).clip(0, 1)


def convert_to_lab(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Convert sRGB [H,W,3] to CIELAB (white D65): lightness 0 to 100, green to red, blue to yellow; exact to 0.05.

    >>> convert_to_lab(np.array([[[255, 255, 255], [255, 0, 0]]], np.uint8)).round() + 0
    array([[[100.,   0.,   0.],
            [ 53.,  80.,  67.]]], dtype=float32)
    """
    # OpenCV's own conversion of sRGB interpolates and is exact to 0.5 only, that of linear RGB is not
    lab: NDArray[np.float32] = np.asarray(cv2.cvtColor(cv2.LUT(rgb, LINEAR), cv2.COLOR_LRGB2Lab), np.float32)
    return lab


def _compute(kind: Callable[[Any], Map], data: SegmentationData, i: int) -> Map:
    return kind(data.photo(i))


def _read(folder: Path, data: SegmentationData, i: int) -> Map:
    photo = data.photo(i)
    return read_saliency(folder, data.ids[i], (photo.height, photo.width))


def find_saliency_file(folder: Path, name: str) -> Path | None:
    """Find the file of an image's saliency map; None if there is none."""
    files = (folder / f"{name}{suffix}" for suffix in SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def resize_saliency(values: Map, size: tuple[int, int]) -> Map:
    """Resize a map to (H, W)."""
    if values.shape == tuple(size):
        return values
    return np.asarray(Image.fromarray(values).resize(size[::-1], Image.Resampling.BILINEAR))


def _stretch(values: NDArray[np.floating]) -> Map:
    """Scale values to [0, 1]; all 0 if they differ by rounding only."""
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-6 * max(1.0, high):
        return np.zeros(values.shape, np.float32)
    return ((values - low) / (high - low)).astype(np.float32)
