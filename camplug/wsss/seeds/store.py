"""A folder of seeds: one `.npz` without pickle per image, and what they were made with."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from camplug.errors import InputError
from camplug.explain.explanation import write_atomically
from camplug.explain.fuse import resized

Number: TypeAlias = Literal["uint8", "float16"]
NUMBERS: tuple[Number, ...] = ("uint8", "float16")
SETTINGS = "settings.json"


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


def packed(maps: torch.Tensor, number: Number, scale: float) -> NDArray[Any]:
    """Maps [K,H,W] in [0, 1] as they are stored: resized by `scale` (with antialiasing), as uint8 or float16.

    Sides are rounded up, as IRN does.

    >>> packed(torch.tensor([[[0.0, 0.5, 1.0]]]), "uint8", 1.0)
    array([[[  0, 128, 255]]], dtype=uint8)
    >>> packed(torch.ones(1, 5, 8), "float16", 0.25).shape
    (1, 2, 2)
    """
    if scale != 1:
        size = [max(1, math.ceil(side * scale - 1e-6)) for side in maps.shape[1:]]  # 30 * .1 is a bit above 3
        if len(maps):
            maps = F.interpolate(maps[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
        else:
            maps = maps.new_zeros((0, *size))
    maps = maps.clamp(0, 1)
    return (maps * 255).round().byte().numpy() if number == "uint8" else maps.half().numpy()


class SeedFolder:
    """Reads and writes seeds by image name; each file appears whole or not at all.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._settings: dict[str, Any] | None = None  # to be written down

    def prepare(self, settings: Mapping[str, Any]) -> None:
        """Make the folder for seeds of these settings, or go on with one that has the same.

        The first seed that is saved writes them down: a run that makes none leaves the folder open for others.

        Raises:
            InputError: the folder holds seeds of other settings, or cannot be made.
        """
        self._settings = json.loads(json.dumps(dict(settings)))
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"the folder {str(self.path)!r} cannot be made ({error.strerror}).") from None
        self._settled()

    def _settled(self) -> bool:
        """Whether these very settings are written down already."""
        if not (self.path / SETTINGS).exists():
            return False
        here, before = self._settings or {}, self.settings()
        differing = sorted(k for k in {*before, *here} if before.get(k) != here.get(k))
        if differing:
            first = differing[0]
            raise InputError(
                f"{str(self.path)!r} holds seeds of other settings: {', '.join(differing)} "
                f"{'differs' if len(differing) == 1 else 'differ'} ({first}: {before.get(first)!r} there, "
                f"{here.get(first)!r} now); give another folder with --out, or delete this one."
            )
        return True

    def settings(self) -> dict[str, Any]:
        """What the seeds were made with.

        Raises:
            InputError: this is no folder of seeds.
        """
        try:
            found = json.loads((self.path / SETTINGS).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{str(self.path)!r} is no folder of seeds: it has no {SETTINGS}.") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{str(self.path / SETTINGS)!r} cannot be read ({error}).") from None
        if not isinstance(found, dict):
            raise InputError(f"{str(self.path / SETTINGS)!r} holds no settings.")
        return found

    def file(self, name: str) -> Path:
        """Where the seed of an image lies."""
        return self.path / f"{name}.npz"

    def holds(self, name: str) -> bool:
        """Whether the seed of an image is there and whole."""
        return zipfile.is_zipfile(self.file(name))

    def leftovers(self) -> dict[str, list[Path]]:
        """By image name, the files that were half written when a run was killed, or are being written right now."""
        found: dict[str, list[Path]] = {}
        for part in self.path.rglob("*.npz.*.part"):
            name = part.relative_to(self.path).as_posix().rpartition(".npz.")[0]
            found.setdefault(name, []).append(part)
        return found

    def save(self, name: str, seed: Seed) -> None:
        """Write one seed.

        Raises:
            InputError: the place cannot be written, or the folder has got seeds of other settings meanwhile.
        """
        if self._settings is not None:
            if not self._settled():
                text = json.dumps(self._settings, indent=2) + "\n"
                write_atomically(str(self.path / SETTINGS), lambda f: f.write(text.encode()))
            self._settings = None
        arrays = {
            "maps": seed.maps,
            "classes": np.array(seed.classes, np.int64),
            "size": np.array(seed.size, np.int64),
            "logits": seed.logits.astype(np.float32),
        }
        file = self.file(name)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)  # names may hold folders
        except OSError as error:
            raise InputError(f"the folder {str(file.parent)!r} cannot be made ({error.strerror}).") from None
        write_atomically(str(file), lambda f: np.savez_compressed(f, **arrays))  # type: ignore[arg-type]

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
