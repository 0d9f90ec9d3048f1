"""Class activation maps as segmentations, scored at every background threshold in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from camplug.errors import InputError
from camplug.metrics.checks import check_maps, check_num_classes, check_truth, integers, whole
from camplug.metrics.scores import Convention, Floats, miou

_STATE = ("num_classes", "ignore", "thresholds", "groups", "images", "histograms")


class ThresholdSweep:
    """Confusion matrices of maps against truth, one per background threshold t, from one look at each pixel.

    The label rule is that of the published code, a constant plane t in front of the maps and argmax: a pixel gets the
    label of its highest map where that value is **above** t, else 0, the background. Ties between maps go to the class
    named first, ties with t to the background. t is compared in the type of the maps (t is rounded to float32 for
    float32 maps, as a constant plane would be; a map in uint8 means value / 255), so that a map that stores 0.3 ties
    with t = 0.3 in every type.

    A pixel enters one cell of a histogram over (truth, best class, number of thresholds below its highest value);
    cumulative sums over the last axis give the matrices of all thresholds, exactly. So the cost of an image depends on
    the number of thresholds only in the look-up of that number (a binary search), and memory is C x C x (T+1) int64
    per group, however many images come.

    Images are kept in groups: 1, 2 and 3 for maps of one, two, three or more classes, 0 for none, unless `add` is told
    otherwise.

    Args:
        num_classes: C, the background included: 21 for VOC, 81 for COCO.
        thresholds: increasing numbers in [0, 1); .01, .02, ... .99 if left out.
        ignore: the true label of pixels that are not counted.

    Attributes:
        thresholds: [T] float64.
        histograms: for each group, [C, C, T+1] int64: truth, best class, number of thresholds below its value.
        images: for each group, how many images were added.

    A threshold chosen on one split and reported on another, not chosen on the masks that are reported:

    >>> train, val = ThresholdSweep(2, [0.2, 0.4, 0.6]), ThresholdSweep(2, [0.2, 0.4, 0.6])
    >>> train.add(np.array([[[0.3, 0.5, 0.9]]]), classes=[0], truth=np.array([[0, 1, 1]]))
    >>> val.add(np.array([[[0.3, 0.3, 0.9]]]), classes=[0], truth=np.array([[0, 1, 1]]))
    >>> train.best()
    (0.4, 1.0)
    >>> val.at(train.best()[0])
    array([[1, 0],
           [1, 1]])
    >>> carried(train, val)
    (0.4, 0.5)
    """

    def __init__(self, num_classes: int, thresholds: ArrayLike | None = None, ignore: int = 255) -> None:
        self.num_classes, self.ignore = check_num_classes(num_classes, ignore)
        self.thresholds = _grid(np.arange(1, 100) / 100 if thresholds is None else thresholds)
        self.histograms: dict[int, NDArray[np.int64]] = {}
        self.images: dict[int, int] = {}

    def add(self, maps: ArrayLike, classes: ArrayLike, truth: ArrayLike, group: int | None = None) -> None:
        """Count one image.

        Args:
            maps: [K, H, W] in [0, 1], float16 to float64, or uint8 (value / 255). K may be 0: all is background.
            classes: the K classes that the maps are of, counted without the background: class c is label c + 1.
            truth: [H, W] integers, labels 0 to C-1 or `ignore`.
            group: the number to keep the image under; None: by its number of classes, 0, 1, 2 or 3 (or more).

        Raises:
            InputError: shapes that do not fit, a value outside [0, 1] or nan, a class or a label that does not exist.
                Nothing is counted then.
        """
        values, true = np.asarray(maps), integers(truth, "truth")
        if values.ndim != 3 or true.ndim != 2 or values.shape[1:] != true.shape:
            raise InputError(
                f"maps are {list(values.shape)} and truth {list(true.shape)}; give maps [K, H, W] and truth [H, W]"
            )
        labels = self._labels(classes, len(values))
        check_maps(values)
        if group is None:
            group = min(len(labels), 3)
        group = whole(group, "group")
        counted, rows = check_truth(true, self.num_classes, self.ignore)
        seen, columns = values[:, counted], labels if len(labels) else np.zeros(1, np.int64)
        bins = len(self.thresholds) + 1
        cells = rows * (len(columns) * bins)  # no map: column 0, the background, above no threshold
        if len(labels):
            cells += seen.argmax(0) * bins + self._above(seen.max(0))
        counts = np.bincount(cells, minlength=self.num_classes * len(columns) * bins)
        histogram = self._histogram(group)
        histogram[:, columns] += counts.reshape(self.num_classes, len(columns), bins)
        self.images[group] += 1

    @property
    def groups(self) -> tuple[int, ...]:
        """The groups that hold images, in order."""
        return tuple(sorted(self.histograms))

    @property
    def matrices(self) -> NDArray[np.int64]:
        """The confusion matrix at each threshold, [T, C, C] int64, of all images."""
        return self._matrices(self._total())

    def matrices_of(self, group: int) -> NDArray[np.int64]:
        """The confusion matrix at each threshold, [T, C, C] int64, of the images of one group.

        Raises:
            InputError: no image was added to this group.
        """
        if group not in self.histograms:
            known = ", ".join(map(str, self.groups)) or "none yet"
            raise InputError(f"no image was added to group {group!r}; groups with images: {known}")
        return self._matrices(self.histograms[group])

    def scores(self, convention: Convention = "present", classes: Sequence[int] | None = None) -> Floats:
        """mIoU at each threshold, [T] float64; see `camplug.metrics.miou` for the arguments."""
        return miou(self.matrices, convention, classes)

    def best(self, convention: Convention = "present", classes: Sequence[int] | None = None) -> tuple[float, float]:
        """The threshold with the highest mIoU (the lowest of several), and that mIoU.

        The best over the masks that it is reported on is chosen with their help: name that split beside the number, or
        choose on another split (`carried`).

        Raises:
            InputError: there is nothing to score: no counted pixel, or none of these classes occurs.
        """
        scores = self.scores(convention, classes)
        if not self._total().any() or np.isnan(scores).all():
            raise InputError("no pixel was counted for the classes to score; add images with maps and truth first")
        place = int(np.nanargmax(scores))
        return float(self.thresholds[place]), float(scores[place])

    def at(self, threshold: float) -> NDArray[np.int64]:
        """The confusion matrix [C, C] int64 at one threshold of the grid.

        Raises:
            InputError: the threshold is not on the grid, by more than 1e-9.
        """
        place = int(np.abs(self.thresholds - threshold).argmin())
        if not abs(self.thresholds[place] - threshold) <= 1e-9:
            raise InputError(
                f"threshold {threshold} is not on the grid of this sweep; the nearest is {self.thresholds[place]}, "
                "or give thresholds= with it at the start"
            )
        matrix: NDArray[np.int64] = self.matrices[place]
        return matrix

    def state(self) -> dict[str, NDArray[Any]]:
        """All counts as plain arrays, for `np.savez(path, **sweep.state())`, without pickle.

        num_classes [], ignore [], thresholds [T], groups [G], images [G], histograms [G, C, C, T+1].
        """
        empty = np.zeros((0, self.num_classes, self.num_classes, len(self.thresholds) + 1), np.int64)
        return {
            "num_classes": np.array(self.num_classes),
            "ignore": np.array(self.ignore),
            "thresholds": self.thresholds.copy(),
            "groups": np.array(self.groups, np.int64),
            "images": np.array([self.images[g] for g in self.groups], np.int64),
            "histograms": np.concatenate([empty, *(self.histograms[g][None] for g in self.groups)]),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> ThresholdSweep:
        """The sweep whose `state` this is; takes what `np.load(path)` returns.

        Raises:
            InputError: arrays are missing or do not fit one another.
        """
        missing = [key for key in _STATE if key not in state]
        if missing:
            raise InputError(
                f"the state of a sweep lacks {', '.join(missing)}; give what ThresholdSweep.state() returned"
            )
        arrays = {key: np.asarray(state[key]) for key in _STATE}  # an .npz reads from disk at each access
        sweep = cls(arrays["num_classes"].item(), arrays["thresholds"], arrays["ignore"].item())
        groups, images, histograms = arrays["groups"], arrays["images"], arrays["histograms"]
        shape = (len(groups), sweep.num_classes, sweep.num_classes, len(sweep.thresholds) + 1)
        if histograms.shape != shape or images.shape != groups.shape:
            raise InputError(
                f"the state's histograms are {list(histograms.shape)} with {len(images)} counts of images; "
                f"its other arrays ask for {list(shape)}"
            )
        for group, count, histogram in zip(groups.tolist(), images.tolist(), histograms, strict=True):
            sweep._histogram(group)[:] = histogram
            sweep.images[group] = count
        return sweep

    def __iadd__(self, other: ThresholdSweep) -> ThresholdSweep:
        self._check_like(other)
        for group, histogram in list(other.histograms.items()):
            mine = self._histogram(group)
            mine += histogram
            self.images[group] += other.images[group]
        return self

    def __add__(self, other: ThresholdSweep) -> ThresholdSweep:
        total = ThresholdSweep(self.num_classes, self.thresholds, self.ignore)
        total += self
        total += other
        return total

    def _labels(self, classes: ArrayLike, maps: int) -> NDArray[np.int64]:
        """The labels of the maps, [K]."""
        given = integers(classes, "classes")
        if given.shape != (maps,):
            raise InputError(f"{maps} maps and classes {given.tolist()}; give a list with one class for each map")
        for c in given.tolist():
            if not 0 <= c < self.num_classes - 1:
                raise InputError(
                    f"class {c} is not one of 0 to {self.num_classes - 2}; classes are counted without the background "
                    f"(class c is label c + 1, num_classes={self.num_classes})"
                )
        if len(set(given.tolist())) != maps:
            raise InputError(f"classes {given.tolist()} name one class twice; give one map for each class")
        return given.astype(np.int64) + 1

    def _above(self, values: NDArray[Any]) -> NDArray[np.intp]:
        """How many thresholds lie below each value."""
        if values.dtype == np.uint8:
            found: NDArray[np.intp] = np.searchsorted(self.thresholds, np.arange(256) / 255)[values]
            return found
        return np.searchsorted(self.thresholds.astype(values.dtype), values)

    def _histogram(self, group: int) -> NDArray[np.int64]:
        if group not in self.histograms:
            self.histograms[group] = self._empty()
            self.images[group] = 0
        return self.histograms[group]

    def _empty(self) -> NDArray[np.int64]:
        return np.zeros((self.num_classes, self.num_classes, len(self.thresholds) + 1), np.int64)

    def _total(self) -> NDArray[np.int64]:
        total = self._empty()
        for histogram in self.histograms.values():
            total += histogram
        return total

    def _matrices(self, histogram: NDArray[np.int64]) -> NDArray[np.int64]:
        """The matrix at threshold i: what lies in bins above i under its class, the rest under the background."""
        above = np.cumsum(histogram[..., :0:-1], axis=-1)[..., ::-1]
        matrices = np.ascontiguousarray(np.moveaxis(above, -1, 0))
        matrices[..., 0] = histogram.sum((1, 2)) - matrices[..., 1:].sum(-1)
        return matrices

    def _check_like(self, other: Any) -> None:
        if not isinstance(other, ThresholdSweep):
            raise InputError(f"add another ThresholdSweep, not a value of type {type(other).__name__}")
        if (self.num_classes, self.ignore) != (other.num_classes, other.ignore):
            raise InputError(
                f"one sweep has num_classes={self.num_classes}, ignore={self.ignore}, the other "
                f"num_classes={other.num_classes}, ignore={other.ignore}; merge counts of one dataset only"
            )
        if not np.array_equal(self.thresholds, other.thresholds):
            raise InputError(
                f"one sweep has {len(self.thresholds)} thresholds, the other {len(other.thresholds)}, and they differ; "
                "merge sweeps that were made with the same thresholds="
            )


def carried(
    chosen: ThresholdSweep,
    reported: ThresholdSweep,
    convention: Convention = "present",
    classes: Sequence[int] | None = None,
) -> tuple[float, float]:
    """The best threshold of one sweep, and the mIoU of another one at that threshold.

    Raises:
        InputError: the threshold is not on the grid of the second sweep, or the first one has nothing to score.
    """
    threshold, _ = chosen.best(convention, classes)
    return threshold, float(miou(reported.at(threshold), convention, classes))


def _grid(thresholds: ArrayLike) -> Floats:
    grid = np.array(thresholds, np.float64)
    if grid.ndim != 1 or not grid.size:
        raise InputError(f"thresholds are {list(grid.shape)}; give a list of one or more numbers")
    if not (np.diff(grid) > 0).all() or not (grid[0] >= 0 and grid[-1] < 1):
        raise InputError(
            f"thresholds go from {grid[0]} to {grid[-1]}; give increasing numbers, each one once, from 0 to below 1"
        )
    return grid
