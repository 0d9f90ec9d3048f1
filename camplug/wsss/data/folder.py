"""Custom data set: a folder of photographs with a file of labels, or with one subfolder per class."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from camplug.errors import InputError
from camplug.images.photo import list_photo_files
from camplug.wsss.data.class_list import check_class_names, check_separated, is_no_class, read_class_names
from camplug.wsss.data.file_data import FileData
from camplug.wsss.data.masks import MaskCode, MaskFiles
from camplug.wsss.data.read_files import ImageFiles, check_unique, resolve_folder, strip_ending
from camplug.wsss.data.tables import LABEL_FILES, read_labels

CLASS_FILES = ("classes.txt", "class_names.txt")
NOT_CLASSES = ("images", "masks", "annotations")  # subfolders that are not classes


class Folder(FileData):
    """Photographs in images/ or the folder itself, labels in labels.csv or labels.json, optional masks in masks/.

    The images are those in the file of labels, in its order, with or without endings; other photographs are left out.
    An image may have no labels. Without such a file there is one subfolder of photographs per class, like
    torchvision's ImageFolder, in alphabetical order ("background" holds images without a class).

    - labels.csv, one row per image: with the header `image,labels` and names separated by ";" (they may contain
      spaces), or the header `image,cat,dog,...` and 0 or 1 for every class.
    - labels.json: `{"a.jpg": ["cat", "dog"], "b.jpg": []}`.
    - classes.txt (or class_names.txt), one name per line, defines the order of classes; without it they are sorted by
      name. Lines `__ignore__` and `background` at its beginning are not classes.
    - masks/: PNGs (palette or 8-bit grey) named like the photographs. They need classes.txt: its first class is the
      value 1.

    Args:
        root: folder of the data set.
        mask_values: meaning of mask values, such as "255=crack,0=background"; see `MaskCode`.
        palette: file with the colours of classes, for RGB masks; see `MaskCode`.
        labels: .csv or .json file with the labels, in place of the folder's own.

    Raises:
        InputError: a file is missing or damaged, names a class that classes.txt lacks, or an image twice; none of the
            photographs exists; mask values or colours are not classes.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        mask_values: str | Mapping[Any, str] | None = None,
        palette: str | os.PathLike[str] | None = None,
        labels: str | os.PathLike[str] | None = None,
    ) -> None:
        self.root = resolve_folder(root)
        photos = self.root / "images" if (self.root / "images").is_dir() else self.root
        self.has_masks = (self.root / "masks").is_dir()
        shown, path = self._read_labels(photos) if labels is None else (read_labels(Path(labels)), Path(labels))
        self.classes = self._list_classes(shown, path)
        index = {name: c for c, name in enumerate(self.classes)}
        self._labels = [tuple(sorted({index[name] for name in names})) for names in shown.values()]
        self._photos = ImageFiles(photos)
        self._names = list(shown)
        self.ids = tuple(_make_id(name, path) for name in shown)
        check_unique(self.ids, f"{str(path)!r}, endings aside,")
        if not any(self._photos.find(name).is_file() for name in self._names):
            raise InputError(
                f"none of the images that {str(path)!r} names is in {str(photos)!r}; the first is {self._names[0]!r}."
            )
        self._mask_names = ImageFiles(self.root / "masks")
        code = MaskCode(self.classes, mask_values, palette)
        self._masks = MaskFiles(code, self._get_mask_path, self.ids, self.labels, f"folder:{root}")

    def _read_labels(self, photos: Path) -> tuple[dict[str, list[str]], Path]:
        """Read the class names of the images; return them with the file or folder they come from."""
        found = [self.root / name for name in LABEL_FILES if (self.root / name).is_file()]
        if len(found) == 2:
            raise InputError(f"{str(self.root)!r} has both labels.csv and labels.json; keep one of them.")
        if found:
            return read_labels(found[0]), found[0]
        for folder in dict.fromkeys((self.root, photos)):
            labels = read_folder_labels(folder, below=photos)
            if labels:
                return labels, folder
        raise InputError(
            f"{str(self.root)!r} has neither labels.csv nor labels.json, nor a subfolder of photographs for every "
            "class; photographs without labels are photos:PATH (camplug segment, camplug seeds --labels predicted)."
        )

    def _list_classes(self, labels: dict[str, list[str]], path: Path) -> tuple[str, ...]:
        used = sorted({name for names in labels.values() for name in names})
        listed = next((self.root / name for name in CLASS_FILES if (self.root / name).is_file()), None)
        if listed is not None:
            classes = read_class_names(listed)
            unknown = sorted(set(used) - set(classes))
            if unknown:
                image = next(image for image, names in labels.items() if unknown[0] in names)
                raise InputError(f"{str(path)!r} names {unknown[0]!r} for {image!r}, which is not in {str(listed)!r}.")
            return classes
        if self.has_masks:
            raise InputError(
                f"{str(self.root)!r} has masks, which hold classes by number, and no classes.txt; it must name the "
                "classes one per line, number 1 first."
            )
        check_separated(used, repr(str(path)))
        check_class_names(used, repr(str(path)))
        return tuple(used)

    def labels(self, i: int) -> tuple[int, ...]:
        """Return the classes of image i, sorted; see `SegmentationData.labels`."""
        return self._labels[self._check_index(i)]

    def photo_file(self, i: int) -> Path:
        """Return the file of image i's photograph."""
        return self._photos.find(self._names[self._check_index(i)])

    def _get_mask_path(self, i: int) -> Path:
        if not self.has_masks:
            raise InputError(f"{str(self.root)!r} has no folder masks.")
        return self._mask_names.find(f"{self.ids[i]}.png")


def read_folder_labels(folder: Path, below: Path) -> dict[str, list[str]]:
    """Read the labels of photographs in one subfolder per class, at any depth; empty if there are no such subfolders.

    Args:
        folder: folder with the subfolders.
        below: folder that image names are relative to.
    """
    found: dict[str, list[str]] = {}
    for place in sorted(folder.iterdir()):
        if not place.is_dir() or place.name in NOT_CLASSES or place.name.startswith("."):
            continue
        photos = list_photo_files(place)
        if not photos:
            warnings.warn(f"the folder {str(place)!r} of a class holds no photograph.", stacklevel=2)
        names = [] if is_no_class(place.name) else [place.name]
        found |= {p.relative_to(below).as_posix(): names for p in photos}
    return found


def _make_id(name: str, path: Path) -> str:
    """Return a photograph's path without its ending; it must stay in the folder, as results are named by it."""
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts or not place.name:
        raise InputError(f"{str(path)!r} names {name!r}; images are named within their folder.")
    return strip_ending(place.as_posix())
