"""Abstract base class of data sets: photographs, image-level labels and masks."""

from __future__ import annotations

import hashlib
import operator
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from camplug.errors import InputError
from camplug.images.photo import check_photo
from camplug.wsss.store.identity import make_digest, make_file_digest

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image


IGNORE = 255  # label of ignored pixels


class SegmentationData(ABC):
    """Images with image-level labels and masks, indexed from 0.

    The constructor raises errors about missing folders and missing or empty splits. An error about one image
    (`InputError`) is raised when the image is read, so that long jobs can report it and continue.

    Attributes:
        classes: names of the C foreground classes; class c is the value c + 1 in masks, 0 is background.
        ids: unique image names without folder and ending; result files are named by them ("/" means a subfolder).
        has_labels: True if image-level labels exist; those of single images may be missing.
        has_masks: True if masks exist; those of single images may be missing.
        ignore: value of ignored pixels in masks.
    """

    classes: tuple[str, ...]
    ids: tuple[str, ...]
    has_labels: bool = True
    has_masks: bool
    ignore: ClassVar[int] = IGNORE

    @property
    def image_numbers(self) -> tuple[Any, ...]:
        """Numbers of the images in COCO files, 1 to n unless the data set has its own."""
        return tuple(range(1, len(self) + 1))

    @property
    def class_numbers(self) -> tuple[Any, ...]:
        """Numbers of the classes in COCO files, 1 to C unless the data set has its own."""
        return tuple(range(1, len(self.classes) + 1))

    @abstractmethod
    def labels(self, i: int) -> tuple[int, ...]:
        """Return the foreground classes in image i, as sorted indices into `classes`.

        Raises:
            InputError: image i does not exist, or its labels are missing or unreadable.
        """

    @abstractmethod
    def photo(self, i: int) -> Image:
        """Load image i, upright RGB.

        Raises:
            InputError: image i does not exist, or the file is missing or damaged.
        """

    def check_photo(self, i: int) -> None:
        """Check that a photograph's file exists and is an image, without decoding it.

        Raises:
            InputError: image i does not exist, or the file is missing, empty or not an image.
        """
        self._check_index(i)
        file = self.photo_file(i)
        if file is not None:
            check_photo(file)

    @abstractmethod
    def mask(self, i: int) -> NDArray[np.uint8]:
        """Load the mask of image i, uint8 [H,W]: 0 background, c + 1 for class c, 255 ignored.

        H and W are those of the upright photograph; a mask of another size is an error.

        Raises:
            InputError: image i does not exist, or its mask is missing, damaged, of another size, or has other values.
        """

    def photo_file(self, i: int) -> Path | None:
        """Return the file of image i's photograph; None if it is not in a file."""
        return None

    def photo_digest(self, i: int) -> str:
        """Return a digest of image i's photograph: of its file's bytes, or of its pixels if it is not in a file.

        Digests of pixels begin with "pixels:"; those of different kinds cannot be compared.

        Raises:
            InputError: image i does not exist, or the file is missing.
        """
        file = self.photo_file(i)
        if file is not None:
            return make_file_digest(file, "photograph")
        photo = self.photo(i)
        return "pixels:" + make_digest([photo.size, hashlib.sha256(photo.tobytes()).hexdigest()])

    def label_digest(self, i: int) -> str:
        """Return a digest of the names of image i's classes, independent of the order of `classes`.

        Raises:
            InputError: see `labels`.
        """
        return make_digest(sorted(self.classes[c] for c in self.labels(i)))

    def mask_digest(self, i: int) -> str:
        """Return a digest of image i's mask.

        Raises:
            InputError: see `mask`.
        """
        mask = self.mask(i)
        return "pixels:" + make_digest([mask.shape, hashlib.sha256(mask.tobytes()).hexdigest()])

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        masks = "with" if self.has_masks else "without"
        return f"<{type(self).__name__}: {len(self)} images of {len(self.classes)} classes, {masks} masks>"

    def _check_index(self, i: int) -> int:
        """Return the index as an int; raise InputError if there is no such image."""
        try:
            index = operator.index(i)
        except TypeError:
            raise InputError(f"images are asked for by number, got {i!r}; `ids` tells which is which.") from None
        if not 0 <= index < len(self):
            raise InputError(f"image {index} does not exist; this data set has {len(self)}, counted from 0.")
        return index
