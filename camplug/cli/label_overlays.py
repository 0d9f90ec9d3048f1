"""Overlays of a folder of labels on its photographs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from camplug.errors import InputError

if TYPE_CHECKING:
    from camplug.wsss.data import SegmentationData
    from camplug.wsss.pseudo import LabelFolder
    from camplug.wsss.store.picture_folder import PictureFolder


def check_overlays(folder: Path, labels: Path) -> None:
    """Raise `InputError` for a folder of overlays that is the folder of the labels or lies in it."""
    if labels.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise InputError(f"--overlays {str(folder)!r} lies in the folder of the label pictures; give another one.")


def write_overlays(folder: Path, data: SegmentationData, labels: LabelFolder, shard: tuple[int, int]) -> int:
    """Write a picture with legend for every image of a share that has none of these labels; return their number.

    Images without labels, and photographs that cannot be read, are left out, the latter with a warning.

    Raises:
        InputError: the folder cannot be written, or holds a file of this name that camplug has not made.
    """
    import numpy as np
    from PIL.PngImagePlugin import PngInfo

    from camplug.images.save import write_atomically
    from camplug.show.labels import overlay_labels
    from camplug.wsss.store.picture_folder import MADE_OF, PictureFolder

    made, overlays = 0, PictureFolder(folder)
    for i in range(shard[0], len(data), shard[1]):
        file = overlays.get_path(data.ids[i])
        if not labels.get_path(data.ids[i]).is_file():
            continue
        made_of = labels.compute_digest(data.ids[i])
        if _read_made_of(overlays, data.ids[i]) == made_of:
            continue
        try:
            picture = overlay_labels(np.asarray(data.photo(i)), labels.load(data.ids[i]), data.classes)
        except InputError as error:
            warnings.warn(f"there is no overlay of {data.ids[i]}: {error}", stacklevel=2)
            continue
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"the folder {str(file.parent)!r} cannot be made ({error.strerror}).") from None
        text = PngInfo()
        text.add_text(MADE_OF, made_of)
        write_atomically(str(file), lambda opened, p=picture, t=text: p.save(opened, "PNG", pnginfo=t))
        made += 1
    return made


def _read_made_of(overlays: PictureFolder, name: str) -> str | None:
    """Return the digest of the labels that an overlay shows; None if there is no whole overlay.

    Raises:
        InputError: camplug has not made the file.
    """
    if not overlays.is_whole(name):
        return None
    found = overlays.read_digest_text(name)
    if found is None:
        raise InputError(
            f"{str(overlays.get_path(name))!r} is there and is no overlay that camplug has made, so it is not "
            "replaced; give another folder with --overlays."
        )
    return found
