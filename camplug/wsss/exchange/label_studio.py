"""Label Studio's JSON of tasks: brush masks as predictions out, brush masks and polygons of annotations in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlparse
from xml.sax.saxutils import quoteattr

import numpy as np

from camplug.errors import InputError
from camplug.images.save import write_atomically
from camplug.wsss.exchange.brush import decode_brush, encode_brush
from camplug.wsss.exchange.shapes import (
    LabelledImage,
    Shape,
    cut_shapes,
    fill_polygon,
    list_colors,
    paint_shapes,
    read_json_file,
)

CONTROL, IMAGE, SHAPE = "label", "image", "brushlabels"
CONFIG = ".config.xml"  # ending of the file with the labelling interface
LOCAL_FILES = "/data/local-files/?d="  # address of a photograph below Label Studio's document root


def write_label_studio(images: Iterable[LabelledImage], names: Sequence[str], file: Path) -> None:
    """Write tasks with one prediction each, and the labelling interface in a file beside it.

    Args:
        images: photographs' names and label maps.
        names: class names, without the background.
        file: file to write.

    Raises:
        InputError: a label is no class, or the file cannot be written.
    """
    tasks = [
        {"data": {IMAGE: LOCAL_FILES + quote(image.file)}, "predictions": [{"model_version": "camplug", "result": [
            _make_region(number, shape) for number, shape in enumerate(cut_shapes(image.labels, names))
        ]}]}
        for image in images
    ]  # fmt: skip
    write_atomically(str(file), lambda f: f.write(json.dumps(tasks).encode()))
    rows = [
        f"    <Label value={quoteattr(name)} background={quoteattr(colour)}/>" for name, colour in list_colors(names)
    ]
    lines = ["<View>", f'  <Image name="{IMAGE}" value="${IMAGE}" zoom="true"/>']
    lines += [f'  <BrushLabels name="{CONTROL}" toName="{IMAGE}">', *rows, "  </BrushLabels>", "</View>", ""]
    write_atomically(str(file.with_suffix(CONFIG)), lambda f: f.write("\n".join(lines).encode()))


def _make_region(number: int, shape: Shape) -> dict[str, Any]:
    height, width = shape.mask.shape
    region = {"id": f"region{number}", "type": SHAPE, "from_name": CONTROL, "to_name": IMAGE, "image_rotation": 0}
    value = {"format": "rle", "rle": encode_brush(shape.mask), SHAPE: [shape.name]}
    return region | {"original_width": width, "original_height": height, "value": value}


def read_label_studio(file: Path, names: Sequence[str], sizes: Any) -> Iterator[LabelledImage]:
    """Read the label maps of all tasks that have an annotation; the last one that was not cancelled counts.

    Args:
        file: JSON as Label Studio exports it.
        names: class names, without the background.
        sizes: function from a photograph's name to its height and width; a task without regions is background only.

    Raises:
        InputError: the file is damaged, or a region is no brush mask or polygon of a known class.
    """
    tasks = read_json_file(file)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and "data" in task for task in tasks):
        raise InputError(f"{str(file)!r} is no list of tasks; export as JSON, not JSON-MIN.")
    for task in tasks:
        try:
            found = _read_task(task, str(file), names, sizes)
        except InputError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{str(file)!r} has a task that cannot be read ({error}).") from None
        if found is not None:
            yield found


def _read_task(task: dict[str, Any], file: str, names: Sequence[str], sizes: Any) -> LabelledImage | None:
    """Read the label map of a task; None without an annotation."""
    given = [one for one in task.get("annotations") or () if not one.get("was_cancelled")]
    if not given:
        return None
    photo = _find_photo(task["data"], file)
    where, size = f"{file!r}, {photo!r}", sizes(photo)
    regions = [one for one in given[-1].get("result", ()) if "value" in one]
    shapes = [shape for region in regions for shape in _read_region(region, size, where)]
    return LabelledImage(photo, paint_shapes(shapes, size, names, where))


def _find_photo(data: dict[str, Any], where: str) -> str:
    address = data.get(IMAGE) or next((v for v in data.values() if isinstance(v, str)), None)
    if not isinstance(address, str):
        raise InputError(f"{where} has a task without an address of its photograph.")
    parsed = urlparse(address)
    return (parse_qs(parsed.query).get("d") or [unquote(parsed.path)])[0]


def _read_region(region: dict[str, Any], size: tuple[int, int], where: str) -> list[Shape]:
    kind, value = region.get("type"), region["value"]
    if kind not in (SHAPE, "polygonlabels"):
        raise InputError(f"{where} has a region of the type {kind!r}; allowed are {SHAPE} and polygonlabels.")
    given = (region.get("original_height"), region.get("original_width"))
    if given != size or region.get("image_rotation"):
        raise InputError(
            f"{where} has a region for {given[1]}x{given[0]} pixels, rotated by {region.get('image_rotation', 0)}; the "
            f"photograph is {size[1]}x{size[0]}. Annotate it in its own size and upright."
        )
    labels = value.get(kind) or []
    if len(labels) != 1:
        raise InputError(f"{where} has a region with {len(labels)} classes; give each one.")
    if kind == SHAPE:
        return [Shape(str(labels[0]), decode_brush(value.get("rle", ()), size, where))]
    points = np.asarray(value.get("points", ()), np.float64).reshape(-1, 2) * (size[1] / 100, size[0] / 100)
    return [Shape(str(labels[0]), fill_polygon(points, size, where))]
