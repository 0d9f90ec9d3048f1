"""LabelMe's JSON, one file per photograph: polygons out; polygons, boxes and masks in."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camplug.errors import InputError
from camplug.images.save import write_atomically
from camplug.wsss.data.read_files import strip_ending
from camplug.wsss.exchange.shapes import (
    BACKGROUND_NAME,
    LabelledImage,
    Shape,
    cut_shapes,
    fill_polygon,
    import_skimage,
    paint_shapes,
    read_json_file,
)

VERSION = "5.5.0"  # of LabelMe, whose files these are


def trace_polygons(shapes: Sequence[Shape], tolerance: float = 0.0) -> list[tuple[str, NDArray[np.floating[Any]]]]:
    """Trace the outlines of shapes and of their holes, so that painting them in order gives the shapes again.

    An outline runs halfway between the centres of pixels inside and outside, so that with `tolerance` 0 exactly the
    centres of the shape's pixels lie inside. Larger polygons come first; holes are polygons of the background.

    Args:
        shapes: shapes that do not overlap.
        tolerance: distance in pixels within which corners are left out (Douglas-Peucker).

    Returns:
        Class names and corners x, y [P,2]; the pixel in column x and row y covers x to x + 1 and y to y + 1.
    """
    measure, found = import_skimage("measure"), []
    for shape in shapes:
        for contour in measure.find_contours(np.pad(shape.mask, 1).astype(np.float64), 0.5):
            y, x = contour[:-1].T
            area = float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2  # negative around a hole
            corners = measure.approximate_polygon(contour, tolerance)[:-1]
            corners = corners if len(corners) >= 3 else contour[:-1]  # too small to leave any out
            name = shape.name if area > 0 else BACKGROUND_NAME
            found.append((-abs(area), area > 0, name, corners[:, ::-1] - 0.5))  # 1 of padding, less half a pixel
    found.sort(key=lambda one: one[:2])  # a hole comes before what fills it
    return [(name, corners) for _, _, name, corners in found]


def write_labelme(images: Iterable[LabelledImage], names: Sequence[str], folder: Path, tolerance: float = 0.0) -> None:
    """Write one JSON file per photograph, named like it.

    Args:
        images: photographs' names and label maps.
        names: class names, without the background.
        folder: folder of the files; LabelMe looks for photographs beside them.
        tolerance: see `trace_polygons`.

    Raises:
        InputError: a label is no class, or a file cannot be written.
    """
    for image in images:
        height, width = image.labels.shape
        shapes = [
            {"label": name, "points": corners.tolist(), "group_id": None, "shape_type": "polygon", "flags": {}}
            for name, corners in trace_polygons(cut_shapes(image.labels, names), tolerance)
        ]
        content: dict[str, Any] = {
            "version": VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": Path(image.file).name,
        }
        content |= {"imageData": None, "imageHeight": height, "imageWidth": width}
        file = folder / f"{strip_ending(image.file)}.json"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"the folder {str(file.parent)!r} cannot be made ({error.strerror}).") from None
        text = json.dumps(content)
        write_atomically(str(file), lambda f, text=text: f.write(text.encode()))


def read_labelme(folder: Path, names: Sequence[str], sizes: Any) -> Iterator[LabelledImage]:
    """Read the label maps of a folder of JSON files; later shapes lie above earlier ones.

    Args:
        folder: folder, or one file.
        names: class names, without the background.
        sizes: function from a photograph's name to its height and width.

    Raises:
        InputError: a file is damaged, or a shape is no polygon, rectangle or mask of a known class.
    """
    files = sorted(folder.rglob("*.json")) if folder.is_dir() else [folder]
    if not files:
        raise InputError(f"{str(folder)!r} holds no .json files; give the folder that LabelMe saves in.")
    for file in files:
        content, where = read_json_file(file), repr(str(file))
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            raise InputError(f"{where} is no file of LabelMe: it has no list of shapes.")
        beside = file.parent.relative_to(folder) if folder.is_dir() else Path()
        photo = (beside / str(content.get("imagePath", "")).replace("\\", "/").rpartition("/")[2]).as_posix()
        size = sizes(photo)
        given = (content.get("imageHeight"), content.get("imageWidth"))
        if given != size:
            raise InputError(f"{where} is for {given[1]}x{given[0]} pixels; its photograph is {size[1]}x{size[0]}.")
        try:
            shapes = [_read_shape(shape, size, where) for shape in content["shapes"]]
        except InputError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{where} has a shape that cannot be read ({error}).") from None
        yield LabelledImage(photo, paint_shapes(shapes, size, names, where))


def _read_shape(shape: dict[str, Any], size: tuple[int, int], where: str) -> Shape:
    kind, points, name = shape.get("shape_type", "polygon"), shape["points"], str(shape["label"])
    if kind == "polygon":
        return Shape(name, fill_polygon(points, size, where))
    if kind not in ("rectangle", "mask") or len(points) != 2:
        raise InputError(f"{where} has a {kind} of {len(points)} points; allowed are polygon, rectangle and mask.")
    (left, top), (right, bottom) = points
    if kind == "rectangle":
        return Shape(name, fill_polygon([(left, top), (right, top), (right, bottom), (left, bottom)], size, where))
    try:
        with Image.open(io.BytesIO(base64.b64decode(shape["mask"], validate=True))) as picture:
            inside = np.asarray(picture.convert("L")) > 0
    except (binascii.Error, OSError) as error:
        raise InputError(f"{where} has a mask that cannot be read ({error}).") from None
    x, y, mask = round(left), round(top), np.zeros(size, bool)
    if min(x, y) < 0 or y + inside.shape[0] > size[0] or x + inside.shape[1] > size[1]:
        raise InputError(f"{where} has a mask that leaves the photograph.")
    mask[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return Shape(name, mask)
