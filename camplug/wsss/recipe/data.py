"""Lists of images of a recipe, and views of them without masks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from camplug.errors import InputError
from camplug.wsss.data import VOC_CLASSES, Scenes, SegmentationData, open_data
from camplug.wsss.data.data_view import DataView
from camplug.wsss.data.opening import parse_source
from camplug.wsss.store.identity import hash_names, make_digest, make_digest_table

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
        options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in self.options.items()}
        if kind != "scenes":
            _, _, parsed = parse_source(self.data)
            if {**parsed, **options}.get("labels") == "masks":
                raise InputError("labels: masks would open masks to learn from; labels come from annotations here.")
            return open_data(self.data, self.split, **options)
        try:
            count, _, seed = rest.partition(":")
            return Scenes(int(count), seed=int(seed or 0), **options)
        except (TypeError, ValueError) as error:
            raise InputError(f"options of {self.data!r} cannot be used ({error}).") from None


class View(DataView):
    """View of a data set for a stage: some of its images, with masks only if the stage scores.

    Args:
        data: the data set.
        masks: permission to open masks.
        indices: images to keep; None keeps all.
    """

    def __init__(self, data: SegmentationData, masks: bool, indices: Sequence[int] | None = None) -> None:
        super().__init__(data)
        self.indices = range(len(data)) if indices is None else indices
        self.ids = data.ids if indices is None else tuple(data.ids[i] for i in indices)
        self.has_masks = masks and data.has_masks

    @override
    def get_number(self, i: int) -> int:
        return self.indices[self._check_index(i)]

    @override
    def mask(self, i: int) -> NDArray[np.uint8]:
        self._check_permission()
        return super().mask(i)

    @override
    def mask_digest(self, i: int) -> str:
        self._check_permission()
        return super().mask_digest(i)

    def _check_permission(self) -> None:
        if not self.has_masks:
            raise InputError("masks are opened by stages that score, and by no other.")


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
