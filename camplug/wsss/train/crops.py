"""Random crops of photographs with label pictures of one's own, the same ones in every run of a seed."""

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
    """A normalised crop [3,S,S] and its labels [s,s], uint8, where s = S / stride."""

    image: Tensor
    labels: Tensor


class View(NamedTuple):
    """How pictures of one image are resized to (width, height), mirrored and put into a square; see `drawn_place`."""

    size: tuple[int, int]
    mirrored: bool
    place: tuple[int, int, int, int, int, int]

    @property
    def rows(self) -> slice:
        """Where the part goes in the square."""
        return slice(self.place[0], self.place[0] + self.place[2])

    @property
    def columns(self) -> slice:
        """Where the part goes in the square."""
        return slice(self.place[1], self.place[1] + self.place[3])

    def part(self, picture: Image.Image, resampling: Image.Resampling) -> NDArray[Any]:
        """What the square shows of a picture, [rows,columns] or [rows,columns,3]."""
        _, _, rows, columns, y, x = self.place
        whole = np.asarray(picture.resize(self.size, resampling))
        if self.mirrored:
            whole = whole[:, ::-1]
        return whole[y : y + rows, x : x + columns]


class LabelCrops(Dataset[Crop]):
    """Rescaled, flipped and cropped photographs beside their labels, as IRN and PSA train on.

    The photograph is resized (bicubic; labels nearest, by Pillow's rule), mirrored every other time, and a square is
    cut at a random place; where the photograph is smaller it lies at a random place in the square, around it the mean
    colour, which is ignored. Labels are shrunk to the network's grid by taking the nearest.

    An item is asked for by (epoch, number) and depends on them and the seed alone, not on the order or the process.
    Where a photograph or its labels cannot be read, another image takes the place.

    Args:
        data: the photographs; masks are not read.
        labels: the label picture of an image, uint8 [H,W] of the photograph's size; 255 is ignored.
        normalized: from pixels [3,S,S] in 0 to 255 to what the network reads.
        crop: side of the square in pixels, a multiple of `stride`.
        scales: smallest and largest factor of the photograph's size.
        stride: of the network's grid.
        long_side: photographs are first brought to this size of the longer side; None keeps their own.
        seed: of everything random.
        indices: which images; all by default.
        allow_missing: see `camplug.wsss.train.unreadable.Substitutes`.

    Attributes:
        substitutes: what could not be read.

    Raises:
        InputError: options out of range, or no image to train on.
    """

    def __init__(
        self,
        data: SegmentationData,
        labels: Callable[[int], NDArray[np.uint8]],
        normalized: Callable[[Tensor], Tensor],
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
        self.data, self.labels, self.normalized = data, labels, normalized
        self.crop, self.scales, self.stride, self.long_side, self.seed = crop, scales, stride, long_side, seed
        self.indices = list(range(len(data))) if indices is None else indices
        self.substitutes = Substitutes(data, self.opened, allow_missing)
        if not self.indices:
            raise InputError("there is no image to train on.")

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, which: tuple[int, int]) -> Crop:
        epoch, i = which[0], self.indices[which[1]]
        _, (photo, labels) = self.substitutes.read(i, self.indices, (self.seed, epoch, i))
        return self.cut(photo, labels, self.view(photo.size, epoch, i))

    def cut(self, photo: Image.Image, labels: NDArray[np.uint8], view: View) -> Crop:
        """What a view shows of a photograph and its labels [H,W]."""
        image = torch.zeros(3, self.crop, self.crop)
        pixels = view.part(photo, Image.Resampling.BICUBIC)
        image[:, view.rows, view.columns] = self.normalized(torch.from_numpy(pixels.transpose(2, 0, 1).copy()))
        whole = np.full((self.crop, self.crop), IGNORE, np.uint8)
        whole[view.rows, view.columns] = view.part(Image.fromarray(labels), Image.Resampling.NEAREST)
        side = self.crop // self.stride
        small = np.array(Image.fromarray(whole).resize((side, side), Image.Resampling.NEAREST))
        return Crop(image, torch.from_numpy(small))

    def opened(self, i: int) -> tuple[Image.Image, NDArray[np.uint8]]:
        """The photograph of image i and its labels.

        Raises:
            InputError: one of them is missing or damaged, or their sizes differ.
        """
        photo, labels = self.data.photo(i), self.labels(i)
        check_label_size(labels, photo, self.data.ids[i])
        return photo, labels

    def view(self, size: tuple[int, int], epoch: int, i: int) -> View:
        """How pictures of image i, of this width and height, are shown in an epoch."""
        rng = np.random.default_rng((self.seed, epoch, i))
        width, height = self._size(size, rng)
        mirrored = bool(rng.random() < 0.5)
        return View((width, height), mirrored, drawn_place(height, width, self.crop, rng))

    def _size(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
        scale = rng.uniform(*self.scales)
        if self.long_side is not None:
            scale *= self.long_side / max(size)
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def drawn_place(height: int, width: int, crop: int, rng: np.random.Generator) -> tuple[int, int, int, int, int, int]:
    """A random place of a picture in a square of side `crop`, or of the square in a picture that is larger.

    Returns:
        Where the part goes in the square (top, left), its size (rows, cols), where it is taken from (y, x).
    """

    def along(side: int) -> tuple[int, int, int]:
        room = int(rng.integers(0, abs(side - crop) + 1))
        return (room, side, 0) if side < crop else (0, crop, room)

    (top, rows, y), (left, cols, x) = along(height), along(width)
    return top, left, rows, cols, y, x


class Shuffled(Sampler[tuple[int, int]]):
    """Whole batches of items in an order that depends on the seed and the epoch alone, as (epoch, number).

    Several processes share every batch, so that together they see what one would see, batch by batch. The last items
    of the order are left out where they do not fill a batch.

    Args:
        count: of the items.
        seed: of the order.
        batch: items per step, all processes together; None gives all items, whole batches or not.
        share: (r, n): this is the r-th of n processes, and n divides the batch.

    Raises:
        InputError: the processes cannot share a batch evenly.
    """

    def __init__(self, count: int, seed: int = 0, *, batch: int | None = None, share: tuple[int, int] = (0, 1)) -> None:
        if batch is not None and batch % share[1]:
            raise InputError(f"{share[1]} processes cannot share a batch of {batch}; give a multiple of {share[1]}.")
        self.count, self.seed, self.epoch = count, seed, 0
        self.batch, self.share = batch, share

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch, also after a resume."""
        self.epoch = epoch

    def __len__(self) -> int:
        whole = self.count if self.batch is None else self.count // self.batch * self.batch
        return whole // self.share[1]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count)
        rank, world = self.share
        return ((self.epoch, int(number)) for number in order[rank : len(self) * world : world])


def check_labels_teach(labels: Callable[[int], NDArray[np.uint8]], indices: Sequence[int], mend: str) -> None:
    """Refuse label pictures of which all pixels are ignored, and warn where none shows an object.

    Args:
        labels: the label picture of an image; ones that cannot be read are passed over.
        indices: of the images.
        mend: what to do about it, for the messages.

    Raises:
        InputError: all pixels of all pictures are ignored.
    """
    background = False
    for i in indices:
        try:
            values = labels(i)
        except InputError:  # told where it is trained on
            continue
        if ((values > 0) & (values != IGNORE)).any():
            return
        background = background or bool((values == 0).any())
    if not background:
        raise InputError(f"all pixels of all {len(indices)} label pictures are ignored (255); {mend}.")
    warnings.warn(f"none of the {len(indices)} label pictures shows an object, background alone; {mend}.", stacklevel=3)


def read_labels(folder: Path, data: SegmentationData, i: int) -> NDArray[np.uint8]:
    """The label picture of an image, in the class numbers of the data.

    Raises:
        InputError: it is missing, damaged, or has not its photograph's size.
    """
    from camplug.wsss.store.label_folder import LabelFolder

    labels = read_picture(LabelFolder(folder).renumber(data.classes), data, i)
    check_label_size(labels, data.photo(i), data.ids[i])
    return labels


def read_picture(folder: LabelFolder, data: SegmentationData, i: int) -> NDArray[np.uint8]:
    """The label picture of an image, whatever its size, so that the photograph need not be read; see `read_labels`."""
    return folder.load(data.ids[i])


def check_label_size(labels: NDArray[np.uint8], photo: Image.Image, name: str) -> None:
    """Refuse labels [H,W] that have not their photograph's size.

    Raises:
        InputError: so it is.
    """
    if labels.shape != (photo.height, photo.width):
        raise InputError(
            f"the labels of {name!r} are {labels.shape[1]}x{labels.shape[0]}, its photograph is "
            f"{photo.width}x{photo.height}; make the labels anew for these photographs."
        )
