"""Reproducible random crops of photographs with image-level labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from camplug.errors import InputError
from camplug.wsss.data import SegmentationData
from camplug.wsss.train.crops import draw_place
from camplug.wsss.train.unreadable import Substitutes


class ClassifierCrop(NamedTuple):
    """Crop of a photograph, or a batch of crops.

    Attributes:
        pixels: uint8 [3,S,S].
        present: float [C], 1 for classes of the image, else 0.
        image: number of the image in the data set.
    """

    pixels: Tensor
    present: Tensor
    image: Tensor


class ClassifierCrops(Dataset[ClassifierCrop]):
    """Rescaled, mirrored and cropped photographs with their image-level labels, as in the training of IRN's classifier.

    The longer side becomes a random number of pixels (bicubic), the photograph is mirrored with probability 1/2, and a
    square is cut at a random position; a smaller photograph is put at a random position in a square of the mean colour.
    The labels are those of the whole image. Masks are never read.

    Items are indexed by (epoch, number) and depend on these and the seed only. An unreadable photograph is replaced by
    another one with its own labels and number, if possible one that shares a class with it.

    Args:
        data: photographs with labels.
        crop: side of the square in pixels.
        sides: smallest and largest longer side in pixels.
        mean: padding colour, three values in [0, 1].
        seed: seed of all random numbers.
        indices: numbers of the images to use; None uses all.
        deterministic: disable randomness: the longer side is `crop`, the photograph is centred. An unreadable one gets
            the number -1, and `collate` leaves it out.
        allow_missing: see `camplug.wsss.train.unreadable.Substitutes`.

    Attributes:
        substitutes: record of unreadable photographs.

    Raises:
        InputError: an option is out of range, or there is no image.
    """

    def __init__(
        self,
        data: SegmentationData,
        *,
        crop: int,
        sides: tuple[int, int],
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        seed: int = 0,
        indices: Sequence[int] | None = None,
        deterministic: bool = False,
        allow_missing: bool = False,
    ) -> None:
        if crop < 1:
            raise InputError(f"crop={crop}; give the side in pixels, at least 1.")
        if not 1 <= sides[0] <= sides[1]:
            raise InputError(f"sides={tuple(sides)}; give the smallest and the largest longer side in pixels.")
        self.data, self.crop, self.sides, self.seed, self.deterministic = data, crop, sides, seed, deterministic
        self.substitutes = Substitutes(data, data.photo, allow_missing)
        self._classes: dict[int, tuple[int, ...]] = {}
        self.fill = [round(255 * m) for m in mean]
        self.indices = list(range(len(data)) if indices is None else indices)
        if not self.indices:
            raise InputError("there is no image to train on.")

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, which: tuple[int, int]) -> ClassifierCrop:
        epoch, number = which
        return self.load_crop(epoch, self.indices[number])

    def load_crop(self, epoch: int, i: int, slot: int = 0, classes: Sequence[int] = ()) -> ClassifierCrop:
        """Load the crop of image i in an epoch.

        Args:
            epoch: number of the epoch.
            i: number of the image in the data set.
            slot: position in a group; each has a crop of its own.
            classes: preferred classes of a substitute; by default the image's own.
        """
        key = (self.seed, epoch, i, slot) if slot else (self.seed, epoch, i)
        if self.deterministic:
            return self._load_centred(i)
        wanted = set(classes) & set(self.get_classes(i)) or set(self.get_classes(i))
        j, photo = self.substitutes.read(
            i, self.indices, (self.seed, epoch, i, slot), lambda other: bool(wanted & set(self.get_classes(other)))
        )
        return self._make_crop(j, photo, np.random.default_rng(key))

    def get_classes(self, i: int) -> tuple[int, ...]:
        """Return the classes of image i, read once."""
        if i not in self._classes:
            self._classes[i] = self.data.labels(i)
        return self._classes[i]

    def _load_centred(self, i: int) -> ClassifierCrop:
        rng = np.random.default_rng(self.seed)
        try:
            return self._make_crop(i, self.data.photo(i), rng)
        except InputError as error:
            self.substitutes.note(i, error)
        return self._make_crop(i, Image.new("RGB", (1, 1)), rng)._replace(image=torch.tensor(-1))

    def _make_crop(self, i: int, photo: Image.Image, rng: np.random.Generator) -> ClassifierCrop:
        present = torch.zeros(len(self.data.classes))
        present[list(self.get_classes(i))] = 1
        return ClassifierCrop(torch.from_numpy(self._cut(photo, rng)), present, torch.tensor(i))

    @staticmethod
    def collate(items: list[ClassifierCrop]) -> ClassifierCrop:
        """Stack the readable crops into a batch, which may be empty."""
        kept = torch.tensor([int(item.image) >= 0 for item in items])
        return ClassifierCrop(*(torch.stack(parts)[kept] for parts in zip(*items, strict=True)))

    def _cut(self, photo: Image.Image, rng: np.random.Generator) -> NDArray[np.uint8]:
        longer = self.crop if self.deterministic else int(rng.integers(self.sides[0], self.sides[1] + 1))
        scale = longer / max(photo.size)
        width, height = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
        pixels = np.asarray(photo.resize((width, height), Image.Resampling.BICUBIC))
        if not self.deterministic and rng.random() < 0.5:
            pixels = pixels[:, ::-1]
        if self.deterministic:
            top, left, rows, cols, y, x = (self.crop - height) // 2, (self.crop - width) // 2, height, width, 0, 0
        else:
            top, left, rows, cols, y, x = draw_place(height, width, self.crop, rng)
        square = np.empty((3, self.crop, self.crop), np.uint8)
        square[:] = np.array(self.fill, np.uint8)[:, None, None]
        square[:, top : top + rows, left : left + cols] = pixels[y : y + rows, x : x + cols].transpose(2, 0, 1)
        return square
