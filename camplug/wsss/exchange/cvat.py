"""CVAT's "CVAT for images 1.1": masks out; masks, polygons and boxes in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as et

import numpy as np

from camplug.errors import InputError
from camplug.images.save import write_atomically
from camplug.wsss.data.read_files import read_text
from camplug.wsss.exchange.shapes import (
    LabelledImage,
    Shape,
    cut_shapes,
    decode_runs,
    encode_runs,
    fill_polygon,
    list_colors,
    paint_shapes,
)


def write_cvat(images: Iterable[LabelledImage], names: Sequence[str], file: Path) -> None:
    """Write annotations.xml; a mask is stored in its box, as runs outside and inside in turn, row by row.

    Args:
        images: photographs' names and label maps.
        names: class names, without the background.
        file: file to write.

    Raises:
        InputError: a label is no class, or the file cannot be written.
    """
    root = et.Element("annotations")
    et.SubElement(root, "version").text = "1.1"
    labels = et.SubElement(et.SubElement(et.SubElement(root, "meta"), "task"), "labels")
    for name, colour in list_colors(names):
        label = et.SubElement(labels, "label")
        for key, text in (("name", name), ("color", colour), ("type", "mask")):
            et.SubElement(label, key).text = text
    for number, image in enumerate(images):
        height, width = image.labels.shape
        size = {"width": str(width), "height": str(height)}
        found = et.SubElement(root, "image", {"id": str(number), "name": image.file} | size)
        for shape in cut_shapes(image.labels, names):
            et.SubElement(found, "mask", _describe_mask(shape))
    et.indent(root)
    content = et.tostring(root, encoding="utf-8", xml_declaration=True)
    write_atomically(str(file), lambda f: f.write(content))


def _describe_mask(shape: Shape) -> dict[str, str]:
    rows, columns = np.flatnonzero(shape.mask.any(1)), np.flatnonzero(shape.mask.any(0))
    top, left = int(rows[0]), int(columns[0])
    inside = shape.mask[top : rows[-1] + 1, left : columns[-1] + 1]
    runs = ", ".join(map(str, encode_runs(inside)))
    box = {"left": left, "top": top, "width": inside.shape[1], "height": inside.shape[0]}
    plain = {"label": shape.name, "source": "file", "occluded": "0", "rle": runs}
    return plain | {key: str(value) for key, value in box.items()} | {"z_order": "0"}


def read_cvat(file: Path, names: Sequence[str], sizes: Any) -> Iterator[LabelledImage]:
    """Read the label maps of all images; shapes of a higher z_order, then later ones, lie above others.

    Args:
        file: annotations.xml of "CVAT for images 1.1".
        names: class names, without the background.
        sizes: function from a photograph's name to its height and width.

    Raises:
        InputError: the file is damaged, or a shape is no mask, polygon or box of a known class.
    """
    text = read_text(file)
    if "<!ENTITY" in text:
        raise InputError(f"{str(file)!r} defines entities, which no export of CVAT does.")
    try:
        root = et.fromstring(text)
    except et.ParseError as error:
        raise InputError(f"{str(file)!r} is damaged or not XML ({error}).") from None
    if root.tag != "annotations" or root.find("track") is not None:
        raise InputError(f'{str(file)!r} is no file of "CVAT for images 1.1"; export the task in that format.')
    for image in root.iterfind("image"):
        photo = image.get("name", "")
        where, size = f"{str(file)!r}, {photo!r}", sizes(photo)
        given = (image.get("height"), image.get("width"))
        if given != (str(size[0]), str(size[1])):
            raise InputError(f"{where} is {given[1]}x{given[0]} there; the photograph is {size[1]}x{size[0]}.")
        try:
            found = sorted((e for e in image if e.tag != "tag"), key=lambda e: int(e.get("z_order", 0)))
            shapes = [_read_shape(element, size, where) for element in found]
        except (KeyError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{where} has a shape that cannot be read ({error}).") from None
        yield LabelledImage(photo, paint_shapes(shapes, size, names, where))


def _read_shape(element: et.Element, size: tuple[int, int], where: str) -> Shape:
    given, name = element.attrib, element.attrib["label"]
    if element.tag == "polygon":
        points = [[float(value) for value in pair.split(",")] for pair in given["points"].split(";")]
        return Shape(name, fill_polygon(points, size, where))
    if element.tag == "box":
        left, top, right, bottom = (float(given[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
        return Shape(name, fill_polygon([(left, top), (right, top), (right, bottom), (left, bottom)], size, where))
    if element.tag != "mask":
        raise InputError(f"{where} has a {element.tag}; allowed are mask, polygon and box.")
    left, top, width, height = (int(given[key]) for key in ("left", "top", "width", "height"))
    if min(left, top) < 0 or left + width > size[1] or top + height > size[0]:
        raise InputError(f"{where} has a mask that leaves the photograph.")
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = decode_runs(
        [int(run) for run in given["rle"].split(",")], (height, width), where
    )
    return Shape(name, mask)
