"""Clustering of feature vectors by k-means."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from camplug.errors import InputError

STARTS = 10  # initialisations of k-means; the default of scikit-learn when the paper was written
ROUNDS = 10  # iterations of k-means


def compute_centroids(points: Tensor, clusters: int = 10, seed: int = 0) -> Tensor:
    """Compute distinct centroids of points by k-means.

    scikit-learn's KMeans with 10 initialisations (its default when the paper was written), 10 iterations, in one thread
    for bitwise equal results. If there are no more distinct points than clusters, these points are the centroids.

    Args:
        points: [n,D].
        clusters: maximum number of centroids.
        seed: seed of k-means.

    Returns:
        [k,D] on the points' device, k at most `clusters`.

    Raises:
        InputError: scikit-learn is not installed.

    >>> compute_centroids(torch.tensor([[0.0], [5.0], [5.0]]))
    tensor([[0.],
            [5.]])
    """
    rows = points.detach().cpu().numpy()
    different = _find_distinct(rows, clusters + 1)
    if len(different) > clusters:
        sklearn, threads = import_sklearn(), import_module("threadpoolctl")
        kmeans = sklearn.KMeans(clusters, n_init=STARTS, max_iter=ROUNDS, random_state=seed)
        with warnings.catch_warnings(), threads.threadpool_limits(1):
            warnings.simplefilter("ignore", import_module("sklearn.exceptions").ConvergenceWarning)
            different = _find_distinct(kmeans.fit(rows).cluster_centers_, clusters)
    return torch.from_numpy(different).to(points)


def import_sklearn() -> Any:
    """Import scikit-learn's module of clustering.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        return import_module("sklearn.cluster")
    except ImportError:
        raise InputError(
            'prototypes need the package scikit-learn; install it with: pip install "camplug[train]".'
        ) from None


def _find_distinct(rows: np.ndarray[Any, Any], most: int) -> np.ndarray[Any, Any]:
    """Return the first `most` distinct rows in their order."""
    found: dict[bytes, int] = {}
    for i, row in enumerate(rows):
        found.setdefault((row + 0).tobytes(), i)  # -0 is 0
        if len(found) == most:
            break
    return rows[list(found.values())]
