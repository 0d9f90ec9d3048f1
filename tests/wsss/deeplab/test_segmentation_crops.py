"""Crops of photographs, labels and saliency for DeepLab."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import labelled
import numpy as np
import pytest
import torch

import camplug
from camplug.errors import InputError
from camplug.wsss.deeplab.crops import SegmentationCrops
from camplug.wsss.pseudo import LabelFolder
from camplug.wsss.train import LabelCrops
from camplug.wsss.train.crops import load_label_picture

pytestmark = pytest.mark.filterwarnings("ignore:.*(self.log|does not say).*")


def test_saliency_is_cut_out_like_the_photograph(tmp_path):
    data = labelled.scenes(4)
    grey = replace(camplug.Preprocess(), mean=(0.0,) * 3, std=(1.0,) * 3)
    crops = LabelCrops(
        data,
        partial(load_label_picture, LabelFolder(labelled.labels(tmp_path)).renumber(data.classes), data),
        grey.normalize,
        crop=64,
        scales=(0.6, 1.6),
        stride=1,
    )

    def red(i):
        return np.asarray(data.photo(i), np.float32)[..., 0] / 255

    items = SegmentationCrops(crops, red)
    assert len(items) == 4
    for epoch in range(3):
        for number in range(4):
            item = items[epoch, number]
            assert torch.equal(item.image, crops[epoch, number].image)
            assert torch.equal(item.labels, crops[epoch, number].labels)
            assert int(item.number) == number
            inside = item.labels != 255
            assert item.saliency[~inside].eq(0).all()
            apart = (item.saliency - item.image[0])[inside].abs()  # bicubic there, bilinear here
            assert apart.mean() < 0.03
            assert inside.any()
    assert SegmentationCrops(crops)[0, 0].saliency.shape == (0, 0)


def test_another_image_takes_the_place_of_one_without_saliency(tmp_path):
    data = labelled.scenes(2)
    labels = LabelFolder(labelled.labels(tmp_path)).renumber(data.classes)
    crops = LabelCrops(data, partial(load_label_picture, labels, data), lambda p: p.float(), crop=32)

    def only_one(i):
        if i == 0:
            raise InputError("it is gone.")
        return np.full((48, 48), 0.25)

    crops.stride = 1
    items = SegmentationCrops(crops, only_one)
    with pytest.warns(UserWarning, match="scene0_000000: it is gone"):
        item = items[0, 0]
    assert int(item.number) == 1
    assert set(item.saliency.unique().tolist()) <= {0.0, 0.25}
    assert (item.saliency[item.labels != 255] == 0.25).all()
    assert items.substitutes.list_broken() == [("scene0_000000", "it is gone.")]


def test_pixels_are_normalised():
    reads = camplug.Preprocess(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
    pixels = torch.tensor([0, 255], dtype=torch.uint8).expand(3, 1, 2)
    wanted = torch.tensor([[[-1.0, 1.0]], [[-1.0, 3.0]], [[0.0, 1.0]]])
    assert torch.allclose(reads.normalize(pixels), wanted)
