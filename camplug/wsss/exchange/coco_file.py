"""COCO's instances: run lengths out; run lengths and polygons in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from camplug.errors import InputError
from camplug.images.save import write_atomically
from camplug.wsss.data.coco import fill_outline, group_by_image, read_annotations
from camplug.wsss.data.read_files import check_unique
from camplug.wsss.data.run_lengths import encode_mask
from camplug.wsss.exchange.shapes import IGNORED_NAME, LabelledImage, Shape, cut_shapes, paint_shapes


def write_coco(images: Iterable[LabelledImage], names: Sequence[str], file: Path) -> None:
    """Write a file of instances with one annotation per image and class, as compressed run lengths.

    A category `__ignore__` is added where pixels are ignored.

    Args:
        images: photographs' names and label maps.
        names: class names, without the background.
        file: file to write.

    Raises:
        InputError: a label is no class, pycocotools is missing, or the file cannot be written.
    """
    numbers = {name: number for number, name in enumerate([*names, IGNORED_NAME], 1)}
    listed: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for number, image in enumerate(images, 1):
        height, width = image.labels.shape
        listed.append({"id": number, "file_name": image.file, "width": width, "height": height})
        for shape in cut_shapes(image.labels, names):
            rows, columns = np.flatnonzero(shape.mask.any(1)), np.flatnonzero(shape.mask.any(0))
            box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
            one: dict[str, Any] = {
                "id": len(found) + 1,
                "image_id": number,
                "category_id": numbers[shape.name],
                "iscrowd": 0,
            }
            one |= {"area": int(shape.mask.sum()), "bbox": [int(side) for side in box]}
            found.append(one | {"segmentation": encode_mask(shape.mask)})
    if all(one["category_id"] != numbers[IGNORED_NAME] for one in found):
        del numbers[IGNORED_NAME]
    categories = [{"id": number, "name": name, "supercategory": ""} for name, number in numbers.items()]
    content = {"images": listed, "annotations": found, "categories": categories}
    write_atomically(str(file), lambda f: f.write(json.dumps(content).encode()))


def read_coco(file: Path, names: Sequence[str], sizes: Any) -> Iterator[LabelledImage]:
    """Read the label maps of all listed images, painted in file order, without crowds.

    Args:
        file: file of instances.
        names: class names, without the background.
        sizes: function from a photograph's name to its height and width.

    Raises:
        InputError: the file is damaged, or a segmentation is of an unknown class or another size.
    """
    content = read_annotations(file)
    try:
        check_unique([str(image["id"]) for image in content["images"]], f"{str(file)!r}: the list of images")
        groups = group_by_image(content["annotations"], [image["id"] for image in content["images"]])
        categories = {one["id"]: str(one["name"]) for one in content["categories"]}
        for image, group in zip(content["images"], groups, strict=True):
            photo = str(image["file_name"])
            where, size = f"{str(file)!r}, {photo!r}", sizes(photo)
            shapes = [Shape(categories[one.category], fill_outline(one.outline, *size)) for one in group]
            yield LabelledImage(photo, paint_shapes(shapes, size, names, where))
    except InputError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{str(file)!r} has an entry that cannot be read ({error}).") from None
