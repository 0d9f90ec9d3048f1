"""Lattices that the dense CRF keeps: built once, few, and shared by threads."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from crf_scenes import blocks, scene

import camplug.wsss.crf.kernels as kernels
from camplug.wsss.crf import (
    DenseCRF,
    Lattice,
    make_unary_from_labels,
)

CPU = torch.device("cpu")


@pytest.fixture
def built(monkeypatch):
    """The dimensions of the lattices that are built, in order; nothing is kept from before."""
    dimensions = []

    class Counted(Lattice):
        def __init__(self, features, images=None):
            dimensions.append(features.shape[1])
            super().__init__(features, images)

    monkeypatch.setattr(kernels, "Lattice", Counted)
    kernels.clear_kernel_cache()
    yield dimensions
    kernels.clear_kernel_cache()


def test_lattices_are_built_once(built):
    crf = DenseCRF(scene())
    for k in (2, 3):
        crf.refine(make_unary_from_labels(blocks(k), k))
    assert built == [2, 5]
    DenseCRF(scene(seed=1))
    assert built == [2, 5, 5], "the Gaussian of this size is there"
    DenseCRF(scene(), "affinitynet")
    assert built == [2, 5, 5, 5], "PSA's Gaussian is IRN's"
    DenseCRF(scene(), "deeplab")
    DenseCRF(scene(13))
    assert built[4:] == [2, 5, 2, 5]


def test_few_sizes_are_kept(built, monkeypatch):
    monkeypatch.setattr(kernels, "CACHED_PIXELS", 40)
    for width in (3, 4, 5, 4, 6):
        kernels.make_gaussian_kernel([(3, width)], 3, CPU)
    assert [key[0] for key in kernels._cache] == [((3, 4),), ((3, 6),)], "3 x 5 is the one not used for longest"
    kernels.make_gaussian_kernel([(20, 20)], 3, CPU)
    assert not kernels._cache, "too large to keep"


def test_threads_share_what_is_kept(built):
    sizes = [(12, 16), (9, 20), (30, 7)]
    unaries = {s: make_unary_from_labels(blocks(3, *s), 3) for s in sizes}
    want = {s: DenseCRF(scene(*s)).refine(unaries[s]) for s in sizes}
    shared = {s: DenseCRF(scene(*s)) for s in sizes}
    kernels.clear_kernel_cache()
    wrong, gate = [], threading.Barrier(6)

    def work(start):
        try:
            gate.wait()
            for turn in range(6):
                s = sizes[(start + turn) % 3]
                for crf in (DenseCRF(scene(*s)), shared[s]):
                    if not np.array_equal(crf.refine(unaries[s]), want[s]):
                        wrong.append(s)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert set(kernels._cache) == {((s,), 3.0, CPU) for s in sizes}
