"""Random crops of photographs with the classes that they show, the same ones in every run of a seed."""

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
from camplug.wsss.train.crops import drawn_place
from camplug.wsss.train.unreadable import Substitutes


class Picture(NamedTuple):
    """A crop as pixels [3,S,S], uint8; its classes [C], 1 or 0, float; the image's number in the data set."""

    pixels: Tensor
    present: Tensor
    image: Tensor


class ClassifierCrops(Dataset[Picture]):
    """Rescaled, mirrored and cropped photographs beside their image-level labels, as IRN's classifier is trained on.

    The longer side becomes a random number of pixels (bicubic), the photograph is mirrored every other time, and a
    square is cut at a random place; where the photograph is smaller, it lies at a random place in a square of the mean
    colour. The labels are the whole image's, whatever part is cut out. Masks are never read.

    An item is asked for by (epoch, number) and depends on them and the seed alone, not on the order or the process.
    Where a photograph cannot be read, another one takes its place, with its own labels and number: one that shares a
    class with it, if there is one.

    Args:
        data: the photographs and their labels.
        crop: side of the square in pixels.
        sides: the smallest and the largest longer side in pixels.
        mean: the colour around photographs, each in 0 to 1.
        seed: of everything random.
        indices: which images; all by default.
        still: nothing is random: the longer side is `crop`, the photograph lies in the middle. One that cannot be read
            has the number -1, and `collate` leaves it out.
        allow_missing: see `camplug.wsss.train.unreadable.Substitutes`.

    Attributes:
        substitutes: what could not be read.

    Raises:
        InputError: options out of range, or no image.
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
        still: bool = False,
        allow_missing: bool = False,
    ) -> None:
        if crop < 1:
            raise InputError(f"crop={crop}; give the side in pixels, at least 1.")
        if not 1 <= sides[0] <= sides[1]:
            raise InputError(f"sides={tuple(sides)}; give the smallest and the largest longer side in pixels.")
        self.data, self.crop, self.sides, self.seed, self.still = data, crop, sides, seed, still
        self.substitutes = Substitutes(data, data.photo, allow_missing)
        self._classes: dict[int, tuple[int, ...]] = {}
        self.fill = [round(255 * m) for m in mean]
        self.indices = list(range(len(data)) if indices is None else indices)
        if not self.indices:
            raise InputError("there is no image to train on.")

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, which: tuple[int, int]) -> Picture:
        epoch, number = which
        return self.picture(epoch, self.indices[number])

    def picture(self, epoch: int, i: int, slot: int = 0, classes: Sequence[int] = ()) -> Picture:
        """The crop of image i in an epoch.

        Args:
            epoch: number of the epoch.
            i: number of the image in the data set.
            slot: another one draws another crop.
            classes: those that a substitute had best show; by default the image's own.
        """
        key = (self.seed, epoch, i, slot) if slot else (self.seed, epoch, i)
        if self.still:
            return self._still(i)
        wanted = set(classes) & set(self.classes_of(i)) or set(self.classes_of(i))
        j, photo = self.substitutes.read(
            i, self.indices, (self.seed, epoch, i, slot), lambda other: bool(wanted & set(self.classes_of(other)))
        )
        return self._picture(j, photo, np.random.default_rng(key))

    def classes_of(self, i: int) -> tuple[int, ...]:
        """The classes of image i, read once."""
        if i not in self._classes:
            self._classes[i] = self.data.labels(i)
        return self._classes[i]

    def _still(self, i: int) -> Picture:
        rng = np.random.default_rng(self.seed)
        try:
            return self._picture(i, self.data.photo(i), rng)
        except InputError as error:
            self.substitutes.note(i, error)
        return self._picture(i, Image.new("RGB", (1, 1)), rng)._replace(image=torch.tensor(-1))

    def _picture(self, i: int, photo: Image.Image, rng: np.random.Generator) -> Picture:
        present = torch.zeros(len(self.data.classes))
        present[list(self.classes_of(i))] = 1
        return Picture(torch.from_numpy(self._cut(photo, rng)), present, torch.tensor(i))

    @staticmethod
    def collate(items: list[Picture]) -> Picture:
        """A batch of those pictures that could be read; it may be empty."""
        kept = torch.tensor([int(item.image) >= 0 for item in items])
        return Picture(*(torch.stack(parts)[kept] for parts in zip(*items, strict=True)))

    def _cut(self, photo: Image.Image, rng: np.random.Generator) -> NDArray[np.uint8]:
        longer = self.crop if self.still else int(rng.integers(self.sides[0], self.sides[1] + 1))
        scale = longer / max(photo.size)
        width, height = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
        pixels = np.asarray(photo.resize((width, height), Image.Resampling.BICUBIC))
        if not self.still and rng.random() < 0.5:
            pixels = pixels[:, ::-1]
        if self.still:
            top, left, rows, cols, y, x = (self.crop - height) // 2, (self.crop - width) // 2, height, width, 0, 0
        else:
            top, left, rows, cols, y, x = drawn_place(height, width, self.crop, rng)
        square = np.empty((3, self.crop, self.crop), np.uint8)
        square[:] = np.array(self.fill, np.uint8)[:, None, None]
        square[:, top : top + rows, left : left + cols] = pixels[y : y + rows, x : x + cols].transpose(2, 0, 1)
        return square
