"""PASCAL VOC 2012, and data sets with its layout."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from camplug.errors import InputError
from camplug.images.photo import SUFFIXES
from camplug.wsss.data.class_list import check_class_names, is_no_class, read_class_names
from camplug.wsss.data.coco_layout import get_only_split
from camplug.wsss.data.file_data import FileData
from camplug.wsss.data.folder import CLASS_FILES
from camplug.wsss.data.masks import MaskCode, MaskFiles, read_palette
from camplug.wsss.data.read_files import ImageFiles, check_unique, read_text, resolve_folder, strip_ending
from camplug.wsss.data.tables import read_labels

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
LISTS = Path("ImageSets", "Segmentation")
LABELMAP = "labelmap.txt"  # CVAT: names and colours
SOURCES = ("xml", "masks", "none")  # sources of labels other than files


class VOC(FileData):
    """PASCAL VOC 2012 and data sets with its layout: photographs in JPEGImages/, masks as PNGs.

    The classes are VOC's 20, unless they are given or named by labelmap.txt (CVAT, with the colours of masks),
    class_names.txt (labelme2voc) or classes.txt in the folder.

    Args:
        root: VOCdevkit/VOC2012, or one of the folders above it.
        split: list in ImageSets/Segmentation ("train", "val", "trainval"), or path of a text file with one id per line
            ("/JPEGImages/ID.jpg /SegmentationClassAug/ID.png" is allowed, too). None: "train", or the only list, or all
            photographs if there are no lists.
        masks: folder of the masks, "SegmentationClass" (official) or "SegmentationClassAug" (SBD), or None for no
            masks. Masks of single images may be missing.
        labels: source of image-level labels: "xml" (all objects in Annotations/, difficult ones included), "masks" (the
            classes with pixels in the mask; they may differ from "xml"), "none", or a file like `Folder`'s labels.csv
            or labels.json.
        classes: class names, or a file with one per line.
        mask_values: meaning of mask values, such as "255=crack,0=background"; see `MaskCode`.
        palette: file with the colours of classes, for RGB masks; see `MaskCode`.

    Raises:
        InputError: a folder or the split is missing, the split is empty or names an image twice, or class names, mask
            values or colours are invalid.
    """

    classes: tuple[str, ...] = VOC_CLASSES

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str | os.PathLike[str] | None = None,
        masks: str | None = "SegmentationClass",
        *,
        labels: str = "xml",
        classes: str | os.PathLike[str] | Sequence[str] | None = None,
        mask_values: str | Mapping[Any, str] | None = None,
        palette: str | os.PathLike[str] | None = None,
    ) -> None:
        self.root = find_voc(root)
        self.ids = read_split(self.root, None if split is None else os.fspath(split))
        colours = self.root / LABELMAP
        self.classes = find_classes(self.root, classes)
        self._check_sources(labels, masks)
        self._table = self._read_table(labels) if labels not in SOURCES else {}
        self._labels_from = labels
        self.has_masks, self.has_labels = masks is not None, labels != "none"
        self._photos, self._mask_names = ImageFiles(self.root / "JPEGImages"), ImageFiles(self.root / (masks or ""))
        if palette is None and classes is None and colours.is_file():
            palette = colours
        known = self.labels if labels not in ("masks", "none") else None
        code = MaskCode(self.classes, mask_values, palette)
        self._masks = MaskFiles(code, self._get_mask_path, self.ids, known, f"voc:{root}")

    def _check_sources(self, labels: str, masks: str | None) -> None:
        if labels == "xml" and not (self.root / "Annotations").is_dir():
            raise InputError(
                f'{str(self.root)!r} has no folder Annotations; with labels="masks" none is needed, labels="none" goes '
                "without image labels, and a file of labels can be given."
            )
        if labels == "masks" and masks is None:
            raise InputError('labels="masks" needs masks; name their folder, as masks="SegmentationClass".')
        if masks is not None and not (self.root / masks).is_dir():
            raise InputError(f"{str(self.root)!r} has no folder {masks}; masks=None goes without masks.")

    def _read_table(self, labels: str) -> dict[str, tuple[int, ...]]:
        """Read the classes by image id from a file."""
        places = [place for place in (self.root / labels, Path(labels).expanduser()) if place.is_file()]
        if not places:
            raise InputError(f'labels={labels!r}: labels come from "xml", "masks", "none", or a .csv or .json file.')
        index = {name: c for c, name in enumerate(self.classes)}
        found = {}
        for image, names in read_labels(places[0]).items():
            unknown = [name for name in names if name not in index]
            if unknown:
                raise InputError(f"{str(places[0])!r} names {unknown[0]!r} for {image!r}, which is no class.")
            found[strip_ending(image)] = tuple(sorted({index[name] for name in names}))
        return found

    def labels(self, i: int) -> tuple[int, ...]:
        """Return the classes of image i, sorted, from its XML, its mask or a file; see `SegmentationData.labels`."""
        name = self.ids[self._check_index(i)]
        if self._labels_from == "xml":
            return read_objects(self.root / "Annotations" / f"{name}.xml", self.classes)
        if self._labels_from == "masks":
            return tuple(int(c) - 1 for c in np.unique(self._masks.read(i)) if c not in (0, self.ignore))
        if not self.has_labels:
            raise InputError(
                f"{str(self.root)!r} has neither Annotations nor labels.csv; labels=masks takes the classes in the "
                f"masks, as in 'voc:{self.root}?labels=masks'."
            )
        if name not in self._table:
            raise InputError(f"there are no labels of {name!r}.")
        return self._table[name]

    def photo_file(self, i: int) -> Path:
        """Return the file of image i's photograph."""
        return self._photos.find(f"{self.ids[self._check_index(i)]}.jpg")

    def _get_mask_path(self, i: int) -> Path:
        if not self.has_masks:
            raise InputError("this data set was opened with masks=None and has no masks.")
        return self._mask_names.find(f"{self.ids[i]}.png")


def find_voc(root: str | os.PathLike[str]) -> Path:
    """Find the folder that contains JPEGImages: root, VOC2012 in it, or VOCdevkit/VOC2012 in it.

    Raises:
        InputError: there is no such folder.
    """
    folder = resolve_folder(root)
    for place in (folder, folder / "VOC2012", folder / "VOCdevkit" / "VOC2012"):
        if (place / "JPEGImages").is_dir():
            return place
    raise InputError(
        f"{str(root)!r} is not VOC 2012: there is no folder JPEGImages in it, nor in VOC2012 or VOCdevkit/VOC2012 "
        "below it."
    )


def find_classes(root: Path, given: str | os.PathLike[str] | Sequence[str] | None) -> tuple[str, ...]:
    """Return the class names: the given ones, those of a file in the folder, or VOC's 20.

    Args:
        root: folder of the data set.
        given: class names, or a file with one per line.

    Raises:
        InputError: a file cannot be read, or names are invalid.
    """
    if isinstance(given, (str, os.PathLike)):
        return read_class_names(Path(given).expanduser())
    if given is not None:
        check_class_names(list(given), "classes=")
        return tuple(given)
    if (root / LABELMAP).is_file():
        names = [name for name, _ in read_palette(root / LABELMAP) if not is_no_class(name)]
        check_class_names(names, repr(str(root / LABELMAP)))
        return tuple(names)
    listed = next((root / name for name in CLASS_FILES if (root / name).is_file()), None)
    return VOC_CLASSES if listed is None else read_class_names(listed)


def read_split(root: Path, split: str | None) -> tuple[str, ...]:
    """Read the ids of a split.

    Args:
        root: folder of the data set.
        split: name of a list in ImageSets/Segmentation, or path of a text file. None: "train", or the only list, or
            the names of all photographs if there are no lists.

    Raises:
        InputError: the list is missing or empty, a line is not an id, or an id occurs twice.
    """
    known = sorted(p.stem for p in (root / LISTS).glob("*.txt"))
    if split is None and not known:
        names = sorted(p.name for p in (root / "JPEGImages").iterdir() if p.suffix.lower() in SUFFIXES)
        if not names:
            raise InputError(f"{str(root / 'JPEGImages')!r} holds no photographs.")
        return tuple(dict.fromkeys(strip_ending(name) for name in names))
    if split is None:
        split = get_only_split(known) or "train"
    path = root / LISTS / f"{split}.txt"
    if os.path.basename(split) != split or not path.is_file():
        path = Path(split).expanduser()
    if not path.is_file():
        raise InputError(
            f"there is no split {split!r}; {str(root / LISTS)!r} has {', '.join(known) or 'none'}, and the path of a "
            "text file with one id per line does as well."
        )
    ids = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = [strip_ending(PurePosixPath(word).name) for word in line.split()]
        if not words:
            continue
        # "/JPEGImages/ID.jpg /SegmentationClass/ID.png" is allowed; "ID -1" of ImageSets/Main is not a list of images
        if len(words) > 2 or words[0] != words[-1] or not words[0]:
            raise InputError(f"{str(path)!r}, line {number}: {line.strip()!r} is not one image's id.")
        ids.append(words[0])
    if not ids:
        raise InputError(f"the split {str(path)!r} is empty; it must list at least one id.")
    check_unique(ids, f"the split {str(path)!r}")
    return tuple(ids)


def read_objects(path: Path, classes: tuple[str, ...]) -> tuple[int, ...]:
    """Read the class indices of all objects in a VOC annotation, sorted.

    Raises:
        InputError: the file is missing, damaged, or names an unknown class.
    """
    try:
        objects = ET.parse(path).getroot().findall("object")
    except FileNotFoundError:
        raise InputError(f"there is no annotation {str(path)!r}.") from None
    except Exception as error:  # not XML, an unknown encoding, a folder, no permission
        raise InputError(f"the annotation {str(path)!r} is damaged or cannot be read ({error}).") from None
    names = {o.findtext("name", "").strip() for o in objects}
    unknown = sorted(names - set(classes))
    if unknown:
        if classes == VOC_CLASSES:
            has = (
                f"which is not one of VOC's 20 classes ({', '.join(VOC_CLASSES)}); name your own in classes.txt in the "
                "folder of JPEGImages, one per line, or with classes=FILE."
            )
        else:
            has = f"which is no class; the classes are {', '.join(classes)}."
        raise InputError(f"the annotation {str(path)!r} names {unknown[0]!r}, {has}")
    return tuple(sorted(classes.index(name) for name in names))
