"""Reproducible random crops of photographs with label pictures."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from camplug.errors import InputError
from camplug.wsss.data import SegmentationData
from camplug.wsss.data.dataset import IGNORE
from camplug.wsss.train.unreadable import Substitutes

if TYPE_CHECKING:
    from camplug.wsss.store.label_folder import LabelFolder


class Crop(NamedTuple):
    """Normalised crop [3,S,S] and its labels [s,s], uint8, s = S / stride."""

    image: Tensor
    labels: Tensor


class View(NamedTuple):
    """Geometry of a crop: size (width, height) after resizing, mirroring, and place in the square; see `draw_place`."""

    size: tuple[int, int]
    mirrored: bool
    place: tuple[int, int, int, int, int, int]

    @property
    def rows(self) -> slice:
        """Rows of the square that the picture covers."""
        return slice(self.place[0], self.place[0] + self.place[2])

    @property
    def columns(self) -> slice:
        """Columns of the square that the picture covers."""
        return slice(self.place[1], self.place[1] + self.place[3])

    def cut(self, picture: Image.Image, resampling: Image.Resampling) -> NDArray[Any]:
        """Cut the visible part of a picture, [rows,columns] or [rows,columns,3]."""
        _, _, rows, columns, y, x = self.place
        whole = np.asarray(picture.resize(self.size, resampling))
        if self.mirrored:
            whole = whole[:, ::-1]
        return whole[y : y + rows, x : x + columns]


class LabelCrops(Dataset[Crop]):
    """Rescaled, mirrored and cropped photographs with their labels, as in the trainings of IRN and AffinityNet.

    The photograph is resized (bicubic; labels nearest, by Pillow's rule) and mirrored with probability 1/2, and a
    square is cut at a random position; a smaller photograph is put at a random position in a square of the mean colour,
    whose labels are ignored. Labels are subsampled to the network's grid (nearest).

    Items are indexed by (epoch, number) and depend on these and the seed only. An image with an unreadable photograph
    or label picture is replaced by another one.

    Args:
        data: photographs; masks are not read.
        labels: loader of the label picture of image i, uint8 [H,W] of the photograph's size; 255 is ignored.
        normalize: normalisation of pixels [3,S,S] in 0 to 255 for the network.
        crop: side of the square in pixels, a multiple of `stride`.
        scales: smallest and largest factor of the photograph's size.
        stride: stride of the network's grid.
        long_side: length of the longer side to which photographs are resized first; None keeps their size.
        seed: seed of all random numbers.
        indices: numbers of the images to use; None uses all.
        allow_missing: see `camplug.wsss.train.unreadable.Substitutes`.

    Attributes:
        substitutes: record of unreadable images.

    Raises:
        InputError: an option is out of range, or there is no image to train on.
    """

    def __init__(
        self,
        data: SegmentationData,
        labels: Callable[[int], NDArray[np.uint8]],
        normalize: Callable[[Tensor], Tensor],
        *,
        crop: int = 512,
        scales: tuple[float, float] = (0.5, 1.5),
        stride: int = 4,
        long_side: int | None = None,
        seed: int = 0,
        indices: list[int] | None = None,
        allow_missing: bool = False,
    ) -> None:
        if crop < stride or crop % stride:
            raise InputError(f"crop={crop}; give a multiple of {stride}, the network's stride.")
        if not 0 < scales[0] <= scales[1]:
            raise InputError(f"scales={scales}; give the smallest and the largest factor, above 0.")
        self.data, self.labels, self.normalize = data, labels, normalize
        self.crop, self.scales, self.stride, self.long_side, self.seed = crop, scales, stride, long_side, seed
        self.indices = list(range(len(data))) if indices is None else indices
        self.substitutes = Substitutes(data, self.load, allow_missing)
        if not self.indices:
            raise InputError("there is no image to train on.")

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, which: tuple[int, int]) -> Crop:
        epoch, i = which[0], self.indices[which[1]]
        _, (photo, labels) = self.substitutes.read(i, self.indices, (self.seed, epoch, i))
        return self.cut(photo, labels, self.make_view(photo.size, epoch, i))

    def cut(self, photo: Image.Image, labels: NDArray[np.uint8], view: View) -> Crop:
        """Cut a crop from a photograph and its labels [H,W]."""
        image = torch.zeros(3, self.crop, self.crop)
        pixels = view.cut(photo, Image.Resampling.BICUBIC)
        image[:, view.rows, view.columns] = self.normalize(torch.from_numpy(pixels.transpose(2, 0, 1).copy()))
        whole = np.full((self.crop, self.crop), IGNORE, np.uint8)
        whole[view.rows, view.columns] = view.cut(Image.fromarray(labels), Image.Resampling.NEAREST)
        side = self.crop // self.stride
        small = np.array(Image.fromarray(whole).resize((side, side), Image.Resampling.NEAREST))
        return Crop(image, torch.from_numpy(small))

    def load(self, i: int) -> tuple[Image.Image, NDArray[np.uint8]]:
        """Load the photograph and the labels of image i.

        Raises:
            InputError: one of them is missing or damaged, or their sizes differ.
        """
        photo, labels = self.data.photo(i), self.labels(i)
        check_label_size(labels, photo, self.data.ids[i])
        return photo, labels

    def make_view(self, size: tuple[int, int], epoch: int, i: int, draw: int = 0) -> View:
        """Draw the geometry of a crop of image i, given its width and height, in an epoch.

        Args:
            size: width and height.
            epoch: number of the epoch.
            i: number of the image.
            draw: number of the crop, where an image has several in an epoch.
        """
        rng = np.random.default_rng((self.seed, epoch, i, draw) if draw else (self.seed, epoch, i))
        width, height = self._size(size, rng)
        mirrored = bool(rng.random() < 0.5)
        return View((width, height), mirrored, draw_place(height, width, self.crop, rng))

    def _size(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
        scale = rng.uniform(*self.scales)
        if self.long_side is not None:
            scale *= self.long_side / max(size)
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def draw_place(height: int, width: int, crop: int, rng: np.random.Generator) -> tuple[int, int, int, int, int, int]:
    """Draw the position of a picture in a square of side `crop`, or of the square in a larger picture.

    Returns:
        Position in the square (top, left), size (rows, cols) and position in the picture (y, x).
    """

    def draw_along(side: int) -> tuple[int, int, int]:
        room = int(rng.integers(0, abs(side - crop) + 1))
        return (room, side, 0) if side < crop else (0, crop, room)

    (top, rows, y), (left, cols, x) = draw_along(height), draw_along(width)
    return top, left, rows, cols, y, x


class ShuffledSampler(Sampler[tuple[int, int]]):
    """Sampler of (epoch, number) in an order that depends on the seed and the epoch only.

    Several processes share every batch, so that together they see the batches of a single process. The last items that
    do not fill a batch are left out.

    Args:
        count: number of items.
        seed: seed of the order.
        batch: items per step, of all processes together; None gives all items, also a partial batch.
        share: (r, n) for the r-th of n processes; n divides the batch.

    Raises:
        InputError: the processes cannot share a batch evenly.
    """

    def __init__(self, count: int, seed: int = 0, *, batch: int | None = None, share: tuple[int, int] = (0, 1)) -> None:
        if batch is not None and batch % share[1]:
            raise InputError(f"{share[1]} processes cannot share a batch of {batch}; give a multiple of {share[1]}.")
        self.count, self.seed, self.epoch = count, seed, 0
        self.batch, self.share = batch, share

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; called by Lightning before every epoch, also after resuming."""
        self.epoch = epoch

    def __len__(self) -> int:
        whole = self.count if self.batch is None else self.count // self.batch * self.batch
        return whole // self.share[1]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count)
        rank, world = self.share
        return ((self.epoch, int(number)) for number in order[rank : len(self) * world : world])


def check_label_content(labels: Callable[[int], NDArray[np.uint8]], indices: Sequence[int], mend: str) -> None:
    """Check that label pictures have labelled pixels; warn where none shows an object.

    Args:
        labels: loader of the label picture of image i; unreadable ones are skipped.
        indices: numbers of the images.
        mend: advice for the messages.

    Raises:
        InputError: all pixels of all pictures are ignored.
    """
    background = False
    for i in indices:
        try:
            values = labels(i)
        except InputError:  # reported by the training
            continue
        if ((values > 0) & (values != IGNORE)).any():
            return
        background = background or bool((values == 0).any())
    if not background:
        raise InputError(f"all pixels of all {len(indices)} label pictures are ignored (255); {mend}.")
    warnings.warn(f"none of the {len(indices)} label pictures shows an object, background alone; {mend}.", stacklevel=3)


def read_labels(folder: Path, data: SegmentationData, i: int) -> NDArray[np.uint8]:
    """Load the label picture of image i, in the class numbers of the data.

    Raises:
        InputError: it is missing, damaged, or not of its photograph's size.
    """
    from camplug.wsss.store.label_folder import LabelFolder

    labels = load_label_picture(LabelFolder(folder).renumber(data.classes), data, i)
    check_label_size(labels, data.photo(i), data.ids[i])
    return labels


def load_label_picture(folder: LabelFolder, data: SegmentationData, i: int) -> NDArray[np.uint8]:
    """Load the label picture of image i without checking its size against the photograph; see `read_labels`."""
    return folder.load(data.ids[i])


def check_label_size(labels: NDArray[np.uint8], photo: Image.Image, name: str) -> None:
    """Check that labels [H,W] have the size of their photograph.

    Raises:
        InputError: the sizes differ.
    """
    if labels.shape != (photo.height, photo.width):
        raise InputError(
            f"the labels of {name!r} are {labels.shape[1]}x{labels.shape[0]}, its photograph is "
            f"{photo.width}x{photo.height}; make the labels anew for these photographs."
        )
