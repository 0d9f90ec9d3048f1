"""Collection of the features of prototypes in one pass over a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from camplug.errors import InputError
from camplug.explain.clustering import compute_centroids, import_sklearn
from camplug.wsss.fpr.groups import UNGROUPED, is_usable
from camplug.wsss.fpr.prototypes import Prototypes
from camplug.wsss.fpr.regions import make_class_masks, masked_mean

AT_ONCE = 16  # images per transfer from a GPU


class _Negative(NamedTuple):
    """False positive: class score, mean feature [D], and present classes of its image, bool [C]."""

    score: float
    feature: Tensor
    present: Tensor


class Collector:
    """Collector of regions of present classes and the strongest false positives of absent ones (section 3.2.1).

    It stores one float32 feature [D] on the CPU for every present class of every image with a non-empty mask, and for
    every absent class those of the `negatives` images with the highest class score. Feature maps are not stored:
    `bytes` is at most 4 D for each label of the data set, plus (4 D + C) `negatives` C. With 1.5 labels per image and
    D = 1280 that is 7.7 kB per image, 77 MB for 10,000 images, and 1 MB for the negatives of 20 classes. `prototypes`
    temporarily needs a few times the memory of one class.

    The result does not depend on the order of the images, their batches, or their distribution over processes. An
    image that is added twice counts once.

    Args:
        classes: C, number of classes.
        clusters: maximum number of positive prototypes per class, K of k-means; 10 in the paper.
        negatives: maximum number of negative prototypes per class; 10 in the paper.
        theta: threshold of the normalised class maps; 0.1 in the paper.
        seed: seed of k-means.

    Raises:
        InputError: a number is out of range, or scikit-learn is not installed.
    """

    def __init__(
        self, classes: int, *, clusters: int = 10, negatives: int = 10, theta: float = 0.1, seed: int = 0
    ) -> None:
        for name, value, least in (("classes", classes, 1), ("clusters", clusters, 1), ("negatives", negatives, 0)):
            if value < least:
                raise InputError(f"{name}={value}; give at least {least}.")
        make_class_masks(torch.zeros(1, 1, 1, 1), theta)  # checks theta
        import_sklearn()  # raise before the pass, not after it
        self.settings = {"classes": classes, "clusters": clusters, "negatives": negatives, "theta": theta, "seed": seed}
        self.classes, self.clusters, self.negatives, self.theta, self.seed = classes, clusters, negatives, theta, seed
        self._positive: list[dict[int, Tensor]] = [{} for _ in range(classes)]
        self._negative: list[dict[int, _Negative]] = [{} for _ in range(classes)]
        self._waiting: list[tuple[Tensor, Tensor, int]] = []  # on the device, not yet processed
        self._channels: int | None = None

    @property
    def bytes(self) -> int:
        """Memory of the stored tensors."""
        self._process_waiting()
        kept = [x for images in self._positive for x in images.values()]
        kept += [x for images in self._negative for entry in images.values() for x in (entry.feature, entry.present)]
        return sum(x.nbytes for x in kept)

    @torch.no_grad()
    def add(self, features: Tensor, class_maps: Tensor, present: Tensor, images: Sequence[int]) -> None:
        """Add a batch of images.

        Args:
            features: [N,D,h,w].
            class_maps: output of the 1x1 head without ReLU, [N,C,h,w]; their spatial mean is the class score.
            present: 1 where image n shows class c, [N,C].
            images: numbers of the images in the data set.

        Raises:
            InputError: the shapes do not fit together, or a value is not finite; on a GPU the latter is found up to 16
                images later.
        """
        n, c = len(images), self.classes
        if (
            features.ndim != 4
            or class_maps.shape != (n, c, *features.shape[2:])
            or len(features) != n
            or tuple(present.shape) != (n, c)
        ):
            raise InputError(
                f"features {list(features.shape)}, class maps {list(class_maps.shape)} and labels "
                f"{list(present.shape)} of {n} images do not fit; give [N,D,h,w], [N,{c},h,w] and [N,{c}]."
            )
        self._check_channels(features.shape[1])
        labels = present.detach().cpu() > 0
        for i, image in enumerate(images):
            # one image at a time, cloned, so that rounding does not depend on the batch
            found = self._measure(features[i : i + 1].clone(), class_maps[i : i + 1].float().clone())
            self._waiting.append((found, labels[i], int(image)))
            if found.device.type == "cpu" or len(self._waiting) >= AT_ONCE:
                self._process_waiting()

    def _measure(self, features: Tensor, class_maps: Tensor) -> Tensor:
        """Compute the mean feature, the score and the presence of every class's region; float32 [C,D+2]."""
        masks = make_class_masks(class_maps, self.theta)
        means = masked_mean(features, masks)[0].float()
        scores, filled = class_maps.mean((2, 3))[0], masks.flatten(2).any(2)[0]
        return torch.cat([means, scores[:, None], filled[:, None].float()], 1)

    def _process_waiting(self) -> None:
        """Store the features of waiting images, with one transfer from the device for all of them."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        rows = torch.stack([found for found, *_ in waiting]).cpu()
        for found, (_, present, image) in zip(rows, waiting, strict=True):
            if not found.isfinite().all():
                raise InputError(
                    f"the features or class maps of image {image} are not finite; the network has diverged."
                )
            means, scores, filled = found[:, :-2], found[:, -2].tolist(), found[:, -1] > 0
            for c in (filled & present).nonzero().flatten().tolist():
                self._positive[c][image] = means[c].clone()
            for c in (filled & ~present).nonzero().flatten().tolist():
                if self._is_strong(c, scores[c], image):
                    self._keep(c, image, _Negative(scores[c], means[c].clone(), present.clone()))

    def _is_strong(self, c: int, score: float, image: int) -> bool:
        kept = self._negative[c]
        return len(kept) < self.negatives or any((score, -image) > (kept[i].score, -i) for i in kept)

    def _keep(self, c: int, image: int, entry: _Negative) -> None:
        kept = self._negative[c]
        kept[image] = entry
        if len(kept) > self.negatives:
            del kept[self._rank(c)[-1]]

    def _rank(self, c: int) -> list[int]:
        """Sort the images of a class's negatives by decreasing score, then by number."""
        kept = self._negative[c]
        return sorted(kept, key=lambda image: (-kept[image].score, image))

    def _check_channels(self, channels: int) -> None:
        if self._channels not in (None, channels):
            raise InputError(f"features with {channels} channels after {self._channels}; take them from one layer.")
        self._channels = channels

    def state(self) -> dict[str, Any]:
        """Return the collected features as plain numbers and tensors, for other processes or files."""
        self._process_waiting()
        positive = [(c, i, x) for c, images in enumerate(self._positive) for i, x in sorted(images.items())]
        negative = [(c, i, self._negative[c][i]) for c in range(self.classes) for i in self._rank(c)]
        d = self._channels or 0
        return {
            "settings": dict(self.settings),
            "positive_place": torch.tensor([entry[:2] for entry in positive], dtype=torch.int64).view(-1, 2),
            "positive": _stack([x for *_, x in positive], d),
            "negative_place": torch.tensor([entry[:2] for entry in negative], dtype=torch.int64).view(-1, 2),
            "negative_score": torch.tensor([x.score for *_, x in negative], dtype=torch.float64),
            "negative": _stack([x.feature for *_, x in negative], d),
            "negative_present": _stack([x.present for *_, x in negative], self.classes).bool(),
        }

    @classmethod
    def merge(cls, states: Sequence[dict[str, Any]]) -> Collector:
        """Merge the states of several collectors, independent of their order.

        Args:
            states: results of `state`.

        Raises:
            InputError: there is no state, or the collectors differ in settings or channels.
        """
        if not states:
            raise InputError("there is no state to merge; give the state() of at least one collector.")
        if any(state["settings"] != states[0]["settings"] for state in states):
            raise InputError(f"collectors with different settings: {[s['settings'] for s in states]}; use the same.")
        whole = cls(**states[0]["settings"])
        for state in states:
            if state["positive"].shape[1]:
                whole._check_channels(state["positive"].shape[1])
            for (c, image), feature in zip(state["positive_place"].tolist(), state["positive"], strict=True):
                whole._positive[c][image] = feature.clone()
            scores = state["negative_score"].tolist()
            for k, (c, image) in enumerate(state["negative_place"].tolist()):
                entry = _Negative(scores[k], state["negative"][k].clone(), state["negative_present"][k].clone())
                whole._keep(c, image, entry)
        return whole

    def prototypes(self, groups: Sequence[int] | None = None) -> Prototypes:
        """Compute the centroids of the positive regions of every class and its strongest false positives.

        The regions of a class are clustered in the order of their image numbers (`compute_centroids`).

        Args:
            groups: super-class of every class, from `get_group_numbers`; None makes every negative usable.

        Raises:
            InputError: there is not one group for every class.
        """
        self._process_waiting()
        groups = [UNGROUPED] * self.classes if groups is None else list(groups)
        if len(groups) != self.classes:
            raise InputError(f"{len(groups)} groups for {self.classes} classes; give one number for every class.")
        d = self._channels or 0
        positive, negative, kept = [], [], []
        for c in range(self.classes):
            images = self._positive[c]
            positive.append(compute_centroids(_stack([images[i] for i in sorted(images)], d), self.clusters, self.seed))
            entries = [self._negative[c][i] for i in self._rank(c)]
            negative.append(_stack([entry.feature for entry in entries], d))
            fits = [is_usable(c, entry.present.nonzero().flatten().tolist(), groups) for entry in entries]
            kept.append(torch.tensor(fits, dtype=torch.bool))
        return Prototypes(positive, negative, kept)


def _stack(rows: Sequence[Tensor], width: int) -> Tensor:
    return torch.stack(list(rows)) if rows else torch.zeros(0, width)
