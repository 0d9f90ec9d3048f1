"""COCO 2014, and data sets exported in its format."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from camplug.errors import InputError
from camplug.images.photo import read_photo
from camplug.wsss.data.coco_layout import find_annotations, find_photos, make_image_id, select_classes
from camplug.wsss.data.dataset import SegmentationData
from camplug.wsss.data.read_files import MAX_CLASSES, check_size, check_unique, read_text, resolve_folder
from camplug.wsss.data.run_lengths import decode_run_lengths, import_pycocotools
from camplug.wsss.store.identity import make_digest

if TYPE_CHECKING:
    from PIL.Image import Image

MASKS_NEED = "masks=False goes without masks"
MAX_COORDINATE = 1e5  # pixels; farther polygon corners are damage and would take very long to fill


class Shape(NamedTuple):
    """Annotated object: the ids of its annotation and category, and its polygons or run lengths."""

    annotation: Any
    category: Any
    outline: Any


class COCO(SegmentationData):
    """COCO 2014: 80 classes, labels and masks from the instance annotations.

    The category ids (1 to 90, with gaps) become classes 0 to 79 in the order of the ids. Images without annotations
    have the labels (). Labels are the categories of all annotations that are not crowds, visible or not. Masks are
    *painted in file order, without crowds*: annotations of an image are painted one over the other in the order of the
    file, those with iscrowd=1 are left out, and no pixel is 255. Other masks of COCO exist; report this variant with
    every figure.

    The layouts of COCO, CVAT (annotations/instances_default.json, images/), Roboflow (SPLIT/_annotations.coco.json
    beside the photographs) and labelme2coco (annotations.json) are supported; see `camplug.wsss.data.coco_layout`.

    Args:
        root: folder with annotations and photographs.
        split: split such as "train2014", from instances_{split}.json. None: train2014, train2017 or train, or the only
            one.
        annotations: another file of annotations, relative to `root` or to the working folder.
        masks: load masks, which needs pycocotools.
        photos: another folder of photographs, relative to `root` or to the working folder.

    Raises:
        InputError: pycocotools, a folder or the annotations are missing, or the annotations have another format.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str | None = None,
        annotations: str | os.PathLike[str] | None = None,
        masks: bool = True,
        photos: str | os.PathLike[str] | None = None,
    ) -> None:
        if masks:
            import_pycocotools(MASKS_NEED)  # raises at once where it is missing
        self.has_masks = masks
        self.root = resolve_folder(root)
        if annotations is None:
            split, path = find_annotations(self.root, split)
        else:
            split, path = split or "", resolve_path(self.root, annotations)
        content = read_annotations(path)
        categories, images = content["categories"], content["images"]
        if not images or not categories:
            raise InputError(f"{str(path)!r} lists no {'categories' if images else 'images'}.")
        if len(categories) > MAX_CLASSES:
            raise InputError(f"{str(path)!r} has {len(categories)} categories; masks can hold {MAX_CLASSES}.")
        try:
            self._files = [(str(m["file_name"]), (int(m["width"]), int(m["height"]))) for m in images]
            check_unique((str(m["id"]) for m in images), f"the list of image ids in {str(path)!r}")
            check_unique((str(c["id"]) for c in categories), f"the list of category ids in {str(path)!r}")
            used = {one["category_id"] for one in content["annotations"]}
            names = select_classes(categories, used, repr(str(path)))
            self._shapes = group_by_image(content["annotations"], [m["id"] for m in images])
        except InputError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            what = (
                f"an entry has no {error}" if isinstance(error, KeyError) else f"an entry is not as it should: {error}"
            )
            raise InputError(f"{str(path)!r} is not a file of COCO's instances: {what}.") from None
        if photos is None:
            self._photos = find_photos(self.root, split, path, [name for name, _ in self._files])
        else:
            self._photos = resolve_folder(resolve_path(self.root, photos))
        self.classes = tuple(names.values())
        self.ids = tuple(make_image_id(name) for name, _ in self._files)
        self._index = {number: c for c, number in enumerate(names)}
        self._image_numbers = tuple(m["id"] for m in images)
        check_unique(self.ids, f"the list of images in {str(path)!r}")

    @property
    def image_numbers(self) -> tuple[Any, ...]:
        """Numbers of the images in the annotations."""
        return self._image_numbers

    @property
    def class_numbers(self) -> tuple[Any, ...]:
        """Numbers of the categories in the annotations."""
        return tuple(self._index)

    def labels(self, i: int) -> tuple[int, ...]:
        """Return the classes of image i's annotations that are not crowds, sorted; see `SegmentationData.labels`."""
        return tuple(sorted({self._get_class(i, shape) for shape in self._shapes[self._check_index(i)]}))

    def photo(self, i: int) -> Image:
        """Load image i, upright RGB; see `SegmentationData.photo`."""
        return read_photo(self.photo_file(i))

    def mask(self, i: int) -> NDArray[np.uint8]:
        """Paint the mask of image i in file order, without crowds, uint8 [H,W]; see `SegmentationData.mask`."""
        if not self.has_masks:
            raise InputError("this data set was opened with masks=False and has no masks.")
        width, height = self._files[self._check_index(i)][1]
        check_size(self.photo_file(i), (width, height), f"image {self.ids[i]!r} in the annotations")
        mask = np.zeros((height, width), np.uint8)
        for shape in self._shapes[i]:
            try:
                mask[fill_outline(shape.outline, height, width)] = self._get_class(i, shape) + 1
            except InputError:
                raise
            except Exception as error:  # pycocotools raises many kinds
                raise InputError(
                    f"image {self.ids[i]!r}: the segmentation of annotation {shape.annotation} cannot be painted "
                    f"({error})."
                ) from None
        return mask

    def photo_file(self, i: int) -> Path:
        """Return the file of image i's photograph."""
        return self._photos / self._files[self._check_index(i)][0]

    def mask_digest(self, i: int) -> str:
        """Return a digest of the annotations that image i's mask is painted from."""
        if not self.has_masks:
            raise InputError("this data set was opened with masks=False and has no masks.")
        size, shapes = self._files[self._check_index(i)][1], self._shapes[i]
        return make_digest([size, [(self._get_class(i, shape), _make_plain(shape.outline)) for shape in shapes]])

    def _get_class(self, i: int, shape: Shape) -> int:
        try:
            return self._index[shape.category]
        except (KeyError, TypeError):
            raise InputError(
                f"image {self.ids[i]!r}: annotation {shape.annotation} is of category {shape.category!r}, which the "
                "file does not list."
            ) from None


def resolve_path(root: Path, name: str | os.PathLike[str]) -> Path:
    """Return the path of a file or folder, relative to `root` if it exists there, else to the working folder."""
    path = Path(name).expanduser()
    return root / path if (root / path).exists() else path


def read_annotations(path: Path) -> dict[str, Any]:
    """Read a file of instance annotations.

    Raises:
        InputError: the file is missing, damaged, or has another format.
    """
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(path)!r} is damaged or not JSON ({error}).") from None
    parts = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(part), list) for part in parts):
        raise InputError(f"{str(path)!r} is not a file of COCO's instances: it must hold lists {', '.join(parts)}.")
    return content


def group_by_image(annotations: list[Any], images: list[Any]) -> list[list[Shape]]:
    """Group the objects by image, in file order, without crowds; empties `annotations` to save memory.

    Raises:
        KeyError, TypeError, ValueError: an entry is incomplete, or its image is not listed.
    """
    shapes: dict[Any, list[Shape]] = {image: [] for image in images}
    while annotations:
        one = annotations.pop()
        if one["image_id"] not in shapes:
            raise ValueError(f"annotation {one.get('id')} is of image {one['image_id']!r}, which is not listed")
        if not one.get("iscrowd", 0):
            shapes[one["image_id"]].append(Shape(one["id"], one["category_id"], _pack_outline(one.get("segmentation"))))
    return [shapes[image][::-1] for image in images]  # popped from the end


def fill_outline(outline: Any, height: int, width: int) -> NDArray[np.bool_]:
    """Compute the pixels inside polygons or run lengths, bool [H,W], as pycocotools does.

    Args:
        outline: polygons [x0, y0, x1, y1, ...] in pixels, or run lengths {"size": [H, W], "counts": ...}, compressed or
            not. A polygon with fewer than three corners is empty.
        height: H.
        width: W.

    Raises:
        ValueError: the outline has another format or size.
    """
    if isinstance(outline, dict):
        if list(outline.get("size", ())) != [height, width]:
            raise ValueError(f"its run lengths are for {outline.get('size')}, not {[height, width]}")
        counts = outline["counts"]
        runs = [int(n) for n in counts] if isinstance(counts, list) else decode_run_lengths(counts)
    elif not isinstance(outline, list) or not outline:
        raise ValueError("neither polygons nor run lengths")
    else:
        polygons = [np.asarray(p, np.float64) for p in outline]
        for p in polygons:
            if p.ndim != 1 or p.size % 2 or not (np.abs(p) < MAX_COORDINATE).all():
                raise ValueError("a polygon is not a list of pairs of coordinates near the image")
        polygons = [p for p in polygons if p.size >= 6]  # pycocotools would read two corners as a box
        if not polygons:
            return np.zeros((height, width), bool)
        coding = import_pycocotools(MASKS_NEED)
        merged = coding.merge(coding.frPyObjects([p.tolist() for p in polygons], height, width))
        runs = decode_run_lengths(merged["counts"])
    if sum(runs) != height * width or min(runs) < 0:
        raise ValueError(f"its run lengths add up to {sum(runs)} pixels, not {height * width}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def _pack_outline(outline: Any) -> Any:
    """Convert polygons to arrays, which take a quarter of the memory of lists; return anything else unchanged."""
    try:
        return [np.array(p, np.float64) for p in outline] if isinstance(outline, list) else outline
    except (TypeError, ValueError):
        return outline  # raises when it is painted


def _make_plain(outline: Any) -> Any:
    """Convert polygons or run lengths to plain data, for a digest."""
    if isinstance(outline, list):
        return [p.tolist() if isinstance(p, np.ndarray) else p for p in outline]
    return outline
