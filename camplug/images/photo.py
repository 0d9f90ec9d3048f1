"""Read photographs from paths, PIL images and arrays, as upright RGB with eight bits."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np
import torch

from camplug.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")

SIXTEEN_BITS = 65535.0
TWELVE_BITS = 4095.0  # maximum of 12-bit data, as cameras and microscopes store it in 16 bits
ORIENTATION = 0x0112  # EXIF tag
BITS_PER_SAMPLE, PLANAR_CONFIGURATION, SEPARATE_PLANES = 258, 284, 2  # TIFF tags, and a value of the second
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")


def read_photo(source: Any) -> Image:
    """Read a photograph as an upright RGB PIL image.

    EXIF rotation is applied, transparency is composed over white, 16-bit photographs and floating-point grey are scaled
    to 8 bits, CMYK and palettes are converted. 16 bits without values above 4095 count as 12-bit data, with a warning.

    Args:
        source: path, bytes of an image file, binary file object, PIL image, or uint8 array or tensor [H,W,3], [H,W] or
            (tensors) [3,H,W].

    Raises:
        InputError: the file is missing, damaged or no image, its colours are separate planes of 16 bits, the array is
            not uint8, or a side is below 2 pixels.
    """
    from PIL import Image as pil

    if isinstance(source, (str, os.PathLike)):
        image = _open_with(os.fspath(source), _decode)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        image = _open_with(BytesIO(source), _decode)
    elif hasattr(source, "read") and hasattr(source, "seek"):
        image = _open_with(source, _decode)
    elif isinstance(source, pil.Image):
        image = _decode(source, "the image")
    elif isinstance(source, torch.Tensor):
        pixels = source.detach().cpu()
        if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3):
            pixels = pixels.permute(1, 2, 0)
        image = _from_array(pixels.numpy())
    elif isinstance(source, np.ndarray):
        image = _from_array(source)
    else:
        raise InputError(
            "an image can be a path, bytes, a file object, a PIL image, a uint8 array [H,W,3] or a float tensor; got "
            f"{type(source).__name__}."
        )
    called = repr(os.fspath(source)) if isinstance(source, (str, os.PathLike)) else "the image"
    if min(image.size) < 2:
        raise InputError(f"{called} has {image.width}x{image.height} pixels; a map needs at least 2x2.")
    return _to_rgb(image, called)


def list_photos(folder: Path, without: Path | None = None) -> list[Path]:
    """List the image files in a folder and its subfolders, sorted.

    Args:
        folder: folder.
        without: folder whose files are left out, unless it is `folder` itself.

    Raises:
        InputError: there is none.
    """
    found = list_photo_files(folder)
    if without is not None and without.resolve() != folder.resolve():
        found = [path for path in found if without.resolve() not in path.resolve().parents]
    if not found:
        raise InputError(f"the folder {str(folder)!r} holds no image ({', '.join(SUFFIXES)}).")
    return found


def list_photo_files(folder: Path) -> list[Path]:
    """List the files in a folder and its subfolders that end like images, sorted, without hidden ones."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def check_photo(path: str | os.PathLike[str]) -> None:
    """Check that a file exists and has the header of an image, without decoding it.

    Raises:
        InputError: the file is missing or no image.
    """
    _open_with(os.fspath(path), lambda image, called: None)


def _open_with(path: str | BinaryIO, use: Callable[[Image, str], T]) -> T:
    """Open an image file, or a file object, and return the result of `use`."""
    from PIL import Image as pil
    from PIL import UnidentifiedImageError

    called = repr(path) if isinstance(path, str) else "the image"
    try:
        with pil.open(path) as image:
            return use(image, called)
    except FileNotFoundError:
        raise InputError(f"there is no file {path!r}.") from None
    except IsADirectoryError:
        raise InputError(f"{path!r} is a folder; give an image file.") from None
    except UnidentifiedImageError:
        raise InputError(f"{called} is not an image that Pillow can read (JPEG, PNG, WebP, TIFF, ...).") from None
    except PermissionError:
        raise InputError(f"{path!r} cannot be read: permission denied.") from None
    except InputError:
        raise
    except Exception as error:
        raise _make_damage_error(called, error) from None


def _decode(image: Image, called: str) -> Image:
    try:
        deep = _has_deep_colours(image, called)
        raw = _read_file(image) if deep else b""
        image.load()
    except InputError:
        raise
    except Exception as error:  # decoders raise anything on damaged files
        raise _make_damage_error(called, error) from None
    return _rotate_upright(_decode_deep_colours(image, raw) if deep else image)


def _has_deep_colours(image: Image, called: str) -> bool:
    """Return whether the file of an image, which is not decoded yet, has 16 bits per colour.

    Raises:
        InputError: each colour is a plane of its own, of which Pillow reads the lower bytes.
    """
    tile: Any = getattr(image, "tile", None)
    if not tile or image.mode not in ("RGB", "RGBA") or image.format not in ("PNG", "TIFF"):
        return False
    has_raw_mode = ";16" in str(tile[0].args)
    tags = getattr(image, "tag_v2", {})
    if tags.get(PLANAR_CONFIGURATION) == SEPARATE_PLANES:
        if not has_raw_mode and max(tags.get(BITS_PER_SAMPLE, (8,))) > 8:
            raise InputError(
                f"{called} stores each colour as a plane of 16 bits, which cannot be read; save it as PNG, or as TIFF "
                "with the colours of each pixel side by side."
            )
        return False  # Pillow reads the upper bytes, OpenCV mixes up the colours
    return has_raw_mode


def _read_file(image: Image) -> bytes:
    """Read the whole file of an image that is not decoded yet."""
    file: Any = image.fp  # type: ignore[attr-defined]
    place = file.tell()
    file.seek(0)
    raw: bytes = file.read()
    file.seek(place)
    return raw


def _decode_deep_colours(image: Image, raw: bytes) -> Image:
    """Decode a file with 16 bits per colour, of which Pillow keeps the upper 8, and scale it to 8 bits.

    Args:
        image: decoded image, which is returned if OpenCV cannot decode the file.
        raw: content of the file.
    """
    import cv2
    from PIL import Image as pil

    values = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.shape != (image.height, image.width, len(image.mode)):
        return image
    top = _find_maximum(values[..., :3])
    pixels = np.empty(values.shape, np.uint8)
    pixels[..., :3] = (values[..., 2::-1] / top * 255).round()
    pixels[..., 3:] = (values[..., 3:] / SIXTEEN_BITS * 255).round()
    deep = pil.fromarray(pixels)
    deep.getexif()[ORIENTATION] = image.getexif().get(ORIENTATION, 1)
    return deep


def _find_maximum(values: np.ndarray[Any, Any]) -> float:
    """Return the value of white in 16-bit data: 4095 if no value lies above, else 65535."""
    if values.max() > TWELVE_BITS:
        return SIXTEEN_BITS
    warnings.warn(
        "a photograph of 16 bits holds no value above 4095 and is taken for 12-bit data: 4095 is white.", stacklevel=4
    )
    return TWELVE_BITS


def _make_damage_error(called: str, error: Exception) -> InputError:
    return InputError(f"{called} is damaged or too large to decode ({error}).")


def _rotate_upright(image: Image) -> Image:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF block
        return image.copy()


def _from_array(array: np.ndarray[Any, Any]) -> Image:
    from PIL import Image as pil

    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise InputError(
            f"an image array must be uint8 of shape [H,W,3] or [H,W]; got {array.dtype} {list(array.shape)}. A tensor "
            "that is normalised already goes in as float [3,H,W]."
        )
    return pil.fromarray(array)


def _to_rgb(image: Image, called: str) -> Image:
    from PIL import Image as pil

    if image.mode.startswith("I") or image.mode == "F":  # Pillow clips these at 255
        grey = np.asarray(image).astype(np.float64)
        if not np.isfinite(grey).all():
            raise InputError(f"{called} holds NaN or infinite pixels; give finite ones.")
        top = _find_maximum(grey) if grey.max() > 255 or image.mode.startswith("I;16") else 255.0
        if image.mode == "F" and grey.max() <= 1:
            top = 1.0
        if grey.min() < 0 or grey.max() > 65535:
            grey, top = grey - grey.min(), float(np.ptp(grey)) or 1.0
        return pil.fromarray((grey / top * 255).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        white = pil.new("RGBA", rgba.size, "white")
        return pil.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
