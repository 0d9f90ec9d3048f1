"""Local prototypes of classes: centres of clusters of features, from training images with image labels."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camplug.errors import InputError
from camplug.explain.batch import check_batch
from camplug.explain.cam import CAM, PooledHead, cam, read_pooled_map
from camplug.explain.fuse import normalize_map
from camplug.models.class_names import find_class, find_class_names

FORMAT = "camplug local prototypes 1"


@dataclass(frozen=True, eq=False)
class LocalPrototypes:
    """Local prototypes of C classes (LPCAM).

    Attributes:
        positive: prototypes of each class, [J,K]; J is 0 for a class that no image showed.
        context: prototypes of the surroundings of each class, [M,K]; M may be 0.
    """

    positive: list[Tensor]
    context: list[Tensor]

    def make_vectors(self) -> Tensor:
        r"""Return the vector v of each class whose product with a unit feature is its mean cosine to the prototypes.

        .. math:: v = \frac1J \sum_j \frac{p_j}{\lVert p_j \rVert} - \frac1M \sum_m \frac{b_m}{\lVert b_m \rVert}

        Returns:
            Vectors [C,K]; 0 for a class without prototypes.
        """
        rows = []
        for positive, context in zip(self.positive, self.context, strict=True):
            row = positive.new_zeros(positive.shape[1])
            row = row + F.normalize(positive, dim=1).mean(0) if len(positive) else row
            rows.append(row - F.normalize(context, dim=1).mean(0) if len(positive) and len(context) else row)
        return torch.stack(rows)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the prototypes to an .npz file.

        Raises:
            InputError: the file cannot be written.
        """
        from camplug.images.save import write_atomically

        arrays = {"format": np.array(FORMAT)}
        for name, parts in (("positive", self.positive), ("context", self.context)):
            arrays[name] = torch.cat(parts).cpu().numpy()
            arrays[f"{name}_counts"] = np.array([len(p) for p in parts])
        write_atomically(os.fspath(path), lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LocalPrototypes:
        """Read a file that `save` wrote.

        Raises:
            InputError: the file is missing, damaged or of another kind.
        """
        name = os.fspath(path)
        try:
            with np.load(name, allow_pickle=False) as data:
                if str(data["format"]) != FORMAT:
                    raise KeyError
                return cls(
                    *(
                        list(torch.split(torch.from_numpy(data[part]), data[f"{part}_counts"].tolist()))
                        for part in ("positive", "context")
                    )
                )
        except (OSError, KeyError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "no file of prototypes"
            raise InputError(
                f"prototypes={name!r} cannot be read ({reason}); make it with `camplug fit-prototypes`."
            ) from None


def compute_local_centres(
    features: Tensor, weight: Tensor, bias: Tensor, clusters: int = 12, seed: int = 0
) -> tuple[Tensor, Tensor]:
    r"""Compute the centres of clusters of features by k-means on the cosine, and their class probabilities.

    .. math:: P = \mathrm{softmax}(W p + b)

    Args:
        features: [n,K].
        weight: W, weights of the head [C,K].
        bias: b, biases of the head [C].
        clusters: maximum number of clusters.
        seed: seed of k-means.

    Returns:
        The mean features p of the clusters [J,K], and their class probabilities [J,C].

    Raises:
        InputError: scikit-learn is not installed.
    """
    from camplug.explain.clustering import compute_centroids

    unit = F.normalize(features, dim=1)
    nearest = (unit @ F.normalize(compute_centroids(unit, clusters, seed), dim=1).T).argmax(1)
    found = sorted(set(nearest.tolist()))
    centres = torch.stack([features[nearest == j].mean(0) for j in found]) if found else features[:0]
    return centres, (centres @ weight.T + bias).softmax(1)


class _Sample:
    """Uniform random sample of rows that arrive in parts."""

    def __init__(self, most: int, seed: int) -> None:
        self.most, self.generator = most, torch.Generator().manual_seed(seed)
        self.rows: list[Tensor] = []
        self.keys: list[Tensor] = []

    def add(self, rows: Tensor) -> None:
        """Add rows [n,K]."""
        self.rows.append(rows)
        self.keys.append(torch.rand(len(rows), generator=self.generator, dtype=torch.float64))
        if sum(map(len, self.keys)) > 2 * self.most:
            self._shrink()

    def _shrink(self) -> None:
        rows, keys = torch.cat(self.rows), torch.cat(self.keys)
        kept = keys.argsort()[: self.most].sort()[0]  # the order of arrival stays
        self.rows, self.keys = [rows[kept]], [keys[kept]]

    def get(self) -> Tensor | None:
        """Return the sampled rows [n,K]; None without rows."""
        if not self.rows:
            return None
        self._shrink()
        return self.rows[0]


class PrototypeFitter:
    """Collector of features of a data set, and clustering of them into prototypes.

    Per class and side at most `max_positions` features are kept, a random sample: 51 MB of 1280 channels.

    Args:
        explainer: CAM of the classifier.
        clusters: maximum number of clusters per class and side; 12 in the authors' code.
        threshold: value of the CAM, normalised to maximum 1, above which a position belongs to the class.
        probability: softmax probability of the class that a prototype must exceed; if none does, the best one is kept.
        context: range of that probability in which a centre of the other positions is a context prototype.
        max_positions: maximum number of features per class and side.
        seed: seed of k-means and of the sample.

    Raises:
        InputError: a number is out of range, or scikit-learn is not installed.
    """

    def __init__(
        self,
        explainer: CAM,
        *,
        clusters: int = 12,
        threshold: float = 0.1,
        probability: float = 0.9,
        context: tuple[float, float] = (0.05, 0.9),
        max_positions: int = 10000,
        seed: int = 0,
    ) -> None:
        from camplug.explain.clustering import import_sklearn

        import_sklearn()  # raise before the pass, not after it
        if clusters < 1 or max_positions < clusters:
            raise InputError(
                f"clusters={clusters}, max_positions={max_positions}: give at least 1 cluster, and no more clusters "
                "than positions."
            )
        if not all(0 <= v <= 1 for v in (threshold, probability, *context)):
            raise InputError(
                f"threshold={threshold}, probability={probability}, context={context}: give numbers from 0 to 1."
            )
        self.explainer, self.clusters, self.threshold = explainer, clusters, threshold
        self.probability, self.context, self.max_positions, self.seed = probability, context, max_positions, seed
        self.head: PooledHead | None = None
        self._samples: dict[tuple[int, bool], _Sample] = {}

    @torch.no_grad()
    def add(self, photo: Any, classes: Sequence[int | str]) -> None:
        """Add one photograph and its classes, indices or names of the model's outputs.

        Raises:
            InputError: the photograph cannot be read.
            TargetError: a class does not exist.
            ModelError: the model has no head as CAM needs it.
        """
        from camplug.explain.photographs import read_input

        batch = check_batch(self.explainer.model, read_input(self.explainer, photo)[1][None])
        features, self.head = read_pooled_map(self.explainer, batch)
        count = len(self.head.weight)
        names = find_class_names(self.explainer.model, count, self.explainer.class_names)
        rows = features[0].flatten(1).T.cpu()  # [P,K]
        for c in (find_class(str(wanted), names, count) for wanted in classes):
            own = normalize_map(cam(features, self.head.weight[c : c + 1]))[0].flatten().cpu()
            for inside, where in ((True, own > self.threshold), (False, own < self.threshold)):
                sample = self._samples.setdefault((c, inside), _Sample(self.max_positions, self.seed))
                sample.add(rows[where])

    def fit(self) -> LocalPrototypes:
        """Cluster the collected features.

        Raises:
            InputError: no image was added.
        """
        if self.head is None:
            raise InputError("there are no training images to make prototypes of; give at least one.")
        weight, bias = self.head.weight.cpu(), self.head.bias.cpu()
        positive, context = [], []
        for c in range(len(weight)):
            centres, p = self._cluster(c, True, weight, bias)
            kept = p > self.probability
            if len(p) and not kept.any():
                kept = p == p.max()
            positive.append(centres[kept])
            centres, p = self._cluster(c, False, weight, bias)
            context.append(centres[(p > self.context[0]) & (p < self.context[1])])
        return LocalPrototypes(positive, context)

    def _cluster(self, c: int, inside: bool, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return the centres of the features of one side of a class, and their probabilities of it."""
        sample = self._samples.get((c, inside))
        rows = None if sample is None else sample.get()
        if rows is None or not len(rows):
            return weight.new_zeros(0, weight.shape[1]), weight.new_zeros(0)
        centres, p = compute_local_centres(rows, weight, bias, self.clusters, self.seed)
        return centres, p[:, c]


def fit_prototypes(
    model: nn.Module,
    samples: Iterable[tuple[Any, Sequence[int | str]]],
    *,
    class_names: Sequence[str] | None = None,
    preprocess: Callable[[Any], Tensor] | None = None,
    **options: Any,
) -> LocalPrototypes:
    """Make the local prototypes of a classifier for `LPCAM`, in one pass over training images without masks.

    For every class in an image, the features at positions where the class's CAM exceeds a tenth of its maximum are
    clustered over all images by k-means on the cosine; centres that the head assigns to the class (softmax above 0.9)
    are its prototypes. Centres of the other positions with a probability between 0.05 and 0.9 are its context.

    Args:
        model: classifier with global average pooling and one linear layer.
        samples: pairs of a photograph (as for `Explainer.explain`) and its classes (indices or names).
        class_names: class names by index; default: the model's own.
        preprocess: preprocessing; default: the model's own.
        options: arguments of `PrototypeFitter`.

    Raises:
        InputError: a photograph cannot be read, there is none, or scikit-learn is not installed.
        TargetError: a class does not exist.
        ModelError: the model has no such head.
    """
    fitter = PrototypeFitter(CAM(model, class_names=class_names, preprocess=preprocess), **options)
    for photo, classes in samples:
        fitter.add(photo, classes)
    return fitter.fit()
