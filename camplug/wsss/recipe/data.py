"""Lists of images of a recipe, and views of them without masks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from camplug.errors import InputError
from camplug.wsss.data import VOC_CLASSES, Scenes, SegmentationData, open_data
from camplug.wsss.data.opening import parse_source
from camplug.wsss.data.scenes import Scene
from camplug.wsss.store.identity import hash_names, make_digest, make_digest_table

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

MOST_KEPT = 2000  # scenes in memory
VARIABLE = re.compile(r"\$\{(\w+)\}")
# by kind, for data not on disk: height and width, classes of an image, all classes
TYPICAL: dict[str, tuple[tuple[int, int], float, int]] = {
    "voc": ((375, 500), 1.5, len(VOC_CLASSES)),
    "coco": ((480, 640), 2.9, 80),
    "scenes": ((96, 96), 1.8, 6),
    "folder": ((375, 500), 1.5, 20),
}


@dataclass(frozen=True)
class ImageList:
    """List of images in a recipe.

    Args:
        data: source, see `camplug.wsss.data.open_data`.
        split: split of the source.
        options: options of the data set's class, such as those of `Scenes` or the masks of `VOC`.
        images: number of images, for a dry run without the data.
        size: usual height and width, for a dry run without the data.
        allow_missing: permission to train although more than 5 % of the photographs or labels cannot be read.
    """

    data: str
    split: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    images: int | None = None
    size: tuple[int, int] | None = None
    allow_missing: bool = False

    @property
    def kind(self) -> str:
        """Prefix of the source, such as "voc"; "folder" for a bare path."""
        kind, colon, _ = self.data.partition(":")
        return kind if colon and kind in TYPICAL else "folder"

    def open(self) -> SegmentationData:
        """Open the data set.

        Raises:
            InputError: it does not exist, or does not have these options.
        """
        kind, _, rest = self.data.partition(":")
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in self.options.items()}
        if kind != "scenes":
            _, _, parsed = parse_source(self.data)
            if {**parsed, **options}.get("labels") == "masks":
                raise InputError("labels: masks would open masks to learn from; labels come from annotations here.")
            return open_data(self.data, self.split, **options)
        try:
            count, _, seed = rest.partition(":")
            return CachedScenes(int(count), seed=int(seed or 0), **options)
        except (TypeError, ValueError) as error:
            raise InputError(f"options of {self.data!r} cannot be used ({error}).") from None


class CachedScenes(Scenes):
    """Scenes kept in memory, since drawing one takes longer than a training step."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._kept: dict[int, Scene] = {}

    @override
    def _get_scene(self, i: int) -> Scene:
        if i not in self._kept:
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            self._kept[i] = super()._get_scene(i)
        return self._kept[i]


class View(SegmentationData):
    """View of a data set for a stage: some of its images, with masks only if the stage scores.

    Args:
        data: the data set.
        masks: permission to open masks.
        indices: images to keep; None keeps all.
    """

    def __init__(self, data: SegmentationData, masks: bool, indices: Sequence[int] | None = None) -> None:
        self.data, self.indices = data, range(len(data)) if indices is None else indices
        self.classes = data.classes
        self.ids = data.ids if indices is None else tuple(data.ids[i] for i in indices)
        self.has_labels, self.has_masks = data.has_labels, masks and data.has_masks

    @override
    def labels(self, i: int) -> tuple[int, ...]:
        return self.data.labels(self.indices[self._check_index(i)])

    @override
    def photo(self, i: int) -> Image:
        return self.data.photo(self.indices[self._check_index(i)])

    @override
    def mask(self, i: int) -> NDArray[np.uint8]:
        if not self.has_masks:
            raise InputError("masks are opened by stages that score, and by no other.")
        return self.data.mask(self.indices[self._check_index(i)])

    @override
    def photo_file(self, i: int) -> Path | None:
        return self.data.photo_file(self.indices[self._check_index(i)])

    @override
    def photo_digest(self, i: int) -> str:
        return self.data.photo_digest(self.indices[self._check_index(i)])

    @override
    def label_digest(self, i: int) -> str:
        return self.data.label_digest(self.indices[self._check_index(i)])

    @override
    def mask_digest(self, i: int) -> str:
        if not self.has_masks:
            raise InputError("masks are opened by stages that score, and by no other.")
        return self.data.mask_digest(self.indices[self._check_index(i)])


def identify_images(data: SegmentationData, reads: Sequence[str]) -> dict[str, Any]:
    """Return digests that identify a list of images wherever it is stored.

    Args:
        data: list of images.
        reads: parts to include: photographs, labels, masks.
    """
    found = {"list_sha256": hash_names(data), "classes": make_digest(list(data.classes))}
    tables = {"photographs": data.photo_digest, "labels": data.label_digest, "masks": data.mask_digest}
    return found | {what: make_digest(list(make_digest_table(data.ids, tables[what]).values())) for what in reads}


def spread_indices(count: int, wanted: int) -> list[int]:
    """Return indices spread evenly over a list.

    >>> spread_indices(100, 4)
    [12, 37, 62, 87]
    >>> spread_indices(2, 10)
    [0, 1]
    """
    wanted = min(count, wanted)
    return [(2 * i + 1) * count // (2 * wanted) for i in range(wanted)]
