"""A folder of seeds: one `.npz` without pickle per image, and what they were made with."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
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
    """Maps [K,H,W] in [0, 1] as they are stored: resized by `scale` (with antialiasing), as uint8 or float16."""
    if scale != 1 and len(maps):
        size = [max(1, -(-int(side * scale * 1024) // 1024)) for side in maps.shape[1:]]
        maps = torch.nn.functional.interpolate(maps[None], size, mode="bilinear", align_corners=False, antialias=True)[
            0
        ].clamp(0, 1)
    return (maps * 255).round().byte().numpy() if number == "uint8" else maps.half().numpy()


class SeedFolder:
    """Reads and writes seeds by image name; each file appears whole or not at all.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def prepare(self, settings: Mapping[str, Any]) -> None:
        """Make the folder for seeds of these settings, or go on with one that has the same.

        Raises:
            InputError: the folder holds seeds of other settings, or cannot be made.
        """
        here = json.loads(json.dumps(dict(settings)))
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"the folder {str(self.path)!r} cannot be made ({error.strerror}).") from None
        file = self.path / SETTINGS
        if file.exists():
            before = self.settings()
            differing = sorted(k for k in {*before, *here} if before.get(k) != here.get(k))
            if differing:
                first = differing[0]
                raise InputError(
                    f"{str(self.path)!r} holds seeds of other settings: {', '.join(differing)} differ "
                    f"({first}: {before.get(first)!r} there, {here.get(first)!r} now); give another folder with --out, "
                    "or delete this one."
                )
            return
        text = json.dumps(here, indent=2) + "\n"
        write_atomically(str(file), lambda f: f.write(text.encode()))

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

    def save(self, name: str, seed: Seed) -> None:
        """Write one seed.

        Raises:
            InputError: the place cannot be written.
        """
        arrays = {
            "maps": seed.maps,
            "classes": np.array(seed.classes, np.int64),
            "size": np.array(seed.size, np.int64),
            "logits": seed.logits.astype(np.float32),
        }
        file = self.file(name)
        file.parent.mkdir(parents=True, exist_ok=True)  # names may hold folders
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
                return Seed(data["maps"], tuple(data["classes"].tolist()), (height, width), data["logits"])
        except FileNotFoundError:
            raise InputError(f"there is no seed {str(file)!r}; run `camplug seeds` with this folder again.") from None
        except Exception as error:
            raise InputError(f"{str(file)!r} is no seed or damaged ({error}); delete it and make it again.") from None
