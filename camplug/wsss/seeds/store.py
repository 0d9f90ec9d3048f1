"""A folder of seeds: one `.npz` without pickle per image, and what they were made with."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from typing import IO, Any, Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from typing_extensions import override

from camplug.errors import InputError
from camplug.explain.fuse import resized
from camplug.wsss.results import ResultFolder

Number: TypeAlias = Literal["uint8", "float16"]
NUMBERS: tuple[Number, ...] = ("uint8", "float16")


@dataclass(frozen=True)
class Seed:
    """The maps of one image.

    Attributes:
        maps: [K,h,w], uint8 (255 means 1) or float16; h and w may be smaller than the photograph's.
        classes: the K foreground classes, counted from 0.
        size: height and width of the photograph.
        logits: the model's C raw outputs, or none if it was not asked.
    """

    maps: NDArray[Any]
    classes: tuple[int, ...]
    size: tuple[int, int]
    logits: NDArray[np.float32]

    def full(self) -> NDArray[np.float32]:
        """The maps in [0, 1] at the photograph's size, float32 [K,H,W], resized bilinearly."""
        maps = torch.from_numpy(self.maps.astype(np.float32))
        if self.maps.dtype == np.uint8:
            maps /= 255
        return resized(maps, self.size).numpy()


def check_stored(number: str, scale: float) -> None:
    """Refuse what maps are not stored in, and sizes that they are not stored at.

    Raises:
        InputError: so it is.
    """
    if number not in NUMBERS:
        raise InputError(f"number={number!r}; allowed are {', '.join(map(repr, NUMBERS))}.")
    if not 0 < scale <= 1:
        raise InputError(f"scale={scale!r}; give more than 0 and at most 1.")


def packed(maps: torch.Tensor, number: Number, scale: float) -> NDArray[Any]:
    """Maps [K,H,W] in [0, 1] as they are stored: resized by `scale` (with antialiasing), as uint8 or float16.

    Sides are rounded up, as IRN does.

    >>> packed(torch.tensor([[[0.0, 0.5, 1.0]]]), "uint8", 1.0)
    array([[[  0, 128, 255]]], dtype=uint8)
    >>> packed(torch.ones(1, 5, 8), "float16", 0.25).shape
    (1, 2, 2)
    """
    if scale != 1:
        height, width = (max(1, math.ceil(side * scale - 1e-6)) for side in maps.shape[1:])  # 30 * .1 is above 3
        maps = shrunk(maps, (height, width))
    maps = maps.clamp(0, 1)
    return (maps * 255).round().byte().numpy() if number == "uint8" else maps.half().numpy()


def shrunk(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Maps [K,H,W] at a smaller size, bilinearly with antialiasing; K may be 0.

    >>> shrunk(torch.tensor([[[0.0], [0.0], [1.0], [1.0]]]), (2, 1)).flatten()
    tensor([0.1429, 0.8571])
    """
    if not len(maps):
        return maps.new_zeros((0, *size))
    upright = size[1] > 1  # to a width of 1, torch (2.15) gives all rows the value of the first
    x = maps[None] if upright else maps[None].transpose(2, 3)
    x = F.interpolate(x, size if upright else size[::-1], mode="bilinear", align_corners=False, antialias=True)[0]
    return x if upright else x.transpose(1, 2).contiguous()


class SeedFolder(ResultFolder[Seed]):
    """A folder of seeds.

    Args:
        path: the folder.
    """

    what = "seeds"
    suffix = ".npz"

    @override
    def holds(self, name: str) -> bool:
        return zipfile.is_zipfile(self.file(name))

    @override
    def write(self, result: Seed, file: IO[bytes]) -> None:
        arrays: dict[str, Any] = {
            "maps": result.maps,
            "classes": np.array(result.classes, np.int64),
            "size": np.array(result.size, np.int64),
            "logits": result.logits.astype(np.float32),
        }
        np.savez_compressed(file, **arrays)

    def load(self, name: str) -> Seed:
        """Read one seed.

        Raises:
            InputError: there is none, or the file is damaged.
        """
        file = self.file(name)
        try:
            with np.load(file, allow_pickle=False) as data:
                height, width = data["size"].tolist()
                seed = Seed(data["maps"], tuple(data["classes"].tolist()), (height, width), data["logits"])
            if seed.maps.ndim != 3 or seed.maps.dtype.name not in NUMBERS or len(seed.maps) != len(seed.classes):
                kind = f"{seed.maps.dtype} {list(seed.maps.shape)}"
                raise ValueError(f"{len(seed.classes)} classes and maps {kind}")
            return seed
        except FileNotFoundError:
            raise InputError(f"there is no seed {str(file)!r}; run `camplug seeds` with this folder again.") from None
        except Exception as error:
            raise InputError(f"{str(file)!r} is no seed or damaged ({error}); delete it and make it again.") from None
