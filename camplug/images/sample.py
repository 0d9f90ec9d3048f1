"""Sample photograph for demonstrations: the cat that scikit-image ships."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from camplug.errors import InputError
from camplug.images.photo import read_photo

if TYPE_CHECKING:
    from PIL.Image import Image


def find_sample_photo() -> Path:
    """Return the path of the photograph of a cat that scikit-image ships.

    Raises:
        InputError: scikit-image is not installed.
    """
    found = find_spec("skimage")
    photo = Path(str(found.origin)).parent / "data" / "chelsea.png" if found and found.origin else None
    if photo is None or not photo.exists():
        raise InputError(
            'the sample photograph comes with scikit-image; install it with: pip install "camplug[demo]", or give a '
            "photograph."
        )
    return photo


def sample_photo() -> Image:
    """Return the photograph of a cat that scikit-image ships, 451x300 pixels.

    Raises:
        InputError: scikit-image is not installed.
    """
    return read_photo(find_sample_photo())
