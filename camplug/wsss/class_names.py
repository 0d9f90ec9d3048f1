"""Match the classes of models, seeds and label pictures with those of a data set, by name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from camplug.errors import InputError
from camplug.wsss.data.data_view import DataView
from camplug.wsss.data.dataset import IGNORE, SegmentationData
from camplug.wsss.store.identity import make_digest
from camplug.wsss.store.settings_folder import SETTINGS, SettingsFolder


def match_classes(names: Sequence[str], data_names: Sequence[str], what: str = "the model") -> list[int]:
    """Return the index of each class of the data among other names.

    Args:
        names: class names of a model, of seeds or of labels; they may be more than those of the data.
        data_names: class names of the data.
        what: owner of `names` in messages.

    Raises:
        InputError: a class of the data is not among `names`.

    >>> match_classes(["dog", "cat", "yak"], ["cat", "yak"])
    [1, 2]
    """
    if list(names) == list(data_names):
        return list(range(len(data_names)))
    places = {name: i for i, name in enumerate(names)}
    unknown = [name for name in data_names if name not in places]
    if unknown:
        others = [name for name in names if name not in data_names]
        has = f"whose other classes are {quote_names(others)}" if others else f"whose classes are {quote_names(names)}"
        raise InputError(
            f"{what}, {has}, has no class {unknown[0]!r}, which the data has; classes are matched by name, whatever "
            "their order: give both the same names."
        )
    return [places[name] for name in data_names]


def match_known_classes(names: Sequence[str], data_names: Sequence[str], what: str) -> list[int | None]:
    """Return the index of each class of the data among other names, None for those that are not there; warn of them.

    Args:
        names: class names of labels or of a network.
        data_names: class names of the data.
        what: owner of `names` in messages.

    Raises:
        InputError: no class of the data is among `names`.
    """
    missing = [name for name in data_names if name not in names]
    if len(missing) == len(data_names):
        match_classes(names, data_names, what)  # raises
    if missing:
        warnings.warn(
            f"{what} has no class {quote_names(missing)}: {len(missing)} of the data's {len(data_names)} are never "
            "found, and count as missed where masks show them; --classes averages over others.",
            stacklevel=3,
        )
    places = {name: i for i, name in enumerate(names)}
    return [places.get(name) for name in data_names]


def quote_names(names: Sequence[str], most: int = 4) -> str:
    """Return the first names, quoted and separated by commas.

    >>> quote_names(["cat", "dog", "yak"], 2)
    "'cat', 'dog', ..."
    """
    return ", ".join([*map(repr, names[:most]), *["..."] * (len(names) > most)])


def make_value_table(order: Sequence[int | None]) -> NDArray[np.int16]:
    """Make the table from values of a label picture to those of the data; -1 for classes that the data lacks.

    Args:
        order: index in the labels of each class of the data, None for one that the labels lack; see `match_classes`.

    >>> make_value_table([2, 0])[[0, 1, 2, 3, 255]]
    array([  0,   2,  -1,   1, 255], dtype=int16)
    """
    values = np.full(256, -1, np.int16)
    values[[0, IGNORE]] = 0, IGNORE
    for data_class, label_class in enumerate(order):
        if label_class is not None:
            values[label_class + 1] = data_class + 1
    return values


def renumber_labels(labels: NDArray[np.uint8], names: Sequence[str], order: Sequence[int | None]) -> NDArray[np.uint8]:
    """Return a label picture in the data's class numbers.

    Args:
        labels: 0 background, c + 1 for class c of `names`, 255 ignored.
        names: class names of the labels.
        order: see `make_value_table`.

    Raises:
        InputError: the picture shows a class that the data lacks.
    """
    found = make_value_table(order)[labels]
    if (found < 0).any():
        value = int(labels[found < 0][0])
        called = repr(names[value - 1]) if value <= len(names) else str(value)
        raise InputError(f"the labels show the class {called}, which the data has not.")
    return found.astype(np.uint8)


class RenumberedData(DataView):
    """Data set with its classes numbered by other names.

    Args:
        data: data set.
        classes: names that include all classes of the data.
        what: owner of these names in messages.

    Raises:
        InputError: a class of the data is not among them.
    """

    def __init__(self, data: SegmentationData, classes: Sequence[str], what: str = "the other data") -> None:
        super().__init__(data)
        self.classes = tuple(classes)
        self._numbers = match_classes(classes, data.classes, what)

    @property
    @override
    def class_numbers(self) -> tuple[Any, ...]:
        known = dict(zip(self._numbers, self.data.class_numbers, strict=True))
        free = (number for number in count(1) if number not in known.values())
        return tuple(known[c] if c in known else next(free) for c in range(len(self.classes)))

    @override
    def labels(self, i: int) -> tuple[int, ...]:
        return tuple(sorted(self._numbers[c] for c in self.data.labels(i)))

    @override
    def mask(self, i: int) -> NDArray[np.uint8]:
        values = np.full(256, IGNORE, np.uint8)
        values[: len(self._numbers) + 1] = [0, *(number + 1 for number in self._numbers)]
        mask: NDArray[np.uint8] = values[self.data.mask(i)]
        return mask

    @override
    def mask_digest(self, i: int) -> str:
        return make_digest([self.data.mask_digest(i), list(self.data.classes)])


def renumber_data(data: SegmentationData, classes: Sequence[str], what: str) -> SegmentationData:
    """Return a data set with its classes numbered by other names; the data set itself if they are equal.

    Raises:
        InputError: a class of the data is not among them.
    """
    return data if tuple(data.classes) == tuple(classes) else RenumberedData(data, classes, what)


def order_like_folder(folder: SettingsFolder, data: SegmentationData) -> SegmentationData:
    """Return a data set with its classes in the order of a folder's, if the names are the same.

    Args:
        folder: folder whose results are reused, whatever the order of the data's classes.
        data: data set.
    """
    made = folder.read_settings().get("classes") if (folder.path / SETTINGS).exists() else None
    same = isinstance(made, list) and sorted(map(str, made)) == sorted(data.classes)
    return renumber_data(data, list(map(str, made)), "the folder") if same and made is not None else data


def match_folder_classes(settings: Mapping[str, Any], classes: Sequence[str], what: str) -> list[int] | None:
    """Return the indices of the data's classes in a folder; None if the folder has no class names.

    Args:
        settings: settings of the folder.
        classes: class names of the data.
        what: name of the folder in messages, such as "the folder of seeds".

    Raises:
        InputError: a class of the data is not among the folder's.
    """
    names = settings.get("classes")
    return None if names is None else match_classes(names, classes, what)
