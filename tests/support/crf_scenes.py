"""Scenes and labels for the dense CRF, and its exact updates with matrices over all pairs of pixels."""

from __future__ import annotations

import numpy as np

from camplug.wsss.crf import (
    DenseCRF,
    Lattice,
)


def crf_of(photo, settings="irn", *, backend, device):
    return DenseCRF(photo, settings, backend=backend, device=device if backend == "torch" else None)


def softmax(logits):
    e = np.exp(logits - logits.max(0))
    return e / e.sum(0)


def update(q, unary, matrices):
    """One exact update: Q, U [K, P]; matrices [P, P], normalised and weighted."""
    return softmax(-unary + sum(q @ m.T for m in matrices))


def iterated(unary, matrices, iterations):
    flat = unary.reshape(len(unary), -1).astype(np.float64)
    q = softmax(-flat)
    for _ in range(iterations):
        q = update(q, flat, matrices)
    return q.reshape(unary.shape)


def features(photo, settings):
    h, w = photo.shape[:2]
    y, x = np.mgrid[:h, :w].reshape(2, -1)
    (gxy, _), (bxy, brgb, _) = settings.gaussian, settings.bilateral
    return [np.stack([x / gxy, y / gxy], 1), np.column_stack([x / bxy, y / bxy, photo.reshape(-1, 3) / brgb])]


def normalised(matrix):
    n = 1 / np.sqrt(matrix.sum(1))
    return n[:, None] * matrix * n


def exact_matrices(photo, settings):
    weights = settings.gaussian[-1], settings.bilateral[-1]
    return [
        w * normalised(np.exp(-0.5 * ((f[:, None] - f[None]) ** 2).sum(-1)))
        for w, f in zip(weights, features(photo, settings), strict=True)
    ]


def lattice_matrices(photo, settings):
    """The same with the lattice's kernel, written out."""
    weights = settings.gaussian[-1], settings.bilateral[-1]
    eye = np.eye(photo.shape[0] * photo.shape[1], dtype=np.float32)
    return [
        w * normalised(Lattice(f).filter(eye).astype(np.float64))
        for w, f in zip(weights, features(photo, settings), strict=True)
    ]


def scene(h=12, w=16, seed=0, noise=9):
    """A disc before a ground and noise of so many levels, uint8 [h, w, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    inside = (y - h / 2) ** 2 + (x - w / 3) ** 2 < (min(h, w) / 3) ** 2
    base = np.where(inside[..., None], [200, 120, 60], [60, 90, 140])
    return np.clip(base + rng.normal(scale=noise, size=(h, w, 3)), 0, 255).astype(np.uint8)


def blocks(k, h=12, w=16, seed=0):
    """Labels in blocks of about 4x4 pixels."""
    coarse = np.random.default_rng(seed).integers(0, k, (-(-h // 4), -(-w // 4)))
    return coarse.repeat(4, 0).repeat(4, 1)[:h, :w]
