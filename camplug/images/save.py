"""Write files atomically, and pictures in the format of their suffix."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from camplug.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image


def save_picture(picture: Image, path: str) -> None:
    """Write a picture atomically, in the format of the path's suffix.

    Raises:
        InputError: the format is unknown, or the file cannot be written.
    """
    from PIL import Image as pil

    kind = pil.registered_extensions().get(os.path.splitext(path)[1].lower())
    if kind not in pil.SAVE:  # Pillow reads more formats than it writes
        raise InputError(f"{path!r}: pictures are written as .png, .jpg or .webp.")
    write_atomically(path, lambda file: picture.save(file, format=kind))


def make_file_name(text: str) -> str:
    """Return an explainer's name as a file name: "multiview(fully)" becomes multiview_fully."""
    return re.sub(r"[^\w.+-]+", "_", text).strip("_")


def write_atomically(path: str, write: Any) -> None:
    """Call `write(file)` on a temporary file beside `path`, and rename it to `path`.

    Raises:
        InputError: the folder is missing or not writable, or the disk is full.
    """
    beside = f"{path}.{os.getpid()}.part"
    try:
        with open(beside, "wb") as file:
            write(file)
        os.replace(beside, path)
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a picture that is too large for the format
        raise InputError(f"{path!r} cannot be written ({getattr(error, 'strerror', None) or error}).") from None
    finally:
        if os.path.exists(beside):
            os.remove(beside)
