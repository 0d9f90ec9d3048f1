"""Open a data set by its description on the command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from camplug.errors import InputError
from camplug.images.photo import SUFFIXES
from camplug.options import split_options
from camplug.plugins import PREFIX, import_object, is_same_definition, load_plugins
from camplug.wsss.data.coco import COCO
from camplug.wsss.data.coco_layout import find_annotation_files
from camplug.wsss.data.dataset import SegmentationData
from camplug.wsss.data.folder import Folder, read_folder_labels
from camplug.wsss.data.photographs import Photographs
from camplug.wsss.data.read_files import resolve_folder
from camplug.wsss.data.scenes import Scenes
from camplug.wsss.data.tables import LABEL_FILES
from camplug.wsss.data.voc import VOC, find_voc

Opener: TypeAlias = Callable[[str, str | None, Mapping[str, Any]], SegmentationData]

OPTIONS: dict[str, tuple[str, ...]] = {
    "voc": ("masks", "labels", "classes", "mask_values", "palette"),
    "coco": ("masks", "annotations", "photos"),
    "folder": ("labels", "mask_values", "palette"),
    "photos": (),
    "scenes": (),
}
MASK_FOLDERS = ("SegmentationClass", "SegmentationClassPNG")  # the latter: labelme2voc


def open_data(text: str | os.PathLike[str], split: str | None = None, **options: Any) -> SegmentationData:
    """Open the data set that a text names.

    Args:
        text: "voc:PATH", "coco:PATH", "folder:PATH", "photos:PATH" (without labels), "scenes:COUNT" or
            "scenes:COUNT:SEED", or a bare path, whose kind is recognised by its content. Options follow after "?",
            separated by "&" (quote the text in a shell), with %XX for special characters and "none" for None:
            "voc:PATH?masks=SegmentationClassAug&classes=names.txt", "folder:PATH?mask_values=255=crack". They are

            - voc: masks (a folder, or none), labels (xml, masks, none, or a file), classes (a file of names),
              mask_values, palette. By default there are no masks without SegmentationClass, and no labels without
              Annotations, labels.csv or labels.json;
            - coco: masks (none: no masks), annotations (a file), photos (a folder);
            - folder: labels (a file), mask_values, palette.

            "import:PACKAGE.MODULE:CALLABLE" is a data set of your own: the callable gets `split=`, if it is given, and
            the options, and returns a `SegmentationData`.
        split: split of VOC and COCO; None: "train", "train2014", or the only one. Other kinds have no splits.
        options: the same options; they take precedence over those of the text.

    Raises:
        InputError: the kind is not recognised or lacks an option, or the data set cannot be opened.

    >>> open_data("scenes:8")
    <Scenes: 8 images of 6 classes, with masks>
    """
    kind, place, given = parse_source(os.fspath(text))
    given |= {name: value for name, value in options.items() if value is not None}
    unknown = [name for name in given if kind in OPTIONS and name not in OPTIONS[kind]]
    if unknown:
        allowed = f"the options of {kind} are {', '.join(OPTIONS[kind])}" if OPTIONS[kind] else f"{kind} has no options"
        raise InputError(f"{os.fspath(text)!r}: there is no option {unknown[0]!r}; {allowed}.")
    return OPENERS[kind](place, split, given)


def open_images(
    text: str | os.PathLike[str], split: str | None = None, classes: Sequence[str] = ()
) -> SegmentationData:
    """Open the data set that a text names; image labels are not needed.

    Args:
        text: see `open_data`; also a folder of photographs, with or without subfolders.
        split: see `open_data`.
        classes: class names for unlabelled photographs.

    Raises:
        InputError: see `open_data`.
    """
    path = Path(text).expanduser()
    if path.is_dir() and not list_layouts(path):
        return Photographs([path], classes)
    data = open_data(text, split)
    return data.with_classes(classes) if isinstance(data, Photographs) else data


def parse_source(text: str) -> tuple[str, str, dict[str, Any]]:
    """Return the kind of the data set that a text names, its path, and its options.

    Args:
        text: see `open_data`.

    Raises:
        InputError: the kind is not recognised, or the options cannot be read.

    >>> parse_source("voc:PATH?masks=none&labels=xml")
    ('voc', 'PATH', {'masks': None, 'labels': 'xml'})
    """
    place, options = text, dict[str, Any]()
    if not Path(text.partition(":")[2] or text).expanduser().exists():
        place, options = split_options(text, "?masks=SegmentationClassAug")
    load_plugins()
    kind, colon, rest = place.partition(":")
    if colon and kind in OPENERS:
        return kind, rest, options
    if colon and not Path(place).expanduser().exists():
        raise InputError(
            f"{place!r} is no folder, and {kind!r} no kind of data set; the kinds are {', '.join(OPENERS)}."
        )
    return recognise_kind(place), place, options


def recognise_kind(path: str) -> str:
    """Recognise the kind of a data set: "voc", "coco" or "folder", or "photos" for a photograph.

    Raises:
        InputError: there is no kind that fits, or more than one.
    """
    if Path(path).expanduser().is_file() and Path(path).suffix.lower() in SUFFIXES:
        return "photos"
    root = resolve_folder(path)
    kinds = list_layouts(root)
    if not kinds and len({place.split("/")[0] for place in read_folder_labels(root, below=root)}) > 1:
        kinds.append("folder")
    if not kinds:
        raise InputError(
            f"{path!r} is no data set that camplug knows: looked for JPEGImages/ (VOC), annotations/instances_*.json, "
            "*/_annotations.coco.json or annotations.json (COCO), and labels.csv, labels.json or a subfolder of "
            "photographs for every class (a folder of your own). Photographs without labels are "
            f"{'photos:' + path!r}, for camplug segment and camplug seeds --labels predicted."
        )
    if len(kinds) > 1:
        raise InputError(f"{path!r} could be {' or '.join(kinds)}; say which, as in {kinds[0] + ':' + path!r}.")
    return kinds[0]


def list_layouts(root: Path) -> list[str]:
    """List the kinds of data sets that the files of a folder fit."""
    kinds = []
    if any((root / below / "JPEGImages").is_dir() for below in ("", "VOC2012", "VOCdevkit/VOC2012")):
        kinds.append("voc")
    if find_annotation_files(root) and not kinds:  # labelme2coco puts photographs into JPEGImages, too
        kinds.append("coco")
    if any((root / name).is_file() for name in LABEL_FILES):
        kinds.append("folder")
    return kinds


def _open_voc(path: str, split: str | None, options: Mapping[str, Any]) -> SegmentationData:
    root = find_voc(path)
    there = [name for name in MASK_FOLDERS if (root / name).is_dir()]
    tables = [name for name in LABEL_FILES if (root / name).is_file()]
    usual = {
        "masks": next((name for name in there if any((root / name).glob("*.png"))), there[0] if there else None),
        "labels": "xml" if (root / "Annotations").is_dir() else tables[0] if tables else "none",
    }
    given = {**usual, **options}
    return VOC(path, split, **given | {"labels": given["labels"] or "none"})


def _open_coco(path: str, split: str | None, options: Mapping[str, Any]) -> SegmentationData:
    masks = options.get("masks", True)
    if masks not in (True, False, None):
        raise InputError(f"masks={masks!r}: COCO's masks are painted from its annotations; masks=none goes without.")
    return COCO(path, split, **{**options, "masks": bool(masks)})


def _open_folder(path: str, split: str | None, options: Mapping[str, Any]) -> SegmentationData:
    _check_no_split("a folder", split, "give the path of the part that you mean")
    return Folder(path, **options)


def _open_photos(path: str, split: str | None, options: Mapping[str, Any]) -> SegmentationData:
    _check_no_split("a folder of photographs", split, "give the path of the part that you mean")
    return Photographs([path])


def _open_scenes(numbers: str, split: str | None, options: Mapping[str, Any]) -> SegmentationData:
    _check_no_split("scenes", split, "another seed gives other images")
    parts = numbers.split(":")
    if len(parts) > 2 or not all(part.strip().isdecimal() for part in parts):
        raise InputError(f"'scenes:{numbers}' is not understood; write scenes:COUNT or scenes:COUNT:SEED.")
    return Scenes(int(parts[0]), seed=int(parts[1]) if len(parts) > 1 else 0)


def _open_imported(place: str, split: str | None, options: Mapping[str, Any]) -> SegmentationData:
    make = import_object(f"{PREFIX}{place}")
    found = make(**({} if split is None else {"split": split}), **options)
    if not isinstance(found, SegmentationData):
        raise InputError(f"import:{place} gave {type(found).__name__}; it must give a SegmentationData.")
    return found


def register_data(kind: str, opener: Opener, options: Sequence[str] | None = None) -> None:
    """Make a kind of data set available to `open_data` and `--data KIND:PLACE`.

    The same function of the same module may be registered again.

    Args:
        kind: name before the colon.
        opener: function of the text behind the colon, the split or None, and the options.
        options: names of the options; None: any.

    Raises:
        InputError: another opener has the name.
    """
    old = OPENERS.get(kind)
    if old is not None and not is_same_definition(old, opener):
        raise InputError(f"the kind of data set {kind!r} is taken by {old.__module__}.{old.__qualname__}.")
    OPENERS[kind] = opener
    if options is not None:
        OPTIONS[kind] = tuple(options)


def _check_no_split(what: str, split: str | None, instead: str) -> None:
    if split is not None:
        raise InputError(f"{what} has no splits, got {split!r}; {instead}.")


OPENERS: dict[str, Opener] = {
    "voc": _open_voc,
    "coco": _open_coco,
    "folder": _open_folder,
    "photos": _open_photos,
    "scenes": _open_scenes,
    "import": _open_imported,
}
