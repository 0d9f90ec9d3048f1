"""Overlays of a folder of labels on its photographs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from camplug.errors import InputError

if TYPE_CHECKING:
    from camplug.wsss.data import SegmentationData
    from camplug.wsss.pseudo import LabelFolder


def check_overlays(folder: Path, labels: Path) -> None:
    """Raise `InputError` for a folder of overlays that is the folder of the labels or lies in it."""
    if labels.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise InputError(f"--overlays {str(folder)!r} lies in the folder of the label pictures; give another one.")


def write_overlays(folder: Path, data: SegmentationData, labels: LabelFolder, shard: tuple[int, int]) -> int:
    """Write a picture with legend for every image of a share whose labels are newer than it; return their number.

    Images without labels are left out.

    Raises:
        InputError: the folder cannot be written, or labels are damaged.
    """
    import numpy as np

    from camplug.images.save import save_picture
    from camplug.show.labels import overlay_labels

    made = 0
    for i in range(shard[0], len(data), shard[1]):
        source, file = labels.get_path(data.ids[i]), folder / f"{data.ids[i]}.png"
        if not source.is_file() or (file.is_file() and file.stat().st_mtime > source.stat().st_mtime):
            continue
        picture = overlay_labels(np.asarray(data.photo(i)), labels.load(data.ids[i]), data.classes)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"the folder {str(file.parent)!r} cannot be made ({error.strerror}).") from None
        save_picture(picture, str(file))
        made += 1
    return made
