"""Confusion matrices of class activation maps at all background thresholds, in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from camplug.errors import InputError
from camplug.metrics.checks import (
    check_integers,
    check_maps,
    check_mergeable,
    check_num_classes,
    check_thresholds,
    check_truth,
    check_whole,
)
from camplug.metrics.scores import Convention, Floats, miou

_STATE = ("num_classes", "ignore", "thresholds", "groups", "images", "histograms")


class ThresholdSweep:
    """Streaming confusion matrices of maps against truth, one per background threshold t.

    A pixel gets the label of its highest map if that value is **above** t, else 0, the background; this equals argmax
    with a constant background map t, as in published code. Ties between maps go to the class given first, ties with t
    to the background. t is compared in the type of the maps (rounded to float32 for float32 maps; uint8 means
    value / 255), so a map that stores 0.3 ties with t = 0.3 in every type.

    Each pixel enters one cell of a histogram over (truth, best class, number of thresholds below its highest value);
    cumulative sums over the last axis give the exact matrices of all thresholds. The number of thresholds costs one
    binary search per pixel; memory is C x C x (T+1) int64 per group for any number of images.

    Images are counted in groups: 0, 1, 2 and 3 by the number of classes (3: three or more), unless `add` gets a group.

    Args:
        num_classes: C, including the background: 21 for VOC, 81 for COCO.
        thresholds: increasing numbers in [0, 1); default: .01, .02, ... .99.
        ignore: true label of pixels that are not counted.

    Attributes:
        thresholds: [T] float64.
        histograms: [C, C, T+1] int64 by group: truth, best class, number of thresholds below its value.
        images: number of images by group.

    Choose a threshold on one split and report it on another:

    >>> train, val = ThresholdSweep(2, [0.2, 0.4, 0.6]), ThresholdSweep(2, [0.2, 0.4, 0.6])
    >>> train.add(np.array([[[0.3, 0.5, 0.9]]]), classes=[0], truth=np.array([[0, 1, 1]]))
    >>> val.add(np.array([[[0.3, 0.3, 0.9]]]), classes=[0], truth=np.array([[0, 1, 1]]))
    >>> train.best()
    (0.4, 1.0)
    >>> val.at(train.best()[0])
    array([[1, 0],
           [1, 1]])
    >>> apply_best_threshold(train, val)
    (0.4, 0.5)
    """

    def __init__(self, num_classes: int, thresholds: ArrayLike | None = None, ignore: int = 255) -> None:
        self.num_classes, self.ignore = check_num_classes(num_classes, ignore)
        self.thresholds = check_thresholds(np.arange(1, 100) / 100 if thresholds is None else thresholds)
        self.histograms: dict[int, NDArray[np.int64]] = {}
        self.images: dict[int, int] = {}

    def add(self, maps: ArrayLike, classes: ArrayLike, truth: ArrayLike, group: int | None = None) -> None:
        """Count one image.

        Args:
            maps: [K, H, W] in [0, 1], float16 to float64, or uint8 (value / 255); K = 0 means background only.
            classes: K classes of the maps, counted without the background: class c is label c + 1.
            truth: [H, W] integers, labels 0 to C-1 or `ignore`.
            group: group of the image; default: its number of classes, at most 3.

        Raises:
            InputError: shapes do not fit, a value is nan or outside [0, 1], or a class or label does not exist. The
                counts stay unchanged.
        """
        values, true = np.asarray(maps), check_integers(truth, "truth")
        if values.ndim != 3 or true.ndim != 2 or values.shape[1:] != true.shape:
            raise InputError(
                f"maps are {list(values.shape)} and truth {list(true.shape)}; give maps [K, H, W] and truth [H, W]"
            )
        labels = self._list_labels(classes, len(values))
        check_maps(values)
        if group is None:
            group = min(len(labels), 3)
        group = check_whole(group, "group")
        counted, rows = check_truth(true, self.num_classes, self.ignore)
        pixels, columns = values[:, counted], labels if len(labels) else np.zeros(1, np.int64)
        bins = len(self.thresholds) + 1
        cells = rows * (len(columns) * bins)  # without maps: background, above no threshold
        if len(labels):
            cells += pixels.argmax(0) * bins + self._count_below(pixels.max(0))
        counts = np.bincount(cells, minlength=self.num_classes * len(columns) * bins)
        histogram = self._get_histogram(group)
        histogram[:, columns] += counts.reshape(self.num_classes, len(columns), bins)
        self.images[group] += 1

    @property
    def groups(self) -> tuple[int, ...]:
        """Groups with images, sorted."""
        return tuple(sorted(self.histograms))

    @property
    def matrices(self) -> NDArray[np.int64]:
        """Confusion matrices of all images at each threshold, [T, C, C] int64."""
        return self._accumulate(self._sum_groups())

    def matrices_of(self, group: int) -> NDArray[np.int64]:
        """Return the confusion matrices of one group at each threshold, [T, C, C] int64.

        Raises:
            InputError: the group has no images.
        """
        if group not in self.histograms:
            known = ", ".join(map(str, self.groups)) or "none yet"
            raise InputError(f"no image was added to group {group!r}; groups with images: {known}")
        return self._accumulate(self.histograms[group])

    def scores(self, convention: Convention = "present", classes: Sequence[int] | None = None) -> Floats:
        """Compute mIoU at each threshold, [T] float64; see `camplug.metrics.miou` for the arguments."""
        return miou(self.matrices, convention, classes)

    def as_dict(
        self, convention: Convention = "present", classes: Sequence[int] | None = None
    ) -> dict[str, list[float | None]]:
        """Return the thresholds and the mIoU at each as a dict for JSON, with None for undefined values."""
        values = self.scores(convention, classes).tolist()
        return {"thresholds": self.thresholds.tolist(), "miou": [None if np.isnan(v) else v for v in values]}

    def best(self, convention: Convention = "present", classes: Sequence[int] | None = None) -> tuple[float, float]:
        """Return the threshold with the highest mIoU (the lowest of several), and that mIoU.

        A threshold chosen on the reported masks is an oracle; to choose it on another split, use
        `apply_best_threshold`.

        Raises:
            InputError: no pixel was counted, or none of the classes occurs.
        """
        scores = self.scores(convention, classes)
        if not self._sum_groups().any() or np.isnan(scores).all():
            raise InputError("no pixel was counted for the classes to score; add images with maps and truth first")
        place = int(np.nanargmax(scores))
        return float(self.thresholds[place]), float(scores[place])

    def at(self, threshold: float) -> NDArray[np.int64]:
        """Return the confusion matrix [C, C] int64 at one threshold of the grid.

        Raises:
            InputError: the threshold is not on the grid within 1e-9.
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
        """Return all counts as arrays, for `np.savez(path, **sweep.state())`, without pickle.

        Entries: num_classes [], ignore [], thresholds [T], groups [G], images [G], histograms [G, C, C, T+1].
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
        """Restore a sweep from its `state`, or from the file that `np.load(path)` opens.

        Raises:
            InputError: arrays are missing or inconsistent.
        """
        missing = [key for key in _STATE if key not in state]
        if missing:
            raise InputError(
                f"the state of a sweep lacks {', '.join(missing)}; give what ThresholdSweep.state() returned"
            )
        arrays = {key: np.asarray(state[key]) for key in _STATE}  # an .npz file reads from disk at each access
        sweep = cls(arrays["num_classes"].item(), arrays["thresholds"], arrays["ignore"].item())
        groups, images, histograms = arrays["groups"], arrays["images"], arrays["histograms"]
        shape = (len(groups), sweep.num_classes, sweep.num_classes, len(sweep.thresholds) + 1)
        if histograms.shape != shape or images.shape != groups.shape:
            raise InputError(
                f"the state's histograms are {list(histograms.shape)} with {len(images)} counts of images; "
                f"its other arrays ask for {list(shape)}"
            )
        for group, count, histogram in zip(groups.tolist(), images.tolist(), histograms, strict=True):
            sweep._get_histogram(group)[:] = histogram
            sweep.images[group] = count
        return sweep

    def __iadd__(self, other: ThresholdSweep) -> ThresholdSweep:
        self._check_like(other)
        for group, histogram in list(other.histograms.items()):
            mine = self._get_histogram(group)
            mine += histogram
            self.images[group] += other.images[group]
        return self

    def __add__(self, other: ThresholdSweep) -> ThresholdSweep:
        total = ThresholdSweep(self.num_classes, self.thresholds, self.ignore)
        total += self
        total += other
        return total

    def _list_labels(self, classes: ArrayLike, maps: int) -> NDArray[np.int64]:
        """Return the labels of the maps, [K]; raise InputError for bad classes."""
        given = check_integers(classes, "classes")
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

    def _count_below(self, values: NDArray[Any]) -> NDArray[np.intp]:
        """Count the thresholds below each value."""
        if values.dtype == np.uint8:
            found: NDArray[np.intp] = np.searchsorted(self.thresholds, np.arange(256) / 255)[values]
            return found
        return np.searchsorted(self.thresholds.astype(values.dtype), values)

    def _get_histogram(self, group: int) -> NDArray[np.int64]:
        if group not in self.histograms:
            self.histograms[group] = self._make_empty()
            self.images[group] = 0
        return self.histograms[group]

    def _make_empty(self) -> NDArray[np.int64]:
        return np.zeros((self.num_classes, self.num_classes, len(self.thresholds) + 1), np.int64)

    def _sum_groups(self) -> NDArray[np.int64]:
        total = self._make_empty()
        for histogram in self.histograms.values():
            total += histogram
        return total

    def _accumulate(self, histogram: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the matrix at each threshold i: pixels in bins above i under their class, the others as background."""
        above = np.cumsum(histogram[..., :0:-1], axis=-1)[..., ::-1]
        matrices = np.ascontiguousarray(np.moveaxis(above, -1, 0))
        matrices[..., 0] = histogram.sum((1, 2)) - matrices[..., 1:].sum(-1)
        return matrices

    def _check_like(self, other: Any) -> None:
        """Raise InputError unless `other` can be merged."""
        check_mergeable(self, other, "sweep")
        if not np.array_equal(self.thresholds, other.thresholds):
            raise InputError(
                f"one sweep has {len(self.thresholds)} thresholds, the other {len(other.thresholds)}, and they differ; "
                "merge sweeps that were made with the same thresholds="
            )


def apply_best_threshold(
    chosen: ThresholdSweep,
    reported: ThresholdSweep,
    convention: Convention = "present",
    classes: Sequence[int] | None = None,
) -> tuple[float, float]:
    """Return the best threshold of one sweep, and the mIoU of another sweep at that threshold.

    Args:
        chosen: sweep that chooses the threshold.
        reported: sweep that is scored.
        convention, classes: arguments of `miou`.

    Raises:
        InputError: the threshold is not on the grid of the second sweep, or the first one has nothing to score.
    """
    threshold, _ = chosen.best(convention, classes)
    return threshold, float(miou(reported.at(threshold), convention, classes))
