"""What every data set offers: photographs, their image-level labels and, where they exist, their masks."""

from __future__ import annotations

import hashlib
import operator
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from camplug.errors import InputError
from camplug.explain.photo import check_photo
from camplug.wsss.store.identity import make_digest, make_file_digest

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image


IGNORE = 255  # labels of pixels that count neither way


class SegmentationData(ABC):
    """Images with image-level labels and, where they exist, masks, counted from 0.

    A split that does not exist or is empty, or a missing folder, is told when the data set is made; one broken image is
    told (as `InputError`) when it is asked for, so that a long run can list it and go on.

    Attributes:
        classes: names of the C foreground classes; class c is the value c + 1 in masks, 0 is background.
        ids: one name per image, without folder and ending, all different; fit for the names of result files ("/" in
            it, where `Folder` has subfolders, means a subfolder there too).
        has_labels: whether image-level labels exist at all; one image's may still be missing.
        has_masks: whether masks exist at all; one image's mask may still be missing.
        ignore: the value of mask pixels that count neither way.
    """

    classes: tuple[str, ...]
    ids: tuple[str, ...]
    has_labels: bool = True
    has_masks: bool
    ignore: ClassVar[int] = IGNORE

    @abstractmethod
    def labels(self, i: int) -> tuple[int, ...]:
        """The foreground classes in image i, as indices into `classes`, sorted; () where there are none.

        Raises:
            InputError: no image i, or its labels are missing or cannot be read.
        """

    @abstractmethod
    def photo(self, i: int) -> Image:
        """Image i, upright RGB.

        Raises:
            InputError: no image i, or the file is missing or damaged.
        """

    def check_photo(self, i: int) -> None:
        """Refuse a photograph whose file is missing, empty or no image, without decoding it.

        Raises:
            InputError: no image i, or so it is.
        """
        self._check_index(i)
        file = self.photo_file(i)
        if file is not None:
            check_photo(file)

    @abstractmethod
    def mask(self, i: int) -> NDArray[np.uint8]:
        """The classes of image i's pixels, uint8 [H,W]: 0 background, c + 1 for class c, 255 ignored.

        H and W are the upright photograph's; a mask of another size is refused, never stretched.

        Raises:
            InputError: no image i, no mask of it, or one that is damaged, of another size, or holds other values.
        """

    def photo_file(self, i: int) -> Path | None:
        """Return the file of image i's photograph; None where it lies in no file."""
        return None

    def photo_digest(self, i: int) -> str:
        """Return a digest of image i's photograph: of its file's bytes, or of its pixels where there is no file.

        Digests of another kind begin with its name: "pixels:". Those of two kinds cannot be compared.

        Raises:
            InputError: no image i, or the file is missing.
        """
        file = self.photo_file(i)
        if file is not None:
            return make_file_digest(file, "photograph")
        photo = self.photo(i)
        return "pixels:" + make_digest([photo.size, hashlib.sha256(photo.tobytes()).hexdigest()])

    def label_digest(self, i: int) -> str:
        """Return a digest of the names of image i's classes, whatever the order of the data set's classes.

        Raises:
            InputError: as `labels`.
        """
        return make_digest(sorted(self.classes[c] for c in self.labels(i)))

    def mask_digest(self, i: int) -> str:
        """Return a digest of image i's mask.

        Raises:
            InputError: as `mask`.
        """
        mask = self.mask(i)
        return "pixels:" + make_digest([mask.shape, hashlib.sha256(mask.tobytes()).hexdigest()])

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        masks = "with" if self.has_masks else "without"
        return f"<{type(self).__name__}: {len(self)} images of {len(self.classes)} classes, {masks} masks>"

    def _check_index(self, i: int) -> int:
        """The index, if there is such an image."""
        try:
            index = operator.index(i)
        except TypeError:
            raise InputError(f"images are asked for by number, got {i!r}; `ids` tells which is which.") from None
        if not 0 <= index < len(self):
            raise InputError(f"image {index} does not exist; this data set has {len(self)}, counted from 0.")
        return index
