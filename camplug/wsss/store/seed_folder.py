"""Folders of seeds: one `.npz` without pickle per image."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import IO, Any, Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from typing_extensions import override

from camplug.errors import InputError
from camplug.explain.fuse import resize_maps
from camplug.wsss.class_names import match_folder_classes
from camplug.wsss.store.result_folder import ResultFolder
from camplug.wsss.store.settings_folder import SETTINGS

Dtype: TypeAlias = Literal["uint8", "float16"]
DTYPES: tuple[Dtype, ...] = ("uint8", "float16")


@dataclass(frozen=True)
class Seed:
    """Activation maps of one image.

    Attributes:
        maps: [K,h,w], uint8 (255 means 1) or float16; h and w may be smaller than the photograph's.
        classes: K foreground classes, counted from 0.
        size: (height, width) of the photograph.
        logits: the model's C raw outputs; empty without classes.
    """

    maps: NDArray[Any]
    classes: tuple[int, ...]
    size: tuple[int, int]
    logits: NDArray[np.float32]

    def to_full_size(self) -> NDArray[np.float32]:
        """Return the maps in [0, 1] at the photograph's size, float32 [K,H,W], resized bilinearly."""
        maps = torch.from_numpy(self.maps.astype(np.float32))
        if self.maps.dtype == np.uint8:
            maps /= 255
        return resize_maps(maps, self.size).numpy()

    def resize(self, size: tuple[int, int]) -> NDArray[np.float32]:
        """Return the maps in [0, 1] at a smaller size, float32 [K,h,w], without holding all maps at the full size.

        Args:
            size: (height, width), at most the photograph's.
        """
        maps = np.zeros((len(self.maps), *size), np.float32)
        for k, stored in enumerate(self.maps):
            one = torch.from_numpy(stored[None].astype(np.float32)) / (255 if stored.dtype == np.uint8 else 1)
            smaller = one.shape[1] >= size[0] and one.shape[2] >= size[1]
            maps[k] = (shrink_maps(one, size) if smaller else resize_maps(one, size))[0].numpy()
        return maps


@dataclass(frozen=True)
class MapStorage:
    """Storage of maps.

    Args:
        dtype: type of the stored maps, uint8 (in steps of 1/255) or float16.
        scale: size of the stored maps relative to the photographs, at most 1.

    Raises:
        InputError: another type, or a size that they cannot have.
    """

    dtype: str = "uint8"
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_storage(self.dtype, self.scale)


def check_storage(dtype: str, scale: float) -> None:
    """Refuse what maps are not stored in, and sizes that they are not stored at.

    Raises:
        InputError: so it is.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype={dtype!r}; allowed are {', '.join(map(repr, DTYPES))}.")
    if not 0 < scale <= 1:
        raise InputError(f"scale={scale!r}; give more than 0 and at most 1.")


def pack_maps(maps: torch.Tensor, dtype: Dtype, scale: float) -> NDArray[Any]:
    """Convert maps [K,H,W] in [0, 1] to their stored form: resized by `scale` with antialiasing, uint8 or float16.

    Sides are rounded up, as in IRN.

    >>> pack_maps(torch.tensor([[[0.0, 0.5, 1.0]]]), "uint8", 1.0)
    array([[[  0, 128, 255]]], dtype=uint8)
    >>> pack_maps(torch.ones(1, 5, 8), "float16", 0.25).shape
    (1, 2, 2)
    """
    if scale != 1:
        height, width = (max(1, math.ceil(side * scale - 1e-6)) for side in maps.shape[1:])  # 30 * .1 is above 3
        maps = shrink_maps(maps, (height, width))
    maps = maps.clamp(0, 1)
    return (maps * 255).round().byte().numpy() if dtype == "uint8" else maps.half().numpy()


def shrink_maps(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize maps [K,H,W] to a smaller size, bilinearly with antialiasing; K may be 0.

    >>> shrink_maps(torch.tensor([[[0.0], [0.0], [1.0], [1.0]]]), (2, 1)).flatten()
    tensor([0.1429, 0.8571])
    """
    if not len(maps):
        return maps.new_zeros((0, *size))
    upright = size[1] > 1  # for a width of 1, torch (2.15) repeats the first row
    x = maps[None] if upright else maps[None].transpose(2, 3)
    x = F.interpolate(x, size if upright else size[::-1], mode="bilinear", align_corners=False, antialias=True)[0]
    return x if upright else x.transpose(1, 2).contiguous()


class SeedFolder(ResultFolder[Seed]):
    """Folder of seeds.

    Args:
        path: folder; `prepare` creates it.
    """

    what = "seeds"
    suffix = ".npz"
    order: list[int] | None = None  # number in the files of each class of the data; None if they are equal

    def renumber(self, classes: Sequence[str]) -> SeedFolder:
        """Return the folder with seeds in the class numbers of a data set, matched by name.

        Args:
            classes: class names of the data.

        Raises:
            InputError: the folder has class names, and one of the data is not among them.
        """
        found = SeedFolder(self.path)
        settings = self.read_settings() if (self.path / SETTINGS).exists() else {}
        order = match_folder_classes(settings, classes, "the folder of seeds")
        if order is not None and (order != list(range(len(order))) or len(order) < len(settings["classes"])):
            found.order = order
        return found

    @override
    def is_whole(self, name: str) -> bool:
        return zipfile.is_zipfile(self.get_path(name))

    @override
    def read_digest_text(self, name: str) -> str | None:
        with np.load(self.get_path(name), allow_pickle=False) as data:
            return str(data["made_of"]) if "made_of" in data.files else None

    @override
    def write(self, result: Seed, file: IO[bytes], digest_text: str) -> None:
        arrays: dict[str, Any] = {
            "maps": result.maps,
            "classes": np.array(result.classes, np.int64),
            "size": np.array(result.size, np.int64),
            "logits": result.logits.astype(np.float32),
            "made_of": np.array(digest_text),
        }
        np.savez_compressed(file, **arrays)

    def load(self, name: str) -> Seed:
        """Read the seed of an image.

        Raises:
            InputError: the file is missing or damaged, or has a class that the data lacks.
        """
        file = self.get_path(name)
        try:
            with np.load(file, allow_pickle=False) as data:
                height, width = data["size"].tolist()
                seed = Seed(data["maps"], tuple(data["classes"].tolist()), (height, width), data["logits"])
            if seed.maps.ndim != 3 or seed.maps.dtype.name not in DTYPES or len(seed.maps) != len(seed.classes):
                kind = f"{seed.maps.dtype} {list(seed.maps.shape)}"
                raise ValueError(f"{len(seed.classes)} classes and maps {kind}")
        except FileNotFoundError:
            raise InputError(f"there is no seed {str(file)!r}; run `camplug seeds` with this folder again.") from None
        except Exception as error:
            raise InputError(f"{str(file)!r} is no seed or damaged ({error}); delete it and make it again.") from None
        return seed if self.order is None else _renumber_seed(seed, self.order, name)


def _renumber_seed(seed: Seed, order: Sequence[int], name: str) -> Seed:
    """Return a seed in the data's class numbers, in ascending order.

    Raises:
        InputError: the seed has a class that the data lacks.
    """
    numbers = {number: c for c, number in enumerate(order)}
    unknown = [c for c in seed.classes if c not in numbers]
    if unknown:
        raise InputError(f"the seed of {name!r} has the class {unknown[0]} of its folder, which the data has not.")
    classes = [numbers[c] for c in seed.classes]
    places = sorted(range(len(classes)), key=classes.__getitem__)
    logits = seed.logits[list(order)] if len(seed.logits) else seed.logits
    return replace(seed, maps=seed.maps[places], classes=tuple(classes[k] for k in places), logits=logits)
