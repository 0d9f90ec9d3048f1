"""PASCAL VOC 2012, and whatever lies in its layout."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from camplug.errors import InputError
from camplug.explain.photo import read_photo
from camplug.wsss.data.dataset import SegmentationData
from camplug.wsss.data.files import check_size, check_unique, existing_folder, read_mask, read_text
from camplug.wsss.identity import file_digest

if TYPE_CHECKING:
    from PIL.Image import Image

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
LISTS = Path("ImageSets", "Segmentation")


class VOC(SegmentationData):
    """PASCAL VOC 2012: 20 classes, photographs in JPEGImages/, masks as palette PNGs.

    Args:
        root: VOCdevkit/VOC2012, or one of the folders above it.
        split: a list in ImageSets/Segmentation ("train", "val", "trainval"), or the path of a text file with one id
            per line (the common "/JPEGImages/ID.jpg /SegmentationClassAug/ID.png" is read too).
        masks: the folder of the masks, "SegmentationClass" (the official ones) or "SegmentationClassAug" (those of
            SBD), or None to go without. It need not hold a mask for every image.
        labels: where image-level labels come from: "xml" takes every object that Annotations/ names, the difficult
            ones too, and opens no mask; "masks" takes the classes that have pixels in the mask. The two may differ.

    Raises:
        InputError: a folder is missing; no such split, or an empty one, or one that names an image twice.
    """

    classes = VOC_CLASSES

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str | os.PathLike[str] = "train",
        masks: str | None = "SegmentationClass",
        labels: Literal["xml", "masks"] = "xml",
    ) -> None:
        self.root = find_voc(root)
        self.ids = read_split(self.root, os.fspath(split))
        if labels not in ("xml", "masks"):
            raise InputError(f'labels={labels!r}: labels come from "xml" or from "masks".')
        if labels == "xml" and not (self.root / "Annotations").is_dir():
            raise InputError(f'{str(self.root)!r} has no folder Annotations; with labels="masks" none is needed.')
        if labels == "masks" and masks is None:
            raise InputError('labels="masks" needs masks; name their folder, as masks="SegmentationClass".')
        if masks is not None and not (self.root / masks).is_dir():
            raise InputError(f"{str(self.root)!r} has no folder {masks}; masks=None goes without masks.")
        self._masks = None if masks is None else self.root / masks
        self._labels_from = labels
        self.has_masks = masks is not None

    def labels(self, i: int) -> tuple[int, ...]:
        """The classes of image i, sorted, from its XML or its mask; see `SegmentationData.labels`."""
        name = self.ids[self._checked(i)]
        if self._labels_from == "xml":
            return read_objects(self.root / "Annotations" / f"{name}.xml")
        return tuple(int(c) - 1 for c in np.unique(self._read_mask(i)) if c not in (0, self.ignore))

    def photo(self, i: int) -> Image:
        """Image i, upright RGB; see `SegmentationData.photo`."""
        return read_photo(self._photo_path(i))

    def mask(self, i: int) -> NDArray[np.uint8]:
        """Image i's mask, uint8 [H,W]; see `SegmentationData.mask`."""
        mask = self._read_mask(i)
        check_size(self._photo_path(i), (mask.shape[1], mask.shape[0]), f"the mask {str(self._mask_path(i))!r}")
        return mask

    def photo_file(self, i: int) -> Path:
        """Return the file of image i's photograph."""
        return self._photo_path(i)

    def mask_digest(self, i: int) -> str:
        """Return a digest of the bytes of image i's mask."""
        return file_digest(self._mask_path(i), "mask")

    def _read_mask(self, i: int) -> NDArray[np.uint8]:
        return read_mask(self._mask_path(i), len(self.classes))

    def _photo_path(self, i: int) -> Path:
        return self.root / "JPEGImages" / f"{self.ids[self._checked(i)]}.jpg"

    def _mask_path(self, i: int) -> Path:
        if self._masks is None:
            raise InputError("this data set was opened with masks=None and has no masks.")
        return self._masks / f"{self.ids[self._checked(i)]}.png"


def find_voc(root: str | os.PathLike[str]) -> Path:
    """The folder that holds JPEGImages: root itself, VOC2012 in it, or VOCdevkit/VOC2012 in it.

    Raises:
        InputError: there is none.
    """
    folder = existing_folder(root)
    for place in (folder, folder / "VOC2012", folder / "VOCdevkit" / "VOC2012"):
        if (place / "JPEGImages").is_dir():
            return place
    raise InputError(
        f"{str(root)!r} is not VOC 2012: there is no folder JPEGImages in it, nor in VOC2012 or VOCdevkit/VOC2012 "
        "below it."
    )


def read_split(root: Path, split: str) -> tuple[str, ...]:
    """The ids of a split: a list's name in ImageSets/Segmentation, or the path of a text file.

    Raises:
        InputError: no such list; an empty one; a line that is no id; an id that comes twice.
    """
    path = root / LISTS / f"{split}.txt"
    if os.path.basename(split) != split or not path.is_file():
        path = Path(split).expanduser()
    if not path.is_file():
        known = sorted(p.stem for p in (root / LISTS).glob("*.txt"))
        raise InputError(
            f"there is no split {split!r}; {str(root / LISTS)!r} has {', '.join(known) or 'none'}, and the path of a "
            "text file with one id per line does as well."
        )
    ids = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        # "/JPEGImages/ID.jpg /SegmentationClass/ID.png" is fine; "ID -1" of ImageSets/Main is not a list of images
        if len(words) > 2 or (len(words) == 2 and PurePosixPath(words[0]).stem != PurePosixPath(words[1]).stem):
            raise InputError(f"{str(path)!r}, line {number}: {line.strip()!r} is not one image's id.")
        ids.append(PurePosixPath(words[0]).stem)
    if not ids:
        raise InputError(f"the split {str(path)!r} is empty; it must list at least one id.")
    check_unique(ids, f"the split {str(path)!r}")
    return tuple(ids)


def read_objects(path: Path) -> tuple[int, ...]:
    """The class indices of all objects that a VOC annotation names, sorted.

    Raises:
        InputError: the file is missing, damaged, or names something that is not among the 20 classes.
    """
    try:
        objects = ET.parse(path).getroot().findall("object")
    except FileNotFoundError:
        raise InputError(f"there is no annotation {str(path)!r}.") from None
    except Exception as error:  # not XML, an unknown encoding, a folder, no permission
        raise InputError(f"the annotation {str(path)!r} is damaged or cannot be read ({error}).") from None
    names = {o.findtext("name", "").strip() for o in objects}
    unknown = sorted(names - set(VOC_CLASSES))
    if unknown:
        raise InputError(
            f"the annotation {str(path)!r} names {unknown[0]!r}, which is not one of VOC's 20 classes "
            f"({', '.join(VOC_CLASSES)})."
        )
    return tuple(sorted(VOC_CLASSES.index(name) for name in names))
