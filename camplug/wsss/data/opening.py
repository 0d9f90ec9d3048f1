"""Open a data set by what a command line says."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from camplug.errors import InputError
from camplug.wsss.data.coco import COCO
from camplug.wsss.data.dataset import SegmentationData
from camplug.wsss.data.files import existing_folder
from camplug.wsss.data.folder import LABEL_FILES, Folder
from camplug.wsss.data.scenes import Scenes
from camplug.wsss.data.voc import VOC, find_voc


def open_data(text: str | os.PathLike[str], split: str | None = None) -> SegmentationData:
    """The data set that a text names.

    Args:
        text: "voc:PATH", "coco:PATH", "folder:PATH", "scenes:COUNT" or "scenes:COUNT:SEED", or a bare path, which is
            recognised by what is in it. VOC is opened without masks where it has no SegmentationClass.
        split: of VOC ("train" if None) and COCO ("train2014" if None); the others have none.

    Raises:
        InputError: nothing is recognised, or the data set cannot be opened.

    >>> open_data("scenes:8")
    <Scenes: 8 images of 6 classes, with masks>
    """
    text = os.fspath(text)
    kind, colon, rest = text.partition(":")
    if colon and kind in KINDS:
        return KINDS[kind](rest, split)
    if colon and not Path(text).expanduser().exists():
        raise InputError(f"{text!r} is no folder, and {kind!r} no kind of data set; the kinds are {', '.join(KINDS)}.")
    return KINDS[recognised(text)](text, split)


def recognised(path: str) -> str:
    """Which kind of data set lies in a folder: "voc", "coco" or "folder".

    Raises:
        InputError: none, or more than one.
    """
    root = existing_folder(path)
    kinds = []
    if any((root / below / "JPEGImages").is_dir() for below in ("", "VOC2012", "VOCdevkit/VOC2012")):
        kinds.append("voc")
    if any((root / "annotations").glob("instances_*.json")):
        kinds.append("coco")
    if any((root / name).is_file() for name in LABEL_FILES):
        kinds.append("folder")
    if not kinds:
        raise InputError(
            f"{path!r} is no data set that camplug knows: looked for JPEGImages/ (VOC), annotations/instances_*.json "
            "(COCO), and labels.csv or labels.json (a folder of your own)."
        )
    if len(kinds) > 1:
        raise InputError(f"{path!r} could be {' or '.join(kinds)}; say which, as in {kinds[0] + ':' + path!r}.")
    return kinds[0]


def _voc(path: str, split: str | None) -> SegmentationData:
    masks = "SegmentationClass"
    return VOC(path, "train" if split is None else split, masks if (find_voc(path) / masks).is_dir() else None)


def _coco(path: str, split: str | None) -> SegmentationData:
    return COCO(path, "train2014" if split is None else split)


def _folder(path: str, split: str | None) -> SegmentationData:
    _no_split("a folder", split, "give the path of the part that you mean")
    return Folder(path)


def _scenes(numbers: str, split: str | None) -> SegmentationData:
    _no_split("scenes", split, "another seed gives other images")
    parts = numbers.split(":")
    if len(parts) > 2 or not all(part.strip().isdecimal() for part in parts):
        raise InputError(f"'scenes:{numbers}' is not understood; write scenes:COUNT or scenes:COUNT:SEED.")
    return Scenes(int(parts[0]), seed=int(parts[1]) if len(parts) > 1 else 0)


def _no_split(called: str, split: str | None, instead: str) -> None:
    if split is not None:
        raise InputError(f"{called} has no splits, got {split!r}; {instead}.")


KINDS: dict[str, Callable[[str, str | None], SegmentationData]] = {
    "voc": _voc,
    "coco": _coco,
    "folder": _folder,
    "scenes": _scenes,
}
