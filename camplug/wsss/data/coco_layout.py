"""Layouts of data sets in COCO's format: files of annotations, folders of photographs, categories."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from camplug.errors import InputError
from camplug.wsss.data.class_list import check_class_names, is_no_class
from camplug.wsss.data.read_files import strip_ending

ROBOFLOW = "_annotations.coco.json"
SINGLE_FILES = ("annotations.json", "dataset.json")  # labelme2coco
DEFAULT_SPLITS = ("train2014", "train2017", "train")  # default splits, in order


def find_annotation_files(root: Path) -> dict[str, Path]:
    """Find the files of annotations in a folder, by split.

    Supported are COCO's and CVAT's annotations/instances_SPLIT.json, Roboflow's SPLIT/_annotations.coco.json (or beside
    the photographs of a single split), and labelme2coco's annotations.json.
    """
    found = {}
    for path in sorted((root / "annotations").glob("instances_*.json")):
        found[path.stem.removeprefix("instances_")] = path
    for path in sorted(root.glob(f"*/{ROBOFLOW}")):
        found.setdefault(path.parent.name, path)
    for path in (root / name for name in (ROBOFLOW, *SINGLE_FILES)):
        if path.is_file():
            found.setdefault("default", path)  # CVAT's name
    return found


def find_annotations(root: Path, split: str | None) -> tuple[str, Path]:
    """Find a split's name and its file of annotations.

    Args:
        root: folder of the data set.
        split: name of the split; None: train2014, train2017 or train, or the only one.

    Raises:
        InputError: there is no such split; the message lists the existing ones.
    """
    known = find_annotation_files(root)
    if split is None:
        split = next((name for name in DEFAULT_SPLITS if name in known), get_only_split(list(known)))
    if split is None or split not in known:
        path = root / "annotations" / f"instances_{split or DEFAULT_SPLITS[0]}.json"
        raise InputError(
            f"there is no {str(path)!r}; the splits there are {', '.join(known) or 'none'} (--split), and annotations= "
            f"names another file, as in 'coco:{root}?annotations=FILE'."
        )
    return split, known[split]


def get_only_split(names: Sequence[str]) -> str | None:
    """Return the only split of a data set, unless it is for validation or testing; else None.

    >>> get_only_split(["default"]), get_only_split(["val2014"]), get_only_split(["a", "b"])
    ('default', None, None)
    """
    return names[0] if len(names) == 1 and not names[0].startswith(("val", "test")) else None


def find_photos(root: Path, split: str, annotations: Path, names: Sequence[str]) -> Path:
    """Find the folder of a split's photographs.

    Args:
        root: folder of the data set.
        split: name of the split.
        annotations: file of annotations.
        names: file names of photographs in the annotations.

    Raises:
        InputError: there is no such folder.
    """
    beside = annotations.parent
    places = [root / split, root / "images" / split, root / "images", beside, root, root / "JPEGImages"]
    few = names[:: max(1, len(names) // 10)]
    for place in places:
        if place.is_dir() and any((place / name).is_file() for name in few):
            return place
    for place in places[: 2 if split else 0]:  # missing photographs raise when they are read
        if place.is_dir():
            return place
    raise InputError(
        f"{str(root)!r} has no folder {split} or images/{split} with the photographs, nor are they in images or beside "
        f"the annotations (the first is {names[0]!r}); photos= names another folder, as in 'coco:{root}?photos=FOLDER'."
    )


def select_classes(categories: Sequence[Any], used: set[Any], where: str) -> dict[Any, str]:
    """Select the categories that are classes; return their names by id, in the order of ids.

    Unused categories are dropped if they are the background or a group of other categories, like Roboflow's first one.

    Args:
        categories: categories of the file.
        used: ids of annotated categories.
        where: file in messages.

    Raises:
        InputError: two categories have the same name, or the background is annotated.
    """
    groups = {one.get("supercategory") for one in categories if one.get("supercategory") != one["name"]}
    idle = [c for c in categories if c["id"] not in used and (c["name"] in groups or is_no_class(str(c["name"])))]
    if idle and len(idle) < len(categories):
        left_out = ", ".join(repr(str(c["name"])) for c in idle)
        warnings.warn(f"{where}: {left_out} has no annotations and is taken for no class.", stacklevel=3)
        categories = [c for c in categories if c not in idle]
    named: dict[str, Any] = {}
    for one in categories:
        other = named.setdefault(str(one["name"]), one["id"])
        if other != one["id"]:
            raise InputError(
                f"{where} has two categories of the name {str(one['name'])!r} (ids {other} and {one['id']}); rename "
                "one, or give both the same id."
            )
    found = {one["id"]: str(one["name"]) for one in categories}
    names = {number: found[number] for number in sorted(found)}
    check_class_names(list(names.values()), where)
    return names


def make_image_id(name: str | os.PathLike[str]) -> str:
    """Return an image's name without folder and ending."""
    return strip_ending(PurePosixPath(os.fspath(name)).name)
