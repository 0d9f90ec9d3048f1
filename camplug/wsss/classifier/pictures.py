"""Random crops of photographs with the classes that they show, the same ones in every run of a seed."""

from __future__ import annotations

import warnings
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


class Picture(NamedTuple):
    """A crop as pixels [3,S,S], uint8; its classes [C], 1 or 0, float; the image's number in the data set."""

    pixels: Tensor
    present: Tensor
    image: Tensor


class Pictures(Dataset[Picture]):
    """Rescaled, mirrored and cropped photographs beside their image-level labels, as IRN's classifier is trained on.

    The longer side becomes a random number of pixels (bicubic), the photograph is mirrored every other time, and a
    square is cut at a random place; where the photograph is smaller, it lies at a random place in a square of the mean
    colour. The labels are the whole image's, whatever part is cut out. Masks are never read.

    An item is asked for by (epoch, number) and depends on them and the seed alone, not on the order or the process.

    Args:
        data: the photographs and their labels.
        crop: side of the square in pixels.
        sides: the smallest and the largest longer side in pixels.
        mean: the colour around photographs, each in 0 to 1.
        seed: of everything random.
        indices: which images; all by default.
        still: nothing is random: the longer side is `crop`, the photograph lies in the middle.

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
    ) -> None:
        if crop < 1:
            raise InputError(f"crop={crop}; give the side in pixels, at least 1.")
        if not 1 <= sides[0] <= sides[1]:
            raise InputError(f"sides={tuple(sides)}; give the smallest and the largest longer side in pixels.")
        self.data, self.crop, self.sides, self.seed, self.still = data, crop, sides, seed, still
        self.fill = [round(255 * m) for m in mean]
        self.indices = list(range(len(data)) if indices is None else indices)
        if not self.indices:
            raise InputError("there is no image to train on.")

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, which: tuple[int, int]) -> Picture:
        epoch, number = which
        return self.picture(epoch, self.indices[number])

    def picture(self, epoch: int, i: int, slot: int = 0) -> Picture:
        """The crop of image i in an epoch; another `slot` draws another one."""
        rng = np.random.default_rng((self.seed, epoch, i, slot) if slot else (self.seed, epoch, i))
        try:
            photo = self.data.photo(i)
        except InputError as error:  # one broken image does not end a long training
            warnings.warn(f"{self.data.ids[i]}: {error}", stacklevel=2)
            photo = Image.new("RGB", (1, 1), tuple(self.fill))
        present = torch.zeros(len(self.data.classes))
        present[list(self.data.labels(i))] = 1
        return Picture(torch.from_numpy(self._cut(photo, rng)), present, torch.tensor(i))

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
