"""Contents of result files without their digests, which differ where settings have other names."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image


def content_of(file: Path) -> str:
    """A hash of a seed's arrays or of a picture's pixels."""
    digest = hashlib.sha256()
    if file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files if name != "made_of"}
    else:
        with Image.open(file) as picture:
            arrays = {picture.mode: np.asarray(picture), "palette": np.array(picture.getpalette())}
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def contents(folder: Path, ending: str = "npz") -> dict[str, str]:
    """The hashes of all results in a folder, by their names."""
    return {p.name: content_of(p) for p in sorted(folder.rglob(f"*.{ending}"))}


def marks(folder: Path) -> dict[str, tuple[int, int]]:
    """What changes when a result is written again: inode and time of every seed and picture in a folder."""
    found = (p for p in folder.rglob("*") if p.suffix in (".npz", ".png"))
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in found}
